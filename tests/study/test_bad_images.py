"""What is no study is refused in one or two lines that name the file; nothing is written or changed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from napari_dinoaugseg.errors import DinoAugSegError, SettingsError, StudyError
from napari_dinoaugseg.study import open_study
from tests.study.builders import listing, numbers, write_nifti


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
    """A header that announces far more than a packed file of this size can hold."""
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

CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "scan.nii.gz", "there is no such file or folder"),
    "missing folder": (lambda folder: folder / "scans", "there is no such file or folder"),
    "web page": (lambda f: text(f / "scan.nii", b"<!DOCTYPE html><html>"), "this is a web page, not a NIfTI file"),
    "web page packed": (packed_page, "cannot be read as a gzip-packed NIfTI file"),
    "web page named gz": (lambda f: text(f / "scan.nii.gz", b"<html>" + bytes(999)), "this is a web page"),
    "web page named nrrd": (lambda f: text(f / "scan.nrrd", b"<html>"), "this is a web page, not a NRRD file"),
    "png named nii": (renamed_picture, "this is a PNG picture, not a NIfTI file"),
    "empty file": (lambda f: text(f / "scan.nii", b""), "this is an empty file"),
    "random bytes": (lambda f: text(f / "scan.nii", bytes(range(256)) * 9), "cannot be read as a NIfTI file"),
    "other suffix": (lambda f: text(f / "scan.docx", b"text"), "files of this kind are not supported"),
    "cut nii": (lambda f: cut(write_nifti(f / "scan.nii", NOISE), 0.9), "cut off"),
    "cut header": (lambda f: cut(write_nifti(f / "scan.nii", NOISE), 0.01), "cannot be read as a NIfTI file"),
    "cut nii.gz": (lambda f: cut(write_nifti(f / "scan.nii.gz", NOISE), 0.9), "cut off"),
    "cut nii.gz at its end": (lambda f: cut(write_nifti(f / "scan.nii.gz", NOISE), 0.9999), "cut off"),
    "corrupt nii.gz": (corrupt, "damaged or cut off"),
    "boasting header": (boasting, "cut off"),
    "cut nrrd": (short_nrrd, "damaged or cut off"),
    "cut packed nrrd": (short_packed_nrrd, "damaged or cut off"),
    "complex": (complex_numbers, "complex numbers"),
    "zero size": (zero_size, "no pixels|no voxels|cannot be read"),
    "singular affine": (singular, "affine is singular"),
    "all NaN": (not_finite, "no voxel holds a finite number"),
    "time series": (lambda f: write_nifti(f / "scan.nii.gz", numbers((4, 4, 4, 5))), "5 volumes"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_image_that_cannot_be_used_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, message = CASES[case]
    path = make(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(StudyError, match=message) as caught:
        open_study(path)
    assert path.name in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert isinstance(caught.value, DinoAugSegError)
    assert listing(tmp_path) == before


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for message in ("empty: there is no image here", "empty: a folder of volumes is not one study. Name one file"):
        with pytest.raises(StudyError, match=message):
            open_study(tmp_path / "empty")
        (tmp_path / "empty" / "notes.txt").write_text("text")
        write_nifti(tmp_path / "empty" / "a.nii.gz", numbers((4, 4, 4)))


def test_an_empty_list_or_a_missing_member_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="list of files is empty"):
        open_study([])
    with pytest.raises(StudyError, match=r"b\.png: there is no such file"):
        open_study([write_nifti(tmp_path / "a.nii", numbers((4, 4, 4))), tmp_path / "b.png"])


def test_a_plane_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", numbers((4, 4, 4)))
    with pytest.raises(SettingsError, match=r"'oblique'\. Choose one of axial, coronal, sagittal, native"):
        open_study(path, plane="oblique")
    assert open_study(path, plane="Coronal").plane == "coronal"
