from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, SliceLabels, Status, classes_of, foreign_values

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


def test_paint_on_an_accepted_slice_takes_the_place_of_the_acceptance(book):
    book.set_prediction(1, full(2), 0.8)
    book.accept(1)
    book.set_manual(1, full(1))
    assert book.of_slice(1).accepted is None
    book.undo()
    assert book.status(1) is Status.ACCEPTED


def test_an_undo_does_not_bring_an_old_prediction_over_a_newer_one(book):
    book.set_prediction(0, full(1), 0.8)
    book.reject(0)
    book.set_prediction(0, full(2), 0.3)
    book.undo()
    assert (book.predicted(0) == 2).all()
    assert book.confidence == {0: 0.3}


def test_an_undo_that_takes_a_class_away_takes_it_from_predictions_too(book):
    added = book.add_class("vessel").number
    book.set_prediction(0, full(added), 0.8)
    book.undo()
    assert (book.predicted(0) == 0).all()
    book.redo()
    assert (book.predicted(0) == added).all()


def test_a_class_removed_again_is_taken_from_predictions_that_came_meanwhile(book):
    book.remove_class(9)
    book.undo()
    book.set_prediction(0, full(9), 0.8)
    book.redo()
    assert (book.predicted(0) == 0).all()


def test_what_holds_a_class_that_is_gone_is_not_put_back(book):
    book.set_manual(0, full(9))
    said = book.of_slice(0)
    book.remove_class(9, erase=True)
    with pytest.raises(LabelError, match="no class"):
        book.put_back(0, said)
    assert (book.manual(0) == 0).all()


def test_what_is_put_back_cannot_change_behind_its_back_either(book):
    mine = full(1)
    book.put_back(0, SliceLabels(manual=mine))
    mine[:] = 7
    assert (book.manual(0) == 1).all()


def test_a_prediction_of_another_models_classes_is_not_taken_as_a_label(book):
    book.set_prediction(0, full(9), 0.8)
    book.classes = classes_of([1, 2])
    for take in (book.accept, book.copy_to_manual):
        with pytest.raises(LabelError, match="no class"):
            take(0)
    assert book.labelled == []


@dataclass(frozen=True)
class Moment:
    """What a plain reading says a person would expect of the book: by slice, and the classes by number."""

    manual: dict[int, np.ndarray]
    accepted: dict[int, np.ndarray]
    names: dict[int, str]


