"""Interpolation of labels between two labelled slices, as a starting point for corrections.

Shape-based interpolation (Raya and Udupa, IEEE Transactions on Medical Imaging 9(1), 1990): each class becomes its
signed distance to the outline, positive inside; the distances are interpolated and cut at zero. Both outlines are first
shifted to the interpolated centre of the class, so that an oblique vessel does not vanish half-way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.session.labels import UNKNOWN, Labels


def fill_between(
    first: Labels, last: Labels, count: int, spacing: tuple[float, float] | None = (1.0, 1.0)
) -> list[Labels]:
    """Interpolate the labels of the slices between two labelled ones.

    Args:
        first: (H, W) labels of the slice before; unknown pixels count as background.
        last: (H, W) labels of the slice after.
        count: how many slices lie strictly between.
        spacing: (row, column) distance of pixels in mm; None = square pixels.

    Returns:
        `count` label images (H, W), from first to last. A class that only one of the two holds tapers off half-way.

    Raises:
        ValueError: the slices differ in size, or `count` is negative.
    """
    if first.shape != last.shape:
        msg = f"slices of {first.shape} and {last.shape}"
        raise ValueError(msg)
    if count < 0:
        msg = f"{count} slices"
        raise ValueError(msg)
    numbers = sorted({int(value) for labels in (first, last) for value in np.unique(labels)} - {0, UNKNOWN})
    shapes = [_Shapes(first == number, last == number, spacing or (1.0, 1.0)) for number in numbers]
    filled = []
    for step in range(1, count + 1):
        labels = np.zeros(first.shape, np.uint16)
        deepest = np.zeros(first.shape)
        for number, shape in zip(numbers, shapes, strict=True):
            inside = shape.at(step / (count + 1))
            # Where two classes overlap, the one with the greater distance to its outline wins.
            won = inside > deepest
            labels[won], deepest[won] = number, inside[won]
        filled.append(labels)
    return filled


class _Shapes:
    """One class on both slices."""

    def __init__(self, first: NDArray[np.bool_], last: NDArray[np.bool_], spacing: tuple[float, float]) -> None:
        self._ends = (_signed_distance(first, spacing), _signed_distance(last, spacing))
        self._centres = (_centre(first), _centre(last))

    def at(self, part: float) -> NDArray[np.float64]:
        """Signed distance to the outline at 0 (first) to 1 (last), positive inside."""
        near, far = self._ends
        if near is None or far is None:
            present = near if near is not None else far
            if present is None:
                msg = "a class is on neither slice"
                raise ValueError(msg)
            # The missing shape is as far outside as the present one is deep.
            gone = part if near is not None else 1 - part
            return (1 - gone) * present - gone * float(present.max())
        centre = (1 - part) * self._centres[0] + part * self._centres[1]
        return (1 - part) * _moved(near, centre - self._centres[0]) + part * _moved(far, centre - self._centres[1])


def _signed_distance(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> NDArray[np.float64] | None:
    """Distance of pixel centres to the outline, half a pixel from them, in mm; None for an empty mask."""
    if not mask.any():
        return None
    # The edge of the image is not an outline: beyond it is unknown, not background.
    if mask.all():
        return np.full(mask.shape, float(np.hypot(*mask.shape)) * max(spacing))
    half = min(spacing) / 2
    inside = np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing), dtype=np.float64)
    outside = np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing), dtype=np.float64)
    return np.where(mask, inside - half, half - outside)


def _centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.argwhere(mask).mean(axis=0) if mask.any() else np.zeros(2)


def _moved(distance: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """A distance map shifted by (rows, columns), with the nearest value beyond its border."""
    if not by.any():
        return distance
    return np.asarray(ndimage.shift(distance, by, order=1, mode="nearest"), dtype=np.float64)
