"""A step learns; where a card records steps, each kind is recorded once. (`test_on_card.py` has a real card.)"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from napari_dinoaugseg.learning import train as steps
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import RecordedStep, Step, new_decoder, segmentation_loss

CHANNELS, SIZE = (8, 8, 8, 8), 64


def learner(kind: type[Step], **changes) -> Step:
    settings = Settings(width=16, head=8, **changes)
    torch.manual_seed(0)
    decoder = new_decoder(CHANNELS, 2, settings).train()
    return kind(decoder, torch.optim.AdamW(decoder.parameters(), lr=5e-3), settings, None)


def batch(seed: int = 0) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(2, 8, SIZE // stride, SIZE // stride, generator=generator) for stride in (4, 8, 16, 32)]
    target = torch.zeros(2, SIZE, SIZE, dtype=torch.long)
    target[:, 16:40, 16:40] = 1
    return features, target


def test_steps_lower_the_loss_and_leave_the_features_as_they_were():
    step, (features, target) = learner(Step), batch()
    before = [stage.clone() for stage in features]
    losses = [step(features, target) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(stage, old) for stage, old in zip(features, before, strict=True))


def gradient_norm(step: Step) -> float:
    return float(torch.stack([p.grad.norm() for p in step._decoder.parameters() if p.grad is not None]).norm())


def test_a_gradient_is_clipped_where_the_settings_say_so():
    features, target = batch()
    norms = {}
    for limit in (None, 0.05, 1e6):
        step = learner(Step, clip_gradient=limit, augment_probability=0.0)
        step(features, target)
        norms[limit] = gradient_norm(step)
    assert norms[None] > 0.1
    assert norms[0.05] == pytest.approx(0.05, rel=1e-3)
    assert norms[1e6] == norms[None]


def test_a_step_has_the_dice_of_its_settings():
    features, target = batch()
    losses = {}
    for dice in ("squares", "sums"):
        step = learner(Step, dice=dice, augment_probability=0.0)
        with torch.no_grad():
            logits = step._decoder(features, (SIZE, SIZE))
        # BatchNorm took note of the maps, but its running statistics do not count in training.
        losses[dice] = step(features, target)
        assert losses[dice] == pytest.approx(
            float(segmentation_loss(logits, target, absent_in_dice=False, dice=dice)), rel=1e-5
        )
    assert losses["squares"] != losses["sums"]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_preset_paper_stays_in_single_precision_on_every_device_unless_told(device, monkeypatch):
    monkeypatch.setattr(steps, "_bfloat16_is_fast", lambda: True)
    monkeypatch.setattr(steps.torch.cuda, "is_bf16_supported", lambda: True)
    paper = Settings.of_preset("paper")
    assert not steps.mixed_precision(torch.device(device), paper)
    assert steps.mixed_precision(torch.device(device), paper.with_changes(precision="bfloat16"))
    assert steps.mixed_precision(torch.device(device), paper.with_changes(precision="auto")) is (device != "mps")


def test_a_step_in_bfloat16_is_near_to_one_in_single_precision_and_not_the_same():
    features, target = batch()
    losses = {p: learner(Step, precision=p, augment_probability=0.0)(features, target) for p in ("float32", "bfloat16")}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


class FakeGraph:
    """Plays back what was recorded by taking note of it."""

    def __init__(self) -> None:
        self.plays = 0

    def pool(self) -> str:
        return "memory of the first"

    def replay(self) -> None:
        self.plays += 1


@pytest.fixture
def card(monkeypatch):
    """What `RecordedStep` asks of `torch.cuda`; `refuses` makes a recording fail."""
    made = SimpleNamespace(refuses=False, recorded=[])

    @contextmanager
    def graph(recording, pool, stream, *, capture_error_mode):
        assert capture_error_mode == "thread_local"
        made.recorded.append((recording, pool))
        if made.refuses:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, fake in {
        "Stream": lambda device: stream,
        "current_stream": lambda: stream,
        "stream": lambda given: nullcontext(),
        "device": lambda given: nullcontext(),
        "CUDAGraph": FakeGraph,
        "graph": graph,
    }.items():
        monkeypatch.setattr(steps.torch.cuda, name, fake)
    return made


def test_each_kind_of_step_is_taken_twice_then_recorded_and_then_played_back(card, monkeypatch):
    step, (features, target) = learner(RecordedStep), batch()
    computed, compute = [], step._compute
    monkeypatch.setattr(step, "_compute", lambda *given: computed.append(given[2]) or compute(*given))
    for fires in (True, True, False, True, True, False, False, True):
        monkeypatch.setattr(step._augment, "fires", lambda fires=fires: fires)
        step(features, target)
    assert computed == [True, True, False, True, False, False]
    assert [pool for _, pool in card.recorded] == [None, "memory of the first"]
    assert [graph.plays for graph, _ in card.recorded] == [3, 1]


def test_a_recorded_step_is_given_each_batch_where_it_reads_it(card):
    step, (features, target) = learner(RecordedStep, augment_probability=0.0), batch()
    for _ in range(3):
        step(features, target)
    others, other_target = batch(1)
    step(others, 1 - other_target)
    recording = step._recordings[False]
    assert all(torch.equal(held, stage) for held, stage in zip(recording._features, others, strict=True))
    assert torch.equal(recording._target, 1 - other_target)
    assert torch.equal(features[0], batch()[0][0])


def test_where_recording_fails_steps_go_on_the_usual_way(card):
    card.refuses = True
    step, usual, (features, target) = learner(RecordedStep), learner(Step), batch()
    losses = {}
    for name, taken in (("recorded", step), ("usual", usual)):
        torch.manual_seed(3)
        losses[name] = [taken(features, target) for _ in range(8)]
    assert losses["recorded"] == losses["usual"]
    assert len(card.recorded) == 1  # it is not tried again
