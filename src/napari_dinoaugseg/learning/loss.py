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
    # No branch here depends on a value: a graphics card would have to be waited for, and could not record a step.
    logits = logits.float()
    truth = (target[..., None] == torch.arange(logits.shape[1], device=target.device)).movedim(-1, 1).float()
    counts = truth.sum(dim=(0, 2, 3))
    weight = counts if class_weights is None else counts * class_weights
    cross_entropy = F.cross_entropy(
        logits, target, weight=class_weights, ignore_index=UNKNOWN_TARGET, reduction="sum"
    ) / weight.sum().clamp(min=_SMOOTH)
    probability = logits.softmax(dim=1) * (target != UNKNOWN_TARGET)[:, None]
    dice = _soft_dice(probability, truth, counts)
    if absent_in_dice:
        return 0.5 * cross_entropy + 0.5 * (1 - dice.mean())
    present = counts > 0
    return 0.5 * cross_entropy + 0.5 * ((1 - dice) * present).sum() / present.sum().clamp(min=1)


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


def _soft_dice(probability: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """(K,) of maps (B, K, H, W) that are 0 where the class is unknown; ``counts``: pixels of each class."""
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    # Squares in the denominator, as in the authors' loss.
    size = probability.square().sum(dim=(0, 2, 3)) + counts
    return (2 * overlap + _SMOOTH) / (size + _SMOOTH)


def resize_target(target: Tensor, size: int) -> Tensor:
    """A target (H, W) at (size, size), each pixel the nearest one: no class is mixed with another."""
    if target.shape == (size, size):
        return target
    resized = F.interpolate(target[None, None].to(torch.float32), size=(size, size), mode="nearest-exact")
    return resized[0, 0].to(target.dtype)
