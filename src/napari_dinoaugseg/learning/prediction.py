"""What a prediction is, and in which order predictions come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """The mask of one slice.

    Attributes:
        index: slice number.
        classes: (H, W) class indices, 0 = background, at the slice's own size.
        pixel_confidence: (H, W) float32, probability of the chosen class, from 1 / K to 1; less where an island
            was taken out.
        confidence: of the whole slice, 0 to 1: the Dice that the probabilities lead one to expect.
    """

    index: int
    classes: NDArray[np.uint16]
    pixel_confidence: NDArray[np.float32]
    confidence: float


def nearest_first(indices: Iterable[int], centre: int) -> list[int]:
    """Slices in the order in which a person at ``centre`` wants to see them."""
    return sorted(indices, key=lambda index: (abs(index - centre), index))
