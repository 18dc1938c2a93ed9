"""File names, and what a file really is: shared by every reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_dinoaugseg.errors import DinoAugSegError, StudyError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
NIFTI_SUFFIXES = frozenset({".nii", ".nii.gz"})
NRRD_SUFFIXES = frozenset({".nrrd"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

# Volumes that other programs read and can save as NIfTI: pairs of files, MetaImage, FreeSurfer, MINC, Philips.
CONVERTIBLE_SUFFIXES = frozenset(
    {".hdr", ".img", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz", ".mnc", ".par", ".rec", ".gipl", ".vtk"}
)

# The first bytes of the files that people mistake for images, and what to call them.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"NRRD", "a NRRD file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
)


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, `.nii.gz` taken as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def stem_of(path: Path) -> str:
    """Return the file name without its suffix, `.nii.gz` taken as one."""
    return path.name[: -len(".nii.gz")] if suffix_of(path) == ".nii.gz" else path.stem


def name_of(path: Path) -> str:
    """Return how a study is called: the name of its folder, or of its file without suffix."""
    named = path if path.name not in ("", "..") else path.resolve()
    return named.name if named.is_dir() else stem_of(named)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `slice 2` before `slice 10`."""
    parts = re.split(r"(\d+)", text)
    folded = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts if part)
    return (*folded, (-1, 0, text))


def is_hidden(path: Path, root: Path) -> bool:
    """Tell whether a file, or a folder between it and `root`, is hidden (`.DS_Store`, `._scan.png`, `__MACOSX`)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(root).parts)


def listed(names: list[str], most: int = 3) -> str:
    """Return a short list for a message: the first few names and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


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
    if re.match(rb"\s*(<!doctype html|<html|<\?xml)", head, re.IGNORECASE):
        return "a web page"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def is_dicom(path: Path) -> bool:
    """Tell whether a file carries the DICOM magic (PS3.10, section 7.1)."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def may_be_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM by its suffix or its magic; a damaged one with the suffix is meant as one."""
    return path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path)


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
