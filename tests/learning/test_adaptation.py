"""An encoder that learns, too: when it does, what is kept of it, and what happens to it when a training is stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dinoaugseg.errors import TrainingError
from napari_dinoaugseg.learning.adaptation import Images
from napari_dinoaugseg.learning.augmentation import View
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.events import Cancel, Notice, Progress
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import Adaptation, Settings
from napari_dinoaugseg.learning.train import _Run, fit
from tests.blobs import LEFT_OUT
from tests.learning.conftest import SIZE


@pytest.fixture
def settings():
    """Twelve steps, of which the encoder learns in the last nine."""
    quarter = Adaptation(after=0.25)
    return Settings.of_preset(
        "adapt", adaptation=quarter, input_size=SIZE, steps=12, class_steps=0.0, batch_size=2, views=2, width=16
    )


def run(work, cancel=None, after=None):
    """Steps, notices and result of a training; it is stopped after so many steps."""
    steps, notices = [], []
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            return steps, notices, end.value
        if isinstance(event, Notice):
            notices.append(event.text)
        elif isinstance(event, Progress) and event.stage in ("train", "adapt"):
            steps.append((event.stage, event.done, event.total))
            if len(steps) == after:
                cancel.set()


def differ(one, other):
    return one.keys() == other.keys() and any(not torch.equal(one[name], other[name]) for name in one)


def test_masks_of_an_encoder_that_learned_are_right(make_store, examples, truth, settings):
    store = make_store()
    enough = settings.with_changes(steps=60, batch_size=4, width=32)
    trained = run(fit(store, examples, enough, n_classes=3))[2]
    adapted = store.with_encoder(store.encoder.adapted(trained.encoder_changes))
    found = {item.index: item.classes for item in predict(adapted, trained.decoder, LEFT_OUT, judge=False)}
    scores = [
        dice(np.stack([found[i] for i in LEFT_OUT]) == number, truth[list(LEFT_OUT)] == number) for number in (1, 2)
    ]
    assert np.mean(scores) > 0.85


def test_the_encoder_of_the_store_stays_as_it_is(make_store, examples, settings, encoder):
    before = {name: value.clone() for name, value in encoder.learnable.items()}
    steps, _, trained = run(fit(make_store(), examples, settings, n_classes=3))
    assert steps == [*(("train", done, 3) for done in (1, 2, 3)), *(("adapt", done, 9) for done in range(1, 10))]
    assert trained.steps == 12
    assert differ(trained.encoder_changes, before)
    assert all(torch.equal(value, before[name]) for name, value in encoder.learnable.items())
    assert not any(value.requires_grad for value in encoder.learnable.values())


def test_a_preset_with_a_frozen_encoder_changes_nothing_of_it(make_store, examples, settings):
    frozen = settings.with_changes(adaptation=None)
    assert run(fit(make_store(), examples, frozen, n_classes=3))[2].encoder_changes == {}


def test_the_same_seed_gives_the_same_encoder(make_store, examples, settings):
    one, other = (run(fit(make_store(), examples, settings, n_classes=3))[2].encoder_changes for _ in range(2))
    assert not differ(one, other)


@pytest.mark.parametrize(("after", "learned"), [(2, False), (7, True)])
def test_a_training_that_is_stopped_keeps_what_it_learned(make_store, examples, settings, after, learned):
    cancel = Cancel()
    work = fit(make_store(), examples, settings, n_classes=3, cancel=cancel)
    steps, _, trained = run(work, cancel, after)
    assert (len(steps), trained.steps, bool(trained.encoder_changes)) == (after, after, learned)


def test_one_that_is_stopped_between_the_stages_keeps_the_first(make_store, examples, settings, monkeypatch):
    cancel = Cancel()
    begin = _Run.__init__

    def stopped(self, *arguments):
        begin(self, *arguments)
        if self.stage.learns:
            cancel.set()

    monkeypatch.setattr(_Run, "__init__", stopped)
    steps, _, trained = run(fit(make_store(), examples, settings, n_classes=3, cancel=cancel))
    assert (len(steps), trained.steps, dict(trained.encoder_changes)) == (3, 3, {})


def test_one_that_is_stopped_before_its_first_step_is_an_error(make_store, examples, settings):
    cancel = Cancel()
    cancel.set()
    at_once = settings.with_changes(adaptation=Adaptation(after=0.0))
    with pytest.raises(TrainingError, match="stopped before the first step"):
        run(fit(make_store(), examples, at_once, n_classes=3, cancel=cancel))


def test_a_continued_training_begins_with_the_encoder_that_it_has(make_store, examples, settings):
    store = make_store()
    first = run(fit(store, examples, settings, n_classes=3))[2]
    adapted = store.with_encoder(store.encoder.adapted(first.encoder_changes))
    still = settings.with_changes(adaptation=Adaptation(rate=1e-12), average=0.0)
    steps, _, second = run(fit(adapted, examples, still, n_classes=3, warm_start=first.decoder))
    assert len(steps) == settings.planned_steps(3, len(examples), warm=True)
    assert second.encoder_changes.keys() == first.encoder_changes.keys()
    for name, value in second.encoder_changes.items():
        torch.testing.assert_close(value, first.encoder_changes[name], rtol=0, atol=1e-6)
    frozen = run(fit(adapted, examples, settings.with_changes(adaptation=None), n_classes=3))[2]
    assert not differ(frozen.encoder_changes, first.encoder_changes)


@pytest.mark.parametrize("fails_at", [1, 6])
def test_out_of_memory_while_it_learns_halves_the_batch_and_loses_no_step(
    make_store, examples, settings, monkeypatch, fails_at
):
    step, calls = _Run._step, []

    def hungry(self, batch, *arguments):
        if self.stage.learns:
            calls.append(len(batch))
            if len(calls) >= fails_at and len(batch) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, batch, *arguments)

    monkeypatch.setattr(_Run, "_step", hungry)
    monkeypatch.setattr("napari_dinoaugseg.learning.train._SAVE_EVERY", 1)
    steps, notices, trained = run(fit(make_store(), examples, settings, n_classes=3))
    assert [done for _, done, _ in steps] == [1, 2, 3, *range(1, 10)]
    assert [text.partition("going on ")[2] for text in notices if "slices" in text] == ["with 1 slices a step."]
    assert trained.steps == 12
    assert trained.encoder_changes


def test_images_of_a_training_are_the_views_of_the_store(make_store):
    store, view = make_store(), View(3, seed=1)
    (batch,) = Images(store).batch([(4, None), (8, view)])
    assert batch.shape == (2, 1, 3, SIZE, SIZE)
    assert torch.equal(batch[0, 0], store.image(4))
    assert torch.equal(batch[1, 0], view.of_image(store.image(8)))


def test_features_of_an_adapted_encoder_do_not_reach_the_disk(make_store, tmp_path):
    cache = FeatureCache(tmp_path)
    store = make_store(cache)
    store.features(4)
    kept = sorted(tmp_path.rglob("*"))
    changed = {name: value + 0.01 for name, value in store.encoder.learnable.items()}
    adapted = store.with_encoder(store.encoder.adapted(changed))
    assert not torch.equal(adapted.features(4)[0], store.features(4)[0])
    assert sorted(tmp_path.rglob("*")) == kept
    assert np.array_equal(adapted.descriptors[4], store.descriptors[4])
    again = adapted.with_encoder(adapted.encoder.adapted({}))
    assert again.encoder is store.encoder
    assert torch.equal(again.features(4)[0], store.features(4)[0])
