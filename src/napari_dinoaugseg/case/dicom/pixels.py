"""Decode DICOM slices one by one and rescale them, for example to Hounsfield units.

imagecodecs decodes lossless JPEG (process 14), which many scanners and archives write, and 12-bit JPEG, since pydicom's
own plugins do not. `decode_frame` is registered with pydicom as its last plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

from napari_dinoaugseg.case.dicom.frames import TILE, cut
from napari_dinoaugseg.case.dicom.headers import EXPECTED, Slice, number, read_dataset, text
from napari_dinoaugseg.case.files import reading
from napari_dinoaugseg.errors import CaseError

_LABEL = "imagecodecs"
_PROCESSES = (JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit)
# pydicom expects this name in the module of a plugin.
DECODER_DEPENDENCIES = dict.fromkeys(_PROCESSES, ("numpy", "imagecodecs"))


def is_available(uid: str) -> bool:
    """Return whether this decoder supports a transfer syntax, for pydicom."""
    return uid in DECODER_DEPENDENCIES and bool(imagecodecs.JPEG.available)


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame, for pydicom.

    Args:
        source: the JPEG stream.
        runner: pydicom's options for the frame; receives the layout of the result.

    Returns:
        The pixels, little endian, row by row, colours interleaved.
    """
    # Equal colour spaces disable the conversion of libjpeg: pydicom converts colours itself.
    colours = "RGB" if runner.samples_per_pixel == 3 else None
    pixels = np.asarray(imagecodecs.jpeg_decode(source, colorspace=colours, outcolorspace=colours))
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return bytearray(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes())


def register() -> None:
    """Register this decoder with pydicom."""
    for uid in _PROCESSES:
        decoder = get_decoder(uid)
        if _LABEL not in decoder.available_plugins and is_available(uid):
            decoder.add_plugin(_LABEL, (__name__, decode_frame.__name__))


register()  # on import, which happens once: pydicom's registry is not thread-safe
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_LITTLE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_pixels(ordered: Sequence[Slice]) -> tuple[NDArray[Any], float, float]:
    """Return the pixels (column, row, slice[, 3]) with slope and intercept.

    Integer rescaling (Hounsfield units) is applied immediately and gives integers; slices with different rescaling
    (PET) give float32 values; otherwise the stored numbers are kept with one slope and intercept.

    Raises:
        CaseError: pixels are missing, damaged, or do not match the header.
    """
    scales = {_rescale(slice_) for slice_ in ordered}
    whole = all(slope.is_integer() and intercept.is_integer() for slope, intercept in scales)
    stored: NDArray[Any] | None = None
    for k, (slice_, pixels) in enumerate(zip(ordered, _decoded(ordered), strict=True)):
        if len(scales) > 1 or whole:
            pixels = _apply(pixels, *_rescale(slice_), as_integers=whole)
        if stored is None:
            stored = _empty(ordered, pixels)
        if not np.can_cast(pixels.dtype, stored.dtype):
            wider = np.promote_types(stored.dtype, pixels.dtype)
            stored = stored.astype(wider, order="K")
        stored[:, :, k] = pixels.swapaxes(0, 1)
    if stored is None:
        msg = "a series has at least one slice"
        raise ValueError(msg)
    slope, intercept = (1.0, 0.0) if len(scales) > 1 or whole else next(iter(scales))
    return stored, slope, intercept


def _empty(ordered: Sequence[Slice], pixels: NDArray[Any]) -> NDArray[Any]:
    """Return an uninitialised array (column, row, slice[, 3]) for all slices, given the first."""
    extra = pixels.shape[2:]
    try:
        # Memory order as in the files: columns fastest, then rows, then slices.
        memory = np.empty((len(ordered), *pixels.shape), dtype=pixels.dtype)
    except (MemoryError, ValueError) as error:
        path, gigabytes = ordered[0].path, len(ordered) * pixels.nbytes / 1e9
        msg = f"{path}: its {len(ordered)} images need {gigabytes:.3g} GB, more than there is. Open fewer of them."
        raise CaseError(msg) from error
    return memory.transpose(2, 1, 0, *range(3, 3 + len(extra)))


def _rescale(slice_: Slice) -> tuple[float, float]:
    slope, intercept = number(slice_.facts, "RescaleSlope"), number(slice_.facts, "RescaleIntercept")
    return slope or 1.0, intercept or 0.0


def _apply(pixels: NDArray[Any], slope: float, intercept: float, *, as_integers: bool) -> NDArray[Any]:
    if (slope, intercept) == (1.0, 0.0) and as_integers:
        return pixels
    if not as_integers or pixels.dtype.kind == "f" or max(abs(slope), abs(intercept)) > np.iinfo(np.int32).max:
        return (pixels * np.float64(slope) + np.float64(intercept)).astype(np.float32)
    values = pixels.astype(np.int64) * int(slope) + int(intercept)
    low, high = int(values.min()), int(values.max())
    kinds = (np.int16, np.int32, np.int64)
    return values.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))


