from __future__ import annotations

import pytest

from napari_dinoaugseg.cluster.workers import Share, share_machine, worker_options
from napari_dinoaugseg.errors import Hint, SettingsError
from napari_dinoaugseg.learning import memory

GIB = 2**30


@pytest.mark.parametrize(
    ("cases", "cores", "memory", "expected"),
    [
        (300, 16, 64 * GIB, Share(8, 2, 8 * GIB)),
        (3, 16, 60 * GIB, Share(3, 5, 20 * GIB)),  # no more than there are cases
        (300, 16, 9 * GIB, Share(2, 8, 9 * GIB // 2)),  # the memory is the limit
        (300, 1, 1 * GIB, Share(1, 1, 1 * GIB)),  # there is always one
    ],
)
def test_workers_fit_cores_and_memory(cases, cores, memory, expected):
    assert share_machine(cases, cores=cores, memory=memory, gpus=0) == expected


def test_there_is_a_worker_for_each_graphics_card():
    share = share_machine(300, cores=16, memory=64 * GIB, gpus=2)
    assert share == Share(2, 8, 32 * GIB)
    options = worker_options(share, ["4", "6"])
    assert [entry["env"]["CUDA_VISIBLE_DEVICES"] for entry in options] == ["4", "6"]
    assert all(entry["resources"] == {"GPU": 1} for entry in options)


def test_workers_on_the_cpu_take_one_case_with_their_share_of_threads():
    options = worker_options(Share(2, 3, GIB), [])
    assert len(options) == 2
    for entry in options:
        assert (entry["nthreads"], entry["memory_limit"], entry["env"]["OMP_NUM_THREADS"]) == (1, GIB, "3")
        assert "resources" not in entry


def test_more_than_fit_are_refused():
    with pytest.raises(SettingsError, match="3 workers do not fit on 2 cores") as caught:
        share_machine(12, cores=2, memory=64 * GIB, gpus=0, wanted=3)
    assert (caught.value.hint, caught.value.message.facts) == (Hint.FEWER_WORKERS, {"most": 2})
    with pytest.raises(SettingsError, match="not 2 GPUs") as caught:
        share_machine(12, cores=8, memory=64 * GIB, gpus=1, wanted=2)
    assert (caught.value.hint, caught.value.message.facts) == (Hint.FEWER_GPU_WORKERS, {"most": 1})
    assert share_machine(12, cores=2, memory=1 * GIB, gpus=0, wanted=2).workers == 2


def test_a_worker_keeps_to_its_share_of_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "_limit", None)
    memory.limit_to(1)
    assert memory.available_memory() == 0
    memory.limit_to(2**60)
    assert 0 < memory.available_memory() < 2**60
