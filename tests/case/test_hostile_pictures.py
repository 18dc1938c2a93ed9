"""Pictures that announce more than they hold, or name other files: refused before memory is spent on them."""

from __future__ import annotations

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
from tests.case.builders import GREY


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


def test_a_tiff_that_announces_more_than_the_memory_holds_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", metadata=None)
    for tag in (256, 257, 278):
        retagged(tmp_path / "a.tif", tag, 2**31)
    refused(tmp_path / "a.tif", r"a\.tif: its header announces .* GB of pixels, but this machine has")


def test_a_lack_of_memory_names_the_file_the_amount_and_possible_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asarray(_: tifffile.TiffPage) -> None:
        raise MemoryError("Unable to allocate 8.00 GiB")

    tifffile.imwrite(tmp_path / "a.tif", GREY, metadata=None)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", asarray)
    refused(tmp_path / "a.tif", r"a\.tif: .*more memory.*\(Unable to allocate 8\.00 GiB\).*may be damaged")


def test_a_tiff_strip_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((80, 80), np.uint16), compression="zlib", metadata=None)
    refused(retagged(tmp_path / "a.tif", 279, 2**31), r"a\.tif: cannot be read .*strips or tiles announce more")


def test_a_tile_far_larger_than_its_page_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, tile=(16, 16), compression="zlib", metadata=None)
    retagged(retagged(tmp_path / "a.tif", 322, 2**20), 323, 2**12)
    refused(tmp_path / "a.tif", r"a\.tif: cannot be read .*strips or tiles announce more")


def test_more_tiff_strips_than_the_file_has_bytes_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY > 0, rowsperstrip=1, metadata=None)
    refused(retagged(tmp_path / "a.tif", 257, 2**23), r"a\.tif: cannot be read .*strips or tiles announce more")


@pytest.mark.parametrize("target", ["first page", "itself", "outside"])
def test_a_broken_chain_of_pages_is_refused(target: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(3):
            writer.write(GREY, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[2].offset
    raw = bytearray(path.read_bytes())
    end = last + 2 + 12 * struct.unpack_from("<H", raw, last)[0]
    struct.pack_into("<I", raw, end, {"first page": first, "itself": last, "outside": len(raw) + 99}[target])
    path.write_bytes(raw)
    refused(path, r"a\.tif: cannot be read as a TIFF picture")


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
