from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session import labels as labels_module
from napari_dinoaugseg.session.labels import (
    BACKGROUND,
    UNKNOWN,
    LabelBook,
    Status,
    classes_of,
    foreign_values,
    from_canvas,
    to_canvas,
)

SHAPE = (4, 5)


@pytest.fixture
def book():
    book = LabelBook(lambda _: SHAPE, 6)
    book.replace_classes(classes_of([1, 2, 9]))
    book.forget_history()
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
    assert book.accept_all(book.certain_slices(0.8)) == [0]


def test_masks_of_another_program_are_taken_in_one_action_and_have_no_confidence(book):
    book.set_prediction(0, full(2), 0.9)
    book.take_predictions({0: full(1), 1: full(1)})
    assert book.certain_slices(0.0) == []
    assert book.certain_slices(None) == [0, 1]
    book.see(0)
    changed = book.undo()
    assert changed.predictions == {0, 1}
    assert (book.predicted(0) == 2).all()
    assert book.confidence == {0: 0.9}
    assert book.predicted(1) is None
    book.redo()
    book.set_prediction(1, full(2), 0.8)  # a model predicted since then
    book.undo()
    assert (book.predicted(0) == 2).all()
    assert (book.predicted(1) == 2).all()
    book.redo()
    assert book.certain_slices(None) == [0, 1]
    with pytest.raises(LabelError, match="the value 7"):
        book.take_predictions({0: full(7)})


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
    assert book.status(0) is Status.EMPTY  # nothing else was painted there
    book.undo()
    assert (book.manual(0) == 9).all()
    assert [entry.number for entry in book.classes] == [1, 2, 9]


