"""Labels, slice numbers and masks to compare that do not fit are refused before anything is computed."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.blobs import AFFINE, SHAPE, truth_voxels
from tests.case.bad_volumes import cut, text
from tests.case.builders import write_nifti

SHIFTED = AFFINE + np.array([[0, 0, 0, 3.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
OTHER_SPACING = AFFINE @ np.diag([1.1, 1, 1, 1])


def labels(folder, array, affine=AFFINE):
    return write_nifti(folder / "labels.nii.gz", array, affine)


def ball(dtype=np.int16, **voxels):
    """The truth with one voxel changed."""
    array = truth_voxels().astype(dtype)
    array[13, 15, 8] = voxels["voxel"]
    return array


HALF_A_SLICE = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 1.0]])


def overhanging() -> np.ndarray:
    """The truth with one painted slice more than the image has."""
    return np.concatenate([truth_voxels(), truth_voxels()[:, :, 8:9]], axis=2)


BAD_LABELS = {
    "missing": (lambda f: (f / "labels.nii.gz").unlink(), "no such file"),
    "web page": (lambda f: text(f / "labels.nii.gz", b"<!DOCTYPE html>"), "this is a web page"),
    "cut": (lambda f: cut(f / "labels.nii.gz", 0.8), "cut off"),
    "folder": (lambda f: [(f / "labels.nii.gz").unlink(), (f / "labels.nii.gz").mkdir()], "this is a folder"),
    "other shape": (
        lambda f: labels(f, overhanging()),
        "40 x 48 x 17 voxels, the image .*386 painted voxels lie outside",
    ),
    "elsewhere": (lambda f: labels(f, truth_voxels(), SHIFTED), "different affines: they lie up to 3 mm apart"),
    "other spacing": (lambda f: labels(f, truth_voxels(), OTHER_SPACING), "different affines"),
    "empty": (lambda f: labels(f, np.zeros(SHAPE, np.uint8)), "every voxel is background"),
    "negative": (lambda f: labels(f, ball(voxel=-2)), "label -2. Save labels as whole numbers from 0"),
    "fractional": (lambda f: labels(f, ball(np.float32, voxel=0.5)), "holds 0.5, which is not a label"),
    "no number": (lambda f: labels(f, ball(np.float32, voxel=np.nan)), "NaN or infinite voxels"),
    "too high": (lambda f: labels(f, ball(np.int32, voxel=70000)), "label 70000. Save labels as whole"),
    "highest": (lambda f: labels(f, ball(np.uint16, voxel=65535)), "65535"),
    "complex": (lambda f: labels(f, truth_voxels().astype(np.complex64)), "complex"),
    "time series": (lambda f: labels(f, np.stack([truth_voxels()] * 3, axis=-1)), "3 volumes"),
}


@pytest.mark.parametrize("example", BAD_LABELS)
def test_a_label_file_that_does_not_fit(example, refused, case):
    spoil, says = BAD_LABELS[example]
    spoil(case)
    rest = ("--labels", "labels.nii.gz", "--out", "mask.nii.gz")
    refused("segment", "image.nii.gz", *rest, says=says, names="labels.nii.gz")


@pytest.mark.parametrize(
    ("slices", "says", "names"),
    [
        ("4,16", "slice 16 does not exist; .*0 to 15", "image"),
        ("4-99999999999", "is not a list of slices", "99999999999"),
        ("four", "is not a list of slices", "'four'"),
        ("4,,8", "is not a list of slices", "'4,,8'"),
        ("8-4", "is not a list of slices", "'8-4'"),
        ("", "is not a list of slices", "''"),
    ],
)
def test_slice_numbers_that_are_none(slices, says, names, refused, case):
    rest = ("--labels", "labels.nii.gz", "--out", "mask.nii.gz", f"--slices={slices}")
    refused("segment", "image.nii.gz", *rest, says=says, names=names)


def test_named_slices_without_any_paint(refused, case):
    rest = ("--labels", "labels.nii.gz", "--out", "mask.nii.gz", "--slices", "0,1")
    refused("segment", "image.nii.gz", *rest, says="named slices hold only background", names="labels.nii.gz")


@pytest.fixture
def pictures(tmp_path):
    """Three pictures in `scans`, masks of two of them in `masks`."""
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
    grey = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    for name in "abc":
        Image.fromarray(grey).save(tmp_path / "scans" / f"{name}.png")
    for name in "ab":
        save_mask(tmp_path / "masks" / f"{name}_mask.png", np.where(grey > 128, 255, 0))
    return tmp_path


def save_mask(path, array):
    Image.fromarray(array.astype(np.uint8)).save(path)


BAD_MASKS = {
    "missing": (lambda f: f.rename(f.with_name("elsewhere")), "no such file or folder", "masks"),
    "empty": (lambda f: [file.unlink() for file in f.iterdir()], "there is no mask here", "masks"),
    "strays": (lambda f: save_mask(f / "z_mask.png", np.eye(9)), "z_mask.png matches no picture of scans", "masks"),
    "two for one": (lambda f: save_mask(f / "a_lesion.png", np.eye(9)), "several masks", "a_lesion"),
    "other size": (
        lambda f: save_mask(f / "a_mask.png", np.eye(9)),
        "9 x 9 pixels, but a.png is 50 x 40",
        "a_mask.png",
    ),
    "colours": (
        lambda f: Image.new("RGB", (50, 40), (255, 0, 9)).save(f / "b_mask.png"),
        "coded in colours",
        "b_mask.png",
    ),
    "cut": (lambda f: cut(f / "a_mask.png", 0.5), "damaged or cut off", "a_mask.png"),
    "background": (
        lambda f: [save_mask(f / f"{name}_mask.png", np.zeros((40, 50))) for name in "ab"],
        "all background",
        "masks",
    ),
}


@pytest.mark.parametrize("example", BAD_MASKS)
def test_a_folder_of_masks_that_does_not_fit(example, refused, pictures):
    spoil, says, names = BAD_MASKS[example]
    spoil(pictures / "masks")
    refused("segment", "scans", "--labels", "masks", "--out", "out", says=says, names=names)


def test_a_named_picture_without_a_mask(refused, pictures):
    rest = ("--labels", "masks", "--out", "out", "--slices", "0,2")
    refused("segment", "scans", *rest, says=r"picture 2 \(c.png\) has no mask", names="masks")


BAD_PAIRS = {
    "missing": (("nothing.nii.gz", "truth.nii.gz"), "no such file", "nothing.nii.gz"),
    "cut": (("cut.nii.gz", "truth.nii.gz"), "cut off", "cut.nii.gz"),
    "folder against file": (("folder", "truth.nii.gz"), "one is a folder, the other a file", "truth.nii.gz"),
    "other shape": (
        ("between.nii.gz", "truth.nii.gz"),
        "do not fit together: .*40 x 48 x 15 voxels",
        "between.nii.gz",
    ),
    "elsewhere": (("moved.nii.gz", "truth.nii.gz"), "do not fit together: .*different affines", "moved.nii.gz"),
    "empty": (("empty.nii.gz", "empty.nii.gz"), "masks are empty on the slices to compare", "empty.nii.gz"),
    "no labels": (("image.nii.gz", "truth.nii.gz"), "Save labels as whole numbers", "image.nii.gz"),
    "slice": (("truth.nii.gz", "truth.nii.gz", "--slices", "3,16"), "slice 16 does not exist; .* 15", "truth.nii.gz"),
    "all excluded": (("truth.nii.gz", "truth.nii.gz", "--exclude-slices", "0-15"), "no slice is left", "truth.nii.gz"),
    "names": (("folder", "other"), "No mask matches by name", "folder"),
    "size": (("folder", "large"), "9 x 9 pixels, but large/a.png is 10 x 10", "folder/a.png"),
}


@pytest.mark.parametrize("example", BAD_PAIRS)
def test_masks_that_cannot_be_compared(example, refused, case):
    nib.save(nib.Nifti1Image(truth_voxels(), AFFINE), case / "cut.nii.gz")
    cut(case / "cut.nii.gz", 0.7)
    write_nifti(case / "between.nii.gz", truth_voxels()[:, :, :-1], AFFINE @ HALF_A_SLICE)
    write_nifti(case / "moved.nii.gz", truth_voxels(), SHIFTED)
    write_nifti(case / "empty.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    for folder in ("folder", "other", "large"):
        (case / folder).mkdir()
    save_mask(case / "folder" / "a.png", np.eye(9))
    save_mask(case / "other" / "b.png", np.eye(9))
    save_mask(case / "large" / "a.png", np.eye(10))
    arguments, says, names = BAD_PAIRS[example]
    refused("evaluate", *arguments, says=says, names=names)


@pytest.mark.parametrize(
    ("changes", "says", "names"),
    [
        (("--truth", "nothing.nii.gz"), "no such file", "nothing.nii.gz"),
        (("--slices-per-round", "1,2"), "one number of slices for each of 3 rounds", "'1,2'"),
        (("--slices-per-round", "1,0,2"), "one number of slices for each", "'1,0,2'"),
        (("--slices-per-round", "one"), "one number of slices for each", "'one'"),
    ],
)
def test_a_simulation_that_cannot_be_played(changes, says, names, refused, case):
    truth = () if "--truth" in changes else ("--truth", "truth.nii.gz")
    refused("simulate", "image.nii.gz", *truth, *changes, says=says, names=names)
