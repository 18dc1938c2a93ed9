"""File handling shared by all readers and writers: suffixes, magic bytes, folder walks, atomic writes."""

from __future__ import annotations

import os
import re
import struct
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import CaseError, DinoAugSegError, OutputError

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
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima", ".rtstruct.dcm"})

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv"})

# Volumes that other programs read and can save as NIfTI: pairs of files, MetaImage, FreeSurfer, MINC, Philips.
CONVERTIBLE_SUFFIXES = frozenset(
    {".hdr", ".img", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz", ".mnc", ".par", ".rec", ".gipl", ".vtk"}
)

GZIP = b"\x1f\x8b"
"""The first bytes of a gzip file."""

# Magic bytes of the files that people mistake for images, and their names in messages.
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

_DOUBLE_SUFFIXES = (".nii.gz", ".seg.nrrd", ".rtstruct.dcm")


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case; `.nii.gz`, `.seg.nrrd` and `.rtstruct.dcm` count as one suffix."""
    name = path.name.lower()
    return next((suffix for suffix in _DOUBLE_SUFFIXES if name.endswith(suffix)), Path(name).suffix)


def stem_of(path: Path) -> str:
    """Return the file name without its suffix, as in `suffix_of`."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix in _DOUBLE_SUFFIXES else path.stem


def name_of(path: Path) -> str:
    """Return the name of a case: that of its folder, or of its file without suffix."""
    named = path if path.name not in ("", "..") else path.resolve()
    return named.name if named.is_dir() else stem_of(named)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `slice 2` before `slice 10`."""
    parts = re.split(r"(\d+)", text)
    folded = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts if part)
    return (*folded, (-1, 0, text))


def folded(name: str) -> str:
    """Return a name for comparison, regardless of case and of the Unicode form of accents (NFC or NFD)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_hidden(path: Path, root: Path) -> bool:
    """Return whether a file, or a folder between it and `root`, is hidden (`.DS_Store`, `._scan.png`, `__MACOSX`)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(root).parts)


def listed(names: list[str], most: int = 3) -> str:
    """Return a short list for a message: the first few names and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 file`, `3 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times(values: Iterable[float]) -> str:
    """Return sizes as text, `4 x 5 x 2.5`: whole numbers in full, others with four digits."""
    return " x ".join(f"{value:.4g}" if value % 1 else f"{value:.0f}" for value in values)


def endings_of(files: Iterable[Path]) -> str:
    """Count files by suffix, the most frequent first: `3 .heic, 1 .csv`."""
    found = Counter(suffix_of(file) or "without an ending" for file in files)
    return ", ".join(
        f"{count} {ending}" for ending, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    )


def what_it_is(path: Path) -> str | None:
    """Identify a file by its first bytes ("a web page", "a PNG picture"); None if unknown."""
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
    """Return whether a file is gzip-compressed, regardless of its name."""
    with path.open("rb") as stream:
        return stream.read(len(GZIP)) == GZIP


def is_dicom(path: Path) -> bool:
    """Return whether a file carries the DICOM magic (PS3.10, section 7.1)."""
    return _head(path, 132)[128:] == b"DICM"


def _head(path: Path, count: int) -> bytes:
    """Return the first bytes of a file; empty when it cannot be opened."""
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError:
        return b""


def may_be_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its suffix (it may be damaged) or its first bytes."""
    return path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path) or _is_bare_dicom(path)


def _is_bare_dicom(path: Path) -> bool:
    """Return whether a file is a DICOM data set without preamble and magic, as old programs and some exports write it.

    Such a file starts with two elements of group 0002 or 0008, the first of plausible length.
    """
    head = _head(path, 264)
    return len(head) >= 16 and any(_leads_to_element(head, order) for order in ("<", ">"))


def _leads_to_element(head: bytes, order: str) -> bool:
    group, element, length = struct.unpack_from(f"{order}HHI", head)
    if group not in (0x0002, 0x0008) or element > 0x0100:
        return False
    if head[4:6].isalpha() and head[4:6].isupper():  # explicit VR: two letters, then a 16-bit length
        (length,) = struct.unpack_from(f"{order}H", head, 6)
    if 8 + length + 4 > len(head):
        return False
    (following,) = struct.unpack_from(f"{order}H", head, 8 + length)
    return following in (0x0002, 0x0008)


def require_memory(path: Path, nbytes: int) -> None:
    """Raise `CaseError` when a header declares more pixel data than this machine has memory."""
    most = psutil.virtual_memory().total
    if nbytes > most:
        msg = (
            f"{path}: its header announces {nbytes / 1e9:.3g} GB of pixels, but this machine has {most / 1e9:.3g} GB "
            "of memory. The file is cut off or damaged, or needs a larger machine."
        )
        raise CaseError(msg)


def not_found(path: Path) -> str:
    """Return the message for a path that does not exist."""
    return f"{path}: there is no such file or folder. Check the path."


def require_file(path: Path) -> None:
    """Raise `CaseError` unless `path` is a file that can be opened."""
    if not path.exists():
        raise CaseError(not_found(path))
    if not path.is_file():
        msg = f"{path}: this is a folder, but a file was expected."
        raise CaseError(msg)


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn any exception of a decoder into a `CaseError` that names the file.

    Decoders raise almost anything on damaged files (struct.error, KeyError, zlib.error...): here it all means "the file
    is damaged".
    """
    try:
        yield
    except DinoAugSegError:
        raise
    except MemoryError as error:
        msg = (
            f"{path}: reading it needs more memory than is available{_detail(error)}. The file may be damaged: copy or "
            "export it again. If it is that large, close other programs, or export a part of it."
        )
        raise CaseError(msg) from error
    except PermissionError as error:
        msg = f"{path}: no permission to read this file. Change its permissions or copy it elsewhere."
        raise CaseError(msg) from error
    except Exception as error:
        raise CaseError(unreadable(path, expected, error)) from error


def unreadable(path: Path, expected: str, error: Exception | None = None) -> str:
    """Return the message for a file that is damaged, or of another kind than its name suggests."""
    found = what_it_is(path)
    if found is not None and not _fits(found, expected):
        return f"{path}: this is {found}, not {expected}. Give the real image, or its right suffix."
    return f"{path}: cannot be read as {expected}{_detail(error)}. It is damaged or cut off; copy or export it again."


def _detail(error: Exception | None) -> str:
    """Return the text of an exception in brackets."""
    text = " ".join(str(error or "").split())[:160]
    return f" ({text})" if text else ""


def _fits(found: str, expected: str) -> bool:
    """Return whether a file of kind `found` may be a broken file of the expected kind."""
    return found in expected or expected in found or (found == "a gzip archive" and "gzip" in expected)


@dataclass
class Folder:
    """The direct contents of a folder without hidden files, each kind in natural order.

    Attributes:
        pictures: files with the suffix of a picture.
        others: other files.
        folders: subfolders, including links to folders.
        broken: dangling links.
    """

    pictures: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)


