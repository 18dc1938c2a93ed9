"""Scores are counted as the authors count them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from benchmarks.paper.scores import hd95, score

MASKS = st.tuples(*[arrays.arrays(bool, (3, 5, 6), elements=st.booleans()) for _ in range(2)])


def surface_points(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Points with a neighbour, along an axis, that is not in the mask or not in the image."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(mask)
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inner &= np.roll(padded, step, axis)[tuple(slice(1, -1) for _ in mask.shape)]
    return np.argwhere(mask & ~inner)


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_hd95_is_that_of_all_pairs_of_surface_points(masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]):
    a, b = masks
    assume(a.any() and b.any())
    apart = np.linalg.norm(surface_points(a)[:, None] - surface_points(b)[None], axis=2)
    expected = np.percentile(np.concatenate([apart.min(axis=1), apart.min(axis=0)]), 95)
    assert hd95(a, b) == pytest.approx(expected)


def test_hd95_takes_both_directions_together():
    truth = np.zeros((1, 200), bool)
    truth[0, ::2] = True  # 100 points, none of them far from the prediction but the last ten
    found = truth.copy()
    found[0, 180:] = False
    distances = [0.0] * 90 + [2.0 * n for n in range(1, 11)]
    assert hd95(found, truth) == pytest.approx(np.percentile([0.0] * 90 + distances, 95))
    assert hd95(found, truth) == hd95(truth, found)
    assert hd95(found, truth) < np.percentile(distances, 95)


def test_what_lies_around_changes_nothing():
    a, b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    a[4:9, 4:9], b[4:9, 6:12] = True, True
    assert hd95(a, b) == hd95(np.pad(a, 30), np.pad(b, 30)) == hd95(a[4:9, 4:12], b[4:9, 4:12])


def test_a_class_that_neither_or_only_one_mask_has():
    truth = np.array([[0, 1, 1], [0, 2, 2]])
    found = np.array([[0, 1, 1], [3, 3, 0]])
    scores = score(found, truth, (1, 2, 3, 4))
    assert [(scores[n].dice, scores[n].hd95) for n in (1, 2, 3, 4)] == [(1, 0), (0, 100), (0, 100), (1, 0)]
