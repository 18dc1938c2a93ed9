"""Label files of volumes: which slices are labelled, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.errors import LabelError
from tests.case.builders import listing, numbers, write_nifti

SHAPE = (6, 7, 8)


@pytest.fixture
def case(tmp_path: Path) -> VolumeCase:
    opened = open_case(write_nifti(tmp_path / "ct.nii.gz", numbers(SHAPE)))
    assert isinstance(opened, VolumeCase)
    return opened


def painted(*slices: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for k in slices:
        labels[1:4, 2:5, k] = k + 1
    return labels


def test_every_slice_with_paint_is_labelled(case: VolumeCase, tmp_path: Path) -> None:
    truth = painted(2, 5)
    labels = case.read_labels(write_nifti(tmp_path / "labels.nii.gz", truth))
    assert sorted(labels) == [2, 5]
    assert labels[5].dtype == np.uint16
    assert all(np.array_equal(labels[i], case.to_slices(truth)[i]) for i in labels)


def test_named_slices_are_labelled_even_without_paint_and_others_are_not(case: VolumeCase, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "labels.nii.gz", painted(2, 5))
    labels = case.read_labels(path, [7, 2, 2, np.int64(0)])  # type: ignore[list-item]
    assert list(labels) == [0, 2, 7]
    assert not labels[0].any()
    assert labels[2].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16, np.float32, np.float64, ">i2"])
def test_labels_of_any_number_type_are_whole_numbers(dtype: str, case: VolumeCase, tmp_path: Path) -> None:
    labels = case.read_labels(write_nifti(tmp_path / "labels.nii.gz", painted(3).astype(dtype)))
    assert np.array_equal(labels[3], case.to_slices(painted(3))[3])


def test_scaled_and_large_labels_are_read(case: VolumeCase, tmp_path: Path) -> None:
    image = nib.Nifti1Image(painted(3).astype(np.int16) * 10, case.grid.affine)
    image.header.set_slope_inter(0.1, 0)
    nib.save(image, tmp_path / "scaled.nii")
    assert np.array_equal(read_mask_volume(tmp_path / "scaled.nii")[0], painted(3))
    many = painted(3).astype(np.int32) * 10000
    array, _ = read_mask_volume(write_nifti(tmp_path / "many.nii", many))
    assert array.dtype == np.uint16
    assert np.array_equal(array, many)


def test_labels_that_cover_a_part_of_the_image_are_put_in_their_place(case: VolumeCase, tmp_path: Path) -> None:
    affine = case.grid.affine @ nib.affines.from_matvec(np.eye(3), (1, 2, 2))
    labels = case.read_labels(write_nifti(tmp_path / "part.nii.gz", painted(3)[1:4, 2:5, 2:7], affine))
    assert np.array_equal(labels[3], case.to_slices(painted(3))[3])
    assert list(labels) == [3]
    assert "begins at voxel (1, 2, 2)" in labels.notices[0]


def many_classes() -> np.ndarray:
    labels = np.zeros(SHAPE)
    labels[1:4, 2:5, 3], labels[0, 0, 3], labels[5, 5, 3] = 1, 104, 51
    return labels


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_labels_that_were_saved_with_the_header_of_a_ct_are_rounded(
    dtype: type, case: VolumeCase, tmp_path: Path
) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(many_classes(), case.grid.affine, header), tmp_path / "labels.nii.gz")
    assert nib.load(tmp_path / "labels.nii.gz").dataobj.slope != 1
    labels = case.read_labels(tmp_path / "labels.nii.gz")
    assert np.array_equal(labels[3], case.to_slices(many_classes())[3])


@pytest.mark.parametrize(("value", "digits"), [(50.98, "50.98"), (0.98, "0.98"), (60000.002, "60000.002")])
def test_a_number_that_is_no_label_is_shown_with_its_digits(
    value: float, digits: str, case: VolumeCase, tmp_path: Path
) -> None:
    path = write_nifti(tmp_path / "labels.nii.gz", (painted(3) > 0) * value)
    with pytest.raises(LabelError, match=rf"it holds {re.escape(digits)}, which is not a label"):
        case.read_labels(path)


def test_numbers_a_hair_off_are_rounded_and_said(case: VolumeCase, tmp_path: Path) -> None:
    labels = case.read_labels(write_nifti(tmp_path / "labels.nii", (painted(3) > 0) * np.float32(0.9999)))
    assert set(np.unique(labels[3])) == {0, 1}
    assert labels.notices == ["The labels of labels.nii are not quite whole numbers (such as 0.9999): rounded."]


def test_a_slope_too_coarse_to_tell_labels_apart_makes_nothing_a_label(case: VolumeCase, tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers(SHAPE), case.grid.affine)
    image.header.set_slope_inter(0.7, 0)
    nib.save(image, tmp_path / "scan.nii")
    with pytest.raises(LabelError, match="which is not a label"):
        case.read_labels(tmp_path / "scan.nii")


def test_white_is_one_class_and_said(case: VolumeCase, tmp_path: Path) -> None:
    labels = case.read_labels(write_nifti(tmp_path / "white.nii", (painted(3) > 0) * np.uint8(255)))
    assert set(np.unique(labels[3])) == {0, 255}
    assert labels.notices == ["The labels of white.nii are 0 and 255: they are one class, and its number is 255."]
    mixed = painted(3)
    mixed[0, 0, 3] = 255
    labels = case.read_labels(write_nifti(tmp_path / "mixed.nii", mixed))
    assert set(np.unique(labels[3])) == {0, 4, 255}
    assert "255 beside other labels: it is a class like the others" in labels.notices[0]


def bad(change: str) -> np.ndarray:
    labels = painted(2).astype(np.float64)
    values = {"negative": -1, "fractional": 0.5, "nan": np.nan, "infinite": np.inf, "huge": 65536}
    labels[0, 0, 0] = values[change]
    return labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("negative", "holds the label -1"),
        ("fractional", "holds 0.5, which is not a label"),
        ("nan", "NaN or infinite"),
        ("infinite", "NaN or infinite"),
        ("huge", "holds the label 65536"),
    ],
)
@pytest.mark.parametrize("slices", [None, [4]])
def test_numbers_that_are_no_labels_are_refused(
    change: str, message: str, slices: list[int] | None, case: VolumeCase, tmp_path: Path
) -> None:
    path = write_nifti(tmp_path / "labels.nii.gz", bad(change))
    before = listing(tmp_path)
    with pytest.raises(LabelError, match=rf"labels\.nii\.gz.*{message}"):
        case.read_labels(path, slices)
    assert listing(tmp_path) == before


def test_only_background_is_refused_unless_slices_are_named(case: VolumeCase, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "labels.nii.gz", painted())
    with pytest.raises(LabelError, match=r"labels\.nii\.gz: every voxel is background"):
        case.read_labels(path)
    assert list(case.read_labels(path, [1])) == [1]


@pytest.mark.parametrize("wrong", [-1, 8, 100])
def test_a_slice_number_out_of_range_is_refused(wrong: int, case: VolumeCase, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "labels.nii.gz", painted(2))
    with pytest.raises(LabelError, match=rf"ct: slice {wrong} does not exist; they are numbered from 0 to 7"):
        case.read_labels(path, [2, wrong])
    with pytest.raises(LabelError, match="no slice is named"):
        case.read_labels(path, [])


def test_another_shape_or_affine_is_refused(case: VolumeCase, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "shape.nii.gz", np.ones((6, 7, 9), np.uint8))
    with pytest.raises(LabelError, match=r"shape\.nii\.gz: these labels do not fit ct: the mask has 6 x 7 x 9 voxels"):
        case.read_labels(path)
    path = write_nifti(tmp_path / "moved.nii.gz", painted(2), case.grid.affine + np.eye(4, k=3) * 2)
    with pytest.raises(LabelError, match=r"moved\.nii\.gz: these labels do not fit ct: .*2 mm apart"):
        case.read_labels(path)


@pytest.mark.parametrize("name", ["none.nii.gz", "none.nrrd", "none.tif", "none.xyz", "none"])
def test_a_missing_label_file_is_named(name: str, case: VolumeCase, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"none"):
        case.read_labels(tmp_path / name)


def test_a_folder_a_picture_and_colours_are_no_labels_of_a_volume(case: VolumeCase, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="this is a folder"):
        case.read_labels(tmp_path)
    (tmp_path / "labels.png").write_bytes(b"x")
    with pytest.raises(LabelError, match=r"labels\.png: files of this kind are not supported"):
        case.read_labels(tmp_path / "labels.png")
    (tmp_path / "labels.tif").write_bytes(b"x")
    with pytest.raises(LabelError, match=r"labels\.tif: a TIFF file does not hold a position"):
        case.read_labels(tmp_path / "labels.tif")
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(LabelError, match="it holds colours"):
        case.read_labels(write_nifti(tmp_path / "rgb.nii.gz", colours))
    with pytest.raises(LabelError, match="2 volumes"):
        case.read_labels(write_nifti(tmp_path / "four.nii.gz", np.stack([painted(2)] * 2, axis=3)))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_label_file_that_was_cut_off_is_named(share: float, case: VolumeCase, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "labels.nii.gz", painted(2))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(LabelError, match=r"labels\.nii\.gz"):
        case.read_labels(path)
