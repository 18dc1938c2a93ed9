"""Damaged NIfTI files, plain and packed."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.case.builders import OBLIQUE, numbers
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.mutators import Mutator, at, damaged, pick, replaced
from tests.fuzz.opening import open_fully

_ONE = [(0, "i"), (56, "f"), (68, "h"), (70, "h"), (72, "h"), (108, "f"), (112, "f"), (116, "f"), (123, "B")]
_ONE += [(40 + 2 * n, "h") for n in range(8)] + [(76 + 4 * n, "f") for n in range(8)]
_ONE += [(252, "h"), (254, "h"), (344, "i"), (348, "i"), (352, "i"), (356, "i")]
_ONE += [(256 + 4 * n, "f") for n in range(18)]
_TWO = [(0, "i"), (4, "q"), (12, "h"), (14, "h"), (80, "d"), (168, "q"), (176, "d"), (184, "d"), (500, "i")]
_TWO += [(16 + 8 * n, "q") for n in range(8)] + [(104 + 8 * n, "d") for n in range(8)]
_TWO += [(344, "i"), (348, "i"), (504, "i"), (540, "i"), (544, "i"), (548, "i")]
_TWO += [(352 + 8 * n, "d") for n in range(18)]
_CODES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304)
_SIDES = (0, 1, 1, 2, 3, 4, 5, 7, 24, 60, 120)


def _order(data: bytes) -> str:
    return ">" if data[:4] in (b"\x00\x00\x01\x5c", b"\x00\x00\x02\x1c") else "<"


def _is_two(data: bytes) -> bool:
    return data[:4] in (b"\x00\x00\x02\x1c", b"\x1c\x02\x00\x00")


def any_field(data: bytes, rng: np.random.Generator) -> bytes:
    return at(_TWO if _is_two(data) else _ONE, _order(data))(data, rng)


def likely_shape(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number of axes and small sizes, which often still fit the file."""
    sizes = [int(rng.integers(1, 8)), *(pick(rng, _SIDES) for _ in range(7))]
    place, code = (16, "8q") if _is_two(data) else (40, "8h")
    return replaced(data, place, struct.pack(_order(data) + code, *sizes))


def likely_type(data: bytes, rng: np.random.Generator) -> bytes:
    return replaced(data, 12 if _is_two(data) else 70, struct.pack(_order(data) + "h", pick(rng, _CODES)))


def likely_place(data: bytes, rng: np.random.Generator) -> bytes:
    """Codes, quaternions and rows as a scanner might have them, each on its own."""
    place, size, code = (352, 8, "d") if _is_two(data) else (256, 4, "f")
    for n in rng.integers(18, size=3):
        value = pick(rng, (0.0, 1.0, -1.0, float(rng.normal()), float(rng.normal() * 1e4), 1e-6))
        data = replaced(data, place + size * int(n), struct.pack(_order(data) + code, value))
    codes = struct.pack(_order(data) + ("ii" if _is_two(data) else "hh"), *(int(n) for n in rng.integers(0, 5, 2)))
    return replaced(data, 344 if _is_two(data) else 252, codes)


OWN: tuple[Mutator, ...] = (any_field, any_field, likely_shape, likely_type, likely_place)


@cache
def _zeros() -> bytes:
    """64 MiB of nothing in 64 KiB: a member that any gzip file may be followed by."""
    return gzip.compress(bytes(2**26), 9, mtime=0)


def damage(files: Files, rng: np.random.Generator) -> Files:
    ((name, data),) = files.items()
    if not name.endswith(".gz"):
        return {name: damaged(data, rng, OWN)}
    if rng.random() < 0.75:
        data = gzip.compress(damaged(gzip.decompress(data), rng, OWN), 1, mtime=0)
    if rng.random() < 0.1:
        data += _zeros() * pick(rng, (1, 1, 2, 60))
    return {name: damaged(data, rng) if rng.random() < 0.3 else data}


def volumes() -> Sequence[Files]:
    """Small volumes of many kinds: types, byte orders, colours, both versions, extensions, four dimensions."""
    made: list[Files] = []
    oblique = nib.affines.from_matvec(OBLIQUE @ np.diag([0.8, 1.0, 3.0]), [-10, 5, 30])

    def add(array: np.ndarray, kind: type = nib.Nifti1Image, change: Callable[..., None] | None = None) -> None:
        image = kind(array, oblique)
        image.set_sform(oblique, code=2)
        image.set_qform(oblique, code=1)
        if change is not None:
            change(image.header)
        plain = image.to_bytes()
        made.extend([{"image.nii": plain}, {"image.nii.gz": gzip.compress(plain, 9, mtime=0)}])

    colours = np.ascontiguousarray(numbers((4, 3, 2, 3), np.uint8)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])
    add(numbers((4, 5, 6)))
    add(numbers((5, 4, 3), np.uint8), change=lambda header: header.set_slope_inter(2, -1))
    add(numbers((3, 4, 2, 3), np.float32))
    add(numbers((7, 5), np.float64), nib.Nifti2Image)
    add(colours[..., 0])
    add(
        numbers((4, 4, 4), np.int32),
        nib.Nifti2Image,
        lambda header: header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"from the scanner")),
    )
    add(
        numbers((4, 4, 4), np.uint16),
        change=lambda header: header.extensions.append(nib.nifti1.Nifti1Extension(0, bytes(40))),
    )
    big = nib.Nifti1Image(numbers((4, 5, 3)), oblique, nib.Nifti1Header(endianness=">"))
    made.append({"image.nii": big.to_bytes()})
    return made


def check(folder: Path) -> None:
    (path,) = folder.iterdir()
    open_fully(path, folder)


TARGET = Target("nifti", volumes, damage, check, cases=400)


def test_damaged_nifti_files_are_read_or_refused(record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:TARGET", record_property)
