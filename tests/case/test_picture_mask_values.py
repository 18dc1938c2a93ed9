"""What the values of masks of pictures mean: classes, unknown pixels, fringes, palettes, colours, opacity."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dinoaugseg.case import MaskOptions, PictureCase, open_case, read_mask_folder
from napari_dinoaugseg.case.case import UNKNOWN, ReadLabels
from napari_dinoaugseg.errors import LabelError

SIDE = 96
Y, X = np.mgrid[:SIDE, :SIDE]
OUTSIDE = (Y - 48) ** 2 + (X - 48) ** 2 > 44**2
"""Outside the round field of view of an endoscope."""


def polyp(number: int = 1, radius: float = 6, row: int = 40, column: int = 50) -> np.ndarray:
    """A polyp, with 255 outside the field of view."""
    mask = np.where(OUTSIDE, 255, 0).astype(np.uint8)
    mask[(Y - row) ** 2 + (X - column) ** 2 < radius**2] = number
    return mask


def disc(radius: float = 20) -> np.ndarray:
    return np.where(radius**2 > (Y - 48) ** 2 + (X - 48) ** 2, 255, 0).astype(np.uint8)


def case_of(root: Path, masks: dict[str, Any], **options: Any) -> tuple[PictureCase, ReadLabels]:
    """Pictures and masks: arrays are saved as PNG, or as their name's suffix says; images as they are."""
    for folder in ("in", "masks"):
        (root / folder).mkdir(exist_ok=True)
    for name, mask in masks.items():
        stem = name.partition(".")[0]
        Image.fromarray(np.full((SIDE, SIDE), 90, np.uint8)).save(root / "in" / f"{stem}.png")
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        image.save(root / "masks" / (name if "." in name else f"{name}.png"))
    case = open_case(root / "in", masks=MaskOptions(**options))
    assert isinstance(case, PictureCase)
    return case, case.read_labels(root / "masks")


