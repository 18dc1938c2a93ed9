"""A project in the panel: many patients, one model, driven by mouse and keys."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QDialog, QFileDialog

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.gui.case_table import COLUMNS, DONE, NAME, AddDialog
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.project import Project
from napari_dinoaugseg.session.store import default_sessions_folder
from tests.blobs import truth_voxels, write_case
from tests.case.builders import numbers, write_dicom
from tests.gui.conftest import SMALL, paint, settle, wait_idle
from tests.gui.test_painting import stroke

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENT = 20_000  # ms: a busy machine is slow
SHIFT = Qt.KeyboardModifier.ShiftModifier
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


def test_files_become_cases_and_panel_and_title_say_which_one_is_open(three, panel, folder):
    assert three.names == ["image0", "image1", "image2"]
    assert all(number in three.work.thumbnails for number in (1, 2, 3))
    assert panel.head.name.text() == "image0 (16 slices)\nProject balls: case 1 of 3"
    assert three.controller.viewer.title == "image0 · Project balls: case 1 of 3"
    assert "3 cases, 0 done" in panel.cases.facts.text()
    assert panel.steps.isVisible()
    assert not panel.cases.make_button.isVisible()
    assert sorted(path.name for path in (folder / "cases").iterdir()) == ["001", "002", "003"]


def test_a_case_by_itself_is_as_simple_as_before(panel, case, controller):
    assert not panel.folds["Cases"].title.isChecked()
    assert not panel.steps.isVisible()
    assert panel.head.name.text() == "image0 (16 slices)"
    assert controller.viewer.title == "napari"


def test_the_same_pixels_are_one_case_and_a_broken_file_does_not_stop_the_others(
    hands, folder, patients, tmp_path, said
):
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    shutil.copy(patients[0], tmp_path / "again.nii.gz")
    hands.new(folder, [tmp_path / "again.nii.gz", tmp_path / "broken.nii.gz", *patients])
    assert hands.names == ["again", "image1", "image2"]
    assert any("3 cases added. 1 with the same pixels was there already. 1 could not be added:" in s for s in said)
    assert any("broken.nii.gz" in sentence for sentence in said)


def test_a_case_with_labels_becomes_the_first_of_a_project(labelled, hands, folder, truth, qtbot, panel):
    labelled.setup.change(**QUICK)
    labelled.jobs.train()
    wait_idle(qtbot, labelled)
    labelled.labels.rename_class(1, "liver")
    session, layer, predicted = labelled.session, labelled.layers.manual, dict(labelled.session.labels.confidence)
    panel.folds["Cases"].set_open(True)
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
    panel.folds["Cases"].set_open(True)
    hands.new(folder)
    assert "image0 is open and has labels" in asked[0]
    assert hands.names == ["image0"]
    assert labelled.session.labels.labelled == [4, 8, 11]


def test_an_image_without_a_file_cannot_become_a_case(controller, hands, folder, panel, failed):
    controller.cases.use_layer(
        controller.viewer.add_image(np.random.default_rng(0).random((9, 60, 60)), name="computed")
    )
    settle()
    panel.folds["Cases"].set_open(True)
    hands.answer("getSaveFileName", (str(folder), ""))
    hands.click(panel.cases.make_button)
    assert failed == ["computed was not opened from a file. Save the image as a file, and open that."]
    assert not folder.exists()


def test_a_folder_of_other_things_is_no_project(hands, tmp_path, failed):
    (tmp_path / "photos").mkdir()
    hands.open(tmp_path / "photos")
    assert "this is not the folder of a project" in failed[0]
    (tmp_path / "photos" / "a.txt").touch()
    hands.new(tmp_path / "photos")
    assert "holds other files" in failed[1]
    assert hands.work.current is None


def test_series_of_a_dicom_folder_are_chosen_by_ticks(hands, folder, tmp_path, monkeypatch, panel):
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


# --- labels ---------------------------------------------------------------------------------------------------------


def test_strokes_are_saved_in_the_project_and_come_back_with_the_case(three, folder, qtbot, panel):
    controller = three.controller
    controller.view.go_to(5)
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: manual_on_disk(folder, 1) == [5], timeout=PATIENT)
    assert panel.saved.text().startswith("Saved ")
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


def test_the_last_strokes_go_with_their_own_case(three, folder, qtbot):
    stroke(qtbot, three.controller.viewer)
    three.key(Qt.Key.Key_N, SHIFT)
    three.controller.view.go_to(3)
    stroke(qtbot, three.controller.viewer)
    three.key(Qt.Key.Key_N, SHIFT)
    assert (manual_on_disk(folder, 1), manual_on_disk(folder, 2)) == ([8], [3])


def test_undo_takes_back_strokes_of_the_open_case_only(three, qtbot):
    stroke(qtbot, three.controller.viewer)
    three.key(Qt.Key.Key_N, SHIFT)
    stroke(qtbot, three.controller.viewer)
    qtbot.waitUntil(lambda: three.controller.session.labels.labelled == [8], timeout=PATIENT)
    for _ in range(3):
        three.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert three.controller.session.labels.labelled == []
    three.key(Qt.Key.Key_P, SHIFT)
    assert three.controller.session.labels.labelled == [8]


def test_classes_are_those_of_every_case(three, qtbot):
    three.controller.labels.rename_class(1, "liver")
    three.controller.labels.add_class("spleen")
    stroke(qtbot, three.controller.viewer)
    three.key(Qt.Key.Key_N, SHIFT)
    assert [entry.name for entry in three.controller.session.labels.classes] == ["liver", "spleen"]


def test_a_case_opened_by_itself_closes_the_project(three, patients, folder, said, panel):
    three.controller.cases.open_path(patients[2], plane="axial")
    wait_idle(three.qtbot, three.controller)
    assert three.work.current is None
    assert any(sentence.startswith("Project balls was closed") for sentence in said)
    assert not panel.folds["Cases"].title.isChecked()
    assert three.controller.viewer.title == "napari"
    with Project(folder) as project:
        assert project.is_writable


def test_the_plane_of_a_case_stays(three, failed):
    from napari_dinoaugseg.case import Plane

    three.controller.cases.change_plane(Plane.CORONAL)
    assert "fixed" in failed[0]
    assert three.work.case is not None


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
    stroke(qtbot, hands.controller.viewer)
    qtbot.waitUntil(lambda: hands.controller.session.labels.labelled == [8], timeout=PATIENT)


def test_the_last_strokes_are_saved_when_the_window_closes(three, folder, qtbot):
    stroke(qtbot, three.controller.viewer)
    three.controller.viewer.close()
    qtbot.waitUntil(lambda: three.controller.closed, timeout=PATIENT)
    assert on_disk(folder, 1).labelled == [8]


KILLED = """
import sys
import napari
from qtpy.QtWidgets import QApplication
from napari_dinoaugseg.gui.panel import Panel
viewer = napari.Viewer()
panel = Panel(viewer)
controller = panel.controller
controller.project.open_folder(__import__("pathlib").Path(sys.argv[1]))
def idle():
    while controller.jobs.busy or controller.project.case is None:
        QApplication.processEvents()
