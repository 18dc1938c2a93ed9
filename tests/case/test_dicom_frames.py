"""Multi-frame DICOM: Enhanced CT and MR as volumes, loops without geometry as stacks, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import SecondaryCaptureImageStorage, UltrasoundMultiFrameImageStorage

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.errors import CaseError, SeveralVolumesError
from tests.case.builders import OBLIQUE, numbers, write_dicom, write_enhanced

VOLUME = numbers((4, 5, 6), np.uint16)


def volume(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


@pytest.mark.parametrize("directions", [np.eye(3)[:, :2], OBLIQUE[:, :2], np.eye(3)[:, [1, 2]], -np.eye(3)[:, [0, 2]]])
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(4)))
def test_an_enhanced_file_is_the_volume_of_its_single_slices(
    directions: np.ndarray, order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("enhanced")
    write_dicom(folder / "single", VOLUME, directions=directions)
    write_enhanced(folder / "frames" / "ct.dcm", VOLUME, directions=directions, order=order)
    single, frames = volume(folder / "single", plane="native"), volume(folder / "frames", plane="native")
    assert np.array_equal(single.display, frames.display)
    assert np.allclose(single.grid.affine, frames.grid.affine, atol=1e-9)
    assert (frames.modality, frames.notices) == ("CT", [])
    assert frames.fingerprint == single.fingerprint


def test_each_frame_may_have_a_slope_of_its_own(tmp_path: Path) -> None:
    def pet(k: int, group: pydicom.Dataset, dataset: pydicom.Dataset) -> None:
        transformation = pydicom.Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = 0.5 + k, 0
        group.PixelValueTransformationSequence = [transformation]

    case = volume(write_enhanced(tmp_path / "pet.dcm", VOLUME, order=[2, 0, 3, 1], change=pet), plane="native")
    assert all(np.array_equal(case.slice(k), (VOLUME[k] * (0.5 + k)).astype(np.float32)) for k in range(4))


def test_several_enhanced_files_can_make_one_volume(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "ct" / "b.dcm", VOLUME, order=[0, 2])
    write_enhanced(tmp_path / "ct" / "a.dcm", VOLUME, order=[3, 1])
    case = volume(tmp_path / "ct", plane="native")
    assert all(np.array_equal(case.slice(k), VOLUME[k].astype(np.float32) - 1024) for k in range(4))


def move(which: int, by: tuple[float, float, float]) -> Any:
    def change(k: int, group: pydicom.Dataset, _: pydicom.Dataset) -> None:
        if k == which:
            place = group.PlanePositionSequence[0]
            place.ImagePositionPatient = [float(a) + b for a, b in zip(place.ImagePositionPatient, by, strict=True)]

    return change


def turn(k: int, group: pydicom.Dataset, _: pydicom.Dataset) -> None:
    if k == 2:
        orientation = pydicom.Dataset()
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        group.PlaneOrientationSequence = [orientation]


def forget(k: int, group: pydicom.Dataset, _: pydicom.Dataset) -> None:
    if k == 2:
        del group.PlanePositionSequence


def announce_more(k: int, _: pydicom.Dataset, dataset: pydicom.Dataset) -> None:
    dataset.NumberOfFrames = 5


def cut_pixels(k: int, _: pydicom.Dataset, dataset: pydicom.Dataset) -> None:
    dataset.PixelData = VOLUME[:3].tobytes()


# Slice k is frame 4 - k: messages count frames as DICOM does.
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (move(2, (0, 0, -3)), ("ct.dcm, frames 2 and 3", "same position")),
        (move(2, (1.5, 0, 0)), ("ct.dcm, frame 2", "shifted by 1.5 mm")),
        (turn, ("ct.dcm, frame 2", "direction differs")),
        (forget, ("ct.dcm, frame 2", "no usable ImagePositionPatient")),
        (announce_more, ("ct.dcm", "announces 5 frames but describes 4")),
        (cut_pixels, ("ct.dcm", "cannot be read as a DICOM file")),
    ],
)
def test_frames_that_form_no_volume_are_refused_by_number(change: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "ct.dcm", VOLUME, order=[3, 2, 1, 0], change=change)
    with pytest.raises(CaseError) as caught:
        open_case(path)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def two_times(path: Path) -> Path:
    """Write a file of two time points, frame by frame in turn; the second is brighter by 1000."""
    both = np.concatenate([VOLUME, VOLUME + 1000])

    def change(k: int, group: pydicom.Dataset, _: pydicom.Dataset) -> None:
        time = k // 4
        group.FrameContentSequence[0].TemporalPositionIndex = time + 1
        group.PlanePositionSequence[0].ImagePositionPatient = [-10, 20, 30 + 3 * (k % 4)]

    return write_enhanced(path, both, order=[3, 7, 0, 4, 2, 6, 1, 5], change=change)


def test_time_points_of_one_file_are_chosen_by_number(tmp_path: Path) -> None:
    path = two_times(tmp_path / "mr.dcm")
    with pytest.raises(SeveralVolumesError, match=r"mr\.dcm: .*2 volumes .*TemporalPositionIndex: 1, 2") as e:
        open_case(path)
    assert e.value.count == 2
    for time in (0, 1):
        case = volume(path, plane="native", component=time)
        expected = VOLUME.astype(np.float32) + 1000 * time - 1024
        assert all(np.array_equal(case.slice(k), expected[k]) for k in range(4))
        assert case.notices == [f"volume {time} (from 0) of the 2 in this series"]
    with pytest.raises(CaseError, match="no component 2"):
        open_case(path, component=2)


def test_stacks_of_one_file_are_chosen_by_number(tmp_path: Path) -> None:
    def change(k: int, group: pydicom.Dataset, _: pydicom.Dataset) -> None:
        group.FrameContentSequence[0].StackID = "sagittal" if k >= 2 else "axial"
        orientation = pydicom.Dataset()
        orientation.ImageOrientationPatient = [0, 1, 0, 0, 0, -1] if k >= 2 else [1, 0, 0, 0, 1, 0]
        group.PlaneOrientationSequence = [orientation]
        group.PlanePositionSequence[0].ImagePositionPatient = [3 * k, 0, 0] if k >= 2 else [0, 0, 3 * k]

    path = write_enhanced(tmp_path / "pilot.dcm", VOLUME, order=[2, 0, 3, 1], change=change)
    with pytest.raises(SeveralVolumesError, match="2 stacks"):
        open_case(path)
    assert [volume(path, component=n).plane for n in (0, 1)] == ["axial", "sagittal"]
    second = volume(path, component=1, plane="native")
    # The normal of these sagittal frames points to the right, so the slice furthest left comes first.
    assert np.array_equal(second.slice(1), VOLUME[2].astype(np.float32) - 1024)


def loop(path: Path, frames: np.ndarray, kind: str, **values: Any) -> Path:
    """Write a multi-frame file without functional groups."""

    def change(_: int, dataset: pydicom.Dataset) -> None:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            delattr(dataset, keyword)
        del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.FrameOfReferenceUID
        dataset.SOPClassUID, dataset.Modality = kind, "US"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.NumberOfFrames = len(frames)
        dataset.PixelData = frames.tobytes() + b"\0" * (frames.nbytes % 2)
        if frames.ndim == 4:
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return write_dicom(
        path.parent, frames[:1, ..., 0] if frames.ndim == 4 else frames[:1], names=lambda _: path.name, change=change
    )[0]


@pytest.mark.parametrize("kind", [UltrasoundMultiFrameImageStorage, SecondaryCaptureImageStorage])
@pytest.mark.parametrize("colour", [False, True])
def test_a_loop_without_geometry_is_a_stack_of_its_frames(kind: str, colour: bool, tmp_path: Path) -> None:
    frames = numbers((3, 5, 7, 3) if colour else (3, 5, 7), np.uint8)
    path = loop(tmp_path / "us" / "loop.dcm", frames, kind)
    for given_path in (path, path.parent):
        case = volume(given_path)
        assert (case.n_slices, case.plane, case.slice_spacing(0), case.slice_distance) == (3, "native", None, None)
        assert all(np.array_equal(case.slice(k), frames[k]) for k in range(3))
        assert "nothing about pixel size and position" in case.notices[0]
    assert ".dcm" not in case.mask_suffixes
    masks = [np.full((5, 7), k + 1, np.uint8) for k in range(3)]
    case.write_mask(tmp_path / "mask.nii.gz", masks.__getitem__)
    assert np.array_equal(case.to_slices(read_mask_volume(tmp_path / "mask.nii.gz")[0]), np.stack(masks))
    labels = case.read_labels(tmp_path / "mask.nii.gz")
    assert all(np.array_equal(labels[k], masks[k]) for k in range(3))


def test_a_single_picture_without_geometry_is_a_stack_of_one(tmp_path: Path) -> None:
    frames = numbers((1, 5, 7), np.uint8)
    case = volume(loop(tmp_path / "xray.dcm", frames, SecondaryCaptureImageStorage))
    assert (case.n_slices, case.slice_spacing(0)) == (1, None)
    assert np.array_equal(case.slice(0), frames[0])


def test_loops_of_one_series_are_opened_one_by_one(tmp_path: Path) -> None:
    for uid, name in enumerate(("a.dcm", "b.dcm")):
        frames = numbers((3, 5, 7), np.uint8, seed=uid)
        loop(tmp_path / "us" / name, frames, UltrasoundMultiFrameImageStorage, SOPInstanceUID=f"1.2.77.{uid}")
    with pytest.raises(CaseError, match=r"2 files of this series, such as a\.dcm and b\.dcm.*one of them alone"):
        open_case(tmp_path / "us")
    assert volume(tmp_path / "us" / "b.dcm").n_slices == 3


def test_more_frames_than_a_file_can_hold_are_refused_at_once(tmp_path: Path) -> None:
    path = loop(
        tmp_path / "us.dcm", numbers((3, 5, 7), np.uint8), UltrasoundMultiFrameImageStorage, NumberOfFrames=2**31 - 1
    )
    with pytest.raises(CaseError, match="more than fit into the file"):
        open_case(path)


def test_a_whole_slide_image_is_refused(tmp_path: Path) -> None:
    path = loop(tmp_path / "slide.dcm", numbers((3, 5, 7), np.uint8), "1.2.840.10008.5.1.4.1.1.77.1.6")
    with pytest.raises(CaseError, match=r"slide\.dcm: this is a whole-slide image"):
        open_case(path)


def test_a_damaged_time_with_two_parts_tells_no_frames_apart(tmp_path: Path) -> None:
    def change(_: int, group: pydicom.Dataset, __: pydicom.Dataset) -> None:
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]
        group.FrameContentSequence[0].TemporalPositionIndex = [7, 8]

    path = write_enhanced(tmp_path / "ct.dcm", VOLUME[:2], change=change)
    with pytest.raises(CaseError, match="frames 1 and 2 lie at the same position"):
        open_case(path)
