"""The cases of a project: opening and making one, its table, the way from case to case, and its exports."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QGridLayout, QLineEdit, QMenu, QWidget

from napari_dinoaugseg.case import Plane
from napari_dinoaugseg.case.files import (
    DICOM_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    suffix_of,
)
from napari_dinoaugseg.gui.case_section import FILES
from napari_dinoaugseg.gui.case_table import AddDialog, CaseTable
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.foreign_masks import take_for_project
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.widgets import (
    ask_for_file,
    ask_for_files,
    ask_for_folder,
    ask_for_frames,
    ask_for_volume,
    ask_where_to_save,
    button,
    choice,
    chosen,
    column,
    confirmed,
    quietly,
    row,
    sentence,
    single_shot,
)
from napari_dinoaugseg.gui.words import counted, in_words
from napari_dinoaugseg.learning.events import Cancel
from napari_dinoaugseg.session.adding import Addition, cases_in_folder, cases_of_files
from napari_dinoaugseg.session.nnunet import NnunetDataset, is_nnunet_export
from napari_dinoaugseg.session.project_export import existing_files, masks_of, report_on, write_nnunet, write_volumes
from napari_dinoaugseg.session.project_report import JSON_NAME, PAGE_NAME, write_project_report

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.project import Project, ProjectCase

_TYPING = 250  # ms after the last letter of the filter
_SHOWN = Change.PROJECT | Change.SESSION | Change.LABELS | Change.PREDICTIONS | Change.WORK
_KEEP, _LEAVE_OUT = "Keep it as the first case", "Leave it out"
_WITH_OPEN, _DONE_ONLY = "With their images", "Only the cases that are done"
_EVERYTHING, _REVIEWED = "Everything", "Reviewed only"
_LISTED = 5
_ANY_PLANE = "smallest pixels"


class CaseSteps(QWidget):
    """From case to case: shown at the top of the panel while a project is open."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        work = controller.project
        self.previous_button = button(
            "◀ Previous", tooltip("Open the previous case of the table", "previous_case"), lambda: work.step(-1)
        )
        self.next_button = button(
            "Next ▶", tooltip("Open the next case of the table", "next_case"), lambda: work.step(1)
        )
        self.done_button = button(
            "Done and next",
            tooltip("Tick this case as done, and open the first one that is not", "done_and_next"),
            work.done_and_next,
        )
        column(self, row(self.previous_button, self.next_button, self.done_button), margins=(0, 0, 0, 0))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.PROJECT | Change.SESSION | Change.WORK):
            self.refresh()

    def refresh(self) -> None:
        """Show the buttons while a project is open."""
        work, jobs = self.controller.project, self.controller.jobs
        self.setVisible(work.current is not None)
        may_leave = not jobs.busy or jobs.is_predicting or jobs.is_opening
        for widget in (self.previous_button, self.next_button):
            widget.setEnabled(may_leave and bool(work.order.cases))
        self.done_button.setEnabled(may_leave and work.case is not None and not work.read_only)


