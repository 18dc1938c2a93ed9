"""Small pictures of every kind, and damage that keeps their structure: chunks, segments, tags, header fields."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tests.case.builders import numbers
from tests.fuzz.mutators import ANYWHERE, Mutator, at, damaged, integer, pick, replaced

GREY = numbers((9, 13), np.uint8)
COLOUR = numbers((9, 13, 3), np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def exif(tag: int) -> bytes:
    found = Image.Exif()
    found[274] = tag
    found[305] = "a scanner"
    return found.tobytes()


def packed(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def pngs() -> list[bytes]:
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    made = [packed(image, "PNG") for image in (grey, colour, grey.convert("1"), grey.convert("LA"))]
    made += [packed(colour.convert("RGBA"), "PNG"), packed(colour.quantize(5), "PNG", transparency=1)]
    made += [packed(Image.fromarray(numbers((9, 13), np.uint16)), "PNG"), packed(grey, "PNG", exif=exif(6))]
    return made


def jpegs() -> list[bytes]:
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    made = [packed(grey, "JPEG"), packed(colour, "JPEG", exif=exif(5)), packed(colour.convert("CMYK"), "JPEG")]
    return [*made, packed(colour, "JPEG", progressive=True, exif=exif(8))]


def bmps() -> list[bytes]:
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    return [packed(image, "BMP") for image in (grey, colour, grey.convert("1"), colour.quantize(5))]


def tiffs() -> list[bytes]:
    """Single pages and stacks."""
    turned = {"extratags": [(274, "H", 1, 6, True)], "metadata": None}
    stack = numbers((3, 9, 13), np.uint16)
    made = [tiff(GREY, **turned), tiff(COLOUR, photometric="rgb"), tiff(GREY > 60), tiff(stack[0], byteorder=">")]
    made += [tiff(COLOUR, photometric="rgb", compression=name) for name in ("zlib", "lzw", "jpeg", "zstd", "packbits")]
    made += [tiff(numbers((40, 40), np.float32), tile=(16, 16), compression="zlib", predictor=True)]
    made += [tiff(COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")]
    made += [tiff(GREY, photometric="miniswhite"), tiff(GREY, bigtiff=True), tiff(stack, photometric="minisblack")]
    made += [tiff(GREY, photometric="palette", colormap=numbers((3, 256), np.uint16))]
    made += [tiff(stack, photometric="minisblack", compression="zlib"), tiff(stack, imagej=True)]
    made += [tiff(numbers((2, 3, 9, 13), np.uint8), ome=True, photometric="minisblack", metadata={"axes": "CZYX"})]
    bits = Image.fromarray(GREY).convert("1")
    return [*made, packed(Image.fromarray(GREY), "TIFF"), packed(bits, "TIFF", compression="group4")]


# --- PNG: chunks with a checksum ---


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(SIGNATURE)
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


def _png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    parts = [SIGNATURE]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))]
    return b"".join(parts)


_EXTRA = (b"tRNS", b"PLTE", b"gAMA", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"sBIT", b"XXXX")


def png_chunk(data: bytes, rng: np.random.Generator) -> bytes:
    chunks = _chunks(data)
    if not chunks:
        return data
    place = int(rng.integers(len(chunks)))
    kind, body = chunks[place]
    choice = int(rng.integers(5))
    if choice == 0:
        del chunks[place]
    elif choice == 1:
        chunks.insert(int(rng.integers(len(chunks) + 1)), (kind, body))
    elif choice == 2:
        extra = pick(rng, (rng.bytes(6), exif(3), b"a\0\0" + zlib.compress(bytes(2**16)), b""))
        chunks.insert(int(rng.integers(1, len(chunks) + 1)), (pick(rng, _EXTRA), extra))
    elif kind == b"IDAT":
        chunks[place] = (kind, zlib.compress(damaged(_inflated(body), rng)))
    else:
        chunks[place] = (kind, pick(rng, ANYWHERE)(body, rng))
    return _png(chunks)


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, 2**20)
    except zlib.error:
        return body


def png_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Sizes, depth, colour type, compression, filter, interlace; the checksum is right."""
    chunks = _chunks(data)
    if not chunks or len(chunks[0][1]) < 13:
        return data
    kind, body = chunks[0]
    place = pick(rng, (0, 4, 8, 9, 10, 11, 12))
    new = integer(rng, 4, "big") if place < 8 else bytes([pick(rng, (0, 1, 2, 3, 4, 6, 8, 16, 255))])
    return _png([(kind, replaced(body, place, new)), *chunks[1:]])


@cache
def _zeros() -> bytes:
    return zlib.compress(bytes(2**26), 9)


def png_bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """Nothing, in a size that Pillow takes, warns of, or refuses."""
    side = pick(rng, (2000, 9400, 9500, 13300, 14000, 60000))
    header = struct.pack(">IIBBBBB", side, side, pick(rng, (1, 8, 16)), pick(rng, (0, 2, 3, 4, 6)), 0, 0, 0)
    return _png([(b"IHDR", header), (b"IDAT", _zeros()), (b"IEND", b"")])


