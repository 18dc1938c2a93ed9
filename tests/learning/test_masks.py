"""The mask of a slice, and how sure one can be of it as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from napari_dinoaugseg.learning.postprocessing import enlarged, mask_of, nearest_pixels

SHAPE = (40, 50)


def logits_of(**probability: float) -> Tensor:
    """Logits (3, 40, 50) of the same probabilities all over, with a square of others."""
    inside = [probability.get(f"inside_{number}", 0.001) for number in (1, 2)]
    outside = [probability.get(f"outside_{number}", 0.001) for number in (1, 2)]
    values = torch.empty(3, *SHAPE)
    for number, (within, without) in enumerate(zip(inside, outside, strict=True), start=1):
        values[number] = without
        values[number, 10:30, 10:30] = within
    values[0] = 1 - values[1:].sum(dim=0)
    return values.log()


def test_the_class_of_a_pixel_is_the_most_probable_one_of_the_enlarged_logits():
    logits = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(0))
    found = mask_of(logits, 3, SHAPE)
    probability = F.interpolate(logits[None], SHAPE, mode="bilinear", align_corners=False)[0].softmax(0)
    assert found.index == 3
    assert np.array_equal(found.classes, probability.argmax(0).numpy())
    assert np.allclose(found.pixel_confidence, probability.max(0).values.numpy(), atol=1e-6)


def test_the_confidence_of_a_slice_is_the_dice_to_expect():
    probability = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1)) ** 4
    probability[0] = 1 - probability[1]
    mask = probability.argmax(0) == 1
    truths = torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(2)) < probability[1]
    dices = 2 * (truths & mask).sum((1, 2)) / (truths.sum((1, 2)) + mask.sum())
    assert mask_of(probability.log(), 0, SHAPE).confidence == pytest.approx(float(dices.mean()), abs=0.005)


def test_the_less_sure_of_two_masks_has_less_confidence():
    sure, unsure = (mask_of(logits_of(inside_1=p), 0, SHAPE).confidence for p in (0.95, 0.6))
    assert sure > 0.9
    assert unsure < 0.8 * sure


def test_an_empty_slice_is_as_sure_as_its_least_sure_pixel():
    clear, doubtful = (mask_of(logits_of(inside_1=p), 0, SHAPE) for p in (0.002, 0.4))
    assert not clear.classes.any()
    assert not doubtful.classes.any()
    assert clear.confidence == pytest.approx(0.997, abs=1e-3)
    assert doubtful.confidence == pytest.approx(0.599, abs=1e-3)


def test_a_class_that_is_nowhere_takes_nothing_from_the_others():
    """Of 2,000 pixels with a probability of 0.001 two are to be expected, and none is found."""
    alone = mask_of(logits_of(inside_1=0.95)[:2], 0, SHAPE).confidence
    beside = mask_of(logits_of(inside_1=0.95), 0, SHAPE).confidence
    assert beside == pytest.approx(alone, abs=0.01)


def test_a_mask_of_a_large_picture_is_the_same_in_strips():
    logits = torch.randn(5, 32, 48, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(logits[None], size=(301, 203), mode="bilinear", align_corners=False)[0]
    for strip in (1, 10_000, 100_000, 2**25):
        parts = list(enlarged(logits, (301, 203), strip))
        assert [first for first, _ in parts] == list(np.cumsum([0, *(part.shape[1] for _, part in parts)])[:-1])
        torch.testing.assert_close(torch.cat([part for _, part in parts], dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 50), (64, 64), (7, 300), (513, 97), (1, 1)])
def test_a_mask_may_be_chosen_at_the_input_size_and_resized_to_the_nearest_pixel_as_pillow_does(shape):
    logits = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(0))
    found = mask_of(logits, 3, shape, square=64)
    probability = F.interpolate(logits[None], (64, 64), mode="bilinear", align_corners=False)[0].softmax(0)
    size = (shape[1], shape[0])  # of a picture: width, height
    for resized, square in (
        (found.classes, probability.argmax(0).numpy().astype(np.uint8)),
        (found.pixel_confidence, probability.max(0).values.numpy()),
    ):
        expected = np.asarray(Image.fromarray(square).resize(size, Image.Resampling.NEAREST))
        assert resized.shape == shape
        np.testing.assert_allclose(resized, expected, atol=1e-6)
    assert found.index == 3
    assert found.confidence == mask_of(logits, 3, (64, 64)).confidence


@given(source=st.integers(1, 1536), target=st.integers(1, 3000))
def test_nearest_pixels_are_those_in_which_the_middles_lie(source, target):
    found = nearest_pixels(source, target)
    middles = (np.arange(target) + 0.5) * source / target
    assert found.shape == (target,)
    assert ((found >= 0) & (found < source)).all()
    assert ((found <= middles + 1e-6) & (middles - 1e-6 <= found + 1)).all()
