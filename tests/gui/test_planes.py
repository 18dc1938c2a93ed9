"""Three planes: what the two other views show, the crosshair, strokes in them, and what remains of them when closed."""

from __future__ import annotations

import gc
import os
import time
import weakref
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from napari.qt import QtViewer
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel

from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.reading import SLICE_LABEL
from napari_dinoaugseg.session.labels import BACKGROUND, UNKNOWN, Status
from napari_dinoaugseg.session.paint_rules import PaintOver
from tests.case.builders import OBLIQUE as OBLIQUE_AXES
from tests.case.builders import write_dicom, write_nifti
from tests.gui.conftest import settle
from tests.gui.test_orientation import ORIENTATIONS, write_pictures, write_volume

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]

LEFT, NONE, SHIFT = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
SHAPE = (24, 32, 40)  # of the display: z, y, x
# Few for every day; `make faults` takes all 48 orders in which a file can store a volume, and opens 50 times.
ORDERS = int(os.environ.get("DINOAUGSEG_PLANE_ORDERS", "2"))
OPENINGS = int(os.environ.get("DINOAUGSEG_PLANE_OPENINGS", "8"))
ROUND = {
    "Axial": {"left": "R", "right": "L", "top": "A", "bottom": "P"},
    "Coronal": {"left": "R", "right": "L", "top": "H", "bottom": "F"},
    "Sagittal": {"left": "A", "right": "P", "top": "H", "bottom": "F"},
}


class Hand:
    """A person at the three views. Places are voxels of the display: z, y, x."""

    def __init__(self, controller, panel=None) -> None:
        self.controller, self.panel, self.viewer = controller, panel, controller.viewer
        self.planes = controller.planes

    @property
    def main(self) -> SimpleNamespace:
        return SimpleNamespace(model=self.viewer, widget=self.viewer.window._qt_viewer)

    @property
    def layer(self):
        return self.controller.layers.manual

    def view(self, title: str):
        return next(view for view in self.planes.views if view.title == title)

    def point(self, view, voxel) -> QPoint:
        """Where a voxel is in the canvas of a view, by napari's own transform of its scene."""
        canvas, dims = view.widget.canvas, view.model.dims
        world = np.array(self.layer.data_to_world(voxel))
        scene = canvas.view.transform * canvas.view.scene.transform
        x, y = scene.map([world[dims.displayed[1]], world[dims.displayed[0]]])[:2]
        return QPoint(round(x), round(y))

    def move(self, view, place: QPoint) -> None:
        """Move the mouse, until the view has seen it: the window system takes its time."""
        native, seen = view.widget.canvas.native, []
        handler = view.widget.canvas.events.mouse_move.connect(lambda event: seen.append(tuple(event.pos)))
        end = time.monotonic() + 10
        while not seen or np.abs(np.array(seen[-1]) - (place.x(), place.y())).max() > 1:
            QTest.mouseMove(native, place + QPoint(0, 1))
            QTest.mouseMove(native, place)
            QTest.qWait(10)
            assert time.monotonic() < end, f"the mouse is at {seen[-1:]}, not at {place}"
        # napari may have dropped that one: it takes no two moves within 5 ms.
        for one in (place + QPoint(0, 1), place):
            QTest.qWait(10)
            QTest.mouseMove(native, one)
        QTest.qWait(1)
        view.widget.canvas.events.mouse_move.disconnect(handler)

    def stroke(self, view, *voxels, held=NONE) -> None:
        native = view.widget.canvas.native
        places = [self.point(view, voxel) for voxel in voxels]
        self.move(view, places[0])
        QTest.mousePress(native, LEFT, held, places[0])
        for place in places[1:]:
            self.move(view, place)
        QTest.mouseRelease(native, LEFT, held, places[-1])
        QTest.qWait(60)  # until the other views are drawn

    def drag(self, view, start: QPoint, end: QPoint, button) -> None:
        native = view.widget.canvas.native
        self.move(view, start)
        QTest.mousePress(native, button, NONE, start)
        self.move(view, end)
        QTest.mouseRelease(native, button, NONE, end)

    def wheel(self, view, steps: int) -> None:
        native = view.widget.canvas.native
        place = native.rect().center()
        for _ in range(abs(steps)):
            turned = QPoint(0, 120 if steps > 0 else -120)
            buttons, phase = Qt.MouseButton.NoButton, Qt.ScrollPhase.NoScrollPhase
            where = QPointF(place)
            event = QWheelEvent(
                where, QPointF(native.mapToGlobal(place)), QPoint(), turned, buttons, NONE, phase, False
            )
            QApplication.sendEvent(native, event)

    def picture(self, view) -> np.ndarray:
        """What a view shows, (H, W, 4)."""
        return np.array(view.widget.screenshot(flash=False))

    def letters(self, view) -> dict[str, str]:
        labels = {name: label for name, label in view.letters.labels.items() if name != "slice"}
        return {name: label.text() for name, label in labels.items() if label.isVisible()}

    @property
    def steps(self) -> int:
        """How many actions can be undone."""
        return len(self.controller.session.labels._undo)


