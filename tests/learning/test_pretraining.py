"""A decoder that learns regions of a case before anything is labelled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from napari_dinoaugseg.learning.events import Cancel, Notice, ignore
from napari_dinoaugseg.learning.live import Learner
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.pretraining import REGIONS, STEPS, Pretraining, regions
from napari_dinoaugseg.learning.train import new_decoder, take_body
from tests.blobs import LABELLED, LEFT_OUT


@pytest.fixture
def pretraining(make_store, quick):
    return Pretraining(make_store(), quick, torch.device("cpu"))


def to_the_end(pretraining) -> None:
    while not pretraining.sleeps:
        pretraining.burst(ignore, Cancel())


def test_regions_follow_what_is_seen(make_store, truth):
    """A blob is mostly one region or a few, which are rare outside of it."""
    (found,) = regions(make_store(), [LABELLED[1]])
    blob = truth[LABELLED[1]] == 1
    assert found.target.shape == blob.shape
    assert set(np.unique(found.target)) <= set(range(REGIONS))
    inside, outside = (np.bincount(found.target[mask], minlength=REGIONS) / mask.sum() for mask in (blob, ~blob))
    assert np.minimum(inside, outside).sum() < 0.5  # 1 for regions that know nothing of it


def test_the_same_seed_gives_the_same_regions(make_store):
    store = make_store()
    one, other = (regions(store, LABELLED, seed=3) for _ in range(2))
    assert [example.index for example in one] == list(LABELLED)
    assert all(np.array_equal(a.target, b.target) for a, b in zip(one, other, strict=True))


def test_a_slice_of_one_grey_is_one_region_without_a_warning(make_store, monkeypatch):
    store = make_store()
    monkeypatch.setattr(store, "features", lambda _: [torch.ones(8, side, side) for side in (16, 8, 4, 2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # napari shows them to the person
        (found,) = regions(store, [LABELLED[0]])
    assert set(np.unique(found.target)) == {0}


def test_without_slices_it_rests_and_nothing_is_learned(pretraining):
    assert pretraining.sleeps
    pretraining.burst(ignore, Cancel())
    assert pretraining.learned is None


def test_masks_of_the_persons_classes_need_fewer_steps_after_it(pretraining, make_store, quick, examples, truth):
    pretraining.focus(LEFT_OUT)
    to_the_end(pretraining)
    assert pretraining._learner.steps <= STEPS
    scores = []
    for body in (None, pretraining.learned):
        learner = Learner(make_store(), quick.with_changes(steps=90), n_classes=3, body=body)
        learner.update(examples)
        while learner.steps < 24:
            list(learner.burst(0))
        masks = {item.index: item.classes for item in predict(make_store(), learner.learned, LEFT_OUT)}
        scores.append(np.mean([dice(masks[i] == n, truth[i] == n) for i in LEFT_OUT for n in (1, 2)]))
    assert scores[1] > scores[0] + 0.1


def test_the_body_of_a_decoder_that_is_built_otherwise_changes_nothing(make_store, quick):
    channels = make_store().channels
    decoder = new_decoder(channels, 3, quick)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    take_body(decoder, new_decoder(channels, REGIONS, quick.with_changes(width=quick.width + 16)))
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    take_body(decoder, new_decoder(channels, REGIONS, quick))
    same = {name for name, value in decoder.state_dict().items() if torch.equal(value, before[name])}
    assert {name for name in before if name.startswith("classify.")} <= same
    assert "project.0.weight" not in same


def test_memory_that_runs_out_is_reported_and_it_goes_on(pretraining, monkeypatch):
    step, failed = Learner._take_step, []

    def fail_once(learner):
        if not failed:
            failed.append(True)
            raise MemoryError
        step(learner)

    monkeypatch.setattr(Learner, "_take_step", fail_once)
    pretraining.focus(LEFT_OUT)
    told = []
    pretraining.burst(told.append, Cancel())
    assert any(isinstance(event, Notice) for event in told)
    assert pretraining._learner.steps > 0
