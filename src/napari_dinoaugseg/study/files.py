"""File names, and what a file really is: shared by every reader."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_dinoaugseg.errors import DinoAugSegError, StudyError

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
# Suffixes of pictures by Pillow's name of the format; TIFF is read by tifffile.
PICTURE_FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": tuple(sorted(TIFF_SUFFIXES)),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif",),
    "TGA": (".tga",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "PCX": (".pcx",),
    "QOI": (".qoi",),
}
FORMAT_OF = {suffix: name for name, suffixes in PICTURE_FORMATS.items() for suffix in suffixes}
PICTURE_SUFFIXES = frozenset(FORMAT_OF)
PICTURE_KINDS = "PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, AVIF, PPM, TGA, PCX or QOI"
NIFTI_SUFFIXES = frozenset({".nii", ".nii.gz"})
NRRD_SUFFIXES = frozenset({".nrrd", ".seg.nrrd"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

# Volumes that other programs read and can save as NIfTI: pairs of files, MetaImage, FreeSurfer, MINC, Philips.
CONVERTIBLE_SUFFIXES = frozenset(
    {".hdr", ".img", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz", ".mnc", ".par", ".rec", ".gipl", ".vtk"}
)

GZIP = b"\x1f\x8b"
"""The first bytes of a file that is packed with gzip."""

# The first bytes of the files that people mistake for images, and what to call them.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"qoif", "a QOI picture"),
    (b"NRRD", "a NRRD file"),
    (GZIP, "a gzip archive"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
)

# Brands of ISO base media files (ISO/IEC 14496-12) that are pictures.
_ISO_MEDIA = dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"), "a HEIC picture")


_DOUBLE_SUFFIXES = (".nii.gz", ".seg.nrrd")


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, `.nii.gz` and `.seg.nrrd` taken as one."""
    name = path.name.lower()
    return next((suffix for suffix in _DOUBLE_SUFFIXES if name.endswith(suffix)), Path(name).suffix)


def stem_of(path: Path) -> str:
    """Return the file name without its suffix, `.nii.gz` and `.seg.nrrd` taken as one."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix in _DOUBLE_SUFFIXES else path.stem


def name_of(path: Path) -> str:
    """Return how a study is called: the name of its folder, or of its file without suffix."""
    named = path if path.name not in ("", "..") else path.resolve()
    return named.name if named.is_dir() else stem_of(named)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `slice 2` before `slice 10`."""
    parts = re.split(r"(\d+)", text)
    folded = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts if part)
    return (*folded, (-1, 0, text))


def folded(name: str) -> str:
    """Return a name as it is compared: letter case and the spelling of accents (Unicode NFC or NFD) do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_hidden(path: Path, root: Path) -> bool:
    """Tell whether a file, or a folder between it and `root`, is hidden (`.DS_Store`, `._scan.png`, `__MACOSX`)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(root).parts)


def listed(names: list[str], most: int = 3) -> str:
    """Return a short list for a message: the first few names and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 file`, `3 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def endings_of(files: Iterable[Path]) -> str:
    """Return how many files have which ending, the commonest first: `3 .heic, 1 .csv`."""
    found = Counter(suffix_of(file) or "without an ending" for file in files)
    return ", ".join(
        f"{count} {ending}" for ending, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    )


def what_it_is(path: Path) -> str | None:
    """Say what a file is by its first bytes ("a web page", "a PNG picture"), or None when they tell nothing."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError:
        return None
    if not head:
        return "an empty file"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "an AVIF picture" if brand in (b"avif", b"avis") else _ISO_MEDIA.get(brand, "a video")
    if re.match(rb"\s*(<!doctype html|<html|<\?xml)", head, re.IGNORECASE):
        return "a web page"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def is_gzip(path: Path) -> bool:
    """Tell whether a file is packed with gzip, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(len(GZIP)) == GZIP


def is_dicom(path: Path) -> bool:
    """Tell whether a file carries the DICOM magic (PS3.10, section 7.1)."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def may_be_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM by its suffix or its first bytes; a damaged one with the suffix is meant as one."""
    return path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path) or _is_bare_dicom(path)


def _is_bare_dicom(path: Path) -> bool:
    """Tell whether a file is a DICOM data set without preamble and magic, as programs before 1995 and exports write it.

    Such a file begins with an element of group 0002 or 0008, whose length is a plausible number, in front of another
    element of these groups.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(264)
    except OSError:
        return False
    return len(head) >= 16 and any(_leads_to_element(head, order) for order in ("<", ">"))


def _leads_to_element(head: bytes, order: str) -> bool:
    group, element, length = struct.unpack_from(f"{order}HHI", head)
    if group not in (0x0002, 0x0008) or element > 0x0100:
        return False
    if head[4:6].isalpha() and head[4:6].isupper():  # explicit: two letters, then a length of two bytes
        (length,) = struct.unpack_from(f"{order}H", head, 6)
    if 8 + length + 4 > len(head):
        return False
    (following,) = struct.unpack_from(f"{order}H", head, 8 + length)
    return following in (0x0002, 0x0008)


def require_file(path: Path) -> None:
    """Raise `StudyError` unless `path` is a file that can be opened."""
    if not path.exists():
        msg = f"{path}: there is no such file or folder. Check the path."
        raise StudyError(msg)
    if not path.is_file():
        msg = f"{path}: this is a folder, but a file was expected."
        raise StudyError(msg)


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `StudyError` that names the file.

    Decoders meet bytes of unknown origin, and answer damage with almost any exception (struct.error, KeyError,
    zlib.error...): this is the one place where all of them mean "the file is damaged".
    """
    try:
        yield
    except DinoAugSegError:
        raise
    except MemoryError as error:
        msg = f"{path}: there is not enough free memory for this image. Close other programs, or export a part of it."
        raise StudyError(msg) from error
    except PermissionError as error:
        msg = f"{path}: no permission to read this file. Change its permissions or copy it elsewhere."
        raise StudyError(msg) from error
    except Exception as error:
        raise StudyError(unreadable(path, expected, error)) from error


def unreadable(path: Path, expected: str, error: Exception | None = None) -> str:
    """Return the message for a file that is not what its name says, or that is damaged."""
    found = what_it_is(path)
    if found is not None and not _fits(found, expected):
        return f"{path}: this is {found}, not {expected}. Give the real image, or its right suffix."
    # A decoder may quote the file, whose bytes must not reach a terminal as escape codes.
    detail = "".join(part if part.isprintable() else "?" for part in " ".join(str(error or "").split())[:160])
    reason = f" ({detail})" if detail else ""
    return f"{path}: cannot be read as {expected}{reason}. It is damaged or cut off; copy or export it again."


def _fits(found: str, expected: str) -> bool:
    """Tell whether what was found may well be what was expected, only broken."""
    return found in expected or expected in found or (found == "a gzip archive" and "gzip" in expected)
