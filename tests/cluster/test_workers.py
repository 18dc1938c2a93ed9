"""How cases are handed to workers; most workers are threads of the test, and predict nothing."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import dask.config
import pytest
import torch
from distributed import Client, Scheduler, SpecCluster, Worker, get_worker

from napari_dinoaugseg.cluster import connection, workers
from napari_dinoaugseg.errors import CheckpointError, ClusterError, Hint
from napari_dinoaugseg.learning import memory
from napari_dinoaugseg.session.batch import BatchPlan, Outcome
from napari_dinoaugseg.session.cohort import place_results


class Recording:
    """Stands in for the batch of a process: remembers which worker took what, and how many at a time."""

    def __init__(self, load=lambda: None) -> None:
        self.load = load
        self.taken: Counter[str] = Counter()
        self.at_once = 0
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def predict(self, case) -> Outcome:
        name = str(get_worker().name)
        with self._lock:
            self._now[name] += 1
            self.taken[name] += 1
            self.at_once = max(self.at_once, self._now[name])
        time.sleep(0.05)
        with self._lock:
            self._now[name] -= 1
        if case.name == "4":
            raise ValueError("out of the blue")
        return Outcome(None, 0.05)


@pytest.fixture
def cases(tmp_path):
    paths = [tmp_path / f"{number}.nii.gz" for number in range(9)]
    for path in (*paths, tmp_path / "model.safetensors"):
        path.write_bytes(b"")
    (tmp_path / "out").mkdir()
    return place_results(paths, tmp_path / "out")


@pytest.fixture
def plan(tmp_path):
    return BatchPlan(tmp_path / "model.safetensors", "fingerprint")


@pytest.fixture
def start(monkeypatch):
    """Start workers by name with their resources; returns the client."""
    monkeypatch.setattr(memory, "_limit", None)
    common = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    worker = {**common, "memory_limit": 2**30}
    scheduler = {"cls": Scheduler, "options": {**common, "port": 0}}
    # They count what the tests before have in memory as theirs.
    with dask.config.set({"distributed.worker.memory.pause": False}), ExitStack() as stack:

        def make(nthreads: int = 4, **kinds) -> Client:
            options = {**worker, "nthreads": nthreads}
            workers = {name: {"cls": Worker, "options": {**options, "resources": r}} for name, r in kinds.items()}
            running = stack.enter_context(SpecCluster(workers=workers, scheduler=scheduler))
            client = stack.enter_context(Client(running, set_as_default=False))
            client.wait_for_workers(len(kinds))
            return client

        yield make


@pytest.fixture
def client(start):
    """Two workers with a graphics card, so they say, and one without."""
    return start(gpu1={"GPU": 1}, gpu2={"GPU": 1}, cpu={})


@pytest.fixture
def batch(monkeypatch):
    recording = Recording()
    monkeypatch.setattr(workers, "batch_of", lambda _: recording)
    return recording


def test_workers_with_a_graphics_card_take_one_case_at_a_time(client, cases, plan, batch):
    results = {case.name: outcome.reason for case, outcome in workers.predict_on(client, cases, plan)}
    assert set(results) == {str(number) for number in range(9)}
    assert results.pop("4") == "ValueError: out of the blue"
    assert set(results.values()) == {None}
    assert set(batch.taken) == {"gpu1", "gpu2"}
    assert batch.at_once == 1
    assert memory.available_memory() <= 2**30


def test_workers_without_take_one_case_at_a_time_as_well(start, cases, plan, batch):
    results = list(workers.predict_on(start(nthreads=1, one={}, two={}), cases, plan))
    assert len(results) == 9
    assert set(batch.taken) == {"one", "two"}
    assert batch.at_once == 1


def test_workers_that_would_take_several_cases_at_a_time_are_refused(start, cases, plan, batch):
    with pytest.raises(ClusterError, match="several cases at a time") as caught:
        list(workers.predict_on(start(one={}), cases, plan))
    assert caught.value.hint is Hint.ONE_CASE_A_WORKER
    assert not batch.taken


@pytest.mark.slow
def test_a_case_that_kills_its_workers_fails_alone(cases, plan, monkeypatch):
    """Four workers die of it one after the other; no other case is suspected."""

    def predict(case, _) -> Outcome:
        if case.name == "4":
            os._exit(1)
        return Outcome(None, 0.0)

    monkeypatch.setattr(workers, "_predict", predict)
    monkeypatch.setattr(workers, "_require_ready", lambda *_: None)
    on_cpu = replace(plan, compute=replace(plan.compute, device="cpu"))
    with workers.local_workers(on_cpu, len(cases), 1) as client:
        results = {case.name: outcome.reason for case, outcome in workers.predict_on(client, cases, on_cpu)}
    assert "4 workers ended while they worked on it" in results.pop("4")
    assert set(results.values()) == {None}


def test_a_model_that_cannot_be_loaded_is_told_before_any_case(client, cases, plan, batch):
    def fail() -> None:
        raise CheckpointError("the model is damaged")

    batch.load = fail
    with pytest.raises(CheckpointError, match="the model is damaged"):
        list(workers.predict_on(client, cases, plan))
    assert not batch.taken


def test_a_worker_that_does_not_see_the_files_is_named(client, cases, plan, batch, tmp_path):
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ClusterError, match=r"The worker at tcp://127.0.0.1:\d+ .*does not see .*model.safetensors"):
        list(workers.predict_on(client, cases, plan))
    assert not batch.taken


def test_a_worker_of_another_version_is_named(client, cases, plan, batch, monkeypatch):
    monkeypatch.setattr(workers, "version", lambda _: "2.0")
    monkeypatch.setattr(connection, "version", lambda _: "1.0")
    with pytest.raises(ClusterError, match=r"has napari-dinoaugseg 1.0, not 2.0. Install the same"):
        list(workers.predict_on(client, cases, plan))


def test_a_worker_without_the_package_is_named(client, cases, plan, batch, monkeypatch):
    def absent(*_):
        raise ModuleNotFoundError("No module named 'napari_dinoaugseg'")

    monkeypatch.setattr(workers, "_ready", absent)
    with pytest.raises(ClusterError, match=r"at tcp.* cannot be used \(ModuleNotFoundError: .*Install the same"):
        list(workers.predict_on(client, cases, plan))
    assert not batch.taken


@pytest.mark.parametrize(
    ("device", "visible", "names"),
    [
        ("cpu", None, []),
        ("mps", None, [""]),
        ("cuda:1", None, [""]),
        ("cuda", None, ["0", "1"]),
        ("cuda", "GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
    ],
)
def test_each_worker_of_this_machine_gets_a_graphics_card_of_its_own(monkeypatch, device, visible, names):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert workers._gpus(device) == names


def test_stopping_takes_back_what_was_handed_out(client, cases, plan, batch):
    results = workers.predict_on(client, cases, plan)
    next(results)
    results.close()
    time.sleep(0.3)
    taken = sum(batch.taken.values())
    time.sleep(0.3)
    assert sum(batch.taken.values()) == taken < len(cases)


def test_nothing_to_do_asks_nobody(plan):
    assert list(workers.predict_on(None, [], plan)) == []
