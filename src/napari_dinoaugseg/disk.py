"""Atomic writing of files and folders, and safe reading.

New content is written to a hidden file in the same folder, flushed to the disk, and renamed in one step (POSIX rename;
MoveFileEx on Windows). Readers see the old file or the new one, even after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""Marks hidden files and folders as unfinished; they may be deleted when their writer is gone."""


def reason(error: OSError) -> str:
    """The system's message of an error, also if a library wraps it in another exception."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return next(iter(str(error).splitlines()), type(error).__name__)


def digest(path: Path) -> str:
    """A hash (32 hexadecimal digits) of the bytes of a file. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextmanager
def replacing(path: Path, *, suffix: str = "", durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name in the same folder; after the block that file becomes ``path``.

    Args:
        path: the file to create or replace.
        suffix: of the temporary name, by which some writers choose the format.
        durable: flush the bytes to the disk before the rename. Without it, a power cut (not the end of the program) may
            leave an empty or truncated file.

    Raises:
        OSError: the old file is unchanged, and no other file is left.
    """
    temporary = path.with_name(f".{path.name.removesuffix(suffix)[:80]}.{secrets.token_hex(6)}{PART}{suffix}")
    try:
        yield temporary
        if durable:
            flush(temporary)
        temporary.replace(path)
        if durable:
            _flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the first error is the useful one
            temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` with :func:`replacing`. Raises OSError."""
    with replacing(path, durable=durable) as temporary, temporary.open("xb") as file:
        file.write(content)


def read(path: Path, largest: int) -> bytes:
    """The bytes of an untrusted file: a regular file, not a link or device, of at most ``largest`` bytes.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: it is larger, not a regular file, or cannot be read.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a file of its own", str(path))
    if status.st_size > largest:
        raise OSError(errno.EFBIG, "larger than it can be", str(path))
    return path.read_bytes()


@contextmanager
def replacing_folder(path: Path, *, whole: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; after the block its files become those of ``path``.

    A new folder appears in one step. In an existing folder each file is replaced in one step, other files stay, and if
    one cannot be replaced the earlier ones are restored.

    Args:
        path: the folder to create or fill.
        whole: exchange an existing folder for the new one, so that none of its files stays.

    Raises:
        OSError: the files of ``path`` are unchanged.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        if not path.exists():
            temporary.replace(path)
        elif whole:
            _exchange(temporary, path)
        else:
            _replace_files(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}{PART}")


def _exchange(new: Path, path: Path) -> None:
    former = _beside(path)
    try:
        path.rename(former)
        new.rename(path)
    except BaseException:
        if former.exists() and not path.exists():
            former.rename(path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _replace_files(source: Path, target: Path) -> None:
    files = [file for file in sorted(source.rglob("*")) if file.is_file()]
    former = source / f"former{PART}"
    former.mkdir()
    done: list[tuple[Path, Path | None]] = []  # a replaced file, and the copy of its old content
    try:
        for number, file in enumerate(files):
            place = target / file.relative_to(source)
            kept = former / str(number) if place.exists() else None
            if kept is not None:
                shutil.copy2(place, kept)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
            done.append((place, kept))
    except OSError:
        for place, kept in done:
            with contextlib.suppress(OSError):  # restore the others
                place.unlink() if kept is None else kept.replace(place)
        raise


def flush(path: Path) -> None:
    """Flush the bytes of a file to the disk. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the new name to the disk. Windows cannot open folders, and need not."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
