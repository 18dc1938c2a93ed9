"""Damaged pictures: PNG, JPEG, BMP and TIFF, single pages and stacks, with and without EXIF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import watching
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.opening import open_fully
from tests.fuzz.picture_files import bmps, damaged_picture, jpegs, pngs, tiffs


def damage(files: Files, rng: np.random.Generator) -> Files:
    return {name: damaged_picture(name, data, rng) for name, data in files.items()}


def named(name: str, contents: Sequence[bytes]) -> list[Files]:
    return [{name: content} for content in contents]


def check(folder: Path) -> None:
    (path,) = folder.iterdir()
    (folder / "stranger.tif").write_bytes(b"II*\0")
    watching.begin()
    try:
        open_fully(path, folder, ".tif")
    finally:
        others = watching.opened("stranger")
        assert not others, others


PNG = Target("png", lambda: named("image.png", pngs()), damage, check)
JPEG = Target("jpeg", lambda: named("image.jpg", jpegs()), damage, check, cases=200)
BMP = Target("bmp", lambda: named("image.bmp", bmps()), damage, check, cases=200)
TIFF = Target("tiff", lambda: named("image.tif", tiffs()), damage, check, cases=400)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_damaged_pictures_are_read_or_refused(kind: str, record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:{kind}", record_property)
