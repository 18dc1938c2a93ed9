"""A reader uses the geometry that a DICOM file has, wherever it stands, and says truly what it lacks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedUSVolumeStorage,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
)

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.errors import CaseError
from tests.case.builders import numbers
from tests.case.dicom_builders import item, write_mosaic, write_object

sitk = pytest.importorskip("SimpleITK")

FRAMES = numbers((4, 5, 6), np.uint16)
PLACE = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
SAGITTAL = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
RECON = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]


def volume(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **{"plane": "native", **options})
    assert isinstance(case, VolumeCase)
    return case


def geometry(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    image = sitk.ReadImage(str(path))
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return image.GetSize(), np.column_stack([direction * image.GetSpacing(), image.GetOrigin()])


def lies_as(path: Path, case: VolumeCase, out: Path) -> None:
    """Hold the mask of a case against the file it belongs to, both as SimpleITK reads them."""
    case.write_mask(out, lambda i: np.full(case.slice_shape(i), i + 1, np.uint8))
    (size, place), (mask_size, mask_place) = geometry(path), geometry(out)
    assert mask_size == size
    assert np.allclose(mask_place, place, atol=1e-5)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
    assert [int(n) for n in array[:, 0, 0]] == list(range(1, case.n_slices + 1))


@pytest.mark.parametrize("step", [2.5, -2.5])
@pytest.mark.parametrize("place", [PLACE, SAGITTAL])
@pytest.mark.parametrize("vector", [True, False])
def test_a_spect_is_placed_by_its_detector(step: float, place: dict[str, Any], vector: bool, tmp_path: Path) -> None:
    values = {"SliceVector": [1, 2, 3, 4]} if vector else {}
    path = write_object(
        tmp_path / "nm.dcm",
        *(NuclearMedicineImageStorage, "NM", FRAMES),
        **values,
        ImageType=RECON,
        PixelSpacing=[0.7, 0.8],
        SpacingBetweenSlices=step,
        DetectorInformationSequence=[item(**place)],
    )
    case = volume(path)
    assert case.grid.spacing == pytest.approx((0.8, 0.7, 2.5))
    assert (case.notices, case.slice_distance) == ([], pytest.approx(2.5))
    # Frames stay in the order of the file, whichever way they run.
    assert all(np.array_equal(case.slice(k), FRAMES[k]) for k in range(4))
    lies_as(path, case, tmp_path / "mask.nii.gz")
    lies_as(path, case, tmp_path / "mask.nrrd")


def test_frames_of_a_spect_lie_where_its_slice_vector_says(tmp_path: Path) -> None:
    path = write_object(
        tmp_path / "nm.dcm",
        *(NuclearMedicineImageStorage, "NM", FRAMES),
        ImageType=RECON,
        PixelSpacing=[0.7, 0.8],
        SpacingBetweenSlices=2.5,
        SliceVector=[2, 4, 1, 3],
        DetectorInformationSequence=[item(**PLACE)],
    )
    case = volume(path)
    assert all(np.array_equal(case.slice(k), FRAMES[frame]) for k, frame in enumerate((2, 0, 3, 1)))
    assert case.grid.affine[2, 3] == pytest.approx(3 - 2.5)


def test_time_slots_of_a_gated_spect_are_volumes(tmp_path: Path) -> None:
    path = write_object(
        tmp_path / "nm.dcm",
        *(NuclearMedicineImageStorage, "NM", FRAMES),
        ImageType=["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"],
        PixelSpacing=[0.7, 0.8],
        SpacingBetweenSlices=2.5,
        SliceVector=[1, 2, 1, 2],
        TimeSlotVector=[1, 1, 2, 2],
        DetectorInformationSequence=[item(**PLACE)],
    )
    with pytest.raises(CaseError, match=r"2 volumes .*TimeSlotVector"):
        open_case(path)
    assert np.array_equal(volume(path, component=1).slice(0), FRAMES[2])


def test_projections_of_nuclear_medicine_are_no_slices(tmp_path: Path) -> None:
    path = write_object(
        tmp_path / "nm.dcm",
        *(NuclearMedicineImageStorage, "NM", FRAMES),
        ImageType=["ORIGINAL", "PRIMARY", "STATIC", "EMISSION"],
        PixelSpacing=[0.7, 0.8],
        SpacingBetweenSlices=2.5,
        DetectorInformationSequence=[item(**PLACE)],
    )
    case = volume(path)
    assert (case.slice_spacing(0), case.slice_distance) == (pytest.approx((0.7, 0.8)), None)
    assert "not where its frames lie" in case.notices[0]
    assert ".dcm" not in case.mask_suffixes


@pytest.mark.parametrize(
    ("kind", "modality"),
    [
        (PositronEmissionTomographyImageStorage, "PT"),
        (MRImageStorage, "MR"),
        (CTImageStorage, "CT"),
        (MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "OT"),
    ],
)
def test_frames_follow_the_first_by_the_distance_of_slices(kind: str, modality: str, tmp_path: Path) -> None:
    path = write_object(
        tmp_path / "mf.dcm", kind, modality, FRAMES, PixelSpacing=[0.7, 0.8], SpacingBetweenSlices=-2.5, **PLACE
    )
    case = volume(path)
    assert case.grid.spacing == pytest.approx((0.8, 0.7, 2.5))
    assert np.allclose(case.grid.affine[:3, 2:], [[0, -1], [0, -2], [-2.5, 3]])
    if modality in ("PT", "MR"):  # of the others, SimpleITK leaves the distance of slices or everything out
        lies_as(path, case, tmp_path / "mask.nii.gz")


def test_frames_lie_where_a_vector_of_locations_says(tmp_path: Path) -> None:
    path = write_object(
        tmp_path / "sc.dcm",
        *(MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "OT", FRAMES),
        NominalScannedPixelSpacing=[0.7, 0.8],
        SliceLocationVector=[7.0, 9.0, 11.0, 13.0],
        FrameIncrementPointer=0x00182005,
        **PLACE,
    )
    case = volume(path)
    assert case.grid.spacing == pytest.approx((0.8, 0.7, 2.0))
    assert case.notices == ["the pixel size is the nominal one of the scanned film or screen, 0.7 x 0.8 mm"]


def test_a_thickness_that_stands_for_the_distance_of_frames_is_told(tmp_path: Path) -> None:
    path = write_object(
        tmp_path / "ct.dcm", CTImageStorage, "CT", FRAMES, PixelSpacing=[1, 1], SliceThickness=2, **PLACE
    )
    case = volume(path)
    assert case.slice_distance == pytest.approx(2)
    assert case.notices == ["the file does not say how far its frames lie apart: the slice thickness, 2 mm, is taken"]


def test_frames_of_a_probe_volume_lie_in_it(tmp_path: Path) -> None:
    groups = [item(PlanePositionVolumeSequence=[item(ImagePositionVolume=[1, 2, 2.5 * k])]) for k in range(len(FRAMES))]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.8])],
        PlaneOrientationVolumeSequence=[item(ImageOrientationVolume=[1, 0, 0, 0, 1, 0])],
    )
    path = write_object(
        tmp_path / "us.dcm",
        *(EnhancedUSVolumeStorage, "US", FRAMES),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )
    case = volume(path)
    assert case.grid.spacing == pytest.approx((0.8, 0.7, 2.5))
    assert "in the volume of the ultrasound probe" in case.notices[0]


# --- a pixel size without a place ----------------------------------------------------------------------------------


def region(**values: Any) -> pydicom.Dataset:
    return item(
        **{
            **{"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3, "RegionSpatialFormat": 1},
            **{"PhysicalDeltaX": 0.08, "PhysicalDeltaY": 0.07, **values},
        }
    )


@pytest.mark.parametrize(
    ("kind", "modality", "values", "words"),
    [
        (DigitalXRayImageStorageForPresentation, "DX", {"ImagerPixelSpacing": [0.7, 0.8]}, "at the detector"),
        (XRayAngiographicImageStorage, "XA", {"ImagerPixelSpacing": [0.7, 0.8], "FrameTime": 66}, "at the detector"),
        (SecondaryCaptureImageStorage, "OT", {"NominalScannedPixelSpacing": [0.7, 0.8]}, "nominal"),
        (UltrasoundImageStorage, "US", {"SequenceOfUltrasoundRegions": [region()]}, "ultrasound region"),
        (
            UltrasoundMultiFrameImageStorage,
            "US",
            {"SequenceOfUltrasoundRegions": [region(PhysicalDeltaY=-0.07), region(PhysicalUnitsXDirection=4)]},
            "ultrasound region",
        ),
        (
            DigitalXRayImageStorageForPresentation,
            "DX",
            {"PixelSpacing": [0.7, 0.8], "ImagerPixelSpacing": [1.4, 1.6]},
            "calibrated one, 0.7 x 0.8 mm; at the detector it is 1.4 x 1.6 mm",
        ),
        (ComputedRadiographyImageStorage, "CR", {"PixelSpacing": [0.7, 0.8]}, "how large a pixel is, but not where"),
    ],
)
@pytest.mark.parametrize("frames", [1, 4])
def test_a_pixel_size_without_a_place_is_used_and_told(
    kind: str, modality: str, values: dict[str, Any], words: str, frames: int, tmp_path: Path
) -> None:
    path = write_object(tmp_path / "x.dcm", kind, modality, FRAMES[0] if frames == 1 else FRAMES, **values)
    case = volume(path, plane=None)
    assert case.slice_spacing(0) == pytest.approx((0.7, 0.8))
    assert (case.n_slices, case.slice_distance, case.grid.known) == (frames, None, False)
    assert case.display_scale == pytest.approx((1, 0.7, 0.8))
    told = "; ".join(case.notices)
    assert words in told
    assert "nothing about pixel size" not in told
    out = tmp_path / "mask.nii.gz"
    case.write_mask(out, lambda i: np.full(case.slice_shape(i), i + 1, np.uint8))
    assert np.allclose(sitk.ReadImage(str(out)).GetSpacing(), (0.8, 0.7, 1.0))
    if "ImagerPixelSpacing" in values and "PixelSpacing" not in values:
        lies_as(path, case, out)
    assert all((labels == i + 1).all() for i, labels in case.read_labels(out).items())


def test_ultrasound_regions_of_several_sizes_give_none(tmp_path: Path) -> None:
    regions = [region(), region(PhysicalDeltaX=0.2)]
    path = write_object(
        tmp_path / "us.dcm", UltrasoundImageStorage, "US", FRAMES[0], SequenceOfUltrasoundRegions=regions
    )
    case = volume(path)
    assert case.slice_spacing(0) is None
    assert "several sizes (0.7 x 0.8 mm and 0.7 x 2 mm): none is used" in case.notices[0]
    assert "nothing about pixel size" not in "".join(case.notices)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_a_radiograph_that_asks_for_it_is_shown_inverted(dtype: Any, tmp_path: Path) -> None:
    pixels = numbers((5, 6), dtype)
    values = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    path = write_object(tmp_path / "x.dcm", DigitalXRayImageStorageForPresentation, "DX", pixels, **values)
    shown = volume(path).slice(0)
    assert np.array_equal(shown, (4095 if dtype is np.uint16 else -1) - pixels.astype(np.float32))
    scaled = {**values, "RescaleSlope": 2, "RescaleIntercept": -10}
    path = write_object(tmp_path / "y.dcm", DigitalXRayImageStorageForPresentation, "DX", pixels, **scaled)
    low, high = (0, 4095) if dtype is np.uint16 else (-2048, 2047)
    ends = 2 * (low + high) - 20
    assert np.array_equal(volume(path).slice(0), ends - (pixels.astype(np.float32) * 2 - 10))


# --- mosaics -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
@pytest.mark.parametrize("upwards", [True, False])
def test_a_mosaic_is_taken_apart_as_nibabel_does(upwards: bool, tmp_path: Path) -> None:
    from nibabel.nicom.dicomwrappers import wrapper_from_data

    tiles = numbers((7, 5, 6), np.uint16)
    path = write_mosaic(tmp_path / "fmri.dcm", tiles, upwards=upwards)
    case = volume(path)
    wrapper = wrapper_from_data(pydicom.dcmread(path))
    assert wrapper.is_mosaic
    # Theirs runs over (row, column, slice) in LPS from the first tile; ours sorts slices along the normal.
    theirs = np.diag([-1, -1, 1, 1]) @ wrapper.affine[:, [1, 0, 2, 3]]
    if not upwards:
        theirs = theirs @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 6], [0, 0, 0, 1.0]])
    assert np.allclose(case.grid.affine, theirs, atol=1e-4)
    assert all(np.array_equal(case.slice(k), tiles[k if upwards else 6 - k]) for k in range(7))
    assert "mosaics of 7 tiles of 6 x 5 pixels" in case.notices[0]
    assert ".dcm" not in case.mask_suffixes
    case.write_mask(tmp_path / "mask.nii.gz", lambda i: np.full((5, 6), i + 1, np.uint8))
    assert all((labels == i + 1).all() for i, labels in case.read_labels(tmp_path / "mask.nii.gz").items())


def test_mosaics_over_time_are_chosen_by_number(tmp_path: Path) -> None:
    for time in range(3):
        tiles = numbers((7, 5, 6), np.uint16, seed=time)
        values = {"AcquisitionNumber": time + 1, "SeriesInstanceUID": "1.2.9"}
        write_mosaic(tmp_path / "fmri" / f"{time}.dcm", tiles, **values)
    with pytest.raises(CaseError, match="3 volumes"):
        open_case(tmp_path / "fmri")
    assert np.array_equal(volume(tmp_path / "fmri", component=2).slice(4), tiles[4])


def test_a_mosaic_that_does_not_say_how_is_refused_by_name(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "fmri.dcm", numbers((7, 5, 6), np.uint16), header=False)
    with pytest.raises(CaseError, match=r"fmri\.dcm: this is a mosaic.*dcm2niix"):
        open_case(path)


def test_what_shares_a_file_is_not_decoded_for_each_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mosaic of 49 tiles would be decoded 49 times."""
    from napari_dinoaugseg.case.dicom import pixels

    counted = itertools.count()
    plain = pixels.iter_pixels

    def counting(*args: Any, **options: Any) -> Any:
        next(counted)
        return plain(*args, **options)

    monkeypatch.setattr(pixels, "iter_pixels", counting)
    volume(write_mosaic(tmp_path / "fmri.dcm", numbers((7, 5, 6), np.uint16)))
    assert next(counted) == 1
