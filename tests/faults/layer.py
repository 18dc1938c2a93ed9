"""A layer between the program and the disk that refuses one operation: the n-th write, flush to the disk, rename or
making of a folder below a given place. It counts first, then each one can be refused in its turn.

Only what goes through Python's files is seen, so files that are opened for writing hide their number: Pillow, which
would write to it past Python, then writes through the file.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nibabel.openers import ImageOpener

_RANDOM = re.compile(r"\.[0-9a-f]{12}(?=\.part)")


class Faults:
    """Operations seen so far, and the one that is refused.

    Args:
        root: what happens elsewhere is neither counted nor refused.
        refused: the number of the operation that fails, from 0; None = none.
    """

    def __init__(self, root: Path, refused: int | None = None) -> None:
        self.root = root
        self.refused = refused
        self.operations: list[str] = []

    def meets(self, kind: str, path: Any) -> None:
        """Count an operation on a path; raises OSError when it is the one to be refused."""
        if isinstance(path, int) or not Path(path).absolute().is_relative_to(self.root):
            return
        number = len(self.operations)
        self.operations.append(f"{kind} {_RANDOM.sub('', Path(path).name)}")
        if number == self.refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


class _File:
    """A file opened for writing, whose writes are counted. A refused one writes half, as a full disk does."""

    def __init__(self, file: Any, faults: Faults, path: Any) -> None:
        self._file, self._faults, self._path = file, faults, path

    def write(self, data: Any) -> int:
        try:
            self._faults.meets("write", self._path)
        except OSError:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise
        return self._file.write(data)

    def fileno(self) -> int:
        msg = "hidden: writes go through the file"
        raise io.UnsupportedOperation(msg)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def faulty(root: Path, refused: int | None = None) -> Iterator[Faults]:
    """Put the layer in while the block runs."""
    faults = Faults(root, refused)
    opened, synced, handles, made = io.open, os.fsync, os.open, os.mkdir
    names: dict[int, Any] = {}

    def open_(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = opened(path, mode, *args, **kwargs)
        if isinstance(path, int):
            return file
        names[file.fileno()] = path
        writes = any(letter in mode for letter in "wxa")
        return _File(file, faults, path) if writes else file

    def os_open(path: Any, *args: Any, **kwargs: Any) -> int:
        handle = handles(path, *args, **kwargs)
        names[handle] = path
        return handle

    def fsync(handle: int) -> None:
        faults.meets("fsync", names.get(handle, handle))
        synced(handle)

    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        if not Path(path).is_dir():  # one that is there is no work for the disk
            faults.meets("mkdir", path)
        made(path, *args, **kwargs)

    def renaming(function: Callable[..., None]) -> Callable[..., None]:
        def wrapper(source: Any, target: Any, **kwargs: Any) -> None:
            faults.meets("rename", target)
            function(source, target, **kwargs)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", open_)
        patch.setattr(io, "open", open_)
        # nibabel took hold of Python's function when it was imported.
        _, arguments = ImageOpener.compress_ext_map[None]
        patch.setitem(ImageOpener.compress_ext_map, None, (open_, arguments))
        patch.setattr(os, "open", os_open)
        patch.setattr(os, "fsync", fsync)
        for name in ("replace", "rename"):
            patch.setattr(os, name, renaming(getattr(os, name)))
        patch.setattr(os, "mkdir", mkdir)
        yield faults
