"""The one ladder that encoding, training and prediction share."""

from __future__ import annotations

import weakref

import pytest
import torch

from napari_dinoaugseg.errors import DeviceError
from napari_dinoaugseg.learning import fallback
from napari_dinoaugseg.learning.events import Notice
from napari_dinoaugseg.learning.fallback import CPU, Fallback, NoRoomError, fewer_features, usable

CARD = torch.device("mps")
FULL = torch.OutOfMemoryError("CUDA out of memory")


class Job:
    """Work on a card, four slices at a time, that fails in given ways before it succeeds."""

    def __init__(self, *errors: Exception, device: torch.device = CARD, features: int = 1) -> None:
        self.errors, self.device, self.features = list(errors), device, features
        self.batch, self.held, self.notices = 4, None, []

    def ladder(self) -> Fallback:
        def too_large() -> str:
            return "Too large."

        return Fallback(
            "at work", lambda: self.device, [self.halve, fewer_features(self.let_go)], self.leave, too_large
        )

    def halve(self, _) -> str | None:
        assert self.held is None or self.held() is None, "the failed attempt is still alive"
        self.batch //= 2
        return f"with {self.batch}" if self.batch else None

    def let_go(self) -> bool:
        self.features -= 1
        return self.features >= 0

    def leave(self) -> None:
        self.device = CPU

    def attempt(self) -> str:
        large = torch.zeros(8)
        self.held = weakref.ref(large)
        if self.errors:
            error = self.errors.pop(0)
            raise type(error)(*error.args)  # a fresh one: an exception keeps alive what the frames of its attempt hold
        return "done"

    def stream(self):
        yield Notice("begun")
        return self.attempt()

    def texts(self) -> list[str]:
        return [notice.text for notice in self.notices]


@pytest.fixture(autouse=True)
def sound_card(monkeypatch):
    monkeypatch.setattr(fallback, "_failed", set())
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)


def run(job: Job) -> str:
    return job.ladder().run(job.attempt, job.notices.append)


def test_memory_is_given_up_rung_by_rung_then_the_cpu_takes_over():
    job = Job(FULL, FULL, MemoryError(), FULL)
    assert run(job) == "done"
    steps = ["with 2", "with 1", "with fewer features in memory", "with the CPU"]
    assert job.texts() == [f"Memory ran out at work; going on {step}." for step in steps]
    assert job.device == usable(CPU)
    assert usable(CARD) == CARD


def test_features_are_kept_when_it_is_the_card_that_is_full():
    job = Job(FULL, FULL, FULL)
    assert run(job) == "done"
    assert (job.device, job.features) == (CPU, 1)


def test_on_the_cpu_it_waits_for_memory_a_few_times_and_then_says_what_to_do():
    job = Job(*[MemoryError()] * 7, device=CPU, features=0)
    with pytest.raises(NoRoomError, match="Too large"):
        run(job)
    assert job.texts()[2:] == ["Memory ran out at work; trying once more."] * 3
    assert len(job.errors) == 1


def test_a_failed_device_is_left_at_once_and_for_good():
    job = Job(RuntimeError("CUDA error: unspecified launch failure\nmore"))
    assert run(job) == "done"
    assert job.texts() == ["The device 'mps' failed (CUDA error: unspecified launch failure); going on with the CPU."]
    assert (job.batch, usable(CARD)) == (4, CPU)


def test_a_device_that_fails_under_the_cpu_ends_the_work():
    with pytest.raises(DeviceError, match=r"launch failure.*start the program again"):
        run(Job(RuntimeError("CUDA error: unspecified launch failure"), device=CPU))


def test_other_errors_pass():
    job = Job(ValueError("out of memory"))
    with pytest.raises(ValueError, match="out of memory"):
        run(job)
    assert job.notices == []


def test_work_that_yields_takes_the_same_ladder_and_outlives_a_part_without_room():
    job = Job(FULL, NoRoomError("No room for a part."))
    events = []

    def follow():
        result = yield from job.ladder().stream(job.stream)
        assert result == "done"

    events.extend(event.text for event in follow())
    steps = ["Memory ran out at work; going on with 2.", "Memory ran out at work; going on with 1."]
    assert events == ["begun", steps[0], "begun", steps[1], "begun"]


def test_a_part_without_room_ends_work_that_does_not_yield():
    with pytest.raises(NoRoomError, match="No room for a part"):
        run(Job(NoRoomError("No room for a part.")))
