"""How to begin while no case is open: with the brain sample, with a case, or with the one that was open last."""

from __future__ import annotations

import json
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari.layers import Image
from qtpy.QtWidgets import QFrame, QWidget

from napari_dinoaugseg.case.array import SAMPLE, ArrayCase, is_sample
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.display import awaits_case
from napari_dinoaugseg.gui.widgets import FRAME, button, cache_settings, column, row, sentence

if TYPE_CHECKING:
    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.gui.controller import Controller

_KEY = "last"
_OPTIONS = ("series", "component", "plane", "every", "sequences")


@dataclass(frozen=True)
class Last:
    """What was open last, in whichever window.

    Attributes:
        kind: a case by itself, or a project.
        path: its file or folder.
        opened: when, in UTC.
        options: of the case, as for :func:`~napari_dinoaugseg.case.open_case`.
        others: files or folders of the further sequences of the case.
    """

    kind: Literal["case", "project"]
    path: Path
    opened: datetime
    options: dict[str, Any] = field(default_factory=dict)
    others: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The name of the file or folder."""
        return self.path.name


def last_opened() -> Last | None:
    """What was open last; None if nothing was, or if the note cannot be read."""
    text = cache_settings().value(_KEY)
    with suppress(TypeError, ValueError, KeyError, AttributeError):
        kept = json.loads(text)
        kind = {"case": "case", "project": "project"}[kept["kind"]]
        options = {name: value for name, value in kept["options"].items() if name in _OPTIONS}
        opened = datetime.fromisoformat(kept["opened"]).astimezone(UTC)
        others = tuple(Path(path) for path in kept.get("others", ()))
        return Last(kind, Path(kept["path"]), opened, options, others)  # type: ignore[arg-type]
    return None


def remember(last: Last) -> None:
    """Keep what is open for the next start, in place of what was kept before."""
    others = [str(path) for path in last.others]
    kept = {**asdict(last), "path": str(last.path), "opened": last.opened.isoformat(), "others": others}
    cache_settings().setValue(_KEY, json.dumps(kept))


def _open_now(controller: Controller) -> Last | None:
    """What is open and lies on disk: the project, or the case by itself."""
    project, session = controller.project.current, controller.session
    now = datetime.now(UTC)
    if project is not None:
        return Last("project", project.folder.absolute(), now)
    if session is None:
        return None
    case = session.case
    if case.path == SAMPLE or isinstance(case, ArrayCase) or not case.path.exists():
        return None  # the sample has a button of its own, and the image of a layer no file
    options = {**controller.cases.options, **({"plane": case.plane.value} if case.kind == "volume" else {})}
    source = controller.cases.source
    others = tuple(path.absolute() for path in source[1:]) if isinstance(source, list) else ()
    return Last("case", case.path.absolute(), now, options, others)


class StartSection(QWidget):
    """Three ways to begin, shown while neither a case nor a project is open.

    Args:
        controller: of the viewer.
        open_file: asks for a file and opens it.
        open_folder: asks for a folder and opens it.
        use_layer: annotates the image layer that is selected.
    """

    def __init__(self, controller: Controller, *, open_file: Any, open_folder: Any, use_layer: Any) -> None:
        super().__init__()
        self.controller = controller
        self._last: Last | None = last_opened()
        self._noted: object = None  # what was noted as open
        self.sample_button = button("Try the brain sample", "Open a T1 brain template", controller.cases.open_sample)
        self.file_button = button("Open a file…", "NIfTI, NRRD, DICOM, TIFF, a picture or a video", open_file)
        self.folder_button = button("Open a folder…", "A DICOM series, or pictures", open_folder)
        self.layer_button = button(
            "Use the image in the viewer", "Annotate the image layer that is selected in the layer list", use_layer
        )
        self.last_button = button("", "", self._go_on)
        self.sample_text = sentence(
            "A head in MR, 140 slices. Five of them can be labelled with one click, so that you see masks at once."
        )
        self.file_text = sentence("NIfTI, NRRD, DICOM, TIFF, PNG, JPEG and others; or drop it on the window.")
        self.last_text = sentence()
        parts = (
            *(self.sample_button, self.sample_text),
            *(row(self.file_button, self.folder_button), self.layer_button, self.file_text),
            *(self.last_button, self.last_text),
        )
        for large in (self.sample_button, self.file_button, self.folder_button, self.last_button):
            large.setMinimumHeight(34)
        column(self, *parts, spacing=6)
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.PROJECT):
            self._note()
        if what & (Change.SESSION | Change.PROJECT | Change.WORK | Change.OFFER | Change.LAYERS):
            self.refresh()

    def _note(self) -> None:
        """Note what is open, once for each opening."""
        project, session = self.controller.project.current, self.controller.session
        now = project.folder if project is not None else None if session is None else weakref.ref(session)
        if now == self._noted:
            return
        self._noted = now
        opened = _open_now(self.controller)
        if opened is not None:
            self._last = opened
            remember(opened)

    def refresh(self) -> None:
        """Show what was open last, and hide everything once something is open."""
        controller, last = self.controller, self._last
        self.setVisible(controller.session is None and controller.project.current is None)
        for widget in (self.sample_button, self.file_button, self.folder_button, self.layer_button, self.last_button):
            widget.setEnabled(not controller.jobs.busy)
        images = (layer for layer in controller.viewer.layers if isinstance(layer, Image))
        self.layer_button.setVisible(not all(awaits_case(image) for image in images))
        self.last_button.setVisible(last is not None)
        self.last_text.setVisible(last is not None)
        if last is not None:
            self.last_button.setText(f"Continue with {_short(last.name)}")
            self.last_button.setToolTip(str(last.path))
            day = f"{last.opened.astimezone():%d %B %Y, %H:%M}".lstrip("0")
            self.last_text.setText(f"The last {last.kind}, opened on {day}.")

    def _go_on(self) -> None:
        last, controller = self._last, self.controller
        if last is None:
            return
        if last.kind == "project":
            controller.project.open_folder(last.path)
        else:
            controller.cases.open_path([last.path, *last.others] if last.others else last.path, **last.options)


class SampleBar(QFrame):
    """Offers the true labels of five slices while the sample is open and nothing is labelled."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self._declined: Case | None = None
        self.setObjectName("sample_bar")
        self.setStyleSheet(FRAME.format(name="sample_bar"))
        self.text = sentence(
            "The tissue of this template is known. Label five slices with it, to see at once what the program makes of "
            "them?"
        )
        self.yes_button = button(
            "Label five slices", "Grey and white matter, as known; Ctrl+Z undoes it", controller.cases.label_sample
        )
        self.no_button = button("I paint myself", "Begin without labels", self._decline)
        column(self, self.text, row(self.yes_button, self.no_button), margins=(6, 6, 6, 6))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.LABELS | Change.WORK | Change.SAVED_SESSIONS | Change.PROJECT):
            self.refresh()

    def refresh(self) -> None:
        """Show or hide the offer."""
        controller, session = self.controller, self.controller.session
        self.setVisible(
            session is not None
            and is_sample(session.case)
            and session.case is not self._declined
            and not session.labels.labelled
            and not controller.read_only
            and not controller.sessions.unanswered
        )
        self.yes_button.setEnabled(not controller.jobs.busy)

    def _decline(self) -> None:
        session = self.controller.session
        self._declined = session.case if session is not None else None
        self.refresh()


_LONGEST = 32  # letters of a name on a button


def _short(name: str) -> str:
    """A name for a button: the middle of a long one is left out, and no letter of it is a shortcut."""
    shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 12]}…{name[-10:]}"
    return shown.replace("&", "&&")
