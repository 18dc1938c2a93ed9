"""Predictions are drawn as outlines and what is painted is filled; what is stored and exported stays the same."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.layers import Labels
from scipy.ndimage import binary_dilation

from napari_dinoaugseg.gui.outlines import draw_outlines, outline, outline_width
from napari_dinoaugseg.gui.setup import preferences
from napari_dinoaugseg.session.labels import EVERYTHING
from tests.blobs import write_case
from tests.gui.conftest import open_blobs, paint, settle

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_an_outline_is_what_lies_near_another_label(width, seed):
    labels = np.kron(np.random.default_rng(seed).integers(0, 3, (3, 4)), np.ones((5, 4), int)).astype(np.uint16)
    padded = np.pad(labels, 1, mode="edge")
    beside = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    edge = np.any([one != labels for one in beside], axis=0)
    # Each further pixel of width adds a ring of neighbours.
    near = binary_dilation(edge, np.ones((2 * width - 1, 2 * width - 1)))
    np.testing.assert_array_equal(outline(labels, width), np.where(near, labels, 0))


@pytest.mark.parametrize(("side", "width"), [(64, 1), (256, 1), (512, 2), (1024, 4), (2048, 8)])
def test_an_outline_is_about_as_wide_on_the_screen_whatever_the_slice(side, width):
    assert outline_width((side, side + 100)) == width


def test_drawing_an_outline_costs_less_than_a_frame():
    """On a radiograph, where napari's own outline of this width takes longer than a second."""
    labels = np.zeros((2048, 2048), np.uint16)
    labels[300:1700, 500:1500] = 1
    layer = Labels(labels)
    draw_outlines(layer)
    start = time.process_time()
    layer.contour = outline_width(labels.shape)
    assert time.process_time() - start < 0.5
    drawn = np.asarray(layer._slice.image.view)
    assert drawn[305, 1000]
    assert not drawn[1000, 1000]
    assert layer.data[1000, 1000] == 1


def test_what_napari_draws_for_its_polygon_is_made_once_that_is_chosen(windowless, blob_files):
    open_blobs(windowless, blob_files[0])
    drawn = {layer: layer._overlays["polygon"] for layer in (windowless.layers.manual, windowless.layers.prediction)}
    assert [overlay.visible for overlay in drawn.values()] == [False, False]
    windowless.layers.manual.mode = "polygon"
    assert [overlay.visible for overlay in drawn.values()] == [True, False]


def test_mine_is_filled_and_the_machines_is_an_outline(controller, case, truth, tmp_path):
    paint(controller, truth, [8])
    book, layers = controller.session.labels, controller.layers
    book.set_prediction(5, truth[5], 0.9)
    layers.show_predictions([5])
    masks = {index: book.result(index, EVERYTHING) for index in (5, 8)}

    def filled(layer) -> bool:
        return np.array_equal(np.asarray(layer._slice.image.view) != 0, np.asarray(layer._slice.image.raw) != 0)

    controller.view.go_to(8)
    assert filled(layers.manual)
    controller.view.go_to(5)
    assert not filled(layers.prediction)
    np.testing.assert_array_equal(layers.prediction.data[5], truth[5])
    assert all(np.array_equal(book.result(index, EVERYTHING), mask) for index, mask in masks.items())
    controller.judging.draw(outlines=False)
    assert filled(layers.prediction)
    assert preferences().outlines is False
    controller.judging.draw(outlines=True)
    # A removed layer comes back in the chosen style, and so does that of the next case.
    controller.viewer.layers.remove(layers.prediction)
    controller.view.restore_layers()
    assert (layers.prediction.contour, layers.prediction.opacity) == (1, 1.0)
    controller.viewer.dims.ndisplay = 3  # napari warns where it cannot draw outlines
    controller.viewer.dims.ndisplay = 2
    (tmp_path / "next").mkdir()
    controller.cases.open_path(write_case(tmp_path / "next")[0], background=False, plane="coronal")
    settle()
    assert controller.layers is not layers
    assert controller.layers.prediction.contour == 1
