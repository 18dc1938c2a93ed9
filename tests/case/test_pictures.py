"""Pictures: every pixel type, any size, any orientation, and masks of exactly that size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from napari_dinoaugseg.case import choose_window, open_case
from napari_dinoaugseg.errors import CaseError, OutputError
from tests.case.builders import COLOUR, GREY, listing, numbers, pictures, save


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG", ".jpg", ".jpeg"])
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_grey_and_colour_are_read_as_they_are(array: np.ndarray, suffix: str, tmp_path: Path) -> None:
    save(tmp_path / f"a{suffix}", array)
    case = pictures(tmp_path)
    image = case.slice(0)
    assert (image.shape, image.dtype, case.slice_shape(0)) == (array.shape, np.uint8, (8, 10))
    assert case.is_colour == (array.ndim == 3)
    assert case.is_byte
    assert choose_window(case) is None
    if not suffix.startswith(".j"):
        assert np.array_equal(image, array)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_deep_grey_keeps_its_own_values(dtype: Any, tmp_path: Path) -> None:
    deep = (numbers((8, 10), np.int32) * 500).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", deep)
    if dtype == np.uint16:
        save(tmp_path / "b.png", deep)
    case = pictures(tmp_path)
    for i in range(case.n_slices):
        assert case.slice(i).dtype == np.float32
        assert np.array_equal(case.slice(i), deep.astype(np.float32))
    window = choose_window(case)
    assert window is not None
    assert (window.low, window.high) == case.intensity_range()


def test_other_colour_models_become_rgb(tmp_path: Path) -> None:
    rgba = np.dstack([COLOUR, np.full((8, 10), 7, np.uint8)])
    save(tmp_path / "rgba.png", rgba)
    Image.fromarray(COLOUR).quantize(250).save(tmp_path / "palette.png")
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "cmyk.jpg")
    save(tmp_path / "bits.png", GREY > 60)
    Image.fromarray(np.dstack([GREY, GREY])).save(tmp_path / "la.png")
    case = pictures(tmp_path)
    shapes = {case.slice_name(i): case.slice(i).shape for i in range(case.n_slices)}
    assert shapes == {
        "bits.png": (8, 10),
        "cmyk.jpg": (8, 10, 3),
        "la.png": (8, 10),
        "palette.png": (8, 10, 3),
        "rgba.png": (8, 10, 3),
    }
    assert set(np.unique(case.slice(0))) == {0, 255}
    assert np.array_equal(case.slice(4), COLOUR)


def test_a_tiff_that_pillow_refuses_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(pictures(tmp_path).slice(0), COLOUR)
    tifffile.imwrite(tmp_path / "a.tif", COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(pictures(tmp_path).slice(0), COLOUR)
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    assert np.array_equal(pictures(tmp_path).slice(0), 255 - GREY)


DEEP = COLOUR.astype(np.uint16) * 257
UNUSUAL: dict[str, tuple[np.ndarray, dict[str, Any], np.ndarray]] = {
    "bits": (GREY > 60, {"photometric": "minisblack"}, np.where(GREY > 60, 255, 0)),
    "grey with opacity": (np.dstack([GREY, GREY // 2]), {"photometric": "minisblack", "planarconfig": "contig"}, GREY),
    "deep colours": (DEEP, {"photometric": "rgb"}, COLOUR),
    "deep colours with opacity": (np.dstack([DEEP, DEEP[..., :1]]), {"photometric": "rgb"}, COLOUR),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_a_tiff_of_unusual_samples_is_shown_in_8_bit(case: str, tmp_path: Path) -> None:
    array, options, shown = UNUSUAL[case]
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    assert np.array_equal(pictures(tmp_path).slice(0), shown)


NOT_SHOWN: dict[str, tuple[np.ndarray, str, str]] = {
    "complex": (GREY.astype(np.complex64), "minisblack", "no grey or colour pixels"),
    "inks": (np.dstack([COLOUR, GREY]), "separated", "CMYK"),
    "real colours": (COLOUR.astype(np.float32), "rgb", "neither grey nor 8-bit RGB"),
}


@pytest.mark.parametrize("case", NOT_SHOWN)
def test_a_tiff_whose_samples_are_no_picture_is_refused(case: str, tmp_path: Path) -> None:
    array, photometric, says = NOT_SHOWN[case]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric)
    with pytest.raises(CaseError, match=says):
        pictures(tmp_path).slice(0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_a_turned_picture_is_shown_upright_and_so_is_its_mask(tag: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / f"a{suffix}"
    path.parent.mkdir()
    if suffix == ".tif":
        tifffile.imwrite(path, GREY, extratags=[(274, "H", 1, tag, True)], metadata=None)
    else:
        exif = Image.Exif()
        exif[274] = tag
        save(path, GREY, exif=exif)
    case = pictures(tmp_path / "in")
    exif = Image.Exif()
    exif[274] = tag
    save(tmp_path / "upright.png", GREY, exif=exif)
    with Image.open(tmp_path / "upright.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(case.slice(0), upright)
    assert case.slice_shape(0) == upright.shape

    case.write_mask(tmp_path / "out", lambda i: upright % 7)
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert np.array_equal(np.asarray(mask), upright % 7)
    assert np.array_equal(case.read_labels(tmp_path / "out")[0], upright % 7)


def test_pictures_of_differing_sizes_come_in_natural_order(tmp_path: Path) -> None:
    for n in (10, 9, 1):
        save(tmp_path / "in" / f"p{n}.png", numbers((4 + n, 5 + n), np.uint8))
    case = pictures(tmp_path / "in")
    assert [case.slice_name(i) for i in range(3)] == ["p1.png", "p9.png", "p10.png"]
    assert [case.slice_shape(i) for i in range(3)] == [(5, 6), (13, 14), (14, 15)]
    assert (case.slice_spacing(0), case.slice_distance, case.plane, case.name) == (None, None, "native", "in")
    case.check_output(tmp_path / "out")
    case.write_mask(tmp_path / "out", lambda i: np.full(case.slice_shape(i), 300 if i == 1 else 255))
    for i, name in enumerate(("p1", "p9", "p10")):
        with Image.open(tmp_path / "out" / f"{name}.png") as mask:
            assert mask.size == case.slice_shape(i)[::-1]
            assert np.asarray(mask).dtype == (np.uint16 if i == 1 else np.uint8)
            assert (np.asarray(mask) == (300 if i == 1 else 255)).all()


def test_confidence_is_written_as_8_bit_pictures(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", GREY)
    case = pictures(tmp_path / "in")
    case.write_confidence(tmp_path / "sure", lambda i: np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10))
    with Image.open(tmp_path / "sure" / "a.png") as image:
        assert (np.asarray(image).min(), np.asarray(image).max()) == (0, 255)


def test_subfolders_are_searched_and_mirrored_and_mask_folders_skipped(tmp_path: Path) -> None:
    for name in ("benign/a.png", "malignant/a.png", "masks/a.png", "2d_masks/a.png", ".hidden/a.png", "gt/a.png"):
        save(tmp_path / "in" / name, GREY)
    (tmp_path / "in" / "sizes.csv").write_text("a,1\n")
    case = pictures(tmp_path / "in")
    assert [path.relative_to(tmp_path / "in").as_posix() for path in case.pictures] == [
        "benign/a.png",
        "malignant/a.png",
    ]
    case.write_mask(tmp_path / "out", lambda i: np.full((8, 10), i + 1))
    assert sorted(listing(tmp_path / "out")) == ["benign/a.png", "malignant/a.png"]
    assert [labels.max() for labels in case.read_labels(tmp_path / "out").values()] == [1, 2]


def test_one_subfolder_of_pictures_is_not_mirrored(tmp_path: Path) -> None:
    save(tmp_path / "in" / "images" / "a.png", GREY)
    save(tmp_path / "in" / "masks" / "a.png", GREY)
    pictures(tmp_path / "in").write_mask(tmp_path / "out", lambda i: np.ones((8, 10)))
    assert sorted(listing(tmp_path / "out")) == ["a.png"]


def test_masks_that_lie_beside_their_pictures_are_no_pictures(tmp_path: Path) -> None:
    for name in ("benign (1)", "benign (1)_mask", "010_HC", "010_HC_Annotation", "bitmask", "face_mask", "IMD2"):
        save(tmp_path / f"{name}.png", GREY)
    names = [path.stem for path in pictures(tmp_path).pictures]
    assert names == ["010_HC", "benign (1)", "bitmask", "face_mask", "IMD2"]


def test_a_list_and_a_single_picture_are_cases(tmp_path: Path) -> None:
    one, two = save(tmp_path / "x" / "a.png", GREY), save(tmp_path / "y" / "a.png", COLOUR)
    case = pictures([two, one])
    assert case.pictures == [one, two]
    assert not case.is_colour
    case.write_mask(tmp_path / "out", lambda i: np.ones((8, 10)))
    assert sorted(listing(tmp_path / "out")) == ["x/a.png", "y/a.png"]
    assert pictures(one).n_slices == pictures([one]).n_slices == 1
    assert pictures(one).name == "a"


def test_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY)
    save(tmp_path / "a.jpg", GREY)
    with pytest.raises(CaseError, match=r"a\.png: a\.jpg has the same name|a\.jpg: a\.png has the same name"):
        open_case(tmp_path)


def test_fingerprints_follow_the_pixels_and_not_the_name(tmp_path: Path) -> None:
    a, b = save(tmp_path / "1" / "a.png", GREY), save(tmp_path / "2" / "b.png", GREY)
    c = save(tmp_path / "3" / "c.png", GREY[::-1])
    assert pictures(a).fingerprint == pictures(b).fingerprint
    assert pictures(a).slice_fingerprint(0) == pictures(b).slice_fingerprint(0)
    assert pictures(a).fingerprint != pictures(c).fingerprint


def test_pixels_that_are_no_numbers_are_replaced_and_said(tmp_path: Path) -> None:
    deep = numbers((8, 10), np.float32)
    deep[0, 0], deep[1, 1] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", deep)
    case = pictures(tmp_path)
    assert "a.tif" in case.notices[0]
    assert np.isfinite(case.slice(0)).all()
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 10), np.nan, np.float32))
    with pytest.raises(CaseError, match=r"a\.tif: no pixel holds a finite number"):
        open_case(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_picture_that_was_cut_off_is_named_on_opening(share: float, suffix: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY)
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    path = save(tmp_path / f"b{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    before = listing(tmp_path)
    with pytest.raises(CaseError, match=rf"b\{suffix}"):
        open_case(tmp_path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("compression", ["zlib", "lzw", "jpeg"])
def test_a_packed_tiff_that_was_cut_off_is_named_on_opening(compression: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    path = tmp_path / "b.tif"
    tifffile.imwrite(path, noise, compression=compression, tile=(32, 32))
    path.write_bytes(path.read_bytes()[: int(0.8 * path.stat().st_size)])
    with pytest.raises(CaseError, match=r"b\.tif"):
        open_case(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_a_web_page_named_as_a_picture_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("<!DOCTYPE html><html>Not found</html>")
    with pytest.raises(CaseError, match=rf"{name}: this is a web page"):
        open_case(tmp_path)


def test_a_picture_of_another_kind_than_its_suffix_is_told(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY).rename(tmp_path / "a.jpg")
    with pytest.raises(CaseError, match=r"a\.jpg: this is a PNG picture, not a JPEG picture"):
        open_case(tmp_path)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("in", "the pictures of the case lie here"),
        ("missing/out", "does not exist"),
        ("out.png", "Name a folder"),
        ("out.nii.gz", "Name a folder"),
        ("in/a.png", "this is a file"),
        ("labels", "would overwrite an input"),
        ("file.txt/out", "is a file, not a folder"),
    ],
)
def test_a_place_that_cannot_take_the_masks_is_refused_beforehand(output: str, message: str, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", GREY)
    save(tmp_path / "labels" / "a.png", GREY)
    (tmp_path / "file.txt").write_text("text")
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=message) as caught:
        pictures(tmp_path / "in").check_output(tmp_path / output, [tmp_path / "labels"])
    assert output in str(caught.value)
    assert listing(tmp_path) == before


def test_an_existing_folder_takes_new_masks_and_keeps_other_files(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", GREY)
    save(tmp_path / "out" / "a.png", GREY)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    case = pictures(tmp_path / "in")
    case.check_output(tmp_path / "out")
    case.write_mask(tmp_path / "out", lambda i: np.ones((8, 10)))
    assert sorted(listing(tmp_path / "out")) == ["a.png", "notes.txt"]
    assert (case.read_labels(tmp_path / "out")[0] == 1).all()


def test_nothing_is_left_when_a_prediction_fails_midway(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path / "in" / f"{n}.png", GREY)
    case = pictures(tmp_path / "in")

    def masks(i: int) -> np.ndarray:
        if i == 2:
            raise KeyboardInterrupt
        return np.ones((8, 10))

    before = listing(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        case.write_mask(tmp_path / "out", masks)
    assert listing(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