def look_into(folder: Path) -> Folder:
    """List a folder. Raises `CaseError` when it cannot be read."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError as error:
        msg = f"{folder}: this folder cannot be read ({error.strerror}). Change its permissions or copy it elsewhere."
        raise CaseError(msg) from error
    found = Folder()
    for path in entries:
        if is_hidden(path, folder):
            continue
        if path.is_dir():
            found.folders.append(path)
        elif not path.exists():
            found.broken.append(path)
        elif path.is_file():
            (found.pictures if suffix_of(path) in PICTURE_SUFFIXES else found.others).append(path)
    return found


def once(folders: Iterable[Path], seen: set[str]) -> Iterator[Path]:
    """Yield folders not visited yet: links may form a cycle or lead to one folder twice."""
    for folder in folders:
        real = os.path.realpath(folder)
        if real not in seen:
            seen.add(real)
            yield folder


def each_folder(folder: Path) -> Iterator[Folder]:
    """Yield the contents of a folder and its subfolders, each folder once. Raises as `look_into`."""
    seen = {os.path.realpath(folder)}
    ahead = [folder]
    while ahead:
        found = look_into(ahead.pop(0))
        yield found
        ahead.extend(once(found.folders, seen))


def files_below(folder: Path) -> list[Path]:
    """Return all files in a folder and its subfolders except hidden ones, sorted by path."""
    return sorted(path for found in each_folder(folder) for path in (*found.pictures, *found.others))


def place_of(file: Path) -> tuple[str, str]:
    """Return resolved folder and file name: one place per file, but two links to one file are two places."""
    return os.path.realpath(file.parent), file.name


@dataclass
class LeftOut:
    """Files and folders that a folder walk skips.

    Attributes:
        others: files that are not pictures.
        broken: dangling links.
        masks: files beside pictures with the name of a mask.
        mask_folders: folders with the name of a mask folder.
        below: subfolders with pictures, in a folder that has pictures itself.
    """

    others: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    mask_folders: list[Path] = field(default_factory=list)
    below: list[Path] = field(default_factory=list)

    def sentences(self, name: str) -> list[str]:
        """Return notices about everything skipped in the folder called `name`."""
        masks = "a mask by its name" if len(self.masks) == 1 else "masks by their names"
        skipped = (
            (self.others, "file", f"of other kinds in {name} left out"),
            (self.broken, "link", f"in {name} that lead nowhere left out"),
            (self.masks, "file", f"in {name} taken for {masks} (a picture needs another name)"),
            (self.mask_folders, "folder", f"in {name} named as masks left out"),
            (self.below, "folder", f"in {name} left out, since pictures lie right in {name}"),
        )
        return [
            f"{counted(len(paths), noun)} {what}: "
            + (endings_of(paths) if paths is self.others else listed([path.name for path in paths]))
            for paths, noun, what in skipped
            if paths
        ]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` if the block succeeds.

    `path` holds the old file or the whole new one at any time. When the block raises, the temporary file is removed.

    Raises:
        OutputError: the system refused to write (disk full, no permission, folder gone).
    """
    with _refusals(path), disk.replacing(path, suffix=suffix_of(path)) as temporary:
        yield temporary


