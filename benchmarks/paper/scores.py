"""Dice and HD95 as the authors count them.

Both masks without the class: Dice 1, HD95 0. One of them without it: Dice 0, HD95 100. HD95 is the 95th percentile of
the distances, in voxels, from each surface to the other, both directions taken together: MedPy's definition. The
program's own takes the larger of the two directed percentiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.learning.metrics import dice

ONE_LACKS_IT = 100.0


@dataclass(frozen=True)
class Score:
    """One class in one volume or picture.

    Attributes:
        dice: 0 to 1.
        hd95: in voxels.
    """

    dice: float
    hd95: float


def score(prediction: NDArray[Any], truth: NDArray[Any], numbers: Iterable[int]) -> dict[int, Score]:
    """Scores by class number of label images of one shape, 2-D or 3-D."""
    return {number: _score(prediction == number, truth == number) for number in numbers}


def hd95(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """HD95 in voxels of two masks that both hold something."""
    (box,) = ndimage.find_objects((prediction | truth).astype(np.uint8))
    # Nothing but background is cut off, and at the edge of a box as of an image a mask ends.
    here, there = _surface(prediction[box]), _surface(truth[box])
    forth = ndimage.distance_transform_edt(~there)[here]
    back = ndimage.distance_transform_edt(~here)[there]
    return float(np.percentile(np.concatenate([forth, back]), 95))


def _score(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Score:
    if prediction.any() and truth.any():
        return Score(dice(prediction, truth), hd95(prediction, truth))
    both_empty = not prediction.any() and not truth.any()
    return Score(dice(prediction, truth), 0.0 if both_empty else ONE_LACKS_IT)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask ^ ndimage.binary_erosion(mask)
