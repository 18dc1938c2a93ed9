"""The hand of a simulated person who scribbles and lets the rest of a slice be completed.

The person sees where the structures are. A structure is a connected component of a class that makes up at least 5 % of
the class on the slice. The brush is napari's round one, with a diameter of 2 % of the slice's shorter side (at least
one pixel) or less where that does not fit, and never touches a pixel of another class. The strokes are:

1. One inside each structure, the largest first: the line through its middle between the two points that are farthest
   apart, as far as it is at least 40 % as deep as at its deepest; where a structure has one hole of at least 5 % of its
   area, as the myocardium has, a closed line around the hole, midway between both borders.
2. One loop around what is near to each other: at a distance that wavers slowly, between 5 % and 15 % of the diameter
   of a disc with the structure's area (at least two pixels). It cuts corners at that scale. What leaves the slice is
   lost.
3. Then the person looks at what was completed and mends the largest wrong region of one true class, by a stroke along
   its medial axis. Regions of a pixel's width are left alone unless there are no others.

`scribble` goes on like this until the slice is right as `benchmarks.person_brush` defines it. As soon as a stroke has
left more wrong pixels than a stroke of the brush would have, the person takes the proposal and goes on with the brush.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric, route_through_array

from benchmarks.person_brush import (
    TOUCHING,
    Correction,
    brush_once,
    correct,
    longest_path,
    medial_axis,
    room_for,
    sweep,
    wrong_classes,
)
from napari_dinoaugseg.case.case import UNKNOWN
from napari_dinoaugseg.learning.completion import complete

Mask = NDArray[np.bool_]
Labels = NDArray[np.integer]

DISTANCE = 0.1
"""Of the loop from the structure, in diameters of a disc of the same area; it wavers by half of that."""

_PART = 0.05  # of the class on the slice: smaller components are no structures
_HOLE = 0.05  # of the structure: smaller holes are not gone around
_DEEP = 0.4  # of the largest depth: where the line inside ends
_NEAREST = 2  # pixels


@dataclass(frozen=True, eq=False)
class Stroke:
    """One press to release.

    Attributes:
        number: the class, 0 = background.
        mask: (H, W) pixels under the brush.
    """

    number: int
    mask: Mask


def drawn(strokes: list[Stroke], shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Strokes as a map (H, W) of class numbers, `UNKNOWN` elsewhere; later ones lie on top."""
    labels = np.full(shape, UNKNOWN, np.uint16)
    for stroke in strokes:
        labels[stroke.mask] = stroke.number
    return labels


def structures(truth: Labels) -> list[tuple[int, Mask]]:
    """Class number and mask (H, W) of each structure of a slice, the largest first."""
    found = []
    for number in np.unique(truth[truth > 0]).tolist():
        parts, _ = ndimage.label(truth == number, TOUCHING)
        sizes = np.bincount(parts.ravel())[1:]
        found += [(number, parts == 1 + i) for i in np.flatnonzero(sizes >= _PART * sizes.sum())]
    return sorted(found, key=lambda structure: -int(np.count_nonzero(structure[1])))


def first_strokes(truth: Labels, seed: int = 0, distance: float = DISTANCE) -> list[Stroke]:
    """The strokes inside all structures of a slice (H, W), and the loops around them."""
    size = _brush(truth)
    inside = [
        Stroke(number, _swept(_middle(mask), size, room_for(truth == number))) for number, mask in structures(truth)
    ]
    return inside + [Stroke(0, mask) for mask in _loops(truth, size, distance, np.random.default_rng(seed))]


def correction(found: Labels, truth: Labels) -> Stroke | None:
    """The stroke that mends the largest wrong region of a slice, (H, W) both; None if there is none."""
    wrong = found != truth
    if not wrong.any():
        return None
    broad = ndimage.binary_opening(wrong, TOUCHING)
    wrong = broad if broad.any() else wrong
    best, chosen, region = 0, 0, wrong
    for number in np.unique(truth[wrong]).tolist():
        parts, _ = ndimage.label(wrong & (truth == number), TOUCHING)
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max() > best:
            best, chosen, region = int(sizes.max()), number, parts == 1 + int(sizes.argmax())
    axis = medial_axis(region)
    path = longest_path(axis if axis.any() else region)
    return Stroke(chosen, _swept(path, _brush(truth), room_for(truth == chosen)))


