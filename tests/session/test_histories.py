"""Undo and redo of a case that was left and is opened again."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.session import histories
from napari_dinoaugseg.session.histories import Histories
from napari_dinoaugseg.session.labels import LabelBook, new_class

SHAPE, SLICES = (3, 4), 4


def made() -> LabelBook:
    book = LabelBook([SHAPE] * SLICES, SLICES)
    book.replace_classes([new_class(1), new_class(2)])
    book.forget_history()
    return book


def read_again(book: LabelBook) -> LabelBook:
    """The book as it is read from disk: the same content in other arrays."""
    content = book.content()
    again = LabelBook([SHAPE] * SLICES, SLICES)
    layers = {name: {index: one.copy() for index, one in layer.items()} for name, layer in content.layers.items()}
    again.take_content(type(content)(content.classes, layers, content.confidence, content.unseen, content.taken))
    return again


def labels_of(book: LabelBook) -> tuple[object, ...]:
    content = book.content()
    layers = [(name, i, one.tobytes()) for name in ("manual", "accepted") for i, one in content.layers[name].items()]
    return content.classes, sorted(layers)


def full_of(number: int) -> np.ndarray:
    return np.full(SHAPE, number, np.uint16)


ACTS = {
    "paint": lambda book, index, number: book.set_manual(index, full_of(number)),
    "predict": lambda book, index, number: book.set_prediction(index, full_of(number), 0.9),
    "take": lambda book, index, number: book.take_predictions({index: full_of(number)}),
    "accept": lambda book, index, _: book.accept(index) if book.predicted(index) is not None else None,
    "reject": lambda book, index, _: book.reject(index),
    "clear": lambda book, index, _: book.clear(index),
    "rename": lambda book, index, number: book.rename_class(number, f"structure {index}"),
    "remove": lambda book, _, number: book.remove_class(number, erase=True),
    "undo": lambda book, *_: book.undo(),
}


def act(book: LabelBook, deed: tuple[str, int, int]) -> None:
    name, index, number = deed
    if name == "undo" or number in {entry.number for entry in book.classes}:
        ACTS[name](book, index, number)


def everything_in(book: LabelBook) -> tuple[object, ...]:
    content = book.content()
    predicted = {index: one.tobytes() for index, one in content.layers["predicted"].items()}
    return labels_of(book), predicted, content.confidence, content.unseen, content.taken


DEEDS = st.tuples(
    st.sampled_from(["paint", "predict", "accept", "clear", "undo", "rename"]),
    st.integers(0, SLICES - 1),
    st.integers(1, 2),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(DEEDS, max_size=12), st.lists(DEEDS.filter(lambda deed: deed[0] == "predict"), max_size=3))
def test_all_that_was_done_before_a_case_was_left_can_be_undone_and_redone(before, meanwhile):
    book, kept = made(), Histories()
    first = labels_of(book)
    for deed in before:
        act(book, deed)
    states = [labels_of(book)]
    kept.keep("case", book)
    again = read_again(book)
    for deed in meanwhile:  # in the background
        act(again, deed)
    assert kept.resume("case", again)
    while again.undo() is not None:
        states.append(labels_of(again))
    assert states[-1] == first
    for state in reversed(states[:-1]):
        assert again.redo() is not None
        assert labels_of(again) == state


ALL_DEEDS = st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 1), st.just(1))


@settings(max_examples=150, deadline=None)
@given(st.lists(ALL_DEEDS, max_size=8), st.lists(ALL_DEEDS.filter(lambda deed: deed[0] == "predict"), max_size=1))
def test_undo_and_redo_change_the_same_in_a_case_that_was_left_as_in_one_that_was_not(before, meanwhile):
    book, kept = made(), Histories()
    for deed in before:
        act(book, deed)
    stayed = copy.deepcopy(book)
    kept.keep("case", book)
    again = read_again(book)
    assert kept.resume("case", again)
    for deed in meanwhile:
        act(again, deed)
        act(stayed, deed)
    for step in (LabelBook.undo, LabelBook.redo):
        while (changed := step(stayed)) is not None:
            assert step(again) == changed
            assert everything_in(again) == everything_in(stayed)
        assert step(again) is None


@pytest.mark.parametrize("deed", [("paint", 1, 2), ("clear", 0, 1), ("rename", 3, 2)])
def test_a_history_does_not_fit_a_case_that_was_changed_meanwhile(deed):
    book, kept = made(), Histories()
    act(book, ("paint", 0, 1))
    kept.keep("case", book)
    again = read_again(book)
    act(again, deed)
    again.forget_history()
    changed = labels_of(again)
    assert not kept.resume("case", again)
    assert again.undo() is None
    assert labels_of(again) == changed


def test_a_history_is_given_once_and_to_its_own_case():
    book, kept = made(), Histories()
    act(book, ("paint", 0, 1))
    kept.keep("case", book)
    assert not kept.resume("another", read_again(book))
    assert kept.resume("case", read_again(book))
    assert not kept.resume("case", read_again(book))


def test_the_cases_that_were_left_first_are_forgotten_first(monkeypatch):
    books = {name: made() for name in ("first", "second", "third")}
    kept = Histories()
    for book in books.values():
        act(book, ("paint", 0, 1))
    monkeypatch.setattr(histories, "_BYTES", 0)
    kept.keep("too large", books["first"])
    assert not kept.resume("too large", read_again(books["first"]))
    size = histories.history_of(books["first"]).size
    assert size > 0
    monkeypatch.setattr(histories, "_BYTES", 2 * size)
    for name, book in books.items():
        kept.keep(name, book)
    assert [kept.resume(name, read_again(book)) for name, book in books.items()] == [False, True, True]
