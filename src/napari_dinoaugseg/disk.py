"""Files that appear whole or not at all: what everything that writes stands on.

A new content goes to a hidden file in the same folder, is brought onto the disk, and takes the name in one step
(POSIX rename; MoveFileEx on Windows). Whoever looks sees the old file or the new one, also after a power cut.
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
"""Hidden files and folders with this in their names are unfinished, and may be deleted when their writer is gone."""


def reason(error: OSError) -> str:
    """Why the system refused, in its own few words: some libraries wrap them in a traceback."""
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
    """Give a temporary name in the same folder; when the block ends well, what was written there becomes ``path``.

    Args:
        path: the file to make or to replace.
        suffix: of the temporary name too: some writers choose the format by it.
        durable: have the bytes on the disk before the name points at them. Without it, a power cut (not the end of the
            program) may leave a file that is empty or cut.

    Raises:
        OSError: the system refused; the old file is as it was, and nothing else is left.
    """
    temporary = path.with_name(f".{path.name.removesuffix(suffix)[:80]}.{secrets.token_hex(6)}{PART}{suffix}")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        temporary.replace(path)
        if durable:
            _flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # of what went wrong, the first error tells more
            temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Make ``path`` hold exactly ``content``. Raises OSError; see :func:`replacing`."""
    with replacing(path, durable=durable) as temporary, temporary.open("xb") as file:
        file.write(content)


def read(path: Path, largest: int) -> bytes:
    """The bytes of a file from somebody who may mean harm: a real file, no link or device, of limited size.

    Args:
        path: the file.
        largest: how many bytes it may have.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is larger, something else than a file, or the system refused.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a file of its own", str(path))
    if status.st_size > largest:
        raise OSError(errno.EFBIG, "larger than it can be", str(path))
    return path.read_bytes()


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; when the block ends well, its files become those of ``path``.

    A new folder appears whole. In a folder that exists, each file is replaced in one step, other files stay, and when
    one is refused those replaced before it are brought back.

    Raises:
        OSError: the system refused; the files of ``path`` are as they were.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}{PART}")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            _replace_files(temporary, path)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_files(source: Path, target: Path) -> None:
    files = [file for file in sorted(source.rglob("*")) if file.is_file()]
    former = source / f"former{PART}"
    former.mkdir()
    done: list[tuple[Path, Path | None]] = []  # a file of the target, and where its old content is kept
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
            with contextlib.suppress(OSError):  # the others are still worth bringing back
                place.unlink() if kept is None else kept.replace(place)
        raise


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Have the new name on the disk as well. Windows has no way to open a folder, and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