# --- JPEG: segments with a length ---


def _segments(data: bytes) -> list[bytes]:
    found, place = [data[:2]], 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] not in (b"", b"\xda"):
        size = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        found.append(data[place : place + size])
        place += size
    return [*found, data[place:]]


def jpeg_segment(data: bytes, rng: np.random.Generator) -> bytes:
    parts = _segments(data)
    place = int(rng.integers(len(parts)))
    choice = int(rng.integers(4))
    if choice == 0:
        del parts[place]
    elif choice == 1:
        parts.insert(int(rng.integers(len(parts) + 1)), parts[place])
    else:
        parts[place] = pick(rng, ANYWHERE)(parts[place], rng)
    return b"".join(parts)


def jpeg_frame(data: bytes, rng: np.random.Generator) -> bytes:
    """Height, width, number and sampling of the components, or the orientation."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        place = data.find(marker)
        if place >= 0 and rng.random() < 0.7:
            return replaced(data, place + pick(rng, (4, 5, 7, 9, 10, 11)), integer(rng, pick(rng, (1, 2)), "big"))
    place = data.find(b"Exif\0\0")
    return replaced(data, place + int(rng.integers(40)), integer(rng, pick(rng, (1, 2, 4)))) if place >= 0 else data


# --- BMP and TIFF: numbers in fixed places ---

bmp_field = at(
    [(2, "i"), (10, "i"), (14, "i"), (18, "i"), (22, "i"), (26, "h"), (28, "h"), (30, "i"), (34, "i"), (46, "i")], "<"
)


def tiff_entry(data: bytes, rng: np.random.Generator) -> bytes:
    """Number, type, count or value of one entry of a directory."""
    order = ">" if data[:2] == b"MM" else "<"
    name = "big" if order == ">" else "little"
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        for _ in range(int(rng.integers(3))):  # often in the first directory, sometimes further along the chain
            (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
            (following,) = struct.unpack_from(
                order + ("Q" if big else "I"), data, place + (8 + count * 20 if big else 2 + count * 12)
            )
            if not following:
                break
            place = following
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    except (struct.error, OverflowError):
        return data
    entry = place + (8 + 20 * int(rng.integers(count + 1)) if big else 2 + 12 * int(rng.integers(min(count, 99) + 1)))
    where, size = pick(rng, ((0, 2), (2, 2), (4, 8 if big else 4), (12 if big else 8, 8 if big else 4)))
    if where == 0:
        known = (
            254,
            256,
            257,
            258,
            259,
            262,
            270,
            273,
            274,
            277,
            278,
            279,
            282,
            284,
            317,
            320,
            322,
            323,
            324,
            325,
            338,
        )
        return replaced(data, entry, int(pick(rng, (*known, 339, 347, 33922, 34377, 50838, 65535))).to_bytes(2, name))
    if where == 2:
        return replaced(data, entry + 2, int(rng.integers(20)).to_bytes(2, name))
    few = int(rng.integers(10)).to_bytes(size, name)
    return replaced(data, entry + where, few if rng.random() < 0.4 else integer(rng, size, name))


def tiff_tag(data: bytes, rng: np.random.Generator) -> bytes:
    """Give a page another compression, colour model, depth, layout or orientation: all of them sensible values."""
    order = ">" if data[:2] == b"MM" else "<"
    tags = {
        259: (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34712, 34887, 34925, 50000, 50001, 50002, 52546, 65000),
        262: (0, 1, 2, 3, 4, 5, 6, 8, 32803),
        258: (1, 2, 4, 8, 12, 16, 24, 32, 64),
        339: (1, 2, 3, 4, 5, 6),
        277: (1, 2, 3, 4, 5),
        284: (1, 2),
        274: (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        317: (1, 2, 3, 34892, 34893),
    }
    tag = pick(rng, list(tags))
    place = data.find(struct.pack(order + "HH", tag, 3))
    return replaced(data, place + 8, struct.pack(order + "H", pick(rng, tags[tag]))) if place >= 0 else data


KINDS: dict[str, tuple[Mutator, ...]] = {
    ".png": (png_chunk, png_chunk, png_header, png_header),
    ".jpg": (jpeg_segment, jpeg_frame),
    ".bmp": (bmp_field,),
    ".tif": (tiff_entry, tiff_entry, tiff_tag),
}


def damaged_picture(name: str, data: bytes, rng: np.random.Generator, bombs: float = 0.01) -> bytes:
    """Damage one picture by its suffix."""
    kind = name[name.rindex(".") :]
    if kind == ".png" and rng.random() < bombs:
        return png_bomb(data, rng)
    return damaged(data, rng, KINDS[kind], share=0.8)
