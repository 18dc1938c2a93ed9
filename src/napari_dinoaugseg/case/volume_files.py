"""Read a volume from one file. The content determines the format, since suffixes are often wrong."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

import nibabel as nib

from napari_dinoaugseg.case.files import (
    CONVERTIBLE_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    TIFF_SUFFIXES,
    is_gzip,
    require_file,
    suffix_of,
)
from napari_dinoaugseg.case.geometry import Voxels
from napari_dinoaugseg.case.nifti import read_nifti
from napari_dinoaugseg.case.nrrd import read_nrrd
from napari_dinoaugseg.case.tiff import read_tiff_stack
from napari_dinoaugseg.errors import CaseError

Kind = Literal["nifti", "nrrd", "tiff"]


def read_volume_file(path: Path, component: int | None = None) -> Voxels:
    """Read a volume from one file; its first bytes determine the format, else its suffix.

    Raises:
        CaseError: the file is missing or damaged, or is not a volume.
    """
    kind = kind_of(path)
    if kind == "nifti":
        return read_nifti(path, component)
    if kind == "nrrd":
        return read_nrrd(path, component)
    if kind == "tiff":
        return read_tiff_stack(path, component)
    require_file(path)
    suffix = suffix_of(path)
    msg = f"{path}: files of this kind are not supported. Give a volume as .nii, .nii.gz, .nrrd or .tif (a stack)."
    if suffix in CONVERTIBLE_SUFFIXES:
        msg = f"{path}: {suffix} files are not supported. Save the volume as .nii.gz, with 3D Slicer or ITK-SNAP."
    raise CaseError(msg)


def kind_of(path: Path) -> Kind | None:
    """Return the format of a volume file; None for other files."""
    suffix = suffix_of(path)
    if suffix in TIFF_SUFFIXES:
        return "tiff"
    # Each half of a pair of files (.hdr and .img) looks like a whole NIfTI file.
    found = None if suffix in CONVERTIBLE_SUFFIXES else _kind_by_content(path)
    if found is not None:
        return found
    if suffix in NIFTI_SUFFIXES:
        return "nifti"
    return "nrrd" if suffix in NRRD_SUFFIXES else None


def _kind_by_content(path: Path) -> Kind | None:
    try:
        with gzip.open(path, "rb") if is_gzip(path) else path.open("rb") as stream:
            head = stream.read(nib.Nifti2Header.sizeof_hdr)
    except (OSError, EOFError, zlib.error):  # the reader of the format says what is wrong
        return None
    if any(kind.may_contain_header(head) for kind in (nib.Nifti1Header, nib.Nifti2Header)):
        return "nifti"
    return "nrrd" if head.startswith(b"NRRD") and not is_gzip(path) else None
