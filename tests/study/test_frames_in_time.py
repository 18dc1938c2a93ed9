"""Loops (2D+t): the frames of one slice are the slices of the study."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_dinoaugseg.errors import LabelError, StudyError
from napari_dinoaugseg.learning.context import neighbour_distance
from napari_dinoaugseg.study import Plane, VolumeStudy, open_study
from tests.study.builders import numbers, write_nifti
from tests.study.test_geometry import ORIENTATIONS, affine_of

FRAMES = numbers((8, 7, 1, 5))


def volume(path: Path, **options: object) -> VolumeStudy:
    study = open_study(path, **options)  # type: ignore[arg-type]
    assert isinstance(study, VolumeStudy)
    return study


def itk_loop(path: Path, frames: np.ndarray = FRAMES) -> Path:
    image = sitk.GetImageFromArray(frames.transpose(3, 2, 1, 0), isVector=False)
    image.SetSpacing((0.8, 0.7, 2.5, 40.0))
    image.SetOrigin((-20.0, -15.0, -30.0, 0.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("name", ["loop.nii", "loop.nii.gz", "loop.nrrd"])
def test_the_frames_are_the_slices_and_the_mask_has_the_shape_of_the_loop(name: str, tmp_path: Path) -> None:
    path = itk_loop(tmp_path / name)
    study = volume(path)
    assert study.n_slices == 5
    assert study.slice_spacing(0) == pytest.approx((0.7, 0.8))
    assert study.slice_distance is None
    assert "5 frames in time (2D+t): they are the slices" in study.notices[0]
    assert all(np.array_equal(study.slice(i), FRAMES[:, :, 0, i].T) for i in range(5))
    out = tmp_path / f"mask{study.mask_suffixes[0]}"
    study.write_mask(out, lambda i: np.full(study.slice_shape(i), i + 1, np.uint8))
    image, mask = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
    assert mask.GetSize() == image.GetSize() == (8, 7, 1, 5)
    assert mask.GetSpacing() == pytest.approx(image.GetSpacing())
    assert mask.GetOrigin() == pytest.approx(image.GetOrigin())
    assert mask.GetDirection() == pytest.approx(image.GetDirection())
    assert sitk.GetArrayFromImage(mask)[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    read = study.read_labels(out)
    assert [int(read[i][0, 0]) for i in sorted(read)] == [1, 2, 3, 4, 5]
    assert read.notices == []


@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS[::5])
def test_frames_come_in_their_order_whatever_the_orientation(
    permutation: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path
) -> None:
    affine = affine_of(permutation, signs, (0.1, 0.2, -0.1), (0.8, 0.8, 0.4))
    study = volume(write_nifti(tmp_path / "loop.nii", FRAMES, affine))
    assert study.n_slices == 5
    assert all(set(study.slice(i).ravel()) == set(FRAMES[:, :, 0, i].ravel()) for i in range(5))
    study.write_mask(tmp_path / "mask.nii", lambda i: (study.slice(i) % 3).astype(np.uint8))
    mask = nib.load(tmp_path / "mask.nii")
    assert np.array_equal(mask.affine, nib.load(tmp_path / "loop.nii").affine)
    assert np.array_equal(np.asarray(mask.dataobj), FRAMES % 3)


def test_a_loop_is_not_cut_across_its_frames(tmp_path: Path) -> None:
    path = itk_loop(tmp_path / "loop.nii")
    with pytest.raises(StudyError, match="its slices are frames, with no distance between them: no coronal plane"):
        open_study(path, plane="coronal")
    study = volume(path, plane="native")
    assert study.n_slices == 5
    with pytest.raises(StudyError, match="its slices are frames"):
        study.in_plane(Plane.SAGITTAL)


def test_frames_have_neighbours_only_where_they_are_alike(tmp_path: Path) -> None:
    still = np.repeat(numbers((30, 30, 1, 1)), 5, axis=3)
    assert neighbour_distance(volume(write_nifti(tmp_path / "still.nii", still)), None) > 0
    moving = np.random.default_rng(0).integers(0, 999, (30, 30, 1, 5)).astype(np.int16)
    assert neighbour_distance(volume(write_nifti(tmp_path / "moving.nii", moving)), None) == 0


def test_labels_of_three_dimensions_fit_a_loop(tmp_path: Path) -> None:
    study = volume(write_nifti(tmp_path / "loop.nii", FRAMES, np.diag([-0.8, -0.7, 2.5, 1])))
    labels = write_nifti(tmp_path / "labels.nii", (FRAMES[:, :, 0] % 2).astype(np.uint8), np.diag([-0.8, -0.7, 1.0, 1]))
    read = study.read_labels(labels)
    assert all(np.array_equal(read[i], FRAMES[:, :, 0, i].T % 2) for i in read)
    with pytest.raises(LabelError, match="8 x 7 x 4 voxels, the image 8 x 7 x 5"):
        study.read_labels(write_nifti(tmp_path / "short.nii", np.ones((8, 7, 1, 4), np.uint8), study.grid.affine))


def test_a_volume_of_several_still_asks_which(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"5 volumes .*--component, from 0 to 4"):
        open_study(write_nifti(tmp_path / "four.nii", numbers((4, 5, 2, 5))))
    vectors = write_nifti(tmp_path / "vectors.nii", numbers((4, 5, 1, 3)), intent_code=1007)
    with pytest.raises(StudyError, match="3 volumes"):
        open_study(vectors)


@pytest.mark.parametrize("shape", [(6, 7, 1, 5), (6, 7, 4, 5)])
def test_labels_of_a_series_give_those_of_the_volume_that_was_chosen(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "series.nii", numbers(shape))
    labels = write_nifti(tmp_path / "labels.nii", (numbers(shape) % 7).astype(np.uint8))
    study = volume(path, component=3)
    read = study.read_labels(labels, range(study.n_slices))
    expected = study.to_slices((numbers(shape)[..., 3] % 7).astype(np.uint8))
    assert all(np.array_equal(read[i], expected[i]) for i in read)
    assert "those of number 3 are taken" in read.notices[0]