def volume() -> np.ndarray:
    """(x, y, z): dark, with a bright ball in the middle."""
    z, y, x = np.indices(SHAPE)
    ball = ((z - 12) * 2) ** 2 + (y - 16) ** 2 + (x - 20) ** 2 < 100
    noisy = np.where(ball, 150, 50) + np.random.default_rng(0).normal(0, 2, SHAPE)
    return noisy.round().astype(np.int16).transpose(2, 1, 0)


@pytest.fixture
def path(tmp_path):
    return write_nifti(tmp_path / "ball.nii.gz", volume(), np.diag([-1.0, -1.0, 2.0, 1.0]))


@pytest.fixture
def hand(panel, controller, case, path, qtbot) -> Hand:
    """In the window of the tests before: the ball in the axial plane, three planes open, a brush of one pixel."""
    controller.cases.open_path(path, background=False, plane="axial")
    settle()
    made = Hand(controller, panel)
    QTest.mouseClick(panel.case.planes_button, LEFT)
    qtbot.waitUntil(lambda: not controller.planes.is_opening, timeout=20_000)
    settle()
    made.layer.brush_size = 1
    assert np.asarray(controller.session.case.display).shape == SHAPE
    return made


@pytest.fixture
def alone(make_napari_viewer, qtbot):
    """The controller of a viewer without a panel."""
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(900, 600)
    qtbot.waitExposed(viewer.window._qt_window)
    made = Controller.of(viewer)
    yield made
    made.dispose()


def look(hand) -> None:
    """Put the brush away, so that a click only moves the crosshair."""
    hand.layer.mode = "pan_zoom"


def test_the_other_planes_show_the_same_arrays_head_up_and_close_without_a_trace(hand, panel, qtbot):
    planes, main, viewer = hand.planes, hand.main.widget, hand.viewer
    assert planes.is_open
    assert panel.case.planes_button.isChecked()
    assert sorted(view.title for view in planes.views) == ["Coronal", "Sagittal"]
    names = [layer.name for layer in viewer.layers]
    for view in planes.views:
        assert hand.letters(view) == ROUND[view.title]
        assert [twin.name for twin in view.model.layers] == names
        for layer, twin in zip(viewer.layers, view.model.layers, strict=True):
            assert twin.data is layer.data
    assert hand.view("Coronal").letters.labels["slice"].text() == "Coronal 17 of 32"
    canvas = main.canvas.native
    # What stands on the canvas stands on the large one.
    here, count = hand.controller.current_slice, hand.controller.session.case.n_slices
    assert [label.text() for label in canvas.findChildren(QLabel, SLICE_LABEL)] == [f"slice {here + 1} of {count}"]
    assert not any(view.widget.canvas.native.findChildren(QLabel, SLICE_LABEL) for view in planes.views)
    hand.controller.view.go_to(here + 2)
    QTest.qWait(60)
    assert canvas.findChild(QLabel, SLICE_LABEL).text() == f"slice {here + 3} of {count}"
    before = len(viewer.mouse_drag_callbacks)
    gone = [weakref.ref(view.widget) for view in planes.views] + [weakref.ref(view.model) for view in planes.views]
    del view, twin
    QTest.mouseClick(panel.case.planes_button, LEFT)
    settle()
    assert not planes.is_open
    qtbot.waitUntil(lambda: main.count() == 1, timeout=20_000)
    assert main.canvas.native is canvas
    assert len(viewer.mouse_drag_callbacks) == before - 1
    assert [layer.name for layer in viewer.layers] == names
    QTest.qWait(100)
    gc.collect()
    assert not [ref() for ref in gone if ref() is not None]


