"""Filling between two slices: what must hold whatever was painted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.fill import fill_between, fill_every_gap, fill_gap
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook

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


# --- gaps of a label book ---------------------------------------------------------------------------------------------


@pytest.fixture
def book() -> LabelBook:
    """Discs on the slices 2, 5 and 9 of twelve, a scribble on slice 7."""
    made = LabelBook([(60, 60)] * 12, 12)
    made.add_class("organ")
    scribble = np.full((60, 60), UNKNOWN, np.uint16)
    scribble[30, 20:40], scribble[:, 0] = 1, 0
    made.label({2: disc(30, 30, 12), 5: disc(30, 30, 18), 7: scribble, 9: disc(30, 30, 12)})
    return made


def test_a_gap_is_that_around_the_slice_in_view(book):
    filled = fill_gap(book, 3, (1.0, 1.0))
    assert sorted(filled.slices) == [3, 4]
    assert (filled.gaps, filled.by_model) == (1, 0)
    assert 12**2 < np.count_nonzero(filled.slices[3]) / np.pi < np.count_nonzero(filled.slices[4]) / np.pi < 18**2


def test_all_gaps_are_filled_at_once_and_what_is_labelled_stays(book):
    filled = fill_every_gap(book, (1.0, 1.0))
    assert sorted(filled.slices) == [3, 4, 6, 8]  # slice 7 is scribbled
    assert filled.gaps == 2


def test_a_slice_takes_the_mask_that_the_model_is_sure_of(book):
    sure, unsure = disc(10, 10, 5), disc(50, 50, 5)
    book.set_prediction(3, sure, 0.8)
    book.set_prediction(4, unsure, 0.3)
    filled = fill_every_gap(book, (1.0, 1.0))
    assert np.array_equal(filled.slices[3], sure)
    assert not np.array_equal(filled.slices[4], unsure)
    assert filled.by_model == 1


def test_gaps_need_two_slices_that_are_painted_as_a_whole(book):
    for here, reason in ((0, "between two slices"), (6, "not scribbles")):
        with pytest.raises(LabelError, match=reason):
            fill_gap(book, here, None)
    book.label(fill_gap(book, 3, None).slices)
    with pytest.raises(LabelError, match="between two slices"):
        fill_gap(book, 3, None)
    book.clear(9)
    with pytest.raises(LabelError, match="Paint two slices as a whole"):
        fill_every_gap(book, None)


def test_a_gap_without_open_slices_is_refused(book):
    book.mark_empty(3)
    for index in (3, 4):
        book.clear(index)
        book.set_prediction(index, disc(30, 30, 9), 0.9)
        book.accept(index)
    with pytest.raises(LabelError, match="nothing to fill"):
        fill_gap(book, 3, None)
