"""A project in the panel: many patients, one model, driven by mouse and keys."""

from __future__ import annotations

import csv
import shutil
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QDialog, QFileDialog, QInputDialog

from napari_dinoaugseg.case import Plane, open_case
from napari_dinoaugseg.gui.case_table import COLUMNS, DONE, NAME, AddDialog
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.project import Project
from napari_dinoaugseg.session.store import default_sessions_folder
from tests.blobs import truth_voxels, write_case
from tests.case.builders import numbers, write_dicom, write_nifti
from tests.gui.conftest import SMALL, paint, settle, wait_idle
from tests.gui.test_painting import stroke
from tests.session.test_foreign_masks import predict_as_nnunet

PATIENT = 20_000  # ms: a busy machine is slow
SHIFT = Qt.KeyboardModifier.ShiftModifier
CONTROL = Qt.KeyboardModifier.ControlModifier
QUICK = {**SMALL, "steps": 8, "views": 1}


@pytest.fixture(scope="session")
def patients(tmp_path_factory) -> list[Path]:
    """Three volumes of axial slices: image0, image1, image2."""
    folder = tmp_path_factory.mktemp("patients")
    files = [write_case(folder, seed)[0] for seed in range(3)]
    (folder / "truth.nii.gz").unlink()
    return files


class Hands:
    """What a person does with the panel."""

    def __init__(self, panel, qtbot, monkeypatch) -> None:
        self.panel, self.qtbot, self.patch = panel, qtbot, monkeypatch
        self.controller = panel.controller
        self.work = panel.controller.project
        self.table = panel.cases.table

    def click(self, button) -> None:
        """Press a button, and wait for the work that it starts."""
        self.qtbot.waitUntil(button.isEnabled, timeout=PATIENT)
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        wait_idle(self.qtbot, self.controller)

    def key(self, key, modifier=Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key in the canvas."""
        self.qtbot.keyClick(self.controller.viewer.window._qt_viewer.canvas.native, key, modifier)
        wait_idle(self.qtbot, self.controller)

    def answer(self, name: str, value) -> None:
        """The next file dialogs return this."""
        self.patch.setattr(QFileDialog, name, lambda *_, **__: value)

    def new(self, folder: Path, files=()) -> None:
        """Create a project, and add files."""
        self.answer("getSaveFileName", (str(folder), ""))
        self.click(self.panel.cases.new_button)
        if files:
            self.answer("getOpenFileNames", ([str(file) for file in files], ""))
            self.click(self.panel.cases.files_button)
            wait_idle(self.qtbot, self.controller)

    def open(self, folder: Path) -> None:
        """Open a project."""
        self.answer("getExistingDirectory", str(folder))
        self.click(self.panel.cases.open_button)
        wait_idle(self.qtbot, self.controller)

    def cell(self, name: str, column: int = NAME) -> QPoint:
        """The middle of a cell in the row of a case."""
        index = self.table.cases.index(self.names.index(name), column)
        self.table.scrollTo(index)
        return self.table.visualRect(index).center()

    def double_click(self, name: str) -> None:
        """Open a case in the table."""
        place, ground = self.cell(name), self.table.viewport()
        self.qtbot.mouseClick(ground, Qt.MouseButton.LeftButton, pos=place)
        self.qtbot.mouseDClick(ground, Qt.MouseButton.LeftButton, pos=place)
        wait_idle(self.qtbot, self.controller)

    def sort_by(self, column: str) -> None:
        """Click on a heading."""
        header = self.table.horizontalHeader()
        at = header.sectionViewportPosition(COLUMNS.index(column)) + 5
        self.qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(at, 6))
        settle()

    @property
    def names(self) -> list[str]:
        """The names in the table, from top to bottom."""
        return [self.table.cases.case(line).name for line in range(self.table.cases.rowCount())]

    def text(self, name: str, column: str) -> str:
        """What a cell shows."""
        return self.table.cases.index(self.names.index(name), COLUMNS.index(column)).data() or ""

    def rest(self) -> None:
        """Wait until the next cases are predicted."""
        self.qtbot.waitUntil(lambda: self.work._next_task() is None and not self.work.ahead.busy, timeout=60_000)
        settle()


@pytest.fixture
def hands(panel, controller, qtbot, monkeypatch) -> Hands:
    """The hands of a person at a panel with nothing open."""
    controller.setup.change(**QUICK)
    return Hands(panel, qtbot, monkeypatch)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of the project."""
    return tmp_path / "balls"


@pytest.fixture
def three(hands, folder, patients) -> Hands:
    """A project of three cases, the first one open."""
    hands.new(folder, patients)
    return hands


@pytest.fixture(scope="session")
def truth(patients) -> np.ndarray:
    """(16, H, W) labels of each case: 1 and 3."""
    return open_case(patients[0], plane="axial").to_slices(truth_voxels())


def on_disk(folder: Path, number: int):
    """The book of a case, read as another program would."""
    with Project(folder) as project:
        return project.book(project.cases[number - 1])[0]


def manual_on_disk(folder: Path, number: int) -> list[int]:
    """Slices painted in a case, as the project's folder has them."""
    return sorted({int(path.name[:5]) for path in (folder / "cases" / f"{number:03d}" / "slices").glob("0*_manual_*")})


# --- making and opening a project -----------------------------------------------------------------------------------


def test_files_become_cases_and_panel_and_title_say_which_one_is_open(hands, panel, folder, patients, tmp_path, said):
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    shutil.copy(patients[0], tmp_path / "image9.nii.gz")
    hands.new(folder, [*patients, tmp_path / "broken.nii.gz", tmp_path / "image9.nii.gz"])
    assert hands.names == ["image0", "image1", "image2"]
    assert any("3 cases added. 1 with the same pixels was there already. 1 could not be added:" in s for s in said)
    assert any("broken.nii.gz" in sentence for sentence in said)
    assert all(number in hands.work.thumbnails for number in (1, 2, 3))
    assert panel.head.name.text() == "image0 (16 slices)\nProject balls: case 1 of 3"
    assert hands.controller.viewer.title == "image0 · Project balls: case 1 of 3"
    assert "3 cases, 0 done" in panel.cases.facts.text()
    assert panel.steps.isVisible()
    assert not panel.cases.make_button.isVisible()
    assert sorted(path.name for path in (folder / "cases").iterdir()) == ["001", "002", "003"]


def test_a_case_by_itself_is_as_simple_as_before(panel, case, controller):
    assert not panel.folds["Project"].title.isChecked()
    assert not panel.steps.isVisible()
    assert panel.head.name.text() == "image0 (16 slices)"
    assert controller.viewer.title == "napari"


def test_a_case_with_labels_becomes_the_first_of_a_project(labelled, hands, folder, truth, qtbot, panel):
    labelled.setup.change(**QUICK)
    labelled.jobs.train()
    wait_idle(qtbot, labelled)
    labelled.labels.rename_class(1, "liver")
    session, layer, predicted = labelled.session, labelled.layers.manual, dict(labelled.session.labels.confidence)
    panel.folds["Project"].set_open(True)
    hands.answer("getSaveFileName", (str(folder), ""))
    hands.click(panel.cases.make_button)
    assert labelled.session is session
    assert labelled.layers.manual is layer  # nothing is loaded again
    assert panel.head.name.text().endswith("Project balls: case 1 of 1")
    labelled.view.go_to(6)
    stroke(qtbot, labelled.viewer)
    qtbot.waitUntil(lambda: manual_on_disk(folder, 1) == [4, 6, 8, 11], timeout=PATIENT)
    labelled.dispose()
    with Project(folder) as project:
        assert project.model_file is not None
        assert [entry.name for entry in project.classes] == ["liver", "class 3"]
        book = project.book(project.cases[0])[0]
        assert project.cases[0].predicted_by == project.model_file
    assert np.array_equal(book.manual(8), truth[8])
    assert set(predicted) - {6} <= set(book.confidence)


def test_a_new_project_asks_about_the_labelled_case_that_is_open(labelled, hands, folder, monkeypatch, panel):
    asked = []
    monkeypatch.setattr("napari_dinoaugseg.gui.cases_section.chosen", lambda *args: asked.append(args[2]) or 0)
    panel.folds["Project"].set_open(True)
    hands.new(folder)
    assert "image0 is open and has labels" in asked[0]
    assert hands.names == ["image0"]
    assert labelled.session.labels.labelled == [4, 8, 11]


def test_what_cannot_be_a_project_is_refused(controller, hands, folder, panel, failed, tmp_path):
    (tmp_path / "photos").mkdir()
    hands.open(tmp_path / "photos")
    assert "this is not the folder of a project" in failed[0]
    (tmp_path / "photos" / "a.txt").touch()
    hands.new(tmp_path / "photos")
    assert "holds other files" in failed[1]
    scan = controller.viewer.add_image(np.random.default_rng(0).random((9, 60, 60)), name="computed")
    controller.cases.use_layer(scan)
    settle()
    panel.folds["Project"].set_open(True)
    hands.answer("getSaveFileName", (str(folder), ""))
    hands.click(panel.cases.make_button)
    assert failed[2] == "computed was not opened from a file. Save the image as a file, and open that."
    assert hands.work.current is None
    assert not folder.exists()


def test_series_are_chosen_by_ticks_and_volumes_by_number(hands, folder, tmp_path, monkeypatch, panel):
    scans = tmp_path / "scans"
    for name, uid, count in (("t1", "1.2.3.1", 5), ("t2", "1.2.3.2", 4), ("scout", "1.2.3.3", 1)):
        write_dicom(scans / name, numbers((count, 12, 10), seed=count), series_uid=uid, description=name)
    seen = []

    def answer(dialog: AddDialog) -> int:
        shown = [[dialog.table.item(line, column).text() for column in (1, 2, 3)] for line in range(3)]
        seen.extend(shown)
        dialog.none_button.click()
        for line, entry in enumerate(shown):
            if entry[0] != "scout":
                dialog.table.item(line, 0).setCheckState(Qt.CheckState.Checked)
        return int(QDialog.DialogCode.Accepted)

    monkeypatch.setattr(AddDialog, "exec", answer)
    hands.new(folder)
    hands.answer("getExistingDirectory", str(scans))
    hands.click(panel.cases.folder_button)
    wait_idle(hands.qtbot, hands.controller)
    assert sorted(seen) == [["scout", "1", "CT"], ["t1", "5", "CT"], ["t2", "4", "CT"]]
    assert hands.names == ["t1", "t2"]
    monkeypatch.setattr(QInputDialog, "getInt", lambda *_: (2, True))
    cine = write_nifti(tmp_path / "cine.nii.gz", numbers((6, 5, 4, 3)))
    hands.answer("getOpenFileNames", ([str(cine)], ""))
    hands.click(panel.cases.files_button)
    wait_idle(hands.qtbot, hands.controller)
    assert hands.names == ["cine", "t1", "t2"]
    assert hands.work.find(3).component == 2


def test_the_plane_of_new_cases_is_chosen_and_remembered(hands, panel, folder, patients, qtbot):
    hands.new(folder, patients[:1])
    assert hands.work.find(1).record.plane == "axial"  # the plane with the smallest pixels
    panel.cases.plane.setFocus()
    qtbot.keyClicks(panel.cases.plane, "cor")
    panel.cases.plane.activated.emit(panel.cases.plane.currentIndex())  # as a click on the entry does
    hands.answer("getOpenFileNames", ([str(patients[1])], ""))
    hands.click(panel.cases.files_button)
    wait_idle(qtbot, hands.controller)
    assert hands.work.find(2).record.plane == "coronal"
    hands.controller.cases.close()
    hands.work.close()
    hands.open(folder)
    assert panel.cases.plane.currentText() == "coronal"
    hands.answer("getOpenFileNames", ([str(patients[2])], ""))
    hands.click(panel.cases.files_button)
    wait_idle(qtbot, hands.controller)
    assert hands.work.find(3).record.plane == "coronal"


def test_labels_of_an_earlier_session_follow_their_file_into_a_project(
    labelled, hands, folder, patients, blob_files, said
):
    labelled.labels.rename_class(1, "liver")
    hands.qtbot.waitUntil(lambda: labelled.saving.state.startswith("Saved "), timeout=PATIENT)
    painted, session = labelled.session.labels.manual(8).copy(), labelled.saving.folder
    labelled.cases.close()
    before = {path: path.read_bytes() for path in sorted(session.rglob("*")) if path.name != "lock" and path.is_file()}
    assert len(before) > 3
    hands.new(folder, [blob_files[0], patients[1]])
    assert any("1 brought the labels of an earlier session" in sentence for sentence in said)
    assert hands.text("image0", "manual") == "3"
    assert np.array_equal(on_screen(labelled, 8), painted)
    assert [entry.name for entry in labelled.session.labels.classes] == ["liver", "class 3"]
    labelled.view.go_to(6)
    stroke(hands.qtbot, labelled.viewer)
    hands.qtbot.waitUntil(lambda: manual_on_disk(folder, 1) == [4, 6, 8, 11], timeout=PATIENT)
    after = {path: path.read_bytes() for path in sorted(session.rglob("*")) if path.name != "lock" and path.is_file()}
    assert after == before


def on_screen(controller, index: int) -> np.ndarray:
    """The labels of a slice as the label book has them, and the layer shows them."""
    labels = controller.session.labels.manual(index)
    assert np.array_equal(controller.layers.manual.data[index] == 1, labels == 1)
    return labels


def test_a_class_that_another_case_needs_stays_and_the_panel_says_so(three, truth, qtbot, said):
    controller = three.controller
    controller.labels.rename_class(1, "liver")
    paint(controller, truth == 1, (8,))
    three.key(Qt.Key.Key_N, SHIFT)
    controller.labels.add_class("spleen")
    controller.labels.remove_class(2)
    controller.labels.remove_class(1)
    qtbot.waitUntil(lambda: any("'liver' was removed here, but stays" in text for text in said), timeout=PATIENT)
    assert any("image0 has labels of it" in sentence for sentence in said)
    assert not any("'spleen' was removed" in sentence for sentence in said)
    controller.labels.add_class("kidney")  # must not become what is labelled in the other case
    three.key(Qt.Key.Key_P, SHIFT)
    assert [entry.name for entry in controller.session.labels.classes] == ["liver", "kidney"]


class SlowReading:
    """Cases of projects that are read only once the test lets them."""

    def __init__(self, monkeypatch) -> None:
        self.go_on, opened = threading.Event(), Project.opened

        def wait(project, case):
            assert self.go_on.wait(PATIENT / 1000)
            return opened(project, case)

        monkeypatch.setattr(Project, "opened", wait)


def test_a_stroke_that_is_drawn_when_the_next_case_appears_ends_in_the_case_where_it_began(three, qtbot, monkeypatch):
    controller, canvas, left = (
        three.controller,
        three.controller.viewer.window._qt_viewer.canvas.native,
        Qt.MouseButton.LeftButton,
    )
    middle, book, index = QPoint(canvas.width() // 2, canvas.height() // 2), controller.session.labels, 8
    slow = SlowReading(monkeypatch)
    qtbot.keyClick(canvas, Qt.Key.Key_N, SHIFT)
    for place in (middle, middle + QPoint(0, 20)):
        qtbot.mouseMove(canvas, place)
        qtbot.mousePress(canvas, left, pos=place) if place is middle else None
        qtbot.wait(10)  # napari takes one movement in 5 ms
    slow.go_on.set()
    wait_idle(qtbot, controller)
    assert three.work.case.name == "image1"
    painted = book.manual(index).copy()
    assert painted.any()
    for x in (20, 40, 60):
        qtbot.mouseMove(canvas, middle + QPoint(x, -20))
        qtbot.wait(10)
    qtbot.mouseRelease(canvas, left, pos=middle + QPoint(60, -20))
    settle()
    assert not controller.session.labels.labelled
    assert not controller.layers.manual.data.any()
    stroke(qtbot, controller.viewer, ((0, 20), (20, 20)))  # the next one is drawn
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [index], timeout=PATIENT)
    three.key(Qt.Key.Key_P, SHIFT)
    assert np.array_equal(controller.session.labels.manual(index), painted)


def test_classes_changed_while_the_next_case_is_read_are_in_it(three, qtbot, monkeypatch):
    controller, canvas = three.controller, three.controller.viewer.window._qt_viewer.canvas.native
    slow = SlowReading(monkeypatch)
    qtbot.keyClick(canvas, Qt.Key.Key_N, SHIFT)
    settle()
    controller.labels.rename_class(1, "liver")
    controller.labels.add_class("spleen")
    slow.go_on.set()
    wait_idle(qtbot, controller)
    assert three.work.case.name == "image1"
    assert [entry.name for entry in controller.session.labels.classes] == ["liver", "spleen"]
    assert [entry.name for entry in three.work.current.classes] == ["liver", "spleen"]


def test_a_project_that_cannot_be_made_leaves_nothing_behind(hands, folder, patients, tmp_path, panel, failed):
    scan = Path(shutil.copy(patients[0], tmp_path / "scan.nii.gz"))
    hands.controller.cases.open_path(scan, background=False, plane="axial")
    settle()
    shutil.copy(patients[1], scan)  # the file was replaced meanwhile
    panel.folds["Project"].set_open(True)
    hands.answer("getSaveFileName", (str(folder), ""))
    hands.click(panel.cases.make_button)
    assert "the file was changed since it was opened" in failed[0]
    assert not folder.exists()
    folder.mkdir()
    hands.click(panel.cases.make_button)
    assert "the file was changed since it was opened" in failed[1]
    assert list(folder.iterdir()) == []
    assert hands.work.current is None


# --- labels ---------------------------------------------------------------------------------------------------------


def test_strokes_are_saved_in_the_project_and_come_back_with_the_case(three, folder, qtbot, panel):
    controller = three.controller
    controller.view.go_to(5)
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: manual_on_disk(folder, 1) == [5], timeout=PATIENT)
    qtbot.waitUntil(lambda: panel.saved.text().startswith("Saved "), timeout=PATIENT)
    painted = controller.session.labels.manual(5).copy()
    three.key(Qt.Key.Key_N, SHIFT)
    assert panel.head.name.text() == "image1 (16 slices)\nProject balls: case 2 of 3"
    assert [layer.name for layer in controller.viewer.layers] == ["image1", "prediction", "manual"]
    assert controller.session.labels.labelled == []
    assert not controller.layers.manual.data.any()
    three.key(Qt.Key.Key_P, SHIFT)
    assert np.array_equal(controller.session.labels.manual(5), painted)
    assert controller.current_slice == 5
    assert not default_sessions_folder().exists() or not any(default_sessions_folder().iterdir())


