"""One picture file: its pixels, and the orientation in which it is meant to be seen."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.files import TIFF_SUFFIXES, reading, require_file, suffix_of
from napari_dinoaugseg.study.tiff import open_tiff, require_plausible

_EXPECTED = {
    ".png": "a PNG picture",
    ".jpg": "a JPEG picture",
    ".jpeg": "a JPEG picture",
    ".bmp": "a BMP picture",
    ".tif": "a TIFF picture",
    ".tiff": "a TIFF picture",
}
_PILLOW_FORMAT = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
_ORIENTATION_TAG = 274
_MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26
# EXIF orientation (TIFF 6.0, tag 274) as: transpose the stored array, then flip its rows, then its columns.
_TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned to be seen, after its EXIF tag, and exactly back."""

    tag: int = 1

    def show(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a stored (row, column[, channel]) array as it is meant to be seen."""
        transpose, rows, columns = _TURNS[self.tag]
        shown = stored.swapaxes(0, 1) if transpose else stored
        return shown[:: -1 if rows else 1, :: -1 if columns else 1]

    def store(self, shown: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a shown array as it is stored: the exact inverse of `show`."""
        transpose, rows, columns = _TURNS[self.tag]
        turned = shown[:: -1 if rows else 1, :: -1 if columns else 1]
        return turned.swapaxes(0, 1) if transpose else turned

    def shown_shape(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) as seen."""
        return (stored[1], stored[0]) if _TURNS[self.tag][0] else stored


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Attributes:
        pixels: (H, W) or (H, W, 3) as stored: uint8, uint16, int16, int32 or float.
        orientation: how it is meant to be seen.
        exact: False for JPEG, whose values are only near to what was drawn.
        indexed: the numbers of the palette (H, W), for a mask whose colours are only for the eye; None without one.
    """

    pixels: NDArray[Any]
    orientation: Orientation
    exact: bool = True
    indexed: NDArray[np.uint8] | None = None


def decode(path: Path) -> Picture:
    """Read a picture file as it is stored; opacity is dropped.

    Raises:
        StudyError: it is missing, cut off, damaged, of an unknown kind, or not what its suffix says.
    """
    require_file(path)
    suffix = suffix_of(path)
    if suffix not in _EXPECTED:
        msg = f"{path}: pictures of this kind are not supported. Use PNG, JPEG, TIFF or BMP."
        raise StudyError(msg)
    with reading(path, _EXPECTED[suffix]):
        return _decode_tiff(path) if suffix in TIFF_SUFFIXES else _decode_pillow(path, suffix)


@contextmanager
def _of_bounded_size(path: Path) -> Iterator[None]:
    """Turn Pillow's warning of a decompression bomb into an error: a few bytes may unpack to gigabytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise StudyError(_too_large(path)) from error


def _too_large(path: Path) -> str:
    return f"{path}: it has more than {_MOST_PIXELS // 10**6} million pixels. Export it smaller, or cut a part out."


def _decode_pillow(path: Path, suffix: str) -> Picture:
    # From memory: a chunk may claim any length, and a read from disk allocates it beforehand.
    content = io.BytesIO(path.read_bytes())
    with _of_bounded_size(path), Image.open(content, formats=[_PILLOW_FORMAT[suffix]]) as image:
        image.load()
        tag = int(image.getexif().get(_ORIENTATION_TAG, 1))
        orientation = Orientation(tag if tag in _TURNS else 1)
        exact = suffix not in (".jpg", ".jpeg")
        indexed = np.asarray(image) if image.mode == "P" else None
        if image.mode.startswith("I;16"):
            pixels = np.asarray(image).astype(np.uint16)  # also swaps big-endian modes
        elif image.mode in ("I", "F", "L", "RGB"):
            pixels = np.asarray(image)
        elif image.mode in ("1", "LA", "La"):
            pixels = np.asarray(image.convert("L"))
        else:
            pixels = np.asarray(image.convert("RGB"))
    return Picture(pixels, orientation, exact, indexed)


def _decode_tiff(path: Path) -> Picture:
    # tifffile: Pillow refuses three samples with a black-is-zero colour space, and 16-bit signed pixels.
    with open_tiff(path) as tiff:
        page = tiff.pages.first
        if page.imagewidth * page.imagelength * page.imagedepth > _MOST_PIXELS:
            raise StudyError(_too_large(path))
        require_plausible(path, tiff, int(page.nbytes))
        tag = page.tags.get(_ORIENTATION_TAG)
        value = int(tag.value) if tag is not None else 1
        orientation = Orientation(value if value in _TURNS else 1)
        pixels = page.asarray()
        indexed = None
        if page.colormap is not None and pixels.ndim == 2:
            indexed = pixels.astype(np.uint8)
            pixels = (page.colormap[:, pixels] >> 8).astype(np.uint8).transpose(1, 2, 0)
        elif page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
            pixels = ~pixels  # white is zero: what Pillow and every viewer do
        elif page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            msg = f"{path}: CMYK pictures are not supported. Convert it to RGB."
            raise StudyError(msg)
        if page.planarconfig == 2 and pixels.ndim == 3 and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
    return Picture(_tidy(path, pixels), orientation, indexed=indexed)


def _tidy(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """Bring the samples of a TIFF page into (H, W) or (H, W, 3) of uint8."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "iuf" or pixels.size == 0:
        msg = f"{path}: it has no grey or colour pixels (type {pixels.dtype}). Save it as 8 or 16 bit."
        raise StudyError(msg)
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        if pixels.dtype == np.uint16:
            pixels = (pixels >> 8).astype(np.uint8)
        if pixels.dtype == np.uint8:
            return pixels[..., :3]
    if pixels.ndim != 2:
        msg = f"{path}: its pixels ({pixels.shape}, {pixels.dtype}) are neither grey nor 8-bit RGB. Convert it."
        raise StudyError(msg)
    return pixels
