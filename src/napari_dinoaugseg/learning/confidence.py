"""How good a mask is likely to be: the Dice to expect, judged by what would make a wrong mask change.

A model can be sure and wrong, so its probabilities alone find few of the bad masks of pictures. A mask that is right
stays when the model looks again at a mirrored picture, or at features with some wavelet coefficients dropped as by
WT-Aug, and when the border is drawn by the image instead (`completion`) from the pixels of which the model is sure.
Figures: docs/decisions/confidence.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from napari_dinoaugseg.case.case import UNKNOWN
from napari_dinoaugseg.learning.completion import complete, sure_pixels
from napari_dinoaugseg.learning.metrics import mean_dice
from napari_dinoaugseg.learning.postprocessing import picture
from napari_dinoaugseg.learning.train import RandomStream
from napari_dinoaugseg.model.wtaug import WTAug

LOOKS = 2  # at altered features, where none is mirrored
_SIDE = 128  # most rows and columns on which a mask is completed

# Dice of pictures by the mean of both agreements: masks of pictures agree even where half of them is wrong.
_AGREEMENT = (0.0, 0.8, 0.9, 0.96, 1.0)
_DICE = (0.0, 0.35, 0.7, 0.9, 0.98)


def agreement(first: NDArray[np.integer], second: NDArray[np.integer]) -> float:
    """The mean Dice of two masks (H, W) over the classes in either; 1 if both are empty."""
    found = mean_dice(first, second)
    return 1.0 if found is None else found


class Looks:
    """Features as they would be if some of their wavelet coefficients were lost.

    A slice is altered in the same way each time, whatever is predicted with it.
    """

    def __init__(self) -> None:
        self._augmentation = WTAug(p=1.0)

    def at(self, features: Sequence[Tensor], indices: Sequence[int], number: int) -> list[Tensor]:
        """Altered maps (B, C, H, W) of slices.

        Args:
            features: maps of the slices (B, C, H, W).
            indices: numbers of the slices.
            number: of the look; each alters a slice in another way.
        """
        slices = ([stage[place : place + 1] for stage in features] for place in range(len(indices)))
        altered = [self._alter(maps, LOOKS * i + number) for i, maps in zip(indices, slices, strict=True)]
        return [torch.cat(stage) for stage in zip(*altered, strict=True)]

    def _alter(self, maps: Sequence[Tensor], seed: int) -> list[Tensor]:
        with RandomStream(seed, maps[0].device).use():
            return self._augmentation.alter(maps)


def confidence_of_slice(expected: float, seen_again: float) -> float:
    """The confidence in a slice of a volume.

    Args:
        expected: the Dice expected from the probabilities.
        seen_again: mean agreement of the mask with those of other looks.
    """
    return (expected + seen_again) / 2


def confidence_of_picture(expected: float, agreed: float, *, is_empty: bool) -> float:
    """The confidence in a picture; in an empty mask at most the least probability of the background.

    Args:
        expected: the Dice expected from the probabilities.
        agreed: mean of the agreement of the mask with those of other looks, and of :func:`completed_again`.
        is_empty: whether the mask is.
    """
    found = float(np.interp(agreed, _AGREEMENT, _DICE))
    return min(found, expected) if is_empty else found


def completed_again(image: Tensor, logits: Tensor) -> float:
    """Agreement of a mask with what completion alone makes of its surest pixels.

    Args:
        image: (3, S, S) from 0 to 1.
        logits: (K, h, w) of the mask.
    """
    size = tuple(min(_SIDE, side) for side in logits.shape[1:])
    small = F.interpolate(logits[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    probability = small.softmax(dim=0).cpu().numpy()
    strokes, mask = sure_pixels(probability), probability.argmax(axis=0)
    if len(np.setdiff1d(strokes, [UNKNOWN])) < 2:  # nothing to complete: sure of the background, or of nothing
        return float(not mask.any())
    return agreement(complete(picture(image, size), strokes), mask)
