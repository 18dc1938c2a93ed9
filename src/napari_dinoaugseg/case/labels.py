"""Read label files of volumes, validate their values, and place them on the grid of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.dicom.frames import DicomSource
from napari_dinoaugseg.case.dicom.rtstruct import (
    StructureSet,
    covering_contours,
    is_rtstruct,
    placed,
    read_rtstruct,
    require_same_patient,
)
from napari_dinoaugseg.case.dicom.seg import (
    Labels,
    SegLabels,
    covering,
    is_seg,
    on_grid,
    own_grid,
    read_seg,
    require_source,
)
from napari_dinoaugseg.case.geometry import Grid, Voxels, place_by
from napari_dinoaugseg.case.itksnap import descriptions_beside
from napari_dinoaugseg.case.nrrd import holds_segments, merge_layers, read_content, voxels_of
from napari_dinoaugseg.case.volume_files import kind_of, read_volume_file
from napari_dinoaugseg.errors import CaseError, LabelError, SeveralVolumesError

HIGHEST_LABEL = int(np.iinfo(np.uint16).max)
WHITE = 255
# How much a label may differ from a whole number; larger differences come from interpolation.
_NEAR_WHOLE = 1e-3
_SILENT = 1e-4  # rounding of float32
# Labels stored with a slope differ by at most half of it, plus rounding of slope and intercept. The limit excludes
# slopes so coarse that every value would be near a label.
_ROUNDING = 1.01
_FARTHEST_FROM_WHOLE = 0.25


@dataclass(frozen=True)
class LabelVolume:
    """A label volume without an image.

    Attributes:
        mask: the labels (i, j, k) in stored order.
        grids: the readings of its grid by name, the one in use first.
        segments: names and colours of the labels, from the file.
        notices: sentences for the user.
    """

    mask: Labels
    grids: list[tuple[str, Grid]]
    segments: tuple[Segment, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The grid in use."""
        return self.grids[0][1]


def read_mask_volume(path: Path) -> tuple[Labels, Grid]:
    """Read a label volume without an image.

    Args:
        path: a NIfTI, NRRD, DICOM SEG or multi-page TIFF file. A DICOM SEG extends from its first to its last frame.

    Returns:
        The labels (i, j, k) in stored order, uint8 if they fit and uint16 otherwise, and their grid.

    Raises:
        LabelError: the file cannot be read, or holds invalid values (negative, fractional, NaN, over 65535).
    """
    volume = read_label_volume(Path(path))
    return volume.mask, volume.grid


def read_label_volume(path: Path, of_series: tuple[int, int] | None = None) -> LabelVolume:
    """Read a label volume with the names of its labels, and notices.

    Args:
        path: as for `read_mask_volume`; the layers of a segmentation of 3D Slicer are merged.
        of_series: the number of the image among how many volumes: the file may hold labels for all of them.

    Raises:
        LabelError: as for `read_mask_volume`, and overlapping segments.
    """
    if is_rtstruct(path):
        msg = (
            f"{path}: a structure set (RTSTRUCT) holds contours and no voxels. Give it together with the image that it "
            "was drawn on, or as DICOM SEG or NIfTI."
        )
        raise LabelError(msg)
    if is_seg(path):
        labels = _read_seg(path)
        grid = own_grid(labels)
        return LabelVolume(_on_grid(labels, grid, path), [("geometry", grid)])
    try:
        voxels, segments, notices = _read_voxels(path, of_series)
    except SeveralVolumesError as error:
        msg = f"{path}: it holds {error.count} volumes, but labels are one. Save the volume that belongs to this image."
        raise LabelError(msg) from error
    except CaseError as error:
        raise LabelError(error.message) from error
    if voxels.is_colour:
        msg = f"{path}: it holds colours, not label numbers. Save the labels as whole numbers from 0 up."
        raise LabelError(msg)
    if voxels.non_finite:
        msg = f"{path}: it holds NaN or infinite voxels, which are no labels. Save labels as whole numbers from 0 up."
        raise LabelError(msg)
    mask, rounded = _whole_numbers(path, voxels)
    if not segments and voxels.format in ("nifti", "nrrd"):
        segments, named = descriptions_beside(path, mask)
        notices = [*notices, *named]
    notices = [*notices, *rounded, *_white(path, mask, segments)]
    return LabelVolume(mask, voxels.grids, tuple(segments), tuple(notices))


