"""The developers' labelled images: each opens, its masks fit, and masks come back as they were painted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.case import (
    PictureCase,
    VolumeCase,
    align,
    match_masks,
    open_case,
    read_mask_folder,
    read_mask_volume,
)
from napari_dinoaugseg.errors import CaseError

pytestmark = pytest.mark.data
TOTAL = "totalsegmentator_examples"


@pytest.mark.parametrize(
    ("image", "labels", "slices", "classes"),
    [
        ("msd_spleen_sample/sub-spleen2_ct.nii.gz", "msd_spleen_sample/sub-spleen2_ct_seg-manual.nii.gz", 26, 1),
        (f"{TOTAL}/mr_nifti_small/example_mr_sm.nii.gz", f"{TOTAL}/mr_nifti_small/example_seg_mr.nii.gz", 20, 23),
        (f"{TOTAL}/ct_nifti_small/example_ct_sm.nii.gz", f"{TOTAL}/ct_nifti_small/example_seg.nii.gz", 30, 41),
        (f"{TOTAL}/ct_nifti_spine/example_ct.nii.gz", f"{TOTAL}/ct_nifti_spine/totalseg.nii.gz", 112, 8),
        (f"{TOTAL}/ct_dicom/example_ct_dicom", f"{TOTAL}/ct_dicom/example_seg_dicom.nii.gz", 20, 31),
        ("dicom_seg_ct_liver/ct-3slice", "dicom_seg_ct_liver/liver_seg.nrrd", 3, 1),
    ],
)
def test_volumes_and_their_labels(
    image: str, labels: str, slices: int, classes: int, shared_data: Path, tmp_path: Path
) -> None:
    case = open_case(shared_data / image)
    assert isinstance(case, VolumeCase)
    assert case.n_slices == slices
    painted = case.read_labels(shared_data / labels, range(slices))
    assert len(np.unique(np.stack(list(painted.values())))) == classes + 1
    truth, grid = read_mask_volume(shared_data / labels)
    for suffix in (".nii.gz", ".nrrd"):
        case.write_mask(tmp_path / f"mask{suffix}", painted.__getitem__)
        mask, mask_grid = read_mask_volume(tmp_path / f"mask{suffix}")
        assert np.array_equal(align(mask, mask_grid, grid), truth)


def test_labels_lie_on_the_organs_of_the_dicom_series(shared_data: Path) -> None:
    """The labels run the other way than the DICOM rows: aligned by place, they cover what has their intensity."""
    case = open_case(shared_data / TOTAL / "ct_dicom" / "example_ct_dicom")
    labels = case.read_labels(shared_data / TOTAL / "ct_dicom" / "example_seg_dicom.nii.gz")
    values = np.stack([case.slice(i) for i in labels])
    mask = np.stack(list(labels.values()))
    assert case.modality == "CT"
    for organ in (1, 5):  # spleen and liver are soft tissue all through
        assert 20 < np.median(values[mask == organ]) < 180
        assert np.percentile(values[mask == organ], 5) > -50
    flipped = mask[:, ::-1]
    assert values[mask == 5].std() < 0.5 * values[flipped == 5].std()


@pytest.mark.parametrize("patient", ["train/SCD0000101", "test/SCD0000201", "test/SCD0000401"])
@pytest.mark.parametrize("phase", ["ED", "ES"])
def test_sunnybrook_folders(patient: str, phase: str, shared_data: Path) -> None:
    folder = shared_data / "sunnybrook_dicom" / patient / phase
    case = open_case(folder)
    assert case.slice_shape(0) == (256, 256)
    assert case.n_slices == len(list((folder / "dicom").glob("*.dcm")))
    assert open_case(folder / "dicom").fingerprint == case.fingerprint


def test_two_phases_in_one_series_are_refused(shared_data: Path) -> None:
    with pytest.raises(CaseError, match="same position"):
        open_case(shared_data / "sunnybrook_dicom" / "train" / "SCD0000101")


@pytest.mark.parametrize(
    ("pictures", "masks", "count"),
    [
        ("cvc_clinicdb/test/images", "cvc_clinicdb/test/masks", 40),
        ("cvc_clinicdb/train", "cvc_clinicdb/train", 30),
        ("ph2/test/images", "ph2/test/masks", 16),
        ("busi/test", "busi/test", 32),
        ("hc18/train", "hc18/train", 24),
        ("lung_ct/train/2d_images", "lung_ct/train/2d_masks", 18),
        ("kvasir_seg_sample/images", "kvasir_seg_sample/masks", 5),
    ],
)
def test_folders_of_pictures_and_their_masks(
    pictures: str, masks: str, count: int, shared_data: Path, tmp_path: Path
) -> None:
    case = open_case(shared_data / pictures)
    assert isinstance(case, PictureCase)
    labels = case.read_labels(shared_data / masks)
    assert (case.n_slices, list(labels)) == (count, list(range(count)))
    assert {int(value) for mask in labels.values() for value in np.unique(mask)} == {0, 255}
    case.write_mask(tmp_path / "out", labels.__getitem__)
    truth, found = read_mask_folder(shared_data / masks), read_mask_folder(tmp_path / "out")
    pairs = match_masks(found, truth)
    assert len(pairs) == count
    assert all(np.array_equal(found[mine], truth[theirs]) for mine, theirs in pairs.items())


def test_tiff_files_that_pillow_refuses(shared_data: Path) -> None:
    case = open_case(shared_data / "cvc_clinicdb" / "original_tif")
    assert case.is_colour
    assert case.slice(0).shape == (288, 384, 3)
