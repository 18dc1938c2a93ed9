"""The voxel grid of a volume, its display order, and the exact way back.

Display order is the stored array reoriented to the closest LPS axes and transposed to (z, y, x): the first axis runs
from feet to head, the second from front to back, the third from the patient's right to the left. Reordering is a
permutation and flips, never a resampling, so it has an exact inverse whatever the obliquity of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import LabelError

# Two grids are one when no voxel centre lies further apart than this share of a voxel. Headers store float32, and
# converters round positions: real pairs of image and mask differ by some 1e-4 of a voxel.
SAME_GRID = 1e-2


class Plane(StrEnum):
    """The direction in which a volume is cut into slices."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    NATIVE = "native"


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: voxels along the three stored axes (i, j, k).
        affine: (4, 4) float64, from stored indices to RAS coordinates, as nibabel has it.
        known: False when the file does not say where the voxels lie (a TIFF stack); the affine then stands in.
        mm_per_unit: millimetres in one unit of the affine; 1 except for NIfTI files in metres or micrometres.
        sized: True when the file says how large a voxel is though `known` is False (a radiograph).
        offsets: distance of each slice of the third stored axis from the first, in mm, where these are not evenly
            spaced: they differ, or all are 0 for frames at one place (a loop) or at unknown distances. The third column
            of the affine then holds a mean step, or 1 mm. None for an evenly spaced volume.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    known: bool = True
    mm_per_unit: float = 1.0
    sized: bool = False
    offsets: tuple[float, ...] | None = None

    @property
    def has_size(self) -> bool:
        """Whether the size of a pixel in the planes of the first two stored axes is known."""
        return self.known or self.sized

    @property
    def is_uneven(self) -> bool:
        """Whether the slices lie at known places that are not evenly spaced, which no affine can describe."""
        return self.offsets is not None and any(self.offsets)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the three stored axes in mm."""
        sizes = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)) * self.mm_per_unit
        return float(sizes[0]), float(sizes[1]), float(sizes[2])

    @property
    def axcodes(self) -> str:
        """The closest anatomical direction of each stored axis, such as `RAS`."""
        return "".join(str(code) for code in nib.orientations.aff2axcodes(self.affine))

    @property
    def problem(self) -> str | None:
        """Why this grid cannot be used, or None."""
        if not np.isfinite(self.affine).all():
            return "its affine holds numbers that are not finite"
        sizes = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        if (sizes <= 0).any() or abs(np.linalg.det(self.affine[:3, :3] / np.where(sizes > 0, sizes, 1))) < 1e-4:
            return "its affine is singular (a voxel size is zero or two axes coincide)"
        return None


@dataclass(frozen=True)
class Layout:
    """A reordering of a stored array: a permutation of its three axes, then flips.

    Attributes:
        axes: for each axis of the reordered array, the stored axis it comes from.
        flips: for each axis of the reordered array, whether it runs against the stored axis.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @staticmethod
    def display(grid: Grid) -> Layout:
        """Return the order in which volumes are shown: (z, y, x) in LPS."""
        orientation = nib.orientations.io_orientation(grid.affine)
        # orientation[n] = (world axis closest to stored axis n, its sign towards RAS). L and P run against R and A.
        stored = {int(world): n for n, (world, _) in enumerate(orientation)}
        towards_lps = {0: -1.0, 1: -1.0, 2: 1.0}
        axes = (stored[2], stored[1], stored[0])
        flips = tuple(bool(orientation[n][1] != towards_lps[int(orientation[n][0])]) for n in axes)
        return Layout(axes, (flips[0], flips[1], flips[2]))

    @staticmethod
    def native() -> Layout:
        """Return the order of plane=native: slice k holds row j and column i of the stored array, without flips."""
        return Layout((2, 1, 0), (False, False, False))

    def sliced(self, plane: Plane) -> Layout:
        """Return this layout with the axis across the slices of `plane` in front."""
        first = {Plane.AXIAL: (0, 1, 2), Plane.NATIVE: (0, 1, 2), Plane.CORONAL: (1, 0, 2), Plane.SAGITTAL: (2, 0, 1)}
        a, b, c = first[plane]
        return Layout(
            (self.axes[a], self.axes[b], self.axes[c]),
            (self.flips[a], self.flips[b], self.flips[c]),
        )

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of `array` (i, j, k[, channel]) in this layout."""
        rest = tuple(range(3, array.ndim))
        steps = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)
        return array.transpose(self.axes + rest)[steps]

    def invert(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a reordered `array` in stored order: the exact inverse of `apply`."""
        rest = tuple(range(3, array.ndim))
        steps = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)
        back = tuple(int(n) for n in np.argsort(self.axes))
        return array[steps].transpose(back + rest)

    def permuted(self, values: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return one value per stored axis (a spacing) in the order of this layout."""
        return values[self.axes[0]], values[self.axes[1]], values[self.axes[2]]


def finest_plane(grid: Grid) -> Plane:
    """Return the plane whose pixels are smallest, so that the slices are the images that were acquired.

    Ties go to axial, then coronal. A volume that is one slice thick is cut along that slice, and one whose slices are
    not evenly spaced along those.
    """
    layout = Layout.display(grid)
    if grid.offsets is not None:
        planes = (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)
        return next(plane for plane in planes if layout.sliced(plane).axes[0] == 2)
    best = Plane.AXIAL
    best_cost: tuple[bool, float] | None = None
    for plane in (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL):
        order = layout.sliced(plane)
        _, rows, columns = order.permuted((float(grid.shape[0]), float(grid.shape[1]), float(grid.shape[2])))
        _, row_mm, column_mm = order.permuted(grid.spacing)
        cost = (rows == 1 or columns == 1, row_mm * column_mm)
        if best_cost is None or cost[0] < best_cost[0] or (cost[0] == best_cost[0] and cost[1] < 0.99 * best_cost[1]):
            best, best_cost = plane, cost
    return best


def align(mask: NDArray[Any], grid: Grid, to_grid: Grid) -> NDArray[Any]:
    """Reorder a mask so that it lies on `to_grid` voxel for voxel.

    Args:
        mask: (i, j, k) in the stored order of `grid`.
        grid: the grid of the mask.
        to_grid: the grid to reach; it must be the same one up to flips and a permutation of its axes.

    Returns:
        A view of `mask` in the stored order of `to_grid`.

    Raises:
        LabelError: the grids differ in shape, spacing, direction or position.
    """
    if not (grid.known and to_grid.known):
        if grid.shape != to_grid.shape:
            msg = f"the mask has {_times(grid.shape)} voxels, the image {_times(to_grid.shape)}"
            raise LabelError(msg)
        return mask
    # Takes the indices of the image to the indices of the mask: a signed permutation when the grids are one.
    between = np.linalg.inv(grid.affine) @ to_grid.affine
    signs = np.rint(between[:3, :3]).astype(int)
    if not (np.abs(signs).sum(axis=0) == 1).all() or not (np.abs(signs).sum(axis=1) == 1).all():
        msg = "the mask and the image have different affines (voxel size or direction)"
        raise LabelError(msg)
    axes = tuple(int(np.abs(signs[:, n]).argmax()) for n in range(3))  # for each image axis, the axis of the mask
    layout = Layout(
        (axes[0], axes[1], axes[2]),
        (bool(signs[axes[0], 0] < 0), bool(signs[axes[1], 1] < 0), bool(signs[axes[2], 2] < 0)),
    )
    reordered = layout.apply(mask)
    if reordered.shape[:3] != to_grid.shape:
        msg = f"the mask has {_times(reordered.shape[:3])} voxels, the image {_times(to_grid.shape)}"
        raise LabelError(msg)
    _require_same_place(grid, to_grid, between, layout)
    return reordered


def _require_same_place(grid: Grid, to_grid: Grid, between: NDArray[np.float64], layout: Layout) -> None:
    """Raise `LabelError` unless the corners of both grids fall together."""
    last = np.array(to_grid.shape) - 1
    corners = np.array(np.meshgrid(*[(0, n) for n in last], indexing="ij")).reshape(3, -1)
    found = between[:3, :3] @ corners + between[:3, 3:]
    expected = np.empty_like(found)
    for n, (axis, flip) in enumerate(zip(layout.axes, layout.flips, strict=True)):
        expected[axis] = (last[n] - corners[n]) if flip else corners[n]
    worst = float(np.abs(found - expected).max())
    if worst > SAME_GRID:
        shift = np.abs(grid.affine[:3, :3] @ (found - expected)).max() * grid.mm_per_unit
        msg = f"the mask and the image have different affines: they lie up to {shift:.3g} mm apart"
        raise LabelError(msg)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
