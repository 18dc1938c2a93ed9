"""From the values of a scanner to the 0..1 of an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_dinoaugseg.case import (
    CT_WINDOWS,
    SliceRange,
    Window,
    case_from_array,
    choose_scale,
    choose_window,
    open_case,
    to_unit_rgb,
)
from napari_dinoaugseg.errors import SettingsError
from tests.case.builders import numbers, write_dicom, write_nifti


def test_a_window_maps_its_ends_to_0_and_1_and_clips_the_rest() -> None:
    unit = Window(-100, 300).apply(np.array([[-2000, -100, 100, 300, 5000]], np.int16))
    assert unit.dtype == np.float32
    assert unit.tolist() == [[0, 0, 0.5, 1, 1]]


@pytest.mark.parametrize(
    ("dtype", "greatest"), [(np.int16, 254), (np.uint16, 254), (np.float32, 255), (np.float64, 254)]
)
def test_a_slice_scaled_by_itself_has_the_levels_of_the_authors_code(dtype: type, greatest: int) -> None:
    image = np.array([[100, 150, 299, 300, 500]], dtype)
    unit = SliceRange().apply(image)
    assert unit.dtype == np.float32
    # The share of the range times 255, cut off below.
    assert (unit * 255).round().astype(int).tolist() == [[0, 31, 126, 127, greatest]]
    assert to_unit_rgb(image, SliceRange()).shape == (3, 1, 5)


def test_all_channels_of_a_colour_picture_are_scaled_together() -> None:
    picture = np.array([[[10, 20, 30], [110, 60, 10]]], np.uint8)
    unit = to_unit_rgb(picture, SliceRange())
    assert unit.shape == (3, 1, 2)
    assert (unit[:, 0] * 255).round().astype(int).T.tolist() == [[0, 25, 51], [255, 127, 0]]


def test_a_slice_of_one_value_is_black_when_it_is_scaled_by_itself() -> None:
    for value in (0, -1000, 65535):
        assert not SliceRange().apply(np.full((2, 3), value, np.int32)).any()


def test_a_named_window_tells_which_values_count_where_slices_are_scaled_by_themselves() -> None:
    case = case_from_array(np.arange(-500, 500, dtype=np.int16).reshape(1, 20, 50), name="ramp")
    assert choose_scale(case, "auto", "slice") == SliceRange()
    scale = choose_scale(case, "-100,100", "slice")
    assert scale == SliceRange(Window(-100, 100))
    unit = to_unit_rgb(case.slice(0), scale)[0].ravel()
    assert (unit[:400] == 0).all()
    assert (unit[600:] >= 254 / 255).all()
    assert np.allclose(unit[400:601], np.linspace(0, 1, 201), atol=1.01 / 255)
    assert choose_scale(case, "-100,100", "window") == Window(-100, 100)
    with pytest.raises(SettingsError, match="Unknown window 'marrow'"):
        choose_scale(case, "marrow", "slice")


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (np.nan, 1), (0, np.inf)])
def test_a_window_without_width_is_refused(low: float, high: float) -> None:
    with pytest.raises(SettingsError, match="window"):
        Window(low, high)


def test_grey_is_repeated_and_colour_is_divided_by_255() -> None:
    grey = to_unit_rgb(np.array([[0, 50, 100]], np.float32), Window(0, 100))
    assert (grey.shape, grey.dtype) == ((3, 1, 3), np.float32)
    assert (grey == grey[0]).all()
    colour = numbers((4, 5, 3), np.uint8)
    assert np.allclose(to_unit_rgb(colour, None), colour.transpose(2, 0, 1) / 255)
    assert np.array_equal(to_unit_rgb(colour, Window(0, 9)), to_unit_rgb(colour, None))
    assert to_unit_rgb(np.full((2, 2), 255, np.uint8), None).max() == 1.0


def test_a_volume_is_scaled_by_robust_percentiles_of_the_whole(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(500, 100, (40, 40, 30)).astype(np.float32)
    array[0, 0, :5] = 1e6  # a few hot voxels
    case = open_case(write_nifti(tmp_path / "mr.nii.gz", array))
    low, high = np.percentile(array, (0.5, 99.5))
    window = choose_window(case)
    assert window is not None
    assert (window.low, window.high) == pytest.approx((low, high))
    assert choose_window(case, "percentiles") == window
    assert choose_window(case, " Percentiles ") == window


def test_percentiles_of_a_large_volume_come_from_a_regular_sample(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(500, 100, (200, 200, 120)).astype(np.int16)
    low, high = open_case(write_nifti(tmp_path / "mr.nii", array)).intensity_range()
    assert (low, high) == pytest.approx(tuple(np.percentile(array, (0.5, 99.5))), abs=3)


def test_a_nearly_empty_volume_still_has_a_window(tmp_path: Path) -> None:
    array = np.zeros((40, 40, 40), np.int16)
    assert choose_window(open_case(write_nifti(tmp_path / "flat.nii", array))) == Window(0.0, 1.0)
    array[20, 20, 20] = 900
    assert choose_window(open_case(write_nifti(tmp_path / "dot.nii", array))) == Window(0.0, 900.0)


@pytest.mark.parametrize("dicom", [True, False])
def test_ct_is_clipped_to_where_tissue_lies(dicom: bool, tmp_path: Path) -> None:
    values = np.random.default_rng(0).choice([-1000, 40, 60, 2500], (6, 20, 20), p=[0.5, 0.2, 0.2, 0.1])
    if dicom:
        write_dicom(tmp_path / "ct", (values + 1024).astype(np.uint16))
        case = open_case(tmp_path / "ct")
    else:
        case = open_case(write_nifti(tmp_path / "ct.nii", values.astype(np.int16)))
    assert choose_window(case) == Window(-1000.0, 600.0)
    assert choose_window(case, "percentiles") == Window(-1000.0, 2500.0)


def test_a_named_window_or_two_numbers_are_taken(tmp_path: Path) -> None:
    case = open_case(write_nifti(tmp_path / "ct.nii", numbers((5, 6, 7))))
    for name, (low, high) in CT_WINDOWS.items():
        assert choose_window(case, name) == Window(low, high)
    assert choose_window(case, "soft_tissue") == choose_window(case, "Soft-Tissue") == Window(-160.0, 240.0)
    assert choose_window(case, "-160, 240.5") == Window(-160.0, 240.5)


@pytest.mark.parametrize("name", ["livr", "1,2,3", "a,b", "5,5", ""])
def test_a_window_that_does_not_exist_is_refused(name: str, tmp_path: Path) -> None:
    case = open_case(write_nifti(tmp_path / "ct.nii", numbers((5, 6, 7))))
    with pytest.raises(SettingsError):
        choose_window(case, name)


def test_pictures_of_8_bit_are_taken_as_they_are_and_deep_ones_by_percentiles(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(numbers((8, 10), np.uint8)).save(tmp_path / "in" / "a.png")
    case = open_case(tmp_path / "in")
    assert choose_window(case) is None
    assert choose_window(case, "percentiles") is not None
    deep = [numbers((8, 10), np.uint16) * factor for factor in (1, 50)]
    for n, pixels in enumerate(deep):
        tifffile.imwrite(tmp_path / "in" / f"deep{n}.tif", pixels)
    window = choose_window(open_case(tmp_path / "in"))
    assert window is not None
    assert window.high > 1000  # over all grey pictures together
    (tmp_path / "colour").mkdir()
    Image.fromarray(numbers((8, 10, 3), np.uint8)).save(tmp_path / "colour" / "a.png")
    assert choose_window(open_case(tmp_path / "colour"), "percentiles") is None
