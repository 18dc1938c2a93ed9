"""Pictures that claim more than they hold, or lead a decoder astray: refused before anything is spent on them."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import CaseError
from tests.case.builders import numbers

GREY = numbers((8, 10), np.uint8)


def png_of(path: Path, width: int, height: int) -> Path:
    """Write a PNG whose header is sound and whose pixels are few."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*parts, (b"IEND", b"")]
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def retagged(path: Path, tag: int, value: int, place: int = 8) -> Path:
    """Write another value (LONG) into an entry of the first directory of a little-endian TIFF file."""
    raw = bytearray(path.read_bytes())
    (count,) = struct.unpack_from("<H", raw, place)
    entry = next(
        at for at in range(place + 2, place + 2 + 12 * count, 12) if struct.unpack_from("<H", raw, at)[0] == tag
    )
    struct.pack_into("<HII", raw, entry + 2, 4, 1, value)
    path.write_bytes(raw)
    return path


def refused(path: Path, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CaseError, match=message):
            open_case(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("side", [9_500, 14_000])  # where Pillow warns, and where it refuses
def test_a_picture_of_too_many_pixels_is_told(side: int, tmp_path: Path) -> None:
    refused(png_of(tmp_path / "a.png", side, side), r"a\.png: it has more than 89 million pixels\. Export it smaller")


@pytest.mark.parametrize("side", [20_000, 2**31])
def test_a_tiff_page_of_too_many_pixels_is_told(side: int, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", metadata=None)
    for tag in (256, 257, 278):
        retagged(tmp_path / "a.tif", tag, side)
    refused(tmp_path / "a.tif", r"a\.tif: it has more than 89 million pixels")


def test_a_tiff_strip_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((80, 80), np.uint16), compression="zlib", metadata=None)
    refused(retagged(tmp_path / "a.tif", 279, 2**31), r"a\.tif: its tags tell of more pixels")


def test_a_tile_larger_than_its_page_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, tile=(16, 16), compression="zlib", metadata=None)
    retagged(retagged(tmp_path / "a.tif", 322, 2**20), 323, 2**12)
    refused(tmp_path / "a.tif", r"a\.tif: its tags tell of more pixels than a file of \d+ bytes can hold")


def test_a_stack_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbers((3, 8, 10), np.uint16), imagej=True)
    retagged(retagged(tmp_path / "a.tif", 256, 9000), 257, 9000)
    refused(retagged(tmp_path / "a.tif", 278, 9000), r"a\.tif: (its tags tell of more pixels|cannot be read)")


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("target", ["first page", "itself", "outside"])
def test_a_chain_of_pages_that_never_ends_is_refused(target: str, bigtiff: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for _ in range(3):
            writer.write(GREY, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[2].offset
    raw = bytearray(path.read_bytes())
    count, entry, pointer = ("<Q", 20, "<Q") if bigtiff else ("<H", 12, "<I")
    end = last + struct.calcsize(count) + entry * struct.unpack_from(count, raw, last)[0]
    struct.pack_into(pointer, raw, end, {"first page": first, "itself": last, "outside": len(raw) + 99}[target])
    path.write_bytes(raw)
    refused(path, r"a\.tif: cannot be read as a TIFF picture \(page 3 does not lead to the next\)")


def test_no_other_file_of_a_dataset_is_read(tmp_path: Path) -> None:
    """OME-TIFF may name other files, and a stranger's file may name any."""
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "other.tif", GREY + 100, metadata=None)
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="10" SizeY="8" SizeZ="2" SizeC="1" SizeT="1">'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="../other.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(tmp_path / "in" / "a.ome.tif", GREY, description=xml, metadata=None)
    case = open_case(tmp_path / "in" / "a.ome.tif")
    assert case.n_slices == 1
    assert np.array_equal(case.slice(0), GREY)


def test_bytes_of_a_picture_do_not_reach_the_terminal(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    raw = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(raw.replace(b"IDAT", b"\x1b[2J"))
    with pytest.raises(CaseError) as caught:
        open_case(tmp_path / "a.png")
    assert str(caught.value).isprintable()


def test_a_chunk_that_claims_gigabytes_costs_no_memory(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    raw = (tmp_path / "a.png").read_bytes()
    place = raw.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(raw[:place] + (2**31 - 1).to_bytes(4, "big") + raw[place + 4 :])
    tracemalloc.start()
    try:
        with contextlib.suppress(CaseError):  # Pillow may well find all pixels
            open_case(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
