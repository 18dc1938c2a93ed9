"""The voxel grid of a volume, its display order, and the exact inverse.

Display order is the stored array reoriented to the closest LPS axes and transposed to (z, y, x): the first axis runs
from feet to head, the second from front to back, the third from the patient's right to the left. Reordering is a
permutation and flips, never a resampling, so it has an exact inverse whatever the obliquity of the scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.files import times
from napari_dinoaugseg.errors import CaseError, LabelError

# Two grids are the same if no voxel centre differs by more than this share of a voxel. Headers store float32, and
# converters round positions: most pairs of image and mask differ by about 1e-4 of a voxel.
SAME_GRID = 1e-2
# Up to this share of a voxel every voxel has one unambiguous counterpart: quaternions and rounded directions add up to
# a few hundredths over a few hundred voxels. A notice reports it.
NEAR_GRID = 0.25
# The offset of a part of a grid may differ this much from a whole number of voxels; beyond it, it was resampled.
_WHOLE = 0.05

MM_PER_UNIT: dict[str, float] = {
    name: length
    for length, names in (
        (1e-6, "nm nanometer nanometre nanometers nanometres"),
        (1e-3, "um \N{MICRO SIGN}m \N{GREEK SMALL LETTER MU}m micron microns"),
        (1e-3, "micrometer micrometre micrometers micrometres"),
        (1.0, "mm millimeter millimetre millimeters millimetres"),
        (10.0, "cm centimeter centimetre centimeters centimetres"),
        (1000.0, "m meter metre meters metres"),
        (25.4, "inch inches in"),
    )
    for name in names.split()
}
"""Millimetres per unit of length, in the spellings of ImageJ, OME and NRRD in lower case."""


class Plane(StrEnum):
    """The direction in which a volume is cut into slices."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    NATIVE = "native"