class CasesSection(QWidget):
    """The section "Project"."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self._shown: ProjectCase | None = None  # the open case that the table shows
        self._build()
        self._arrange()
        self._typing = single_shot(self._filter, self)
        controller.changed.connect(self._on_change)
        controller.project.several_found.connect(self._choose_volume)
        self.refresh()

    # --- building ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        work = self.controller.project
        self.facts = sentence()
        self.new_button = button("New project…", "Many cases with shared classes and one model", self._new)
        self.open_button = button("Open project…", "Open the folder of a project", self._open)
        self.make_button = button(
            "Make it a project…", "Go on with this case as the first of a project; its labels are kept", self._make
        )
        self.files_button = button("Add files…", "Add volumes, or pictures that form one case", self._add_files)
        self.folder_button = button(
            "Add folder…", "Add every volume in a folder, or DICOM series below it", self._add_folder
        )
        self.pacs_button = button(
            "Add from PACS…", "Search the PACS of the hospital, and add a series from it", self._add_from_pacs
        )
        self.plane = choice(
            [_ANY_PLANE, *(plane.value for plane in Plane)],
            "The direction of the slices of volumes that are added; it cannot change later",
        )
        self.plane.activated.connect(self._choose_plane)
        self.plane_row = QWidget()
        form = QFormLayout(self.plane_row)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Plane of new cases", self.plane)
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Show only cases whose name contains…")
        self.filter.setClearButtonEnabled(True)
        self.filter.textChanged.connect(lambda _: self._typing.start(_TYPING))
        self.table = CaseTable(work)
        self.table.opened.connect(self._open_case)
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(self._show_menu)
        self.find_button = button("Find the image…", "Choose where the image of this case lies now", self._find)
        self.next_text = sentence(rich=True)
        self.go_button = button("Go", "Open this case at this slice", work.go_to_suggestion)
        self.volumes_button = button(
            "Volumes…", "Write a table of the volumes of each class in each case", self._volumes
        )
        self.masks_button = button("Export masks…", "Write the mask of every case into a folder", self._masks)
        self.result = sentence()
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.result.hide()
        self.nnunet_button = button(
            "Export for nnU-Net…", "Write the cases that are done as a dataset of nnU-Net, without names", self._nnunet
        )
        self.foreign_button = button(
            "Masks of nnU-Net…", "Take masks that nnU-Net predicted, as predictions to be reviewed", self._foreign
        )
        self.report_button = button("Report…", "Write a report on all cases and the model, without names", self._report)
        self.exports = (
            self.volumes_button,
            self.masks_button,
            self.nnunet_button,
            self.foreign_button,
            self.report_button,
        )

    def _arrange(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(4)
        opening = (self.new_button, self.open_button, self.files_button, self.folder_button, self.pacs_button)
        for position, widget in enumerate(opening):
            grid.addWidget(widget, position // 2, position % 2)
        exports = QGridLayout()
        exports.setSpacing(4)
        for position, widget in enumerate(self.exports):
            exports.addWidget(widget, position // 2, position % 2)
        suggested = row(self.next_text, self.go_button, stretch=0)
        parts = (self.facts, grid, self.plane_row, self.make_button, self.filter, self.table, self.find_button)
        column(self, *parts, suggested, exports, self.result)

    # --- showing ----------------------------------------------------------------------------------------------------

    def _on_change(self, what: Change) -> None:
        if what & _SHOWN:
            self.refresh()

    def refresh(self) -> None:
        """Show the project."""
        controller, work = self.controller, self.controller.project
        idle, has_project = not controller.jobs.busy, work.current is not None
        writable = has_project and not work.read_only
        for widget in (self.new_button, self.open_button):
            widget.setEnabled(idle)
        self.make_button.setVisible(not has_project and controller.session is not None)
        self.make_button.setEnabled(idle and not controller.read_only)
        for widget in (self.files_button, self.folder_button, self.pacs_button, self.plane_row):
            widget.setVisible(has_project)
            widget.setEnabled(idle and writable)
        plane = work.current.plane if work.current is not None else None
        quietly(self.plane, lambda: self.plane.setCurrentText(plane or _ANY_PLANE))
        has_cases = work.current is not None and bool(work.current.cases)
        for widget in (self.filter, self.table, self.next_text, self.go_button):
            widget.setVisible(has_cases)
        for widget in self.exports:
            widget.setVisible(has_cases)
            widget.setEnabled(idle)
        self.foreign_button.setEnabled(idle and writable)
        self.find_button.setVisible(work.missing is not None)
        self.find_button.setEnabled(idle and writable)
        self.facts.setText(self._facts())
        if work.order.text != self.filter.text() and not self._typing.isActive():
            self.filter.setText(work.order.text)
        self.table.refresh()
        if work.case is not self._shown:
            self._shown = work.case
            self.table.show_case(work.case)
            self.result.hide()
        if has_cases and self.isVisible():
            self._show_suggestion()

    def _facts(self) -> str:
        work = self.controller.project
        if work.current is None:
            alone = "This case is open by itself. " if self.controller.session is not None else ""
            return f"{alone}A project keeps many cases with the same classes and one model."
        cases = work.current.cases
        if not cases:
            return f"Project {work.name} has no case yet: add files, or a folder."
        statuses = [work.status(case) for case in cases]
        slices = sum(len(status.labelled) for status in statuses)
        labelled = sum(bool(status.labelled) for status in statuses)
        done = sum(case.is_done for case in cases)
        shown = len(work.order.cases)
        where = f" in {counted(labelled, 'case')}" if labelled else ""
        hidden = f" {len(cases) - shown} hidden by the filter." if shown < len(cases) else ""
        locked = f" {work.read_only}" if work.read_only else ""
        return (
            f"Project {work.name}: {counted(len(cases), 'case')}, {done} done. "
            f"{counted(slices, 'slice') if slices else 'No slice'} labelled{where}.{hidden}{locked}"
        )

    def _show_suggestion(self) -> None:
        work = self.controller.project
        found = work.suggestion()
        case = work.find(found.case) if found is not None else None
        self.go_button.setEnabled(found is not None and (not self.controller.jobs.busy or case is work.case))
        if found is None or case is None:
            self.next_text.setText("Every case is done or labelled.")
        else:
            names = case.record.names
            name = names[found.index] if names else f"slice {found.index + 1}"
            self.next_text.setText(f"Label next: <b>{escape(case.name)}</b>, {escape(name)}<br>{escape(found.reason)}")

    def _show_menu(self, place: Any) -> None:
        case = self.table.cases.case(self.table.indexAt(place).row())
        if case is None:
            return
        menu, work = QMenu(self), self.controller.project
        menu.addAction("Open", lambda: work.open_case(case))
        menu.addAction("Not done" if case.is_done else "Done", lambda: work.set_done(case, done=not case.is_done))
        menu.addAction("Find the image…", lambda: self._find(case))
        menu.addAction("Remove from the project…", lambda: self._remove(case))
        ground: Any = self.table.viewport()
        menu.exec(ground.mapToGlobal(place))

    def _filter(self) -> None:
        self.controller.project.order.arrange(text=self.filter.text())

    # --- projects ---------------------------------------------------------------------------------------------------

    def _ask_new_folder(self) -> Path | None:
        asked = ask_where_to_save(self, "project", "New project: choose a place and a name", "project", "")
        return None if asked is None else asked[0]

    @guarded
    def _new(self) -> None:
        controller = self.controller
        controller.flush()
        session, keep = controller.session, False
        if session is not None and controller.project.current is None and session.labels.labelled:
            name = session.case.name
            text = f"{name} is open and has labels. Should it be the first case of the new project, with its labels?"
            answer = chosen(self, "New project", text, (_KEEP, _LEAVE_OUT))
            if answer is None:
                return
            keep = answer == 0
        folder = self._ask_new_folder()
        if folder is not None:
            (controller.project.make if keep else controller.project.create)(folder)

    def _make(self) -> None:
        folder = self._ask_new_folder()
        if folder is not None:
            self.controller.project.make(folder)

    def _open(self) -> None:
        folder = ask_for_folder(self, "project", "Open the folder of a project")
        if folder is not None:
            self.controller.project.open_folder(folder)

    # --- cases ------------------------------------------------------------------------------------------------------

    def _choose_plane(self) -> None:
        chosen_plane = self.plane.currentText()
        self.controller.project.choose_plane(None if chosen_plane == _ANY_PLANE else chosen_plane)
        self.refresh()

    def _open_case(self, case: ProjectCase) -> None:
        self.controller.project.open_case(case)

    def _add_files(self) -> None:
        files = ask_for_files(self, "case", "Add images to the project", FILES)
        if files:

            def found(additions: list[Addition]) -> None:
                self.controller.project.add(additions)

            self.controller.jobs.run("Looking at the files", lambda: cases_of_files(files), found)

    def _add_folder(self) -> None:
        folder = ask_for_folder(self, "case", "Add the volumes in a folder, or DICOM series below it")
        if folder is not None:
            self._look_into(folder)

    def _add_from_pacs(self) -> None:
        from napari_dinoaugseg.gui.pacs import FindDialog

        FindDialog(self.controller, self, self._look_into, "add").open()

    def _look_into(self, folder: Path) -> None:
        """Add what is in a folder; of several series those that the person ticks."""

        def found(result: tuple[list[Addition], list[str]]) -> None:
            additions, notices = result
            if any(entry.series is not None for entry in additions):
                dialog = AddDialog(additions, self)
                if not dialog.exec():
                    return
                additions = dialog.chosen
            if additions:
                self.controller.project.add(additions, notices)

        self.controller.jobs.run("Looking into the folder", lambda: cases_in_folder(folder), found)

    def _choose_volume(self, several: list[tuple[Addition, int]]) -> None:
        """Ask which volume of files with several, or which frames of long videos, are meant; once for equal counts."""
        chosen_ones: list[Addition] = []
        kinds = {(addition.is_video, count) for addition, count in several}
        for is_video, count in sorted(kinds):
            group = [addition for addition, held in several if (addition.is_video, held) == (is_video, count)]
            names = [addition.name for addition in group]
            number = ask_for_frames(self, count, names) if is_video else ask_for_volume(self, count, names)
            if number is not None:
                every, component = (number, None) if is_video else (None, number)
                chosen_ones += [replace(addition, every=every, component=component) for addition in group]
        if chosen_ones:
            self.controller.project.add(chosen_ones)

    def _find(self, case: ProjectCase | None = None) -> None:
        case = case or self.controller.project.missing
        if case is None:
            return
        title = f"Where is the image of {case.name}?"
        known = NIFTI_SUFFIXES | NRRD_SUFFIXES | PICTURE_SUFFIXES | DICOM_SUFFIXES | VIDEO_SUFFIXES
        is_file = not case.files and suffix_of(case.path) in known
        path = ask_for_file(self, "case", title, FILES) if is_file else ask_for_folder(self, "case", title)
        if path is not None:
            self.controller.project.relocate(case, path)

    def _remove(self, case: ProjectCase) -> None:
        text = f"Remove {case.name} from the project? Its labels are kept in the folder 'removed'; the image stays."
        if confirmed(self, "Remove this case?", text):
            self.controller.project.remove(case)

    # --- exports ----------------------------------------------------------------------------------------------------

    @guarded
    def _volumes(self) -> None:
        project = self.controller.project.current
        asked = ask_where_to_save(self, "report", "Write the volumes", "volumes.csv", "Table (*.csv)")
        if project is None or asked is None:
            return
        path = asked[0] if asked[0].suffix else asked[0].with_suffix(".csv")
        if path.exists() and not confirmed(self, "Replace this file?", f"{path} already exists. Replace it?"):
            return

        def done(problems: list[str]) -> None:
            self._show_result("\n".join([f"Written: {path}", *problems]))

        self.controller.jobs.run("Writing the volumes", lambda: write_volumes(project, path), done)

    @guarded
    def _masks(self) -> None:
        work = self.controller.project
        project = work.current
        folder = ask_for_folder(self, "export", "Write the masks of all cases into a folder")
        if project is None or folder is None:
            return
        cases = [case for case in project.cases if self._has_mask(case)]
        if not cases:
            self.controller.notify("No case has labels or predictions yet.")
            return
        reviewed_only = self._ask_what(cases)
        if reviewed_only is None or not self._may_replace(existing_files(cases, folder), folder):
            return
        cancel = Cancel()

        def source() -> Generator[Any, None, list[str]]:
            problems, written = [], 0
            for result in masks_of(project, cases, folder, replace=True, reviewed_only=reviewed_only):
                written += result.path is not None
                problems += [in_words(problem) for problem in result.problems]
                yield None
                if cancel:
                    break
            return [f"{counted(written, 'mask')} written into {folder}.", *problems]

        def done(lines: list[str]) -> None:
            more = [f"… and {len(lines) - 1 - _LISTED} more."] if len(lines) > _LISTED + 1 else []
            self._show_result("\n".join([*lines[: _LISTED + 1], *more]))

        self.controller.jobs.start("Writing the masks", source, done, cancel)

    @guarded
    def _nnunet(self) -> None:
        project = self.controller.project.current
        asked = ask_where_to_save(self, "export", "Export for nnU-Net: a new folder", "Dataset001_Project", "")
        if project is None or asked is None:
            return
        folder = asked[0]
        if is_nnunet_export(folder) and not confirmed(
            self, "Replace this dataset?", f"{folder} is a dataset that was exported before. Replace it?"
        ):
            return

        to_predict = self._ask_for_open_cases(project)
        if to_predict is None:
            return

        def done(dataset: NnunetDataset) -> None:
            cases = counted(len(dataset.entries), "case")
            self._show_result("\n".join([f"{cases} written into {folder}.", *dataset.notices]))

        self.controller.jobs.run(
            "Exporting for nnU-Net", lambda: write_nnunet(project, folder, to_predict=to_predict), done
        )

    def _ask_for_open_cases(self, project: Project) -> bool | None:
        """Whether to write the images of cases that are not done, too; None = write nothing."""
        done = sum(case.is_done for case in project.cases)
        left = len(project.cases) - done
        if not left or not done:
            return False
        text = (
            f"{counted(done, 'case')} will be written with labels. Should the images of the other {left} be written "
            "as well, for nnU-Net to predict? Its masks can then be taken back with 'Masks of nnU-Net…'."
        )
        answer = chosen(self, "Export for nnU-Net", text, (_WITH_OPEN, _DONE_ONLY))
        return None if answer is None else answer == 0

    @guarded
    def _foreign(self) -> None:
        folder = ask_for_folder(self, "predictions", "Folder with the masks that nnU-Net predicted")
        if folder is not None:
            take_for_project(self.controller, folder, self._show_result)

    @guarded
    def _report(self) -> None:
        project = self.controller.project.current
        folder = ask_for_folder(self, "report", "Write the report into a folder")
        if project is None or folder is None:
            return
        there = [folder / name for name in (JSON_NAME, PAGE_NAME) if (folder / name).exists()]
        if there and not confirmed(self, "Replace the report?", f"{folder} holds a report already. Replace it?"):
            return

        def done(files: list[Path]) -> None:
            self._show_result("\n".join(f"Written: {file}" for file in files))

        self.controller.jobs.run("Writing the report", lambda: write_project_report(folder, report_on(project)), done)

    def _ask_what(self, cases: Sequence[ProjectCase]) -> bool | None:
        """Whether to leave out what nobody has looked at; None = write nothing."""
        if not any(self.controller.project.status(case).n_predicted for case in cases):
            return False
        text = (
            f"In these {counted(len(cases), 'case')} some slices are predicted and not accepted. With '{_REVIEWED}', "
            "what nobody has looked at becomes background."
        )
        answer = chosen(self, "Export masks", text, (_EVERYTHING, _REVIEWED))
        return None if answer is None else answer == 1

    def _may_replace(self, there: Sequence[Path], folder: Path) -> bool:
        if not there:
            return True
        names = ", ".join(path.name for path in there[:_LISTED])
        text = f"{counted(len(there), 'mask')} of these cases already exist in {folder} ({names}). Replace them?"
        return confirmed(self, "Replace existing files?", text)

    def _has_mask(self, case: ProjectCase) -> bool:
        status = self.controller.project.status(case)
        return bool(status.labelled or status.n_predicted)

    def _show_result(self, text: str) -> None:
        self.result.setText(text)
        self.result.show()