def _decoded(ordered: Sequence[Slice]) -> Iterator[NDArray[Any]]:
    """Yield each slice as (row, column), or (row, column, 3) in RGB; a multi-frame file is read once."""
    for path, group in groupby(ordered, key=lambda slice_: slice_.path):
        slices = list(group)
        first = slices[0]
        with reading(path, EXPECTED):
            dataset = open_pixels(path)
        decoded: Iterator[NDArray[Any]]
        if TILE in first.facts:
            (mosaic,) = decode(path, dataset, iter((0,)))
            decoded = (cut(slice_, mosaic) for slice_ in slices)
        else:
            decoded = decode(path, dataset, (0 if slice_.frame is None else slice_.frame - 1 for slice_ in slices))
        for slice_, pixels in zip(slices, decoded, strict=True):
            shown = _in_bytes(slice_, pixels) if pixels.ndim == 3 else pixels
            _check_size(slice_, shown)
            yield shown


def decode(path: Path, dataset: Dataset, frames: Iterator[int]) -> Iterator[NDArray[Any]]:
    """Yield the frames with these numbers (from 0) of an open file.

    Raises:
        CaseError: the pixels are damaged.
    """
    with reading(path, EXPECTED):
        size = int(dataset.Rows) * int(dataset.Columns)
        if dataset.BitsAllocated == 1 and size % 8 and dataset.file_meta.TransferSyntaxUID in _LITTLE:
            yield from (_unpacked(dataset, frame) for frame in frames)
        elif dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            yield from (apply_color_lut(pixels, dataset) for pixels in iter_pixels(dataset, indices=frames))
        else:
            yield from iter_pixels(dataset, indices=frames)


def _unpacked(dataset: Dataset, frame: int) -> NDArray[np.uint8]:
    """Return one frame of a 1-bit image that starts within a byte, which pydicom decodes incorrectly."""
    shape = (int(dataset.Rows), int(dataset.Columns))
    size = shape[0] * shape[1]
    start, skip = divmod(frame * size, 8)
    packed = np.frombuffer(dataset.PixelData, dtype=np.uint8, count=-(-(skip + size) // 8), offset=start)
    return np.unpackbits(packed, bitorder="little")[skip : skip + size].reshape(shape)


def _in_bytes(slice_: Slice, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return colours (row, column, 3) as uint8."""
    if pixels.dtype == np.uint8 or pixels.dtype.kind != "u":
        return pixels
    # Palette colours have 16 bits, regardless of the bits of the pixels.
    bits = 16 if text(slice_.facts, "PhotometricInterpretation") == "PALETTE COLOR" else _bits(slice_, pixels)
    return (pixels >> max(0, bits - 8)).astype(np.uint8)


def _bits(slice_: Slice, pixels: NDArray[Any]) -> int:
    stored = number(slice_.facts, "BitsStored")
    return int(stored) if stored and 1 <= stored <= 8 * pixels.dtype.itemsize else 8 * pixels.dtype.itemsize


def is_inverted(slice_: Slice) -> bool:
    """Return whether the lowest value is displayed as white (MONOCHROME1)."""
    return text(slice_.facts, "PhotometricInterpretation") == "MONOCHROME1"


def as_seen(slice_: Slice, values: NDArray[Any]) -> NDArray[Any]:
    """Invert values of a MONOCHROME1 image, so that high values are white; the type is kept.

    The range of the stored numbers is preserved, or that of the values if these are rescaled.
    """
    if values.dtype.kind not in "iu":
        return -values
    slope, intercept = _rescale(slice_)
    bits = number(slice_.facts, "BitsStored") or 16
    lowest = -(2 ** (bits - 1)) if slice_.facts.get("PixelRepresentation") == 1 else 0
    ends = 2 * lowest + 2**bits - 1
    if slope.is_integer() and intercept.is_integer():  # already applied
        ends = int(slope * ends + 2 * intercept)
    limits = np.iinfo(values.dtype)
    return np.clip(int(ends) - values.astype(np.int64), limits.min, limits.max).astype(values.dtype)


def open_pixels(path: Path) -> Dataset:
    """Read a whole file without decoding its pixels.

    Raises:
        CaseError: the file has no pixels, or holds a video.
    """
    dataset = read_dataset(path)
    syntax = dataset.file_meta.get("TransferSyntaxUID") if "file_meta" in vars(dataset) else None
    if syntax is not None and ("MPEG" in UID(syntax).name or "HEVC" in UID(syntax).name):
        msg = f"{path}: this is a video ({UID(syntax).name.split('/')[0].strip()}). Export its frames as pictures."
        raise CaseError(msg)
    if not any(keyword in dataset for keyword in _PIXELS):
        msg = f"{path}: the pixels are missing; the file is cut off. Copy or export it again."
        raise CaseError(msg)
    if "TransferSyntaxUID" not in dataset.file_meta:
        # Non-conformant files lack it; pydicom has detected their encoding while parsing.
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _check_size(slice_: Slice, pixels: NDArray[Any]) -> None:
    grey = slice_.facts.get("PhotometricInterpretation", "MONOCHROME2") in _GREY
    expected = slice_.size if grey else (*slice_.size, 3)
    if pixels.shape != expected:
        msg = f"{slice_.path}: its pixels are {pixels.shape}, but {expected} were announced. Export the series again."
        raise CaseError(msg)
