"""A decoder that also learns from its own masks of unlabelled slices."""

from __future__ import annotations

import pytest
import torch

from napari_dinoaugseg.learning import self_training
from napari_dinoaugseg.learning.events import Cancel, Progress
from napari_dinoaugseg.learning.postprocessing import UNKNOWN_TARGET
from napari_dinoaugseg.learning.self_training import fit_with_own_masks
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import fit
from tests.blobs import LABELLED, LEFT_OUT
from tests.learning.test_trainer import run


@pytest.fixture
def brief(quick):
    return quick.with_changes(steps=30, views=1)


def of_stage(events, stage: str) -> list[Progress]:
    return [event for event in events if isinstance(event, Progress) and event.stage == stage]


def test_the_second_training_learns_from_labels_and_own_masks(make_store, examples, brief, truth, monkeypatch):
    seen = []

    def spied(store, learned, settings, **options):
        seen.append((learned, settings.steps))
        return (yield from fit(store, learned, settings, **options))

    monkeypatch.setattr(self_training, "fit", spied)
    _, trained = run(fit_with_own_masks(make_store(), examples, brief, n_classes=3, rounds=1))
    (first, steps), (second, longer) = seen
    assert [example.index for example in first] == list(LABELLED)
    own, labels = second[-len(LEFT_OUT) :], second[: -len(LEFT_OUT)]
    assert {example.index for example in own} == set(LEFT_OUT)
    assert len(labels) >= len(own)  # people's labels weigh as much
    assert {example.index for example in labels} == set(LABELLED)
    assert longer > steps
    known = [(example.target[example.target != UNKNOWN_TARGET], example) for example in own]
    assert all((target == truth[e.index][e.target != UNKNOWN_TARGET]).mean() > 0.8 for target, e in known)
    assert trained.decoder.arguments["n_classes"] == 3


def test_progress_counts_the_steps_of_both_trainings(make_store, examples, brief):
    many = brief.with_changes(self_training=2, steps=6)
    events, trained = run(fit_with_own_masks(make_store(), examples, many, n_classes=3, rounds=2))
    steps = of_stage(events, "train")
    planned = many.all_steps(3, len(examples), warm=False)
    assert [event.done for event in steps] == list(range(1, planned + 1))
    assert {event.total for event in steps} == {planned}
    assert trained.steps == planned
    assert of_stage(events, "predict")[-1].done == len(LEFT_OUT)
    elapsed = [event.elapsed for event in steps]
    assert elapsed == sorted(elapsed)


def test_the_same_seed_gives_the_same_decoder(make_store, examples, brief):
    short = brief.with_changes(steps=5)
    one, two = (
        run(fit_with_own_masks(make_store(), examples, short, n_classes=3, rounds=1))[1].decoder.state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_own_masks_it_is_the_plain_training(make_store, examples, brief):
    short = brief.with_changes(steps=5)
    _, plain = run(fit(make_store(), examples, short, n_classes=3))
    _, same = run(fit_with_own_masks(make_store(), examples, short, n_classes=3, rounds=0))
    assert same.steps == plain.steps
    one, two = plain.decoder.state_dict(), same.decoder.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("stage", ["predict", "second"])
def test_stopped_after_the_first_training_it_keeps_that(make_store, examples, brief, stage):
    cancel = Cancel()
    work = fit_with_own_masks(make_store(), examples, brief, n_classes=3, rounds=1, cancel=cancel)
    first = brief.planned_steps(3, len(examples), warm=False)
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            trained = end.value
            break
        if isinstance(event, Progress) and (event.stage == "predict" if stage == "predict" else event.done > first + 2):
            cancel.set()
    assert trained.steps == first


def test_only_trainings_of_many_cases_use_it_unless_it_is_asked_for():
    balanced = Settings.of_preset("balanced")
    assert balanced.own_rounds(1) == balanced.own_rounds(4) == 0
    assert balanced.own_rounds(5) > 0
    assert balanced.with_changes(self_training=0).own_rounds(20) == 0
    assert balanced.with_changes(self_training=3).own_rounds(1) == 3
    assert Settings.of_preset("fast").own_rounds(20) == Settings.of_preset("paper").own_rounds(20) == 0
    assert balanced.all_steps(2, 20, warm=False, n_cases=20) > balanced.all_steps(2, 20, warm=False)