class BookAttack(RuleBasedStateMachine):
    """Any sequence of changes and predictions; a list of moments beside the book says what must be in it."""

    slices = st.integers(0, 5)
    values = st.sampled_from([1, 2, 9, UNKNOWN])

    def __init__(self):
        super().__init__()
        self.book = LabelBook(lambda _: SHAPE, 6)
        self.book.classes = classes_of([1, 2, 9])
        self.moments = [Moment({}, {}, {n: f"class {n}" for n in (1, 2, 9)})]
        self.at = 0
        self.latest = {}  # the confidence with which each slice was last predicted

    @property
    def now(self):
        return self.moments[self.at]

    def then(self, manual=None, accepted=None, names=None):
        """A change was made: nothing can be redone, and what was not named stays."""
        before = self.now
        del self.moments[self.at + 1 :]
        self.moments.append(
            Moment(
                before.manual if manual is None else manual,
                before.accepted if accepted is None else accepted,
                before.names if names is None else names,
            )
        )
        self.at += 1

    def painted(self, index, labels):
        rest = {i: one for i, one in self.now.accepted.items() if i != index}
        self.then({**self.now.manual, index: labels}, rest)

    @rule(index=slices, value=values, rows=st.integers(0, 4))
    def paint(self, index, value, rows):
        labels = full(0)
        labels[:rows] = value
        if value != UNKNOWN and value not in self.now.names:
            with pytest.raises(LabelError, match="no class"):
                self.book.set_manual(index, full(value))
            return
        self.book.set_manual(index, labels)
        self.painted(index, labels)

    @rule(index=slices)
    def empty(self, index):
        self.book.mark_empty(index)
        self.painted(index, full(0))

    @rule(index=slices)
    def clear(self, index):
        self.book.clear(index)
        self.then(
            *({i: one for i, one in layer.items() if i != index} for layer in (self.now.manual, self.now.accepted))
        )

    @rule(index=slices, other=slices)
    def put_back(self, index, other):
        said = self.book.of_slice(other)
        self.book.put_back(index, said)
        layers = []
        for layer, labels in ((self.now.manual, said.manual), (self.now.accepted, said.accepted)):
            rest = {i: one for i, one in layer.items() if i != index}
            layers.append(rest if labels is None else {**rest, index: labels.copy()})
        self.then(*layers)

    @rule(index=slices, value=values, confidence=st.sampled_from([0.25, 0.5, 0.75]))
    def predict(self, index, value, confidence):
        if value in self.now.names:
            labels = full(value)
            labels[0] = 0
            self.book.set_prediction(index, labels, confidence)
            self.latest[index] = confidence

    @rule(threshold=st.sampled_from([0.3, 0.6]))
    def accept_above(self, threshold):
        expected = [
            i
            for i, confidence in sorted(self.book.confidence.items())
            if confidence >= threshold and i not in self.now.manual and i not in self.now.accepted
        ]
        taken = {i: self.book.predicted(i).copy() for i in expected}
        assert self.book.accept_above(threshold) == expected
        if expected:
            self.then(accepted={**self.now.accepted, **taken})

    @rule(index=slices)
    def accept(self, index):
        predicted = self.book.predicted(index)
        if index in self.now.manual:
            assert self.book.accept_all([index]) == []
        elif predicted is not None:
            self.book.accept(index)
            self.then(accepted={**self.now.accepted, index: predicted.copy()})

    @rule(index=slices)
    def reject(self, index):
        self.book.reject(index)
        assert self.book.predicted(index) is None
        self.then(accepted={i: one for i, one in self.now.accepted.items() if i != index})

    @rule(index=slices, overwrite=st.booleans())
    def copy(self, index, overwrite):
        source = self.now.accepted.get(index, self.book.predicted(index))
        if source is None or (index in self.now.manual and not overwrite):
            with pytest.raises(LabelError):
                self.book.copy_to_manual(index, overwrite=overwrite)
            return
        labels = source.copy()
        self.book.copy_to_manual(index, overwrite=overwrite)
        self.painted(index, labels)

    @rule(number=st.sampled_from([None, 2, 9]))
    def add_class(self, number):
        if number in self.now.names:
            with pytest.raises(LabelError, match="already"):
                self.book.add_class(number=number)
            return
        added = self.book.add_class(number=number)
        self.then(names={**self.now.names, added.number: f"class {added.number}"})

    @rule(number=st.sampled_from([1, 2, 9]), name=st.sampled_from(["liver", "vessel"]))
    def rename(self, number, name):
        if number in self.now.names:
            self.book.rename_class(number, name)
            self.then(names={**self.now.names, number: name})

    @rule(number=st.sampled_from([1, 2, 9]), erase=st.booleans())
    def remove_class(self, number, erase):
        if not erase and any((one == number).any() for one in self.now.manual.values()):
            with pytest.raises(LabelError, match="holds paint"):
                self.book.remove_class(number)
            return
        self.book.remove_class(number, erase=erase)
        erased = [
            {i: np.where(one == number, 0, one) for i, one in layer.items()}
            for layer in (self.now.manual, self.now.accepted)
        ]
        self.then(*erased, {n: name for n, name in self.now.names.items() if n != number})

    @rule()
    def undo(self):
        assert self.book.undo() == (self.at > 0)
        self.at = max(0, self.at - 1)

    @rule()
    def redo(self):
        assert self.book.redo() == (self.at + 1 < len(self.moments))
        self.at = min(len(self.moments) - 1, self.at + 1)

    @invariant()
    def the_book_says_what_the_person_said(self):
        for index in range(6):
            said = self.book.of_slice(index)
            for labels, expected in (
                (said.manual, self.now.manual.get(index)),
                (said.accepted, self.now.accepted.get(index)),
            ):
                assert (labels is None) == (expected is None)
                assert labels is None or np.array_equal(labels, expected)
        assert {entry.number: entry.name for entry in self.book.classes} == self.now.names

    @invariant()
    def no_slice_is_both_painted_and_accepted(self):
        assert not set(self.now.manual) & set(self.now.accepted)
        assert self.book.labelled == sorted({*self.now.manual, *self.now.accepted})

    @invariant()
    def every_value_is_a_class_background_or_open(self):
        content = self.book.content()
        allowed = [0, UNKNOWN, *self.now.names]
        for layer in content.layers.values():
            for labels in layer.values():
                assert np.isin(labels, allowed).all()
                assert not labels.flags.writeable

    @invariant()
    def a_prediction_has_the_confidence_it_came_with(self):
        for index, confidence in self.book.confidence.items():
            assert confidence == self.latest[index]