def test_click_and_wheel_move_the_other_views_and_the_crosshair_agrees_and_with_a_brush_shift_and_click(hand):
    look(hand)
    coronal, sagittal = hand.view("Coronal"), hand.view("Sagittal")
    hand.stroke(coronal, (5, 16, 30))
    assert hand.planes.place == (5, 16, 30)
    assert hand.controller.current_slice == 5
    assert sagittal.model.dims.point[2] == hand.layer.data_to_world((5, 16, 30))[2]
    hand.wheel(sagittal, -3)
    assert hand.planes.place == (5, 16, 33)
    hand.wheel(coronal, 2)
    assert hand.planes.place == (5, 14, 33)
    assert coronal.letters.labels["slice"].text() == "Coronal 15 of 32"
    hand.stroke(hand.main, (5, 9, 12))
    assert hand.planes.place == (5, 9, 12)
    hand.controller.view.go_to(20)
    assert hand.planes.place == (20, 9, 12)
    world = np.array(hand.layer.data_to_world((20, 9, 12)))
    for view in (coronal, sagittal):
        drawn = view._lines._line.pos  # x, y of the ends: one line is horizontal, the other vertical
        row, column = world[list(view.model.dims.displayed)]
        np.testing.assert_allclose(drawn[:4, 1], row)
        np.testing.assert_allclose(drawn[4:, 0], column)
        assert view.model.dims.point[view.depth] == world[view.depth]
    hand.stroke(coronal, (0, 9, 0), (23, 9, 39))  # the crosshair follows a drag
    assert hand.planes.place == (23, 9, 39)
    camera, whole = coronal.model.scene.camera, coronal.model.scene.camera.zoom
    corner = hand.point(coronal, (5, 9, 30))
    hand.drag(coronal, corner, corner - QPoint(0, 60), Qt.MouseButton.RightButton)
    assert camera.zoom > 1.3 * whole
    assert (hand.point(coronal, (5, 9, 30)) - corner).manhattanLength() <= 2
    hand.planes.go_to((23, 9, 1))  # out of the view, which follows
    assert coronal.widget.canvas.native.rect().contains(hand.point(coronal, (23, 9, 1)))
    QTest.mouseDClick(coronal.widget.canvas.native, LEFT, NONE, corner)
    assert camera.zoom == pytest.approx(whole)
    hand.layer.mode = "paint"
    for view in (hand.main, *hand.planes.views):
        hand.planes.go_to((12, 16, 20))
        target = (12, 16, 20 + 3) if view is not hand.view("Sagittal") else (12 + 3, 16, 20)
        hand.stroke(view, target, held=SHIFT)
        assert hand.planes.place == target
    hand.controller.flush()
    assert not hand.layer.data.any()
    assert hand.layer.mode == "paint"
    assert hand.steps == 0, "nothing is painted without a brush, nor with Shift"


