"""Which slices a simulated person labels; `tests/cli/test_commands.py` plays whole rounds."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.evaluation import first_slices, next_slices, simulate


@pytest.fixture
def random():
    return np.random.default_rng(3)


def test_a_person_starts_in_the_middle_of_equal_parts_or_anywhere(random):
    holding = list(range(10, 30))
    assert first_slices(holding, 2, "even", random) == [15, 25]
    assert first_slices(holding, 2, "suggested", random) == [15, 25]
    drawn = first_slices(holding, 5, "random", random)
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(holding)
    assert first_slices([7, 9], 5, "random", random) == [7, 9]


def test_even_halves_the_largest_gap_and_random_takes_any_slice_that_is_left(new_session, random):
    session = new_session()
    session.labels.mark_empty(3)
    assert next_slices(session, 2, "even", random) == [15, 9]
    assert sorted(next_slices(session, 99, "random", random)) == [i for i in range(16) if i != 3]


def test_a_truth_without_structure_is_refused_before_anything_is_painted(new_session):
    session = new_session()
    empty = np.zeros(session.case.slice_shape(0), np.uint16)
    with pytest.raises(LabelError, match="only background"):
        next(simulate(session, {0: empty, 1: empty}, [2], "even"))
    assert session.labels.labelled == []
