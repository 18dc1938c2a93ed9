import contextlib
import time

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_dinoaugseg.session.labels import BACKGROUND, UNKNOWN, Status
from tests.gui.conftest import paint, settle

pytestmark = pytest.mark.shared_window


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


def stroke(qtbot, viewer, offsets=((-20, 0), (0, 0), (20, 0))) -> None:
    """Draw with the left button through the middle of the canvas."""
    native = viewer.window._qt_viewer.canvas.native
    middle = QPoint(native.width() // 2, native.height() // 2)
    points = [middle + QPoint(*offset) for offset in offsets]
    qtbot.mouseMove(native, points[0])
    qtbot.mousePress(native, Qt.MouseButton.LeftButton, pos=points[0])
    for point in points[1:]:
        before = viewer.cursor.position
        qtbot.mouseMove(native, point)
        # napari takes one movement in 5 ms at once, and the last of the others later; a person is not as fast.
        # Without a tool the slice follows the mouse instead, and the cursor stays on the same place of it.
        with contextlib.suppress(qtbot.TimeoutError):
            qtbot.waitUntil(lambda before=before: viewer.cursor.position != before, timeout=500)
    qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=points[-1])


@pytest.mark.usefixtures("panel")
def test_a_stroke_of_the_mouse_paints_and_reaches_the_session(controller, case, qtbot):
    controller.view.go_to(8)
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [8], timeout=10_000)
    manual = controller.session.labels.manual(8)
    assert (manual == 1).sum() > 20
    assert np.array_equal(manual, controller.layers.manual.data[8])


def test_strokes_are_taken_over_soon_but_not_one_by_one(controller, case, qtbot):
    taken = []
    controller.layers.painting.taken.connect(taken.append)
    controller.view.go_to(8)
    for column in (5, 15, 25):
        controller.layers.manual.paint((8, 10, column), 1)
    began = time.monotonic()
    qtbot.waitUntil(lambda: bool(taken), timeout=10_000)
    assert time.monotonic() - began < 0.6
    qtbot.wait(200)
    assert taken == [[8]]


@pytest.mark.usefixtures("panel")
def test_painting_goes_to_the_slice_in_view_in_every_plane(controller, case, blob_files, qtbot):
    for plane in ("axial", "coronal", "sagittal"):
        controller.cases.open_path(blob_files[0], background=False, plane=plane)
        settle()
        controller.view.go_to(7)
        assert controller.current_slice == 7
        assert controller.session.labels.labelled == []
        stroke(qtbot, controller.viewer)
        controller.flush()
        assert controller.session.labels.labelled == [7], plane
        assert (controller.session.labels.manual(7) == 1).any(), plane


def test_undo_and_redo_of_paint_reach_the_session(controller, case, qtbot):
    layer = controller.layers.manual
    controller.view.go_to(8)
    layer.paint((8, 10, 10), 1)
    controller.flush()
    first = controller.session.labels.manual(8)
    layer.paint((8, 20, 30), 1)
    controller.flush()
    layer.undo()
    qtbot.waitUntil(lambda: np.array_equal(controller.session.labels.manual(8), first), timeout=10_000)
    layer.undo()
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [], timeout=10_000)
    layer.redo()
    qtbot.waitUntil(lambda: np.array_equal(controller.session.labels.manual(8), first), timeout=10_000)


def test_undo_of_a_stroke_on_another_slice_than_the_one_in_view(controller, case, qtbot):
    controller.view.go_to(4)
    controller.layers.manual.paint((4, 10, 10), 1)
    controller.view.go_to(12)
    controller.layers.manual.undo()
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [], timeout=10_000)


@pytest.mark.usefixtures("panel")
def test_the_undo_key_takes_back_strokes(controller, case, qtbot):
    controller.view.go_to(8)
    stroke(qtbot, controller.viewer)
    controller.flush()
    native = controller.viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [], timeout=10_000)
    assert not controller.layers.manual.data.any()


