"""The loss of the paper: half cross-entropy, half soft Dice, over the pixels whose class is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from napari_dinoaugseg.learning.masks import nearest_pixels

UNKNOWN_TARGET = -1
"""Target value of a pixel that the person left open; the loss does not see it."""

_SMOOTH = 1e-5

Denominator = Literal["squares", "sums"]


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    *,
    absent_in_dice: bool,
    dice: Denominator = "squares",
    class_weights: Tensor | None = None,
) -> Tensor:
    """0.5 cross-entropy + 0.5 soft Dice, background included.

    With probabilities p, truth t and ε = 1e-5, the Dice of a class over the batch is (2 Σpt + ε) / (Σp² + Σt + ε), or
    with ``dice="sums"``, as the authors of the paper compute it, (2 Σpt + ε) / (Σp + Σt + ε).

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) whole numbers, 0 to K - 1, or :data:`UNKNOWN_TARGET`.
        absent_in_dice: count the classes that the batch does not hold, as the authors do. With many classes and a few
            slices most are absent, and their term is then noise: cross-entropy alone keeps them down.
        dice: what stands below in the Dice.
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
    scores = _soft_dice(probability, truth, counts, dice)
    if absent_in_dice:
        return 0.5 * cross_entropy + 0.5 * (1 - scores.mean())
    present = counts > 0
    return 0.5 * cross_entropy + 0.5 * ((1 - scores) * present).sum() / present.sum().clamp(min=1)


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


def _soft_dice(probability: Tensor, truth: Tensor, counts: Tensor, denominator: Denominator) -> Tensor:
    """(K,) of maps (B, K, H, W) that are 0 where the class is unknown; ``counts``: pixels of each class."""
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    amount = probability.square() if denominator == "squares" else probability
    size = amount.sum(dim=(0, 2, 3)) + counts
    return (2 * overlap + _SMOOTH) / (size + _SMOOTH)


def resize_target(target: Tensor, size: int, *, as_pillow: bool = False) -> Tensor:
    """A target (H, W) at (size, size), each pixel the nearest one: no class is mixed with another.

    Args:
        target: whole numbers.
        size: side of the square.
        as_pillow: of two pixels that are equally near, take the one that Pillow takes.
    """
    if target.shape == (size, size):
        return target
    if as_pillow:
        rows, columns = (torch.from_numpy(nearest_pixels(length, size)).long() for length in target.shape)
        return target[rows[:, None], columns]
    resized = F.interpolate(target[None, None].to(torch.float32), size=(size, size), mode="nearest-exact")
    return resized[0, 0].to(target.dtype)
