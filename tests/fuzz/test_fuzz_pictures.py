"""Damaged pictures: PNG, JPEG, BMP and TIFF, single pages and stacks, with and without EXIF."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.opening import open_fully
from tests.fuzz.picture_files import bmps, damaged_picture, jpegs, pngs, tiffs

_opened: list[str] = []


def damage(files: Files, rng: np.random.Generator) -> Files:
    return {name: damaged_picture(name, data, rng) for name, data in files.items()}


def named(name: str, contents: Sequence[bytes]) -> list[Files]:
    return [{name: content} for content in contents]


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _opened.append(str(arguments[0]))


@cache
def _start_watching() -> None:
    sys.addaudithook(watch)  # it stays until the process ends, so only the child of the harness has it


def check(folder: Path) -> None:
    _start_watching()
    (path,) = folder.iterdir()
    (folder / "stranger.tif").write_bytes(b"II*\0")
    _opened.clear()
    try:
        open_fully(path, folder, ".tif")
    finally:
        others = [name for name in _opened if "stranger" in name]
        assert not others, others


PNG = Target("png", lambda: named("image.png", pngs()), damage, check)
JPEG = Target("jpeg", lambda: named("image.jpg", jpegs()), damage, check, cases=200)
BMP = Target("bmp", lambda: named("image.bmp", bmps()), damage, check, cases=200)
TIFF = Target("tiff", lambda: named("image.tif", tiffs()), damage, check, cases=400)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_damaged_pictures_are_read_or_refused(kind: str, record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:{kind}", record_property)
