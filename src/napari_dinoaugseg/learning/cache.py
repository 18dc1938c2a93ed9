"""Encoder features on disk: one file for each slice and view, with a checksum."""

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
_RESERVED_SHARE = 0.05  # of the disk stays free,
_LEAST_RESERVE, _MOST_RESERVE = 2 * 2**30, 5 * 2**30  # within these bytes: a large disk has room at 1 %
_SUFFIX = ".features"


def default_cache_folder() -> Path:
    """The environment variable DINOAUGSEG_CACHE, else the user's cache folder."""
    named = os.environ.get("DINOAUGSEG_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("napari-dinoaugseg", appauthor=False))


class FeatureCache:
    """Feature maps by key, in a folder that may be deleted at any time.

    A truncated, altered or misnamed file is removed and reported as absent, so that the slice is encoded again. Writes
    are atomic: two programs may share the folder. A twentieth of the disk stays free, but at least 2 and at most 5 GiB.
    A full disk switches writing off and sets ``problem``; maps are then only kept in memory.

    Args:
        folder: default: the user's cache folder.
        limit: bytes of all files, if the disk has room for them.
    """

    def __init__(self, folder: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = (folder or default_cache_folder()) / "features"
        self.limit = limit
        self.problem: str | None = None
        self._written = 0
        self._started = time.time()

    def read(self, key: str) -> list[Tensor] | None:
        """The maps of ``key``, memory-mapped; None if they are absent or damaged."""
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
        except (RuntimeError, MemoryError):  # cannot be mapped now; the file may be sound
            return None
        if not sound:
            _remove(path)
            return None
        with contextlib.suppress(OSError):  # a read-only folder, or another program evicts it
            os.utime(path)  # eviction deletes the least recently used files
        return maps

    def write(self, key: str, maps: list[Tensor]) -> None:
        """Store the maps of ``key``. A full or read-only disk raises no error: see ``problem``."""
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
        """Delete the least recently used files until the folder is below its limit.

        Args:
            room: further bytes to free; only files that this run has not used are deleted for them.
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
        """Whether ``size`` bytes fit above the reserve of the disk, after evicting files of earlier runs if needed."""
        missing = self._missing(size)
        if missing > 0:
            self.evict(missing + self.limit // 20)  # some more, so that not every write evicts
            missing = self._missing(size)
        return missing <= 0

    def _missing(self, size: int) -> int:
        usage = shutil.disk_usage(self.folder)
        reserve = min(max(int(_RESERVED_SHARE * usage.total), _LEAST_RESERVE), _MOST_RESERVE)
        return size + reserve - usage.free

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"


def _remove(path: Path) -> None:
    # Windows keeps a file that some program has mapped; the folder may be read-only. Neither does harm.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _checksum(maps: list[Tensor]) -> str:
    value = 0
    for stage in maps:
        value = zlib.crc32(stage.contiguous().view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