def test_each_case_has_its_own_strokes_and_undo_and_all_share_the_classes(three, folder, qtbot, said, panel):
    controller = three.controller
    controller.labels.rename_class(1, "liver")
    controller.labels.add_class("spleen")
    controller.labels.select_class(1)
    stroke(qtbot, controller.viewer)
    three.key(Qt.Key.Key_N, SHIFT)
    assert [entry.name for entry in controller.session.labels.classes] == ["liver", "spleen"]
    controller.view.go_to(3)
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [3], timeout=PATIENT)
    three.key(Qt.Key.Key_N, SHIFT)
    assert (manual_on_disk(folder, 1), manual_on_disk(folder, 2)) == ([8], [3])
    three.key(Qt.Key.Key_P, SHIFT)
    stroke(qtbot, controller.viewer, offsets=((-20, 30), (20, 30)))
    qtbot.wait(200)
    for _ in range(3):
        assert controller.session.labels.labelled == [3]
        assert "There is nothing to undo in this case." not in said
        three.key(Qt.Key.Key_Z, CONTROL)
        if not controller.session.labels.labelled:
            break
    three.key(Qt.Key.Key_Z, CONTROL)
    assert panel.message.text() == said[-1] == "There is nothing to undo in this case."
    three.key(Qt.Key.Key_Y, CONTROL)
    assert controller.session.labels.labelled == [3], "what was undone in an earlier visit can be redone"
    assert not panel.message.isVisible()
    three.key(Qt.Key.Key_Y, CONTROL)
    three.key(Qt.Key.Key_Y, CONTROL)
    assert panel.message.text() == "There is nothing to redo in this case."
    three.key(Qt.Key.Key_P, SHIFT)
    assert controller.session.labels.labelled == [8]
    controller.labels.remove_class(2)
    qtbot.waitUntil(lambda: [entry.name for entry in three.work.current.classes] == ["liver"], timeout=PATIENT)


