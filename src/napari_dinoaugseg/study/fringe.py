"""Grey values between black and white in a mask: classes, or the fringe of a binary mask.

Smoothing, resizing and JPEG leave values between 0 and 255 where black meets white, within the 8 x 8 pixels of a block
of JPEG, and some public sets have wider bands of varying values there. Classes are areas of one value, anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_REACH = 8
# Values between are a small part of what is white, or many, where they are a fringe.
_SMALL_PART = 0.25
_MANY = 20
# A band beside something white is noise where it mixes so many values, and so many neighbours differ.
_MIXED = 4
_ROUGH = 0.1
# Where values are many, so few pixels that look like a class do not make the whole folder one of classes.
_TOLERATED = 0.01


class Census:
    """Counts of the values of 8-bit masks, and of where the values between black and white lie.

    Attributes:
        counts: how many pixels have each value.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
        self._like_class = self._solid = 0

    def add(self, mask: NDArray[np.uint8]) -> None:
        """Count a mask (H, W)."""
        self.counts += np.bincount(mask.reshape(-1), minlength=256)
        middle = (mask > 0) & (mask < 255)
        if middle.any():
            self._like_class += _pixels_like_class(mask, middle)
            self._solid += int((_solid(mask) & middle).sum())

    @property
    def whites(self) -> int:
        """How many pixels are 255."""
        return int(self.counts[255])

    @property
    def middle(self) -> int:
        """How many pixels lie between 0 and 255."""
        return int(self.counts[1:255].sum())

    @property
    def values(self) -> list[int]:
        """The values between 0 and 255 that occur."""
        return [int(value) + 1 for value in np.flatnonzero(self.counts[1:255])]

    @property
    def is_fringe(self) -> bool:
        """Whether all values between 0 and 255 are the fringe of black and white; true where there are none."""
        number = len(self.values)
        speckled = number >= 2 * _MIXED and 2 * number >= self.middle
        small = self.middle <= _SMALL_PART * self.whites or number > _MANY or speckled
        return small and self._like_class <= (_TOLERATED * self.middle if number > _MANY else 0)

    @property
    def is_shaded(self) -> bool:
        """Whether values vary from pixel to pixel as in a photograph, rather than in areas of one value."""
        return len(self.values) > _MANY and 2 * self._solid < self.middle


def _pixels_like_class(mask: NDArray[np.uint8], middle: NDArray[np.bool_]) -> int:
    """Return how many pixels between 0 and 255 lie in connected parts that are no fringe.

    A part is one where it lies within reach of an edge, is a single pixel, or is a small rough band beside something
    white; a mask without white has none.
    """
    from scipy import ndimage

    # A bright class amid black would be near black everywhere, and a dark strip at the rim of the image may have none.
    far = middle & ~(_widened(mask == 255) & (_widened(mask == 0) | (mask < 128)))
    if not far.any():
        return 0
    parts, number = ndimage.label(middle, np.ones((3, 3)))
    size = np.bincount(parts.reshape(-1), minlength=number + 1)
    is_far = np.bincount(parts[far], minlength=number + 1) > 0
    pairs, steps = np.zeros(number + 1, np.int64), np.zeros(number + 1, np.int64)
    for axis in (0, 1):
        one, other = _neighbours(mask, axis)
        inside, _ = _neighbours(parts, axis)
        both = np.logical_and(*_neighbours(middle, axis))
        pairs += np.bincount(inside[both], minlength=number + 1)
        steps += np.bincount(inside[both & (one != other)], minlength=number + 1)
    values = np.unique(parts[middle].astype(np.int64) * 256 + mask[middle]) // 256
    is_mixed = np.bincount(values, minlength=number + 1) >= _MIXED
    beside_white = np.unique(parts[ndimage.binary_dilation(mask == 255, np.ones((3, 3))) & middle])
    is_band = is_mixed & (steps >= _ROUGH * pairs) & np.isin(np.arange(number + 1), beside_white)
    whites = np.count_nonzero(mask == 255)
    is_band &= size <= _SMALL_PART * whites
    is_speck = (size == 1) & (whites > 0)
    is_class = is_far & ~is_speck & ~is_band
    return int(size[1:][is_class[1:]].sum())


def is_two_valued(mask: NDArray[Any]) -> bool:
    """Tell whether a mask (H, W) from a lossy file is black and white but for the noise of its packing.

    All black is; so is a mask whose values between lie where black meets white.
    """
    highest = int(mask.max())
    if mask.dtype != np.uint8 or 0 < highest < 128:
        return False
    dark, bright = mask < 32, mask >= 224
    far = ~dark & ~bright & ~(_widened(dark) & _widened(bright))
    return 20 * int(far.sum()) <= int((~dark).sum())


def _widened(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return an area grown by the reach in all directions, as a square."""
    from scipy import ndimage

    grown: NDArray[np.bool_] = ndimage.maximum_filter(area, size=2 * _REACH + 1, mode="constant", cval=False)
    return grown


def _neighbours(array: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return views of an array and of itself, one step along an axis apart."""
    return (array[1:], array[:-1]) if axis == 0 else (array[:, 1:], array[:, :-1])


def _solid(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a pixel and its eight neighbours have one value."""
    from scipy import ndimage

    same: NDArray[np.bool_] = ndimage.maximum_filter(mask, size=3) == ndimage.minimum_filter(mask, size=3)
    return same
