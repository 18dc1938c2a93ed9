"""Outlines of masks, and the pixels inside outlines.

An outline runs through the points half way between a pixel centre inside and its neighbour outside
(`skimage.measure.find_contours` at 0.5), so that no pixel centre lies nearer to it than 0.35 of a pixel: whoever asks
which pixel centres lie inside gets the mask back, whatever they do with points on an edge.

A hole is joined to the outline around it by a channel without width (the "keyhole" of DICOM PS3.3 C.8.8.6.3), which
runs half way between two rows of pixel centres. A mask is then a set of closed polygons that do not overlap, and
readers that unite polygons, combine them by exclusive or, count windings or fill by even-odd all find the same pixels.

Coordinates are (row, column) in pixels; the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(n, 2) or (n, 3) corners of a closed polygon; the last is joined to the first."""

# Corners are rounded to this many decimals of a pixel before filling: a polygon whose edges run through pixel centres
# must not gain or lose pixels by the last digits of its coordinates.
_DECIMALS = 3
# Crossings of edges with rows that are computed at once (8 bytes each, a few arrays).
_AT_ONCE = 2_000_000


def outlines(mask: NDArray[np.bool_]) -> list[Points]:
    """Return the outlines of a mask (row, column) as polygons, holes joined to the outline around them.

    Pixels that touch at a corner are connected, so that a diagonal line of one pixel is one outline. Corners on
    straight edges are left out.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    first = np.array([rows[0], columns[0]])
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return [points + (first - 1) for points in _outlines(np.pad(part, 1))]


def _outlines(mask: NDArray[np.bool_]) -> Iterator[Points]:
    """Yield the outlines of a mask that is background at its border."""
    from skimage.measure import find_contours

    found: list[Points] = find_contours(mask.astype(np.float64), 0.5, fully_connected="high")
    rings = [_with_halves(ring[:-1]) for ring in found]
    holes = [n for n, ring in enumerate(rings) if _area(ring) < 0]
    if not holes:
        yield from (_corners(ring) for ring in rings)
        return
    starts, bridges = _channels(rings, holes)
    for n in range(len(rings)):
        if n not in starts:
            yield _corners(np.array(list(_joined(rings, starts, bridges, n))))


def _with_halves(ring: Points) -> Points:
    """Insert the middle of each edge of length 1 along a column, so that a ring has a corner at each half row."""
    following = np.roll(ring, -1, axis=0)
    long = np.abs(following[:, 0] - ring[:, 0]) == 1
    return np.insert(ring, np.flatnonzero(long) + 1, (ring[long] + following[long]) / 2, axis=0)


def _area(ring: Points) -> float:
    """Return the signed area: positive around foreground as `find_contours` runs, negative around a hole."""
    row, column = ring.T
    return float(column @ np.roll(row, -1) - row @ np.roll(column, -1)) / 2


def _channels(rings: list[Points], holes: list[int]) -> tuple[dict[int, int], dict[tuple[int, int], int]]:
    """Return the corner of each hole at which its channel begins, and the hole by ring and corner where it ends.

    A channel runs to the left from a half row beside the leftmost corner of the hole to the nearest corner of any ring
    in that row. Each hole so reaches a ring that begins further left, and in the end its outline. No two rings share a
    corner, and at most one channel ends at a corner.
    """
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    place = np.concatenate([np.arange(len(ring)) for ring in rings])
    everything = np.concatenate(rings)
    width = 2 * float(everything[:, 1].max()) + 2  # rows differ by a half
    keys = everything[:, 0] * width + everything[:, 1]
    order = np.argsort(keys)
    ordered = keys[order]
    starts: dict[int, int] = {}
    ends: dict[tuple[int, int], int] = {}
    for hole in holes:
        ring = rings[hole]
        # The first of its leftmost corners in a row of pixel centres.
        leftmost = int(np.where(ring[:, 0] % 1 == 0, ring[:, 1], np.inf).argmin())
        beside = ((leftmost - 1) % len(ring), (leftmost + 1) % len(ring))
        start = next(n for n in beside if ring[n, 0] > ring[leftmost, 0])
        left = order[np.searchsorted(ordered, ring[start, 0] * width + ring[start, 1]) - 1]
        starts[hole] = start
        ends[int(owner[left]), int(place[left])] = hole
    return starts, ends


def _joined(
    rings: list[Points], starts: dict[int, int], ends: dict[tuple[int, int], int], outline: int
) -> Iterator[Points]:
    """Yield the corners of an outline with its holes: each is walked around, and left where it was entered."""
    ways: list[tuple[int, int, Iterator[int]]] = [(outline, 0, iter(range(len(rings[outline]))))]
    while ways:
        ring, entered, corners = ways[-1]
        at = next(corners, None)
        if at is None:
            ways.pop()
            if ways:  # back through the channel
                yield rings[ring][starts[ring]]
                yield rings[ways[-1][0]][entered]
            continue
        yield rings[ring][at]
        hole = ends.get((ring, at))
        if hole is not None:
            count = len(rings[hole])
            ways.append((hole, at, iter([(starts[hole] + n) % count for n in range(count)])))


def _corners(ring: Points) -> Points:
    """Leave out the points at which a polygon does not turn."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    straight = before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]
    onwards = (before * after).sum(axis=1) > 0
    kept: Points = ring[~(straight & onwards)]
    return kept