def test_a_stroke_in_another_plane_is_one_action_of_scribbles_and_shows_in_all_views(hand):
    book, sagittal = hand.controller.session.labels, hand.view("Sagittal")
    full = np.zeros(SHAPE[1:], np.uint16)
    full[3:6, 3:6] = 1
    hand.controller.session.paint(8, full)
    hand.controller.layers.show_labels([8])
    hand.layer.mode = "paint"
    before, plain = hand.steps, {id(view): hand.picture(view) for view in hand.planes.views}
    hand.stroke(sagittal, (4, 16, 20), (14, 16, 20))
    expected = np.zeros(SHAPE, np.uint16)
    expected[4:15, 16, 20] = 1
    expected[8, 3:6, 3:6] = 1
    np.testing.assert_array_equal(hand.layer.data, expected)
    assert hand.steps == before + 1
    assert book.labelled == list(range(4, 15))
    assert (book.manual(5) == UNKNOWN).sum() == full.size - 1
    assert not (book.manual(8) == UNKNOWN).any(), "a slice that is labelled as a whole stays so"
    settle()
    assert "scribbles" in hand.panel.message.text()
    assert hand.planes.place[0] == 14, "the other views show where the stroke ended"
    hand.planes.go_to((12, 16, 20))
    QTest.qWait(80)
    painted = {id(view): hand.picture(view) for view in hand.planes.views}
    for view in hand.planes.views:
        assert orange(painted[id(view)]) > orange(plain[id(view)]) + 20, view.title
    QTest.keyClick(sagittal.widget.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert book.labelled == [8]
    QTest.qWait(80)
    hand.planes.go_to((12, 16, 20))
    for view in hand.planes.views:
        assert orange(hand.picture(view)) <= orange(plain[id(view)]) + 5, view.title


def orange(picture: np.ndarray) -> int:
    """How many pixels have the colour of the first class."""
    red, _, blue = (picture[..., channel].astype(int) for channel in range(3))
    return int((red > blue + 60).sum())


def test_paint_masks_and_predictions_of_the_large_view_show_in_the_others_as_they_come(hand, qtbot):
    coronal, book = hand.view("Coronal"), hand.controller.session.labels
    bare = orange(hand.picture(coronal))
    values = np.zeros(SHAPE[1:], np.uint16)
    values[10:22, 10:30] = 1
    for index in range(2, 10):
        book.set_prediction(index, values, 0.9)
    hand.controller.layers.show_predictions(range(2, 10))
    hand.controller.touch(Change.PREDICTIONS)
    QTest.qWait(80)
    predicted = orange(hand.picture(coronal))
    assert predicted > bare + 200
    hand.controller.layers.prediction.visible = False
    assert orange(hand.picture(coronal)) < bare + 20
    hand.controller.layers.prediction.visible = True
    hand.controller.view.go_to(15)
    hand.layer.mode = "paint"
    hand.layer.brush_size = 9
    hand.stroke(hand.main, (15, 16, 12), (15, 16, 28))
    hand.controller.flush()
    assert book.labelled == [15]
    qtbot.waitUntil(lambda: orange(hand.picture(coronal)) > predicted + 100, timeout=10_000)
    limits = (0.0, 777.0)
    hand.controller.layers.image.contrast_limits = limits
    assert all(tuple(view.model.layers[0].contrast_limits) == limits for view in hand.planes.views)


def test_strokes_in_another_plane_follow_eraser_rule_smart_brush_and_background(hand):
    controller, rules = hand.controller, hand.controller.paint_rules
    controller.labels.add_class()

    def begin(values: int) -> None:
        hand.layer.data[:] = 0
        hand.layer.data[:, 16, 20:24] = values
        hand.layer.refresh()
        controller.flush()
        controller.labels.select_class(1)
        hand.layer.mode = "paint"

    def painted() -> list[int]:
        hand.stroke(hand.view("Coronal"), (12, 16, 18), (12, 16, 28))
        return hand.layer.data[12, 16, 16:31].tolist()

    begin(2)
    hand.layer.mode = "erase"
    assert not any(painted())
    begin(2)
    controller.labels.select_class(-1)
    assert painted() == [0, 0, *[BACKGROUND] * 11, 0, 0]
    begin(2)
    rules.paint_over(PaintOver("free"))
    assert painted() == [0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1, 0, 0]
    begin(0)
    rules.take_brush(smart=True)
    hand.layer.brush_size = 31
    assert any(painted())
    bright = np.asarray(controller.session.case.display)[:, 16] > 100
    found = hand.layer.data[:, 16] == 1
    assert not (found & ~bright).any()
    assert found.sum() > 0.8 * bright.sum()
    assert (hand.layer.data == 1).sum() == found.sum()


def test_a_flush_splits_no_stroke_in_another_plane_and_what_forbids_painting_forbids_it_there(hand, said):
    book, native = hand.controller.session.labels, hand.view("Coronal").widget.canvas.native
    hand.layer.mode = "paint"
    before = hand.steps
    places = [hand.point(hand.view("Coronal"), (z, 16, 20)) for z in (4, 9, 14)]
    QTest.mousePress(native, LEFT, NONE, places[0])
    for place in places[1:]:
        hand.move(hand.view("Coronal"), place)
        hand.controller.flush()
    QTest.mouseRelease(native, LEFT, NONE, places[-1])
    assert hand.steps == before + 1
    assert book.labelled == list(range(4, 15))
    assert all((book.manual(index) == UNKNOWN).any() for index in book.labelled)
    hand.controller.layers.undo()
    assert book.labelled == []
    hand.controller.read_only = "Another window writes."
    hand.stroke(hand.view("Coronal"), (4, 16, 20), (14, 16, 20))
    assert not hand.layer.data.any()
    assert "Another window writes." in said
    hand.controller.read_only = ""
    hand.viewer.add_image(np.zeros(SHAPE), name="cover", scale=hand.layer.scale, units=hand.layer.units)
    hand.viewer.layers.selection.active = hand.layer
    hand.stroke(hand.view("Coronal"), (4, 16, 20), (14, 16, 20))
    assert not hand.layer.data.any()


def test_another_plane_and_another_case_show_in_open_views(hand, path, tmp_path, said):
    hand.controller.cases.change_plane(type(hand.controller.session.case.plane)("sagittal"))
    settle()
    assert sorted(view.title for view in hand.planes.views) == ["Axial", "Coronal"]
    assert all(hand.letters(view) == ROUND[view.title] for view in hand.planes.views)
    other = write_nifti(tmp_path / "other.nii.gz", volume()[:30, :20, :10], np.diag([-1.0, -1.0, 2.0, 1.0]))
    hand.controller.cases.open_path(other, background=False, plane="coronal")
    settle()
    assert hand.planes.is_open
    for view in hand.planes.views:
        assert hand.letters(view) == ROUND[view.title]
        pairs = list(zip(hand.viewer.layers, view.model.layers, strict=True))
        assert all(twin.data is layer.data and twin.name == layer.name for layer, twin in pairs)
        assert view.model.dims.nsteps == (10, 20, 30)
    assert hand.planes.place == (5, hand.controller.current_slice, 15)
    hand.controller.cases.open_path(write_pictures(tmp_path), background=False)
    settle()
    assert not hand.planes.is_open
    assert any("pictures" in sentence for sentence in said)
    assert not hand.panel.case.planes_button.isEnabled()
    assert "one plane" in hand.panel.case.planes_button.toolTip()
    QTest.keyClick(hand.main.widget.canvas.native, Qt.Key.Key_F3)
    assert not hand.planes.is_open
    assert hand.main.widget.count() == 1


def test_the_other_views_draw_outlines_and_stay_while_the_large_one_is_in_3d(hand, qtbot):
    controller = hand.controller
    predicted = np.zeros(controller.session.case.slice_shape(5), np.uint16)
    predicted[4:14, 4:20] = 1
    controller.session.labels.set_prediction(5, predicted, 0.9)
    controller.layers.show_predictions([5])
    twins = [twin for view in hand.planes.views for twin in view.model.layers if twin.name == "prediction"]
    assert len(twins) == 2
    assert {twin.contour for twin in twins} == {controller.layers.prediction.contour}
    assert controller.layers.prediction.contour > 0
    controller.surfaces.switch(True)
    qtbot.waitUntil(lambda: not controller.surfaces.working, timeout=20_000)
    settle()
    assert not controller.layers.prediction.visible
    assert all(twin.visible for view in hand.planes.views for twin in view.model.layers)
    controller.surfaces.switch(False)
    settle()
    assert controller.layers.prediction.visible
    controller.layers.prediction.visible = False
    assert not any(twin.visible for twin in twins)


def test_keys_in_another_view_mean_what_they_mean_in_the_large_one(hand):
    native = hand.view("Sagittal").widget.canvas.native
    values = np.zeros(SHAPE[1:], np.uint16)
    values[10:22, 10:30] = 1
    hand.controller.session.labels.set_prediction(12, values, 0.9)
    hand.controller.layers.show_predictions([12])
    hand.planes.go_to((12, 16, 20))
    hand.move(hand.view("Sagittal"), hand.point(hand.view("Sagittal"), (12, 16, 20)))
    hand.controller.labels.select_class(0)
    QTest.keyClick(native, Qt.Key.Key_I)  # pick the class under the cursor
    assert hand.controller.labels.selected_class == 1
    QTest.keyClick(native, Qt.Key.Key_A)
    assert hand.controller.session.labels.status(12) is Status.ACCEPTED
    QTest.keyClick(native, Qt.Key.Key_F3)
    assert not hand.planes.is_open


@pytest.mark.shared_window(False)
def test_a_window_that_is_closed_with_the_views_open_keeps_what_was_painted(hand):
    hand.layer.mode = "paint"
    hand.stroke(hand.view("Coronal"), (4, 16, 20), (14, 16, 20))
    book = hand.controller.session.labels
    hand.viewer.close()
    settle()
    hand.controller.dispose()
    assert not hand.planes.is_open
    assert book.labelled == list(range(4, 15))


def test_rolled_axes_leave_the_other_two_planes_and_removed_layers_leave_and_return(hand):
    hand.viewer.dims.order = (1, 0, 2)
    settle()
    assert sorted(view.title for view in hand.planes.views) == ["Axial", "Sagittal"]
    hand.controller.view.back_to_plane()
    settle()
    assert sorted(view.title for view in hand.planes.views) == ["Coronal", "Sagittal"]
    hand.viewer.layers.remove(hand.controller.layers.prediction)
    settle()
    assert [len(view.model.layers) for view in hand.planes.views] == [2, 2]
    hand.controller.view.restore_layers()
    hand.controller.layers.prepare_proposal()
    settle()
    for view in hand.planes.views:
        names = [layer.name for layer in hand.viewer.layers]
        assert [twin.name for twin in view.model.layers] == names
        assert {"ball", "prediction", "manual", "proposal"} == set(names)


OBLIQUE = np.array([[0.9, -0.2, 0.1, 3], [0.25, 1.0, -0.15, -7], [-0.1, 0.2, 1.2, 11], [0, 0, 0, 1.0]])


def check_marked(controller, path, mark: tuple[int, ...] | None, plane: str) -> None:
    """Open a volume with one bright voxel; in each view it lies where it belongs, and a stroke on it finds its file."""
    controller.cases.open_path(path, background=False, plane=plane)
    hand = Hand(controller)
    if not hand.planes.is_open:
        hand.planes.switch(True)
    case, layers = controller.session.case, controller.layers
    layers.image.colormap, layers.image.interpolation2d, layers.image.contrast_limits = "red", "nearest", (0, 200)
    marked = np.argwhere(case.restore(np.stack([case.slice(i) == 200 for i in range(case.n_slices)]))).tolist()
    assert mark is None or marked == [list(mark)]
    layers.manual.brush_size, layers.manual.mode = 1, "paint"
    voxel = tuple(int(place) for place in np.argwhere(np.asarray(case.display) == 200)[0])
    assert {view.title.lower() for view in hand.planes.views} == {"axial", "coronal", "sagittal"} - {plane}
    for view in (hand.main, *hand.planes.views):
        hand.planes.go_to(voxel)
        QTest.qWait(1)
        picture = hand.picture(view).astype(int)
        red = (picture[..., 0] > 150) & (picture[..., 1] < 90) & (picture[..., 2] < 90)
        rows, columns = np.nonzero(red)
        assert len(rows) > 20
        x, y = round(columns.mean()), round(rows.mean())
        # The mark lies on the patient's right, in front and towards the head.
        assert y < picture.shape[0] / 2
        assert x < picture.shape[1] / 2
        native = view.widget.canvas.native
        hand.move(view, QPoint(x, y))
        QTest.mouseClick(native, LEFT, NONE, QPoint(x, y))
        controller.flush()
        assert hand.planes.place == voxel
        labels = np.stack([controller.session.labels.result(i) for i in range(case.n_slices)])
        assert np.argwhere(case.restore(labels)).tolist() == marked
        controller.layers.undo()
        assert not layers.manual.data.any()
    assert all(hand.letters(view) == ROUND[view.title] for view in hand.planes.views)


def test_a_stroke_in_each_of_three_planes_lands_on_the_right_voxel_of_nifti_and_oblique_dicom(alone, tmp_path):
    for plane, stored in (
        ("axial", {"axes": (2, 0, 1), "flips": (1, -1, 1)}),
        ("coronal", {"axes": (1, 2, 0), "flips": (-1, 1, -1)}),
        ("sagittal", {"affine": OBLIQUE}),
    ):
        mark = write_volume(tmp_path / "marked.nii", **stored)
        check_marked(alone, tmp_path / "marked.nii", mark, plane)
    volume = np.zeros((6, 7, 8), np.int16)
    volume[4, 1, 2] = 200
    write_dicom(tmp_path / "series", volume, directions=OBLIQUE_AXES[:, :2], spacing=(1.1, 1.0), step=1.3, intercept=0)
    check_marked(alone, tmp_path / "series", None, "axial")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_strokes_in_three_planes_land_on_the_right_voxels_in_every_order_of_the_file(alone, tmp_path):
    step = max(1, len(ORIENTATIONS) // ORDERS)
    for plane in ("axial", "coronal", "sagittal"):
        for axes, flips in ORIENTATIONS[len(plane) % step :: step]:  # others for each plane
            mark = write_volume(tmp_path / "marked.nii", axes, flips)
            check_marked(alone, tmp_path / "marked.nii", mark, plane)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_openings_with_other_cases_meanwhile_leave_nothing_behind(alone, path, tmp_path):
    other = write_nifti(tmp_path / "other.nii.gz", volume()[:30, :20, :10], np.diag([-1.0, -1.0, 2.0, 1.0]))
    planes, process, held = alone.planes, psutil.Process(), []
    alone.cases.open_path(path, background=False, plane="axial")
    for turn in range(OPENINGS):
        planes.switch(True)
        QTest.qWait(20)
        alone.cases.open_path(
            (other, path)[turn % 2], background=False, plane=("axial", "coronal", "sagittal")[turn % 3]
        )
        QTest.qWait(20)
        for view in planes.views:
            pairs = list(zip(alone.viewer.layers, view.model.layers, strict=True))
            assert all(twin.data is layer.data for layer, twin in pairs), "a layer of the case before"
        del view, pairs
        planes.switch(False)
        QTest.qWait(20)
        gc.collect()
        counts = sum(isinstance(one, QtViewer) for one in gc.get_objects()), len(QApplication.allWidgets())
        held.append((process.memory_info().rss, *counts))
    memory, viewers, widgets = np.array(held).T
    assert viewers[5:].max() == viewers[5:].min() == 1
    assert widgets[5:].max() == widgets[5:].min()
    assert memory[-1] < 1.05 * memory[min(9, OPENINGS - 3)]
