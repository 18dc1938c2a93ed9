import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from napari_dinoaugseg.learning.postprocessing import UNKNOWN_TARGET
from napari_dinoaugseg.learning.train import balanced_weights, resize_target, segmentation_loss


def logits_for(target, classes, strength=20.0):
    return torch.nn.functional.one_hot(target, classes).movedim(-1, 1).float() * strength


def test_a_perfect_answer_costs_almost_nothing():
    target = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    assert segmentation_loss(logits_for(target, 3), target, absent_in_dice=True) < 1e-3


def test_a_wrong_answer_costs_more_than_an_unsure_one():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, :4] = 1
    wrong = segmentation_loss(logits_for(1 - target, 2), target, absent_in_dice=True)
    unsure = segmentation_loss(torch.zeros(1, 2, 8, 8), target, absent_in_dice=True)
    assert wrong > 2 * unsure


@pytest.mark.parametrize("absent", [True, False])
def test_unknown_pixels_have_neither_value_nor_gradient(absent):
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (2, 8, 8), generator=generator)
    target[:, :, :4] = UNKNOWN_TARGET
    logits = torch.randn(2, 3, 8, 8, generator=generator, requires_grad=True)
    loss = segmentation_loss(logits, target, absent_in_dice=absent)
    loss.backward()
    assert logits.grad[..., :4].abs().max() == 0
    assert logits.grad[..., 4:].abs().max() > 0
    changed = logits.detach().clone()
    changed[..., :4] += 5
    assert torch.isclose(segmentation_loss(changed, target, absent_in_dice=absent), loss.detach())


def test_only_unknown_pixels_give_zero_and_a_zero_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), UNKNOWN_TARGET), absent_in_dice=False)
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().max() == 0


def test_absent_classes_can_be_left_out_of_the_dice():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    logits = torch.zeros(1, 5, 8, 8)
    logits[:, 0] = 3.0
    assert segmentation_loss(logits, target, absent_in_dice=False) < segmentation_loss(
        logits, target, absent_in_dice=True
    )


def test_a_resized_target_mixes_no_classes():
    target = torch.tensor([[0, 7], [UNKNOWN_TARGET, 3]], dtype=torch.int16)
    resized = resize_target(target, 64)
    assert set(resized.unique().tolist()) == {0, 7, UNKNOWN_TARGET, 3}
    assert resized[0, -1] == 7
    assert resized.dtype == torch.int16


@pytest.mark.parametrize("shape", [(512, 512), (216, 256), (40, 50)])
def test_a_target_may_be_resized_as_pillow_does(shape):
    target = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    expected = np.asarray(Image.fromarray(target).resize((768, 768), Image.Resampling.NEAREST))
    found = resize_target(torch.from_numpy(target.astype(np.int16)), 768, as_pillow=True)
    assert found.dtype == torch.int16
    np.testing.assert_array_equal(found.numpy(), expected)


def test_rare_classes_weigh_more_and_the_mean_weight_of_a_pixel_is_one():
    target = torch.zeros(10, 10, dtype=torch.int16)
    target[0, :4] = 1
    target[9] = UNKNOWN_TARGET
    weights = balanced_weights([target], 3, power=0.5)
    assert weights[1] / weights[0] == pytest.approx((86 / 4) ** 0.5)
    assert (weights[0] * 86 + weights[1] * 4) / 90 == pytest.approx(1.0)
    assert balanced_weights([target], 2, power=0.0).tolist() == pytest.approx([1.0, 1.0])


def cross_entropy_of(probability: float) -> float:
    return -math.log(probability)


def test_the_loss_with_plain_sums_is_that_of_the_paper_in_numbers():
    """Four pixels, three of class 0, one of class 1, each given 0.75 for class 0 and 0.25 for class 1."""
    target = torch.tensor([[[0, 0], [0, 1]]])
    logits = torch.log(torch.tensor([0.75, 0.25])).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    cross_entropy = (3 * cross_entropy_of(0.75) + cross_entropy_of(0.25)) / 4
    eps = 1e-5
    sums = (2 * 2.25 + eps) / (3 + 3 + eps), (2 * 0.25 + eps) / (1 + 1 + eps)
    squares = (2 * 2.25 + eps) / (4 * 0.75**2 + 3 + eps), (2 * 0.25 + eps) / (4 * 0.25**2 + 1 + eps)
    for name, scores in (("sums", sums), ("squares", squares)):
        loss = segmentation_loss(logits, target, absent_in_dice=True, dice=name)
        assert float(loss) == pytest.approx(0.5 * cross_entropy + 0.5 * (1 - sum(scores) / 2), rel=1e-6)
    default = segmentation_loss(logits, target, absent_in_dice=True)
    assert default == segmentation_loss(logits, target, absent_in_dice=True, dice="squares")


@given(
    seed=st.integers(0, 2**16),
    classes=st.integers(2, 5),
    unknown=st.floats(0, 0.9),
    weight=st.floats(0.1, 10),
)
def test_the_dice_with_sums_is_twice_the_overlap_over_both_sizes(seed, classes, unknown, weight):
    random = np.random.default_rng(seed)
    logits = weight * random.normal(size=(2, classes, 5, 7))
    truth = random.integers(0, classes, (2, 5, 7))
    known = random.random((2, 5, 7)) >= unknown
    assume(known.any())
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    t = np.moveaxis(np.eye(classes)[truth], -1, 1) * known[:, None]
    p_known = p * known[:, None]
    dice = (2 * (p_known * t).sum((0, 2, 3)) + 1e-5) / (p_known.sum((0, 2, 3)) + t.sum((0, 2, 3)) + 1e-5)
    cross_entropy = -np.log((p * t).sum(axis=1)[known]).mean()
    found = segmentation_loss(
        torch.from_numpy(logits),
        torch.from_numpy(np.where(known, truth, UNKNOWN_TARGET)),
        absent_in_dice=True,
        dice="sums",
    )
    assert float(found) == pytest.approx(0.5 * cross_entropy + 0.5 * (1 - dice.mean()), rel=1e-4)
