"""Paint across slices says nothing of what is left unpainted on them."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_dinoaugseg.gui import painting
from napari_dinoaugseg.session.labels import BACKGROUND, UNKNOWN
from tests.gui.conftest import paint, settle
from tests.gui.test_painting import stroke

pytestmark = [pytest.mark.slow, pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


def roll(controller, qtbot) -> None:
    """Into the view across slices, once the canvas has its size beside the button that comes with it."""
    viewer = controller.viewer
    native = viewer.window._qt_viewer.canvas.native
    viewer.window._qt_viewer.viewerButtons.rollDimsButton.click()
    seen = []
    qtbot.waitUntil(lambda: seen.append(native.size()) or seen[-5:].count(seen[-1]) == 5)
    viewer.reset_view()


def draw_across(qtbot, controller, slices: int = 5) -> None:
    """From so many slices before the middle one to so many behind it, in the rolled view, whatever its scale."""
    viewer = controller.viewer
    one = controller.layers.manual.scale[0] * viewer.scene.camera.zoom  # pixels of the canvas from slice to slice
    stroke(qtbot, viewer, offsets=[(0, round(one * step)) for step in range(-slices, slices + 1)])
    controller.flush()


def scribbled(controller) -> list[int]:
    book = controller.session.labels
    return [index for index in book.labelled if (book.truth(index) == UNKNOWN).any()]


def meant(controller) -> dict[int, bytes]:
    """What each labelled slice means."""
    book = controller.session.labels
    return {index: book.truth(index).tobytes() for index in book.labelled}


def press(controller, qtbot, *, redo: bool = False) -> None:
    """Ctrl+Z on the canvas, or Ctrl+Shift+Z."""
    held = Qt.KeyboardModifier.ControlModifier
    held = held | Qt.KeyboardModifier.ShiftModifier if redo else held
    qtbot.keyClick(controller.viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Z, held)
    controller.flush()


def test_a_stroke_in_the_rolled_view_scribbles_on_the_slices_it_touches(controller, panel, case, said, qtbot):
    roll(controller, qtbot)
    draw_across(qtbot, controller)
    book, layer = controller.session.labels, controller.layers.manual
    touched = [index for index in range(case.n_slices) if layer.data[index].any()]
    assert len(touched) > 2
    assert book.labelled == touched == scribbled(controller)
    for index in touched:
        assert set(np.unique(book.manual(index))) == {1, UNKNOWN}
        assert np.array_equal(book.manual(index) == 1, layer.data[index] == 1)
    assert any("scribbles" in sentence and "Back to the plane" in sentence for sentence in said)
    settle()
    assert panel.label.plane_button.isVisibleTo(panel.label)


def test_a_slice_that_was_labelled_as_a_whole_stays_whole(controller, case, truth, qtbot):
    book = controller.session.labels
    paint(controller, truth, [7])
    book.set_prediction(8, truth[8], 0.9)
    controller.labels.accept(8)
    controller.labels.mark_empty(9)
    roll(controller, qtbot)
    draw_across(qtbot, controller)
    assert {7, 8, 9} < set(book.labelled)
    assert not {7, 8, 9} & set(scribbled(controller))
    assert scribbled(controller) == [index for index in book.labelled if index not in (7, 8, 9)]
    painted = controller.layers.manual.data[7] == 1
    assert np.array_equal(book.manual(7), np.where(painted, 1, truth[7]))


def test_undo_and_redo_give_every_slice_what_it_meant(controller, case, truth, qtbot):
    paint(controller, truth, [7])
    start = meant(controller)
    roll(controller, qtbot)
    draw_across(qtbot, controller)
    across = meant(controller)
    controller.view.back_to_plane()
    controller.view.go_to(6)
    stroke(qtbot, controller.viewer)  # on a slice that was begun as scribbles
    controller.flush()
    within = meant(controller)
    assert 6 in scribbled(controller)
    for redo, expected in [(False, across), (False, start), (True, across), (True, within), (False, across)]:
        press(controller, qtbot, redo=redo)
        assert meant(controller) == expected


def test_erasing_and_filling_across_slices(controller, case, truth, qtbot, monkeypatch):
    monkeypatch.setattr("napari_dinoaugseg.gui.view.confirmed", lambda *_: True)  # that a flood is meant
    book, layer = controller.session.labels, controller.layers.manual
    paint(controller, truth, [7])
    roll(controller, qtbot)
    draw_across(qtbot, controller)
    before = meant(controller)
    controller.labels.select_class(0)
    layer.brush_size = 25  # surely covers what was drawn
    draw_across(qtbot, controller, slices=8)
    assert book.labelled == [7]  # the others held nothing else
    assert scribbled(controller) == []
    press(controller, qtbot)
    assert meant(controller) == before
    controller.labels.select_class(1)
    layer.mode = "fill"
    press(controller, qtbot)
    assert book.labelled == [7]
    stroke(qtbot, controller.viewer, offsets=((0, 0),))  # the whole plane, whatever has no label
    qtbot.waitUntil(lambda: book.labelled == list(range(case.n_slices)), timeout=10_000)
    assert scribbled(controller) == [index for index in range(case.n_slices) if index != 7]


@pytest.mark.parametrize("way", ["3-D edit mode", "voxels", "while the slice changed"])
def test_a_stroke_across_slices_scribbles_in_the_plane_too(controller, case, said, way, qtbot):
    layer = controller.layers.manual
    controller.view.go_to(8)
    if way == "3-D edit mode":
        layer.n_edit_dimensions, layer.brush_size = 3, 12
        stroke(qtbot, controller.viewer)
    elif way == "voxels":
        layer.data_setitem((np.array([7, 8, 9]), np.array([5, 5, 5]), np.array([6, 6, 6])), 1)
    else:
        with layer.block_history():
            layer.paint((8, 10, 10), 1)
            controller.view.go_to(9)
            layer.paint((9, 10, 10), 1)
    controller.flush()
    assert len(scribbled(controller)) > 1
    assert scribbled(controller) == controller.session.labels.labelled
    assert any("scribbles" in sentence for sentence in said)


def test_strokes_within_the_plane_label_whole_slices_as_before(controller, panel, case, said, qtbot):
    layer = controller.layers.manual
    for index in (8, 9):  # the second before the first is taken over
        controller.view.go_to(index)
        stroke(qtbot, controller.viewer)
    controller.view.go_to(10)
    layer.n_edit_dimensions, layer.brush_size = 3, 12
    stroke(qtbot, controller.viewer)
    controller.flush()
    assert not {8, 9} & set(scribbled(controller))
    assert {10, 11} <= set(scribbled(controller))


def test_in_3d_paint_counts_as_scribbles(controller, case, truth):
    paint(controller, truth, [8])
    controller.viewer.dims.ndisplay = 3
    controller.layers.manual.paint((9, 10, 10), 1)
    controller.flush()
    assert scribbled(controller) == [9]


@pytest.mark.parametrize("rolled", [False, True])
def test_what_is_taken_over_in_the_middle_of_a_stroke_counts_alike(controller, case, rolled, qtbot):
    """Training or saving looks at the labels whenever it likes."""
    if rolled:
        roll(controller, qtbot)
    layer = controller.layers.manual
    layer.events.labels_update.connect(lambda: controller.flush())
    draw_across(qtbot, controller)
    controller.flush()
    assert controller.session.labels.labelled
    assert scribbled(controller) == (controller.session.labels.labelled if rolled else [])


def test_what_napari_tells_of_a_stroke_is_not_relied_on(controller, case, monkeypatch, qtbot):
    """It is napari's own affair; without it the slices are compared."""
    monkeypatch.setattr(painting, "slices_of_edits", lambda event, axis: None)
    controller.view.go_to(3)
    stroke(qtbot, controller.viewer)
    roll(controller, qtbot)
    draw_across(qtbot, controller)
    assert 3 in controller.session.labels.labelled
    assert scribbled(controller) == [index for index in controller.session.labels.labelled if index != 3]