def _read_voxels(path: Path, of_series: tuple[int, int] | None) -> tuple[Voxels, list[Segment], list[str]]:
    """Return one volume, with segments and notices if the file is a segmentation of 3D Slicer."""
    if kind_of(path) == "nrrd":
        content = read_content(path)
        if holds_segments(content):
            mask, segments, notices = merge_layers(path, content)
            return voxels_of(path, content, mask), segments, notices
    number, count = of_series or (0, 1)
    try:
        voxels = read_volume_file(path)
    except SeveralVolumesError as error:
        if of_series is None or error.count != count:
            raise
    else:
        if of_series is None or not voxels.grid.in_time or voxels.grid.shape[2] != count:
            return voxels, [], []
    taken = f"{path.name} holds labels for {count} volumes: those of number {number} are taken, as of the image."
    return read_volume_file(path, number), [], [taken]


def _white(path: Path, mask: Labels, segments: Sequence[Segment]) -> list[str]:
    """Return a notice about 255, which means "inside" or "unknown" in some programs."""
    if any(segment.number == WHITE for segment in segments) or not (mask == WHITE).any():
        return []
    others = np.flatnonzero(np.bincount(mask.ravel(order="K"), minlength=WHITE + 1)[1:]) + 1
    if len(others) == 1:
        return [f"The labels of {path.name} are 0 and 255: they are one class, and its number is 255."]
    return [
        f"{path.name} holds 255 beside other labels: it is a class like the others. If it marks what is unknown, "
        "save the labels without it."
    ]


def read_dicom_on(path: Path, grid: Grid, source: DicomSource | None, name: str) -> LabelVolume:
    """Read a DICOM SEG or RTSTRUCT onto the grid of an image.

    Args:
        path: the file.
        grid: of the image.
        source: the source of the slices of the image; None if it is not a DICOM series.
        name: the name of the image in messages.

    Returns:
        The labels (i, j, k) in the stored order of the image, with their names; colours and notices of an RTSTRUCT.

    Raises:
        LabelError: the file cannot be read, holds no labels, or belongs to another image or grid.
    """
    if is_rtstruct(path):
        return _structures_on(path, grid, name, source)
    labels = _read_seg(path)
    if source is not None:
        require_source(labels, source)
    return LabelVolume(_on_grid(labels, grid, name, source), [("geometry", grid)], labels.segments)


def _structures_on(path: Path, grid: Grid, name: str | Path, source: DicomSource | None = None) -> LabelVolume:
    found = _read_rtstruct(path)
    notices: list[str] = []
    if source is not None:
        found, notices = require_same_patient(found, source)
    try:
        labels = placed(found, grid)
    except LabelError as error:
        msg = f"{path}: these contours do not fit {name}: {error}. Give those drawn on this image."
        raise LabelError(msg) from error
    return LabelVolume(labels.mask, [("geometry", grid)], labels.segments, (*found.notices, *notices, *labels.notices))


def _read_rtstruct(path: Path) -> StructureSet:
    try:
        return read_rtstruct(path)
    except CaseError as error:
        raise LabelError(error.message) from error


@dataclass(frozen=True)
class ComparedVolumes:
    """Two label volumes on one grid.

    Attributes:
        first: the labels (i, j, k) of the first volume.
        second: those of the second.
        grid: their common grid.
        notices: sentences for the user.
    """

    first: Labels
    second: Labels
    grid: Grid
    notices: tuple[str, ...] = ()


def read_mask_volumes(first: Path, second: Path) -> ComparedVolumes:
    """Read two label volumes for comparison.

    Args:
        first: as for `read_mask_volume`.
        second: the same; its voxel order is used, unless it is a part of the grid of `first`. A DICOM SEG omits slices
            without labels, so slices that only `first` has are added to it as background. Contours (RTSTRUCT) are read
            on the grid of the other volume.

    Raises:
        LabelError: one cannot be read, or their grids differ.
    """
    together = f"{first} and {second} do not fit together"
    if is_rtstruct(first) or is_rtstruct(second):
        return _compared_contours(first, second)
    if is_seg(second):
        other = _read_seg(second)
        if is_seg(first):
            labels = _read_seg(first)
            try:
                grid = covering(own_grid(other), labels)
            except LabelError as error:
                msg = f"{together}: {error}. Compare masks of one image."
                raise LabelError(msg) from error
            return ComparedVolumes(_on_grid(labels, grid, second), _on_grid(other, grid, second), grid)
        one = read_label_volume(first)
        return ComparedVolumes(one.mask, _on_grid(other, one.grid, first), one.grid, one.notices)
    truth = read_label_volume(second)
    if is_seg(first):
        return ComparedVolumes(_on_grid(_read_seg(first), truth.grid, second), truth.mask, truth.grid, truth.notices)
    found = read_label_volume(first)
    notices = [*found.notices, *truth.notices]
    try:
        # A mask cropped to its labels is placed on the larger one.
        if found.mask.size > truth.mask.size:
            placed, grid = place_by(truth.mask, truth.grids, found.grids)
            masks = found.mask, placed.mask
        else:
            placed, grid = place_by(found.mask, found.grids, truth.grids)
            masks = placed.mask, truth.mask
    except LabelError as error:
        msg = f"{together}: {error}. Compare masks of one image."
        raise LabelError(msg) from error
    return ComparedVolumes(*masks, grid, (*notices, *([placed.notice] if placed.notice else [])))


