"""What a reader of volumes hands over: stored voxels, how they scale, where they lie, and the header to write back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.grid import Grid

Format = Literal["nifti", "nrrd", "dicom", "tiff", "array"]


@dataclass
class Voxels:
    """One volume as its file stores it.

    Attributes:
        path: the file or the folder.
        files: every file that was read; none of them may be overwritten.
        format: the kind of file; "array" for pixels that were in memory.
        stored: (i, j, k) or (i, j, k, 3), in the stored type: scaled only slice by slice, never as a whole.
        grid: where the voxels lie.
        file_shape: the shape that a mask file takes: the three axes, or two for a 2-D file, or more with trailing ones.
        slope: value = stored * slope + intercept.
        intercept: see `slope`.
        modality: "CT", "MR"... where the file says so.
        header: the original header, for the writer of the same format.
        form: what `grid` was read from, for messages.
        other_grids: further ways to read the same header, by name: programs differ where it contradicts itself.
        itk_grid: where ITK and 3D Slicer see the voxels; None where that is `grid`.
        of_series: the number of this volume, and of how many in the file; None where it is the only one.
        non_finite: how many voxels were NaN or infinite in the file, and were replaced.
        notices: what a person should know.
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
    header: Any = None
    form: str = "geometry"
    other_grids: list[tuple[str, Grid]] = field(default_factory=list)
    itk_grid: Grid | None = None
    of_series: tuple[int, int] | None = None
    non_finite: int = 0
    notices: list[str] = field(default_factory=list)

    @property
    def grids(self) -> list[tuple[str, Grid]]:
        """Every way to read where the voxels lie, by name, the one that is followed first."""
        return [(self.form, self.grid), *self.other_grids]

    @property
    def is_colour(self) -> bool:
        """Whether a voxel is red, green and blue."""
        return self.stored.ndim == 4

    @property
    def is_scaled(self) -> bool:
        """Whether the stored numbers differ from the values."""
        return not (self.slope == 1.0 and self.intercept == 0.0)

    def values(self, part: NDArray[Any]) -> NDArray[Any]:
        """Return a part of the stored voxels as values: uint8 as it is stored, everything else as float32."""
        if part.dtype == np.uint8 and not self.is_scaled:
            return part
        if not self.is_scaled:
            return part.astype(np.float32)
        return (part * np.float64(self.slope) + np.float64(self.intercept)).astype(np.float32)


def check(voxels: Voxels) -> Voxels:
    """Refuse what is no image, and replace the voxels that are no numbers.

    NaN and -inf become the lowest value of the volume, +inf the highest; a notice says how many. Numbers beyond the
    range of float32 count as infinite: they are no intensities of a scanner.

    Raises:
        StudyError: complex or empty data, a broken affine, or no finite voxel at all.
    """
    if voxels.stored.dtype.kind not in "biuf":
        kind = "complex numbers" if voxels.stored.dtype.kind == "c" else f"voxels of type {voxels.stored.dtype}"
        msg = f"{voxels.path}: it holds {kind}, which have no one intensity. Export the magnitude image."
        raise StudyError(msg)
    if voxels.stored.size == 0:
        msg = f"{voxels.path}: the image has no voxels (its size is {voxels.stored.shape}). Export it again."
        raise StudyError(msg)
    if voxels.grid.problem is not None:
        msg = f"{voxels.path}: {voxels.grid.problem}, so its orientation is unknown. Export it again or fix its header."
        raise StudyError(msg)
    if voxels.stored.dtype.kind == "f" or _may_overflow(voxels):
        _replace_non_finite(voxels)
    return voxels


def _may_overflow(voxels: Voxels) -> bool:
    """Tell whether the scaling takes some whole number of the stored type beyond the range of float32."""
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
        raise StudyError(msg)
    if not stored.flags.writeable:
        stored = stored.copy(order="K")
    # Back from values to stored numbers; a slope of either sign keeps low and high where they belong.
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