@contextmanager
def atomic_folder(path: Path, *, whole: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, and move it, or its files one by one, to `path` if the block succeeds.

    A new folder appears in one step. In an existing folder each file is replaced atomically and other files stay,
    unless the folder is to be exchanged as a `whole`.

    Raises:
        OutputError: the system refused to write; the folder is unchanged.
    """
    with _refusals(path), disk.replacing_folder(path, whole=whole) as temporary:
        yield temporary


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"{path}: cannot be written ({disk.reason(error)}). Choose another place or free some space."
        raise OutputError(msg) from error


def check_parent(path: Path) -> None:
    """Raise `OutputError` unless a file or folder can be created at `path`."""
    parent = path.absolute().parent
    if not parent.exists():
        msg = f"{path}: the folder {parent} does not exist. Make it first, or choose another place."
        raise OutputError(msg)
    if not parent.is_dir():
        msg = f"{path}: {parent} is a file, not a folder. Choose another place."
        raise OutputError(msg)
    check_writable(parent, path)


def check_writable(folder: Path, path: Path) -> None:
    """Raise `OutputError` unless a temporary file can be created in `folder`; permission bits may be wrong."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"{path}: the folder {folder} is not writable ({error.strerror}). Choose another place."
        raise OutputError(msg) from error


def is_same(a: Path, b: Path) -> bool:
    """Return whether two paths name the same file or folder, existing or not."""
    try:
        return a.samefile(b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def check_not_input(path: Path, inputs: Sequence[Path]) -> None:
    """Raise `OutputError` when writing `path` would overwrite one of the inputs."""
    for given in inputs:
        if is_same(path, given):
            msg = f"{path}: this would overwrite an input. Choose another name for the result."
            raise OutputError(msg)
