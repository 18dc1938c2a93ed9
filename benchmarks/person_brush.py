"""The hand of a simulated person: brush strokes that turn a prediction into the truth, and how many these are.

A stroke is one press to release of napari's round brush: one class, one size, moved along a curve without branches. The
brush covers whole pixels within `n + 0.5` of its centre, n = 0 to 20, as napari's own for its sizes of 1 to 40.

The person takes the largest connected region that is wrong and has one true class, background included (then it is the
eraser). The curve is the longest path along the medial axis of that region, or the part of it at which a brush of the
chosen size keeps inside the true class: no stroke ever spoils a pixel. Among five sizes, from the smallest to the
largest that fit somewhere on the axis, it is the one that mends the most pixels of the region. Then the person looks
again, until the slice is right: each class that it holds has a Dice of at least 0.97, and of a class that it does not
hold at most three pixels are left.

What this leaves out: nothing is painted twice or by mistake, and no other tool is used. Who paints an outline and fills
it needs fewer, longer strokes for a large region, so that strokes flatter corrections more than slices do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import skeletonize

from napari_dinoaugseg.learning.metrics import dice

RIGHT = 0.97
"""Dice of each class at which a person leaves a slice: about what two careful people agree on."""

SPECK = 3
"""Pixels of a class that the slice does not hold, which nobody erases."""

_LARGEST = 20  # napari's slider ends at a brush of 40 pixels
_SIZES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the sizes that fit along the axis, which ones the person weighs
TOUCHING = np.ones((3, 3), bool)

Mask = NDArray[np.bool_]
Point = tuple[int, int]

medial_axis: Callable[[Mask], Mask] = skeletonize


@dataclass(frozen=True)
class Correction:
    """A slice as the person leaves it.

    Attributes:
        labels: (H, W) uint16 class numbers.
        strokes: how many it took; 0 = it was right.
    """

    labels: NDArray[np.uint16]
    strokes: int


def correct(found: NDArray[np.integer], truth: NDArray[np.integer]) -> Correction:
    """Paint on a slice until it is right.

    Args:
        found: (H, W) class numbers where the person begins: a prediction, or all background.
        truth: (H, W) class numbers.
    """
    labels = found.astype(np.uint16)
    box = _bounding_box((found != 0) | (truth != 0))
    here, true = labels[box], truth[box]  # a view: what is painted here is painted on the slice
    room = {int(number): room_for(true == number) for number in np.unique(true)}
    strokes = 0
    while wrong := wrong_classes(here, true):
        _paint_once(here, true, wrong, room)
        strokes += 1
    return Correction(labels, strokes)


def brush_once(found: NDArray[np.integer], truth: NDArray[np.integer]) -> NDArray[np.uint16]:
    """A slice, (H, W) class numbers, after the next stroke; unchanged if it is right."""
    labels = found.astype(np.uint16)
    if wrong := wrong_classes(labels, truth):
        _paint_once(labels, truth, wrong, {int(number): room_for(truth == number) for number in np.unique(truth)})
    return labels


def _paint_once(
    labels: NDArray[np.uint16],
    truth: NDArray[np.integer],
    wrong: Sequence[int],
    room: Mapping[int, NDArray[np.int64]],
) -> None:
    """Paint the next stroke for the sake of the wrong classes, in place."""
    number, region = _largest_error(labels, truth, wrong)
    labels[_stroke(region, room[number])] = number


def wrong_classes(found: NDArray[np.integer], truth: NDArray[np.integer]) -> list[int]:
    """Classes that a person would still correct on a slice, (H, W) both."""
    numbers = sorted({*np.unique(found).tolist(), *np.unique(truth).tolist()} - {0})
    return [number for number in numbers if not _is_right(found == number, truth == number)]


def _is_right(found: Mask, truth: Mask) -> bool:
    return dice(found, truth) >= RIGHT if truth.any() else int(np.count_nonzero(found)) <= SPECK


def _bounding_box(mask: Mask) -> tuple[slice, slice]:
    """Around what is set and one pixel more, so that each class ends inside it unless it touches the picture's edge."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2)


def room_for(of: Mask) -> NDArray[np.int64]:
    """The largest n at each pixel, (H, W), of which a brush centred there stays in the mask; -1 outside of it.

    The picture's edge bounds no brush: paint beyond it is lost.
    """
    if of.all():
        return np.full(of.shape, _LARGEST)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(of)
    return np.minimum(np.ceil(distance - 0.5).astype(np.int64) - 1, _LARGEST)


def _largest_error(found: NDArray[np.integer], truth: NDArray[np.integer], wrong: Iterable[int]) -> tuple[int, Mask]:
    """True class and mask of the largest region to paint in one class for the sake of the wrong ones."""
    numbers = list(wrong)
    errors = (found != truth) & (np.isin(found, numbers) | np.isin(truth, numbers))
    best, chosen, region = 0, 0, errors
    for number in np.unique(truth[errors]).tolist():
        parts, _ = ndimage.label(errors & (truth == number), TOUCHING)
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max() > best:
            best, chosen, region = int(sizes.max()), number, parts == 1 + int(sizes.argmax())
    return chosen, region


def _stroke(region: Mask, room: NDArray[np.int64]) -> Mask:
    """What the stroke paints that mends most of a region.

    Args:
        region: (H, W) wrong pixels.
        room: of their true class, see `room_for`.
    """
    axis = medial_axis(region)
    if not axis.any():
        axis = region
    fitting = room[axis]
    sizes = sorted({int(n) for n in np.quantile(fitting, _SIZES, method="nearest")}, reverse=True)
    sweeps = (sweep(longest_path(axis & (room >= n)), n) for n in sizes)
    return max(sweeps, key=lambda swept: int(np.count_nonzero(swept & region)))  # of equals the larger brush


def sweep(path: Mask, size: int) -> Mask:
    """Pixels under a brush that moves along a path."""
    swept: Mask = ndimage.distance_transform_edt(~path) <= size + 0.5
    return swept


def longest_path(axis: Mask) -> Mask:
    """The longest of the shortest paths in the largest connected part of an axis: end to end, without branches.

    Of a ring it is one half, for which the person turns the hand once.
    """
    parts, _ = ndimage.label(axis, TOUCHING)
    largest = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    points: set[Point] = {(int(row), int(column)) for row, column in np.argwhere(largest)}
    end = list(_ways_from(min(points), points))[-1]
    ways = _ways_from(end, points)
    path = np.zeros_like(axis)
    point: Point | None = list(ways)[-1]
    while point is not None:
        path[point] = True
        point = ways[point]
    return path


def _ways_from(start: Point, points: set[Point]) -> dict[Point, Point | None]:
    """For each point the one before it on the shortest way from the start, nearest points first."""
    before: dict[Point, Point | None] = {start: None}
    border = [start]
    while border:
        reached = []
        for row, column in border:
            for point in ((row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                if point in points and point not in before:
                    before[point] = (row, column)
                    reached.append(point)
        border = reached
    return before
