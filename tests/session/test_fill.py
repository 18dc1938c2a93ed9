"""Filling between two slices: what must hold whatever was painted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_dinoaugseg.session.fill import fill_between
from napari_dinoaugseg.session.labels import UNKNOWN

SHAPE = (14, 17)
slices = arrays(np.uint16, SHAPE, elements=st.sampled_from([0, 0, 0, 1, 1, 7, UNKNOWN]))


def disc(row: float, column: float, radius: float, shape=(60, 60), number: int = 1) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (number * ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)).astype(np.uint16)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@settings(max_examples=60, deadline=None)
@given(first=slices, last=slices, count=st.integers(0, 4))
def test_shape_type_and_values(first, last, count):
    filled = fill_between(first, last, count)
    assert len(filled) == count
    allowed = ({0} | set(np.unique(first)) | set(np.unique(last))) - {UNKNOWN}
    for labels in filled:
        assert labels.shape == SHAPE
        assert labels.dtype == np.uint16
        assert set(np.unique(labels)) <= allowed


@settings(max_examples=60, deadline=None)
@given(labels=slices, count=st.integers(1, 3))
def test_equal_slices_give_the_same_between(labels, count):
    expected = np.where(labels == UNKNOWN, 0, labels)
    for between in fill_between(labels, labels, count):
        np.testing.assert_array_equal(between, expected)


@settings(max_examples=60, deadline=None)
@given(first=arrays(np.uint16, SHAPE, elements=st.sampled_from([0, 3])), seed=st.integers(0, 99))
def test_the_way_back_is_the_way_reversed(first, seed):
    last = np.roll(first, seed % 5, axis=seed % 2)
    there, back = fill_between(first, last, 3), fill_between(last, first, 3)
    for a, b in zip(there, reversed(back), strict=True):
        # Rounding decides pixels that lie exactly on an outline.
        assert (a != b).mean() < 0.02


@settings(max_examples=30, deadline=None)
@given(start=st.integers(4, 40), move=st.integers(-12, 12), radii=st.tuples(st.integers(5, 9), st.integers(5, 9)))
def test_a_disc_travels_and_grows_evenly(start, move, radii):
    shape = (80, 80)
    first, last = disc(30, start + 16, radii[0], shape), disc(30 + move, 40, radii[1], shape)
    for step, labels in enumerate(fill_between(first, last, 3), start=1):
        part = step / 4
        at = (30 + part * move, (1 - part) * (start + 16) + part * 40)
        expected = disc(*at, (1 - part) * radii[0] + part * radii[1], shape)
        assert dice(labels == 1, expected == 1) > 0.9


def test_a_class_on_one_slice_only_tapers_off_halfway():
    areas = [int((labels == 1).sum()) for labels in fill_between(disc(30, 30, 12), disc(0, 0, 0) * 0, 9)]
    assert areas == sorted(areas, reverse=True)
    assert areas[3] > 0
    assert areas[4:] == [0] * 5


def test_pixels_are_not_square():
    """The outline moves in millimetres: a bar of 2 and a bar of 6 pixels of 4 mm meet at a bar of 4."""
    first, last = np.zeros((40, 20), np.uint16), np.zeros((40, 20), np.uint16)
    first[19:21, 5:15] = last[17:23, 5:15] = 1
    (between,) = fill_between(first, last, 1, spacing=(4.0, 1.0))
    np.testing.assert_array_equal(np.flatnonzero(between[:, 10]), [18, 19, 20, 21])


def test_two_classes_do_not_overlap_and_both_stay():
    first = disc(30, 20, 9) + disc(30, 42, 9, number=2)
    last = disc(30, 22, 9) + disc(30, 40, 8, number=2)
    for labels in fill_between(first, last, 2):
        assert (labels == 1).sum() > 200
        assert (labels == 2).sum() > 150


def test_a_full_slice_stays_full():
    full = np.ones(SHAPE, np.uint16)
    assert fill_between(full, full, 1)[0].all()


def test_slices_of_two_sizes_are_a_mistake():
    with pytest.raises(ValueError, match="slices of"):
        fill_between(np.zeros((3, 4), np.uint16), np.zeros((4, 3), np.uint16), 1)
    with pytest.raises(ValueError, match="-1 slices"):
        fill_between(np.zeros((3, 4), np.uint16), np.zeros((3, 4), np.uint16), -1)
