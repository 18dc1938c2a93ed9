"""Live learning of a session: from labels that change to masks, beside its model and its label book."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.live import Learner
from napari_dinoaugseg.learning.pretraining import REGIONS, Pretraining
from napari_dinoaugseg.session.compute import LiveFeed, LiveState
from napari_dinoaugseg.session.labels import LabelBook, Status
from napari_dinoaugseg.session.session import LabelledCase
from tests.blobs import LABELLED, LEFT_OUT
from tests.session.live_thread import PATIENT, Live


@pytest.fixture
def start():
    running = []

    def begin(session, **options) -> Live:
        running.append(Live(session, **options))
        return running[-1]

    yield begin
    for live in running:
        live.cancel.set()
        live.thread.join(PATIENT)


def overlap(masks, truth, number: int, indices=LEFT_OUT) -> float:
    found = np.stack([masks[i] for i in indices]) == number
    true = np.stack([truth[i] for i in indices]) == number
    return 2 * (found & true).sum() / (found.sum() + true.sum())


def test_labels_become_masks_of_open_slices_with_the_numbers_of_their_classes(new_session, blob_files, start):
    session = new_session()
    session.load_labels(blob_files[1], LABELLED)
    truth = session.case.read_labels(blob_files[1], range(16))
    live = start(session)
    live.show()
    live.until(lambda: live.rests and set(live.masks()) == set(LEFT_OUT))
    live.end()
    assert overlap(live.masks(), truth, 1) > 0.7
    assert overlap(live.masks(), truth, 3) > 0.7
    assert not session.is_trained  # Train is a training of its own
    assert session.labels.confidence == {}
    for prediction in live.found:
        session.store_prediction(prediction)
    assert all(session.labels.status(i) is Status.PREDICTED for i in LEFT_OUT)
    assert session.labels.labelled == list(LABELLED)


def test_before_a_class_is_painted_nothing_happens_and_then_it_learns(new_session, blob_files, start):
    session = new_session()
    truth = session.case.read_labels(blob_files[1], range(16))
    live = start(session)
    live.show()
    session.labels.add_class(number=1)
    session.labels.add_class(number=3)
    session.paint(0, np.zeros_like(truth[0]))  # only background
    live.show()
    time.sleep(0.5)
    assert live.found == []
    for index in LABELLED:
        session.paint(index, truth[index])
    live.show(5)
    live.until(lambda: bool(live.found))
    assert live.found[0].index == 5
    live.end()


def test_what_it_learned_before_a_label_and_from_other_classes_is_where_a_new_decoder_begins(
    new_session, blob_files, start, monkeypatch
):
    begun = []

    class Watched(Learner):
        def __init__(self, *arguments, body, **options):
            super().__init__(*arguments, body=body, **options)
            begun.append((body and body.n_classes, self._n_classes))

    monkeypatch.setattr("napari_dinoaugseg.session.engine.Learner", Watched)
    burst, rested = Pretraining.burst, []

    def watch(self, *arguments):
        burst(self, *arguments)
        rested.extend([True] if self.learned is not None and self.sleeps else [])

    monkeypatch.setattr(Pretraining, "burst", watch)
    monkeypatch.setattr("napari_dinoaugseg.learning.pretraining.STEPS", 24)
    session = new_session()
    truth = session.case.read_labels(blob_files[1], range(16))
    live = start(session)
    live.show()
    live.until(lambda: bool(rested))
    session.labels.add_class(number=1)
    session.paint(LABELLED[0], np.where(truth[LABELLED[0]] == 1, 1, 0).astype(np.uint16))
    live.show()
    live.until(lambda: bool(live.found))
    session.labels.add_class(number=3)
    session.paint(LABELLED[1], truth[LABELLED[1]])
    live.show()
    live.until(lambda: len(begun) == 2)
    live.end()
    assert begun == [(REGIONS, 2), (2, 3)]


def test_all_pictures_of_a_folder_are_looked_at_before_any_is_labelled(new_session, quick, start, tmp_path):
    random = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(random.integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / f"{number:02}.png")
    session = type(new_session())(open_case(tmp_path), quick)
    live = start(session)
    live.show(3)
    live.until(lambda: session.is_ready and len(session.engine.descriptors) == 12)
    live.end()


def test_a_class_that_is_added_later_is_learned(new_session, blob_files, start):
    session = new_session()
    truth = session.case.read_labels(blob_files[1], range(16))
    session.labels.add_class(number=1)
    for index in LABELLED:
        session.paint(index, np.where(truth[index] == 1, 1, 0).astype(np.uint16))
    live = start(session)
    live.show()
    live.until(lambda: bool(live.found))
    session.labels.add_class(number=3)
    for index in LABELLED:
        session.paint(index, truth[index])
    live.show()
    live.until(lambda: live.rests and set(live.masks()) == set(LEFT_OUT) and overlap(live.masks(), truth, 3) > 0.7)
    live.end()


def test_the_trained_model_stays_and_is_where_it_begins(copy_of_trained, blob_files, start):
    session = copy_of_trained(*LABELLED)
    truth = session.case.read_labels(blob_files[1], range(16))
    model = session.model
    live = start(session)
    session.paint(6, truth[6])
    live.show(5)
    live.until(lambda: bool(live.found))
    assert overlap({5: live.found[0].classes}, truth, 1, [5]) > 0.7  # after a single burst
    live.end()
    assert session.model is model
    assert {prediction.index for prediction in session.predictions()} == set(LEFT_OUT) - {6}


def test_it_learns_from_other_cases_too(new_session, blob_files, start):
    session, other = new_session(), new_session()
    other.load_labels(blob_files[1], LABELLED)
    labels = {index: other.labels.truth(index) for index in other.labels.labelled}
    beside = [LabelledCase(other.case, labels, other.labels.classes)]
    truth = session.case.read_labels(blob_files[1], range(16))
    live = start(session, others=lambda: beside)
    live.show()
    live.until(lambda: live.rests and set(live.masks()) == set(range(16)))
    live.end()
    assert overlap(live.masks(), truth, 1) > 0.7


def test_in_the_next_case_it_goes_on_from_what_it_learned(new_session, blob_files, start):
    session, following = new_session(), new_session()
    session.load_labels(blob_files[1], LABELLED)
    truth = session.case.read_labels(blob_files[1], range(16))
    live = start(session)
    live.show()
    live.until(lambda: live.rests)
    live.end()
    labels = {index: session.labels.truth(index) for index in session.labels.labelled}
    beside = [LabelledCase(session.case, labels, session.labels.classes)]
    live = start(following, others=lambda: beside, start=lambda first=live: first.learned)
    live.show(5)
    live.until(lambda: live.rests and len(live.found) == 16)
    assert live.found[0].index == 5
    assert overlap(live.masks(), truth, 1) > 0.7
    assert live.steps == 1  # nothing new, so no step
    following.labels.add_class(number=1)
    following.labels.add_class(number=3)
    following.paint(5, truth[5])
    live.show(6)
    live.until(lambda: live.steps > 1 and live.rests)
    live.end()
    assert [entry["number"] for entry in live.learned.model.classes] == [1, 3]


def test_labels_that_it_was_learning_when_it_ended_are_learned_in_the_next_case(new_session, blob_files, quick, start):
    session, following = new_session(settings=quick.with_changes(steps=300)), new_session()
    session.load_labels(blob_files[1], LABELLED)
    live = start(session)
    live.show()
    live.until(lambda: bool(live.found))
    live.end()
    assert live.learned.digests == frozenset()
    labels = {index: session.labels.truth(index) for index in session.labels.labelled}
    beside = [LabelledCase(session.case, labels, session.labels.classes)]
    live = start(following, others=lambda: beside, start=lambda first=live: first.learned)
    live.show(5)
    live.until(lambda: live.steps > 1)
    live.end()


def test_before_its_masks_are_worth_a_look_it_has_learned_nothing_to_go_on_from(new_session, start):
    live = start(new_session())
    live.show()
    live.end()
    assert live.learned is None


def test_the_newest_state_wins():
    feed = LiveFeed()
    feed.put(LiveState({}, (), (1,)))
    feed.put(LiveState({}, (), (2,)))
    assert feed.take(0.0).order == (2,)
    assert feed.take(0.0) is None


def test_a_state_shares_its_labels_with_the_book(new_session, blob_files):
    session = new_session()
    session.load_labels(blob_files[1], LABELLED)
    state = session.live_state(5)
    assert all(state.labels[index] is session.labels.truth(index) for index in LABELLED)
    assert state.is_enough
    assert set(state.order) == set(LEFT_OUT)


_CHANGES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=12)


@given(_CHANGES, st.sets(st.integers(0, 11)))
def test_what_is_sent_since_the_last_state_makes_the_whole_state_again(changes, passed_on):
    """Slice and class of each change; class 0 removes the labels. Only some states are sent: newer ones win."""
    book = LabelBook([(2, 3)] * 5, 5)
    sent = received = None
    for number, (index, value) in enumerate(changes):
        if value:
            book.paint({index: np.full((2, 3), value, np.uint16)})
        else:
            book.clear(index)
        state = LiveState({i: book.truth(i) for i in book.labelled}, book.classes, tuple(book.open_slices))
        if number not in passed_on:
            continue
        parcel = state.since(sent)
        assert sent is None or not any(sent.labels.get(i) is labels for i, labels in parcel.labels.items())
        sent, received = state, parcel.completed(received)
        assert received.labels.keys() == state.labels.keys()
        assert all(np.array_equal(received.labels[i], state.labels[i]) for i in state.labels)
        assert (received.classes, received.order) == (state.classes, state.order)
