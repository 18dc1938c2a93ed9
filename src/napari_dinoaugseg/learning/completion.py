"""Completion: from a few strokes on a slice to a label for each of its pixels.

A pixel is as far from a class as the cheapest path to its strokes. Paths have four costs: their length, the edges that
they cross at a fine and at a coarse scale, and how unlike the strokes of the class their pixels are. The logarithms of
these geodesic distances (Bai and Sapiro, "A geodesic framework for fast interactive image and video segmentation", ICCV
2007; Criminisi, Sharp and Blake, "GeoS: geodesic image segmentation", ECCV 2008) are summed up to a score for each
class. A second sum adds the votes of the neighbourhood, which smooth the outline. The weights of both sums were fitted:
docs/decisions/completion.md.

Paths are searched on a grid that covers the strokes, at most `SIDE` pixels wide. Probabilities, not labels, are resized
from it to the slice, so that the outline is finer than the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.case.case import UNKNOWN
from napari_dinoaugseg.errors import LabelError

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.uint16]
Box = tuple[slice, slice]

SIDE = 160
"""Pixels along the longer side of the grid, at most."""

_LEAST, _FINER = 80, 3  # of smaller boxes the grid is finer than the slice: up to this side, and by this factor at most
_MARGIN = 0.05  # around the strokes, of the longer side of their bounding box
_FINE, _COARSE = 1.0, 2.0  # grid pixels: the scales of edges
_SHORTCUT = 0.01  # cost of a step without an edge; the strongest edges cost 1
_UNLIKE = 0.05  # least cost of a step through pixels that are like the strokes
_SAMPLES = 48  # stroke pixels that represent a class
_ROUNDS = 2  # of sweeps in four directions: more changed no outline
_SMOOTH = (0.0, 0.01, 0.02, 0.04)  # of the longer side of the grid: the neighbourhoods that vote
_TOUCHING = np.ones((3, 3), bool)
_SIDES = 3  # of four, on which a stroke around another is seen; the edge of the slice may cut it
_FLOOR = 0.02  # least probability: no single vote decides
_MODEL = np.float32(2)  # weight of the logarithm of a model's probability
_SURE = 0.9  # a model's probability of the pixels that are strokes when its mask is redrawn
_FAR = np.float32(1e6)
_SCRIBBLED = 0.5  # of the pixels of a slice: with fewer labelled ones its labels are strokes

# Weights of the logarithms of the four distances (length, fine edges, coarse edges, unlikeness), and of what
# `_outline` gives.
_FIRST = np.array([-1.15, -1.94, -1.18, -1.12, -1.81, 1.19, 1.03], np.float32)
# The same once more, then the votes of the neighbourhoods.
_SECOND = np.array([1.00, -0.67, -0.14, -0.21, -3.05, -1.80, 1.30, 0.44, -0.37, -0.06, 2.29], np.float32)


def complete(
    image: NDArray[Any],
    strokes: NDArray[np.integer],
    probability: Mapping[int, NDArray[np.floating]] | None = None,
) -> Labels:
    """Propose a label for every pixel of a slice.

    Strokes keep their class, and only classes with strokes are proposed. Strokes of one class alone propose nothing,
    for nothing says where the class ends: the strokes come back as they are. A closed stroke around those of another
    class is taken for an outline drawn outside: the border is expected closer to it than to the strokes inside.

    Args:
        image: (H, W) from 0 to 1, or (H, W, 3) uint8.
        strokes: (H, W) class numbers, 0 = background, `UNKNOWN` = no stroke.
        probability: of a model, (H, W) from 0 to 1 by class number, 0 = background. The proposal agrees with it where
            the strokes do not contradict it. A class without a map is as probable as what the others leave.

    Returns:
        (H, W) class numbers; without `UNKNOWN` if there are strokes of at least two classes.

    Raises:
        LabelError: strokes or a map do not have the size of the image, or a stroke has a number that no class can have.
    """
    shape = image.shape[:2]
    _check(image, strokes, probability)
    marks = strokes.astype(np.uint16)
    numbers = np.unique(marks[marks != UNKNOWN])
    if len(numbers) < 2:
        return marks
    whole = (slice(0, shape[0]), slice(0, shape[1]))
    box = whole if probability is not None else _box(marks)
    found = _complete_box(image, marks, numbers, box, probability)
    if _leaves(found, box, shape):
        box = whole
        found = _complete_box(image, marks, numbers, box, probability)
    labels = np.zeros(shape, np.uint16)
    labels[box] = found
    labels[marks != UNKNOWN] = marks[marks != UNKNOWN]
    return labels if probability is not None else _connected(labels, marks)


def sure_pixels(probability: Floats) -> Labels:
    """The pixels of which a model is sure, as strokes: (H, W) class indices, and `UNKNOWN` elsewhere.

    Args:
        probability: (K, H, W) of each class.
    """
    return np.where(probability.max(axis=0) > _SURE, probability.argmax(axis=0), UNKNOWN).astype(np.uint16)


def redraw(image: Callable[[], NDArray[Any]], probability: Floats) -> Floats:
    """A model's probabilities as they are where it is sure, and elsewhere those of completion with it.

    Nothing is redrawn, and the same array comes back, where the mask holds no class but one, or a class of which no
    pixel is sure: completion would drop it.

    Args:
        image: gives the slice as for :func:`complete`; called only where something is redrawn.
        probability: (K, H, W) of each class, 0 = background.

    Returns:
        (K, H, W).
    """
    marks = sure_pixels(probability)
    numbers = np.unique(probability.argmax(axis=0)).astype(np.uint16)
    if len(numbers) < 2 or not np.isin(numbers, marks).all():
        return probability
    whole = (slice(0, marks.shape[0]), slice(0, marks.shape[1]))
    redrawn = np.zeros_like(probability)
    redrawn[numbers] = _probabilities(image(), marks, numbers, whole, dict(enumerate(probability)))
    return np.where(marks != UNKNOWN, probability, redrawn)


def complete_scribbles(labels: Labels, image: Callable[[], NDArray[Any]]) -> Labels:
    """Labels to learn from: the strokes of a scribbled slice are completed, other slices stay as they are.

    A decoder that learns from strokes alone fills all that no stroke forbids. A slice is scribbled if less than half of
    it is labelled, background and a class among it; where more is labelled, the rest was left open on purpose.

    Args:
        labels: (H, W) class numbers, 0 = background, `UNKNOWN` = not labelled.
        image: gives the slice as for :func:`complete`.

    Returns:
        (H, W) class numbers, `UNKNOWN` where nothing is known.
    """
    known = labels[labels != UNKNOWN]
    says_where_classes_end = known.any() and not known.all()  # a class, and background
    if known.size >= _SCRIBBLED * labels.size or not says_where_classes_end:
        return labels
    return complete(image(), labels)


def _check(
    image: NDArray[Any], strokes: NDArray[np.integer], probability: Mapping[int, NDArray[np.floating]] | None
) -> None:
    if strokes.shape != image.shape[:2]:
        msg = f"The strokes have {_size(strokes)} pixels and the slice {_size(image)}. Paint on the slice itself."
        raise LabelError(msg)
    if strokes.size and not (strokes.min() >= 0 and strokes.max() <= UNKNOWN):
        msg = f"Strokes have the class numbers 0 to {UNKNOWN - 1}, and {UNKNOWN} where there is none. Paint them again."
        raise LabelError(msg)
    for number, values in (probability or {}).items():
        if values.shape != image.shape[:2]:
            msg = (
                f"The probability of class {number} has {_size(values)} pixels and the slice {_size(image)}. "
                "Resize it to the slice."
            )
            raise LabelError(msg)


def _size(array: NDArray[Any]) -> str:
    return " × ".join(str(side) for side in array.shape[:2])


def _box(marks: Labels) -> Box:
    """The bounding box of the strokes with a margin."""
    rows, columns = np.nonzero(marks != UNKNOWN)
    ends = [(int(places.min()), int(places.max()) + 1) for places in (rows, columns)]
    margin = max(2, int(_MARGIN * max(stop - start for start, stop in ends)))
    (top, bottom), (left, right) = ends
    height, width = marks.shape
    return (
        slice(max(0, top - margin), min(height, bottom + margin)),
        slice(max(0, left - margin), min(width, right + margin)),
    )


def _leaves(found: Labels, box: Box, shape: tuple[int, ...]) -> bool:
    """Whether anything but background reaches the border of a box within a slice of this shape."""
    rows, columns = box
    return bool(
        (rows.start > 0 and found[0].any())
        or (rows.stop < shape[0] and found[-1].any())
        or (columns.start > 0 and found[:, 0].any())
        or (columns.stop < shape[1] and found[:, -1].any())
    )


def _complete_box(
    image: NDArray[Any],
    marks: Labels,
    numbers: Labels,
    box: Box,
    probability: Mapping[int, NDArray[np.floating]] | None,
) -> Labels:
    """Labels of a box."""
    found: Labels = numbers[_probabilities(image, marks, numbers, box, probability).argmax(axis=0)]
    return found


def _probabilities(
    image: NDArray[Any],
    marks: Labels,
    numbers: Labels,
    box: Box,
    probability: Mapping[int, NDArray[np.floating]] | None,
) -> Floats:
    """Probability of each class with strokes in a box, (K, rows, columns)."""
    grid = grid_of(image[box], marks[box], numbers)
    model = None if probability is None else _on_grid(probability, numbers, box, grid)
    measures = _measures(grid, model)
    vote = np.float32(0) if model is None else _MODEL * _trust(model, grid) * np.log(model + np.float32(_FLOOR))
    first = _softmax(_weighted(measures, _FIRST) + vote)
    second = _softmax(_weighted(np.concatenate([measures, _votes(first, grid)]), _SECOND) + vote)
    return resized(second, marks[box].shape)


@dataclass(frozen=True, eq=False)
class Grid:
    """What paths are searched on.

    Attributes:
        channels: (C, h, w) of the image, 0 to 1.
        seeds: (K, h, w) where each class has strokes; every class has some.
    """

    channels: Floats
    seeds: Mask

    @property
    def side(self) -> int:
        """Pixels along the longer side."""
        return max(int(side) for side in self.seeds.shape[1:])


def grid_of(image: NDArray[Any], marks: Labels, numbers: Labels) -> Grid:
    """The grid of a box; of several classes in one of its pixels the one with most stroke pixels counts."""
    unit = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image.astype(np.float32)
    unit = np.nan_to_num(unit)
    channels = unit[np.newaxis] if unit.ndim == 2 else np.moveaxis(unit, 2, 0)
    height, width = marks.shape
    longest = max(height, width)
    scale = SIDE / longest if longest > SIDE else min(_FINER, max(1.0, _LEAST / longest))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    if scale > 1:
        sources = ((2 * np.arange(n) + 1) * before // (2 * n) for n, before in zip(shape, marks.shape, strict=True))
        return Grid(resized(channels, shape), marks[np.ix_(*sources)] == numbers[:, np.newaxis, np.newaxis])
    rows, columns = np.nonzero(marks != UNKNOWN)
    places = ((2 * rows + 1) * shape[0] // (2 * height), (2 * columns + 1) * shape[1] // (2 * width))
    counts = np.zeros((len(numbers), *shape), np.int64)
    np.add.at(counts, (np.searchsorted(numbers, marks[rows, columns]), *places), 1)
    seeds = (counts == counts.max(axis=0)) & (counts > 0)
    seeds &= np.cumsum(seeds, axis=0) == 1
    for of, count in zip(seeds, counts, strict=True):
        if not of.any():  # a class whose few pixels lie beside longer strokes of others shares one with them
            of[np.unravel_index(count.argmax(), shape)] = True
    return Grid(resized(channels, shape), seeds)


def resized(channels: Floats, shape: tuple[int, ...]) -> Floats:
    """Channels (C, H, W) on a grid of another size, linearly; blurred first where it is coarser."""
    if channels.shape[1:] == shape:
        return channels
    ratios = [before / after for before, after in zip(channels.shape[1:], shape, strict=True)]
    if max(ratios) > 1:
        channels = ndimage.gaussian_filter(channels, (0, *(0.4 * ratio if ratio > 1 else 0 for ratio in ratios)))
    axes = ((np.arange(n) + 0.5) * ratio - 0.5 for n, ratio in zip(shape, ratios, strict=True))
    return _interpolated(channels, *(axis.astype(np.float32) for axis in axes))


def _interpolated(channels: Floats, rows: Floats, columns: Floats) -> Floats:
    """Channels (C, H, W) at all pairs of rows and columns, bilinear."""
    for axis, places in ((1, rows), (2, columns)):
        last = channels.shape[axis] - 1
        below = np.clip(np.floor(places).astype(np.intp), 0, last)
        part = np.clip(places - below, 0, 1).reshape((-1, 1) if axis == 1 else (1, -1))
        lower, upper = channels.take(below, axis), channels.take(np.minimum(below + 1, last), axis)
        channels = lower + (upper - lower) * part
    return channels


def _measures(grid: Grid, model: Floats | None = None) -> Floats:
    """Logarithms of the four distances, and what the outlines say, (7, K, h, w).

    Args:
        grid: of the slice.
        model: its probability of each class, (K, h, w). It then decides with the colours what is like a class.
    """
    shared = [np.ones_like(grid.channels[0])]
    for scale in (_FINE, _COARSE):
        edges = _edges(grid.channels, scale)
        shared.append(_SHORTCUT + (edges / (np.percentile(edges, 95) + 1e-6)) ** 2)
    likeness = _likeness(grid)
    if model is not None:
        likeness = likeness * (model + np.float32(_FLOOR))
        likeness /= likeness.sum(axis=0)
    unlike = 1 - ndimage.gaussian_filter(likeness, (0, _FINE, _FINE)) + _UNLIKE
    costs = np.stack([*(np.broadcast_to(cost, unlike.shape) for cost in shared), unlike]).astype(np.float32)
    distances = geodesic_distances(costs, grid.seeds)
    distances += 0.01 * np.median(distances, axis=(1, 2, 3), keepdims=True) + 0.01
    measures: Floats = np.concatenate([np.log(distances), _outline(distances[0], grid.seeds)])
    return measures


def _outline(lengths: Floats, seeds: Mask) -> Floats:
    """What it says of a pixel that a class was drawn around another: the border runs close to a stroke around it.

    Args:
        lengths: (K, h, w) of the ways to the strokes of each class.
        seeds: (K, h, w) of the strokes.

    Returns:
        (3, K, h, w): 1, the logarithm of the length over that from the strokes inside, and this ratio itself; all times
        the number of classes over that of strokes, for the more strokes are drawn the less is left to guess. 0 for a
        class that encloses no other.
    """
    drawn = sum(ndimage.label(of, _TOUCHING)[1] for of in seeds)
    found = np.zeros((3, *lengths.shape), np.float32)
    for number in np.flatnonzero(_encloses(seeds)):
        inside = np.delete(seeds, number, axis=0).any(axis=0)
        parts = lengths[number] / np.median(lengths[number][inside])
        found[:, number] = np.stack([np.ones_like(parts), np.log(parts), parts]) * (len(seeds) / drawn)
    return found


def _edges(channels: Floats, scale: float) -> Floats:
    """Length of the gradient of the blurred channels, (h, w)."""
    squares = [ndimage.gaussian_gradient_magnitude(channel, scale, truncate=3) ** 2 for channel in channels]
    length: Floats = np.sqrt(np.sum(squares, axis=0))
    return length


def _likeness(grid: Grid) -> Floats:
    """Probability of each class by colour alone, (K, h, w): kernel densities of the colours under the strokes."""
    blurred = [ndimage.gaussian_filter(grid.channels, (0, scale, scale), truncate=3) for scale in (0.7, 2.0)]
    colours = np.concatenate(blurred)
    spread = np.sqrt(np.mean([colours[:, seeds].var(axis=1) for seeds in grid.seeds], axis=0))
    points = (colours.reshape(len(colours), -1) / (0.5 * spread + 0.02)[:, np.newaxis]).astype(np.float32)
    squares = (points**2).sum(axis=0)
    densities = []
    for seeds in grid.seeds:
        under = points[:, seeds.ravel()]
        under = under[:, np.lexsort(under)]  # by colour, so that the sample of a mirrored slice is the same
        chosen = np.linspace(0, under.shape[1] - 1, min(_SAMPLES, under.shape[1])).round().astype(int)
        samples = under[:, chosen]
        apart = squares - 2 * samples.T @ points + (samples**2).sum(axis=0)[:, np.newaxis]
        densities.append(np.exp(-0.5 * np.clip(apart, 0, 60)).mean(axis=0) + 1e-6)
    total = np.stack(densities).reshape(grid.seeds.shape)
    likeness: Floats = (total / total.sum(axis=0)).astype(np.float32)
    return likeness


def geodesic_distances(costs: Floats, seeds: Mask) -> Floats:
    """Cost of the cheapest path from each pixel to the strokes of each class, under several costs.

    Rows are swept down and up and columns right and left, all costs and classes at once (Weber et al., "Parallel
    algorithms for approximation of distance maps on parametric surfaces", ACM Transactions on Graphics 2008). Paths run
    through the eight neighbours; a step costs its length times the mean cost of its two pixels.

    Args:
        costs: (V, K, h, w) of a step of length 1, positive.
        seeds: (K, h, w), True where a path of the class ends.

    Returns:
        (V, K, h, w), 0 on the seeds.
    """
    n_costs, n_classes, height, width = costs.shape
    start = np.where(seeds, np.float32(0), _FAR)
    distances = np.stack([start] * n_costs).reshape(-1, height, width).swapaxes(0, 1).copy()
    by_row = np.ascontiguousarray(costs.reshape(-1, height, width).swapaxes(0, 1))
    by_column = np.ascontiguousarray(by_row.swapaxes(0, 2))
    for _ in range(_ROUNDS):
        for lines in (by_row, by_column):
            _sweep(distances, lines)
            _sweep(distances[::-1], lines[::-1])
            distances = np.ascontiguousarray(distances.swapaxes(0, 2))
    return distances.swapaxes(0, 1).reshape(n_costs, n_classes, height, width)


def _sweep(distances: Floats, costs: Floats) -> None:
    """Carry distances from each line to the next, in place; lines are (maps, pixels)."""
    straight, oblique = costs * np.float32(0.5), costs * np.float32(np.sqrt(0.5))
    way, start = np.empty_like(distances[0]), np.empty_like(distances[0])
    for line in range(1, len(distances)):
        before, here = distances[line - 1], distances[line]
        np.add(before, straight[line - 1], out=way)
        way += straight[line]
        np.minimum(here, way, out=here)
        np.add(before, oblique[line - 1], out=start)
        np.add(start[:, :-1], oblique[line][:, 1:], out=way[:, 1:])
        np.minimum(here[:, 1:], way[:, 1:], out=here[:, 1:])
        np.add(start[:, 1:], oblique[line][:, :-1], out=way[:, :-1])
        np.minimum(here[:, :-1], way[:, :-1], out=here[:, :-1])


def _encloses(seeds: Mask) -> Mask:
    """For each class whether its strokes run around those of another class."""
    enclosing = np.zeros(len(seeds), bool)
    for number, of in enumerate(seeds):
        before = [np.logical_or.accumulate(of, axis=axis) for axis in (0, 1)]
        after = [np.flip(np.logical_or.accumulate(np.flip(of, axis), axis=axis), axis) for axis in (0, 1)]
        around = np.sum([*before, *after], axis=0) >= _SIDES
        others = np.delete(seeds, number, axis=0)
        enclosing[number] = any(around[other].mean() > 0.5 for other in others)
    return enclosing


def _votes(first: Floats, grid: Grid) -> Floats:
    """Logarithms of the probabilities in neighbourhoods of several sizes, (votes, K, h, w)."""
    settled = np.where(grid.seeds.any(axis=0), grid.seeds, first).astype(np.float32)
    sizes = [share * grid.side for share in _SMOOTH]
    blurred = [ndimage.gaussian_filter(settled, (0, size, size), truncate=2.5) if size else settled for size in sizes]
    votes: Floats = np.log(np.stack(blurred) + np.float32(_FLOOR))
    return votes


def _on_grid(probability: Mapping[int, NDArray[np.floating]], numbers: Labels, box: Box, grid: Grid) -> Floats:
    """A model's probability of each class on the grid, (K, h, w)."""
    known = {int(number): values[box].astype(np.float32) for number, values in probability.items()}
    rest = np.clip(1 - sum(known.values()), 0, 1).astype(np.float32)
    return resized(np.stack([known.get(int(number), rest) for number in numbers]), grid.seeds.shape[1:])


def _trust(model: Floats, grid: Grid) -> Floats:
    """Probability of the nearest stroke's class under that stroke, (h, w): a model has no vote where it errs."""
    strokes = grid.seeds.any(axis=0)
    nearest = ndimage.distance_transform_edt(~strokes, return_distances=False, return_indices=True)
    trust: Floats = (model * grid.seeds).sum(axis=0)[tuple(nearest)]
    return trust


def _weighted(measures: Floats, weights: Floats) -> Floats:
    scores: Floats = np.tensordot(weights, measures, axes=1)
    return scores


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=0))
    probabilities: Floats = powers / powers.sum(axis=0)
    return probabilities


def _connected(labels: Labels, marks: Labels) -> Labels:
    """Labels in which every component holds a stroke of its class; others take the class of the nearest that does."""
    orphans = np.zeros(labels.shape, bool)
    for number in np.unique(labels):
        parts, count = ndimage.label(labels == number)
        held = np.zeros(count + 1, bool)
        held[parts[marks == number]] = True
        orphans |= (parts > 0) & ~held[parts]
    if not orphans.any():
        return labels
    nearest = ndimage.distance_transform_edt(orphans, return_distances=False, return_indices=True)
    connected: Labels = labels[tuple(nearest)]
    return connected