def test_with_scribbles_on_nothing_new_is_said(controller, case, said, qtbot):
    controller.labels.set_scribbles(True)
    roll(controller, qtbot)
    draw_across(qtbot, controller)
    controller.layers.manual.paint((5, 30, 30), BACKGROUND)
    controller.flush()
    assert scribbled(controller) == controller.session.labels.labelled
    assert not [sentence for sentence in said if "across" in sentence]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_back_to_the_plane_shows_the_slice_again(controller, case, panel, blob_files, plane, qtbot):
    controller.cases.open_path(blob_files[0], background=False, plane=plane)
    viewer, button = controller.viewer, panel.label.plane_button
    controller.view.go_to(5)
    order, camera = viewer.dims.order, viewer.scene.camera
    viewer.reset_view()
    turned, centre = camera.orientation, camera.center
    settle()
    assert not button.isVisibleTo(panel.label)
    viewer.window._qt_viewer.viewerButtons.transposeDimsButton.click()
    settle()
    assert not button.isVisibleTo(panel.label)  # slices are still in view
    roll(controller, qtbot)
    viewer.dims.ndisplay = 3
    settle()
    assert button.isVisibleTo(panel.label)
    button.click()
    assert (viewer.dims.order, viewer.dims.ndisplay, controller.current_slice) == (order, 2, 5)
    assert camera.orientation == turned
    assert np.allclose(camera.center[1:], centre[1:])
    settle()
    assert not button.isVisibleTo(panel.label)
    stroke(qtbot, viewer)
    controller.flush()
    assert controller.session.labels.labelled == [5]
    assert scribbled(controller) == []
