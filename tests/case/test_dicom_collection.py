"""Every file on which pydicom itself is tested ends in a case or in one of our errors, and in nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_charset_files, get_testdata_file, get_testdata_files

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.errors import DinoAugSegError, LabelError

pytest.importorskip("data_store", reason="pydicom-data is not installed, and nothing may be fetched")


def files() -> list[Path]:
    return sorted({Path(name) for name in (*get_testdata_files(), *get_charset_files()) if Path(name).is_file()})


def named(path: Path) -> str:
    return path.name


@pytest.fixture
def strict() -> Iterator[None]:
    """Let no warning of a library reach the person: it would say nothing they can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def require_clear(error: DinoAugSegError, path: Path) -> None:
    """Hold a refusal to our promise: one or two printable lines that name the file."""
    assert 1 <= len(str(error).splitlines()) <= 2
    assert str(error).isprintable()
    assert path.name in str(error)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("path", files(), ids=named)
@pytest.mark.usefixtures("strict")
def test_each_file_opens_or_is_refused(path: Path) -> None:
    try:
        case = open_case(path)
    except DinoAugSegError as error:
        require_clear(error, path)
        return
    assert case.n_slices > 0
    assert np.isfinite(case.slice(case.n_slices - 1)).all()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("path", [path for path in files() if path.suffix == ".dcm"], ids=named)
@pytest.mark.usefixtures("strict")
def test_each_file_is_labels_or_is_refused(path: Path) -> None:
    try:
        mask, grid = read_mask_volume(path)
    except LabelError as error:
        require_clear(error, path)
        return
    assert path.name.startswith("liver")
    assert mask.shape == grid.shape


def open_named(name: str) -> VolumeCase:
    path = get_testdata_file(name, download=False)
    assert path is not None
    case = open_case(str(path))
    assert isinstance(case, VolumeCase)
    return case


@pytest.mark.parametrize(
    ("name", "slices", "size"),
    [
        ("CT_small.dcm", 1, (128, 128)),
        ("MR_small_bigendian.dcm", 1, (64, 64)),
        ("eCT_Supplemental.dcm", 2, (512, 512)),
        ("examples_ybr_color.dcm", 30, (240, 320)),
        ("emri_small_RLE.dcm", 10, (64, 64)),
        ("JPEG-LL.dcm", 1, (1024, 256)),
        ("JPGExtended.dcm", 1, (1024, 256)),
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", 1, (768, 1024)),
    ],
)
def test_what_has_to_open_opens(name: str, slices: int, size: tuple[int, int]) -> None:
    case = open_named(name)
    assert (case.n_slices, case.slice_shape(0)) == (slices, size)


@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "JPGExtended.dcm"])
def test_jpeg_pixels_are_those_of_itk(name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    path = get_testdata_file(name, download=False)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
    assert np.array_equal(open_named(name).slice(0), expected)


@pytest.mark.parametrize("name", ["liver.dcm", "liver_expb.dcm"])
def test_a_segmentation_of_the_collection_is_read(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    mask, grid = read_mask_volume(Path(str(path)))
    assert mask.shape == grid.shape == (512, 512, 3)
    assert int(mask.sum()) == 107098  # as counted in the label file that was made from the same segmentation