def test_a_case_whose_classes_changed_in_another_one_begins_without_a_history(three, qtbot, said):
    controller = three.controller
    stroke(qtbot, controller.viewer)
    three.key(Qt.Key.Key_N, SHIFT)
    controller.labels.rename_class(1, "liver")  # for all cases
    three.key(Qt.Key.Key_P, SHIFT)
    three.key(Qt.Key.Key_Z, CONTROL)
    assert said[-1] == "There is nothing to undo in this case."
    assert controller.session.labels.labelled == [8]
    assert [entry.name for entry in controller.session.labels.classes] == ["liver"]


def test_a_case_opened_by_itself_closes_the_project(three, patients, folder, said, failed, panel):
    three.controller.cases.change_plane(Plane.CORONAL)
    assert "fixed" in failed[0]
    assert three.work.case is not None
    three.controller.cases.open_path(patients[2], plane="axial")
    wait_idle(three.qtbot, three.controller)
    assert three.work.current is None
    assert any(sentence.startswith("Project balls was closed") for sentence in said)
    assert not panel.folds["Project"].title.isChecked()
    assert three.controller.viewer.title == "napari"
    with Project(folder) as project:
        assert project.is_writable


def test_a_locked_project_can_be_looked_at_and_tried_again(hands, folder, patients, panel, qtbot):
    other = Project(folder)
    for file in patients:
        other.add(file, plane="axial")
    hands.open(folder)
    assert "open in another window or command" in panel.resume.text.text()
    assert not panel.resume.start_over_button.isVisible()
    assert hands.controller.read_only
    stroke(qtbot, hands.controller.viewer)
    qtbot.wait(200)
    assert hands.controller.session.labels.labelled == []
    hands.key(Qt.Key.Key_N, SHIFT)
    assert panel.head.name.text().startswith("image1")
    assert not panel.steps.done_button.isEnabled()
    other.close()
    hands.click(panel.resume.again_button)
    wait_idle(qtbot, hands.controller)
    assert not hands.controller.read_only
    hands.open(folder / ".." / folder.name)  # the same one, by another path
    assert not hands.controller.read_only
    stroke(qtbot, hands.controller.viewer)
    qtbot.waitUntil(lambda: hands.controller.session.labels.labelled == [8], timeout=PATIENT)


