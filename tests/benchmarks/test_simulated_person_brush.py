from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.person_brush import RIGHT, correct, wrong_classes
from napari_dinoaugseg.learning.metrics import dice

SIDE = 64
EMPTY = np.zeros((SIDE, SIDE), np.uint16)


def disc(row: float, column: float, radius: float) -> NDArray[np.uint16]:
    """Mask of a filled circle."""
    rows, columns = np.indices((SIDE, SIDE))
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).astype(np.uint16)


def two_classes(radius: float) -> NDArray[np.uint16]:
    """A disc of class 1 with a smaller one of class 2 in it, off its middle."""
    return disc(30, 34, radius) + disc(33, 32, radius / 2)


@pytest.mark.parametrize("radius", [1, 2.5, 5, 9, 14, 22, 28])
def test_a_slice_painted_from_nothing_is_right_and_keeps_inside_the_truth(radius: float) -> None:
    truth = two_classes(radius)
    painted = correct(np.zeros_like(truth), truth)
    assert painted.strokes >= len(np.unique(truth)) - 1
    for number in set(np.unique(truth)) - {0}:
        assert dice(painted.labels == number, truth == number) >= RIGHT
    assert np.isin(painted.labels, [0, *np.unique(truth)]).all()
    assert (painted.labels == truth)[painted.labels != 0].all()


def test_what_the_brush_covers_in_one_press_is_one_stroke() -> None:
    assert correct(EMPTY, disc(30, 30, 6.5)).strokes == 1  # a click
    bar = EMPTY.copy()
    bar[30:35, 5:60] = 1
    assert correct(EMPTY, bar).strokes <= 3  # a sweep, and what the round brush leaves in the corners
    assert correct(EMPTY, np.maximum(disc(12, 12, 6.5), 2 * disc(45, 45, 6.5))).strokes == 2


def test_a_ring_takes_more_than_one_stroke() -> None:
    ring = disc(32, 32, 20.5) - disc(32, 32, 15.5)
    assert 2 <= correct(EMPTY, ring).strokes <= 12


def test_too_much_is_erased_and_the_rest_is_left_alone() -> None:
    truth = disc(20, 20, 10)
    found = np.maximum(truth, 2 * disc(50, 50, 5))
    found[:, :9] = truth[:, :9]
    corrected = correct(found, truth)
    assert corrected.strokes == 1
    np.testing.assert_array_equal(corrected.labels, truth)


def test_a_class_painted_as_another_is_painted_over() -> None:
    truth = disc(30, 30, 12)
    corrected = correct(2 * truth, truth)
    assert wrong_classes(corrected.labels, truth) == []
    assert np.count_nonzero(corrected.labels == 2) <= 3


def test_a_prediction_that_is_nearly_right_takes_no_stroke() -> None:
    truth = disc(30, 30, 12)
    speck = truth.copy()
    speck[60, 60:63] = 2
    for found in (truth, speck):
        corrected = correct(found, truth)
        assert corrected.strokes == 0
        np.testing.assert_array_equal(corrected.labels, found)
    speck[61, 60] = 2
    assert correct(speck, truth).strokes == 1
    assert correct(EMPTY, EMPTY).strokes == 0


def test_a_better_prediction_takes_fewer_strokes() -> None:
    truth = np.maximum(disc(30, 30, 20), 2 * disc(30, 30, 9))
    near, far = (np.roll(truth, shift, axis=1) for shift in (1, 8))
    assert correct(near, truth).strokes < correct(far, truth).strokes


def test_structures_at_the_edge_and_over_the_whole_picture_are_painted() -> None:
    for truth in (disc(0, 0, 15), np.ones_like(EMPTY)):
        assert wrong_classes(correct(EMPTY, truth).labels, truth) == []


def test_the_same_slice_takes_the_same_strokes() -> None:
    truth = two_classes(20)
    first, second = (correct(np.roll(truth, 3, axis=0), truth) for _ in range(2))
    assert first.strokes == second.strokes
    np.testing.assert_array_equal(first.labels, second.labels)
