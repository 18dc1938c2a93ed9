"""Writing results: checked before anything is computed, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.study.files import suffix_of


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder, and rename it to `path` when the block ends well.

    A reader of `path` sees the old file or the new one, never a part. When the block raises, nothing is left.

    Raises:
        OutputError: the system refused to write (disk full, no permission, folder gone).
    """
    with _refusals(path), disk.replacing(path, suffix=suffix_of(path)) as temporary:
        yield temporary


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, and move it, or its files one by one, to `path` when the block ends well.

    A new folder appears whole. In a folder that exists, each file is replaced in one step and other files stay.

    Raises:
        OutputError: the system refused to write; the folder is as it was.
    """
    with _refusals(path), disk.replacing_folder(path) as temporary:
        yield temporary


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(_refused(path, error)) from error


def _refused(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written ({disk.reason(error)}). Choose another place or free some space."


def check_parent(path: Path) -> None:
    """Raise `OutputError` unless a file or folder can be made at `path`."""
    parent = path.absolute().parent
    if not parent.exists():
        msg = f"{path}: the folder {parent} does not exist. Make it first, or choose another place."
        raise OutputError(msg)
    if not parent.is_dir():
        msg = f"{path}: {parent} is a file, not a folder. Choose another place."
        raise OutputError(msg)
    check_writable(parent, path)


def check_writable(folder: Path, path: Path) -> None:
    """Raise `OutputError` unless files can be made in `folder`: an unnamed file is tried, since rights may lie."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"{path}: the folder {folder} is not writable ({error.strerror}). Choose another place."
        raise OutputError(msg) from error


def is_same(a: Path, b: Path) -> bool:
    """Tell whether two names mean one file or folder, whether it exists or not."""
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
