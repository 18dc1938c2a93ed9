"""A step learns; where a card records steps, each kind is recorded once. (`test_on_card.py` has a real card.)"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from napari_dinoaugseg.learning import step as steps
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.step import RecordedStep, Step
from napari_dinoaugseg.learning.trainer import new_decoder

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
