"""Write an array in stored order; the suffix selects the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.dicom.frames import DicomSource
from napari_dinoaugseg.case.dicom.rtstruct_writer import rtstruct_of
from napari_dinoaugseg.case.files import NIFTI_SUFFIXES, NRRD_SUFFIXES, TIFF_SUFFIXES, atomic_file, suffix_of
from napari_dinoaugseg.case.geometry import Voxels
from napari_dinoaugseg.case.masks import must_be_deep
from napari_dinoaugseg.case.nifti import anonymous, save_nifti
from napari_dinoaugseg.case.nrrd import save_nrrd, slicer_pairs
from napari_dinoaugseg.case.tiff import save_tiff_stack
from napari_dinoaugseg.errors import OutputError

SEG_SUFFIXES = frozenset({".dcm"})
RTSTRUCT_SUFFIX = ".rtstruct.dcm"
_PAGES = (".tif", ".tiff")


def output_suffixes(voxels: Voxels) -> tuple[str, ...]:
    """Return the allowed suffixes for a mask of this volume, the preferred one first."""
    medical = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd")
    # Only its own format keeps the shape of a 2D+t file or of a 2-D image.
    if voxels.format == "nifti" and (voxels.grid.in_time or len(voxels.file_shape) == 2):
        return medical[:2]
    if voxels.format == "nrrd" and voxels.grid.in_time:
        return medical[2:]
    if voxels.format == "array" and len(voxels.file_shape) == 2:
        return (".png", *medical)
    source = voxels.header if isinstance(voxels.header, DicomSource) else None
    seg: tuple[str, ...] = ()
    if source is not None and source.problem is None:
        # Contours hold no time: those of frames at one place would lie on one another.
        seg = tuple(SEG_SUFFIXES) if source.at_one_place else (*SEG_SUFFIXES, RTSTRUCT_SUFFIX)
    if voxels.grid.is_uneven:
        return (*seg, *_PAGES)
    if voxels.format == "dicom":
        return (*medical, *seg)
    return (*_PAGES, *medical) if voxels.format == "tiff" else medical


def is_dicom_output(path: Path) -> bool:
    """Return whether a mask at this path would be a DICOM SEG or RTSTRUCT."""
    return suffix_of(path) in (*SEG_SUFFIXES, RTSTRUCT_SUFFIX)


def no_dicom(path: Path, voxels: Voxels) -> str:
    """Return the message why the mask of this volume cannot be a DICOM SEG or RTSTRUCT."""
    why = "this case is not a DICOM series"
    kind = "RTSTRUCT" if suffix_of(path) == RTSTRUCT_SUFFIX else "DICOM SEG"
    if isinstance(voxels.header, DicomSource):
        why = voxels.header.problem or "these frames follow each other in time at one place"
    instead = output_suffixes(voxels)[0]
    article = "an" if kind == "RTSTRUCT" else "a"
    return f"{path}: {article} {kind} refers to the DICOM images it was drawn on, but {why}. Write {instead} instead."


def no_affine(path: Path, voxels: Voxels) -> str:
    """Return the message why the mask of this volume cannot be NIfTI or NRRD."""
    pages = "a TIFF stack (.tif), whose pages are the slices"
    has_seg = ".dcm" in output_suffixes(voxels)
    ways = f"a DICOM SEG (.dcm) or RTSTRUCT, which keep the place of each slice, or {pages}" if has_seg else pages
    return (
        f"{path}: the slices of this case are not evenly spaced, and such a file can only hold one distance for all. "
        f"Write {ways}."
    )


def save_volume(path: Path, array: NDArray[Any], voxels: Voxels, segments: Sequence[Segment] = ()) -> None:
    """Write an array on the grid of `voxels`; the same format keeps the original header.

    Args:
        path: where to write; its suffix selects the format.
        array: (i, j, k) in stored order: labels, or a confidence from 0 to 1 as float32.
        voxels: the volume it belongs to.
        segments: names and colours of the labels, for DICOM SEG, RTSTRUCT and `.seg.nrrd`.

    Raises:
        OutputError: the system refused to write, or DICOM SEG or RTSTRUCT cannot hold this.
    """
    suffix = suffix_of(path)
    if voxels.grid.is_uneven and suffix not in _PAGES and not is_dicom_output(path):
        raise OutputError(no_affine(path, voxels))
    with atomic_file(path) as temporary:
        grid = voxels.itk_grid or voxels.grid
        if suffix in NIFTI_SUFFIXES:
            own = voxels.format == "nifti"
            save_nifti(temporary, _shaped(array, voxels, own=own), grid, voxels.header if own else None)
        elif suffix == ".seg.nrrd" and len(voxels.file_shape) == 2 and array.dtype.kind == "u":
            # 3D Slicer requires three axes, even for one slice.
            save_nrrd(temporary, array, grid, None, slicer_pairs(array, segments))
        elif suffix in NRRD_SUFFIXES:
            own = voxels.format == "nrrd"
            pairs = slicer_pairs(array, segments) if suffix == ".seg.nrrd" and array.dtype.kind == "u" else {}
            save_nrrd(temporary, _shaped(array, voxels, own=own), grid, voxels.header if own else None, pairs)
        elif suffix in TIFF_SUFFIXES:
            save_tiff_stack(temporary, array, voxels.header if voxels.format == "tiff" else None)
        elif suffix in SEG_SUFFIXES:
            _seg(path, array, voxels, segments).save_as(temporary)
        elif suffix == RTSTRUCT_SUFFIX:
            rtstruct_of(path, array, voxels.header, segments).save_as(temporary, enforce_file_format=True)
        elif suffix == ".png" and voxels.format == "array":
            _save_png(temporary, array[:, :, 0].T)
        else:
            msg = f"no writer for {suffix}"
            raise ValueError(msg)


def save_anonymous(path: Path, array: NDArray[Any], voxels: Voxels) -> None:
    """Write an array as NIfTI on the grid of `voxels`, with nothing of the original header but its place.

    A 2-D image stays 2-D; anything else becomes three-dimensional, frames in time (2D+t) too.

    Args:
        path: a NIfTI file.
        array: (i, j, k) in stored order.
        voxels: the volume it belongs to.

    Raises:
        OutputError: the slices are not evenly spaced, or the system refused to write.
    """
    if voxels.grid.is_uneven:
        raise OutputError(no_affine(path, voxels))
    shaped = array.reshape(voxels.file_shape, order="F") if len(voxels.file_shape) == 2 else array
    own = voxels.format == "nifti" and not voxels.grid.in_time
    with atomic_file(path) as temporary:
        header = anonymous(voxels.header, shaped.shape) if own else None
        save_nifti(temporary, shaped, voxels.itk_grid or voxels.grid, header)


def _shaped(array: NDArray[Any], voxels: Voxels, *, own: bool) -> NDArray[Any]:
    """Return an array in the shape of its file: that of the image in its own format, 2-D for a 2-D image."""
    flat = len(voxels.file_shape) == 2
    return array.reshape(voxels.file_shape, order="F") if own or flat or voxels.format == "array" else array


def _seg(path: Path, array: NDArray[Any], voxels: Voxels, segments: Sequence[Segment]) -> Dataset:
    # highdicom takes half a second to import, and few masks are written as DICOM.
    from napari_dinoaugseg.case.dicom.seg_writer import confidence_of, seg_of

    if array.dtype.kind == "f":
        return confidence_of(path, array, voxels.header)
    return seg_of(path, array, voxels.header, segments)


def _save_png(path: Path, image: NDArray[Any]) -> None:
    """Write labels (H, W), or a confidence from 0 to 1 in 8 bits."""
    if image.dtype.kind == "f":
        pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    else:
        pixels = image.astype(np.uint16) if must_be_deep(set(np.unique(image).astype(int).tolist())) else image
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG")
