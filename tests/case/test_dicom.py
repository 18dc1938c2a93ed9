"""DICOM series: sorted by position, rescaled, placed, and refused when they are no volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from napari_dinoaugseg.case import VolumeCase, choose_window, open_case, read_mask_volume
from napari_dinoaugseg.errors import CaseError, Hint
from tests.case.builders import OBLIQUE, listing, numbers, write_dicom, write_nifti

VOLUME = numbers((4, 5, 6), np.uint16)


def series(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


@pytest.mark.parametrize("directions", [np.eye(3)[:, :2], OBLIQUE[:, :2], np.eye(3)[:, [1, 2]], -np.eye(3)[:, [0, 2]]])
def test_a_series_is_sorted_by_position_and_placed(directions: np.ndarray, tmp_path: Path) -> None:
    names = {0: "zz.dcm", 1: "aa", 2: "mm.IMA", 3: "bb.dcm"}
    write_dicom(tmp_path / "ct", VOLUME, directions=directions, names=names.__getitem__)
    case = series(tmp_path / "ct", plane="native")
    assert (case.n_slices, case.slice_shape(0), case.modality) == (4, (5, 6), "CT")
    for k in range(4):
        assert np.array_equal(case.slice(k), VOLUME[k].astype(np.float32) - 1024)
    # Voxel (column, row, slice) lies where Image Position and Orientation (Patient) say, turned from LPS to RAS.
    normal = np.cross(directions[:, 0], directions[:, 1])
    lps = np.array([-10.0, 20, 30]) + 4 * 0.5 * directions[:, 0] + 2 * 0.8 * directions[:, 1] + 3 * 3.0 * normal
    assert np.allclose(case.grid.affine @ [4, 2, 3, 1], [*(lps * [-1, -1, 1]), 1], atol=1e-4)


def test_non_square_pixels_keep_their_two_spacings(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, spacing=(0.8, 0.5))
    case = series(tmp_path / "ct", plane="axial")
    assert case.slice_spacing(0) == pytest.approx((0.8, 0.5))
    assert case.display_scale == pytest.approx((3.0, 0.8, 0.5))


def test_the_affine_is_that_of_highdicom(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    paths = write_dicom(tmp_path / "ct", VOLUME, directions=OBLIQUE[:, :2])
    volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    # Theirs runs over (slice, row, column) in LPS, in either direction of the slices.
    ours = np.diag([-1.0, -1, 1, 1]) @ series(tmp_path / "ct").grid.affine
    theirs = volume.affine[:, [2, 1, 0, 3]]
    if theirs[:3, 2] @ ours[:3, 2] < 0:
        theirs = theirs @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1.0]])
    assert np.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2, 0), (0.5, 3.25), (1, 0)])
def test_stored_numbers_are_rescaled(slope: float, intercept: float, tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, slope=slope, intercept=intercept)
    case = series(tmp_path / "ct", plane="native")
    assert np.array_equal(case.slice(2), (VOLUME[2] * float(slope) + intercept).astype(np.float32))
    assert case.display.dtype in (np.int16, np.uint16) or slope == 0.5


def test_each_slice_may_have_a_slope_of_its_own(tmp_path: Path) -> None:
    def pet(k: int, dataset: pydicom.Dataset) -> None:
        dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "PT", 0.5 + k, 0

    write_dicom(tmp_path / "pet", VOLUME, change=pet)
    case = series(tmp_path / "pet", plane="native")
    assert all(np.array_equal(case.slice(k), (VOLUME[k] * (0.5 + k)).astype(np.float32)) for k in range(4))


def test_signed_pixels_are_read(tmp_path: Path) -> None:
    signed = VOLUME.astype(np.int16) - 60
    write_dicom(tmp_path / "ct", signed, intercept=0)
    assert np.array_equal(series(tmp_path / "ct", plane="native").slice(0), signed[0])


def test_colour_slices_are_read(tmp_path: Path) -> None:
    def colour(k: int, dataset: pydicom.Dataset) -> None:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.PixelData = np.full((5, 6, 3), (k, 10, 20), np.uint8).tobytes()

    write_dicom(tmp_path / "us", VOLUME, change=colour)
    case = series(tmp_path / "us", plane="native")
    assert case.is_colour
    assert case.slice(2).shape == (5, 6, 3)
    assert (case.slice(2) == (2, 10, 20)).all()
    assert choose_window(case) is None


def test_one_slice_is_a_case(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "ct", VOLUME[:1])[0]
    for given in (tmp_path / "ct", path, [path]):
        case = series(given)
        assert (case.n_slices, case.slice_distance) == (1, pytest.approx(3.0))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_the_mask_of_a_series_lies_on_its_grid(suffix: str, tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, directions=OBLIQUE[:, :2])
    case = series(tmp_path / "ct")
    out = tmp_path / f"mask{suffix}"
    case.check_output(out)
    masks = [np.full(case.slice_shape(i), i + 1, np.uint8) for i in range(case.n_slices)]
    case.write_mask(out, masks.__getitem__)
    array, grid = read_mask_volume(out)
    assert grid.shape == (6, 5, 4)
    assert np.allclose(grid.affine, case.grid.affine, atol=1e-5)
    assert np.array_equal(case.to_slices(array), np.stack(masks))


def test_labels_whose_rows_run_the_other_way_are_aligned(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)
    case = series(tmp_path / "ct")
    truth = (numbers(case.grid.shape) % 5).astype(np.uint8)
    affine = case.grid.affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    path = write_nifti(tmp_path / "labels.nii.gz", np.ascontiguousarray(truth[:, ::-1]), affine)
    labels = case.read_labels(path, range(case.n_slices))
    assert all(np.array_equal(labels[i], case.to_slices(truth)[i]) for i in labels)


def test_what_is_no_image_is_left_out(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)

    def report(k: int, dataset: pydicom.Dataset) -> None:
        dataset.Modality, dataset.SOPClassUID = "SR", pydicom.uid.BasicTextSRStorage
        del dataset.Rows, dataset.Columns, dataset.PixelData

    write_dicom(tmp_path / "ct", VOLUME[:1], names=lambda _: "report.dcm", change=report, series_uid="1.9")
    (tmp_path / "ct" / "notes.txt").write_text("not DICOM")
    (tmp_path / "ct" / ".DS_Store").write_bytes(b"junk")
    case = series(tmp_path / "ct")
    assert case.n_slices == 4
    assert case.notices == ["1 DICOM file without an image left out: report.dcm (a structured report (SR))"]


def test_a_series_is_chosen_by_uid_or_description(tmp_path: Path) -> None:
    write_dicom(tmp_path / "both" / "a", VOLUME, series_uid="1.2.111", description="Arterial phase")
    write_dicom(tmp_path / "both" / "b", VOLUME[:3], series_uid="1.2.222", description="Venous phase")
    with pytest.raises(CaseError) as caught:
        open_case(tmp_path / "both")
    for part in ("both", "2 series", "Arterial phase", "4 slices", "Venous phase", "3 slices", "1.2.222"):
        assert part in str(caught.value)
    assert caught.value.hint is Hint.CHOOSE_SERIES
    assert series(tmp_path / "both", series="venous").n_slices == 3
    assert series(tmp_path / "both", series="1.2.111").n_slices == 4
    assert series(tmp_path / "both", series="222").n_slices == 3
    with pytest.raises(CaseError, match="no series matches 'portal'"):
        open_case(tmp_path / "both", series="portal")
    with pytest.raises(CaseError, match="2 series"):
        open_case(tmp_path / "both", series="phase")


def move(k: int, by: tuple[float, float, float]) -> Any:
    def change(n: int, dataset: pydicom.Dataset) -> None:
        if n == k:
            dataset.ImagePositionPatient = [float(a) + b for a, b in zip(dataset.ImagePositionPatient, by, strict=True)]

    return change


def put(keyword: str, value: Any, only: int | None = 2) -> Any:
    def change(n: int, dataset: pydicom.Dataset) -> None:
        if only is None or n == only:
            setattr(dataset, keyword, value)

    return change


def frames_without_place(n: int, dataset: pydicom.Dataset) -> None:
    if n == 2:
        dataset.NumberOfFrames = 12
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient


def drop(keyword: str) -> Any:
    return lambda n, dataset: delattr(dataset, keyword) if n == 2 else None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (move(2, (0, 0, -3)), ("IM001.dcm", "IM002.dcm", "same position", "cardiac phases")),
        (move(2, (1.5, 0, 0)), ("IM002.dcm", "shifted by 1.5 mm")),
        (put("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), ("IM002.dcm", "direction differs")),
        (put("PixelSpacing", [0.8, 0.6]), ("IM002.dcm", "pixel spacing differs")),
        (put("ImageOrientationPatient", [1, 0, 0, 0.5, 0.5, 0]), ("IM002.dcm", "broken")),
        (put("PixelSpacing", [0, 0]), ("IM002.dcm", "broken")),
        (drop("ImagePositionPatient"), ("IM002.dcm", "no usable ImagePositionPatient")),
        (drop("ImageOrientationPatient"), ("IM002.dcm", "no usable ImageOrientationPatient")),
        (drop("PixelSpacing"), ("IM002.dcm", "no usable PixelSpacing")),
        (drop("PixelData"), ("IM002.dcm", "pixels are missing")),
        (frames_without_place, ("IM002.dcm", "12 frames", "dcm2niix")),
        (put("PixelData", VOLUME[0].tobytes()[:-10]), ("IM002.dcm", "cannot be read as a DICOM file")),
    ],
)
def test_slices_that_form_no_volume_are_refused_by_name(change: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, change=change)
    before = listing(tmp_path)
    with pytest.raises(CaseError) as caught:
        open_case(tmp_path / "ct")
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert listing(tmp_path) == before


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    def tilt(k: int, dataset: pydicom.Dataset) -> None:
        x, y, z = (float(n) for n in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + k * 0.6, z]

    write_dicom(tmp_path / "ct", VOLUME, change=tilt)
    with pytest.raises(CaseError, match=r"ct.*11\.3 degrees.*tilt"):
        open_case(tmp_path / "ct")


def test_positions_rounded_to_a_tenth_are_even_enough(tmp_path: Path) -> None:
    def rounded(_: int, dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [round(float(n), 1) for n in dataset.ImagePositionPatient]

    write_dicom(tmp_path / "ct", VOLUME, step=1.25, change=rounded)
    assert series(tmp_path / "ct").slice_distance == pytest.approx(1.25, abs=0.05)


@pytest.mark.parametrize("keep", [100, 200, 700])
def test_a_file_that_was_cut_off_is_named(keep: int, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "ct", VOLUME)[1]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CaseError, match=r"IM001\.dcm"):
        open_case(tmp_path / "ct")


def test_a_web_page_named_dcm_is_told(tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_text("<!DOCTYPE html><html>Please log in</html>")
    for given in (tmp_path, tmp_path / "scan.dcm"):
        with pytest.raises(CaseError, match=r"scan\.dcm: this is a web page, not a DICOM file"):
            open_case(given)


def test_a_folder_of_reports_holds_no_image(tmp_path: Path) -> None:
    def report(_: int, dataset: pydicom.Dataset) -> None:
        dataset.Modality = "SR"

    write_dicom(tmp_path / "sr", VOLUME[:1], change=report)
    with pytest.raises(CaseError, match=r"sr: there is no DICOM image here: IM000\.dcm is .*report"):
        open_case(tmp_path / "sr")


def test_jpeg_2000_pixels_are_decoded(tmp_path: Path) -> None:
    paths = write_dicom(tmp_path / "ct", numbers((3, 32, 32), np.uint16))
    expected = series(tmp_path / "ct").display.copy()
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
        dataset.save_as(path)
    assert np.array_equal(series(tmp_path / "ct").display, expected)


def test_a_nifti_file_is_no_dicom(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(numbers((4, 5, 6)), np.eye(4)), tmp_path / "image.nii")
    (tmp_path / "image.nii").rename(tmp_path / "image.dcm")
    with pytest.raises(CaseError, match=r"image\.dcm"):
        open_case(tmp_path / "image.dcm")
