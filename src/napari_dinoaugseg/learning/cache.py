"""Encoder features on disk: one file a slice, found by what was encoded and how, never trusted blindly."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_dinoaugseg import disk

DEFAULT_LIMIT = 20 * 2**30  # bytes
_SUFFIX = ".features"


def default_cache_folder() -> Path:
    """The user's cache folder; the environment variable DINOAUGSEG_CACHE moves it."""
    named = os.environ.get("DINOAUGSEG_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("napari-dinoaugseg", appauthor=False))


class FeatureCache:
    """Feature maps by key, in a folder that may be deleted at any time.

    A file that is cut, altered or another key's is removed and reported as absent, so that the slice is encoded again.
    Writing is by atomic rename: two programs may share the folder. A full disk switches writing off and says so in
    ``problem``; the maps are then only kept in memory.
    """

    def __init__(self, folder: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = (folder or default_cache_folder()) / "features"
        self.limit = limit
        self.problem: str | None = None
        self._written = 0

    def read(self, key: str) -> list[Tensor] | None:
        """The maps of ``key`` as they were written, memory-mapped; None when they are not there or not sound."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                stored = file.metadata() or {}
                maps = [file.get_tensor(f"stage{number}") for number in range(len(file.keys()))]
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError):
            path.unlink(missing_ok=True)
            return None
        if stored.get("key") != key or stored.get("checksum") != _checksum(maps):
            path.unlink(missing_ok=True)
            return None
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
            disk.write(path, content, durable=False)  # checked when it is read
        except OSError as error:
            reason = error.strerror or str(error)
            self.problem = f"Features are not kept on disk ({reason}): the next run encodes the slices again."
            return
        self._written += len(content)
        if self._written > self.limit // 20:
            self.evict()

    def evict(self) -> None:
        """Delete the files used longest ago until the folder is below its limit."""
        self._written = 0
        files = []
        for path in self.folder.rglob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another program evicts at the same time
                continue
            files.append((status.st_mtime, status.st_size, path))
        size = sum(entry[1] for entry in files)
        for _, file_size, path in sorted(files, key=lambda entry: entry[:2]):
            if size <= self.limit:
                return
            path.unlink(missing_ok=True)
            size -= file_size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"


def _checksum(maps: list[Tensor]) -> str:
    value = 0
    for stage in maps:
        value = zlib.crc32(stage.contiguous().view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