Box = tuple[slice, slice]
"""A part of an image: its rows and its columns."""


def box_of(points: Points, shape: tuple[int, int]) -> Box:
    """Return the part of an image of this shape in which pixel centres may lie inside a polygon; it may be empty."""
    corners = np.round(points, _DECIMALS)
    first = np.clip(np.ceil(corners.min(axis=0)), 0, shape).astype(int)
    last = np.maximum(np.clip(np.floor(corners.max(axis=0)) + 1, 0, shape).astype(int), first)
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def filled(points: Points, shape: tuple[int, int]) -> tuple[Box, NDArray[np.bool_]]:
    """Return the pixels of an image whose centres lie inside a polygon, by even-odd.

    A centre on an edge belongs to one of two polygons that share the edge.

    Args:
        points: the corners (n, 2), in or outside the image.
        shape: rows and columns of the image.

    Returns:
        The part of the image around the polygon, and which of its pixels lie inside.
    """
    rows, columns = box = box_of(points, shape)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return box, np.zeros((height, width), dtype=bool)
    toggles = np.zeros(height * (width + 1), dtype=np.int64)
    for row, column in _crossings(np.round(points, _DECIMALS), rows.start, rows.stop):
        at = np.clip(np.ceil(column), columns.start, columns.stop).astype(np.int64) - columns.start
        toggles += np.bincount((row - rows.start) * (width + 1) + at, minlength=toggles.size)
    inside: NDArray[Any] = np.cumsum(toggles.reshape(height, width + 1), axis=1)[:, :width] % 2 == 1
    return box, inside


def _crossings(corners: Points, first: int, last: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield rows from `first` to before `last`, and the columns where an edge crosses them, some edges at a time."""
    ends = np.roll(corners, -1, axis=0)
    downwards = corners[:, :1] <= ends[:, :1]
    upper, lower = np.where(downwards, corners, ends), np.where(downwards, ends, corners)
    begin = np.clip(np.ceil(upper[:, 0]), first, last).astype(np.int64)
    counts = np.clip(np.ceil(lower[:, 0]), first, last).astype(np.int64) - begin
    chosen = np.flatnonzero(counts > 0)
    groups = np.cumsum(counts[chosen]) // _AT_ONCE
    for edges in np.split(chosen, np.flatnonzero(np.diff(groups)) + 1):
        number = counts[edges]
        edge = np.repeat(edges, number)
        row = np.repeat(begin[edges] - np.concatenate([[0], np.cumsum(number)[:-1]]), number) + np.arange(number.sum())
        slope = (lower[edge, 1] - upper[edge, 1]) / (lower[edge, 0] - upper[edge, 0])
        yield row, upper[edge, 1] + (row - upper[edge, 0]) * slope
