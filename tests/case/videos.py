"""Small videos, written with PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64


def frame(number: int, count: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """A bright bar from the left, as long as the frame is late; the upper left corner is red."""
    pixels = np.full((*size, 3), 40, np.uint8)
    pixels[:, : round(size[1] * (number + 1) / count)] = 210
    pixels[: size[0] // 4, : size[1] // 4] = (230, 30, 30)
    return pixels


def write_video(
    path: Path,
    count: int = 30,
    codec: str = "mpeg4",
    *,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    b_frames: int = 0,
    times: Any = None,
) -> Path:
    """Write a video of so many frames, 25 in a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.gop_size = 12
        stream.bit_rate = 8_000_000
        for number in range(count):
            shown = av.VideoFrame.from_ndarray(frame(number, count, size), format="rgb24")
            shown.pts = number if times is None else times[number]
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path
