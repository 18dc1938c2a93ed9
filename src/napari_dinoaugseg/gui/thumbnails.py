"""Small pictures of cases for the table of a project, kept in the user's cache folder by the pixels of the case."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import Case, choose_window
from napari_dinoaugseg.case.recorded import CaseRecord
from napari_dinoaugseg.gui.widgets import cache_folder

SIDE = 36
"""Pixels of the longer side."""
_LARGEST = 2**20  # bytes of a file

Thumbnail = NDArray[np.uint8]
"""(H, W, 3), the longer side SIDE pixels."""


def thumbnail_of(case: Case, window: str = "auto") -> Thumbnail:
    """The middle slice of a case, reduced, with pixels as far apart as they are in the patient."""
    middle = case.n_slices // 2
    pixels = np.asarray(case.slice(middle))
    if pixels.ndim == 2:
        found = choose_window(case, window)
        low, high = (found.low, found.high) if found is not None else (0.0, 255.0)
        grey = np.clip((pixels.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255
        pixels = np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=2)
    elif pixels.dtype != np.uint8:
        pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    row, column = case.slice_spacing(middle) or (1.0, 1.0)
    scale = SIDE / max(height * row, width * column)
    size = max(1, round(width * column * scale)), max(1, round(height * row * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def read_thumbnail(record: CaseRecord) -> Thumbnail | None:
    """The kept thumbnail of a case; None if there is none."""
    try:
        content = disk.read(_path(record), _LARGEST)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB")) if max(image.size) == SIDE else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def keep_thumbnail(record: CaseRecord, thumbnail: Thumbnail) -> None:
    """Keep a thumbnail; a cache folder that cannot be written is not an error: it can be made again."""
    stream = io.BytesIO()
    Image.fromarray(thumbnail).save(stream, format="PNG")
    path = _path(record)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write(path, stream.getvalue(), durable=False)


def _path(record: CaseRecord) -> Path:
    return cache_folder() / "thumbnails" / f"{record.fingerprint}_{record.plane}.png"
