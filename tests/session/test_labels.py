import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.classes import classes_of
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, Status

SHAPE = (4, 5)


@pytest.fixture
def book():
    book = LabelBook(lambda _: SHAPE, 6)
    book.classes = classes_of([1, 2, 9])
    return book


def full(value):
    return np.full(SHAPE, value, np.uint16)


def test_a_prediction_never_touches_a_manual_label(book):
    book.set_manual(2, full(1))
    book.set_prediction(2, full(2), 0.9)
    assert (book.result(2) == 1).all()
    assert book.status(2) is Status.MANUAL
    assert book.accept_all([2]) == []
    assert (book.manual(2) == 1).all()


def test_an_all_background_slice_counts_as_labelled(book):
    book.mark_empty(3)
    assert book.labelled == [3]
    assert book.status(3) is Status.MANUAL
    assert 3 not in book.open_slices


def test_what_is_in_the_book_cannot_change_behind_its_back(book):
    painted = full(1)
    book.set_manual(0, painted)
    painted[:] = 2
    assert (book.manual(0) == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        book.manual(0)[0, 0] = 2


def test_accepting_copies_and_can_be_undone(book):
    book.set_prediction(1, full(2), 0.8)
    book.accept(1)
    book.set_prediction(1, full(1), 0.7)
    assert (book.result(1) == 2).all()
    assert book.undo()
    assert book.status(1) is Status.PREDICTED
    assert book.redo()
    assert book.status(1) is Status.ACCEPTED


def test_accepting_above_a_confidence_takes_only_predictions_that_reach_it(book):
    for index, confidence in enumerate([0.9, 0.5, 0.95]):
        book.set_prediction(index, full(1), confidence)
    book.set_manual(2, full(2))
    assert book.accept_above(0.8) == [0]


def test_copying_to_manual_does_not_overwrite_paint_unless_told(book):
    book.set_prediction(0, full(2), 0.5)
    book.set_manual(0, full(1))
    with pytest.raises(LabelError, match="overwrite"):
        book.copy_to_manual(0)
    book.copy_to_manual(0, overwrite=True)
    assert (book.manual(0) == 2).all()
    book.undo()
    assert (book.manual(0) == 1).all()


def test_open_pixels_are_filled_by_the_prediction_and_only_by_it(book):
    scribble = full(UNKNOWN)
    scribble[0] = 1
    book.set_manual(0, scribble)
    assert 0 in book.open_slices
    assert (book.result(0)[1:] == 0).all()
    book.set_prediction(0, full(9), 0.5)
    assert (book.result(0)[0] == 1).all()
    assert (book.result(0)[1:] == 9).all()
    assert (book.result(0, [Status.MANUAL])[1:] == 0).all()


def test_removing_a_class_with_paint_asks_and_undo_brings_both_back(book):
    book.set_manual(0, full(9))
    with pytest.raises(LabelError, match="holds paint"):
        book.remove_class(9)
    book.remove_class(9, erase=True)
    assert (book.manual(0) == 0).all()
    book.undo()
    assert (book.manual(0) == 9).all()
    assert [entry.number for entry in book.classes] == [1, 2, 9]


@pytest.mark.parametrize(
    ("index", "labels", "message"),
    [
        (6, full(1), "no slice 6"),
        (-1, full(1), "no slice -1"),
        (0, np.zeros((5, 4), np.uint16), "shape"),
        (0, full(7), "no class"),
        (0, np.full(SHAPE, -3), "no class"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(book, index, labels, message):
    with pytest.raises(LabelError, match=message):
        book.set_manual(index, labels)
    assert book.labelled == []
    assert not book.undo()


def test_what_has_no_prediction_cannot_be_accepted_or_copied(book):
    with pytest.raises(LabelError, match="no prediction"):
        book.accept_all([0, 1])
    with pytest.raises(LabelError, match="no prediction"):
        book.copy_to_manual(0)


def test_new_classes_take_the_next_free_number_and_no_taken_one(book):
    assert book.add_class("tumour").number == 3
    with pytest.raises(LabelError, match="already"):
        book.add_class(number=9)
    with pytest.raises(LabelError, match="0 is the background"):
        book.add_class(number=0)


OPERATIONS = {
    "paint": lambda book, index, value: book.set_manual(index, full(value)) or True,
    "empty": lambda book, index, _: book.mark_empty(index) or True,
    "clear": lambda book, index, _: book.clear(index) or True,
    "accept": lambda book, index, _: bool(book.accept_all([index])),
    "reject": lambda book, index, _: book.reject(index) or True,
    "copy": lambda book, index, _: book.copy_to_manual(index) or True,
    "undo": lambda book, *_: book.undo() and "undo",
    "redo": lambda book, *_: book.redo() and "redo",
    "predict": lambda book, index, value: book.set_prediction(index, full(value), 0.5),
}


def perform(book, name, index, value):
    """Carry out one change; tells whether it was a new one, an undo, a redo, or none."""
    try:
        return OPERATIONS[name](book, index, value)
    except LabelError:
        return False


def manual_labels(book):
    return {index: book.manual(index).tobytes() for index in range(6) if book.manual(index) is not None}


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 5), st.sampled_from([1, 2, 9, UNKNOWN])),
        max_size=40,
    )
)
@settings(max_examples=150, deadline=None)
def test_manual_labels_follow_the_person_through_any_sequence_of_changes(operations):
    """A plain list of snapshots beside the book tells what the person's labels must be."""
    book = LabelBook(lambda _: SHAPE, 6)
    book.classes = classes_of([1, 2, 9])
    snapshots, position = [{}], 0
    for operation in operations:
        changed = perform(book, *operation)
        if changed is True:
            del snapshots[position + 1 :]
            snapshots.append(manual_labels(book))
            position += 1
        elif changed:
            position += -1 if changed == "undo" else 1
        assert manual_labels(book) == snapshots[position]
