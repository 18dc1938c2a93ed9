"""The labels of one slice as a file of a saved session: a 16-bit grey PNG, so that any program can rescue them.

The name holds the slice, the kind of labels and a hash of the bytes, so that a changed file is noticed, and files of
two moments lie side by side: a session that is being saved never overwrites what the last one needs.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from napari_dinoaugseg import disk
from napari_dinoaugseg.session.labels import Labels

LAYERS = ("manual", "accepted", "predicted")
_NAME = re.compile(r"(\d{5,9})_(manual|accepted|predicted)_([0-9a-f]{16})\.png")
_LARGEST = 2**28  # bytes of one file; labels take far less


class DamagedSliceError(Exception):
    """A slice file is missing or not what was written. What the person reads is put together by the store."""


def write_slice(folder: Path, layer: str, index: int, labels: Labels) -> str:
    """Write labels (H, W); returns the file's name. Raises OSError.

    Predictions can be made again, so they need not survive a power cut; what a person said must.
    """
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, format="PNG", compress_level=1)
    content = stream.getvalue()
    name = f"{index:05d}_{layer}_{_hash(content)}.png"
    if not (folder / name).exists():
        disk.write(folder / name, content, durable=layer != "predicted")
    return name


def read_slice(path: Path, shape: tuple[int, int]) -> Labels:
    """Read labels of a slice of ``shape`` (H, W). Raises DamagedSliceError; allocates nothing larger than the slice."""
    try:
        content = disk.read(path, _LARGEST)
    except FileNotFoundError as error:
        msg = "missing"
        raise DamagedSliceError(msg) from error
    except OSError as error:
        msg = f"cannot be read ({disk.reason(error)})"
        raise DamagedSliceError(msg) from error
    found = parse(path.name)
    if found is None or found[2] != _hash(content):
        msg = "damaged"
        raise DamagedSliceError(msg)
    return _decode(content, shape)


def parse(name: str) -> tuple[int, str, str] | None:
    """Slice, kind of labels and hash from a file's name; None when it is no name of ours."""
    found = _NAME.fullmatch(name)
    return None if found is None else (int(found[1]), found[2], found[3])


def slice_files(folder: Path) -> Iterator[Path]:
    """The slice files in a folder, the oldest first; nothing when it is not there."""
    if folder.is_dir():
        files = [path for path in folder.iterdir() if parse(path.name) is not None]
        yield from sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _decode(content: bytes, shape: tuple[int, int]) -> Labels:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # The size stands in the header: nothing is decoded before it fits.
            if image.size != (shape[1], shape[0]) or image.mode not in ("I;16", "I"):
                msg = "labels of another size"
                raise DamagedSliceError(msg)
            return np.array(image).astype(np.uint16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        msg = "damaged"
        raise DamagedSliceError(msg) from error


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
