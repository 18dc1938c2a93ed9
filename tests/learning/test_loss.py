import pytest
import torch

from napari_dinoaugseg.learning.loss import UNKNOWN_TARGET, balanced_weights, resize_target, segmentation_loss


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


def test_rare_classes_weigh_more_and_the_mean_weight_of_a_pixel_is_one():
    target = torch.zeros(10, 10, dtype=torch.int16)
    target[0, :4] = 1
    target[9] = UNKNOWN_TARGET
    weights = balanced_weights([target], 3, power=0.5)
    assert weights[1] / weights[0] == pytest.approx((86 / 4) ** 0.5)
    assert (weights[0] * 86 + weights[1] * 4) / 90 == pytest.approx(1.0)
    assert balanced_weights([target], 2, power=0.0).tolist() == pytest.approx([1.0, 1.0])
