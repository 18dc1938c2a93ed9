"""The whole way through a project of real hippocampi with mouse and keys, and on after the program was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.gui.panel import Panel
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.project import Project
from tests.gui.conftest import SMALL, dice, settle, wait_idle
from tests.gui.test_painting import stroke
from tests.gui.test_project import PATIENT, SHIFT, Hands, manual_on_disk

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENTS = ("hippocampus_001", "hippocampus_006", "hippocampus_053")
PAINTED = (12, 20)  # axial slices of the first one
STEPS = 30

# Opens the project, which shows its first case that is not done, paints there with the mouse, and trains until it is
# killed.
KILLED = """
import sys
from pathlib import Path
import napari
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog
from napari_dinoaugseg.gui.panel import Panel
folder = sys.argv[1]
viewer = napari.Viewer(show=True)
panel = Panel(viewer)
viewer.window.add_dock_widget(panel)
controller, left, none = panel.controller, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
canvas = viewer.window._qt_viewer.canvas.native
def until(condition):
    while not condition():
        QTest.qWait(20)
def press(button):
    until(button.isEnabled)
    QTest.mouseClick(button, left)
QFileDialog.getExistingDirectory = staticmethod(lambda *_, **__: folder)
panel.folds["Project"].set_open(True)
press(panel.cases.open_button)
until(lambda: controller.project.case is not None and not controller.jobs.busy)
assert controller.project.case.number == 2
controller.view.go_to(5)
QTest.qWait(100)
middle = QPoint(canvas.width() // 2, canvas.height() // 2)
QTest.mouseMove(canvas, middle)
QTest.mousePress(canvas, left, none, middle)
for step in range(1, 6):
    QTest.mouseMove(canvas, middle + QPoint(8 * step, 0))
    QTest.qWait(20)
QTest.mouseRelease(canvas, left, none, middle + QPoint(40, 0))
until(lambda: 5 in controller.session.labels.labelled)
controller.setup.change(steps=100_000)
progress = []
controller.progressed.connect(lambda event: progress.append(event.stage))
press(panel.head.train_button)
until(lambda: progress.count("train") > 3)
print("training", flush=True)
until(lambda: False)
"""


class Brush:
    """The mouse over the canvas, which knows where the pixels of the slice in view are."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.viewer = hands.controller.viewer
        self.canvas = self.viewer.window._qt_viewer.canvas.native

    def paint(self, wanted: np.ndarray) -> None:
        """Draw along each run of wanted pixels, (H, W) bool, with the smallest brush."""
        self.hands.controller.layers.manual.brush_size = 1
        to_canvas = self._look()
        edges = np.diff(np.pad(wanted.astype(np.int8), ((0, 0), (1, 1))), axis=1)
        for row in np.flatnonzero(wanted.any(axis=1)):
            starts, ends = np.flatnonzero(edges[row] == 1), np.flatnonzero(edges[row] == -1) - 1
            for start, end in zip(starts, ends, strict=True):
                self._draw(to_canvas(row, start), to_canvas(row, end))

    def _look(self) -> Callable[[int, int], QPoint]:
        """Find out where on the canvas the pixels lie: move the mouse to three places and ask napari what is there."""
        layer, axis = self.hands.controller.layers.manual, self.hands.controller.layers.axis
        middle = QPoint(self.canvas.width() // 2, self.canvas.height() // 2)
        places = [middle + QPoint(*offset) for offset in ((-40, -40), (40, -40), (-40, 40))]
        self.hands.qtbot.mouseMove(self.canvas, middle)
        settle()
        seen = []
        for place in places:
            before = self.viewer.cursor.position
            self.hands.qtbot.mouseMove(self.canvas, place)
            self.hands.qtbot.waitUntil(lambda before=before: self.viewer.cursor.position != before, timeout=PATIENT)
            seen.append(np.delete(layer.world_to_data(self.viewer.cursor.position), axis))
        data = np.column_stack([np.array(seen), np.ones(3)])
        matrix = np.linalg.solve(data, [(place.x(), place.y()) for place in places])
        return lambda row, column: QPoint(*(round(float(value)) for value in np.array([row, column, 1]) @ matrix))

    def _draw(self, start: QPoint, end: QPoint) -> None:
        QTest.mouseMove(self.canvas, start)
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
        QTest.qWait(6)  # napari takes one movement in 5 ms
        QTest.mouseMove(self.canvas, end)
        QTest.qWait(6)
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, end)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_three_hippocampi_from_the_first_stroke_to_nnunet_and_on_after_a_kill(
    panel: Panel, controller, qtbot, monkeypatch, tmp_path, shared_data, nnunet_check
):
    train = shared_data / "msd_hippocampus" / "train"
    files = [train / "images" / f"{name}.nii.gz" for name in PATIENTS]
    if not all(file.is_file() for file in files):
        pytest.skip(f"no hippocampi in {train}")
    controller.setup.change(**{**SMALL, "steps": STEPS})
    hands, work, folder = Hands(panel, qtbot, monkeypatch), controller.project, tmp_path / "hippocampi"
    truth = [open_case(train / "labels" / f"{name}.nii.gz", plane="axial") for name in PATIENTS]

    def organ(case: int, index: int) -> np.ndarray:
        return np.asarray(truth[case].slice(index)) > 0

    # Three cases; two slices of the first are painted with the mouse.
    hands.new(folder, files)
    assert hands.names == list(PATIENTS)
    for index in PAINTED:
        controller.view.go_to(index)
        settle()
        Brush(hands).paint(organ(0, index))
    qtbot.waitUntil(lambda: controller.session.labels.labelled == list(PAINTED), timeout=PATIENT)
    for index in PAINTED:
        assert dice(controller.session.labels.manual(index) == 1, organ(0, index)) > 0.95
    hands.click(panel.head.train_button)
    assert len(controller.session.labels.confidence) == truth[0].n_slices - len(PAINTED)

    # The second case opens with masks; one of them is corrected.
    hands.key(Qt.Key.Key_N, SHIFT)
    assert work.case.name == PATIENTS[1]
    book = controller.session.labels
    assert len(book.confidence) == truth[1].n_slices
    assert controller.layers.prediction.data.any()
    found = np.stack([book.result(index) == 1 for index in range(truth[1].n_slices)])
    assert dice(found, np.stack([organ(1, index) for index in range(truth[1].n_slices)])) > 0.5
    controller.view.go_to(14)
    hands.key(Qt.Key.Key_C)
    stroke(qtbot, controller.viewer, ((-90, -90), (-60, -90), (-30, -90)))
    qtbot.waitUntil(lambda: (book.manual(14) != book.predicted(14)).any(), timeout=PATIENT)
    corrected = book.manual(14).copy()

    # In the third one a mask is accepted; it is done, and so is the first.
    hands.key(Qt.Key.Key_N, SHIFT)
    assert work.case.name == PATIENTS[2]
    controller.view.go_to(15)
    settle()
    hands.key(Qt.Key.Key_A)
    assert controller.session.labels.status(15) is Status.ACCEPTED
    hands.key(Qt.Key.Key_D, SHIFT)
    assert work.case.name == PATIENTS[0]
    hands.key(Qt.Key.Key_D, SHIFT)
    assert work.case.name == PATIENTS[1]
    assert [case.is_done for case in work.current.cases] == [True, False, True]

    # Every mask lies exactly on its image.
    (tmp_path / "masks").mkdir()
    monkeypatch.setattr("napari_dinoaugseg.gui.cases_section.chosen", lambda *_: 0)
    hands.answer("getExistingDirectory", str(tmp_path / "masks"))
    hands.click(panel.cases.masks_button)
    for name, file in zip(PATIENTS, files, strict=True):
        mask, image = (SimpleITK.ReadImage(str(path)) for path in (tmp_path / "masks" / f"{name}.nii.gz", file))
        assert mask.GetSize() == image.GetSize()
        for read in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(mask, read)() == getattr(image, read)(), (name, read)
        assert SimpleITK.GetArrayViewFromImage(mask).any()
    exported = open_case(tmp_path / "masks" / f"{PATIENTS[1]}.nii.gz", plane="axial")
    assert np.array_equal(exported.slice(14), corrected)

    # The cases that are done are a dataset that nnU-Net accepts.
    hands.answer("getSaveFileName", (str(tmp_path / "Dataset001_Hippocampus"), ""))
    hands.click(panel.cases.nnunet_button)
    assert panel.cases.result.text().startswith("2 cases written into")
    nnunet_check(tmp_path / "Dataset001_Hippocampus")

    # Another program opens the project, paints on, and is killed while it trains.
    model = work.current.model_file
    controller.cases.close()
    work.close()
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as program:
        try:
            assert any(line.strip() == "training" for line in program.stdout)
        finally:
            program.send_signal(signal.SIGKILL)
        assert program.wait(10) == -signal.SIGKILL

    # Labels, ticks and model are there, and the work goes on.
    hands.open(folder)
    assert not controller.read_only
    assert work.case.name == PATIENTS[1]
    assert work.current.model_file == model
    assert [case.is_done for case in work.current.cases] == [True, False, True]
    assert sorted(controller.session.labels.labelled) == [5, 14]
    assert np.array_equal(controller.session.labels.manual(14), corrected)
    assert (manual_on_disk(folder, 1), manual_on_disk(folder, 2)) == (list(PAINTED), [5, 14])
    assert work.status(work.find(3)).n_accepted == 1
    controller.setup.change(steps=8)
    hands.click(panel.head.train_button)
    wait_idle(qtbot, controller)
    assert work.current.model_file != model
    assert work.current.trainings[-1].slices == {1: PAINTED, 2: (5, 14), 3: (15,)}
    controller.cases.close()
    work.close()
    with Project(folder) as project:
        assert project.is_writable