def scribble(image: NDArray[Any], truth: Labels, seed: int = 0) -> Correction:
    """Label a slice from nothing, by strokes that are completed and then by the brush.

    Args:
        image: (H, W) from 0 to 1, or (H, W, 3) uint8.
        truth: (H, W) class numbers.
        seed: of the loops.
    """
    strokes = first_strokes(truth, seed)
    found = complete(image, drawn(strokes, truth.shape))
    while wrong_classes(found, truth):
        mended = correction(found, truth)
        if mended is None:
            break
        strokes.append(mended)
        brushed = brush_once(found, truth)
        found = complete(image, drawn(strokes, truth.shape))
        if np.count_nonzero(found != truth) >= np.count_nonzero(brushed != truth):
            break
    rest = correct(found, truth)
    return Correction(rest.labels, len(strokes) + rest.strokes)


def _brush(truth: Labels) -> int:
    return round(0.01 * min(truth.shape))


def _swept(path: Mask, size: int, room: NDArray[np.int64]) -> Mask:
    """What a brush paints on the part of a path at which it fits; a smaller one where it fits nowhere."""
    size = min(size, int(room[path].max()))
    return sweep(path & (room >= size), size)


def _middle(mask: Mask) -> Mask:
    """The line through the middle of a structure, or around its only hole."""
    filled = ndimage.binary_fill_holes(mask)
    parts, _ = ndimage.label(filled & ~mask)
    sizes = np.bincount(parts.ravel())
    large = 1 + np.flatnonzero(sizes[1:] >= _HOLE * np.count_nonzero(mask))
    solid = filled & ~np.isin(parts, large)
    if large.size == 1:
        ring = _without_ends(medial_axis(solid)) & mask
        if ring.any():
            return ring
    return _longest_way(solid) & mask


def _without_ends(axis: Mask) -> Mask:
    """What is left of an axis when its branches are cut back from their free ends: its loops."""
    while True:
        ends = axis & (ndimage.convolve(axis.astype(int), TOUCHING.astype(int), mode="constant") <= 2)
        if not ends.any():
            return axis
        axis = axis & ~ends


def _longest_way(solid: Mask) -> Mask:
    depth = ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1]
    parts, _ = ndimage.label(depth >= _DEEP * depth.max(), TOUCHING)
    core = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    ends = [np.argwhere(core)[0]]
    for _ in range(2):
        distances, _ = MCP_Geometric(np.where(core, 1.0, -1)).find_costs([ends[-1]])
        ends.append(np.array(np.unravel_index(np.where(core, distances, -1).argmax(), core.shape)))
    costs = np.where(core, (depth.max() / np.maximum(depth, 0.5)) ** 2, -1)
    way, _ = route_through_array(costs, ends[-2], ends[-1], fully_connected=True, geometric=True)
    path = np.zeros_like(solid)
    path[tuple(np.transpose(way))] = True
    return path


def _loops(truth: Labels, size: int, distance: float, random: np.random.Generator) -> list[Mask]:
    """A loop around each group of structures, the largest group first."""
    margin = int(4 * distance * np.sqrt(np.count_nonzero(truth))) + 2 * size + 8
    anything = np.pad(truth > 0, margin)
    parts, _ = ndimage.label(anything, TOUCHING)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    parts[areas[parts] < 0.02 * areas.sum()] = 0  # specks are not gone around
    away, nearest = ndimage.distance_transform_edt(parts == 0, return_indices=True)
    diameters = 2 * np.sqrt(areas / np.pi)
    gaps = np.maximum(distance * diameters[parts[tuple(nearest)]], _NEAREST)
    scale = float(np.median(diameters[np.unique(parts[parts > 0])]))
    waver = ndimage.gaussian_filter(random.standard_normal(parts.shape), max(scale / 3, 2))
    waver = np.clip(waver / (0.6 * np.abs(waver).max()), -1, 1)
    reach = ndimage.binary_fill_holes(away <= gaps * (1 + waver / 2) + size + 0.5)
    smooth = ndimage.gaussian_filter(reach.astype(float), max(distance * scale, _NEAREST)) > 0.5
    groups, count = ndimage.label(ndimage.binary_fill_holes(smooth | (away <= size + 1.5)), TOUCHING)
    found = []
    for group in range(1, count + 1):
        within = groups == group
        content = int(np.count_nonzero(within & (parts > 0)))
        loop = sweep(within & ~ndimage.binary_erosion(within), size) & ~anything
        loop = loop[margin:-margin, margin:-margin]
        if content and loop.any():
            found.append((content, loop))
    return [loop for _, loop in sorted(found, key=lambda pair: -pair[0])]
