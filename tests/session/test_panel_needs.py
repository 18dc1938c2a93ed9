"""What a session offers to a window that paints while it learns."""

import numpy as np
import pytest

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.learning.prediction import Prediction
from napari_dinoaugseg.session.labels import UNDO_LIMIT, LabelBook, SliceLabels, Status
from tests.session.test_session import drain


@pytest.fixture
def book():
    book = LabelBook([(2, 3)] * 4, 4)
    book.add_class("liver")
    return book


ONES = np.ones((2, 3), np.uint16)


def test_what_was_said_about_a_slice_can_be_put_back(book):
    before = book.of_slice(1)
    assert before.is_empty
    book.set_prediction(1, ONES, 0.9)
    book.accept(1)
    accepted = book.of_slice(1)
    book.set_manual(1, 0 * ONES)
    book.put_back(1, accepted)
    assert book.status(1) is Status.ACCEPTED
    book.put_back(1, SliceLabels())
    assert book.status(1) is Status.PREDICTED
    assert book.undo()
    assert book.status(1) is Status.ACCEPTED


def test_classes_are_renamed_and_recoloured_undoably(book):
    book.rename_class(1, " spleen ")
    book.recolour_class(1, "#112233")
    assert (book.classes[0].name, book.classes[0].colour) == ("spleen", "#112233")
    book.undo()
    book.undo()
    assert book.classes[0].name == "liver"
    with pytest.raises(LabelError, match="needs a name"):
        book.rename_class(1, "  ")
    with pytest.raises(LabelError, match="no class number 7"):
        book.recolour_class(7, "#000000")


@pytest.mark.parametrize("colour", ["red", "#12345", "#11223344", "#000000; background: url(x)", ""])
def test_what_is_no_colour_is_refused_and_nothing_changes(book, colour):
    before = list(book.classes)
    with pytest.raises(LabelError, match="#rrggbb"):
        book.recolour_class(1, colour)
    assert book.classes == before


def test_the_slices_that_hold_a_class(book):
    book.set_manual(2, ONES)
    assert book.holds_paint(1) == [2]
    assert book.holds_paint(2) == []


def test_the_history_is_bounded(book):
    for _ in range(UNDO_LIMIT + 50):
        book.set_manual(0, ONES)
    undone = 0
    while book.undo():
        undone += 1
    assert undone == UNDO_LIMIT


def test_a_training_learns_from_what_was_labelled_when_it_was_asked_for(new_session, blob_files):
    session = new_session()
    session.load_labels(blob_files[1], [4, 8])
    work = session.train()
    session.labels.mark_empty(0)
    done = drain(work)
    assert done.labelled == [4, 8]


def test_predictions_are_handed_out_and_kept_by_whoever_owns_the_book(new_session, blob_files):
    session = new_session()
    session.load_labels(blob_files[1], [4, 8])
    drain(session.train())
    items = [item for item in session.predictions(8) if isinstance(item, Prediction)]
    assert session.labels.confidence == {}
    session.labels.remove_class(3, erase=True)
    for item in items:
        session.keep(item)
    assert sorted(session.labels.confidence) == session.labels.open_slices
    assert not any((session.labels.predicted(i) == 3).any() for i in session.labels.open_slices)


def test_other_settings_drop_only_what_no_longer_fits(new_session, blob_files, quick):
    session = new_session()
    assert not session.is_ready
    session.load_labels(blob_files[1], [4, 8])
    drain(session.train())
    assert session.is_trained
    session.configure(quick.with_changes(steps=3), device="cpu", weights=None)
    assert session.is_trained
    session.configure(quick.with_changes(width=48), device="cpu", weights=None)
    assert session.is_ready
    assert not session.is_trained
    session.configure(quick.with_changes(window="0,500"), device="cpu", weights=None)
    assert not session.is_ready
