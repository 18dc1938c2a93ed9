"""Multi-page TIFF: pages are slices, and the mask is a stack of the same pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_dinoaugseg.case import PictureCase, Plane, VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.errors import CaseError, LabelError
from tests.case.builders import numbers


def stack(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, ">u2"])
@pytest.mark.parametrize("pages", [2, 3, 4, 7])
def test_pages_are_slices_and_come_back_as_pages(pages: int, dtype: Any, compression: Any, tmp_path: Path) -> None:
    array = numbers((pages, 8, 10), dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression=compression)
    case = stack(tmp_path / "a.tif")
    assert (case.n_slices, case.slice_shape(0), case.plane) == (pages, (8, 10), Plane.NATIVE)
    assert case.slice_spacing(0) is None
    assert case.slice_distance is None
    assert all(np.array_equal(case.slice(k), array[k]) for k in range(pages))
    masks = [(array[k] % 5).astype(np.uint8) for k in range(pages)]
    for name in ("mask.tif", "mask.tiff", "mask.nii.gz", "mask.nrrd"):
        case.check_output(tmp_path / name)
        case.write_mask(tmp_path / name, masks.__getitem__)
        labels = case.read_labels(tmp_path / name, range(pages))
        assert all(np.array_equal(labels[k], masks[k]) for k in range(pages)), name
    assert np.array_equal(tifffile.imread(tmp_path / "mask.tif"), np.stack(masks))
    assert (tmp_path / "mask.tif").read_bytes() == (tmp_path / "mask.tiff").read_bytes()


def test_axial_slices_of_a_stack_are_its_pages(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbers((4, 8, 10)), photometric="minisblack")
    case = stack(tmp_path / "a.tif", plane="axial")
    assert np.array_equal(case.slice(3), numbers((4, 8, 10))[3])
    assert stack(tmp_path / "a.tif", plane="coronal").slice_shape(0) == (4, 10)


def test_colour_pages_are_read(tmp_path: Path) -> None:
    array = numbers((4, 8, 10, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    case = stack(tmp_path / "a.tif")
    assert case.is_colour
    assert np.array_equal(case.slice(2), array[2])


def test_a_channel_of_a_microscope_stack_is_chosen(tmp_path: Path) -> None:
    array = numbers((5, 2, 8, 10), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(CaseError, match=r"a\.tif: it holds 2 volumes"):
        open_case(tmp_path / "a.tif")
    assert np.array_equal(stack(tmp_path / "a.tif", component=1).slice(3), array[3, 1])


def test_one_page_is_a_picture(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbers((8, 10)))
    assert isinstance(open_case(tmp_path / "a.tif"), PictureCase)


def test_pages_of_differing_sizes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(numbers((8, 10)), photometric="minisblack")
        writer.write(numbers((9, 10)), photometric="minisblack")
    with pytest.raises(CaseError, match=r"a\.tif: its pages differ"):
        open_case(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_stack_that_was_cut_off_is_refused(compression: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (6, 40, 40), np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise, photometric="minisblack", compression=compression, metadata=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CaseError, match=r"a\.tif"):
        open_case(path)


def test_a_mask_stack_of_another_size_is_refused(tmp_path: Path) -> None:
    for name, pages in (("a", 4), ("b", 5)):
        tifffile.imwrite(tmp_path / f"{name}.tif", numbers((pages, 8, 10), np.uint8), photometric="minisblack")
    with pytest.raises(LabelError, match=r"b\.tif: these labels do not fit a: the mask has 10 x 8 x 5 voxels"):
        stack(tmp_path / "a.tif").read_labels(tmp_path / "b.tif")


def test_one_bit_pages_are_labels(tmp_path: Path) -> None:
    bits = numbers((4, 8, 10)) % 2 == 0
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric="minisblack")
    assert np.array_equal(read_mask_volume(tmp_path / "a.tif")[0], bits.transpose(2, 1, 0))


# --- voxel size -------------------------------------------------------------------------------------------------------

PAGES = numbers((4, 8, 10), np.uint16)
IMAGEJ: dict[str, tuple[dict[str, Any], tuple[float, float], tuple[float, float, float]]] = {
    "micron": ({"spacing": 2.5, "unit": "micron"}, (2.0, 4.0), (0.0005, 0.00025, 0.0025)),
    "um": ({"spacing": 2.5, "unit": "um"}, (2.0, 2.0), (0.0005, 0.0005, 0.0025)),
    "escaped": ({"spacing": 2.5, "unit": "\\u00B5m"}, (2.0, 2.0), (0.0005, 0.0005, 0.0025)),
    "mm": ({"spacing": 3.0, "unit": "mm"}, (1 / 0.8, 1 / 0.7), (0.8, 0.7, 3.0)),
    "cm": ({"spacing": 0.3, "unit": "cm"}, (10.0, 10.0), (1.0, 1.0, 3.0)),
    "inch": ({"spacing": 0.1, "unit": "inch"}, (254.0, 254.0), (0.1, 0.1, 2.54)),
    "no depth": ({"unit": "mm"}, (2.0, 2.0), (0.5, 0.5, 1.0)),
}


def imagej(path: Path, facts: dict[str, Any], per_unit: tuple[float, float] = (1.0, 1.0)) -> VolumeCase:
    tifffile.imwrite(path, PAGES, imagej=True, resolution=per_unit, metadata={"axes": "ZYX", **facts})
    return stack(path)


@pytest.mark.parametrize("example", IMAGEJ)
def test_the_voxel_size_of_imagej_is_read_and_goes_out_with_the_mask(example: str, tmp_path: Path) -> None:
    facts, per_unit, size = IMAGEJ[example]
    case = imagej(tmp_path / "a.tif", facts, per_unit)
    assert case.grid.spacing == pytest.approx(size, rel=1e-6)
    assert case.plane is Plane.NATIVE
    assert case.slice_spacing(0) == pytest.approx((size[1], size[0]), rel=1e-6)
    assert case.slice_distance == pytest.approx(size[2], rel=1e-6)
    assert "TIFF says nothing about position and direction" in case.notices[0]
    assert ("which ImageJ leaves out" in case.notices[0]) == (example == "no depth")
    case.write_mask(tmp_path / "mask.tif", lambda i: np.full((8, 10), i + 1, np.uint8))
    assert stack(tmp_path / "mask.tif").grid.spacing == pytest.approx(size, rel=1e-6)
    assert sorted(case.read_labels(tmp_path / "mask.tif")) == [0, 1, 2, 3]
    case.write_mask(tmp_path / "mask.nii.gz", lambda i: np.full((8, 10), i + 1, np.uint8))
    assert read_mask_volume(tmp_path / "mask.nii.gz")[1].spacing == pytest.approx(size, rel=1e-5)
    assert [int(labels.max()) for labels in case.read_labels(tmp_path / "mask.nii.gz").values()] == [1, 2, 3, 4]


def test_labels_of_a_stack_with_voxel_size_may_lack_it(tmp_path: Path) -> None:
    case = imagej(tmp_path / "a.tif", {"spacing": 2.5, "unit": "mm"})
    tifffile.imwrite(tmp_path / "labels.tif", (PAGES > 100).astype(np.uint8), photometric="minisblack")
    assert np.array_equal(case.read_labels(tmp_path / "labels.tif")[2], PAGES[2] > 100)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"spacing": 2.5, "unit": "sec"}, "the unit 'sec', which is not a length"),
        ({"spacing": 2.5}, "no unit"),
        ({"spacing": float("nan"), "unit": "mm"}, "not a positive number"),
        ({"spacing": 0, "unit": "mm"}, "not a positive number"),
        ({"spacing": 2, "unit": "pixel"}, None),
        ({}, None),
    ],
)
def test_a_voxel_size_that_means_nothing_is_left_out_and_said(
    facts: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    case = imagej(tmp_path / "a.tif", facts)
    assert not case.grid.known
    assert len(case.notices) == (says is not None)
    assert says is None or (says in case.notices[0] and "counted in voxels" in case.notices[0])


@pytest.mark.parametrize(
    ("sizes", "spacing"),
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2}, (0.0005, 0.00025, 0.002)),
        (
            {
                **{f"PhysicalSize{axis}": size for axis, size in zip("XYZ", (0.5, 0.25, 2), strict=True)},
                **{f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"},
            },
            (0.5, 0.25, 2.0),
        ),
        ({"PhysicalSizeX": 0.5}, None),
        ({}, None),
    ],
)
def test_the_voxel_size_of_ome_is_read(
    sizes: dict[str, Any], spacing: tuple[float, ...] | None, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", PAGES, metadata={"axes": "ZYX", **sizes})
    case = stack(tmp_path / "a.ome.tif")
    assert case.grid.known == (spacing is not None)
    assert len(case.notices) == (len(sizes) > 0)
    if spacing is not None:
        assert case.grid.spacing == pytest.approx(spacing)
        case.write_mask(tmp_path / "mask.tif", lambda i: np.full((8, 10), i, np.uint8))
        assert stack(tmp_path / "mask.tif").grid.spacing == pytest.approx(spacing)
