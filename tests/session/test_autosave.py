"""Saving in the background: the newest wins, a refusal is told and tried again, closing waits."""

from __future__ import annotations

import threading

import pytest

from napari_dinoaugseg.errors import DinoAugSegError, OutputError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session import autosave as module
from napari_dinoaugseg.session.autosave import Autosave
from napari_dinoaugseg.session.index import Snapshot
from napari_dinoaugseg.session.labels import BookContent


class Store:
    """Stands for a store whose disk answers when the test lets it."""

    def __init__(self) -> None:
        self.saved: list[object] = []
        self.go = threading.Event()
        self.go.set()
        self.refuse: Exception | None = None
        self.closed = False

    def save(self, snapshot: Snapshot) -> None:
        assert self.go.wait(10)
        if self.refuse is not None:
            raise self.refuse
        self.saved.append(snapshot.view["n"])

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def told():
    return []


@pytest.fixture
def autosave(store, told, monkeypatch):
    monkeypatch.setattr(module, "_RETRY", 0.05)
    made = Autosave(store, told.append)
    yield made
    store.go.set()
    store.refuse = None
    made.close(5)


def snapshot(n: int) -> Snapshot:
    return Snapshot(BookContent(), Settings(), view={"n": n})


def test_the_newest_of_several_requests_is_written(autosave, store):
    store.go.clear()
    for n in range(5):
        autosave.request(snapshot(n))
    store.go.set()

    assert autosave.wait(5)
    assert store.saved[-1] == 4
    assert len(store.saved) <= 2  # the first may have been under way


def test_nobody_waits_for_the_disk_when_asking(autosave, store):
    store.go.clear()
    autosave.request(snapshot(1))

    assert not autosave.wait(0.05)  # comes back although the disk does not answer
    store.go.set()
    assert autosave.wait(5)


def test_a_refusal_is_told_and_tried_again_without_being_asked(autosave, store, told):
    store.refuse = OutputError("the disk is full")
    autosave.request(snapshot(7))
    assert not autosave.wait(5)
    assert isinstance(told[0], DinoAugSegError)
    done = threading.Event()
    autosave._notify = lambda problem: done.set() if problem is None else None

    store.refuse = None

    assert done.wait(5)
    assert store.saved == [7]


def test_what_nobody_foresaw_is_told_too_and_the_thread_goes_on(autosave, store, told):
    store.refuse = RuntimeError("bug")
    autosave.request(snapshot(1))
    assert not autosave.wait(5)
    assert "Your labels could not be saved" in str(told[0])

    store.refuse = None
    autosave.request(snapshot(2))
    assert autosave.wait(5)
    assert store.saved[-1] == 2


def test_closing_writes_what_is_left_and_lets_go_of_the_folder(store, told):
    made = Autosave(store, told.append)
    made.request(snapshot(3))

    assert made.close(5)

    assert store.saved == [3]
    assert store.closed
    assert told == [None]


def test_closing_says_when_something_could_not_be_saved(store, told):
    store.refuse = OutputError("the disk is full")
    made = Autosave(store, told.append)
    made.request(snapshot(3))

    assert not made.close(5)
    assert store.closed
