"""Smooth surfaces of the classes of a session, for a view in three dimensions, and their volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.session.labels import EVERYTHING, LabelClass, Status
from napari_dinoaugseg.session.pixel_counts import volumes_ml
from napari_dinoaugseg.session.session import Session

_SIGMA = 1.0  # voxels on every axis
_LEVEL = 0.5
_REACH = 4  # voxels around a class beyond which its smoothed mask is 0
_NEAR = 3  # voxels by which a smooth surface may differ from its voxels, at a ledge of one slice, say
_SLAB = 16  # slices that are turned into triangles at once


@dataclass(frozen=True, eq=False)
class ClassSurface:
    """The surface of one class.

    Attributes:
        entry: the class.
        vertices: (V, 3) float32, in voxels along (slice, row, column) of the case; voxel centres are integers.
        normals: (V, 3) float32, of length 1 in millimetres (in voxels where the voxel size is unknown), outwards.
        faces: (F, 3) integers, the vertices of each triangle.
        voxels: the number of labelled voxels.
        volume_ml: their volume in millilitres, not that within the smoothed surface; None if the voxel size is unknown.
    """

    entry: LabelClass
    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    faces: NDArray[np.integer]
    voxels: int
    volume_ml: float | None


def class_surfaces(session: Session, include: Iterable[Status] = EVERYTHING) -> Iterator[ClassSurface]:
    """Yield the surface of each class that has labels, in the order of the classes.

    Args:
        session: of a volume.
        include: the layers whose labels count, as for the export.
    """
    book, case, wanted = session.labels, session.case, tuple(include)
    volume = np.zeros((case.n_slices, *case.slice_shape(0)), np.uint16)
    for index in range(case.n_slices):
        volume[index] = book.result(index, wanted)
    spacing, distance = case.slice_spacing(0), case.slice_distance
    steps = (distance, *spacing) if spacing is not None and distance is not None else (1.0, 1.0, 1.0)
    boxes = ndimage.find_objects(volume)
    for entry in book.classes:
        box = boxes[entry.number - 1] if entry.number <= len(boxes) else None
        if box is None:
            continue
        inside = volume[box] == entry.number
        vertices, normals, faces = surface_of(inside, steps)
        vertices += np.array([part.start for part in box], np.float32)
        voxels = int(np.count_nonzero(inside))
        millilitres = volumes_ml(case, {entry.number: voxels})
        volume_ml = millilitres[entry.number] if millilitres else None
        yield ClassSurface(entry, vertices, normals, faces, voxels, volume_ml)


def surface_of(
    inside: NDArray[np.bool_], steps: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.integer]]:
    """The closed, smooth surface of a mask: marching cubes at half the height of its Gaussian of one voxel.

    What is too thin to survive the Gaussian (a line, a single voxel) is shown as it is: nothing labelled is invisible.

    Args:
        inside: (D, H, W), with at least one voxel.
        steps: the size of a voxel along each axis.

    Returns:
        Vertices in voxels of the mask, normals, and faces, as in :class:`ClassSurface`.
    """
    from skimage.measure import marching_cubes

    mask = np.pad(inside, _REACH)
    field = ndimage.gaussian_filter(mask.astype(np.float32), _SIGMA, radius=_REACH - 1)
    field[_lost(mask, field >= _LEVEL)] = 1.0
    parts, count = [], 0
    for first in range(0, len(field) - 1, _SLAB):  # each keeps other threads waiting
        slab = field[first : first + _SLAB + 1]
        if not slab.min() < _LEVEL < slab.max():
            continue
        vertices, faces, _, _ = marching_cubes(slab, _LEVEL)
        parts.append((vertices + np.array((first, 0, 0), np.float32), faces + count))
        count += len(vertices)
    vertices = np.concatenate([part for part, _ in parts]).astype(np.float32)
    faces = np.concatenate([part for _, part in parts])
    return vertices - _REACH, _normals(field, vertices, steps), faces


def _lost(mask: NDArray[np.bool_], kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask that a smoothed one does not show: far from it, or in a piece that it shows nothing of."""
    lost: NDArray[np.bool_] = mask & (ndimage.maximum_filter(kept.astype(np.uint8), 2 * _NEAR + 1) == 0)
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count > 1:
        is_shown = np.zeros(count + 1, bool)
        is_shown[pieces[kept]] = True
        lost |= mask & ~is_shown[pieces]
    return lost


def _normals(
    field: NDArray[np.float32], vertices: NDArray[np.float32], steps: tuple[float, float, float]
) -> NDArray[np.float32]:
    """The direction in which a field falls fastest at each vertex (V, 3), by distance rather than by voxel."""
    falls = np.empty_like(vertices)
    for axis, step in enumerate(steps):
        aside = np.zeros(3, np.float32)
        aside[axis] = 1
        before, after = (ndimage.map_coordinates(field, (vertices + way * aside).T, order=1) for way in (-1, 1))
        falls[:, axis] = (before - after) / step
    falls /= np.maximum(np.linalg.norm(falls, axis=1, keepdims=True), 1e-12)
    return falls
