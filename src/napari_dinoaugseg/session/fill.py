"""Labels for the slices between two labelled ones, as a starting point for corrections.

A slice takes the model's mask where the model is sure enough of it, and is interpolated otherwise: over gaps of four
and eight slices a model that has learned both ends gave better masks than shapes (docs/decisions/fill.md).

Shape-based interpolation (Raya and Udupa, IEEE Transactions on Medical Imaging 9(1), 1990): each class becomes its
signed distance to the outline, positive inside; the distances are interpolated and cut at zero. Both outlines are first
shifted to the interpolated centre of the class, so that an oblique vessel does not vanish half-way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, Labels

SURE = 0.4
"""Confidence from which the model's mask of a slice is preferred to shapes."""


@dataclass(frozen=True)
class Filled:
    """What slices between labelled ones would hold.

    Attributes:
        slices: (H, W) labels by slice.
        gaps: how many pairs of labelled slices they lie between.
        by_model: how many of the slices hold the model's mask.
    """

    slices: dict[int, Labels]
    gaps: int
    by_model: int


def fill_gap(book: LabelBook, here: int, spacing: tuple[float, float] | None) -> Filled:
    """Labels for the open slices between the two nearest manually labelled ones around a slice.

    Args:
        book: of a volume.
        here: the slice.
        spacing: (row, column) distance of pixels in mm; None = square pixels.

    Raises:
        LabelError: the slice does not lie between two that are painted as a whole, or nothing is open there.
    """
    manual = [i for i in book.labelled if book.manual(i) is not None]
    below = max((i for i in manual if i <= here), default=None)
    above = min((i for i in manual if i >= here and i != below), default=None)
    if below is None or above is None or above - below < 2:
        msg = "Go to a slice between two slices that are labelled by hand; the slices between them are filled."
        raise LabelError(msg)
    if not (_is_whole(book, below) and _is_whole(book, above)):
        msg = "Filling needs two slices that are painted as a whole, not scribbles."
        raise LabelError(msg)
    filled = _fill(book, [(below, above)], spacing)
    if not filled.slices:
        msg = "The slices between are labelled already; there is nothing to fill."
        raise LabelError(msg)
    return filled


def fill_every_gap(book: LabelBook, spacing: tuple[float, float] | None) -> Filled:
    """As :func:`fill_gap`, for all open slices between the first and the last one that is painted as a whole.

    Raises:
        LabelError: there are no two such slices with an open one between them.
    """
    whole = [i for i in book.labelled if book.manual(i) is not None and _is_whole(book, i)]
    filled = _fill(book, pairwise(whole), spacing)
    if not filled.slices:
        msg = "Paint two slices as a whole, with others between them; the slices between are filled."
        raise LabelError(msg)
    return filled


def _is_whole(book: LabelBook, index: int) -> bool:
    return not (book.truth(index) == UNKNOWN).any()


def _fill(book: LabelBook, ends: Iterable[tuple[int, int]], spacing: tuple[float, float] | None) -> Filled:
    slices: dict[int, Labels] = {}
    labelled, gaps, by_model = set(book.labelled), 0, 0
    for below, above in ends:
        between = [i for i in range(below + 1, above) if i not in labelled]
        sure = {i: mask for i in between if (mask := _sure_mask(book, i)) is not None}
        if len(sure) < len(between):
            shapes = fill_between(book.truth(below), book.truth(above), above - below - 1, spacing)
            slices.update((i, shapes[i - below - 1]) for i in between if i not in sure)
        slices.update(sure)
        gaps += bool(between)
        by_model += len(sure)
    return Filled(slices, gaps, by_model)


def _sure_mask(book: LabelBook, index: int) -> Labels | None:
    return book.predicted(index) if book.confidence.get(index, 0.0) >= SURE else None


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
