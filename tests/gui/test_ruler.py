"""The ruler with the mouse: what it measures, where, and that it leaves paint, undo and other cases alone."""

from __future__ import annotations

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QFileDialog

from napari_dinoaugseg.case.measure import Measure
from napari_dinoaugseg.gui.canvas import canvas_widget
from napari_dinoaugseg.gui.ruler import LAYER
from napari_dinoaugseg.session.export import make_report
from napari_dinoaugseg.session.session import Session
from tests.gui.conftest import paint, settle
from tests.gui.test_painting import stroke

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]

LEFT, NONE, SHIFT = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
R = Qt.Key.Key_R


@pytest.fixture
def canvas(controller, case):
    return canvas_widget(controller.viewer)


@pytest.fixture
def mouse(controller, canvas, qtbot):
    """Drag, or click, at places relative to the middle of the canvas; returns the places as (row, column)."""
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)

    def at(place) -> tuple[float, float]:
        there = middle + QPoint(*place)
        qtbot.mouseMove(canvas, there + QPoint(7, 7))  # Qt reports no move to where the mouse is
        qtbot.wait(20)
        before = controller.viewer.cursor.position
        qtbot.mouseMove(canvas, there)
        qtbot.waitUntil(lambda: controller.viewer.cursor.position != before, timeout=10_000)
        return controller.reading.place_of(controller.viewer.cursor.position)[1:]

    def drag(start, end):
        points = [at(start)]
        qtbot.mousePress(canvas, LEFT, NONE, middle + QPoint(*start))
        points.append(at(end))
        qtbot.mouseRelease(canvas, LEFT, NONE, middle + QPoint(*end))
        settle()
        return points

    def click(*places):
        points = []
        for place in places:
            points.append(at(place))
            qtbot.mouseClick(canvas, LEFT, NONE, middle + QPoint(*place))
        settle()
        return points

    return drag, click


def shown(controller) -> list:
    """The measures that the canvas shows on the slice in view: their values."""
    if LAYER not in controller.viewer.layers:
        return []
    layer, axis = controller.viewer.layers[LAYER], controller.layers.axis
    here = controller.current_slice
    pairs = zip(layer.data, layer.features["value"], strict=True)
    return [value for line, value in pairs if value and (line[:, axis] == here).all()]


def test_distance_and_angle_with_the_mouse_paint_nothing(controller, case, panel, canvas, mouse, qtbot):
    drag, click = mouse
    manual, book = controller.layers.manual, controller.session.labels
    controller.view.go_to(8)
    controller.labels.select_class(1)
    assert manual.mode == "paint"
    centre = controller.viewer.scene.camera.center
    qtbot.keyClick(canvas, R)
    start, end = drag((-60, 0), (40, 30))
    (measure,) = controller.session.measures
    np.testing.assert_allclose(measure.points, (start, end), atol=0.51)
    row, column = case.slice_spacing(8)
    length = math.hypot((end[0] - start[0]) * row, (end[1] - start[1]) * column)
    assert shown(controller) == [f"{length:.1f} mm"]
    assert panel.measure.list.item(0).text() == f"slice 9: {length:.1f} mm"
    qtbot.keyClick(canvas, R, SHIFT)
    click((-40, 0), (0, 0), (0, -40))
    assert controller.session.measures[1].kind == "angle"
    assert shown(controller)[1].endswith("°")
    assert 85 < float(shown(controller)[1][:-1]) < 95
    # Nothing was painted, moved or put into the history; the tool of the brush comes back.
    qtbot.keyClick(canvas, R, SHIFT)
    assert controller.viewer.scene.camera.center == centre
    assert not manual.data.any()
    assert book.undo() is None
    assert manual.mode == "paint"
    assert controller.viewer.layers.selection.active is manual
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: book.labelled == [8], timeout=10_000)
    assert len(controller.session.measures) == 2
    controller.layers.undo()
    assert book.labelled == []
    assert len(controller.session.measures) == 2
    # A measure is shown on its own slice only, and a tool of the brush puts the ruler down.
    controller.view.go_to(9)
    assert shown(controller) == []
    panel.measure.distance_button.click()
    assert controller.ruler.tool == "distance"
    manual.mode = "erase"
    settle()
    assert controller.ruler.tool is None
    assert not panel.measure.distance_button.isChecked()
    assert manual.mode == "erase"
    panel.measure.list.setCurrentRow(0)
    panel.measure.remove_button.click()
    settle()
    assert [one.kind for one in controller.session.measures] == ["angle"]
    controller.viewer.layers.remove(LAYER)  # by the person: it comes back with the next measure
    controller.ruler.take("distance")
    drag((-20, 0), (20, 0))
    assert len(shown(controller)) == 1


def test_the_long_axis_of_a_class_goes_to_csv_and_report(controller, case, truth, panel, tmp_path, monkeypatch, said):
    paint(controller, np.where(truth == 1, 1, 0).astype(np.uint16), [8])
    controller.labels.select_class(1)
    controller.view.go_to(8)
    panel.measure.axis_button.click()
    controller.view.go_to(3)
    panel.measure.axis_button.click()
    assert said[-1].endswith("is not on slice 4.")
    settle()
    rows, columns = np.nonzero(truth[8] == 1)
    row, column = case.slice_spacing(8)
    least = max(np.ptp(rows) * row, np.ptp(columns) * column)
    path = tmp_path / "measures.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    panel.measure.table_button.click()
    (line,) = csv.DictReader(path.open(encoding="utf-8"))
    assert (line["kind"], line["slice_from_0"], line["unit"]) == ("long axis", "8", "mm")
    assert least <= float(line["value"]) <= 1.5 * least + 2
    (entry,) = json.loads(json.dumps(make_report(controller.session)))["measures"]
    assert (entry["slice"], entry["class"], entry["value"]) == (8, line["class"], float(line["value"]))
    assert panel.measure.list.item(0).text().startswith(f"slice 9: {line['class']}, long axis ")


def test_measures_stay_with_their_case_and_plane(controller, case, blob_files, tmp_path, failed, qtbot, panel):
    """Another patient has none of them, the plane cannot turn under them, and they come back with the saved session."""
    measures = [Measure("distance", 8, ((1.0, 2.0), (5.0, 6.0)))]
    controller.ruler._add(measures[0])
    controller.ruler.take("distance")
    assert len(shown(controller)) == 1
    controller.cases.change_plane(case.plane.__class__("coronal"))
    assert "slices are measured" in failed[-1]
    assert controller.session.case is case
    (tmp_path / "other").mkdir()
    controller.cases.open_path(other_patient(tmp_path / "other"), background=False)
    assert controller.session.case is not case
    assert controller.session.measures == []
    assert LAYER not in controller.viewer.layers
    assert controller.ruler.tool is None
    controller.cases.open_path(blob_files[0], background=False, plane="axial")
    settle()
    qtbot.waitUntil(lambda: bool(controller.sessions.offers), timeout=5000)
    assert panel.resume.text.text().endswith(": 1 measure.")
    assert controller.session.measures == []
    panel.resume.go_on_button.click()
    qtbot.waitUntil(lambda: controller.session.measures == measures, timeout=10_000)
    settle()
    controller.view.go_to(8)
    assert len(shown(controller)) == 1
    again = Session(controller.session.case)
    again.resume(controller.session.snapshot())
    assert again.measures == measures


def other_patient(folder):
    """Another patient."""
    path = folder / "other.nii"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).integers(0, 99, (30, 32, 12)).astype(np.int16), np.eye(4)), path)
    return path
