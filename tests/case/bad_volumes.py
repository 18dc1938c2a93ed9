"""Files that look like volumes and are none: what makes each, and what a person must be told."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np

from tests.case.builders import numbers, write_nifti


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def text(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def packed_page(folder: Path) -> Path:
    with gzip.open(folder / "scan.nii.gz", "wb") as stream:
        stream.write(b"<html>" + bytes(5000))
    return folder / "scan.nii.gz"


def renamed_picture(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(numbers((8, 8), np.uint8)).save(folder / "scan.png")
    return (folder / "scan.png").rename(folder / "scan.nii")


def complex_numbers(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii.gz", numbers((4, 4, 4)).astype(np.complex64))


def zero_size(folder: Path) -> Path:
    path = write_nifti(folder / "scan.nii", numbers((4, 4, 4)))
    raw = bytearray(path.read_bytes())
    raw[46:48] = (0).to_bytes(2, "little")  # dim[3]
    return text(path, bytes(raw))


def singular(folder: Path) -> Path:
    image = nib.Nifti1Image(numbers((4, 4, 4)), np.eye(4))
    image.header["srow_x"] = image.header["srow_y"]
    image = nib.Nifti1Image(numbers((4, 4, 4)), None, image.header)
    nib.save(image, folder / "scan.nii")
    return folder / "scan.nii"


def not_finite(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii", np.full((4, 4, 4), np.nan, np.float32))


def boasting(folder: Path) -> Path:
    """A header that announces more than any memory holds."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((30000, 30000, 30000))
    with gzip.open(folder / "scan.nii.gz", "wb") as stream:
        header["magic"], header["vox_offset"] = b"n+1", 352
        stream.write(header.binaryblock + bytes(100))
    return folder / "scan.nii.gz"


def short_nrrd(folder: Path) -> Path:
    nrrd.write(str(folder / "scan.nrrd"), numbers((9, 9, 9)), {"encoding": "raw"})
    return cut(folder / "scan.nrrd", 0.7)


def short_packed_nrrd(folder: Path) -> Path:
    nrrd.write(str(folder / "scan.nrrd"), numbers((9, 9, 9)))
    return cut(folder / "scan.nrrd", 0.7)


def corrupt(folder: Path) -> Path:
    """A flipped bit deep inside the packed voxels, which only the checksum notices."""
    path = write_nifti(folder / "scan.nii.gz", np.random.default_rng(0).integers(0, 9999, (20, 20, 20), np.int16))
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    return text(path, bytes(raw))


NOISE = np.random.default_rng(0).integers(0, 9999, (20, 20, 20), np.int16)

# By name: makes the file in a folder and returns its path; a pattern of the message.
BAD_VOLUMES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "scan.nii.gz", "there is no such file or folder"),
    "missing folder": (lambda folder: folder / "scans", "there is no such file or folder"),
    "web page": (lambda f: text(f / "scan.nii", b"<!DOCTYPE html><html>"), "this is a web page, not a NIfTI file"),
    "web page packed": (packed_page, "cannot be read as a gzip-packed NIfTI file"),
    "web page named gz": (lambda f: text(f / "scan.nii.gz", b"<html>" + bytes(999)), "this is a web page"),
    "web page named nrrd": (lambda f: text(f / "scan.nrrd", b"<html>"), "this is a web page, not a NRRD file"),
    "zip named nrrd": (lambda f: text(f / "scan.nrrd", b"PK\x03\x04" + bytes(99)), "this is a ZIP archive"),
    "png named nii": (renamed_picture, "this is a PNG picture, not a NIfTI file"),
    "empty file": (lambda f: text(f / "scan.nii", b""), "this is an empty file"),
    "random bytes": (lambda f: text(f / "scan.nii", bytes(range(256)) * 9), "cannot be read as a NIfTI file"),
    "other suffix": (lambda f: text(f / "scan.docx", b"text"), "files of this kind are not supported"),
    "cut nii": (lambda f: cut(write_nifti(f / "scan.nii", NOISE), 0.9), "cut off"),
    "cut header": (lambda f: cut(write_nifti(f / "scan.nii", NOISE), 0.01), "cannot be read as a NIfTI file"),
    "cut nii.gz": (lambda f: cut(write_nifti(f / "scan.nii.gz", NOISE), 0.9), "cut off"),
    "cut nii.gz at its end": (lambda f: cut(write_nifti(f / "scan.nii.gz", NOISE), 0.9999), "cut off"),
    "corrupt nii.gz": (corrupt, "damaged or cut off"),
    "boasting header": (boasting, "announces 2.16e\\+05 GB of pixels, but this machine has .*cut off or damaged"),
    "cut nrrd": (short_nrrd, "damaged or cut off"),
    "cut packed nrrd": (short_packed_nrrd, "damaged or cut off"),
    "complex": (complex_numbers, "complex numbers"),
    "zero size": (zero_size, "no pixels|no voxels|cannot be read"),
    "singular affine": (singular, "affine is singular"),
    "all NaN": (not_finite, "no voxel holds a finite number"),
    "time series": (lambda f: write_nifti(f / "scan.nii.gz", numbers((4, 4, 4, 5))), "5 volumes"),
}