def test_the_last_strokes_are_saved_when_the_window_closes(three, folder, qtbot):
    stroke(qtbot, three.controller.viewer)
    three.controller.viewer.close()
    qtbot.waitUntil(lambda: three.controller.closed, timeout=PATIENT)
    assert on_disk(folder, 1).labelled == [8]


# --- from case to case ----------------------------------------------------------------------------------------------


def test_next_a_double_click_and_the_suggestion_open_cases(three, panel, qtbot, said, truth):
    three.sort_by("name")  # once more: descending
    assert three.names == ["image2", "image1", "image0"]
    three.click(panel.steps.previous_button)
    assert three.work.case.name == "image1"
    qtbot.keyClicks(panel.cases.filter, "image0")
    qtbot.waitUntil(lambda: three.names == ["image0"], timeout=PATIENT)
    three.click(panel.steps.next_button)
    assert three.work.case.name == "image0"
    three.click(panel.steps.next_button)
    assert said[-1] == "This is the last case of the table."
    assert "2 hidden by the filter" in panel.cases.facts.text()
    panel.cases.filter.clear()
    qtbot.waitUntil(lambda: len(three.names) == 3, timeout=PATIENT)
    three.double_click("image2")
    assert panel.head.name.text().startswith("image2")
    assert three.table.selected().name == "image2"
    paint(three.controller, truth, (8,))
    assert "a case without labels" in panel.cases.next_text.text()
    wanted = three.work.suggestion()
    three.click(panel.cases.go_button)
    assert three.work.case.number == wanted.case != 3
    assert three.controller.current_slice == wanted.index


