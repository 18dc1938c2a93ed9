"""Decode one picture file: its pixels, its label values if it is a mask, and its EXIF orientation."""

from __future__ import annotations

import io
import re
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

from napari_dinoaugseg.case.files import FORMAT_OF, PICTURE_KINDS, reading, require_file, require_memory, suffix_of
from napari_dinoaugseg.case.tiff import count_planes, open_tiff
from napari_dinoaugseg.errors import CaseError

_EXPECTED = {
    "PNG": "a PNG picture",
    "JPEG": "a JPEG picture",
    "TIFF": "a TIFF picture",
    "BMP": "a BMP picture",
    "GIF": "a GIF picture",
    "WEBP": "a WebP picture",
    "JPEG2000": "a JPEG 2000 picture",
    "AVIF": "an AVIF picture",
    "TGA": "a TGA picture",
    "PPM": "a PPM or PGM picture",
    "PCX": "a PCX picture",
    "QOI": "a QOI picture",
}
_ORIENTATION_TAG = 274
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
    """The EXIF orientation of a picture, and its exact inverse."""

    tag: int = 1

    def show(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a stored (row, column[, channel]) array, turned upright."""
        transpose, rows, columns = _TURNS[self.tag]
        shown = stored.swapaxes(0, 1) if transpose else stored
        return shown[:: -1 if rows else 1, :: -1 if columns else 1]

    def store(self, shown: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an upright array in stored order: the exact inverse of `show`."""
        transpose, rows, columns = _TURNS[self.tag]
        turned = shown[:: -1 if rows else 1, :: -1 if columns else 1]
        return turned.swapaxes(0, 1) if transpose else turned

    def shown_shape(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the upright picture."""
        return (stored[1], stored[0]) if _TURNS[self.tag][0] else stored


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Attributes:
        pixels: (H, W) or (H, W, 3) as stored: uint8, uint16, int16, int32 or float.
        orientation: the EXIF orientation.
        exact: False for lossy compression (JPEG, lossy WebP...), whose values are only close to the original ones.
        numbers: the label values of a mask where `pixels` differ from them: palette indices, PGM values before they are
            stretched to white, 16-bit colours; (H, W) or (H, W, 3). None where `pixels` are the labels.
        palette: the colours (n, 3) uint8 of the indices in `numbers`; None without a palette.
        alpha: opacity (H, W); None where it is constant.
        frames: number of images in the file; the first one is read.
        spacing: (row, column) distance in mm; None if the file does not give it.
    """

    pixels: NDArray[Any]
    orientation: Orientation
    exact: bool = True
    numbers: NDArray[Any] | None = None
    palette: NDArray[np.uint8] | None = None
    alpha: NDArray[Any] | None = None
    frames: int = 1
    spacing: tuple[float, float] | None = None


def decode(path: Path) -> Picture:
    """Read a picture file in stored orientation.

    Raises:
        CaseError: it is missing, truncated, damaged, of an unknown kind, or does not fit its suffix.
    """
    require_file(path)
    kind = FORMAT_OF.get(suffix_of(path))
    if kind is None:
        msg = f"{path}: pictures of this kind are not supported. Use {PICTURE_KINDS}."
        raise CaseError(msg)
    with reading(path, _EXPECTED[kind]):
        return _decode_tiff(path) if kind == "TIFF" else _decode_pillow(path, kind)


@contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Refuse pictures that exceed the limit of Pillow; silence its other warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        most = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        msg = f"{path}: it has more than {most} million pixels. Export it smaller, or cut a part out."
        raise CaseError(msg) from error


def _decode_pillow(path: Path, kind: str) -> Picture:
    Image.init()
    if kind not in Image.OPEN:
        msg = f"{path}: the installed Pillow was built without {kind}. Save the picture as PNG."
        raise CaseError(msg)
    content = path.read_bytes()
    with _quietly(path), Image.open(io.BytesIO(content), formats=[kind]) as image:
        deep = kind == "PNG" and _is_deep_colour(content)
        frames = int(getattr(image, "n_frames", 1)) if kind != "JPEG" else 1  # phones add previews to a JPEG
        image.seek(0)
        maxval = _maxval(content) if kind == "PPM" else None
        image.load()
        tag = int(image.getexif().get(_ORIENTATION_TAG, 1))
        pixels, alpha = _pixels_of(image)
        numbers, palette = _numbers_of(image, maxval)
        if kind == "GIF" and palette is not None and _shows_grey(palette, numbers):
            numbers = palette = None  # GIF stores grey as a palette: its indices are no labels
    if deep:
        numbers, alpha = _deep_png(content)
    return Picture(
        pixels,
        Orientation(tag if tag in _TURNS else 1),
        exact=not _is_lossy(kind, content),
        numbers=numbers,
        palette=palette,
        alpha=_varying(alpha),
        frames=frames,
    )


def _pixels_of(image: Image.Image) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return grey or colour (H, W[, 3]), and opacity (H, W)."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16), None  # also swaps big-endian modes
    if image.mode in ("I", "F", "L", "RGB"):
        return np.asarray(image), None
    if image.mode == "1":
        return np.asarray(image.convert("L")), None
    if image.mode in ("LA", "La"):
        both = np.asarray(image.convert("LA"))
        return both[..., 0], both[..., 1]
    if image.mode in ("RGBA", "RGBa"):
        four = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(four[..., :3]), four[..., 3]
    return np.asarray(image.convert("RGB")), None


def _numbers_of(image: Image.Image, maxval: int | None) -> tuple[NDArray[Any] | None, NDArray[np.uint8] | None]:
    """Return the label values of a mask where they differ from the pixels, and the palette."""
    if image.mode == "P":
        colours = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
        return np.asarray(image), colours
    if maxval is not None and image.mode in ("L", "RGB", "I"):
        white = 65535 if image.mode == "I" else 255
        if maxval != white:  # Pillow rescales values from maxval to white
            numbers = np.rint(np.asarray(image).astype(np.float64) * maxval / white)
            return numbers.astype(np.uint16 if maxval > 255 else np.uint8), None
    return None, None


def _shows_grey(palette: NDArray[np.uint8], numbers: NDArray[Any] | None) -> bool:
    """Return whether all used colours are grey."""
    used = np.unique(numbers) if numbers is not None else np.zeros(0, int)
    colours = palette[used[used < len(palette)]]
    return bool((colours == colours[:, :1]).all())


def _maxval(content: bytes) -> int | None:
    """Return the value of white in the header of a PGM or PPM file (netpbm: magic, width, height, maxval)."""
    head = re.sub(rb"#[^\n]*\n?", b" ", content[:1024]).split(maxsplit=4)
    return int(head[3]) if head[0] in (b"P2", b"P3", b"P5", b"P6") and len(head) > 3 and head[3].isdigit() else None


def _is_deep_colour(content: bytes) -> bool:
    """Return whether a PNG has 16-bit colours, or 16-bit grey with opacity, which Pillow reduces to 8 bits."""
    return len(content) > 25 and content[24] == 16 and content[25] in (2, 4, 6)


def _deep_png(content: bytes) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the 16-bit grey or colours of a PNG, and its opacity."""
    import imagecodecs

    samples: NDArray[Any] = imagecodecs.png_decode(content)
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        colours = samples[..., 0] if samples.shape[2] == 2 else samples[..., :3]
        return np.ascontiguousarray(colours), samples[..., -1]
    return samples, None


def _varying(alpha: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return the opacity, or None where it is constant."""
    return None if alpha is None or alpha.size == 0 or (alpha == alpha.flat[0]).all() else alpha


def _is_lossy(kind: str, content: bytes) -> bool:
    """Return whether the compression of a file changes values."""
    if kind == "WEBP":
        # RIFF chunks: "VP8L" is lossless, "VP8 " lossy (RFC 9649); extended files start with another header.
        lossy, lossless = content.find(b"VP8 ", 12), content.find(b"VP8L", 12)
        return lossless < 0 or 0 <= lossy < lossless
    if kind == "JPEG2000":
        # Coding style (ISO/IEC 15444-1, A.6.1): the last byte of its fixed part is the wavelet, 0 = irreversible.
        place = content.find(b"\xff\x52", max(content.find(b"\xff\x4f\xff\x51"), 0))
        return 0 <= place < len(content) - 13 and content[place + 13] == 0
    return kind in ("JPEG", "AVIF")


# Lossy TIFF compressions: old and new JPEG, and the variants of whole-slide files.
_LOSSY_TIFF = frozenset({6, 7, 33007, 34892})


def _decode_tiff(path: Path) -> Picture:
    # Pillow refuses black-is-zero files with three samples, and signed 16-bit pixels; tifffile does not.
    with open_tiff(path) as tiff:
        page = tiff.pages.first
        require_memory(path, int(page.nbytes))
        tag = page.tags.get(_ORIENTATION_TAG)
        value = int(tag.value) if tag is not None else 1
        orientation = Orientation(value if value in _TURNS else 1)
        pixels = page.asarray()
        numbers, palette = None, None
        if page.colormap is not None and pixels.ndim == 2:
            numbers = pixels.astype(np.uint8)
            palette = (page.colormap >> 8).astype(np.uint8).T
            pixels = palette[pixels]
        elif page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
            pixels = ~pixels  # white is zero, as in Pillow and every viewer
        elif page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            msg = f"{path}: CMYK pictures are not supported. Convert it to RGB."
            raise CaseError(msg)
        if page.planarconfig == 2 and pixels.ndim == 3 and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        exact = int(page.compression) not in _LOSSY_TIFF
        frames = count_planes(tiff)
    alpha = pixels[..., -1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else None
    if numbers is None and pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint16:
        numbers = pixels[..., :3]
    return Picture(
        _tidy(path, pixels),
        orientation,
        exact=exact,
        numbers=numbers,
        palette=palette,
        alpha=_varying(alpha),
        frames=frames,
    )


def _tidy(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the samples of a TIFF page as (H, W), or as (H, W, 3) uint8."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "iuf" or pixels.size == 0:
        msg = f"{path}: it has no grey or colour pixels (type {pixels.dtype}). Save it as 8 or 16 bit."
        raise CaseError(msg)
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        if pixels.dtype == np.uint16:
            pixels = (pixels >> 8).astype(np.uint8)
        if pixels.dtype == np.uint8:
            return pixels[..., :3]
    if pixels.ndim != 2:
        msg = f"{path}: its pixels ({pixels.shape}, {pixels.dtype}) are neither grey nor 8-bit RGB. Convert it."
        raise CaseError(msg)
    return pixels