@pytest.mark.parametrize(
    ("index", "labels", "message"),
    [
        (6, full(1), "Slice 6 does not exist"),
        (-1, full(1), "Slice -1 does not exist"),
        (0, np.zeros((5, 4), np.uint16), "shape"),
        (0, full(7), "not a class"),
        (0, np.full(SHAPE, -3), "not a class"),
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


def test_classes_of_another_model_take_the_others_out_of_predictions(book):
    book.set_prediction(0, full(9), 0.8)
    book.replace_classes(classes_of([1, 2]))
    assert not book.predicted(0).any()
    book.undo()
    assert (book.predicted(0) == 9).all()


def test_classes_that_labels_hold_are_not_replaced(book):
    book.set_manual(3, full(9))
    with pytest.raises(LabelError, match="Class 9 is on slice 3"):
        book.replace_classes(classes_of([1, 2]))
    assert [entry.number for entry in book.classes] == [1, 2, 9]


def test_classes_cannot_be_changed_from_outside(book):
    with pytest.raises(AttributeError):
        book.classes = ()


def test_a_rejection_done_again_throws_a_newer_prediction_away_and_gives_it_back(book):
    book.set_prediction(0, full(1), 0.8)
    book.reject(0)
    book.set_prediction(0, full(2), 0.3)
    book.undo()
    changed = book.redo()
    assert changed.predictions == {0}
    assert book.predicted(0) is None
    book.undo()
    assert (book.predicted(0) == 2).all()


def test_loading_labels_of_many_slices_with_their_classes_is_one_action(book):
    book.label({0: full(4), 3: full(1)}, classes=classes_of([1, 2, 4, 9]))
    assert book.labelled == [0, 3]
    changed = book.undo()
    assert (changed.labels, changed.classes) == ({0, 3}, True)
    assert book.labelled == []
    assert [entry.number for entry in book.classes] == [1, 2, 9]


def test_nothing_is_taken_over_when_one_of_many_slices_does_not_fit(book):
    with pytest.raises(LabelError, match="not a class"):
        book.label({0: full(1), 3: full(7)})
    assert book.labelled == []


def test_a_whole_slice_that_was_shown_as_painted_unseen_comes_back_unseen_or_seen_as_it_was(book):
    book.set_manual(1, full(1))
    book.clear(1)
    book.set_manual(1, full(2), seen=False)
    assert book.unseen() == [1]
    book.undo()
    book.undo()
    assert book.unseen() == []  # this one was painted by hand


def test_paint_comes_back_pixel_by_pixel_as_it_was_on_the_canvas(book):
    canvas = full(0)
    canvas[0], canvas[1] = 1, BACKGROUND
    book.paint({2: canvas})
    assert set(np.unique(book.manual(2))) == {0, 1}
    more = canvas.copy()
    more[3] = 2
    assert book.paint({2: more}).labels == {2}
    book.undo()
    assert np.array_equal(book.canvas(2), canvas)


def test_paint_on_scribbles_stays_scribbles_and_a_whole_slice_whole(book):
    canvas = full(0)
    canvas[0] = 1
    book.paint({0: canvas}, scribbles=True)
    book.paint({1: canvas})
    canvas[1] = 2
    book.paint({0: canvas})
    book.paint({1: canvas}, scribbles=True)
    assert (book.manual(0)[2:] == UNKNOWN).all()
    assert (book.manual(1)[2:] == 0).all()


def test_a_number_that_is_no_class_becomes_one_with_the_paint_and_goes_with_it(book):
    book.rename_class(9, "vessel")
    book.remove_class(9)
    canvas = full(0)
    canvas[0], canvas[1] = 9, 300
    book.paint({0: canvas})
    assert {entry.number: entry.name for entry in book.classes}.items() >= {9: "vessel", 300: "class 300"}.items()
    book.undo()
    assert [entry.number for entry in book.classes] == [1, 2]


def test_a_stroke_that_was_read_in_parts_is_one_action(book):
    for row in range(3):
        canvas = book.canvas(0).copy()
        canvas[row] = 1
        book.paint({0: canvas}, continues=True)
    book.undo()
    assert book.labelled == []
    book.redo()
    assert (book.manual(0)[:3] == 1).all()


def test_what_was_done_during_a_stroke_is_no_part_of_it(book):
    book.set_prediction(1, full(2), 0.9)
    canvas = full(0)
    canvas[0] = 1
    book.paint({0: canvas})
    book.accept(1)
    canvas[1] = 1
    book.paint({0: canvas}, continues=True)
    book.undo()
    assert book.labelled == [0, 1]
    book.undo()
    assert book.labelled == [0]


def test_a_stroke_that_is_broken_off_leaves_no_action_and_an_accepted_slice_accepted(book):
    book.set_prediction(0, full(2), 0.9)
    book.accept(0)
    book.lay_out(0, explicit=False)
    canvas = book.canvas(0).copy()
    canvas[0] = 1
    book.paint({0: canvas})
    book.paint({0: full(2)}, continues=True)
    assert book.status(0) is Status.ACCEPTED
    book.undo()
    assert book.status(0) is Status.PREDICTED


def test_the_history_holds_no_more_bytes_than_allowed_but_always_the_last_action(book, monkeypatch):
    monkeypatch.setattr(labels_module, "UNDO_BYTES", 3 * full(0).nbytes)
    for number in range(10):
        book.set_manual(0, full(1 + number % 2))
    undone = 0
    while book.undo():
        undone += 1
    assert undone == 3
    book.label({i: full(1 + i % 2) for i in range(6)})
    book.label({i: full(2 - i % 2) for i in range(6)})
    assert book.undo().labels == set(range(6))


@pytest.mark.parametrize(
    ("labels", "scribbles"),
    [
        ([[0, 1], [2, 0]], False),
        ([[0, 1], [UNKNOWN, UNKNOWN]], True),
        ([[0, 0], [0, 0]], False),
        ([[0, 0], [0, 0]], True),
    ],
)
def test_labels_come_back_from_the_canvas_as_they_went_in(labels, scribbles):
    labels = np.array(labels, np.uint16)
    assert np.array_equal(from_canvas(to_canvas(labels, (2, 2)), scribbles=scribbles), labels)
    explicit = to_canvas(labels, (2, 2), explicit=True)
    assert np.array_equal(from_canvas(explicit, scribbles=True), labels)


def test_a_slice_without_labels_is_a_canvas_of_zeros_and_an_empty_one_is_painted_background():
    assert not to_canvas(None, (2, 2)).any()
    assert from_canvas(np.zeros((2, 2), np.uint16), scribbles=False) is None
    assert (to_canvas(np.zeros((2, 2), np.uint16), (2, 2)) == BACKGROUND).all()


@dataclass(frozen=True)
class Moment:
    """What a plain reading says a person would expect of the book: by slice, and the classes by number."""

    manual: dict[int, np.ndarray]
    accepted: dict[int, np.ndarray]
    names: dict[int, str]
    scribbled: frozenset[int] = frozenset()

    def same(self, other):
        return self.names == other.names and all(
            mine.keys() == theirs.keys() and all(np.array_equal(mine[i], theirs[i]) for i in mine)
            for mine, theirs in ((self.manual, other.manual), (self.accepted, other.accepted))
        )


class BookAttack(RuleBasedStateMachine):
    """Any sequence of changes and predictions; a list of moments beside the book says what must be in it."""

    slices = st.integers(0, 5)
    values = st.sampled_from([1, 2, 9, UNKNOWN])

    def __init__(self):
        super().__init__()
        self.book = LabelBook(lambda _: SHAPE, 6)
        self.book.replace_classes(classes_of([1, 2, 9]))
        self.book.forget_history()
        self.moments = [Moment({}, {}, {n: f"class {n}" for n in (1, 2, 9)})]
        self.canvases = [self.canvas()]  # of all slices, by moment
        self.at = 0
        self.latest = {}  # the confidence with which each slice was last predicted

    @property
    def now(self):
        return self.moments[self.at]

    def canvas(self):
        return np.stack([self.book.canvas(index) for index in range(6)])

    def then(self, manual=None, accepted=None, names=None, scribbled=None, *, painted=False):
        """A change was made: nothing can be redone, and what was not named stays. What changed nothing is no step."""
        before = self.now
        after = Moment(
            before.manual if manual is None else manual,
            before.accepted if accepted is None else accepted,
            before.names if names is None else names,
            before.scribbled if scribbled is None else frozenset(scribbled),
        )
        if not painted and after.same(before):
            return
        del self.moments[self.at + 1 :], self.canvases[self.at + 1 :]
        self.moments.append(after)
        self.canvases.append(self.canvas())
        self.at += 1

    def labelled(self, index, labels, scribbled=False, *, painted=False):
        was = self.now.manual.get(index)
        if not painted and was is not None and np.array_equal(was, labels):
            return
        rest = {i: one for i, one in self.now.accepted.items() if i != index}
        flags = self.now.scribbled | {index} if scribbled else self.now.scribbled - {index}
        self.then({**self.now.manual, index: labels}, rest, scribbled=flags, painted=painted)

    @rule(index=slices, value=values, rows=st.integers(0, 4))
    def set_manual(self, index, value, rows):
        labels = full(0)
        labels[:rows] = value
        if value != UNKNOWN and value not in self.now.names:
            with pytest.raises(LabelError, match="not a class"):
                self.book.set_manual(index, full(value))
            return
        self.book.set_manual(index, labels)
        self.labelled(index, labels, scribbled=value == UNKNOWN and rows > 0)

    @rule(index=slices, value=st.sampled_from([0, 1, 2, BACKGROUND]), row=st.integers(0, 3), scribbles=st.booleans())
    def paint(self, index, value, row, scribbles):
        if value not in (0, BACKGROUND, *self.now.names):
            return
        canvas = self.book.canvas(index).copy()
        unchanged = (canvas[row] == value).all()
        canvas[row] = value
        self.book.paint({index: canvas}, scribbles=scribbles)
        if unchanged:
            return
        if not canvas.any():
            without = [{i: one for i, one in d.items() if i != index} for d in (self.now.manual, self.now.accepted)]
            self.then(*without, scribbled=self.now.scribbled - {index}, painted=True)
            return
        fresh = index not in self.now.manual and index not in self.now.accepted
        scribbled = scribbles if fresh else index in self.now.scribbled
        labels = np.where(canvas == 0, UNKNOWN if scribbled else 0, np.where(canvas == BACKGROUND, 0, canvas))
        self.labelled(index, labels.astype(np.uint16), scribbled=scribbled, painted=True)

    @rule(index=slices)
    def empty(self, index):
        self.book.mark_empty(index)
        self.labelled(index, full(0))

    @rule(index=slices)
    def clear(self, index):
        self.book.clear(index)
        without = [{i: one for i, one in d.items() if i != index} for d in (self.now.manual, self.now.accepted)]
        self.then(*without, scribbled=self.now.scribbled - {index})

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
        assert self.book.accept_all(self.book.certain_slices(threshold)) == expected
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
        thrown = self.book.predicted(index) is not None
        self.book.reject(index)
        assert self.book.predicted(index) is None
        self.then(accepted={i: one for i, one in self.now.accepted.items() if i != index}, painted=thrown)

    @rule(index=slices, overwrite=st.booleans())
    def copy(self, index, overwrite):
        source = self.now.accepted.get(index, self.book.predicted(index))
        if source is None or (index in self.now.manual and not overwrite):
            with pytest.raises(LabelError):
                self.book.copy_to_manual(index, overwrite=overwrite)
            return
        labels = source.copy()
        self.book.copy_to_manual(index, overwrite=overwrite)
        self.labelled(index, labels)

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
        before = self.canvas()
        self.book.remove_class(number, erase=erase)
        if number not in self.now.names:
            return
        layers, flags = ({}, {}), set(self.now.scribbled)
        for layer, made in zip((self.now.manual, self.now.accepted), layers, strict=True):
            for i, one in layer.items():
                if not (one == number).any():
                    made[i] = one
                elif (~np.isin(before[i], [0, number])).any():  # something else is on the canvas
                    made[i] = np.where(one == number, UNKNOWN if i in flags else 0, one)
                else:
                    flags.discard(i)
        self.then(*layers, {n: name for n, name in self.now.names.items() if n != number}, scribbled=flags)

    @rule()
    def undo(self):
        assert bool(self.book.undo()) == (self.at > 0)
        self.at = max(0, self.at - 1)
        assert np.array_equal(self.canvas(), self.canvases[self.at])

    @rule()
    def redo(self):
        assert bool(self.book.redo()) == (self.at + 1 < len(self.moments))
        self.at = min(len(self.moments) - 1, self.at + 1)
        assert np.array_equal(self.canvas(), self.canvases[self.at])

    @invariant()
    def the_book_holds_what_a_person_expects(self):
        for index in range(6):
            labels = self.book.of_slice(index)
            for found, expected in (
                (labels.manual, self.now.manual.get(index)),
                (labels.accepted, self.now.accepted.get(index)),
            ):
                assert (found is None) == (expected is None)
                assert found is None or np.array_equal(found, expected)
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
    with pytest.raises(LabelError, match=f"{value}, which is not a class"):
        book.set_manual(0, labels)