def indexed(mask: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(mask).convert("P")
    image.putpalette([part for colour in colours for part in colour] + [0] * (768 - 3 * len(colours)))
    image.putdata(mask.reshape(-1).tolist())
    return image


def as_unknown(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 255, UNKNOWN, mask.astype(np.uint16))


# --- 255 beside classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["grey", "palette", "colours"])
def test_255_beside_a_class_is_unknown_and_said(way: str, tmp_path: Path) -> None:
    mask = polyp()
    image: Any = mask
    if way == "palette":
        image = indexed(mask, (0, 0, 0), (200, 0, 0))
    if way == "colours":
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[mask == 1], image[mask == 255] = (200, 0, 0), (224, 224, 192)
        (tmp_path / "masks").mkdir()
        (tmp_path / "masks" / "labelmap.txt").write_text("background:0,0,0::\npolyp:200,0,0::\n")
    case, labels = case_of(tmp_path, {"a": image, "b": image})
    assert np.array_equal(labels[0], as_unknown(mask))
    assert labels.may_be_unknown
    assert any("255 beside other labels (1) is taken as unknown" in notice for notice in labels.notices)
    case.write_mask(tmp_path / "out", labels.__getitem__)
    with Image.open(tmp_path / "out" / "a.png") as out:
        assert out.mode == "L"
        assert np.array_equal(np.asarray(out), mask)
    assert np.array_equal(case.read_labels(tmp_path / "out")[1], as_unknown(mask))


def test_255_is_a_class_where_a_person_says_so(tmp_path: Path) -> None:
    case, labels = case_of(tmp_path, {"a": polyp(), "b": polyp(2)}, ignore="none")
    assert np.array_equal(labels[0], polyp())
    assert not labels.may_be_unknown
    case.write_mask(tmp_path / "out", labels.__getitem__)
    again = open_case(tmp_path / "in").read_labels(tmp_path / "out")  # 16-bit: it needs no option
    assert np.array_equal(again[0], polyp())


def test_values_of_all_sizes_are_classes(tmp_path: Path) -> None:
    """Also where they are few pixels, lie at the edge of the field of view, or are painted with a thin brush."""
    thin = np.where(OUTSIDE, 255, 0).astype(np.uint8)
    thin[30, 20:60], thin[50:53, 50] = 7, 9
    _, labels = case_of(tmp_path, {"a": polyp(100, radius=2), "b": polyp(3, row=18, column=30), "c": thin})
    for i, mask in enumerate((polyp(100, radius=2), polyp(3, row=18, column=30), thin)):
        assert np.array_equal(labels[i], as_unknown(mask))


def test_255_is_a_class_where_it_is_alone(tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {"a": disc(), "b": np.zeros((SIDE, SIDE), np.uint8)})
    assert np.array_equal(labels[0], disc())
    assert labels.notices == []


def test_one_mask_without_the_class_is_judged_with_the_others(tmp_path: Path) -> None:
    empty = np.where(OUTSIDE, 255, 0).astype(np.uint8)
    _, labels = case_of(tmp_path, {"a": polyp(), "b": empty})
    assert np.array_equal(labels[1], as_unknown(empty))


def test_even_steps_of_grey_are_pointed_out(tmp_path: Path) -> None:
    steps = np.zeros((SIDE, SIDE), np.uint8)
    for n, value in enumerate((85, 170, 255)):
        steps[20:60, 5 + 30 * n : 25 + 30 * n] = value
    _, labels = case_of(tmp_path, {"a": steps})
    assert np.array_equal(labels[0], as_unknown(steps))
    assert any("even steps of grey" in notice for notice in labels.notices)
    _, labels = case_of(tmp_path, {"a": steps}, ignore="none")
    assert np.array_equal(labels[0], steps)


@pytest.mark.parametrize(("ignore", "value"), [(None, 255), ("255", UNKNOWN)])
def test_255_in_16_bit_is_a_class_unless_said_otherwise(ignore: Any, value: int, tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {"a": polyp().astype(np.uint16)}, ignore=ignore)
    assert set(np.unique(labels[0])) == {0, 1, value}
    assert any("255" in notice for notice in labels.notices)


def test_16_bit_black_and_white_is_binary(tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {"a": disc().astype(np.uint16) * 257})
    assert np.array_equal(labels[0], disc())


def test_16_bit_white_beside_labels_is_unknown(tmp_path: Path) -> None:
    many = polyp(44).astype(np.uint16)
    many[many == 44], many[many == 255] = 300, UNKNOWN
    case, labels = case_of(tmp_path, {"a": many})
    assert np.array_equal(labels[0], many)
    case.write_mask(tmp_path / "out", labels.__getitem__)
    assert np.array_equal(case.read_labels(tmp_path / "out")[0], many)


# --- fringes ----------------------------------------------------------------------------------------------------------


def smoothed(mask: np.ndarray) -> np.ndarray:
    image = Image.fromarray(mask)
    return np.asarray(image.resize((60, 60), Image.Resampling.BILINEAR).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def through_jpeg(mask: np.ndarray, quality: int = 60) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def banded(mask: np.ndarray) -> np.ndarray:
    """A strip of one dark value along an edge, as in CVC-ClinicDB."""
    noisy = mask.copy()
    noisy[68:70, 40:56] = 11
    return noisy


@pytest.mark.parametrize("spoil", [smoothed, through_jpeg, banded], ids=["smoothed", "through JPEG", "banded"])
def test_a_fringe_of_black_and_white_is_cut_and_said(spoil: Any, tmp_path: Path) -> None:
    spoilt = spoil(disc())
    assert len(np.unique(spoilt)) > 2
    _, labels = case_of(tmp_path, {"a": spoilt})
    assert np.array_equal(labels[0], np.where(spoilt >= 128, 255, 0))
    assert any("with values between 0 and 255, along edges or stray, cut at 128" in one for one in labels.notices)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    number=st.integers(1, 254),
    radius=st.floats(3, 9),
    row=st.integers(24, 72),
    column=st.integers(24, 72),
)
def test_a_class_is_never_cut(number: int, radius: float, row: int, column: int, tmp_path_factory: Any) -> None:
    mask = polyp(number, radius, row, column)
    path = tmp_path_factory.mktemp("one") / "a.png"
    Image.fromarray(mask).save(path)
    assert np.array_equal(read_mask_folder(path)["a"], as_unknown(mask))


def test_a_class_amid_smoothed_edges_is_refused_rather_than_lost(tmp_path: Path) -> None:
    edges = smoothed(np.where(OUTSIDE, 255, 0).astype(np.uint8))
    edges = np.where(polyp() == 1, 1, edges)
    with pytest.raises(LabelError, match="grey values that lie neither along edges"):
        case_of(tmp_path, {"a": edges.astype(np.uint8)})


# --- files that are packed with loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_masks_are_cut(suffix: str, tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {f"a{suffix}": disc(), f"b{suffix}": np.zeros((SIDE, SIDE), np.uint8)})
    assert set(np.unique(labels[0])) == {0, 255}
    assert (labels[0] != disc()).mean() < 0.02
    assert not labels[1].any()
    assert any("packed with loss" in notice for notice in labels.notices)


@pytest.mark.parametrize("mask", [polyp(1), polyp(128, radius=12), disc() // 3], ids=["low", "steps", "dark"])
def test_lossy_masks_with_classes_are_refused(mask: np.ndarray, tmp_path: Path) -> None:
    if mask.max() == 255 and not (mask == 128).any():
        mask = np.where(mask == 1, 1, 0).astype(np.uint8)
    with pytest.raises(LabelError, match=r"a\.jpg: packing with loss \(JPEG\) changes values"):
        case_of(tmp_path, {"a.jpg": mask})


def test_lossy_masks_beside_label_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"a\.jpg: JPEG and lossy WebP change values, but other masks .*\(1\)"):
        case_of(tmp_path, {"a.jpg": disc(), "b": disc() // 255})


@pytest.mark.parametrize("suffix", [".webp", ".jp2", ".gif", ".bmp", ".tif", ".pgm", ".tga"])
def test_lossless_masks_of_any_kind_keep_their_classes(suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(polyp(3))
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    Image.fromarray(polyp()).save(tmp_path / "a.png")
    labels = open_case(tmp_path / "a.png").read_labels(tmp_path / "masks")
    assert isinstance(labels, ReadLabels)
    assert np.array_equal(labels[0], as_unknown(polyp(3)))


def test_a_pgm_mask_keeps_the_numbers_that_stand_in_it(tmp_path: Path) -> None:
    """Viewers stretch them, so that the largest number a file may hold is white."""
    mask = (polyp(3) % 255).astype(np.uint8)
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5\n# by hand\n%d %d\n3\n" % (SIDE, SIDE) + mask.tobytes())
    assert np.array_equal(read_mask_folder(path)["a"], mask)
    path.write_bytes(b"P5 %d %d 900\n" % (SIDE, SIDE) + (mask.astype(">u2") * 300).tobytes())
    assert np.array_equal(read_mask_folder(path)["a"], mask.astype(np.uint16) * 300)


@pytest.mark.parametrize("form", ["png colours", "png grey with opacity", "tif colours"])
def test_16_bit_channels_lose_no_label(form: str, tmp_path: Path) -> None:
    import imagecodecs

    mask = (disc() // 255).astype(np.uint16)
    opaque = np.full_like(mask, 65535)
    if form == "tif colours":
        tifffile.imwrite(tmp_path / "a.tif", np.dstack([mask] * 3), photometric="rgb")
    else:
        layers = [mask] * 3 if form == "png colours" else [mask, opaque]
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.dstack(layers)))
    assert np.array_equal(read_mask_folder(next(tmp_path.iterdir()))["a"], mask)


# --- palettes and colours ---------------------------------------------------------------------------------------------


def test_palettes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    red, green = indexed(disc() // 255, (0, 0, 0), (255, 0, 0)), indexed(disc() // 255, (0, 0, 0), (0, 255, 0))
    with pytest.raises(LabelError, match=r"b\.png: its palette gives the label 1 another colour than that of a\.png"):
        case_of(tmp_path, {"a": red, "b": green})


def test_a_palette_that_shows_0_as_white_and_1_as_black_is_taken_as_seen(tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {"a": indexed(1 - disc() // 255, (255, 255, 255), (0, 0, 0))})
    assert np.array_equal(labels[0], disc())
    assert any("white is taken as the label 255" in notice for notice in labels.notices)


def test_a_palette_of_few_grey_steps_is_not_cut(tmp_path: Path) -> None:
    steps = polyp(2) % 3
    _, labels = case_of(tmp_path, {"a": indexed(steps.astype(np.uint8), (0, 0, 0), (128, 128, 128), (255, 255, 255))})
    assert np.array_equal(labels[0], steps)


COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}
TABLES = {
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\npolyp:128,0,0::\nneedle:0,128,0::\n",
    "label_colors.txt": "0 0 0 Background\n128 0 0 polyp\n0 128 0 needle\n",
}
TWO = polyp(1) % 255
TWO[70:78, 40:50] = 2


def coloured(mask: np.ndarray) -> np.ndarray:
    image = np.zeros((*mask.shape, 3), np.uint8)
    for number, colour in COLOURS.items():
        image[mask == number] = colour
    return image


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("way", ["colours", "palette", "with opacity"])
def test_colours_are_read_through_their_table_with_names(way: str, table: str, above: bool, tmp_path: Path) -> None:
    image: Any = coloured(TWO)
    if way == "palette":
        image = indexed(TWO, *COLOURS.values())
    if way == "with opacity":
        image = np.dstack([image, np.where(TWO > 0, 255, 0).astype(np.uint8)])
    (tmp_path / "masks").mkdir()
    (tmp_path / ("" if above else "masks") / table).write_text(TABLES[table])
    _, labels = case_of(tmp_path, {"a": image})
    assert np.array_equal(labels[0], TWO)
    assert [(s.number, s.name, s.colour) for s in labels.segments] == [
        (1, "polyp", "#800000"),
        (2, "needle", "#008000"),
    ]
    assert any(f"explained by {table}: 1 polyp, 2 needle" in notice for notice in labels.notices)


def test_the_background_of_a_table_may_stand_anywhere(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "labelmap.txt").write_text("polyp:128,0,0::\nneedle:0,128,0::\nbackground:0,0,0::\n")
    _, labels = case_of(tmp_path, {"a": coloured(TWO)})
    assert np.array_equal(labels[0], TWO)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, r"a\.png: this mask is coded in colours, and no labelmap\.txt beside it says what they mean"),
        ("background:0,0,0::\npolyp:128,0,0::\n", r"a\.png: its colours 0,128,0 are not in labelmap\.txt"),
        ("background\n", r"labelmap\.txt: the line 'background' is not a colour with a name"),
        ("a:1,2,3::\nb:1,2,3::\n", r"labelmap\.txt: a and b have the same colour"),
        ("a:1,2,300::\n", r"labelmap\.txt: the colour of a reaches beyond 255"),
    ],
)
def test_colours_that_nothing_explains_are_refused(table: str | None, says: str, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    if table is not None:
        (tmp_path / "masks" / "labelmap.txt").write_text(table)
    with pytest.raises(LabelError, match=says):
        case_of(tmp_path, {"a": coloured(TWO)})


# --- opacity ----------------------------------------------------------------------------------------------------------


def layered(colour: Any, alpha: np.ndarray) -> np.ndarray:
    planes = np.broadcast_to(
        np.asarray(colour, np.uint8), (*alpha.shape, np.size(colour) if np.ndim(colour) < 3 else 3)
    )
    return np.dstack([planes, alpha.astype(np.uint8)])


PHOTO = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
IN_ALPHA = {
    "white": layered(255, disc()),
    "black": layered((0, 0, 0), disc()),
    "red": layered((255, 0, 0), disc()),
    "red on black": np.dstack([coloured(disc() // 255), disc()]),
    "a photograph cut out": layered(PHOTO, disc()),
}


@pytest.mark.parametrize("case", IN_ALPHA)
def test_a_mask_in_the_opacity_is_found_and_said(case: str, tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {"a": IN_ALPHA[case]})
    assert np.array_equal(labels[0], disc())
    assert any("taken from the opacity" in notice for notice in labels.notices)


def test_label_numbers_in_the_opacity_are_kept(tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {"a": layered((9, 9, 9), TWO)})
    assert np.array_equal(labels[0], TWO)


def test_numbers_beside_an_opacity_that_agrees_are_kept(tmp_path: Path) -> None:
    _, labels = case_of(tmp_path, {"a": np.dstack([TWO, np.where(TWO > 0, 255, 0).astype(np.uint8)])})
    assert np.array_equal(labels[0], TWO)
    assert labels.notices == []


def test_what_is_transparent_is_background_and_said(tmp_path: Path) -> None:
    alpha = np.where(TWO == 1, 255, 0).astype(np.uint8)
    alpha[:10] = 255
    _, labels = case_of(tmp_path, {"a": np.dstack([TWO, alpha])})
    assert np.array_equal(labels[0], np.where(TWO == 1, 1, 0))
    assert any("with transparent pixels, taken as background" in notice for notice in labels.notices)


@pytest.mark.parametrize("mask", [np.full((SIDE, SIDE), UNKNOWN, np.uint16), TWO.astype(np.uint16)])
def test_65535_is_no_class(mask: np.ndarray, tmp_path: Path) -> None:
    mask = mask.copy()
    mask[:50] = 1
    mask[0, 0] = UNKNOWN
    with pytest.raises(LabelError, match="65535, and no class can have that number"):
        case_of(tmp_path, {"a": mask}, ignore="none")
