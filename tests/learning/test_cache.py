"""Features on a disk that is full, nearly full, or to read only; and how much memory they may take."""

from __future__ import annotations

import errno
import os
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from napari_dinoaugseg.learning import cache as module
from napari_dinoaugseg.learning import memory
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.events import Notice

EVERY = [(index, None) for index in range(6)]
Usage = namedtuple("Usage", "total used free")
GIB = 2**30


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path)


def told(store, wanted=EVERY):
    return [event.text for event in store.prepare(wanted) if isinstance(event, Notice)]


def files_of(cache):
    return sorted(cache.folder.rglob("*.features"))


def require_nothing_lost(make_store, store, cache):
    """One sentence in all, all features at hand, and no rest of a file."""
    notices = told(store) + told(store, [(7, None)])
    assert len(notices) == 1
    assert "Features are not kept on disk" in notices[0]
    assert store.encoded == 7
    plain = make_store()
    assert all(torch.equal(a, b) for i, _ in EVERY for a, b in zip(store.features(i), plain.features(i), strict=True))
    assert store.encoded == 7
    assert [path for path in cache.folder.rglob("*") if path.is_file() and path.suffix != ".features"] == []


@pytest.mark.parametrize("call", ["open", "replace", "mkdir", "disk_usage"])
def test_a_disk_that_refuses_is_said_once_and_loses_nothing(make_store, cache, monkeypatch, call):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = make_store(cache)
    told(store, EVERY[:2])
    owner = module.shutil if call == "disk_usage" else Path
    real = getattr(Path, call, None)

    def only_in_the_cache(path, *args, **options):
        return full() if cache.folder in Path(path).parents else real(path, *args, **options)

    monkeypatch.setattr(owner, call, full if call == "disk_usage" else only_in_the_cache)
    require_nothing_lost(make_store, store, cache)
    assert len(files_of(cache)) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_real_limit_of_the_file_size_is_said_once_and_loses_nothing(make_store, cache):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        require_nothing_lost(make_store, make_store(cache), cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_of(cache) == []


@pytest.mark.parametrize(("total", "free"), [(60, 3), (10, 2), (4000, 5)], ids=["5 %", "2 GiB", "5 GiB"])
def test_a_disk_is_never_filled(make_store, cache, monkeypatch, total, free):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(total * GIB, 0, free * GIB))
    require_nothing_lost(make_store, make_store(cache), cache)
    assert files_of(cache) == []


@pytest.mark.parametrize(("total", "free"), [(60, 4), (10, 3), (4000, 6)])
def test_a_disk_with_more_room_than_its_reserve_is_used(make_store, cache, monkeypatch, total, free):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(total * GIB, 0, free * GIB))
    assert told(make_store(cache)) == []
    assert len(files_of(cache)) == len(EVERY)


def test_files_of_earlier_runs_make_room_on_a_disk_that_is_nearly_full(make_store, cache, monkeypatch):
    told(make_store(cache))
    for path in files_of(cache):
        os.utime(path, (1000, 1000))
    old = len(files_of(cache))

    def usage(_):
        # The disk has room for the reserve once half of the old files are gone.
        taken = sum(path.stat().st_size for path in files_of(cache))
        return Usage(100 * GIB, 0, 5 * GIB + 3 * size - taken)

    size = files_of(cache)[0].stat().st_size
    monkeypatch.setattr(module.shutil, "disk_usage", usage)
    later = FeatureCache(cache.folder.parent, limit=20 * size)
    assert told(make_store(later), [(10, None)]) == []
    left = files_of(later)
    assert 1 <= len(left) < old
    assert any(path.stat().st_mtime > 1000 for path in left)


def test_files_of_this_run_are_not_thrown_out_for_one_another(make_store, cache, monkeypatch):
    told(make_store(cache), EVERY[:3])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(100 * GIB, 0, GIB))
    assert len(told(make_store(cache), EVERY)) == 1
    assert len(files_of(cache)) == 3


def test_a_folder_to_read_only_is_read(make_store, cache, monkeypatch):
    told(make_store(cache))

    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    store = make_store(FeatureCache(cache.folder.parent))
    told(store)
    assert store.encoded == 0
    (first, *_) = files_of(cache)
    first.write_bytes(b"damaged")  # and cannot be removed
    store = make_store(FeatureCache(cache.folder.parent))
    told(store)
    assert store.encoded == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_features_from_the_disk_are_mapped_into_memory(make_store, cache):
    make_store(cache).features(3)
    (path,) = files_of(cache)
    maps = FeatureCache(cache.folder.parent).read(path.stem)
    assert str(path) in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert len(maps) == 4


# --- memory ---------------------------------------------------------------------------------------------------------


def group(folder: Path, limit: str, used: int, inactive: int = 0) -> Path:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return folder


@pytest.fixture
def machine(monkeypatch):
    """A machine with 8 GiB of memory left."""
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: namedtuple("Memory", "available")(8 * GIB))


def test_a_container_may_take_what_its_limit_leaves(machine, tmp_path):
    assert memory.available_memory(tmp_path / "none") == 8 * GIB
    assert memory.available_memory(group(tmp_path, "max\n", GIB)) == 8 * GIB
    assert memory.available_memory(group(tmp_path, f"{4 * GIB}\n", 3 * GIB)) == GIB
    assert memory.available_memory(group(tmp_path, f"{4 * GIB}\n", 3 * GIB, inactive=2 * GIB)) == 3 * GIB
    assert memory.available_memory(group(tmp_path, f"{4 * GIB}\n", 5 * GIB)) == 0
    assert memory.available_memory(group(tmp_path, f"{400 * GIB}\n", GIB)) == 8 * GIB


def test_features_get_a_quarter_of_what_is_left_and_never_less_than_a_few_slices(machine, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 8 * GIB)
    assert memory.feature_budget() == 2 * GIB
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    assert memory.feature_budget() == 64 * 2**20


def test_this_machine_tells_what_it_has():
    assert 0 < memory.feature_budget() < 2**45


def test_a_store_keeps_no_more_than_the_machine_can_spare(make_store, monkeypatch):
    from napari_dinoaugseg.learning import features

    one = sum(stage.nbytes for stage in make_store().features(0))
    monkeypatch.setattr(features, "feature_budget", lambda: 2 * one)
    store = make_store()
    told(store)
    assert 0 < store.memory_used <= 2 * one
