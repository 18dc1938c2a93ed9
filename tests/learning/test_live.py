"""A decoder that learns while labels change: what it learns, which masks it gives first, and when it rests."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dinoaugseg.learning.events import Cancel, Notice, nearest_first
from napari_dinoaugseg.learning.live import Learner, Threads
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, copy_of, new_decoder
from tests.blobs import LEFT_OUT


@pytest.fixture
def learner(make_store, quick):
    """Learns well in some seconds."""
    return Learner(make_store(), quick.with_changes(steps=90), n_classes=3)


@pytest.fixture
def brief(make_store, quick):
    """Learns for a moment only."""
    return Learner(make_store(), quick.with_changes(steps=6), n_classes=3)


def until_it_sleeps(learner) -> dict[int, np.ndarray]:
    """The last masks, by slice."""
    found = {}
    for _ in range(500):
        if learner.sleeps:
            return found
        found |= {item.index: item.classes for item in learner.burst()}
    pytest.fail("it never sleeps")


def mean_dice(found, truth) -> float:
    masks = np.stack([found[index] for index in LEFT_OUT])
    return float(np.mean([dice(masks == number, truth[list(LEFT_OUT)] == number) for number in (1, 2)]))


def test_it_learns_predicts_every_wanted_slice_and_sleeps(learner, examples, truth):
    assert learner.sleeps
    learner.update(examples)
    learner.focus(LEFT_OUT)
    found = until_it_sleeps(learner)
    assert set(found) == set(LEFT_OUT)
    assert mean_dice(found, truth) > 0.7
    assert list(learner.burst()) == []


def test_once_it_has_learned_masks_are_judged_as_after_a_training(brief, examples, make_store):
    brief.update(examples)
    brief.focus(LEFT_OUT)
    confidence = {}
    while not brief.sleeps:
        confidence |= {item.index: item.confidence for item in brief.burst(0)}
    judged = {item.index: item.confidence for item in predict(make_store(), brief._best, LEFT_OUT)}
    assert confidence == pytest.approx(judged, abs=0.02)


def test_a_mask_of_the_slice_in_view_comes_first_and_soon(learner, examples):
    learner.update(examples[:1])
    order = nearest_first(LEFT_OUT, LEFT_OUT[3])
    learner.focus(order)
    found = []
    while not found:
        found = list(learner.burst(0))  # one step each, however fast the machine is
    assert found[0].index == order[0]
    assert learner.learns  # it does not wait for the end
    assert learner.steps <= 24


def test_slices_far_from_the_view_get_masks_while_it_learns_once_those_in_view_have_theirs(learner, examples):
    learner.update(examples)
    learner.focus(LEFT_OUT)
    came = []
    while learner.learns and len(set(came)) < len(LEFT_OUT):
        came += [item.index for item in learner.burst(0)]
    assert learner.learns
    first_far = min(came.index(index) for index in LEFT_OUT[4:])
    assert set(came[:first_far]) == set(LEFT_OUT[:4])
    assert came.count(LEFT_OUT[0]) == max(map(came.count, LEFT_OUT))  # the slice in view most often
    learner.update(examples[:2])
    assert {item.index for item in learner.burst(0)} == set(LEFT_OUT[:4])  # first again after a change


def test_walking_to_another_slice_gives_its_mask_without_learning(brief, examples):
    brief.update(examples)
    brief.focus(LEFT_OUT[:2])
    until_it_sleeps(brief)
    steps = brief.steps
    brief.focus([LEFT_OUT[5], LEFT_OUT[0]])
    assert [item.index for item in brief.burst()] == [LEFT_OUT[5]]  # the other is up to date
    assert brief.steps == steps


def test_labels_that_do_not_change_teach_nothing_more(brief, examples):
    brief.update(examples)
    until_it_sleeps(brief)
    brief.update([Example(example.index, example.target.copy()) for example in examples])
    assert brief.sleeps


def test_a_correction_is_learned_and_weighs_more(learner, examples, truth):
    """A structure that nobody had labelled is painted in one of three slices."""
    index = examples[0].index
    missing = [Example(e.index, np.where(e.target == 2, 0, e.target).astype(np.int16)) for e in examples]
    learner.update(missing)
    learner.focus(LEFT_OUT)
    before = until_it_sleeps(learner)
    assert sum((mask == 2).sum() for mask in before.values()) == 0
    learner.update([Example(e.index, truth[e.index]) for e in examples])
    after = until_it_sleeps(learner)
    assert mean_dice(after, truth) > 0.7
    assert learner._newest == {e.index for e in examples}
    learner.update([Example(e.index, truth[e.index] if e.index != index else missing[0].target) for e in examples])
    batches = [pair[0] for _ in range(200) for pair in learner._batch()]
    assert batches.count(index) > 1.3 * len(batches) / len(examples)


def test_a_mask_that_may_be_gone_is_predicted_again(brief, examples):
    brief.update(examples)
    brief.focus(LEFT_OUT)
    until_it_sleeps(brief)
    brief.focus(LEFT_OUT[1:])  # the first was labelled,
    brief.focus(LEFT_OUT)  # and its label removed
    assert [item.index for item in brief.burst()] == [LEFT_OUT[0]]


def test_it_goes_on_from_a_trained_decoder_and_leaves_that_as_it_is(make_store, learner, examples, quick, truth):
    learner.update(examples)
    until_it_sleeps(learner)
    trained = copy_of(learner._best)
    kept = {name: value.clone() for name, value in trained.state_dict().items()}
    again = Learner(make_store(), quick, n_classes=3, start=trained)
    again.focus(LEFT_OUT)
    again.update(examples)
    assert again.progress.total < learner.progress.total
    first = {item.index: item.classes for item in again.burst(0.01)}
    assert dice(first[LEFT_OUT[0]] == 1, truth[LEFT_OUT[0]] == 1) > 0.7
    until_it_sleeps(again)
    assert all(torch.equal(kept[name], value) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("preset", ["balanced", "paper"])
def test_a_new_decoder_is_that_of_fast_whatever_the_preset(make_store, preset):
    chosen = Settings.of_preset(preset, input_size=64, seed=3, steps=50)
    new = Learner(make_store(), chosen, n_classes=3)
    fast = Settings.of_preset("fast")
    assert new._decoder.arguments["width"] == fast.width
    assert (new.settings.learning_rate, new.settings.steps, new.settings.seed) == (fast.learning_rate, 50, 3)
    trained = new_decoder(make_store().channels, 3, chosen)
    further = Learner(make_store(), chosen, n_classes=3, start=trained)
    assert further._decoder.arguments == trained.arguments
    assert further.settings == chosen


def test_without_labels_it_rests(brief, examples):
    brief.update(examples)
    brief.focus(LEFT_OUT)
    list(brief.burst(0))
    brief.update([])
    assert brief.sleeps
    assert list(brief.burst()) == []


def test_the_first_burst_encodes_no_more_than_it_needs(brief, examples):
    brief.update(examples)
    brief.focus([])
    list(brief.burst(0.0))
    assert brief._store.encoded == len(examples)  # views come later, one by one
    until_it_sleeps(brief)
    assert len(examples) < brief._store.encoded <= len(examples) * (1 + brief.settings.views)


def test_a_cancelled_burst_ends_soon(brief, examples):
    brief.update(examples)
    brief.focus(LEFT_OUT)
    cancel = Cancel()
    cancel.set()
    assert list(brief.burst(60, cancel=cancel)) == []
    assert brief.steps == 0


def test_when_memory_runs_out_it_goes_on_with_smaller_batches(brief, examples, monkeypatch):
    brief.update(examples)
    brief.focus(LEFT_OUT)
    list(brief.burst(0))  # one step, so that some are left for the burst below
    step, sizes = brief._step, []

    def limited(features, target):
        sizes.append(len(target))
        if len(target) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(features, target)

    monkeypatch.setattr(brief, "_step", limited)
    notices = []
    list(brief.burst(report=notices.append))
    assert sizes[-1] == 1
    assert any("1 slices a step" in event.text for event in notices if isinstance(event, Notice))
    assert brief.steps


@pytest.mark.parametrize("fastest", [1, 2, 4])
def test_as_many_threads_compute_as_are_fastest(fastest):
    before, used = torch.get_num_threads(), []

    def step() -> None:
        used.append(torch.get_num_threads())
        time.sleep(0.002 * (1 + 2 * abs(np.log2(used[-1] / fastest))))

    threads = Threads(4)
    for _ in range(100):
        threads.step(step)
    assert threads.count == fastest
    assert used[0] == 4
    assert used[-24:].count(fastest) >= 18  # others are tried now and then
    assert list(threads.over(torch.get_num_threads() for _ in range(2))) == [fastest] * 2
    assert torch.get_num_threads() == before


def test_no_mask_is_shown_before_it_finds_its_own_label(learner, examples, monkeypatch):
    """A new decoder floods slices at first; with a rate that teaches nothing masks wait for the end of a cycle."""
    monkeypatch.setattr("napari_dinoaugseg.learning.live._FOUND", 1.1)
    learner.update(examples[:1])
    learner.focus(LEFT_OUT)
    found = []
    while not found:
        assert learner.steps < 24
        found = list(learner.burst(0.05))
    assert learner.steps >= 24
    assert found[0].index == LEFT_OUT[0]


def test_masks_come_while_labels_change_all_the_time(learner, examples, monkeypatch):
    """Somebody who paints without a pause sees the masks of the first cycle, too."""
    monkeypatch.setattr("napari_dinoaugseg.learning.live._FOUND", 1.1)
    learner.focus(LEFT_OUT)
    found = []
    for stroke in range(40):
        target = examples[0].target.copy()
        target[0, : stroke + 1] = 1
        learner.update([replace(examples[0], target=target)])
        found += learner.burst(0)
    assert learner.steps == 40
    assert len(found) >= 16


def test_masks_come_once_the_first_label_is_found_whatever_is_painted_meanwhile(learner, examples):
    """A thin stroke somewhere else is the newest label then, and one that is not found again for long."""
    learner.focus(LEFT_OUT)
    found = []
    for stroke in range(24):
        other = np.zeros_like(examples[1].target)
        other[0, : stroke + 1] = 1
        learner.update([examples[0], replace(examples[1], target=other)] if stroke else examples[:1])
        found = list(learner.burst(0))
        if found:
            break
    assert found
    assert learner.steps < 24