def _compared_contours(first: Path, second: Path) -> ComparedVolumes:
    """Read contours and a label volume on the grid of the volume; a DICOM SEG is extended to all contours."""
    contours, path = (first, second) if is_rtstruct(first) else (second, first)
    volume = read_label_volume(path)
    if is_seg(path):
        try:
            grid = covering_contours(volume.grid, _read_rtstruct(contours))
        except LabelError as error:
            msg = f"{first} and {second} do not fit together: {error}. Compare masks of one image."
            raise LabelError(msg) from error
        volume = LabelVolume(_on_grid(_read_seg(path), grid, path), [("geometry", grid)])
    drawn = _structures_on(contours, volume.grid, path)
    masks = (drawn.mask, volume.mask) if contours is first else (volume.mask, drawn.mask)
    return ComparedVolumes(*masks, volume.grid, (*drawn.notices, *volume.notices))


def _read_seg(path: Path) -> SegLabels:
    try:
        return read_seg(path)
    except CaseError as error:
        raise LabelError(error.message) from error


def _on_grid(labels: SegLabels, grid: Grid, name: str | Path, source: DicomSource | None = None) -> Labels:
    try:
        return on_grid(labels, grid, source)
    except LabelError as error:
        msg = f"{labels.path}: this segmentation does not fit {name}: {error}. Give the one drawn on this image."
        raise LabelError(msg) from error


def _whole_numbers(path: Path, voxels: Voxels) -> tuple[Labels, list[str]]:
    """Return the values as labels, and a notice if they were rounded.

    Slices are converted one by one to avoid a float copy of the volume. Whole numbers stored with a slope (a label
    image saved with the header of a CT) are off by up to half of it.
    """
    stored = voxels.stored
    if stored.dtype in (np.uint8, np.uint16) and not voxels.is_scaled:
        return np.asarray(stored), []
    packed = voxels.is_scaled and stored.dtype.kind in "iu"
    near = max(_NEAR_WHOLE, min(0.5 * abs(voxels.slope) * _ROUNDING, _FARTHEST_FROM_WHOLE)) if packed else _NEAR_WHOLE
    labels: NDArray[Any] = np.zeros(stored.shape, dtype=np.uint8, order="F")
    farthest, example = 0.0, 0.0
    for k in range(stored.shape[2]):
        values = stored[:, :, k] * np.float64(voxels.slope) + np.float64(voxels.intercept)
        whole = np.rint(values)
        off = np.abs(values - whole)
        worst = int(off.argmax())
        if off.flat[worst] > farthest:
            farthest, example = float(off.flat[worst]), float(values.flat[worst])
        if farthest > near:
            msg = f"{path}: it holds {_digits(example)}, which is not a label. Save labels as whole numbers from 0 up."
            raise LabelError(msg)
        low, high = float(whole.min()), float(whole.max())
        if low < 0 or high > HIGHEST_LABEL:
            odd = low if low < 0 else high
            msg = f"{path}: it holds the label {odd:.0f}. Save labels as whole numbers from 0 to {HIGHEST_LABEL}."
            raise LabelError(msg)
        if high > 255 and labels.dtype == np.uint8:
            labels = labels.astype(np.uint16, order="F")
        labels[:, :, k] = whole
    if farthest <= _SILENT:
        return labels, []
    return labels, [f"The labels of {path.name} are not quite whole numbers (such as {_digits(example)}): rounded."]


def _digits(value: float) -> str:
    """Format a number with enough digits to distinguish it from a whole number."""
    return next((text for n in range(6, 17) if float(text := f"{value:.{n}g}") != round(value)), repr(value))
