"""Damaged NRRD files, and headers that point at other files."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from tests.case.builders import OBLIQUE, numbers
from tests.fuzz import watching
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.mutators import INTEGERS, Mutator, damaged, pick
from tests.fuzz.opening import open_fully

# What a hostile header would have read; no such file may be opened.
STRANGERS = "strangers.raw"

_VALUES = (
    *("0", "-1", "1", "3", "none", "nan", "inf", "1e400", "gzip", "bzip2", "raw", "ascii", "hex", "big", "little"),
    *("uchar", "short", "float", "double", "block", "uint64", "(1,0,0) (0,1,0) (0,0,1)", "(1,0) (0,1) none", "(", ")"),
    *("(nan,0,0) (0,1,0) (0,0,1)", "none none none", "domain domain domain", "RGB-color domain domain", "x " * 40, ""),
    *("left-posterior-superior", "scanner-xyz", "3D-right-handed", "\x1b[31m", '"a" "b', "{}", "LIST", "4 5 6", "120"),
)
_NAMES = (
    *("dimension", "sizes", "type", "encoding", "endian", "space", "space directions", "space origin", "kinds"),
    *("spacings", "byte skip", "line skip", "byteskip", "lineskip", "labels", "units", "space units", "thicknesses"),
    *("space dimension", "measurement frame", "centerings", "axis mins", "content", "block size", "old min", "x:=y"),
)


def _parts(data: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = data.partition(b"\n\n")
    return head.split(b"\n"), body


def _joined(lines: Sequence[bytes], body: bytes) -> bytes:
    return b"\n".join(lines) + b"\n\n" + body


def change_value(data: bytes, rng: np.random.Generator) -> bytes:
    """Put an awkward number or word into a field that is there."""
    lines, body = _parts(data)
    place = int(rng.integers(len(lines)))
    name, colon, value = lines[place].partition(b":")
    words = value.split(b" ")
    word = str(pick(rng, INTEGERS)) if rng.random() < 0.5 else pick(rng, _VALUES)
    if rng.random() < 0.5:
        words = [b"", word.encode()]
    else:
        words[int(rng.integers(len(words)))] = word.encode()
    lines[place] = name + (colon or b":") + b" ".join(words)
    return _joined(lines, body)


def change_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """Take a field away, double one, move one, or add one."""
    lines, body = _parts(data)
    place = int(rng.integers(len(lines)))
    line = lines[place]
    if rng.random() < 0.6:
        del lines[place]
    if rng.random() < 0.6:
        line = f"{pick(rng, _NAMES)}: {pick(rng, _VALUES)}".encode()
    lines.insert(int(rng.integers(len(lines) + 1)), line)
    return _joined(lines, body)


def point_elsewhere(data: bytes, rng: np.random.Generator) -> bytes:
    lines, body = _parts(data)
    name = pick(rng, ("data file", "datafile", "Data File", "DATAFILE", "data file ", " data file"))
    value = pick(rng, (STRANGERS, f"./{STRANGERS}", f"LIST\n{STRANGERS}", "strangers.%03d 1 2 1", "/etc/passwd"))
    lines.insert(int(rng.integers(1, len(lines) + 1)), f"{name}{pick(rng, (': ', ':=', ':'))}{value}".encode())
    return _joined(lines, body if rng.random() < 0.5 else b"")


def repack(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what is packed, not the packing."""
    lines, body = _parts(data)
    for unpack, pack in ((gzip.decompress, gzip.compress), (bz2.decompress, bz2.compress)):
        try:
            inner = damaged(unpack(body), rng)
        except (OSError, EOFError, ValueError, zlib.error):
            continue
        return _joined(lines, pack(inner))
    return damaged(data, rng)


@cache
def _zeros(kind: bytes) -> bytes:
    """64 MiB of nothing, packed."""
    return (gzip if kind == b"gzip" else bz2).compress(bytes(2**26), 9)


def bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """Follow what is packed by far more than the header says."""
    kind = pick(rng, (b"gzip", b"bzip2"))
    return data + _zeros(kind) * pick(rng, (1, 50)) if b"encoding: " + kind in data else data


OWN: tuple[Mutator, ...] = (change_value, change_value, change_lines, point_elsewhere, repack)


def damage(files: Files, rng: np.random.Generator) -> Files:
    data = damaged(files["image.nrrd"], rng, OWN, share=0.8)
    if rng.random() < 0.1:
        data = bomb(data, rng)
    return {"image.nrrd": data, STRANGERS: bytes(range(240))}


def volumes() -> Sequence[Files]:
    """Small volumes in every encoding and several spaces, colours and times among them."""
    made: list[Files] = []
    place = {
        "space": "left-posterior-superior",
        "space directions": (OBLIQUE @ np.diag([0.7, 0.9, 3.0])).T,
        "space origin": np.array([-12.0, 8.0, 40.0]),
        "kinds": ["domain"] * 3,
    }

    def add(array: np.ndarray, **fields: Any) -> None:
        stream = io.BytesIO()
        nrrd.write(stream, array, {key.replace("_", " "): value for key, value in fields.items()})
        made.append({"image.nrrd": stream.getvalue()})

    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        add(numbers((4, 5, 6)), encoding=encoding, **place)
    add(numbers((4, 5), np.float32), encoding="raw", spacings=[0.5, 0.6])
    add(numbers((4, 5, 6), np.uint8), encoding="gzip", labels=["x", "y", "z"], units=["mm"] * 3)
    nowhere = np.full((1, 3), np.nan)
    colour = {**place, "space directions": np.vstack([nowhere, place["space directions"]])}
    colour["kinds"] = ["RGB-color", *place["kinds"]]
    add(numbers((3, 4, 5, 6), np.uint8), encoding="raw", **colour)
    add(numbers((2, 4, 5, 6), np.uint8), encoding="gzip", **{**colour, "kinds": ["list", *place["kinds"]]})
    return made


def check(folder: Path) -> None:
    watching.begin()
    try:
        open_fully(folder / "image.nrrd", folder, ".nrrd")
    finally:
        others = watching.opened("strangers", "passwd")
        assert not others, others


TARGET = Target("nrrd", volumes, damage, check, cases=400)


def test_damaged_nrrd_files_are_read_or_refused(record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:TARGET", record_property)