idle()
controller.layers.manual.paint((4, 14, 20), 1)
controller.project.step(1)
idle()
controller.layers.manual.paint((8, 18, 20), 1)
while not panel.saved.text().startswith("Saved "):
    QApplication.processEvents()
print("saved", flush=True)
while True:
    QApplication.processEvents()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_paint_in_two_cases_survives_a_killed_program(hands, folder, patients):
    with Project(folder) as project:
        for file in patients:
            project.add(file, plane="axial")
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as program:
        assert any(line.strip() == "saved" for line in program.stdout)
        program.send_signal(signal.SIGKILL)
        program.wait(10)
    hands.open(folder)
    assert not hands.controller.read_only
    assert hands.controller.session.labels.manual(4)[14, 20] == 1
    hands.key(Qt.Key.Key_N, SHIFT)
    assert hands.controller.session.labels.manual(8)[18, 20] == 1


# --- from case to case ----------------------------------------------------------------------------------------------


def test_a_double_click_opens_a_case(three, panel):
    three.double_click("image2")
    assert panel.head.name.text().startswith("image2")
    assert three.table.selected().name == "image2"
    three.double_click("image0")
    assert three.controller.session.case.name == "image0"


def test_next_follows_the_table_as_it_is_sorted_and_filtered(three, panel, qtbot, said):
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


def test_done_and_next_goes_to_the_first_that_is_not_done(three, panel, folder, said):
    ground = three.table.viewport()
    box = three.table.visualRect(three.table.cases.index(1, DONE))
    three.qtbot.mouseClick(ground, Qt.MouseButton.LeftButton, pos=QPoint(box.left() + 12, box.center().y()))
    settle()
    assert [case.is_done for case in three.work.current.cases] == [False, True, False]
    three.key(Qt.Key.Key_D, SHIFT)
    assert three.work.case.name == "image2"
    three.click(panel.steps.done_button)
    assert any("Every case of the table is done" in sentence for sentence in said)
    assert "3 cases, 3 done" in panel.cases.facts.text()
    three.work.close()
    with Project(folder) as project:
        assert all(case.is_done for case in project.cases)


def test_the_suggested_slice_is_one_click_away(three, panel, qtbot, truth):
    paint(three.controller, truth, (8,))
    settle()
    text = panel.cases.next_text.text()
    assert "image1" in text
    assert "a case without labels" in text
    wanted = three.work.suggestion()
    three.click(panel.cases.go_button)
    assert three.work.case.name == "image1"
    assert three.controller.current_slice == wanted.index