def test_accepting_is_undone_and_redone_like_paint(controller, case, truth):
    book = controller.session.labels
    controller.labels.add_class()
    book.add_class(number=3)
    book.set_prediction(6, truth[6], 0.9)
    controller.labels.accept(6)
    assert book.status(6) is Status.ACCEPTED
    controller.layers.undo()
    assert book.status(6) is Status.PREDICTED
    controller.layers.redo()
    assert book.status(6) is Status.ACCEPTED
    assert np.array_equal(book.truth(6), truth[6])


def test_correcting_an_accepted_slice_makes_it_manual_and_undo_makes_it_accepted(controller, case, truth):
    book = controller.session.labels
    book.add_class(number=3)
    book.set_prediction(6, truth[6], 0.9)
    controller.labels.accept(6)
    controller.layers.manual.paint((6, 3, 3), 1)
    controller.flush()
    assert book.status(6) is Status.MANUAL
    controller.layers.undo()
    assert book.status(6) is Status.ACCEPTED


def test_rejecting_is_undone_in_its_turn(controller, case, truth):
    book = controller.session.labels
    book.add_class(number=3)
    book.set_prediction(6, truth[6], 0.9)
    controller.labels.reject(6)
    assert book.status(6) is Status.EMPTY
    assert not controller.layers.prediction.data[6].any()
    controller.layers.undo()
    assert book.status(6) is Status.PREDICTED
    assert np.array_equal(controller.layers.prediction.data[6], truth[6])


def test_a_prediction_never_touches_paint(controller, case, truth):
    paint(controller, truth, [6])
    before = controller.layers.manual.data[6].copy()
    controller.session.labels.set_prediction(6, np.zeros_like(truth[6]), 0.9)
    controller.labels.accept(6)
    controller.labels.accept_above(0.5)
    controller.labels.copy_to_manual(6)
    controller.labels.mark_empty(6)
    assert np.array_equal(controller.layers.manual.data[6], before)
    assert np.array_equal(controller.session.labels.manual(6), truth[6])


def test_an_empty_slice_is_labelled_and_can_be_undone(controller, case, said):
    controller.labels.mark_empty(5)
    assert controller.session.labels.labelled == [5]
    assert not controller.session.labels.manual(5).any()
    controller.layers.undo()
    assert controller.session.labels.labelled == []


def test_clearing_a_slice_can_be_undone(controller, case, truth):
    paint(controller, truth, [6])
    controller.labels.clear(6)
    assert controller.session.labels.labelled == []
    controller.layers.undo()
    assert np.array_equal(controller.session.labels.manual(6), truth[6])


def test_filling_between_two_slices(controller, case, truth, said):
    paint(controller, truth, [5, 9])
    controller.view.go_to(7)
    controller.labels.fill_between()
    assert controller.session.labels.labelled == [5, 6, 7, 8, 9]
    assert (controller.session.labels.manual(7) == 1).any()
    assert said[-1] == "3 slices filled by interpolation as a starting point: check them. Ctrl+Z undoes it."
    controller.layers.undo()
    assert controller.session.labels.labelled == [5, 9]


def test_filling_every_gap_is_one_action(controller, panel, case, truth, said):
    paint(controller, truth, [4, 7, 9])
    controller.session.labels.set_prediction(8, truth[8], 0.9)
    panel.label.fill_all_button.click()
    assert controller.session.labels.labelled == [4, 5, 6, 7, 8, 9]
    assert np.array_equal(controller.layers.manual.data[8], truth[8])
    assert said[-1].startswith("3 slices in 2 gaps filled by the model and by interpolation")
    controller.layers.undo()
    assert controller.session.labels.labelled == [4, 7, 9]