def test_done_and_next_goes_to_the_first_that_is_not_done(three, panel, folder, said, truth, monkeypatch):
    ground = three.table.viewport()
    box = three.table.visualRect(three.table.cases.index(1, DONE))
    three.qtbot.mouseClick(ground, Qt.MouseButton.LeftButton, pos=QPoint(box.left() + 12, box.center().y()))
    settle()
    assert [case.is_done for case in three.work.current.cases] == [False, True, False]
    three.key(Qt.Key.Key_D, SHIFT)
    assert three.work.case.name == "image2"
    paint(three.controller, truth, (8,))
    three.click(panel.steps.done_button)
    assert any("Every case of the table is done" in sentence for sentence in said)
    assert "3 cases, 3 done" in panel.cases.facts.text()
    three.double_click("image0")
    monkeypatch.setattr("napari_dinoaugseg.gui.cases_section.confirmed", lambda *_: True)
    panel.cases._remove(three.work.find(3))
    wait_idle(three.qtbot, three.controller)
    assert three.names == ["image0", "image1"]
    (kept,) = (folder / "removed").iterdir()
    assert any("_manual_" in path.name for path in (kept / "slices").iterdir())
    three.work.close()
    with Project(folder) as project:
        assert [case.is_done for case in project.cases] == [True, True]