TestAnySequenceOfChanges = BookAttack.TestCase
TestAnySequenceOfChanges.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_slice_that_is_not_labelled_teaches_nothing(book):
    book.set_prediction(1, full(2), 0.8)
    with pytest.raises(LabelError, match="Slice 1 is not labelled"):
        book.truth(1)


def test_what_the_model_made_is_unseen_until_somebody_looks_and_again_when_it_is_made_new(book):
    for index in (1, 2, 3):
        book.set_prediction(index, full(1), 0.9)
    assert book.unseen() == [1, 2, 3]
    assert book.see(2)
    assert not book.see(2)
    assert book.unseen() == [1, 3]
    book.set_prediction(2, full(2), 0.9)
    assert book.unseen() == [1, 2, 3]
    book.reject(1)
    assert book.unseen() == [2, 3]
    assert book.unseen([Status.MANUAL, Status.ACCEPTED]) == []


def test_accepting_unseen_predictions_does_not_make_them_seen(book):
    book.set_prediction(1, full(1), 0.9)
    book.set_prediction(2, full(1), 0.9)
    book.see(2)
    book.accept_all([1, 2])
    assert book.unseen() == [1]
    book.undo()
    assert book.unseen() == [1]
    book.redo()
    book.see(1)
    assert book.unseen() == []
    book.set_prediction(1, full(2), 0.9)  # of a training that was under way
    assert book.unseen() == []
    book.undo()
    assert book.unseen() == [1]


def test_slices_that_were_interpolated_and_gaps_that_a_prediction_fills_are_unseen_too(book):
    book.set_manual(1, full(1), seen=False)
    scribbles = full(UNKNOWN)
    scribbles[0] = 1
    book.set_manual(2, scribbles)
    assert book.unseen() == [1]
    book.set_prediction(2, full(2), 0.9)
    assert book.unseen() == [1, 2]
    assert book.unseen([Status.MANUAL]) == [1]
    assert not book.result(1, reviewed_only=True).any()
    left = book.result(2, reviewed_only=True)
    assert (left[0] == 1).all()
    assert not left[1:].any()
    book.set_manual(1, full(2))  # painted by hand since
    assert book.unseen() == [2]


def test_a_book_whose_content_does_not_say_what_was_seen_takes_nothing_of_the_model_for_seen(book):
    book.set_manual(0, full(1))
    book.set_prediction(1, full(1), 0.9)
    book.set_prediction(2, full(1), 0.9)
    book.accept(2)
    for index in range(6):
        book.see(index)
    content = book.content()
    book.take_content(content)
    assert book.unseen() == []
    book.take_content(replace(content, unseen=None))
    assert book.unseen() == [1, 2]


@pytest.mark.parametrize("value", [3, 8, 10, 65534])
def test_a_value_that_is_no_class_is_found_wherever_it_is(book, value):
    labels = full(UNKNOWN)
    labels[1, 2] = value
    assert foreign_values(labels, [1, 2, 9]) == [value]
    assert foreign_values(labels.astype(np.int64), [1, 2, 9]) == [value]
    with pytest.raises(LabelError, match=f"{value}, which is no class"):
        book.set_manual(0, labels)
