"""Slices that are not evenly spaced: rounded positions, gaps, uneven steps, and loops of one slice over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import EnhancedMRImageStorage, UltrasoundMultiFrameImageStorage

from napari_dinoaugseg.case import VolumeCase, choose_window, open_case, read_mask_volume
from napari_dinoaugseg.errors import CaseError, LabelError, OutputError, SeveralVolumesError
from napari_dinoaugseg.learning.augmentation import neighbour_distance
from tests.case.builders import OBLIQUE, numbers, write_dicom
from tests.case.dicom_builders import item, write_object

sitk = pytest.importorskip("SimpleITK")

UNEVEN = (0, 5, 10, 15, 20, 30, 40, 50, 60, 70)
GAP = (0, 3, 6, 12, 15, 18)


def volume(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


def write_at(folder: Path, heights: Sequence[float], **options: Any) -> list[Path]:
    """Write slices at these heights in mm above the first, in the order of their files."""
    directions = options.get("directions", np.eye(3)[:, :2])
    normal = np.cross(directions[:, 0], directions[:, 1])

    def change(k: int, dataset: pydicom.Dataset) -> None:
        start = np.array([float(x) for x in dataset.ImagePositionPatient]) - k * 3.0 * normal
        dataset.ImagePositionPatient = [round(float(x), 6) for x in start + heights[k] * normal]

    return write_dicom(folder, numbers((len(heights), 5, 6), np.uint16), change=change, **options)


def masks_of(case: VolumeCase) -> list[np.ndarray]:
    """Labels that differ from slice to slice; nothing on the third."""
    shape = case.slice_shape(0)
    return [(np.indices(shape).sum(0) % (i + 2) == 0).astype(np.uint8) * (i != 2) for i in range(case.n_slices)]


def same(labels: dict[int, Any], masks: list[np.ndarray]) -> bool:
    return all(np.array_equal(labels[i], masks[i]) for i in range(len(masks)))


# --- rounding ------------------------------------------------------------------------------------------------------


def rounded(decimals: int, thickness: float) -> Any:
    def change(k: int, dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [round(float(x), decimals) for x in dataset.ImagePositionPatient]
        dataset.SliceThickness = thickness

    return change


def test_thin_slices_with_rounded_positions_are_even(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", numbers((16, 5, 6), np.uint16), step=0.625, change=rounded(1, 0.625))
    case = volume(tmp_path / "ct", plane="axial")
    assert case.slice_distance == pytest.approx(9.4 / 15)  # as SimpleITK takes it: from the first to the last slice
    (notice,) = case.notices
    assert "up to 0.05 mm off even steps" in notice
    assert "0.6267 mm, the mean from the first to the last slice, is taken" in notice
    # Labels that another program saved on its own grid, and a DICOM SEG, whose frames have the rounded positions, fit.
    masks = masks_of(case)
    case.write_mask(tmp_path / "mask.dcm", masks.__getitem__)
    assert same(case.read_labels(tmp_path / "mask.dcm", range(16)), masks)


def test_the_distance_is_fitted_where_the_header_says_another(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", numbers((16, 5, 6), np.uint16), step=0.625, change=rounded(1, 1.25))
    assert volume(tmp_path / "ct", plane="axial").slice_distance == pytest.approx(0.625, abs=0.003)


@settings(max_examples=12, deadline=None)
@given(
    step=st.floats(0.4, 6),
    decimals=st.integers(1, 3),
    start=st.floats(-300, 300),
    oblique=st.booleans(),
)
def test_rounding_makes_no_series_uneven(
    step: float, decimals: int, start: float, oblique: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ct")
    directions = (OBLIQUE if oblique else np.eye(3))[:, :2]
    write_dicom(
        folder,
        numbers((9, 2, 3), np.uint16),
        step=step,
        origin=(3.7, -4.2, start),
        directions=directions,
        spacing=(2, 2),
        change=rounded(decimals, 9),
    )
    case = volume(folder, plane="native")
    assert case.slice_distance == pytest.approx(step, abs=0.5 * 10**-decimals)
    case.write_mask(folder / "mask.nii.gz", lambda i: np.ones((2, 3), np.uint8))
    sitk.ReadImage(str(folder / "mask.nii.gz"))  # which refuses axes that are not at right angles


@settings(max_examples=12, deadline=None)
@given(step=st.floats(0.4, 6), count=st.integers(5, 12), data=st.data())
def test_a_missing_slice_is_never_taken_for_rounding(
    step: float, count: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ct")
    paths = write_dicom(folder, numbers((count, 2, 3), np.uint16), step=step, change=rounded(1, step))
    paths[data.draw(st.integers(1, count - 2))].unlink()
    case = volume(folder, plane="native")
    assert case.slice_distance is None
    assert any("1 slice seems missing" in notice for notice in case.notices)


# --- uneven slices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [np.eye(3)[:, :2], OBLIQUE[:, :2], np.eye(3)[:, [1, 2]]])
def test_uneven_slices_are_labelled_and_go_out_as_dicom_seg(directions: np.ndarray, tmp_path: Path) -> None:
    write_at(tmp_path / "ct", UNEVEN, directions=directions)
    case = volume(tmp_path / "ct")
    assert case.n_slices == 10  # cut along the slices that were acquired
    assert (case.slice_distance, case.slice_spacing(0)) == (None, pytest.approx((0.8, 0.5)))
    assert case.notices[0].startswith("the slices are not evenly spaced, 5 to 10 mm apart")
    masks = masks_of(case)
    case.check_output(tmp_path / "mask.dcm")
    case.write_mask(tmp_path / "mask.dcm", masks.__getitem__)
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    places = {tuple(pydicom.dcmread(path).ImagePositionPatient) for path in (tmp_path / "ct").iterdir()}
    found = {tuple(g.PlanePositionSequence[0].ImagePositionPatient) for g in seg.PerFrameFunctionalGroupsSequence}
    assert len(found) == 9
    assert found < places
    assert same(case.read_labels(tmp_path / "mask.dcm", range(10)), masks)
    assert len(highdicom.seg.segread(tmp_path / "mask.dcm").segment_numbers) == 1


@pytest.mark.parametrize("heights", [UNEVEN, GAP])
@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.nrrd"])
def test_a_file_with_one_distance_for_all_is_refused_for_uneven_slices(
    heights: Sequence[float], name: str, tmp_path: Path
) -> None:
    write_at(tmp_path / "ct", heights)
    case = volume(tmp_path / "ct")
    for write in (case.check_output, lambda path: case.write_mask(path, masks_of(case).__getitem__)):
        with pytest.raises(OutputError, match=r"not evenly spaced.*DICOM SEG \(\.dcm\).*TIFF stack \(\.tif\)"):
            write(tmp_path / name)
    assert not (tmp_path / name).exists()
    assert case.mask_suffixes == (".dcm", ".rtstruct.dcm", ".tif", ".tiff")


def test_uneven_slices_that_cannot_have_a_seg_go_out_as_pages(tmp_path: Path) -> None:
    write_at(tmp_path / "ct", UNEVEN)
    for path in (tmp_path / "ct").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    case = volume(tmp_path / "ct")
    assert case.mask_suffixes == (".tif", ".tiff")
    with pytest.raises(OutputError, match=r"Write a TIFF stack"):
        case.check_output(tmp_path / "mask.nii.gz")
    with pytest.raises(OutputError, match=r"no FrameOfReferenceUID. Write \.tif instead"):
        case.check_output(tmp_path / "mask.dcm")
    masks = masks_of(case)
    case.write_mask(tmp_path / "mask.tif", masks.__getitem__)
    assert same(case.read_labels(tmp_path / "mask.tif", range(10)), masks)


def test_labels_that_another_program_drew_on_uneven_slices_fit(tmp_path: Path) -> None:
    write_at(tmp_path / "ct", UNEVEN)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    case = volume(tmp_path / "ct")
    masks = masks_of(case)
    drawn = sitk.GetImageFromArray(np.stack(masks))
    drawn.CopyInformation(image)
    sitk.WriteImage(drawn, str(tmp_path / "painted.nii.gz"))
    assert same(case.read_labels(tmp_path / "painted.nii.gz", range(10)), masks)


def test_a_segmentation_beside_the_uneven_slices_is_refused(tmp_path: Path) -> None:
    write_at(tmp_path / "ct", UNEVEN)
    write_at(tmp_path / "other", [height + 2 for height in UNEVEN])
    case, other = volume(tmp_path / "ct"), volume(tmp_path / "other")
    other.write_mask(tmp_path / "mask.dcm", masks_of(other).__getitem__)
    with pytest.raises(LabelError, match="off the slices"):
        case.read_labels(tmp_path / "mask.dcm")


@pytest.mark.parametrize(
    ("heights", "words"),
    [
        (GAP, "between IM002.dcm and IM003.dcm there is a gap of 6 mm instead of 3 mm, where 1 slice seems missing"),
        ((0, 3, 12, 15, 18), "gap of 9 mm instead of 3 mm, where 2 slices seem missing"),
        ((0, 3, 9), "between IM001.dcm and IM002.dcm there is a gap of 6 mm"),
        ((0, 3, 7, 9), "not evenly spaced, 2 to 4 mm apart"),
    ],
)
def test_a_gap_is_told_from_uneven_steps(heights: Sequence[float], words: str, tmp_path: Path) -> None:
    write_at(tmp_path / "ct", heights)
    case = volume(tmp_path / "ct")
    assert (case.n_slices, case.slice_distance) == (len(heights), None)
    assert words in case.notices[0]


def test_a_gap_between_frames_is_told_by_their_numbers(tmp_path: Path) -> None:
    groups = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in (12, 6, 3, 0)]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    path = write_object(
        tmp_path / "mr.dcm",
        *(EnhancedMRImageStorage, "MR", numbers((4, 5, 6), np.uint16)),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )
    assert "between mr.dcm, frame 2 and mr.dcm, frame 1 there is a gap of 6 mm" in volume(path).notices[0]


def test_another_plane_of_uneven_slices_has_no_pixel_size(tmp_path: Path) -> None:
    write_at(tmp_path / "ct", UNEVEN)
    case = volume(tmp_path / "ct", plane="coronal")
    assert (case.slice_spacing(0), case.slice_distance) == (None, pytest.approx(0.8))


# --- loops ---------------------------------------------------------------------------------------------------------


def write_loop(folder: Path, count: int = 6, **tags: Any) -> np.ndarray:
    frames = numbers((count, 5, 6), np.uint16)
    order = [3, 0, 5, 1, 4, 2]

    def change(k: int, dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [-10, 20, 30]
        dataset.InstanceNumber = 1
        for keyword, value in tags.items():
            setattr(dataset, keyword, value(k))

    write_dicom(folder, frames, names=lambda k: f"{order[k]}.dcm", change=change)
    return frames


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("TriggerTime", lambda k: 30.0 * k),
        ("TemporalPositionIdentifier", lambda k: k + 1),
        ("AcquisitionTime", lambda k: f"09{k:02d}00.5"),
        ("InstanceNumber", lambda k: k + 1),
    ],
)
def test_frames_over_time_are_the_slices(keyword: str, value: Any, tmp_path: Path) -> None:
    frames = write_loop(tmp_path / "mr", **{keyword: value})
    case = volume(tmp_path / "mr")
    assert all(np.array_equal(case.slice(k), frames[k].astype(np.float32) - 1024) for k in range(6))
    assert (case.n_slices, case.slice_distance, case.slice_spacing(0)) == (6, None, pytest.approx((0.8, 0.5)))
    (notice,) = case.notices
    assert f"the 6 images lie at one position: they are taken as frames of a loop, in the order of {keyword}" in notice
    assert "third axis of a mask" in notice


def test_a_loop_is_cut_along_its_frames_whatever_its_pixels(tmp_path: Path) -> None:
    write_loop(tmp_path / "mr", TriggerTime=lambda k: 30.0 * k, PixelSpacing=lambda _: [3, 3])
    assert volume(tmp_path / "mr").slice_shape(0) == (5, 6)


def test_the_mask_of_a_loop_has_its_frames_along_the_third_axis(tmp_path: Path) -> None:
    write_loop(tmp_path / "mr", TriggerTime=lambda k: 30.0 * k)
    case = volume(tmp_path / "mr")
    masks = masks_of(case)
    for name in ("mask.nii.gz", "mask.nrrd", "mask.dcm"):
        case.check_output(tmp_path / name)
        case.write_mask(tmp_path / name, masks.__getitem__)
        assert same(case.read_labels(tmp_path / name, range(6)), masks)
    image = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    # As SimpleITK reads the loop itself.
    files = [str(tmp_path / "mr" / f"{n}.dcm") for n in (3, 0, 5, 1, 4, 2)]
    series = sitk.ReadImage(files)
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(image, of)(), getattr(series, of)())


def test_each_frame_of_a_seg_refers_to_its_frame_of_the_loop(tmp_path: Path) -> None:
    write_loop(tmp_path / "mr", TriggerTime=lambda k: 30.0 * k)
    case = volume(tmp_path / "mr")
    case.write_mask(tmp_path / "mask.dcm", masks_of(case).__getitem__)
    files = [pydicom.dcmread(path) for path in (tmp_path / "mr").iterdir()]
    time_of = {dataset.SOPInstanceUID: float(dataset.TriggerTime) for dataset in files}
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    assert len(seg.PerFrameFunctionalGroupsSequence) == 5
    for group in seg.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        frame = int(time_of[image.ReferencedSOPInstanceUID] / 30)
        assert group.FrameContentSequence[0].TemporalPositionIndex == frame + 1
        assert [float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient] == [-10, 20, 30]
    with pytest.raises(LabelError, match="at one place, one after the other in time"):
        read_mask_volume(tmp_path / "mask.dcm")


def test_a_seg_of_another_loop_is_refused(tmp_path: Path) -> None:
    write_loop(tmp_path / "mr", TriggerTime=lambda k: 30.0 * k)
    (tmp_path / "mr" / "0.dcm").rename(tmp_path / "0.dcm")
    short = volume(tmp_path / "mr")
    (tmp_path / "0.dcm").rename(tmp_path / "mr" / "0.dcm")
    whole = volume(tmp_path / "mr")
    whole.write_mask(tmp_path / "mask.dcm", masks_of(whole).__getitem__)
    with pytest.raises(LabelError, match="images that are not in this loop"):
        short.read_labels(tmp_path / "mask.dcm")


def test_a_loop_in_one_file_keeps_its_place(tmp_path: Path) -> None:
    frames = numbers((6, 5, 6), np.uint16)
    path = write_object(
        tmp_path / "us.dcm",
        *(UltrasoundMultiFrameImageStorage, "US", frames),
        PixelSpacing=[0.7, 0.8],
        FrameTime=33,
        FrameIncrementPointer=0x00181063,
        ImagePositionPatient=[1, 2, 3],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )
    case = volume(path)
    assert all(np.array_equal(case.slice(k), frames[k]) for k in range(6))
    assert "in the order of the file" in case.notices[0]
    masks = masks_of(case)
    case.write_mask(tmp_path / "mask.dcm", masks.__getitem__)
    assert same(case.read_labels(tmp_path / "mask.dcm", range(6)), masks)


def test_two_loops_of_one_slice_are_chosen_by_number(tmp_path: Path) -> None:
    write_loop(
        tmp_path / "mr",
        TriggerTime=lambda k: 30.0 * (k // 2),
        ImageType=lambda k: ["ORIGINAL", "PRIMARY", "MP"[k % 2]],
    )
    with pytest.raises(SeveralVolumesError, match=r"2 volumes \(loops at the same position, told apart by ImageType\)"):
        open_case(tmp_path / "mr")
    assert volume(tmp_path / "mr", component=1).n_slices == 3


def test_frames_that_nothing_orders_are_refused(tmp_path: Path) -> None:
    write_loop(tmp_path / "mr")
    with pytest.raises(CaseError, match="same position but differ"):
        open_case(tmp_path / "mr")


def test_frames_have_neighbours_only_where_they_are_alike(tmp_path: Path) -> None:
    write_loop(tmp_path / "noise", TriggerTime=lambda k: 30.0 * k)
    case = volume(tmp_path / "noise")
    assert neighbour_distance(case, choose_window(case)) == 0
    still = np.repeat(numbers((1, 5, 6), np.uint16), 6, axis=0)

    def change(k: int, dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient, dataset.TriggerTime = [0, 0, 0], 30.0 * k

    write_dicom(tmp_path / "still", still, change=change)
    case = volume(tmp_path / "still")
    assert neighbour_distance(case, choose_window(case)) == 2
