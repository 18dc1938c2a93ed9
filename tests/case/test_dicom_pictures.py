"""Radiographs, photographs and stills in DICOM are one case of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLPhotographicImageStorage,
)

from napari_dinoaugseg.case import VolumeCase, choose_window, open_case
from napari_dinoaugseg.errors import CaseError
from tests.case.builders import numbers, pictures, write_dicom
from tests.case.dicom_builders import write_object


def radiograph(path: Path, seed: int = 0, shape: tuple[int, int] = (5, 6), **values: Any) -> np.ndarray:
    pixels = numbers(shape, np.uint16, seed=seed)
    values = {"ImagerPixelSpacing": [0.14, 0.15], **values}
    write_object(path, DigitalXRayImageStorageForPresentation, "DX", pixels, **values)
    return pixels


@pytest.mark.parametrize("one_series", [True, False])
@pytest.mark.parametrize("one_size", [True, False])
def test_a_folder_of_radiographs_is_a_case_of_pictures(one_series: bool, one_size: bool, tmp_path: Path) -> None:
    values = {"SeriesInstanceUID": "1.2.9"} if one_series else {}
    shapes = [(5, 6), (5, 6), (5, 6)] if one_size else [(5, 6), (7, 4), (9, 9)]
    expected = [radiograph(tmp_path / "xr" / f"IM{k}.dcm", k, shapes[k], **values) for k in range(3)]
    case = pictures(tmp_path / "xr")
    assert [case.slice_name(i) for i in range(3)] == ["IM0.dcm", "IM1.dcm", "IM2.dcm"]
    assert all(np.array_equal(case.slice(i), expected[i]) for i in range(3))
    assert [case.slice_spacing(i) for i in range(3)] == [pytest.approx((0.14, 0.15))] * 3
    assert (case.modality, case.slice_distance) == ("DX", None)
    assert case.notices == [
        "3 images without a place in the patient are pictures of one case",
        "the pixel size is that at the detector, 0.14 x 0.15 mm: it is used as such, uncorrected",
    ]
    assert choose_window(case) is not None


def test_masks_of_radiographs_are_pngs_with_their_names(tmp_path: Path) -> None:
    for k, shape in enumerate([(5, 6), (7, 4)]):
        radiograph(tmp_path / "xr" / f"IM{k}.dcm", k, shape)
    case = pictures(tmp_path / "xr")
    masks = [np.arange(30).reshape(5, 6) % 2, np.arange(28).reshape(7, 4) % 3]
    case.check_output(tmp_path / "masks")
    case.write_mask(tmp_path / "masks", masks.__getitem__)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["IM0.png", "IM1.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masks" / "IM1.png")), masks[1])
    (tmp_path / "masks" / "IM0.png").unlink()
    labels = case.read_labels(tmp_path / "masks")
    assert list(labels) == [1]
    assert np.array_equal(labels[1], masks[1])


def test_names_that_are_identifiers_keep_their_dots(tmp_path: Path) -> None:
    for k in range(3):
        radiograph(tmp_path / "xr" / f"1.2.840.{k}", k)
    case = pictures(tmp_path / "xr")
    case.write_mask(tmp_path / "masks", lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"1.2.840.{k}.png" for k in range(3)]
    assert list(case.read_labels(tmp_path / "masks")) == [0, 1, 2]


def test_inverted_grey_values_are_shown_as_meant(tmp_path: Path) -> None:
    values = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 15, "HighBit": 14}
    first = radiograph(tmp_path / "xr" / "a.dcm", 1, **values)
    second = radiograph(tmp_path / "xr" / "b.dcm", 2)
    case = pictures(tmp_path / "xr")
    assert np.array_equal(case.slice(0), 32767 - first.astype(np.float32))
    assert np.array_equal(case.slice(1), second)
    assert "of 2 pictures 1 ask for inverted grey values (MONOCHROME1)" in case.notices[1]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_photographs_and_stills_are_pictures(photometric: str, tmp_path: Path) -> None:
    colours = np.full((5, 6, 3), (200, 100, 50), np.uint8)
    stored = colours
    if photometric == "YBR_FULL":
        stored = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    for k, kind in enumerate((VLPhotographicImageStorage, UltrasoundImageStorage)):
        values = {"PhotometricInterpretation": photometric}
        write_object(tmp_path / "skin" / f"{k}.dcm", kind, "XC", np.ascontiguousarray(stored), **values)
    case = pictures(tmp_path / "skin")
    assert (case.is_colour, case.is_byte) == (True, True)
    assert np.abs(case.slice(1).astype(int) - colours).max() <= 2


def test_colours_of_a_palette_are_shown(tmp_path: Path) -> None:
    index = (numbers((6, 6), np.uint8) % 4).astype(np.uint8)
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 0], [9, 9, 200]])
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for n, name in enumerate(("Red", "Green", "Blue")):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = (table[:, n] * 257).astype("<u2").tobytes()
    for k in range(2):
        write_object(tmp_path / "us" / f"{k}.dcm", UltrasoundImageStorage, "US", index, InstanceNumber=k, **palette)
    assert np.array_equal(pictures(tmp_path / "us").slice(0), table[index])
    assert np.array_equal(open_case(tmp_path / "us" / "0.dcm").slice(0), table[index])


def test_loops_and_reports_beside_pictures_are_named(tmp_path: Path) -> None:
    for k in range(2):
        radiograph(tmp_path / "xr" / f"IM{k}.dcm", k)
    frames = numbers((3, 5, 6), np.uint8)
    write_object(tmp_path / "xr" / "loop.dcm", UltrasoundMultiFrameImageStorage, "US", frames)
    write_object(tmp_path / "xr" / "dose.dcm", "1.2.840.10008.5.1.4.1.1.88.67", "SR", None)
    told = "; ".join(pictures(tmp_path / "xr").notices)
    assert "1 file of several frames left out: loop.dcm" in told
    assert "1 DICOM file without an image left out: dose.dcm (a structured report" in told


def test_one_radiograph_is_chosen_by_its_series(tmp_path: Path) -> None:
    for k in range(3):
        radiograph(tmp_path / "xr" / f"IM{k}.dcm", k, SeriesDescription=("hip", "hand left", "hand right")[k])
    one = open_case(tmp_path / "xr", series="hip")
    assert isinstance(one, VolumeCase)
    assert pictures(tmp_path / "xr", series="hand").n_slices == 2
    assert pictures([tmp_path / "xr" / f"IM{k}.dcm" for k in (2, 0)]).n_slices == 2


def test_slices_that_lost_their_place_are_no_pictures(tmp_path: Path) -> None:
    for k in range(3):
        values = {"SeriesInstanceUID": "1.2.9"}
        write_object(tmp_path / "ct" / f"{k}.dcm", CTImageStorage, "CT", numbers((5, 6), np.uint16, seed=k), **values)
    with pytest.raises(CaseError, match="form no volume"):
        open_case(tmp_path / "ct")


def test_a_radiograph_beside_a_volume_makes_no_pictures(tmp_path: Path) -> None:
    write_dicom(tmp_path / "both" / "ct", numbers((4, 5, 6), np.uint16))
    for k in range(2):
        radiograph(tmp_path / "both" / "xr" / f"{k}.dcm", k)
    with pytest.raises(CaseError, match="it holds 3 series"):
        open_case(tmp_path / "both")


def test_a_damaged_radiograph_is_named_when_the_case_opens(tmp_path: Path) -> None:
    for k in range(3):
        pixels = numbers((5, 6), np.uint16, seed=k)
        path = tmp_path / "xr" / f"{k}.dcm"
        write_object(path, ComputedRadiographyImageStorage, "CR", pixels, **({"Rows": 50} if k == 1 else {}))
    with pytest.raises(CaseError, match=r"1\.dcm"):
        open_case(tmp_path / "xr")
