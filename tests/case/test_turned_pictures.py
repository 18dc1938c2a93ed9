"""Pictures with an orientation: shown as every viewer shows them, masks on them as they are seen or as stored."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from napari_dinoaugseg.case import MaskOptions, PictureCase, open_case
from napari_dinoaugseg.errors import Hint, LabelError

SIZES = st.one_of(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from([(1, 1), (1, 17), (17, 1)]))


def save(path: Path, pixels: np.ndarray, tag: int, writer: str) -> None:
    if writer == "tifffile":
        options = {"extratags": [(274, "H", 1, tag, True)], "metadata": None}
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)  # type: ignore[arg-type]
    else:
        exif = Image.Exif()
        exif[274] = tag
        Image.fromarray(pixels).save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


def turned(stored: np.ndarray, tag: int) -> np.ndarray:
    """What Pillow makes of pixels with an orientation.

    Of pixels in memory: from a grey TIFF that is turned by a quarter, Pillow 13 reads rows of the wrong length.
    """
    image = Image.fromarray(stored)
    image.getexif()[274] = tag
    return np.asarray(ImageOps.exif_transpose(image))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    size=SIZES,
    colour=st.booleans(),
    tag=st.integers(1, 8),
    kind=st.sampled_from(
        [(".png", "pillow"), (".webp", "pillow"), (".jpg", "pillow"), (".tif", "pillow"), (".tif", "tifffile")]
    ),
    highest=st.sampled_from([1, 255, 300]),
    lies=st.sampled_from([None, "seen", "stored"]),
    seed=st.integers(0, 10**6),
)
def test_a_turned_picture_is_shown_as_by_pillow_and_its_mask_lies_on_it_as_chosen(
    size: tuple[int, int], colour: bool, tag: int, kind: tuple[str, str], highest: int, lies: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3) if colour else size, np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "in" / f"a{kind[0]}"
        path.parent.mkdir()
        save(path, pixels, tag, kind[1])
        stored = tifffile.imread(path) if kind[0] == ".tif" else np.asarray(Image.open(path))
        upright = turned(stored, tag)
        labels = rng.integers(0, highest + 1, size).astype(np.int32)
        shown = turned(labels, tag)
        case = open_case(path, masks=MaskOptions(orientation=lies))
        assert isinstance(case, PictureCase)
        assert np.array_equal(case.slice(0), upright)
        assert case.slice_shape(0) == upright.shape[:2]

        case.write_mask(folder / "out", lambda i: shown)
        with Image.open(folder / "out" / "a.png") as mask:
            assert mask.getexif().get(274, 1) == 1
            written = np.asarray(mask)
        assert np.array_equal(written, labels if lies == "stored" else shown)
        if shown.any():
            back = case.read_labels(folder / "out")[0]
            assert np.array_equal(back, shown)


SEEN_MASK = np.zeros((20, 14), np.uint8)
SEEN_MASK[2:6, 3:12] = 255


def folder_of(root: Path, tags: dict[str, int], lies: dict[str, str], size: tuple[int, int] = (20, 14)) -> PictureCase:
    """Pictures which, turned after their tags, all show one lesion; masks that lie on them as seen or as stored."""
    mask = SEEN_MASK[: size[0], : size[1]]
    for name, tag in tags.items():
        back = {5: 5, 6: 8, 7: 7, 8: 6}.get(tag, tag)  # the tag that turns the other way
        stored = turned(mask, back)
        (root / "in").mkdir(exist_ok=True)
        save(root / "in" / f"{name}.png", stored, tag, "pillow")
        if name in lies:
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask if lies[name] == "seen" else stored).save(root / "masks" / f"{name}.png")
    case = open_case(root / "in")
    assert isinstance(case, PictureCase)
    return case


def written(case: PictureCase, folder: Path, labels: Any) -> dict[str, np.ndarray]:
    case.write_mask(folder, lambda i: labels.get(i, np.zeros(case.slice_shape(i), np.uint16)))
    return {path.stem: np.asarray(Image.open(path)) for path in folder.iterdir()}


@pytest.mark.parametrize("tag", range(5, 9))
@pytest.mark.parametrize("lies", ["seen", "stored"])
def test_a_size_that_fits_only_one_orientation_settles_it(tag: int, lies: str, tmp_path: Path) -> None:
    case = folder_of(tmp_path, {"a": tag, "b": tag}, {"a": lies})
    labels = case.read_labels(tmp_path / "masks")
    assert np.array_equal(labels[0], SEEN_MASK)
    assert "fits the turned picture only" in labels.notices[0]
    out = written(case, tmp_path / "out", labels)
    assert np.array_equal(out["a"], np.asarray(Image.open(tmp_path / "masks" / "a.png")))
    assert out["b"].shape == out["a"].shape


@pytest.mark.parametrize("tag", range(2, 9))
def test_where_both_fit_as_seen_is_taken_and_said(tag: int, tmp_path: Path) -> None:
    case = folder_of(tmp_path, {"a": tag}, {"a": "seen"}, size=(14, 14))
    labels = case.read_labels(tmp_path / "masks")
    assert np.array_equal(labels[0], SEEN_MASK[:14])
    assert "both as it is seen and as it is stored: taken as every viewer shows it" in labels.notices[0]
    assert (labels.notices[0].hint, labels.notices[0].facts) == (Hint.OTHER_ORIENTATION, {"other": "stored"})
    assert np.array_equal(written(case, tmp_path / "out", labels)["a"], SEEN_MASK[:14])


@pytest.mark.parametrize("tag", range(2, 9))
def test_where_both_fit_a_person_can_choose_as_stored(tag: int, tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": tag}, {"a": "stored"}, size=(14, 14))
    case = open_case(tmp_path / "in", masks=MaskOptions(orientation="stored"))
    labels = case.read_labels(tmp_path / "masks")
    assert np.array_equal(labels[0], SEEN_MASK[:14])
    given = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    assert isinstance(case, PictureCase)
    assert np.array_equal(written(case, tmp_path / "out", labels)["a"], given)


def test_masks_whose_size_tells_speak_for_the_others_of_their_folder(tmp_path: Path) -> None:
    case = folder_of(tmp_path, {"a": 6, "b": 3, "c": 1}, {"a": "stored", "b": "stored", "c": "stored"})
    labels = case.read_labels(tmp_path / "masks")
    assert all(np.array_equal(labels[i], SEEN_MASK) for i in range(3))
    assert any("stored, like the masks whose size fits only one way" in notice for notice in labels.notices)


def test_a_mask_with_an_orientation_of_its_own_lies_as_seen(tmp_path: Path) -> None:
    case = folder_of(tmp_path, {"a": 6}, {})
    (tmp_path / "masks").mkdir()
    for tag in range(2, 9):
        back = {6: 8, 8: 6}.get(tag, tag)
        save(tmp_path / "masks" / "a.png", turned(SEEN_MASK, back), tag, "pillow")
        assert np.array_equal(case.read_labels(tmp_path / "masks")[0], SEEN_MASK)


def test_a_mask_that_fits_neither_is_refused_with_the_size_that_is_seen(tmp_path: Path) -> None:
    case = folder_of(tmp_path, {"a": 6}, {"a": "seen"})
    Image.fromarray(SEEN_MASK[1:]).save(tmp_path / "masks" / "a.png")
    with pytest.raises(LabelError, match=r"the mask is 14 x 19 pixels, but a\.png is 14 x 20 as it is seen"):
        case.read_labels(tmp_path / "masks")


def test_pictures_with_an_orientation_are_said(tmp_path: Path) -> None:
    case = folder_of(tmp_path, {"a": 1, "b": 3}, {})
    assert len(case.notices) == 1
    assert case.notices[0].startswith("1 picture with an orientation (EXIF) shown turned, as every viewer does: b.png")
