"""Memory may run out at any moment; what comes is a result and a sentence."""

from __future__ import annotations

import pytest
import torch

from napari_dinoaugseg.learning import train
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.events import Cancel, Notice, Progress
from napari_dinoaugseg.learning.fallback import CPU, NoRoomError, classify_error
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.train import fit
from tests.learning.fake_device import Failing
from tests.learning.test_trainer import run

ERRORS = {
    "of CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "of CUDA, old": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    "of cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "of MPS": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB)"),
    "of Python": MemoryError(),
    "of the CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 10 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "of oneDNN": RuntimeError("could not create a primitive"),
    "of Windows": RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory"),
}
SHORT = {"steps": 4, "class_steps": 0.0, "views": 0, "width": 16}
NEEDED = (4, 8, 11, 5)  # slices


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_kind_of_lack_of_memory_is_known(error):
    assert classify_error(error).kind == "memory"


def test_the_machines_memory_is_told_from_the_cards():
    card = torch.device("cuda")
    told = {name: classify_error(error, card).on_host for name, error in ERRORS.items()}
    assert [name for name, hosts in told.items() if hosts] == ["of Python", "of the CPU", "of oneDNN", "of Windows"]
    assert all(classify_error(error, CPU).on_host for error in ERRORS.values())


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("cuda")])
def test_other_errors_tell_nothing_of_memory(error):
    assert classify_error(error) is None


@pytest.fixture
def stages(make_store, examples, quick):
    """Each stage as (make its input, run it on that and return (events, result)), and how many operations it takes."""
    settings = quick.with_changes(**SHORT)
    trained = run(fit(make_store(), examples, settings, n_classes=3))[1].decoder

    def filled():
        store = make_store(batch_size=4)
        list(store.prepare([(index, None) for index in NEEDED]))
        return store

    def encode(store):
        events = list(store.prepare([(index, None) for index in NEEDED]))
        return events, [store.features(index) for index in NEEDED]

    def train(store):
        return run(fit(store, examples, settings, n_classes=3))

    def encode_and_train(store):
        return run(fit(store, examples, settings.with_changes(average=0.0), n_classes=3))

    def predicted(store):
        events = []
        return events, list(predict(store, trained, NEEDED, report=events.append))

    return {
        "encode": (lambda: make_store(batch_size=4), encode),
        "train": (filled, train),
        "train and encode": (lambda: make_store(batch_size=4), encode_and_train),
        "predict": (filled, predicted),
        "predict and encode": (lambda: make_store(batch_size=4), predicted),
        "predict with neighbours": (lambda: make_store(batch_size=4, context=1), predicted),
    }


def check(stage: str, result) -> None:
    """That the stage came to its whole result."""
    if stage.startswith("train"):
        assert result.steps == SHORT["steps"]
        assert all(value.isfinite().all() for value in result.decoder.state_dict().values())
    elif stage.startswith("predict"):
        assert [item.index for item in result] == list(NEEDED)
    else:
        assert [len(maps) for maps in result] == [4] * len(NEEDED)


@pytest.mark.parametrize(
    "stage",
    ["encode", "train", "train and encode", "predict", "predict and encode", "predict with neighbours"],
)
def test_memory_that_runs_out_at_any_moment_ends_in_a_result_and_a_sentence(stages, stage):
    make, work = stages[stage]
    store = make()
    with Failing() as counting:
        work(store)
    errors = iter(ERRORS.values())
    for at, times in ((1, 1), (1, 3), (counting.operations // 2, 3), (counting.operations, 1)):
        store = make()
        with Failing(next(errors), at, times) as failing:
            events, result = work(store)
        assert failing.failures == times
        check(stage, result)
        notices = [event.text for event in events if isinstance(event, Notice)]
        assert len(notices) == times, notices
        assert all("Memory ran out" in text and ("going on" in text or "once more" in text) for text in notices)


def test_what_was_encoded_with_less_memory_is_the_same(make_store):
    plain = [make_store().features(index) for index in range(8)]
    store = make_store(batch_size=4)
    with Failing(ERRORS["of CUDA"], 40, 2):
        list(store.prepare([(index, None) for index in range(8)]))
    for index, maps in enumerate(plain):
        for expected, found in zip(maps, store.features(index), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


def test_a_training_goes_on_from_what_was_learnt(make_store, examples, quick, monkeypatch):
    monkeypatch.setattr(train, "_SAVE_EVERY", 5)
    step, calls = train._Run._step, []

    def hungry(self, batch, optimiser):
        calls.append(len(batch))
        if len(calls) == 14:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, batch, optimiser)

    monkeypatch.setattr(train._Run, "_step", hungry)
    settings = quick.with_changes(steps=20, class_steps=0.0)
    events, trained = run(fit(make_store(), examples, settings, n_classes=3))
    done = [event.done for event in events if isinstance(event, Progress) and event.stage == "train"]
    assert done == [*range(1, 14), *range(11, 21)]
    assert calls == [4] * 14 + [2] * 10
    assert trained.steps == 20
    rates = [event.learning_rate for event in events if isinstance(event, Progress) and event.stage == "train"]
    assert rates[13:] == pytest.approx([*rates[10:13], *rates[16:]])


def test_stopping_after_memory_ran_out_keeps_what_was_learnt(make_store, examples, quick, monkeypatch):
    monkeypatch.setattr(train, "_SAVE_EVERY", 2)
    step, cancel, calls = train._Run._step, Cancel(), []

    def hungry(*arguments):
        calls.append(1)
        if len(calls) == 6:
            cancel.set()
            raise MemoryError
        return step(*arguments)

    monkeypatch.setattr(train._Run, "_step", hungry)
    _, trained = run(fit(make_store(), examples, quick, n_classes=3, cancel=cancel))
    assert trained.steps == 4


def test_a_slice_that_left_the_memory_is_encoded_again_with_care(make_store):
    """While training: the decoder has taken the memory that the encoder needs for an evicted slice."""
    expected = make_store().features(4)
    one = sum(stage.nbytes for stage in expected)
    store = make_store(memory_budget=one)
    list(store.prepare([(4, None), (8, None)]))
    with Failing(MemoryError(), 1, 1):
        found = store.batch([(4, None)], CPU)
    assert all(torch.equal(a[0], b.float()) for a, b in zip(found, expected, strict=True))
    assert [notice.text for notice in store.notices()] == [
        "Memory ran out while encoding; going on with fewer features in memory."
    ]


def test_without_any_memory_every_stage_says_what_to_do(stages):
    for stage in ("encode", "train", "predict"):
        make, work = stages[stage]
        store = make()
        with Failing(MemoryError(), 1, None), pytest.raises(NoRoomError, match="Close other programs"):
            work(store)


def test_features_on_disk_are_not_taken_for_damaged_when_memory_is_short(make_store, tmp_path):
    store = make_store(FeatureCache(tmp_path))
    maps = store.features(4)
    (path,) = tmp_path.rglob("*.features")
    cache = FeatureCache(tmp_path)
    with Failing(ERRORS["of the CPU"], 1, None):
        assert cache.read(path.stem) is None
    assert path.exists()
    assert all(torch.equal(a, b) for a, b in zip(cache.read(path.stem), maps, strict=True))


def test_a_resized_store_does_not_keep_features_twice(make_store):
    store = make_store()
    list(store.prepare([(index, None) for index in range(4)]))
    assert store.memory_used > 0
    assert store.resized(96).memory_used == store.memory_used == 0