def test_keys_pressed_faster_than_cases_open_arrive_where_they_lead(three, qtbot, monkeypatch, said, panel):
    controller, canvas = three.controller, three.controller.viewer.window._qt_viewer.canvas.native
    slow, shown = SlowReading(monkeypatch), []
    controller.changed.connect(lambda _: shown.append(three.work.case.name))
    for _ in range(2):
        qtbot.keyClick(canvas, Qt.Key.Key_N, SHIFT)
    qtbot.waitUntil(panel.steps.previous_button.isEnabled, timeout=PATIENT)
    assert controller.jobs.is_opening
    slow.go_on.set()
    wait_idle(qtbot, controller)
    assert three.work.case.name == "image2"
    assert "image1" not in shown  # which nobody waited for
    slow.go_on.clear()
    qtbot.keyClick(canvas, Qt.Key.Key_P, SHIFT)
    qtbot.keyClick(canvas, Qt.Key.Key_N, SHIFT)
    slow.go_on.set()
    wait_idle(qtbot, controller)
    assert three.work.case.name == "image2"
    assert not controller.read_only
    assert not any("still running" in sentence for sentence in said)
    three.key(Qt.Key.Key_P, SHIFT)
    assert not controller.read_only


def test_a_case_without_its_image_does_not_bar_the_way(hands, folder, patients, tmp_path):
    images = [Path(shutil.copy(path, tmp_path)) for path in patients]
    hands.new(folder, images)
    work = hands.work
    images[1].rename(tmp_path / "gone")
    hands.key(Qt.Key.Key_N, SHIFT)
    assert (work.case.name, work.missing.name) == ("image0", "image1")
    hands.key(Qt.Key.Key_N, SHIFT)
    assert work.case.name == "image2"
    hands.key(Qt.Key.Key_P, SHIFT)
    assert work.case.name == "image2"
    hands.key(Qt.Key.Key_P, SHIFT)
    assert work.case.name == "image0"
    hands.key(Qt.Key.Key_D, SHIFT)
    assert work.case.name == "image2"
    work.remove(work.missing)
    wait_idle(hands.qtbot, hands.controller)
    assert work.missing is None


def test_a_moved_image_is_found_again(hands, folder, patients, tmp_path, panel, said):
    (tmp_path / "scans").mkdir()
    files = [Path(shutil.copy(file, tmp_path / "scans")) for file in patients[:2]]
    hands.new(folder, files)
    hands.work.close()
    hands.controller.cases.close()
    (tmp_path / "elsewhere").mkdir()
    moved = files[1].rename(tmp_path / "elsewhere" / "renamed.nii.gz")
    hands.open(folder)
    hands.double_click("image1")
    assert hands.work.case.name == "image0"
    assert any("the image of image1 is missing" in s and "'Find the image…' in the Project section" in s for s in said)
    assert "image missing" in hands.text("image1", "name")
    hands.answer("getOpenFileName", (str(patients[2]), ""))
    hands.click(panel.cases.find_button)
    assert any("these are not the pixels that were labelled" in sentence for sentence in said)
    hands.answer("getOpenFileName", (str(moved), ""))
    hands.click(panel.cases.find_button)
    wait_idle(hands.qtbot, hands.controller)
    assert hands.work.case.name == "image1"
    assert not panel.cases.find_button.isVisible()


# --- one model ------------------------------------------------------------------------------------------------------


def test_training_learns_from_all_cases_and_the_next_case_shows_masks_at_once(three, folder, truth, panel, qtbot):
    controller = three.controller
    controller.labels.add_class(None)
    controller.session.labels.add_class(number=3)
    controller.labels.show_classes()
    paint(controller, truth, (4, 11))
    three.key(Qt.Key.Key_N, SHIFT)
    assert panel.advice.text().startswith("2 slices labelled in other cases")
    paint(controller, truth, (8,))
    controller.setup.change(steps=12)
    three.click(panel.head.train_button)
    wait_idle(qtbot, controller)
    assert three.work.current.trainings[-1].slices == {1: (4, 11), 2: (8,)}
    assert len(controller.session.labels.confidence) == 15
    three.rest()
    assert three.text("image2", "predicted") == "16"
    assert three.text("image0", "predicted") == "14"
    assert three.text("image2", "confidence").endswith("%")
    count = controller.jobs.count
    three.key(Qt.Key.Key_N, SHIFT)
    assert controller.jobs.count == count + 1  # the case was opened, and not predicted again
    assert controller.layers.prediction.data.any()
    assert controller.session.labels.status(8) is Status.PREDICTED
    three.sort_by("confidence")
    doubts = [three.work.status(case).confidence for case in three.work.order.cases]
    assert doubts == sorted(doubts)
    three.double_click("image0")
    three.click(panel.head.train_button)  # continues the model
    assert len(three.work.current.trainings) == 2


