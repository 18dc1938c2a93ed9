"""Pictures with an orientation: shown as every viewer shows them, masks on the pixels as they are stored."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from napari_dinoaugseg.study import PictureStudy, open_study

SIZES = st.one_of(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from([(1, 1), (1, 17), (17, 1)]))


def save(path: Path, pixels: np.ndarray, tag: int, writer: str) -> None:
    if writer == "tifffile":
        options = {"extratags": [(274, "H", 1, tag, True)], "metadata": None}
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)  # type: ignore[arg-type]
    else:
        exif = Image.Exif()
        exif[274] = tag
        Image.fromarray(pixels).save(path, exif=exif)


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
    kind=st.sampled_from([(".png", "pillow"), (".jpg", "pillow"), (".tif", "pillow"), (".tif", "tifffile")]),
    highest=st.sampled_from([1, 255, 300]),
    seed=st.integers(0, 10**6),
)
def test_a_turned_picture_is_shown_as_by_pillow_and_its_mask_lies_on_the_stored_pixels(
    size: tuple[int, int], colour: bool, tag: int, kind: tuple[str, str], highest: int, seed: int
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
        study = open_study(path)
        assert isinstance(study, PictureStudy)
        assert np.array_equal(study.slice(0), upright)
        assert study.slice_shape(0) == upright.shape[:2]

        study.write_mask(folder / "out", lambda i: shown)
        with Image.open(folder / "out" / "a.png") as mask:
            assert mask.getexif().get(274, 1) == 1
            written = np.asarray(mask)
        assert written.shape == stored.shape[:2]
        assert np.array_equal(written, labels)
        if shown.any():
            back = study.read_labels(folder / "out")[0]
            assert np.array_equal(back, shown)
