"""Label files of volumes: read, checked to be labels, and brought onto the grid of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import LabelError, StudyError
from napari_dinoaugseg.study.dicom_seg import Labels, SegLabels, is_seg, read_seg, require_source
from napari_dinoaugseg.study.dicom_seg_grid import covering, on_grid, own_grid
from napari_dinoaugseg.study.dicom_source import DicomSource
from napari_dinoaugseg.study.files import CONVERTIBLE_SUFFIXES, NIFTI_SUFFIXES, NRRD_SUFFIXES, TIFF_SUFFIXES, suffix_of
from napari_dinoaugseg.study.grid import Grid, align
from napari_dinoaugseg.study.nifti import read_nifti
from napari_dinoaugseg.study.nrrd_file import read_nrrd
from napari_dinoaugseg.study.tiff import read_tiff_stack
from napari_dinoaugseg.study.voxels import Voxels

HIGHEST_LABEL = int(np.iinfo(np.uint16).max)


def read_volume_file(path: Path, component: int | None = None) -> Voxels:
    """Read a volume that is one file, by its suffix.

    Raises:
        StudyError: it is missing or damaged, or its suffix is not one of a volume.
    """
    suffix = suffix_of(path)
    if suffix in NIFTI_SUFFIXES:
        return read_nifti(path, component)
    if suffix in NRRD_SUFFIXES:
        return read_nrrd(path, component)
    if suffix in TIFF_SUFFIXES:
        return read_tiff_stack(path, component)
    if not path.exists():
        msg = f"{path}: there is no such file or folder. Check the path."
        raise StudyError(msg)
    msg = f"{path}: files of this kind are not supported. Give a volume as .nii, .nii.gz, .nrrd or .tif (a stack)."
    if suffix in CONVERTIBLE_SUFFIXES:
        msg = f"{path}: {suffix} files are not supported. Save the volume as .nii.gz, with 3D Slicer or ITK-SNAP."
    raise StudyError(msg)


def read_mask_volume(path: Path) -> tuple[Labels, Grid]:
    """Read a label volume on its own.

    Args:
        path: a NIfTI, NRRD, DICOM SEG or multi-page TIFF file. A DICOM SEG reaches from its first to its last frame.

    Returns:
        The labels (i, j, k) in stored order, uint8 where they fit and uint16 otherwise, and their grid.

    Raises:
        LabelError: the file cannot be read, or what it holds are no labels (negative, fractional, NaN, over 65535).
    """
    path = Path(path)
    if is_seg(path):
        labels = _read_seg(path)
        grid = own_grid(labels)
        return _on_grid(labels, grid, path), grid
    try:
        voxels = read_volume_file(path)
    except StudyError as error:
        raise LabelError(str(error)) from error
    if voxels.is_colour:
        msg = f"{path}: it holds colours, not label numbers. Save the labels as whole numbers from 0 up."
        raise LabelError(msg)
    if voxels.non_finite:
        msg = f"{path}: it holds NaN or infinite voxels, which are no labels. Save labels as whole numbers from 0 up."
        raise LabelError(msg)
    return _whole_numbers(path, voxels), voxels.grid


def read_seg_on(path: Path, grid: Grid, source: DicomSource | None, name: str) -> Labels:
    """Read a DICOM SEG onto the grid of an image.

    Args:
        path: the file.
        grid: of the image.
        source: where the slices of the image came from; None when it is no DICOM series.
        name: how messages call the image.

    Returns:
        The labels (i, j, k) in the stored order of the image.

    Raises:
        LabelError: the file cannot be read, is no segmentation, or belongs to another image or grid.
    """
    labels = _read_seg(path)
    if source is not None:
        require_source(labels, source)
    return _on_grid(labels, grid, name, source)


def read_mask_volumes(first: Path, second: Path) -> tuple[Labels, Labels, Grid]:
    """Read two label volumes that are to be compared.

    Args:
        first: as for `read_mask_volume`.
        second: likewise; its order of voxels is taken. Where it is a DICOM SEG, slices on which only `first` says
            something are added to it as background, since a SEG leaves out slices on which nothing is labelled.

    Returns:
        The labels (i, j, k) of both, and their common grid.

    Raises:
        LabelError: one cannot be read, or they do not lie on one grid.
    """
    together = f"{first} and {second} do not fit together"
    if is_seg(second):
        other = _read_seg(second)
        if is_seg(first):
            labels = _read_seg(first)
            try:
                grid = covering(own_grid(other), labels)
            except LabelError as error:
                msg = f"{together}: {error}. Compare masks of one image."
                raise LabelError(msg) from error
            return _on_grid(labels, grid, second), _on_grid(other, grid, second), grid
        mask, grid = read_mask_volume(first)
        return mask, _on_grid(other, grid, first), grid
    mask, grid = read_mask_volume(second)
    if is_seg(first):
        return _on_grid(_read_seg(first), grid, second), mask, grid
    found, own = read_mask_volume(first)
    try:
        return align(found, own, grid), mask, grid
    except LabelError as error:
        msg = f"{together}: {error}. Compare masks of one image."
        raise LabelError(msg) from error


def _read_seg(path: Path) -> SegLabels:
    try:
        return read_seg(path)
    except StudyError as error:
        raise LabelError(str(error)) from error


def _on_grid(labels: SegLabels, grid: Grid, name: str | Path, source: DicomSource | None = None) -> Labels:
    try:
        return on_grid(labels, grid, source)
    except LabelError as error:
        msg = f"{labels.path}: this segmentation does not fit {name}: {error}. Give the one drawn on this image."
        raise LabelError(msg) from error


def _whole_numbers(path: Path, voxels: Voxels) -> Labels:
    """Return the values as labels, one slab after the other so that no float copy of the whole is made."""
    stored = voxels.stored
    if stored.dtype in (np.uint8, np.uint16) and not voxels.is_scaled:
        return np.asarray(stored)
    labels: NDArray[Any] = np.zeros(stored.shape, dtype=np.uint8, order="F")
    for k in range(stored.shape[2]):
        values = stored[:, :, k] * np.float64(voxels.slope) + np.float64(voxels.intercept)
        whole = np.rint(values)
        # A scaled file gives 2.9999999; anything further from a whole number was interpolated.
        if np.abs(values - whole).max() > 1e-4:
            odd = float(values.flat[int(np.abs(values - whole).argmax())])
            msg = f"{path}: it holds {odd:.4g}, which is no label. Save labels as whole numbers from 0 up."
            raise LabelError(msg)
        low, high = float(whole.min()), float(whole.max())
        if low < 0 or high > HIGHEST_LABEL:
            odd = low if low < 0 else high
            msg = f"{path}: it holds the label {odd:.0f}. Save labels as whole numbers from 0 to {HIGHEST_LABEL}."
            raise LabelError(msg)
        if high > 255 and labels.dtype == np.uint8:
            labels = labels.astype(np.uint16, order="F")
        labels[:, :, k] = whole
    return labels