_LARGEST_RATIO = 1e9
"""Of two voxel sizes; with more, which only a damaged header has, affines cannot be inverted."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Position and size of the voxels of a volume.

    Attributes:
        shape: voxels along the three stored axes (i, j, k).
        affine: (4, 4) float64, from stored indices to RAS coordinates in mm.
        known: False if the file does not give the position of the voxels (a TIFF stack); the affine is a placeholder.
        sized: True if the file gives the voxel size although `known` is False (a radiograph).
        offsets: distance of each slice of the third stored axis from the first in mm, if they are not evenly spaced;
            all 0 for frames at one position (a loop) or at unknown distances. The third column of the affine then holds
            a mean step, or 1 mm. None for an evenly spaced volume.
        oriented: False if the file does not give the directions of the axes in the patient, so that they are assumed.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    known: bool = True
    sized: bool = False
    offsets: tuple[float, ...] | None = None
    oriented: bool = True

    @property
    def has_size(self) -> bool:
        """Whether the size of a pixel in the planes of the first two stored axes is known."""
        return self.known or self.sized

    @property
    def is_uneven(self) -> bool:
        """Whether the slices lie at known, unevenly spaced positions, which no affine can describe."""
        return self.offsets is not None and any(self.offsets)

    @property
    def in_time(self) -> bool:
        """Whether the slices lie at one position or at unknown distances, like the frames of a loop (2D+t)."""
        return self.offsets is not None and not any(self.offsets)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the three stored axes in mm."""
        with np.errstate(over="ignore"):
            sizes = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(sizes[0]), float(sizes[1]), float(sizes[2])

    @property
    def axcodes(self) -> str:
        """The closest anatomical direction of each stored axis, such as `RAS`; `???` if it cannot be computed."""
        try:
            return "".join(str(code) for code in nib.orientations.aff2axcodes(self.affine))
        except np.linalg.LinAlgError:
            return "???"

    @property
    def problem(self) -> str | None:
        """Why this grid is invalid; None if it is valid."""
        if not np.isfinite(self.affine).all():
            return "its affine holds numbers that are not finite"
        sizes = np.array(self.spacing)
        if sizes.max() > _LARGEST_RATIO * sizes.min() > 0:
            return f"its voxel sizes are impossible ({times(self.spacing)} mm)"
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
        """Return the display order: (z, y, x) in LPS."""
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
        """Return this layout with the axis across the slices of `plane` first."""
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
    """Return the plane with the smallest pixels, in which the images were most likely acquired.

    Ties go to axial, then coronal. A volume of one slice is cut along that slice, and one with unevenly spaced slices
    along these.
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


def forward_in_time(grid: Grid) -> Grid:
    """Return a grid whose third axis is time, directed so that the first frame is displayed first."""
    affine = grid.affine
    if grid.problem is None:
        layout = Layout.display(grid)
        if layout.flips[layout.axes.index(2)]:
            affine = affine @ np.diag([1.0, 1.0, -1.0, 1.0])
    return replace(grid, affine=affine, offsets=(0.0,) * grid.shape[2])


@dataclass(frozen=True, eq=False)
class Placed:
    """A mask on the grid of an image.

    Attributes:
        mask: (i, j, k) in the stored order of the image; a view of the mask unless it had to be padded.
        notice: a sentence if the grids differ by more than rounding, else "".
        turned: whether axes had to be permuted or flipped.
    """

    mask: NDArray[Any]
    notice: str = ""
    turned: bool = False


def align(mask: NDArray[Any], grid: Grid, to_grid: Grid) -> NDArray[Any]:
    """Reorder a mask to `to_grid` voxel by voxel; see `place`."""
    return place(mask, grid, to_grid).mask


def place(mask: NDArray[Any], grid: Grid, to_grid: Grid) -> Placed:
    """Reorder a mask to the grid of its image, voxel by voxel and without interpolation.

    Args:
        mask: (i, j, k) in the stored order of `grid`.
        grid: the grid of the mask.
        to_grid: the target grid: the same one up to flips and a permutation of axes, and up to `NEAR_GRID` of a voxel
            at the farthest corner. A mask of another size must be offset by whole voxels, and be empty outside it.

    Raises:
        LabelError: the grids differ in spacing, direction or position, or a label lies outside the image; the message
            has no path.
    """
    if not (grid.known and to_grid.known):
        if grid.shape != to_grid.shape:
            raise LabelError(_sizes(grid.shape, to_grid.shape))
        return Placed(mask)
    for whose, its in (("mask", grid), ("image", to_grid)):
        if its.problem is not None:
            msg = f"the {whose} cannot be placed: {its.problem}"
            raise LabelError(msg)
    affine, to_affine = _comparable(grid, to_grid)
    # Maps indices of the image to indices of the mask: a signed permutation if the grids are the same.
    between = np.linalg.inv(affine) @ to_affine
    signs = np.rint(between[:3, :3]).astype(int)
    if not (np.abs(signs).sum(axis=0) == 1).all() or not (np.abs(signs).sum(axis=1) == 1).all():
        msg = (
            "the mask and the image have different affines: voxels of "
            f"{times(grid.spacing)} mm (axes to {grid.axcodes}), not {times(to_grid.spacing)} mm ({to_grid.axcodes})"
        )
        raise LabelError(msg)
    axes = tuple(int(np.abs(signs[:, n]).argmax()) for n in range(3))  # for each image axis, the axis of the mask
    flips = tuple(bool(signs[axis, n] < 0) for n, axis in enumerate(axes))
    layout = Layout((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
    turned = layout != Layout((0, 1, 2), (False, False, False))
    reordered = layout.apply(mask)
    # Maps indices of the reordered mask to those of the image: the identity if the grids are the same.
    own = np.linalg.inv(between) @ _restoring(layout, mask.shape)
    if reordered.shape == to_grid.shape:
        return Placed(reordered, _require_near(own, to_grid), turned)
    if grid.offsets is not None or to_grid.offsets is not None:  # nothing identifies the frames
        raise LabelError(_sizes(reordered.shape[:3], to_grid.shape))
    part = _as_part(reordered, own, to_grid)
    return Placed(part.mask, part.notice, turned)


def _comparable(grid: Grid, to_grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both affines without meaningless lengths: the distance between frames, the thickness of a single slice."""
    affine, to_affine = grid.affine.copy(), to_grid.affine.copy()
    if to_grid.in_time and grid.shape == to_grid.shape:
        affine[:3, 2] = to_affine[:3, 2]
    if sorted(grid.shape) == sorted(to_grid.shape):
        for matrix, shape in ((affine, grid.shape), (to_affine, to_grid.shape)):
            for n in range(3):
                if shape[n] == 1:
                    matrix[:3, n] /= np.linalg.norm(matrix[:3, n])
    return affine, to_affine


