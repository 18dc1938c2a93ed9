"""A proposal comes from strokes of a class and of the background, and leaves finished classes as they are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinoaugseg.case.array import case_from_array
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.labels import BACKGROUND, UNKNOWN, LabelBook, Strokes, classes_of
from napari_dinoaugseg.session.proposal import propose, unit_image

SHAPE = (48, 64)
ROWS, COLUMNS = np.indices(SHAPE)
LEFT = (ROWS - 24) ** 2 + (COLUMNS - 20) ** 2 < 100
RIGHT = (ROWS - 24) ** 2 + (COLUMNS - 46) ** 2 < 81
IMAGE = np.where(LEFT, 0.9, np.where(RIGHT, 0.6, 0.2)).astype(np.float32)


def canvas_with(*strokes: tuple[slice | int, slice | int, int], on: np.ndarray | None = None) -> np.ndarray:
    canvas = np.zeros(SHAPE, np.uint16) if on is None else on.copy()
    for rows, columns, number in strokes:
        canvas[rows, columns] = number
    return canvas


def loop(top: int, bottom: int, left: int, right: int) -> list[tuple[slice | int, slice | int, int]]:
    """A stroke of the background around a box."""
    across, down = slice(left, right), slice(top, bottom)
    return [
        (top, across, BACKGROUND),
        (bottom, across, BACKGROUND),
        (down, left, BACKGROUND),
        (down, right, BACKGROUND),
    ]


INSIDE_LEFT = (slice(22, 27), slice(16, 24), 1)
INSIDE_RIGHT = (slice(22, 27), slice(43, 49), 2)
AROUND_LEFT, AROUND_RIGHT = loop(11, 37, 7, 33), loop(12, 36, 34, 58)


@pytest.fixture
def book() -> LabelBook:
    book = LabelBook([SHAPE] * 3, 3)
    book.replace_classes(classes_of([1, 2]))
    book.forget_history()
    return book


def scribble(book: LabelBook, *strokes, index: int = 0) -> None:
    book.paint({index: canvas_with(*strokes, on=book.canvas(index))}, scribbles=True)


def proposal(book: LabelBook, index: int = 0) -> np.ndarray:
    labels = propose(IMAGE, book.of_slice(index).strokes)
    assert labels is not None
    return labels


def take(book: LabelBook, index: int = 0) -> np.ndarray:
    labels = proposal(book, index)
    book.complete(index, labels)
    return labels


def error(labels: np.ndarray, truth: np.ndarray) -> float:
    """The share of wrong pixels, of those of the truth."""
    return float(((labels != 0) != truth).sum() / truth.sum())


def test_two_strokes_propose_the_disc(book):
    scribble(book, INSIDE_LEFT)
    assert propose(IMAGE, book.of_slice(0).strokes) is None
    scribble(book, *AROUND_LEFT)
    assert error(proposal(book), LEFT) < 0.1


def test_strokes_of_two_classes_without_background_propose_nothing(book):
    scribble(book, INSIDE_LEFT, INSIDE_RIGHT)
    assert propose(IMAGE, book.of_slice(0).strokes) is None


def test_a_proposal_is_nothing_for_the_book_until_it_is_taken(book):
    scribble(book, INSIDE_LEFT, *AROUND_LEFT)
    before = book.manual(0)
    proposal(book)
    assert book.manual(0) is before
    assert book.open_slices == [0, 1, 2]
    taken = take(book)
    assert np.array_equal(book.truth(0), taken)
    assert book.open_slices == [1, 2]


def test_undo_of_a_taken_proposal_brings_the_strokes_back_and_redo_the_proposal(book):
    scribble(book, INSIDE_LEFT, *AROUND_LEFT)
    strokes = book.manual(0)
    taken = take(book)
    book.undo()
    assert book.manual(0) is strokes
    assert (strokes == UNKNOWN).any()
    assert np.array_equal(proposal(book), taken)
    book.redo()
    assert np.array_equal(book.truth(0), taken)
    assert book.of_slice(0).strokes.taken


def test_two_more_strokes_after_taking_add_a_class_and_keep_the_first(book):
    scribble(book, INSIDE_LEFT, *AROUND_LEFT)
    first = take(book)
    scribble(book, INSIDE_RIGHT)
    scribble(book, *AROUND_RIGHT)
    assert not book.of_slice(0).strokes.taken
    both = take(book)
    assert error(both == 1, LEFT) < 0.1
    assert error(both == 2, RIGHT) < 0.1
    assert ((both == 1) != (first == 1)).mean() < 0.02
    for _ in range(3):
        book.undo()
    assert np.array_equal(book.truth(0), first)


def test_a_correction_after_taking_makes_the_outline_anew_from_all_strokes(book):
    scribble(book, INSIDE_LEFT, *loop(1, 46, 1, 62))  # far outside: the other disc is in it too
    take(book)
    scribble(book, (slice(20, 28), slice(42, 50), 1))
    assert error(take(book), LEFT | RIGHT) < 0.15
    scribble(book, (slice(20, 28), slice(42, 50), BACKGROUND))
    assert error(take(book), LEFT) < 0.15


@pytest.mark.parametrize("how", ["painted", "accepted"])
def test_on_a_slice_that_was_labelled_before_finished_classes_stay(book, how):
    finished = np.where(LEFT, 1, 0).astype(np.uint16)
    finished[:, :12] = 2  # painted by a person, whatever the image shows
    if how == "painted":
        book.paint({0: finished})
    else:
        book.set_prediction(0, finished, 0.9)
        book.accept(0)
    scribble(book, INSIDE_RIGHT, *AROUND_RIGHT)
    labels = take(book)
    assert np.array_equal(labels[finished != 0], finished[finished != 0])
    assert error((labels == 2) & (COLUMNS > 30), RIGHT) < 0.15
    assert not labels[(finished == 0) & (COLUMNS < 30)].any()


def test_new_strokes_win_over_finished_classes(book):
    finished = np.where(LEFT, 1, 0).astype(np.uint16)
    book.paint({0: finished})
    scribble(book, (24, slice(12, 18), BACKGROUND), INSIDE_RIGHT, *AROUND_RIGHT)
    labels = take(book)
    assert not labels[24, 12:18].any()
    assert (labels[22:27, 43:49] == 2).all()


def test_a_slice_that_was_changed_in_another_way_has_no_strokes_any_more(book):
    scribble(book, INSIDE_LEFT, *AROUND_LEFT)
    taken = take(book)
    book.paint({0: canvas_with((24, slice(1, 4), 2), on=taken)}, scribbles=False)
    assert book.of_slice(0).strokes is None
    scribble(book, INSIDE_RIGHT, *AROUND_RIGHT)
    labels = proposal(book)
    assert np.array_equal(labels[(taken == 1) & ~RIGHT], taken[(taken == 1) & ~RIGHT])
    assert (labels[24, 1:4] == 2).all()


def test_a_removed_class_leaves_the_strokes(book):
    scribble(book, INSIDE_LEFT, INSIDE_RIGHT, *AROUND_LEFT, *AROUND_RIGHT)
    take(book)
    book.remove_class(2, erase=True)
    scribble(book, (slice(22, 27), slice(43, 49), 1), (5, slice(2, 60), BACKGROUND))
    assert set(np.unique(proposal(book))) == {0, 1}


def test_nothing_is_taken_without_strokes(book):
    with pytest.raises(LabelError, match="has no strokes"):
        book.complete(0, np.zeros(SHAPE, np.uint16))
    scribble(book, INSIDE_LEFT)
    with pytest.raises(LabelError, match="not a class"):
        book.complete(0, np.full(SHAPE, 7, np.uint16))
    assert book.of_slice(0).scribbled


def test_taking_the_same_labels_again_ends_the_proposal(book):
    scribble(book, INSIDE_LEFT, *AROUND_LEFT)
    taken = take(book)
    scribble(book, (2, slice(2, 20), BACKGROUND))
    book.complete(0, taken)
    assert book.of_slice(0).strokes.taken


def test_a_slice_is_scaled_as_it_is_seen():
    grey = case_from_array(np.arange(200, dtype=np.float32).reshape(1, 10, 20), plane="native")
    unit = unit_image(grey, 0, "0,100")
    assert unit.min() == 0
    assert unit.max() == 1
    assert unit[0, 10] == pytest.approx(0.1)
    colour = case_from_array(np.full((8, 9, 3), 51, np.uint8), is_rgb=True)
    assert unit_image(colour, 0, "auto") == pytest.approx(0.2)


def test_strokes_without_labels_below_have_no_base(book):
    scribble(book, INSIDE_LEFT)
    strokes = book.of_slice(0).strokes
    assert isinstance(strokes, Strokes)
    assert strokes.base is None