def test_with_scribbles_unpainted_is_unknown_and_background_has_its_brush(controller, case):
    controller.labels.set_scribbles(True)
    layer = controller.layers.manual
    layer.paint((8, 10, 10), 1)
    controller.labels.select_class(-1)
    assert layer.selected_label == BACKGROUND
    layer.paint((8, 30, 30), BACKGROUND)
    controller.flush()
    manual = controller.session.labels.manual(8)
    assert set(np.unique(manual)) == {0, 1, UNKNOWN}
    assert 8 in controller.session.labels.open_slices
    controller.labels.set_scribbles(False)
    layer.paint((8, 20, 20), 1)
    controller.flush()
    assert UNKNOWN in controller.session.labels.manual(8)  # a slice stays what it was begun as


def test_copying_a_prediction_fills_what_scribbles_left_open(controller, case, truth):
    controller.labels.set_scribbles(True)
    controller.session.labels.add_class(number=3)
    controller.layers.manual.paint((8, 3, 3), 1)
    controller.flush()
    painted = controller.session.labels.manual(8) == 1
    controller.session.labels.set_prediction(8, truth[8], 0.9)
    controller.labels.copy_to_manual(8)
    manual = controller.session.labels.manual(8)
    assert (manual[painted] == 1).all()
    assert np.array_equal(manual[~painted], truth[8][~painted])


def test_paint_with_a_number_that_is_no_class_becomes_a_class(controller, case):
    for number in (2, 300, 65534):
        assert number not in [entry.number for entry in controller.session.labels.classes]
        controller.layers.manual.paint((8, 10, 10), number)
        controller.flush()
        assert number in [entry.number for entry in controller.session.labels.classes]
        assert (controller.session.labels.manual(8) == number).any(), number


def test_a_class_with_paint_is_only_removed_when_that_is_said(controller, case, truth, panel, monkeypatch):
    paint(controller, truth, [5, 6])
    controller.labels.rename_class(1, "liver")
    controller.labels.select_class(1)
    answers = iter([False, True])
    asked = []
    monkeypatch.setattr(
        "napari_dinoaugseg.gui.label_section.confirmed", lambda *args: asked.append(args) or next(answers)
    )
    panel.classes._remove()
    assert asked
    assert (controller.layers.manual.data == 1).any()
    panel.classes._remove()
    assert not (controller.layers.manual.data == 1).any()
    assert [entry.number for entry in controller.session.labels.classes] == [3]
    controller.layers.undo()
    assert np.array_equal(controller.session.labels.manual(5), truth[5])
    assert "liver" in [entry.name for entry in controller.session.labels.classes]


def test_a_removed_labels_layer_comes_back_with_all_labels(controller, case, truth, said, panel):
    paint(controller, truth, [5, 6])
    controller.layers.manual.paint((7, 10, 10), 1)  # not taken over yet
    controller.viewer.layers.remove(controller.layers.manual)
    assert controller.session.labels.labelled == [5, 6, 7]
    assert any("Bring layers back" in text for text in said)
    settle()
    assert panel.label.restore_button.isVisibleTo(panel.label)
    controller.view.restore_layers()
    assert np.array_equal(controller.layers.manual.data[5], truth[5])
    assert controller.session.labels.labelled == [5, 6, 7]
    controller.layers.manual.paint((9, 10, 10), 1)
    controller.flush()
    assert controller.session.labels.labelled == [5, 6, 7, 9]


def test_a_renamed_layer_is_still_ours(controller, case):
    controller.layers.manual.name = "my labels"
    controller.layers.manual.paint((8, 10, 10), 1)
    controller.flush()
    assert controller.session.labels.labelled == [8]


def test_an_array_put_into_the_layer_is_taken_over_when_it_fits(controller, case, truth, said):
    layer = controller.layers.manual
    data = np.zeros(layer.data.shape, np.int64)
    data[3] = truth[6]
    layer.data = data
    controller.flush()
    assert np.array_equal(controller.session.labels.manual(3), truth[6])
    layer.data = np.zeros((2, 3, 4), np.uint16)
    assert controller.layers.manual is None
    assert not controller.session.labels.of_slice(3).is_empty
