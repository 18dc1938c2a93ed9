"""A case that cannot be used is refused by the command before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinoaugseg.case import open_case
from tests.case.bad_volumes import BAD_VOLUMES, cut, text
from tests.case.builders import numbers, write_dicom, write_nifti

SEGMENT = ("--labels", "labels.nii.gz", "--out", "mask.nii.gz")
SLICES = numbers((5, 8, 9), np.uint16)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


# One of each sort; all of them are tried on the reader itself.
VOLUMES = (
    "missing",
    "web page packed",
    "web page named gz",
    "png named nii",
    "random bytes",
    "zip named nrrd",
    "cut nii",
    "cut nii.gz",
    "cut nrrd",
    "complex",
    "zero size",
    "all NaN",
    "time series",
)


@pytest.mark.parametrize("case", VOLUMES)
def test_a_volume_that_cannot_be_used(case, refused, tmp_path):
    make, says = BAD_VOLUMES[case]
    path = make(tmp_path)
    refused("segment", path.name, *SEGMENT, says=says, names=path.name)


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.tif", "d.bmp"):
        Image.fromarray(NOISE).save(folder / name)
    return folder


BAD_PICTURES = {
    "empty": (lambda f: [file.unlink() for file in f.iterdir()], "there is no image here", "scans"),
    "text": (lambda f: text(f / "a.png", b"hello"), "cannot be read|not a PNG", "a.png"),
    "packed files": (lambda f: text(f / "c.tif", b"PK\x03\x04" + bytes(99)), "ZIP archive", "c.tif"),
    "cut png": (lambda f: cut(f / "a.png", 0.6), "damaged or cut off", "a.png"),
    "cut jpeg": (lambda f: cut(f / "b.jpg", 0.6), "damaged or cut off", "b.jpg"),
    "one name twice": (lambda f: Image.fromarray(NOISE).save(f / "a.jpg"), "same name", "a.jpg"),
    "no numbers": (
        lambda f: Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(f / "c.tif"),
        "no pixel holds a finite number",
        "c.tif",
    ),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_folder_of_pictures_that_cannot_be_used(case, refused, tmp_path):
    spoil, says, names = BAD_PICTURES[case]
    spoil(pictures(tmp_path / "scans"))
    refused("segment", "scans", "--labels", "masks", "--out", "out", says=says, names=names)


def change_of(index: int, **values):
    def change(k, dataset):
        for keyword, value in values.items() if k == index else ():
            setattr(dataset, keyword, value)

    return change


def garbage(folder: Path) -> None:
    folder.mkdir()
    for name in ("IM1.dcm", "IM2.dcm"):
        text(folder / name, np.random.default_rng(1).bytes(3000))


def missing_slice(folder: Path) -> None:
    write_dicom(folder, SLICES)[2].unlink()


def two_phases(folder: Path) -> None:
    write_dicom(folder, SLICES)

    def other(k, dataset):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{k}"

    write_dicom(folder, SLICES[1:], names=lambda k: f"second{k}.dcm", change=other)


def two_series(folder: Path) -> None:
    write_dicom(folder / "a", SLICES, description="Arterial")
    write_dicom(folder / "b", SLICES, description="Venous", series_uid="1.2.826.0.1.3680043.8.498.2")


BAD_DICOM = {
    "garbage": (garbage, "cannot be read as a DICOM", "IM1.dcm"),
    "cut": (lambda f: cut(write_dicom(f, SLICES)[1], 0.9), "damaged or cut off", "IM001.dcm"),
    "several series": (two_series, "2 series.*Arterial.*Venous.*--series", "scan"),
    "duplicates": (two_phases, "same position", "IM000.dcm and second0.dcm"),
    "mixed orientations": (
        lambda f: write_dicom(f, SLICES, change=change_of(3, ImageOrientationPatient=[1, 0, 0, 0, 0, 1])),
        "direction differs",
        "IM003.dcm",
    ),
    "no position": (
        lambda f: write_dicom(f, SLICES, change=change_of(2, ImagePositionPatient=None)),
        "ImagePositionPatient",
        "IM002.dcm",
    ),
}


@pytest.mark.parametrize("case", BAD_DICOM)
def test_a_dicom_folder_that_cannot_be_used(case, refused, tmp_path):
    make, says, names = BAD_DICOM[case]
    make(tmp_path / "scan")
    refused("segment", "scan", *SEGMENT, says=says, names=names)


def test_the_mask_of_a_series_with_a_gap_is_no_nifti(refused, tmp_path):
    missing_slice(tmp_path / "scan")
    case = open_case(tmp_path / "scan")
    case.write_mask(tmp_path / "labels.dcm", lambda i: np.full(case.slice_shape(i), int(i == 1), np.uint8))
    says = "not evenly spaced.*Write a DICOM SEG"
    refused("segment", "scan", "--labels", "labels.dcm", "--out", "mask.nii.gz", says=says, names="mask.nii.gz")


def test_a_series_that_is_not_there(refused, tmp_path):
    two_series(tmp_path / "scan")
    refused("segment", "scan", "--series", "Delayed", *SEGMENT, says="Delayed.*Arterial.*Venous", names="scan")


def test_a_time_point_that_is_not_there(refused, tmp_path):
    write_nifti(tmp_path / "scan.nii.gz", numbers((4, 4, 4, 5)))
    refused(
        *("segment", "scan.nii.gz", "--component", 5, *SEGMENT),
        says="there is no component 5.*0 to 4",
        names="scan.nii.gz",
    )


def test_few_voxels_that_are_no_numbers_are_replaced_and_said(refused, tmp_path):
    """The case is taken; the command stops at its labels."""
    voxels = numbers((6, 7, 8), np.float32)
    voxels[0, 0, :3] = np.nan, np.inf, -np.inf
    write_nifti(tmp_path / "scan.nii.gz", voxels)
    said = refused("segment", "scan.nii.gz", *SEGMENT, says="no such file", names="labels.nii.gz")
    assert "Note: 3 voxels are NaN or infinite: replaced" in said


@pytest.mark.parametrize("command", ["predict", "simulate"])
def test_the_other_commands_refuse_a_case_as_well(command, refused, tmp_path):
    cut(write_nifti(tmp_path / "scan.nii.gz", numbers((20, 20, 20))), 0.7)
    rest = ("--model", "m.safetensors", "--out", "m.nii") if command == "predict" else ("--truth", "truth.nii")
    refused(command, "scan.nii.gz", *rest, says="cut off", names="scan.nii.gz")
