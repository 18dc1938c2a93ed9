"""The loss of the paper: half cross-entropy, half soft Dice, over the pixels whose class is known."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

UNKNOWN_TARGET = -1
"""Target value of a pixel that the person left open; the loss does not see it."""

_SMOOTH = 1e-5


def segmentation_loss(
    logits: Tensor, target: Tensor, *, absent_in_dice: bool, class_weights: Tensor | None = None
) -> Tensor:
    """0.5 cross-entropy + 0.5 soft Dice, background included.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) whole numbers, 0 to K - 1, or :data:`UNKNOWN_TARGET`.
        absent_in_dice: count the classes that the batch does not hold, as the authors do. With many classes and a few
            slices most are absent, and their term is then noise: cross-entropy alone keeps them down.
        class_weights: (K,) for the cross-entropy, see :func:`balanced_weights`; None = all alike.

    Returns:
        A number, 0 or more. 0 when every pixel is unknown.
    """
    known = target != UNKNOWN_TARGET
    if not known.any():
        return logits.sum() * 0.0
    cross_entropy = F.cross_entropy(logits.float(), target, weight=class_weights, ignore_index=UNKNOWN_TARGET)
    return 0.5 * cross_entropy + 0.5 * _soft_dice_loss(logits, target, known, absent_in_dice=absent_in_dice)


def balanced_weights(targets: Iterable[Tensor], n_classes: int, power: float) -> Tensor:
    """Weights (K,) by which rare classes are heard beside large ones: frequency ** -power, on average 1 a pixel.

    With two dozen organs in a few slices the small ones are a fraction of a percent of the pixels; unweighted, a short
    training never finds them. Classes that do not occur weigh 1.
    """
    counts = torch.zeros(n_classes)
    for target in targets:
        counts += torch.bincount(target[target != UNKNOWN_TARGET].long(), minlength=n_classes)
    share = counts / counts.sum().clamp(min=1)
    weights = torch.where(counts > 0, share.clamp(min=1e-9) ** -power, torch.ones(n_classes))
    return weights / (weights * share).sum().clamp(min=1e-9)


def _soft_dice_loss(logits: Tensor, target: Tensor, known: Tensor, *, absent_in_dice: bool) -> Tensor:
    classes = logits.shape[1]
    probability = logits.float().softmax(dim=1) * known[:, None]
    truth = F.one_hot(target.clamp(min=0), classes).movedim(-1, 1).to(probability.dtype) * known[:, None]
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    # Squares in the denominator, as in the authors' loss.
    size = probability.square().sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    dice = (2 * overlap + _SMOOTH) / (size + _SMOOTH)
    if absent_in_dice:
        return 1 - dice.mean()
    present = truth.sum(dim=(0, 2, 3)) > 0
    return 1 - dice[present].mean()


def resize_target(target: Tensor, size: int) -> Tensor:
    """A target (H, W) at (size, size), each pixel the nearest one: no class is mixed with another."""
    if target.shape == (size, size):
        return target
    resized = F.interpolate(target[None, None].to(torch.float32), size=(size, size), mode="nearest-exact")
    return resized[0, 0].to(target.dtype)
