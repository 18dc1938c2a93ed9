"""Smooth surfaces of the classes of a session, for a view in three dimensions, and their volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_dinoaugseg.session.labels import EVERYTHING, LabelClass, Status
from napari_dinoaugseg.session.pixel_counts import volumes_ml
from napari_dinoaugseg.session.session import Session

_SIGMA = 1.0  # voxels on every axis
_LEVEL = 0.5
_REACH = 4  # voxels around a class beyond which its smoothed mask is 0
_NEAR = 3  # voxels by which a smooth surface may differ from its voxels, at a ledge of one slice, say
_SLAB = 16  # slices that are turned into triangles at once
_EXACT = 1024  # steps in a voxel: vertices that differ by less are the same
_COARSEST = 4  # voxels: the largest cell in which vertices become one
_TRIANGLES = 100_000  # of all classes together: software OpenGL draws 300,000 in half a second
_AT_LEAST = 20_000  # triangles that each of many classes may have


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
    boxes = {number: box for number, box in enumerate(ndimage.find_objects(volume), start=1) if box is not None}
    limit = max(_TRIANGLES // max(len(boxes), 1), _AT_LEAST)
    for entry in book.classes:
        box = boxes.get(entry.number)
        if box is None:
            continue
        inside = volume[box] == entry.number
        vertices, normals, faces = simplified(*surface_of(inside, steps), steps, limit)
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
    # Neighbouring slabs share the vertices between them.
    _, once, shared = np.unique(_numbers_of(np.rint(vertices * _EXACT)), return_index=True, return_inverse=True)
    vertices, faces = vertices[once], shared[faces]
    return vertices - _REACH, _normals(field, vertices, steps), faces


def simplified(
    vertices: NDArray[np.float32],
    normals: NDArray[np.float32],
    faces: NDArray[np.integer],
    steps: tuple[float, float, float],
    limit: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.integer]]:
    """A surface of fewer triangles: vertices in one cell of a grid become one, their mean.

    The cells are cubes, by distance rather than by voxel. Vertices of two pieces, or of the two sides of a thin sheet,
    never become one. Those whose cells would lose all triangles, as in a single voxel or a thin vessel, stay as they
    are: nothing labelled becomes invisible.

    Args:
        vertices: (V, 3), in voxels.
        normals: (V, 3), of length 1.
        faces: (F, 3), the vertices of each triangle.
        steps: the size of a voxel along each axis.
        limit: triangles; a surface with no more is returned unchanged. Cells of at most ``_COARSEST`` voxels may
            leave more.

    Returns:
        Vertices, normals and faces.
    """
    if len(faces) <= limit:
        return vertices, normals, faces
    # About one vertex remains of those on a square of as many voxels as the side is long.
    side = min(np.sqrt(len(faces) / limit), _COARSEST) * min(steps)
    places = np.floor((vertices - vertices.min(axis=0)) * (np.array(steps) / side))
    steepest = np.abs(normals).argmax(axis=1)
    sides = 2 * steepest + (np.take_along_axis(normals, steepest[:, np.newaxis], axis=1)[:, 0] > 0)
    together = np.column_stack([_pieces_of(faces, len(vertices)), sides, places])
    cells = np.unique(_numbers_of(together), return_inverse=True)[1]
    remains = np.zeros(cells.max() + 1, bool)
    remains[cells[_with_area(faces, cells)]] = True
    alone = np.flatnonzero(~remains[cells])
    cells[alone] = cells.max() + 1 + np.arange(len(alone))
    cells = np.unique(cells, return_inverse=True)[1]
    sums = [
        np.stack([np.bincount(cells, one) for one in vectors.T], axis=1).astype(np.float32)
        for vectors in (vertices, normals)
    ]
    means: NDArray[np.float32] = sums[0] / np.bincount(cells).astype(np.float32)[:, np.newaxis]
    directions = sums[1] / np.maximum(np.linalg.norm(sums[1], axis=1, keepdims=True), 1e-12)
    return means, directions, cells[_with_area(faces, cells)]


def _numbers_of(places: NDArray[np.floating]) -> NDArray[np.int64]:
    """A number for each place, (N, axes) of whole numbers from 0: the same where the places are the same."""
    whole = places.astype(np.int64)
    numbers: NDArray[np.int64] = np.ravel_multi_index(tuple(whole.T), tuple(whole.max(axis=0) + 1))
    return numbers


def _pieces_of(faces: NDArray[np.integer], vertices: int) -> NDArray[np.integer]:
    """The number of the piece of a surface that each of so many vertices belongs to, (V,)."""
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_array((np.ones(len(edges), bool), tuple(edges.T)), shape=(vertices, vertices))
    numbers: NDArray[np.integer] = connected_components(graph, directed=False)[1]
    return numbers


def _with_area(faces: NDArray[np.integer], cells: NDArray[np.integer]) -> NDArray[np.integer]:
    """The triangles whose corners lie in three cells."""
    first, second, third = cells[faces].T
    kept: NDArray[np.integer] = faces[(first != second) & (second != third) & (third != first)]
    return kept


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
