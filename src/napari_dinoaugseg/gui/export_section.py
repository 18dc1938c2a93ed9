"""Export of masks, a report and the model, and use of a saved model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QWidget

from napari_dinoaugseg.case import VolumeCase
from napari_dinoaugseg.case.files import suffix_of
from napari_dinoaugseg.case.itksnap import SUFFIXES as DESCRIPTION_SUFFIXES
from napari_dinoaugseg.case.writing import RTSTRUCT_SUFFIX, SEG_SUFFIXES
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.widgets import (
    Purpose,
    ask_for_file,
    ask_for_folder,
    ask_where_to_save,
    button,
    chosen,
    column,
    confirmed,
    sentence,
)
from napari_dinoaugseg.gui.words import counted, noun_of
from napari_dinoaugseg.session.export import (
    MANUAL_AND_ACCEPTED,
    MANUAL_ONLY,
    export_masks,
    planned_files,
    write_label_table,
    write_report,
)
from napari_dinoaugseg.session.labels import EVERYTHING, Status

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

MODEL_SUFFIX = ".safetensors"
_EVERYTHING, _REVIEWED = "Everything", "Reviewed only"
_NAMED = 6  # the most files that a question lists by name

_SHOWN = Change.SESSION | Change.LABELS | Change.PREDICTIONS | Change.CLASSES | Change.WORK | Change.SAVED_SESSIONS

_CHOICES: tuple[tuple[str, tuple[Status, ...]], ...] = (
    ("Everything, predictions too", EVERYTHING),
    ("Labelled by hand and accepted", MANUAL_AND_ACCEPTED),
    ("Labelled by hand only", MANUAL_ONLY),
)


class ExportSection(QWidget):
    """The section "Export"."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self._build()
        controller.changed.connect(self._on_change)
        self.refresh()

    # --- building ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.include = QComboBox()
        self.include.addItems([text for text, _ in _CHOICES])
        self.include.setToolTip("The slices whose labels go into the mask; the others are background")
        self.include.currentIndexChanged.connect(self.refresh)
        self.contents = sentence()
        self.per_class = QCheckBox("One file per class")
        self.per_class.setToolTip("Otherwise all classes go into one file, each with its number")
        self.mask_button = button("Export mask…", "", self.export_mask)
        self.report_button = button(
            "Write report…",
            "A JSON file: slices by status, volumes, encoder, settings, versions; no names of files or patients",
            self.export_report,
        )
        self.table_button = button(
            "Write label table…",
            "Names and colours of the classes as label descriptions of ITK-SNAP; beside a mask of the same name they "
            "are loaded with it",
            self.export_table,
        )
        self.send_button = button(
            "Send to PACS…", "Store the mask as DICOM SEG or RTSTRUCT in the study on the PACS", self.send_to_pacs
        )
        self.save_button = button("Save model…", "Save the trained model, for the next patient", self.save_model)
        self.apply_button = button("Apply a saved model…", "Predict this case with a saved model", self.apply_model)
        self.result = sentence()
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.result.hide()
        grid = QGridLayout()
        grid.addWidget(self.mask_button, 0, 0)
        grid.addWidget(self.report_button, 0, 1)
        grid.addWidget(self.save_button, 1, 0)
        grid.addWidget(self.apply_button, 1, 1)
        grid.addWidget(self.table_button, 2, 0)
        grid.addWidget(self.send_button, 2, 1)
        above = (QLabel("What goes into the mask:"), self.include, self.contents, self.per_class)
        column(self, *above, grid, self.result, margins=(6, 4, 6, 4))

    # --- showing ----------------------------------------------------------------------------------------------------

    def _on_change(self, what: Change) -> None:
        if what & Change.SESSION:
            self.result.hide()
        if what & _SHOWN:
            self.refresh()

    def refresh(self, *_: object) -> None:
        """Show what the mask would contain, and enable the buttons."""
        session, idle = self.controller.session, not self.controller.jobs.busy
        can_write = (
            session is not None and idle and bool(session.labels.classes) and not self.controller.sessions.unanswered
        )
        trained = session is not None and session.is_trained
        for widget in (self.include, self.per_class):
            widget.setEnabled(session is not None)
        self.mask_button.setEnabled(can_write)
        self.report_button.setEnabled(can_write)
        self.table_button.setEnabled(can_write)
        self.send_button.setEnabled(can_write and session is not None and _is_of_pacs(session))
        self.save_button.setEnabled(trained and idle)
        self.apply_button.setEnabled(session is not None and idle)
        self.contents.setText(self._contents(session) if session is not None else "Open a case first.")
        pictures = session is not None and session.case.kind == "pictures"
        self.per_class.setText("One folder per class" if pictures else "One file per class")
        self.mask_button.setText("Export masks…" if pictures else "Export mask…")
        self.mask_button.setToolTip(
            "One PNG for each picture, of the picture's own size"
            if pictures
            else "NIfTI, NRRD or, for a DICOM series, DICOM SEG or RTSTRUCT, in exactly the geometry of the case"
        )

    def _contents(self, session: Session) -> str:
        book, n_slices = session.labels, session.case.n_slices
        counts = dict.fromkeys(EVERYTHING, 0)
        for index in range(n_slices):
            status = book.status(index)
            if status in counts:
                counts[status] += 1
        words = {Status.MANUAL: "by hand", Status.ACCEPTED: "accepted", Status.PREDICTED: "predicted"}
        parts = [f"{counts[status]} {words[status]}" for status in self._wanted() if counts[status]]
        empty = n_slices - sum(counts[status] for status in self._wanted())
        left = f"; {empty} left as background" if empty else ""
        noun, listed = noun_of(session.case), ", ".join(parts) or "none labelled"
        return f"{n_slices} {noun}s: {listed}{left}. {session.case.lacking}".rstrip()

    def _wanted(self) -> tuple[Status, ...]:
        return _CHOICES[self.include.currentIndex()][1]

    def _show_result(self, text: str) -> None:
        self.result.setText(text)
        self.result.show()

    # --- writing and loading ----------------------------------------------------------------------------------------

    @guarded
    def export_mask(self) -> None:
        """Ask where to write, ask before replacing files, and write in the background."""
        self.controller.flush()
        session = self.controller.session
        path = self._ask_mask_path(session) if session is not None else None
        if session is None or path is None:
            return
        include, per_class = self._wanted(), self.per_class.isChecked()
        unseen = session.labels.unseen(include)
        reviewed_only = self._ask_what(session, include, unseen)
        if reviewed_only is None:
            return
        if not self._may_replace(planned_files(session, path, per_class=per_class)):
            return

        def write() -> list[Path]:
            return export_masks(session, path, include, per_class=per_class, reviewed_only=reviewed_only)

        unseen_slices = counted(len(unseen), noun_of(session.case))
        left_out = f" On {unseen_slices}, what nobody has looked at is background." if reviewed_only else ""
        self.controller.jobs.run(
            "Writing the mask", write, lambda written: self._show_result(f"Written: {_listed(written)}.{left_out}")
        )

    @guarded
    def send_to_pacs(self) -> None:
        """Ask for the PACS, and send the mask to the study that the case came from."""
        self.controller.flush()
        session, include = self.controller.session, self._wanted()
        if session is None or not isinstance(session.case, VolumeCase):
            return
        reviewed_only = self._ask_what(session, include, session.labels.unseen(include))
        if reviewed_only is None:
            return
        from napari_dinoaugseg.gui.pacs import SendDialog

        def write(path: Path) -> list[Path]:
            return export_masks(session, path, include, reviewed_only=reviewed_only)

        SendDialog(self.controller, self, write, session.case.mask_suffixes, self._show_result).open()

    @guarded
    def export_report(self) -> None:
        """Write the JSON report."""
        self.controller.flush()
        session, include = self.controller.session, self._wanted()
        path = self._ask_new_file("report", "Write the report", "report.json", "JSON (*.json)", (".json",))
        if session is None or path is None or not self._may_replace([path]):
            return

        def write() -> None:
            write_report(path, session, include)

        self.controller.jobs.run("Writing the report", write, lambda _: self._show_result(f"Written: {path}"))

    @guarded
    def export_table(self) -> None:
        """Write the label descriptions of ITK-SNAP, by default with the name of the mask."""
        session = self.controller.session
        if session is None:
            return
        name, filters = f"{session.case.name}_mask.txt", "ITK-SNAP label descriptions (*.txt *.label)"
        path = self._ask_new_file("export", "Write the label table", name, filters, DESCRIPTION_SUFFIXES)
        if path is not None and self._may_replace([path]):
            write_label_table(path, session)
            self._show_result(f"Written: {path}")

    @guarded
    def save_model(self) -> None:
        """Save the trained model."""
        session = self.controller.session
        name, filters = f"model{MODEL_SUFFIX}", f"Model (*{MODEL_SUFFIX})"
        path = self._ask_new_file("model", "Save the model", name, filters, (MODEL_SUFFIX,))
        if session is not None and path is not None and self._may_replace([path]):
            self.controller.saving.secure()
            session.save_model(path)
            self._show_result(f"Written: {path}")

    def apply_model(self) -> None:
        """Predict the open case with a saved model."""
        filters = f"Model (*{MODEL_SUFFIX})"
        path = ask_for_file(self, "model", "Apply a saved model", filters, beside=self._beside())
        if path is not None:
            self.result.hide()
            self.controller.jobs.load_model(path)

    # --- asking -----------------------------------------------------------------------------------------------------

    def _beside(self) -> Path | None:
        """The folder that contains the open case."""
        session = self.controller.session
        return session.case.path.parent if session is not None and session.case.path.is_absolute() else None

    def _ask_mask_path(self, session: Session) -> Path | None:
        case = session.case
        if not isinstance(case, VolumeCase):
            return self._ask_folder(f"{case.name}_masks")
        suffixes = case.mask_suffixes
        kinds = {
            "NIfTI": [s for s in suffixes if s in (".nii", ".nii.gz")],
            "NRRD": [s for s in suffixes if s == ".nrrd"],
            "3D Slicer segmentation": [s for s in suffixes if s == ".seg.nrrd"],
            "DICOM SEG": [s for s in suffixes if s in SEG_SUFFIXES],
            "DICOM RTSTRUCT": [s for s in suffixes if s == RTSTRUCT_SUFFIX],
            "TIFF": [s for s in suffixes if s in (".tif", ".tiff")],
            "PNG": [s for s in suffixes if s == ".png"],
        }
        ordered = sorted((name for name in kinds if kinds[name]), key=lambda name: suffixes.index(kinds[name][0]))
        filters = ";;".join(f"{name} ({' '.join('*' + s for s in kinds[name])})" for name in ordered)
        # A name for a DICOM object is kept even where it cannot be written: the export then reports the reason.
        kept = (*suffixes, *SEG_SUFFIXES, RTSTRUCT_SUFFIX)
        return self._ask_new_file("export", "Export the mask", f"{case.name}_mask{suffixes[0]}", filters, kept)

    def _ask_folder(self, name: str) -> Path | None:
        """A new folder inside the chosen one, so that masks never mix with other pictures."""
        title = f"Where to make the folder {name}"
        picked = ask_for_folder(self, "export", title, beside=self._beside())
        return None if picked is None else picked / name

    def _ask_new_file(
        self, purpose: Purpose, title: str, name: str, filters: str, suffixes: Sequence[str]
    ) -> Path | None:
        asked = ask_where_to_save(self, purpose, title, name, filters, beside=self._beside())
        if asked is None:
            return None
        self.result.hide()
        self.controller.notify("", "clear")  # the message about the last file
        path, chosen_filter = asked
        own = suffix_of(path)
        meant = next((suffix for suffix in suffixes if f"*{suffix}" in chosen_filter and suffix.endswith(own)), own)
        if own and meant != own:  # mask.dcm under "DICOM RTSTRUCT"
            path = path.with_name(path.name[: -len(own)] + meant)
        elif own not in suffixes:
            fitting = next((suffix for suffix in suffixes if f"*{suffix}" in chosen_filter), suffixes[0])
            path = path.with_name(path.name + fitting)
        return path

    def _ask_what(self, session: Session, include: Sequence[Status], unseen: Sequence[int]) -> bool | None:
        """Ask about slices that nobody has looked at, and about an empty mask.

        Returns:
            Whether to leave out what nobody has looked at; None = write nothing.
        """
        reviewed_only = self._ask_for_unseen(session, include, unseen) if unseen else False
        if reviewed_only is None or not self._may_be_empty(session, include, reviewed_only=reviewed_only):
            return None
        return reviewed_only

    def _ask_for_unseen(self, session: Session, include: Sequence[Status], unseen: Sequence[int]) -> bool | None:
        """Ask about slices that nobody has looked at; returns whether to leave them out, None = write nothing."""
        noun = noun_of(session.case)
        total = sum(session.labels.status(index) in include for index in range(session.case.n_slices))
        text = (
            f"Nobody has looked at {len(unseen)} of the {total} {noun}s that go into the mask: they were filled by the "
            f"model or by Fill between, and have not been in view since. With '{_REVIEWED}', what nobody has looked at "
            "becomes background."
        )
        answer = chosen(self, f"Export {noun}s that nobody has looked at?", text, (_EVERYTHING, _REVIEWED))
        return None if answer is None else answer == 1

    def _may_be_empty(self, session: Session, include: Sequence[Status], *, reviewed_only: bool) -> bool:
        """Ask before writing an empty mask."""
        book = session.labels
        for index in range(session.case.n_slices):
            status = book.status(index)
            if status in include and not (reviewed_only and not book.is_seen(status, index)):
                return True
        return confirmed(
            self, "Write an empty mask?", "There are no such labels: the whole mask would be background. Write it?"
        )

    def _may_replace(self, files: Sequence[Path]) -> bool:
        """Ask before replacing files."""
        there = [file for file in files if file.exists()]
        if not there:
            return True
        exist, them = ("exists", "it") if len(there) == 1 else ("exist", "them")
        return confirmed(self, "Replace existing files?", f"{_listed(there)} already {exist}. Replace {them}?")


def _is_of_pacs(session: Session) -> bool:
    """Whether masks of the case can go to a study: that of a DICOM series."""
    return isinstance(session.case, VolumeCase) and not SEG_SUFFIXES.isdisjoint(session.case.mask_suffixes)


def _listed(files: Sequence[Path]) -> str:
    """List files, the first with its folder, the others by name."""
    names = [str(files[0]), *(file.name for file in files[1:_NAMED])]
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return ", ".join(names) + more
