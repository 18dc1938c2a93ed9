"""Loops (2D+t): the frames of one slice are the slices of the case."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_dinoaugseg.case import Plane, VolumeCase, open_case
from napari_dinoaugseg.errors import CaseError, Hint, LabelError
from napari_dinoaugseg.learning.augmentation import neighbour_distance
from tests.case.builders import numbers, write_nifti
from tests.case.test_geometry import ORIENTATIONS, affine_of

FRAMES = numbers((8, 7, 1, 5))


def volume(path: Path, **options: object) -> VolumeCase:
    case = open_case(path, **options)  # type: ignore[arg-type]
    assert isinstance(case, VolumeCase)
    return case


def itk_loop(path: Path, frames: np.ndarray = FRAMES) -> Path:
    image = sitk.GetImageFromArray(frames.transpose(3, 2, 1, 0), isVector=False)
    image.SetSpacing((0.8, 0.7, 2.5, 40.0))
    image.SetOrigin((-20.0, -15.0, -30.0, 0.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("name", ["loop.nii", "loop.nii.gz", "loop.nrrd"])
def test_the_frames_are_the_slices_and_the_mask_has_the_shape_of_the_loop(name: str, tmp_path: Path) -> None:
    path = itk_loop(tmp_path / name)
    case = volume(path)
    assert case.n_slices == 5
    assert case.slice_spacing(0) == pytest.approx((0.7, 0.8))
    assert case.slice_distance is None
    assert "5 frames in time (2D+t): they are the slices" in case.notices[0]
    assert all(np.array_equal(case.slice(i), FRAMES[:, :, 0, i].T) for i in range(5))
    out = tmp_path / f"mask{case.mask_suffixes[0]}"
    case.write_mask(out, lambda i: np.full(case.slice_shape(i), i + 1, np.uint8))
    image, mask = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
    assert mask.GetSize() == image.GetSize() == (8, 7, 1, 5)
    assert mask.GetSpacing() == pytest.approx(image.GetSpacing())
    assert mask.GetOrigin() == pytest.approx(image.GetOrigin())
    assert mask.GetDirection() == pytest.approx(image.GetDirection())
    assert sitk.GetArrayFromImage(mask)[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    read = case.read_labels(out)
    assert [int(read[i][0, 0]) for i in sorted(read)] == [1, 2, 3, 4, 5]
    assert read.notices == []


@pytest.mark.parametrize("across", [0, 1, 2])
@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS[::5])
def test_frames_come_in_their_order_whatever_the_orientation_and_the_axis_across_the_slice(
    permutation: tuple[int, ...], signs: tuple[int, ...], across: int, tmp_path: Path
) -> None:
    affine = affine_of(permutation, signs, (0.1, 0.2, -0.1), (0.8, 0.8, 0.4))
    frames = np.moveaxis(FRAMES, 2, across)
    case = volume(write_nifti(tmp_path / "loop.nii", frames, affine))
    assert case.n_slices == 5
    assert all(set(case.slice(i).ravel()) == set(FRAMES[:, :, 0, i].ravel()) for i in range(5))
    steps = [np.linalg.norm(affine[:3, axis]) for axis in range(3) if axis != across]
    assert sorted(case.slice_spacing(0)) == pytest.approx(sorted(steps))
    case.write_mask(tmp_path / "mask.nii", lambda i: (case.slice(i) % 3).astype(np.uint8))
    mask = nib.load(tmp_path / "mask.nii")
    assert np.array_equal(mask.affine, nib.load(tmp_path / "loop.nii").affine)
    assert np.array_equal(np.asarray(mask.dataobj), frames % 3)
    read = case.read_labels(tmp_path / "mask.nii", range(5))
    assert all(np.array_equal(read[i], case.slice(i) % 3) for i in range(5))


def test_a_loop_is_not_cut_across_its_frames(tmp_path: Path) -> None:
    path = itk_loop(tmp_path / "loop.nii")
    with pytest.raises(CaseError, match="its slices are frames, with no distance between them: no coronal plane"):
        open_case(path, plane="coronal")
    case = volume(path, plane="native")
    assert case.n_slices == 5
    with pytest.raises(CaseError, match="its slices are frames"):
        case.in_plane(Plane.SAGITTAL)


def test_frames_have_neighbours_only_where_they_are_alike(tmp_path: Path) -> None:
    still = np.repeat(numbers((30, 30, 1, 1)), 5, axis=3)
    assert neighbour_distance(volume(write_nifti(tmp_path / "still.nii", still)), None) > 0
    moving = np.random.default_rng(0).integers(0, 999, (30, 30, 1, 5)).astype(np.int16)
    assert neighbour_distance(volume(write_nifti(tmp_path / "moving.nii", moving)), None) == 0


def test_labels_of_three_dimensions_fit_a_loop(tmp_path: Path) -> None:
    case = volume(write_nifti(tmp_path / "loop.nii", FRAMES, np.diag([-0.8, -0.7, 2.5, 1])))
    labels = write_nifti(tmp_path / "labels.nii", (FRAMES[:, :, 0] % 2).astype(np.uint8), np.diag([-0.8, -0.7, 1.0, 1]))
    read = case.read_labels(labels)
    assert all(np.array_equal(read[i], FRAMES[:, :, 0, i].T % 2) for i in read)
    with pytest.raises(LabelError, match="8 x 7 x 4 voxels, the image 8 x 7 x 5"):
        case.read_labels(write_nifti(tmp_path / "short.nii", np.ones((8, 7, 1, 4), np.uint8), case.grid.affine))


def test_a_volume_of_several_still_asks_which(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="5 volumes") as caught:
        open_case(write_nifti(tmp_path / "four.nii", numbers((4, 5, 2, 5))))
    assert (caught.value.hint, caught.value.message.facts) == (Hint.CHOOSE_VOLUME, {"last": 4})
    vectors = write_nifti(tmp_path / "vectors.nii", numbers((4, 5, 1, 3)), intent_code=1007)
    with pytest.raises(CaseError, match="3 volumes"):
        open_case(vectors)


@pytest.mark.parametrize("shape", [(6, 7, 1, 5), (6, 7, 4, 5)])
def test_labels_of_a_series_give_those_of_the_volume_that_was_chosen(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "series.nii", numbers(shape))
    labels = write_nifti(tmp_path / "labels.nii", (numbers(shape) % 7).astype(np.uint8))
    case = volume(path, component=3)
    read = case.read_labels(labels, range(case.n_slices))
    expected = case.to_slices((numbers(shape)[..., 3] % 7).astype(np.uint8))
    assert all(np.array_equal(read[i], expected[i]) for i in read)
    assert "those of number 3 are taken" in read.notices[0]