def test_live_goes_on_in_the_next_case_from_what_it_learned(three, truth, panel, qtbot):
    controller = three.controller
    controller.setup.change(steps=40, views=1)
    qtbot.mouseClick(panel.head.live_box, Qt.MouseButton.LeftButton, pos=QPoint(8, panel.head.live_box.height() // 2))
    controller.labels.add_class(None)
    paint(controller, np.where(truth == 1, truth, 0), (4, 8, 11))
    qtbot.waitUntil(lambda: len(controller.session.labels.confidence) == 13, timeout=PATIENT)
    three.key(Qt.Key.Key_N, SHIFT)
    assert three.work.case.name == "image1"
    qtbot.waitUntil(lambda: controller.live.progress is not None, timeout=PATIENT)
    assert 0 < controller.live.progress.total < controller.setup.settings.steps
    qtbot.waitUntil(lambda: bool(controller.session.labels.confidence), timeout=PATIENT)
    qtbot.waitUntil(lambda: "up to date" in panel.head.live_text.text(), timeout=PATIENT)
    controller.live.stop()


def test_work_in_the_background_gives_way_and_a_loaded_model_is_for_all_cases(three, truth, panel, qtbot, tmp_path):
    controller, work = three.controller, three.work
    paint(controller, truth == 1, (4, 8))
    three.click(panel.head.train_button)
    wait_idle(qtbot, controller)
    controller.session.save_model(tmp_path / "model.safetensors")
    first = work.current.model_file
    qtbot.waitUntil(lambda: work.ahead.busy, timeout=PATIENT)
    three.click(panel.head.train_button)
    wait_idle(qtbot, controller)
    assert work.current.model_file != first
    three.rest()
    assert [case.predicted_by for case in work.current.cases] == [work.current.model_file] * 3
    controller.jobs.load_model(tmp_path / "model.safetensors")
    qtbot.waitUntil(lambda: work.current.model_file == first, timeout=PATIENT)
    qtbot.waitUntil(lambda: controller.jobs.is_predicting, timeout=PATIENT)
    qtbot.waitUntil(panel.steps.next_button.isEnabled, timeout=PATIENT)
    qtbot.mouseClick(panel.steps.next_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: work.case is not None and work.case.name == "image1", timeout=PATIENT)
    wait_idle(qtbot, controller)
    assert work.case.predicted_by == first  # its masks were of the other model
    assert len(controller.session.labels.confidence) == 16


# --- results --------------------------------------------------------------------------------------------------------


def test_masks_and_volumes_of_all_cases(three, truth, panel, tmp_path, monkeypatch, patients):
    import SimpleITK

    paint(three.controller, truth == 1, (4, 8))
    three.controller.labels.rename_class(1, "ball")
    three.key(Qt.Key.Key_N, SHIFT)
    paint(three.controller, truth == 1, (5,))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "image1.nii.gz").touch()
    asked = []
    monkeypatch.setattr("napari_dinoaugseg.gui.cases_section.confirmed", lambda *args: asked.append(args[2]) or True)
    three.answer("getExistingDirectory", str(tmp_path / "out"))
    three.click(panel.cases.masks_button)
    assert "1 mask of these cases already exist" in asked[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["image0.nii.gz", "image1.nii.gz"]
    assert panel.cases.result.text().startswith("2 masks written into")
    for name, image, slices in (("image0", patients[0], (4, 8)), ("image1", patients[1], (5,))):
        mask, original = (SimpleITK.ReadImage(str(path)) for path in (tmp_path / "out" / f"{name}.nii.gz", image))
        for read in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(mask, read)() == pytest.approx(getattr(original, read)())
        labels = open_case(tmp_path / "out" / f"{name}.nii.gz", plane="axial")
        painted = [i for i in range(16) if labels.slice(i).any()]
        assert painted == [i for i in slices if (truth[i] == 1).any()]
    three.answer("getSaveFileName", (str(tmp_path / "volumes"), ""))
    three.click(panel.cases.volumes_button)
    with (tmp_path / "volumes.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["image0", "image1", "image2"]
    pixels = int((truth[[4, 8]] == 1).sum())
    assert rows[0]["ball (pixels)"] == str(pixels)
    assert float(rows[0]["ball (ml)"]) == pytest.approx(pixels * 1.2 * 1.1 * 4 / 1000, abs=1e-3)
    assert (rows[0]["by hand"], rows[0]["without labels"], rows[2]["ball (pixels)"]) == ("2", "14", "0")


def test_finished_cases_leave_for_nnunet_and_the_report_names_nobody(
    three, truth, panel, failed, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr("napari_dinoaugseg.gui.cases_section.chosen", lambda *args: asked.append(args[2]) or 1)
    three.answer("getSaveFileName", (str(tmp_path / "Dataset001_Balls"), ""))
    three.click(panel.cases.nnunet_button)
    assert "only those are exported" in failed[-1]
    assert not (tmp_path / "Dataset001_Balls").exists()
    paint(three.controller, truth == 1, (4, 8))
    three.click(panel.steps.done_button)
    three.click(panel.cases.nnunet_button)
    written = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "Dataset001_Balls").rglob("*.*")}
    assert {"Dataset001_Balls/imagesTr/case_001_0000.nii.gz", "Dataset001_Balls/labelsTr/case_001.nii.gz"} < written
    assert panel.cases.result.text().startswith("1 case written into")
    assert "the images of the other 2" in asked[0]
    assert not (tmp_path / "Dataset001_Balls" / "imagesTs").exists()
    (tmp_path / "report").mkdir()
    three.answer("getExistingDirectory", str(tmp_path / "report"))
    three.click(panel.cases.report_button)
    assert "image0" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "case_001" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_masks_of_nnunet_are_reviewed_in_the_panel(three, truth, folder, panel, tmp_path, monkeypatch, qtbot):
    monkeypatch.setattr("napari_dinoaugseg.gui.cases_section.chosen", lambda *_: 0)
    paint(three.controller, truth, (4, 8))
    three.click(panel.steps.done_button)  # opens image1
    paint(three.controller, truth, (4,))
    three.answer("getSaveFileName", (str(tmp_path / "Dataset001_Balls"), ""))
    three.click(panel.cases.nnunet_button)
    out = predict_as_nnunet(tmp_path / "Dataset001_Balls", tmp_path / "predicted")
    three.answer("getExistingDirectory", str(out))
    three.click(panel.cases.foreign_button)
    text = panel.cases.result.text()
    assert "Masks on 31 slices of 2 cases taken as predictions. 1 slice with labels stays as it is." in text
    assert three.text("image2", "predicted") == "16"
    book = three.controller.session.labels
    assert book.status(4) is Status.MANUAL
    assert book.status(5) is Status.PREDICTED
    assert set(np.unique(book.predicted(5))) == {0, 3}
    three.controller.view.go_to(5)
    settle()
    assert panel.advice.text().startswith("Masks of another program are on 15 slices: look at each")
    assert "predicted by another program" in panel.review.state_text.text()
    qtbot.waitUntil(panel.review.isVisible)
    layer = three.controller.layers.prediction
    assert np.array_equal(np.moveaxis(layer.data, three.controller.layers.axis, 0)[5], book.predicted(5))
    three.key(Qt.Key.Key_A)
    assert book.status(5) is Status.ACCEPTED
    three.double_click("image2")
    assert len(on_disk(folder, 2).content().taken) == 15
    assert three.controller.session.labels.open_slices == []
    three.controller.view.go_to(3)
    three.key(Qt.Key.Key_X)
    assert three.controller.session.labels.open_slices == [3]
    three.double_click("image1")
    for _ in range(2):  # the acceptance, then the masks, which were read from disk since they were taken
        assert three.controller.session.labels.predicted(5) is not None
        three.key(Qt.Key.Key_Z, CONTROL)
    assert three.controller.session.labels.predicted(5) is None


def test_a_mask_is_taken_for_the_case_in_view(hands, patients, truth, panel, failed, said, tmp_path, monkeypatch):
    hands.controller.cases.open_path(patients[0], plane="axial")
    wait_idle(hands.qtbot, hands.controller)
    hands.controller.session.labels.add_class("ball")
    paint(hands.controller, (truth == 1).astype(np.uint16), (4,))
    image = nib.load(patients[0])
    nib.save(nib.Nifti1Image((truth_voxels() == 1).astype(np.uint8), image.affine), tmp_path / "mask.nii.gz")
    nib.save(nib.Nifti1Image(truth_voxels(), image.affine), tmp_path / "foreign.nii.gz")
    nib.save(nib.Nifti1Image(truth_voxels(), image.affine @ np.diag([2, 2, 2, 1])), tmp_path / "elsewhere.nii.gz")
    for name, words in (("foreign", "holds the value 3"), ("elsewhere", "do not fit image0")):
        hands.answer("getOpenFileName", (str(tmp_path / f"{name}.nii.gz"), ""))
        hands.click(panel.review.foreign_button)
        assert words in failed[-1]
        assert not hands.controller.session.labels.content().layers["predicted"]
    hands.answer("getOpenFileName", (str(tmp_path / "mask.nii.gz"), ""))
    hands.click(panel.review.foreign_button)
    assert "Masks on 15 slices to be reviewed; Ctrl+Z undoes it. 1 slice that you labelled" in said[-1]
    book, layers = hands.controller.session.labels, hands.controller.layers
    assert np.array_equal(book.predicted(8), truth[8] == 1)
    layers.undo()
    settle()
    assert not book.content().layers["predicted"]
    assert not layers.prediction.data.any()
    assert not panel.review.accept_foreign_button.isVisibleTo(panel.review)
    layers.redo()
    assert np.array_equal(np.moveaxis(layers.prediction.data, layers.axis, 0)[8], truth[8] == 1)
    questions = []
    monkeypatch.setattr("napari_dinoaugseg.gui.keys.confirmed", lambda *words: bool(questions.append(words[2])) or True)
    settle()
    assert panel.review.accept_foreign_button.text() == "Accept 15 masks of nnU-Net"
    hands.click(panel.review.accept_foreign_button)
    assert "looked at" in questions[0]
    assert sum(book.status(index) is Status.ACCEPTED for index in range(16)) == 15
    settle()
    assert not panel.review.accept_foreign_button.isVisibleTo(panel.review)
