"""How far a mask can be trusted: what lowers the confidence, and what does not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dinoaugseg.learning.confidence import Looks, agreement, completed_again, confidence_of_picture
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.train import new_decoder
from tests.blobs import LEFT_OUT

SIDE = 64


def disc(radius: float) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE)) - SIDE / 2 + 0.5
    return np.hypot(rows, columns) < radius


def logits(mask: np.ndarray, sure: np.ndarray) -> torch.Tensor:
    """(2, H, W) of a mask, with a probability of 0.99 where it is sure, and of 0.6 elsewhere."""
    probability = np.where(sure, 0.99, 0.6)
    found = np.stack([np.where(mask, 1 - probability, probability), np.where(mask, probability, 1 - probability)])
    return torch.from_numpy(found).log().float()


def image_of(mask: np.ndarray) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(0, 0.02, mask.shape)
    return torch.from_numpy(0.2 + 0.6 * mask + noise).float().clamp(0, 1).expand(3, -1, -1)


def test_agreement_is_the_mean_dice_over_the_classes_in_either_mask():
    one, other = np.zeros((4, 4), int), np.zeros((4, 4), int)
    assert agreement(one, other) == 1
    one[:2], other[:2, :2] = 1, 1
    assert agreement(one, other) == pytest.approx(2 * 4 / 12)
    other[3] = 2
    assert agreement(one, other) == agreement(other, one) == pytest.approx(4 / 12)


def test_a_slice_is_altered_in_the_same_way_whatever_is_predicted_with_it():
    maps = [torch.rand(3, 4, 8, 8), torch.rand(3, 8, 4, 4)]
    state = torch.get_rng_state()
    together = Looks().at(maps, [7, 2, 9], 1)
    alone = Looks().at([stage[1:2] for stage in maps], [2], 1)
    other = Looks().at([stage[1:2] for stage in maps], [2], 0)
    assert torch.equal(torch.get_rng_state(), state)
    for every, one, altered, plain in zip(together, alone, other, maps, strict=True):
        assert torch.equal(every[1:2], one)
        assert not torch.equal(one, altered)
        assert not torch.equal(one, plain[1:2])


def test_a_mask_whose_border_is_not_that_of_the_image_is_doubted():
    truth, unsure = disc(14), disc(24) & ~disc(10)
    right = completed_again(image_of(truth), logits(truth, ~unsure))
    wrong = completed_again(image_of(truth), logits(disc(22), ~unsure))
    assert right > 0.95
    assert wrong < right - 0.1
    assert confidence_of_picture(0.8, 0.8, is_empty=False) < confidence_of_picture(0.8, 0.9, is_empty=False)


def test_an_empty_mask_is_trusted_no_more_than_its_background():
    nothing = logits(disc(0), np.ones((SIDE, SIDE), bool))
    agreed = completed_again(image_of(disc(0)), nothing)
    assert confidence_of_picture(0.6, agreed, is_empty=True) == 0.6
    assert confidence_of_picture(0.99, agreed, is_empty=True) > 0.9


def test_judging_changes_the_confidence_and_no_mask(make_store, quick):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = new_decoder(make_store().encoder.channels, 3, quick)
    order = LEFT_OUT[:5]
    judged = list(predict(make_store(), decoder, order))
    plain = list(predict(make_store(), decoder, order, judge=False))
    alone = [found for index in order for found in predict(make_store(), decoder, [index])]
    for one, other in zip(judged, plain, strict=True):
        assert np.array_equal(one.classes, other.classes)
        assert 0 <= one.confidence <= 1
    assert [one.confidence for one in judged] != [other.confidence for other in plain]
    assert [one.confidence for one in judged] == pytest.approx([one.confidence for one in alone], abs=0.02)
