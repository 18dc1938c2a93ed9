"""What a training shows again and again stays on the device, as long as there is room."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from napari_dinoaugseg.learning.features import GpuFeatureCache, device_budget

CPU = torch.device("cpu")
WANTED = [(0, None), (3, None), (0, None)]


@pytest.fixture
def store(make_store, monkeypatch):
    store = make_store()
    features, store.asked = store.features, Counter()

    def counted(index, view=None):
        store.asked[index] += 1
        return features(index, view)

    monkeypatch.setattr(store, "features", counted)
    return store


def size_of(store) -> int:
    return sum(stage.nbytes for stage in store.features(0))


@pytest.mark.parametrize("room", [0, 2**30])
def test_a_batch_is_that_of_the_store(store, room):
    expected = store.batch(WANTED, CPU)
    found = GpuFeatureCache(store, CPU, room).batch(WANTED)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_is_on_the_device_is_not_asked_for_again(store):
    cached = GpuFeatureCache(store, CPU, 2**30)
    for _ in range(3):
        cached.batch(WANTED)
    assert store.asked == {0: 1, 3: 1}


def test_no_more_stays_than_there_is_room_for(store):
    cached = GpuFeatureCache(store, CPU, size_of(store))
    store.asked.clear()
    for _ in range(3):
        cached.batch([(0, None), (3, None)])
    assert store.asked == {0: 1, 3: 3}


def test_the_machines_own_memory_holds_nothing_twice():
    assert device_budget(CPU) == device_budget(torch.device("mps")) == 0


def test_a_card_gives_a_quarter_of_what_it_has_left(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8_000_000, 16_000_000))
    assert device_budget(torch.device("cuda")) == 2_000_000
