"""Encoder features on disk: one file a slice, found by what was encoded and how, never trusted blindly."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zlib
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_dinoaugseg import disk

DEFAULT_LIMIT = 20 * 2**30  # bytes
_RESERVED_SHARE = 0.05  # of the disk that stays free,
_LEAST_RESERVE, _MOST_RESERVE = 2 * 2**30, 5 * 2**30  # but no fewer and no more bytes: a large disk has room at 1 %
_SUFFIX = ".features"


def default_cache_folder() -> Path:
    """The user's cache folder; the environment variable DINOAUGSEG_CACHE moves it."""
    named = os.environ.get("DINOAUGSEG_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("napari-dinoaugseg", appauthor=False))


class FeatureCache:
    """Feature maps by key, in a folder that may be deleted at any time.

    A file that is cut, altered or another key's is removed and reported as absent, so that the slice is encoded again.
    Writing is by atomic rename: two programs may share the folder. The disk is never filled: a twentieth of it stays
    free, but at least 2 and at most 5 GiB. A disk without room switches writing off and says so in ``problem``; the
    maps are then only kept in memory.

    Args:
        folder: default: the user's cache folder.
        limit: bytes that the files may take, where the disk has room for them.
    """

    def __init__(self, folder: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = (folder or default_cache_folder()) / "features"
        self.limit = limit
        self.problem: str | None = None
        self._written = 0
        self._started = time.time()

    def read(self, key: str) -> list[Tensor] | None:
        """The maps of ``key`` as they were written, memory-mapped; None when they are not there or not sound."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                stored = file.metadata() or {}
                maps = [file.get_tensor(f"stage{number}") for number in range(len(file.keys()))]
            sound = stored.get("key") == key and stored.get("checksum") == _checksum(maps)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError):
            _remove(path)
            return None
        except (RuntimeError, MemoryError):  # PyTorch cannot map it now; the file may be sound
            return None
        if not sound:
            _remove(path)
            return None
        with contextlib.suppress(OSError):  # a folder to read only, or another program evicts just now
            os.utime(path)  # read last: eviction takes the files that were not used for longest
        return maps

    def write(self, key: str, maps: list[Tensor]) -> None:
        """Keep the maps of ``key``. Never raises for a full or read-only disk: see ``problem``."""
        if self.problem is not None:
            return
        content = save(
            {f"stage{number}": stage for number, stage in enumerate(maps)},
            metadata={"key": key, "checksum": _checksum(maps)},
        )
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._make_room(len(content)):
                self.problem = (
                    "Features are not kept on disk, because it is nearly full: the next run encodes the slices again. "
                    f"Free some space on the disk of {self.folder}, or name another folder in DINOAUGSEG_CACHE."
                )
                return
            disk.write(path, content, durable=False)  # checked when it is read
        except OSError as error:
            reason = disk.reason(error)
            self.problem = f"Features are not kept on disk ({reason}): the next run encodes the slices again."
            return
        self._written += len(content)
        if self._written > self.limit // 20:
            self.evict()

    def evict(self, room: int = 0) -> None:
        """Delete the files used longest ago until the folder is below its limit.

        Args:
            room: bytes to make free besides; only what this run has not used is deleted for that.
        """
        self._written = 0
        files = []
        for path in self.folder.rglob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another program evicts at the same time
                continue
            files.append((status.st_mtime, status.st_size, path))
        size = sum(entry[1] for entry in files)
        for used, file_size, path in sorted(files, key=lambda entry: entry[:2]):
            if size <= self.limit and (room <= 0 or used >= self._started):
                return
            _remove(path)
            size -= file_size
            room -= file_size

    def _make_room(self, size: int) -> bool:
        """Whether ``size`` bytes more leave the reserve of the disk alone, once files of earlier runs are gone."""
        missing = self._missing(size)
        if missing > 0:
            self.evict(missing + self.limit // 20)  # some more, so that it is not looked for at every slice
            missing = self._missing(size)
        return missing <= 0

    def _missing(self, size: int) -> int:
        usage = shutil.disk_usage(self.folder)
        reserve = min(max(int(_RESERVED_SHARE * usage.total), _LEAST_RESERVE), _MOST_RESERVE)
        return size + reserve - usage.free

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"


def _remove(path: Path) -> None:
    # Windows keeps a file that some program has mapped; a folder may be there to read only. Neither does harm.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _checksum(maps: list[Tensor]) -> str:
    value = 0
    for stage in maps:
        value = zlib.crc32(stage.contiguous().view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