def _restoring(layout: Layout, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the matrix that maps indices of a reordered array to those of the stored array of this shape."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for n, (axis, flip) in enumerate(zip(layout.axes, layout.flips, strict=True)):
        matrix[axis, n] = -1.0 if flip else 1.0
        matrix[axis, 3] = shape[axis] - 1 if flip else 0.0
    return matrix


def _corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the homogeneous indices (4, 8) of the corner voxels."""
    ends = np.meshgrid(*[(0.0, n - 1.0) for n in shape[:3]], indexing="ij")
    return np.vstack([np.array(ends).reshape(3, -1), np.ones(8)])


def apart(grid: Grid, other: Grid) -> tuple[float, float]:
    """Return the greatest distance of corner voxels of two grids of one shape, in mm and in voxels of `grid`."""
    with np.errstate(all="ignore"):
        moved = ((other.affine - grid.affine) @ _corners(grid.shape))[:3]
        voxels = np.abs(np.linalg.inv(grid.affine[:3, :3]) @ moved).max()
        return float(np.linalg.norm(moved, axis=0).max()), float(voxels)


def _require_near(own: NDArray[np.float64], to_grid: Grid) -> str:
    """Return a notice if the corners differ by a part of a voxel; raise `LabelError` if by more than `NEAR_GRID`."""
    corners = _corners(to_grid.shape)
    voxels = (own @ corners - corners)[:3]
    share = float(np.abs(voxels).max())
    if share <= SAME_GRID:
        return ""
    moved = to_grid.affine[:3, :3] @ voxels
    worst = int(np.linalg.norm(moved, axis=0).argmax())
    distance = float(np.linalg.norm(moved[:, worst]))
    where = f"{distance:.3g} mm apart ({share:.2g} of a voxel)"
    if share > NEAR_GRID:
        corner, shift = (", ".join(f"{x:.3g}" for x in part[:3, worst]) for part in (corners, moved))
        msg = (
            f"the mask and the image have different affines: they lie up to {where}; "
            f"at the corner ({corner}) the mask is off by ({shift}) mm to the right, front and head"
        )
        raise LabelError(msg)
    return f"The labels and the image lie up to {where}: they are taken voxel by voxel."


def _as_part(mask: NDArray[Any], own: NDArray[np.float64], to_grid: Grid) -> Placed:
    """Crop or pad a mask of another size to the grid of the image, by whole voxels."""
    shape = mask.shape[:3]
    corners = _corners(shape)
    moved = (own @ corners - corners)[:3]
    centre = moved.mean(axis=1)
    offset = np.rint(centre).astype(int)
    sizes = _sizes(shape, to_grid.shape)
    off = float(np.abs(centre - offset).max())
    if off > _WHOLE or np.abs(moved - offset[:, np.newaxis]).max() > NEAR_GRID:
        msg = f"{sizes}, and it is not a part of the image by whole voxels ({off:.2g} of a voxel off)"
        raise LabelError(msg)
    first = np.maximum(offset, 0)
    last = np.minimum(offset + shape, to_grid.shape)
    there = tuple(slice(int(a), int(max(a, b))) for a, b in zip(first, last, strict=True))
    here = tuple(slice(int(a), int(max(a, b))) for a, b in zip(first - offset, last - offset, strict=True))
    outside = int(np.count_nonzero(mask)) - int(np.count_nonzero(mask[here]))
    if outside:
        noun = "voxel lies" if outside == 1 else "voxels lie"
        msg = f"{sizes}, and {outside} painted {noun} outside the image"
        raise LabelError(msg)
    placed = np.zeros(to_grid.shape, dtype=mask.dtype, order="F")
    placed[there] = mask[here]
    begin = ", ".join(str(n) for n in offset)
    notice = (
        f"The labels cover {times(shape)} voxels of a grid that begins at voxel ({begin}) of the image of "
        f"{times(to_grid.shape)}: they are put in their place, and the rest is background."
    )
    return Placed(placed, notice)


def place_by(
    mask: NDArray[Any], grids: Sequence[tuple[str, Grid]], to_grids: Sequence[tuple[str, Grid]]
) -> tuple[Placed, Grid]:
    """Place a mask on an image if either header has several readings (sform and qform differ).

    Args:
        mask: (i, j, k) in stored order.
        grids: the readings of the grid of the mask with their names, the usual one first.
        to_grids: the same for the image.

    Returns:
        The mask on the image, and the grid of the image that it fits. Readings without reordered axes take precedence,
        then those with equal corners, then the usual ones.

    Raises:
        LabelError: no readings fit; the message is that of the usual ones.
    """
    found: list[tuple[bool, bool, int]] = []
    placed: dict[int, Placed] = {}
    refusals: list[LabelError] = []
    pairs = list(itertools.product(to_grids, grids))
    for n, ((_, to_grid), (_, grid)) in enumerate(pairs):
        try:
            placed[n] = place(mask, grid, to_grid)
        except LabelError as error:
            refusals.append(error)
        else:
            found.append((placed[n].turned, bool(placed[n].notice), n))
    if not found:
        raise refusals[0]
    n = min(found)[2]
    (to_name, to_grid), (name, _) = pairs[n]
    if n == 0:
        return placed[0], to_grid
    ways = f"The labels fit the image by their {name} and its {to_name}, voxel by voxel."
    return replace(placed[n], notice=f"{placed[n].notice} {ways}".lstrip()), to_grid


def _sizes(shape: tuple[int, ...], to_shape: tuple[int, ...]) -> str:
    return f"the mask has {times(shape)} voxels, the image {times(to_shape)}"


Format = Literal["nifti", "nrrd", "dicom", "tiff", "array"]


@dataclass
class Voxels:
    """One volume as stored in its file: the result of each reader.

    Attributes:
        path: the file or the folder.
        files: every file that was read; none of them may be overwritten.
        format: the kind of file; "array" for pixels from memory.
        stored: (i, j, k) or (i, j, k, 3) in the stored type; only slices are scaled, never the whole volume.
        grid: the grid of the voxels.
        file_shape: the shape of a mask file: three axes, two for a 2-D file, or more with trailing axes.
        slope: value = stored * slope + intercept.
        intercept: see `slope`.
        modality: "CT", "MR"... if the file gives it.
        description: of a DICOM series; may be empty.
        header: the original header, for the writer of the same format.
        form: the part of the header that `grid` comes from, for messages.
        other_grids: other readings of the same header by name: programs differ if it contradicts itself.
        itk_grid: the grid in ITK and 3D Slicer; None if it is `grid`.
        itk_refuses: whether ITK cannot read the file, because its axes are not at right angles.
        of_series: the number of this volume and the number of volumes in the file; None for a single volume.
        non_finite: the number of NaN or infinite voxels that were replaced.
        notices: sentences for the user.
    """

    path: Path
    files: list[Path]
    format: Format
    stored: NDArray[Any]
    grid: Grid
    file_shape: tuple[int, ...]
    slope: float = 1.0
    intercept: float = 0.0
    modality: str | None = None
    description: str = ""
    header: Any = None
    form: str = "geometry"
    other_grids: list[tuple[str, Grid]] = field(default_factory=list)
    itk_grid: Grid | None = None
    itk_refuses: bool = False
    of_series: tuple[int, int] | None = None
    non_finite: int = 0
    notices: list[str] = field(default_factory=list)

    @property
    def grids(self) -> list[tuple[str, Grid]]:
        """All readings of the grid by name, the one in use first."""
        return [(self.form, self.grid), *self.other_grids]

    @property
    def is_colour(self) -> bool:
        """Whether a voxel is red, green and blue."""
        return self.stored.ndim == 4

    @property
    def is_scaled(self) -> bool:
        """Whether stored numbers differ from values."""
        return not (self.slope == 1.0 and self.intercept == 0.0)

    def values(self, part: NDArray[Any]) -> NDArray[Any]:
        """Return a part of the stored voxels as values: unscaled uint8 unchanged, everything else as float32."""
        if part.dtype == np.uint8 and not self.is_scaled:
            return part
        if not self.is_scaled:
            return part.astype(np.float32)
        return (part * np.float64(self.slope) + np.float64(self.intercept)).astype(np.float32)

    def exact(self) -> NDArray[Any]:
        """Return the whole volume as values in the smallest type of NIfTI that loses nothing.

        Whole numbers come in 8, 16 or 32 bits (the HU of a CT as int16); others as float32, or as float64 if the file
        holds more digits. A scale that makes fractions gives float32, as in `values`.
        """
        stored, kind = self.stored, self._exact_type()
        if kind == stored.dtype and not self.is_scaled:
            return stored
        wide = np.float64 if kind.kind == "f" else np.int64
        made = np.empty(stored.shape, dtype=kind, order="F")
        for k in range(stored.shape[2]):
            part = stored[:, :, k]
            if kind == np.float32:
                made[:, :, k] = self.values(part)
            else:
                made[:, :, k] = part.astype(wide) * wide(self.slope) + wide(self.intercept)
        return made

    def _exact_type(self) -> np.dtype[Any]:
        stored = self.stored
        if stored.dtype.kind in "biu" and float(self.slope).is_integer() and float(self.intercept).is_integer():
            ends = sorted(int(end) * int(self.slope) + int(self.intercept) for end in (stored.min(), stored.max()))
            fitting = (t for t in _WHOLE_TYPES if np.iinfo(t).min <= ends[0] and ends[1] <= np.iinfo(t).max)
            return np.dtype(next(fitting, np.float64))
        if self.is_scaled or stored.dtype.itemsize <= 4:
            return np.dtype(np.float32)
        parts = (stored[:, :, k] for k in range(stored.shape[2]))
        return np.dtype(np.float32 if all((part.astype(np.float32) == part).all() for part in parts) else np.float64)


_WHOLE_TYPES = (np.uint8, np.int16, np.uint16, np.int32, np.uint32)


def check(voxels: Voxels) -> Voxels:
    """Refuse voxels that are not an image, and replace non-finite ones.

    NaN and -inf become the lowest value of the volume, +inf the highest, with a notice. Numbers beyond the range of
    float32 count as infinite.

    Raises:
        CaseError: complex or empty data, a broken affine, or no finite voxel at all.
    """
    if voxels.stored.dtype.kind not in "biuf":
        kind = "complex numbers" if voxels.stored.dtype.kind == "c" else f"voxels of type {voxels.stored.dtype}"
        msg = f"{voxels.path}: it holds {kind}, which have no one intensity. Export the magnitude image."
        raise CaseError(msg)
    if voxels.stored.size == 0:
        msg = f"{voxels.path}: the image has no voxels (its size is {voxels.stored.shape}). Export it again."
        raise CaseError(msg)
    if voxels.grid.problem is not None:
        msg = f"{voxels.path}: {voxels.grid.problem}, so its orientation is unknown. Export it again or fix its header."
        raise CaseError(msg)
    if voxels.stored.dtype.kind == "f" or _may_overflow(voxels):
        _replace_non_finite(voxels)
    return voxels


def _may_overflow(voxels: Voxels) -> bool:
    """Return whether scaling can exceed the range of float32 for an integer type."""
    if not voxels.is_scaled or voxels.stored.dtype.kind == "b":
        return False
    limits = np.iinfo(voxels.stored.dtype)
    return max(-limits.min, limits.max) * abs(voxels.slope) + abs(voxels.intercept) > float(np.finfo(np.float32).max)


def _replace_non_finite(voxels: Voxels) -> None:
    stored = voxels.stored
    bad, low, high = 0, np.inf, -np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(stored.shape[2]):
            part = voxels.values(stored[:, :, k])
            finite = np.isfinite(part)
            count = int(finite.sum())
            bad += part.size - count
            if count:
                numbers = part if count == part.size else part[finite]
                low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
    if not bad:
        return
    if bad == stored.size:
        msg = f"{voxels.path}: no voxel holds a finite number (all are NaN or infinite). Export the image again."
        raise CaseError(msg)
    if not stored.flags.writeable:
        stored = stored.copy(order="K")
    # Back from values to stored numbers, for a slope of either sign.
    low, high = ((value - voxels.intercept) / voxels.slope for value in (low, high))
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(stored.shape[2]):
            part = stored[:, :, k]
            values = voxels.values(part)
            wrong = ~np.isfinite(values)
            if wrong.any():
                part[wrong] = np.where(values[wrong] == np.inf, high, low).astype(stored.dtype)
    voxels.stored, voxels.non_finite = stored, bad
    noun = "voxel is" if bad == 1 else "voxels are"
    voxels.notices.append(
        f"{bad} {noun} NaN or infinite: replaced by the lowest value of the volume (+infinity by the highest)"
    )
