"""On a real graphics card: what the tests beside this one show on a made-up card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dinoaugseg.case.intensity import choose_window
from napari_dinoaugseg.learning.events import Notice, Progress
from napari_dinoaugseg.learning.fallback import CPU, free_memory
from napari_dinoaugseg.learning.features import FeatureStore, GpuFeatureCache
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import RandomStream, RecordedStep, Step, fit, new_decoder, resize_target
from napari_dinoaugseg.model.encoder import load_encoder
from tests.blobs import LEFT_OUT, write_case
from tests.learning.test_trainer import masks, mean_dice, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card that CUDA can use")

CARD = torch.device("cuda")
WANTED = [(index, None) for index in range(6)]


@pytest.fixture
def encoder_on_card():  # of one test: where the card has no room it moves to the processor
    return load_encoder("efficientnet-lite0", device=CARD)


@pytest.fixture
def store_on_card(case, encoder_on_card):
    def make(size: int = 64, **options) -> FeatureStore:
        return FeatureStore(case, encoder_on_card, input_size=size, window=choose_window(case), **options)

    return make


@pytest.fixture
def tight():
    """Let PyTorch have so many bytes of the card besides what it holds; for the length of a test."""

    def leave(size: int) -> None:
        free_memory(CARD)
        whole = torch.cuda.get_device_properties(CARD).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / whole)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)


def notices(items) -> list[str]:
    return [item.text for item in items if isinstance(item, Notice)]


def test_features_are_those_of_the_processor(store_on_card, make_store):
    on_card, on_cpu = store_on_card(), make_store()
    list(on_card.prepare(WANTED))
    for index, _ in WANTED:
        for found, expected in zip(on_card.features(index), on_cpu.features(index), strict=True):
            error = (found.float() - expected.float()).norm() / expected.float().norm()
            assert float(error) < 3e-3
            assert (found.device, found.dtype) == (CPU, torch.float16)


def test_what_stays_on_the_card_is_what_the_store_gives(store_on_card):
    store = store_on_card()
    pairs = [(0, None), (3, None), (0, None)]
    expected = store.batch(pairs, CARD)
    cached = GpuFeatureCache(store, CARD)
    for _ in range(2):
        found = cached.batch(pairs)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert {stage.device.type for stage in found} == {"cuda"}


@pytest.mark.parametrize("preset", ["fast", "balanced", "paper"])
def test_a_training_on_the_card_teaches_the_other_slices(store_on_card, examples, truth, preset):
    settings = Settings.of_preset(preset, input_size=64, batch_size=4, steps=120)
    store = store_on_card()
    events, trained = run(fit(store, examples, settings, n_classes=3))
    assert notices(events) == []
    assert trained.device.type == "cuda"
    assert {value.device for value in trained.decoder.state_dict().values()} == {CPU}
    if preset != "paper":  # whose rate is for two thousand steps
        assert mean_dice(masks(store, trained.decoder), truth[list(LEFT_OUT)]) > 0.85
    losses = [event.loss for event in events if isinstance(event, Progress) and event.stage == "train"]
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_nearly_the_same_masks(store_on_card, examples, quick):
    store = store_on_card()
    first, second = (masks(store, run(fit(store, examples, quick, n_classes=3))[1].decoder) for _ in range(2))
    assert np.mean(first != second) < 0.01  # sums are taken in another order each time


@pytest.fixture
def problem(store_on_card, examples, encoder_on_card):
    """A decoder, its optimiser as the trainer makes it, and a batch."""

    def make(settings: Settings, recorded: bool):
        torch.manual_seed(1)
        decoder = new_decoder(encoder_on_card.channels, 3, settings).to(CARD).train()
        rate = torch.tensor(settings.learning_rate, device=CARD)
        optimiser = torch.optim.AdamW(decoder.parameters(), lr=rate, fused=True, capturable=True)
        step = (RecordedStep if recorded else Step)(decoder, optimiser, settings, None)
        features = store_on_card().batch([(example.index, None) for example in examples], CARD)
        target = torch.stack([resize_target(torch.from_numpy(example.target), 64) for example in examples])
        return step, features, target.to(CARD).long()

    return make


def test_a_recorded_step_learns_as_the_usual_one(problem, quick):
    settings = quick.with_changes(augment_probability=0.0)
    losses, of_others = {}, {}
    for recorded in (True, False):
        step, features, target = problem(settings, recorded)
        losses[recorded] = [step([stage.clone() for stage in features], target.clone()) for _ in range(20)]
        of_others[recorded] = step([stage.flip(3) for stage in features], target)
        if recorded:
            assert list(step._recordings) == [False]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.05)
    assert losses[True][-1] < 0.7 * losses[True][0]
    assert of_others[True] == pytest.approx(of_others[False], rel=0.05)
    assert of_others[True] > 1.1 * losses[True][-1]


def test_a_recorded_step_draws_anew_each_time(problem, quick):
    still = quick.with_changes(augment_probability=1.0, learning_rate=1e-12)
    step, features, target = problem(still, True)
    stream = RandomStream(0, CARD)
    drawn = []
    for _ in range(12):
        with stream.use():
            drawn.append(step(features, target))
    assert list(step._recordings) == [True]
    assert len(set(drawn[2:])) == 10


def test_a_step_that_cannot_be_recorded_is_taken_the_usual_way(problem, quick, monkeypatch):
    step, features, target = problem(quick, True)

    def refuse(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda.graph, "__enter__", refuse)
    losses = [step(features, target) for _ in range(12)]
    assert step._recordings == {}
    assert losses[-1] < losses[0]


def test_what_others_draw_on_the_card_is_left_as_it_was(store_on_card, examples, quick):
    torch.cuda.manual_seed(5)
    expected = torch.rand(3, device=CARD)
    torch.cuda.manual_seed(5)
    run(fit(store_on_card(), examples, quick.with_changes(steps=3), n_classes=3))
    assert torch.equal(torch.rand(3, device=CARD), expected)


def test_masks_are_those_of_the_processor(store_on_card, make_store, examples, quick):
    trained = run(fit(make_store(), examples, quick, n_classes=3))[1]
    on_card = masks(store_on_card(), trained.decoder)
    assert np.mean(on_card != masks(make_store(), trained.decoder)) < 2e-3


@pytest.mark.parametrize("leave", [2**20, 60 * 2**20, 250 * 2**20])
def test_a_card_without_room_still_ends_in_masks(store_on_card, examples, quick, tight, leave):
    store = store_on_card(384)
    settings = quick.with_changes(input_size=384, batch_size=16, steps=12, views=0, width=256, fuse_from=4)
    tight(leave)
    events, trained = run(fit(store, examples, settings, n_classes=3))
    items = []
    found = list(predict(store, trained.decoder, range(6), report=items.append))
    assert all("emory ran out" in text for text in notices(events) + notices(items))
    assert notices(events)
    assert trained.steps == settings.planned_steps(3, 3, warm=False)
    assert len(found) == 6


FAILING = """
import sys
from pathlib import Path
import torch
from napari_dinoaugseg.learning import train
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.case import open_case
from tests.blobs import LABELLED