def test_a_case_is_removed_and_its_labels_are_kept(three, folder, truth, monkeypatch):
    three.double_click("image1")
    paint(three.controller, truth, (8,))
    three.double_click("image0")
    monkeypatch.setattr("napari_dinoaugseg.gui.cases_section.confirmed", lambda *_: True)
    three.panel.cases._remove(three.work.find(2))
    settle()
    assert three.names == ["image0", "image2"]
    (kept,) = (folder / "removed").iterdir()
    assert any("_manual_" in path.name for path in (kept / "slices").iterdir())


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
    assert any("the image of image1 is missing" in s and "'Find the image…' in the Cases section" in s for s in said)
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
    controller.setup.change(steps=40)
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


def test_a_case_with_masks_of_an_older_model_is_predicted_when_it_is_opened(three, truth, panel, qtbot, monkeypatch):
    monkeypatch.setattr("napari_dinoaugseg.gui.ahead._PAUSE", 10**6)  # nothing is predicted ahead
    paint(three.controller, truth == 1, (4, 8))
    three.click(panel.head.train_button)
    wait_idle(qtbot, three.controller)
    three.click(panel.steps.next_button)
    wait_idle(qtbot, three.controller)
    assert len(three.controller.session.labels.confidence) == 16
    assert three.work.case.predicted_by == three.work.current.model_file
    three.click(panel.steps.previous_button)
    before = three.work.current.model_file
    three.click(panel.head.train_button)
    wait_idle(qtbot, three.controller)
    assert three.work.current.model_file != before
    three.click(panel.steps.next_button)
    wait_idle(qtbot, three.controller)
    assert three.work.case.predicted_by == three.work.current.model_file


def test_work_ahead_stops_for_training_and_goes_on_after_it(three, truth, panel, qtbot):
    paint(three.controller, truth == 1, (4, 8))
    three.click(panel.head.train_button)
    wait_idle(qtbot, three.controller)
    qtbot.waitUntil(lambda: three.work.ahead.busy, timeout=PATIENT)
    three.click(panel.head.train_button)
    wait_idle(qtbot, three.controller)
    three.rest()
    model = three.work.current.model_file
    assert [case.predicted_by for case in three.work.current.cases] == [model] * 3


def test_a_click_on_next_stops_a_prediction(three, truth, panel, qtbot):
    paint(three.controller, truth == 1, (4, 8))
    three.click(panel.head.train_button)
    wait_idle(qtbot, three.controller)
    three.controller.jobs.predict()
    qtbot.waitUntil(panel.steps.next_button.isEnabled, timeout=PATIENT)
    qtbot.mouseClick(panel.steps.next_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: three.work.case is not None and three.work.case.name == "image1", timeout=PATIENT)
    wait_idle(qtbot, three.controller)


def test_a_loaded_model_becomes_that_of_the_project(three, truth, panel, qtbot, tmp_path):
    paint(three.controller, truth == 1, (4, 8))
    three.click(panel.head.train_button)
    wait_idle(qtbot, three.controller)
    three.controller.session.save_model(tmp_path / "model.safetensors")
    trained = three.work.current.model_file
    three.click(panel.head.train_button)
    wait_idle(qtbot, three.controller)
    assert three.work.current.model_file != trained
    three.controller.jobs.load_model(tmp_path / "model.safetensors")
    wait_idle(qtbot, three.controller)
    wait_idle(qtbot, three.controller)
    assert three.work.current.model.state.keys() == three.controller.session.model.state.keys()
    weights = [
        np.asarray(model.state[name])
        for model in (three.work.current.model, three.controller.session.model)
        for name in sorted(model.state)[:1]
    ]
    assert np.array_equal(*weights)
    assert three.work.case.predicted_by == three.work.current.model_file


# --- results --------------------------------------------------------------------------------------------------------


def test_masks_of_all_cases_lie_exactly_on_their_images(three, truth, panel, tmp_path, monkeypatch, patients):
    import SimpleITK

    paint(three.controller, truth == 1, (4, 8))
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


def test_volumes_of_all_cases_go_into_one_table(three, truth, panel, tmp_path):
    paint(three.controller, truth == 1, (8,))
    three.controller.labels.rename_class(1, "ball")
    settle()
    three.answer("getSaveFileName", (str(tmp_path / "volumes"), ""))
    three.click(panel.cases.volumes_button)
    with (tmp_path / "volumes.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["image0", "image1", "image2"]
    pixels = int((truth[8] == 1).sum())
    assert rows[0]["ball (pixels)"] == str(pixels)
    assert float(rows[0]["ball (ml)"]) == pytest.approx(pixels * 1.2 * 1.1 * 4 / 1000, abs=1e-3)
    assert (rows[0]["by hand"], rows[0]["without labels"], rows[1]["ball (pixels)"]) == ("1", "15", "0")
