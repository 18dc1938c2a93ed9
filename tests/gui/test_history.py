"""The line of steps and what slices meant along it, without a viewer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.gui.history import LIMIT, History, Mark, Step
from napari_dinoaugseg.session.labels import SliceLabels


def mark(value: int) -> Mark:
    return Mark(SliceLabels(manual=np.full((2, 2), value, np.uint16)))


@pytest.fixture
def history():
    return History()


def test_a_slice_means_what_it_meant_where_it_was_last_read(history):
    history.push(Step())
    history.mark(3, mark(1))
    history.push(Step())
    history.push(Step())
    history.mark(3, mark(2))
    assert history.marked(3).says_as(mark(2))
    history.back()
    assert history.marked(3).says_as(mark(1))
    assert history.marked_later(3).says_as(mark(2))
    history.back()
    history.back()
    assert history.marked(3).said.is_empty
    assert history.back() is None


def test_going_over_a_step_tells_which_slices_it_may_have_changed(history):
    history.mark(1, mark(1))
    history.push(Step())
    history.mark(2, mark(1))
    history.push(Step())
    history.mark(3, mark(1))
    assert list(history.back()[1]) == [3]
    assert list(history.back()[1]) == [2]
    until_now = history.forth()[1]
    assert until_now[2].said.is_empty
    assert history.marked(2).says_as(mark(1))


def test_a_new_step_ends_what_could_be_done_again(history):
    history.push(Step())
    history.mark(1, mark(1))
    history.back()
    history.push(Step())
    assert history.marked(1).said.is_empty
    assert history.marked_later(1).said.is_empty
    assert history.forth() is None


def test_what_cannot_be_done_again_leaves_the_steps_before(history):
    for value in (1, 2, 3):
        history.push(Step())
        history.mark(0, mark(value))
    history.back()
    history.back()
    history.forth()
    history.give_up_again()
    assert history.forth() is None
    assert history.marked(0).says_as(mark(1))
    assert history.back() is not None
    assert history.back() is None


def test_a_cleared_history_still_knows_what_slices_mean(history):
    history.push(Step())
    history.mark(0, mark(1))
    history.clear()
    assert history.back() is None
    assert history.marked(0).says_as(mark(1))


@given(st.lists(st.sampled_from(["push", "back", "forth"]), max_size=3 * LIMIT), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_every_point_that_can_be_reached_is_remembered_and_no_more_than_that(moves, seed):
    """Beside it the plainest history: a list of whole states."""
    history, rng = History(), np.random.default_rng(seed)
    states, at = [{}], 0
    for number, move in enumerate([*moves, *["push"] * LIMIT, *["back"] * LIMIT], start=1):
        if move == "push":
            index = int(rng.integers(3))
            history.push(Step())
            history.mark(index, mark(number))
            states = [*states[: at + 1], {**states[at], index: number}][-LIMIT - 1 :]
            at = len(states) - 1
        elif move == "back":
            assert (history.back() is None) == (at == 0)
            at = max(0, at - 1)
        else:
            assert (history.forth() is None) == (at == len(states) - 1)
            at = min(len(states) - 1, at + 1)
        for index in range(3):
            found = history.marked(index)
            assert found.said.is_empty if index not in states[at] else found.says_as(mark(states[at][index]))
    assert sum(len(marks) for marks in history._marks.values()) <= LIMIT + 3