step, calls = train._Run._step, []

def failing(self, *arguments):
    calls.append(self.size.device.type)
    if len(calls) == 45:  # an index out of range stops the card for the whole process
        torch.zeros(2, device="cuda")[torch.tensor([9], device="cuda")]
    return step(self, *arguments)

train._Run._step = failing
case = open_case(Path(sys.argv[1]), plane="axial")
settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, steps=60, shows=0, class_steps=0.0)
session = Session(case, settings, ComputeConfig("cuda", cache=False))
session.labels.add_class("bright")
labels = case.read_labels(Path(sys.argv[2]), range(case.n_slices))
for index in LABELLED:
    session.paint(index, (labels[index] == 1).astype("uint16"))
told = [event.text for event in session.train() if hasattr(event, "text")]
list(session.predict(8, report=lambda event: told.append(event.text) if hasattr(event, "text") else None))
dice = []
for index in session.labels.open_slices:
    found, truth = session.labels.result(index) == 1, labels[index] == 1
    if truth.sum() > 20:
        dice.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
print(calls.count("cuda"), calls.count("cpu"), round(sum(dice) / len(dice), 3), told, sep="|")
"""


def test_a_card_that_really_fails_leaves_a_result_of_the_processor(tmp_path: Path):
    image, truth = write_case(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(image), str(truth)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    on_card, on_cpu, dice, told = done.stdout.strip().splitlines()[-1].split("|")
    assert (int(on_card), int(on_cpu)) == (45, 20)  # held after 40 steps
    assert float(dice) > 0.8
    assert told.count("failed") == 1
