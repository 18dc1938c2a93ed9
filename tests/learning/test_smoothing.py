"""Mixing the predictions of neighbouring slices."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_dinoaugseg.learning.postprocessing import Smoothing

N = 9


def beside(index):
    return max(index - 1, 0), min(index + 1, N - 1)


def logits_of(index):
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(index))


def run(order, neighbours):
    """The logits of every slice of the order, in the order in which they came, and the most that was kept."""
    smoothing = Smoothing(order, neighbours)
    found, most = {}, 0
    for index in smoothing.schedule:
        smoothing.add(index, logits_of(index))
        most = max(most, len(smoothing._probabilities))
        for ready in smoothing.ready():
            found[ready] = smoothing.logits(ready)
            smoothing.release(ready)
    assert not smoothing._probabilities
    return found, most


@given(st.permutations(range(N)).flatmap(lambda order: st.integers(1, N).map(lambda count: order[:count])))
def test_masks_come_in_the_order_wanted_and_do_not_depend_on_it(order):
    found, _ = run(order, beside)
    assert list(found) == order
    for index, logits in found.items():
        p = {i: logits_of(i).softmax(dim=0) for i in {index, *beside(index)}}
        others = [p[i] for i in p if i != index]
        expected = (p[index] + 0.5 * sum(others)) / (1 + 0.5 * len(others))
        assert torch.allclose(logits.softmax(dim=0), expected, atol=1e-6)


def test_independent_slices_keep_their_probabilities():
    found, most = run([4, 2, 7], lambda _: ())
    assert list(found) == [4, 2, 7]
    assert all(torch.allclose(found[i].softmax(0), logits_of(i).softmax(0), atol=1e-6) for i in found)
    assert most == 1


def test_from_the_middle_outwards_few_slices_are_kept():
    _, most = run(sorted(range(N), key=lambda index: abs(index - 4)), beside)
    assert most <= 5


def test_neighbours_of_what_is_wanted_are_predicted_too():
    assert Smoothing([4], beside).schedule == [4, 3, 5]


def test_impossible_classes_stay_finite():
    smoothing = Smoothing([0], lambda _: ())
    smoothing.add(0, torch.tensor([200.0, -200.0])[:, None, None])
    assert smoothing.logits(0).isfinite().all()
