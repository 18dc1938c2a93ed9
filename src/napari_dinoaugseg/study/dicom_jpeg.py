"""JPEG processes that pydicom's own plugins leave out: lossless and 12-bit JPEG, decoded by imagecodecs.

Scanners and archives write lossless JPEG (process 14) widely. The function is registered with pydicom as a decoding
plugin, which it asks after its own.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

_LABEL = "imagecodecs"
_PROCESSES = (JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit)
# What pydicom asks of a module with a plugin, by its name.
DECODER_DEPENDENCIES = dict.fromkeys(_PROCESSES, ("numpy", "imagecodecs"))


def is_available(uid: str) -> bool:
    """Tell pydicom whether this decoder can be used for a transfer syntax."""
    return uid in DECODER_DEPENDENCIES and bool(imagecodecs.JPEG.available)


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame, for pydicom.

    Args:
        source: the JPEG stream.
        runner: what pydicom knows about the frame; told how the result is laid out.

    Returns:
        The pixels, little endian, row by row, colours beside each other.
    """
    # The same name for both ends of the conversion has libjpeg leave the colours as they are: pydicom converts them.
    colours = "RGB" if runner.samples_per_pixel == 3 else None
    pixels = np.asarray(imagecodecs.jpeg_decode(source, colorspace=colours, outcolorspace=colours))
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return bytearray(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes())


def register() -> None:
    """Have pydicom know this decoder; once is enough."""
    for uid in _PROCESSES:
        decoder = get_decoder(uid)
        if _LABEL not in decoder.available_plugins and is_available(uid):
            decoder.add_plugin(_LABEL, (__name__, decode_frame.__name__))
