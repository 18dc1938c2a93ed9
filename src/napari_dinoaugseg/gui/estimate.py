"""How long training and prediction take: from what this machine has shown, before that from a rough table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from napari_dinoaugseg.learning.events import Progress, Stage
from napari_dinoaugseg.learning.settings import Settings

# Seconds on two server cores at 256 pixels (docs/performance.md): a slice through efficientnet-lite0, one training step
# with a decoder of 64 channels and full convolutions on 4 slices, the prediction of one slice with its encoding.
_ENCODE, _STEP, _PREDICT = 0.022, 0.45, 0.035
_LEAN = 0.6  # of that, with the other kinds of blocks
_SIDES = 3  # pictures of one structure are seen from two sides, or four where they are coloured
_SLOWER = {"tiny": 14.0, "small": 23.0, "base": 45.0, "large": 90.0}  # encoders against efficientnet-lite0
_ENOUGH = 0.5  # seconds of a stage after which its pace is trusted

_STAGES: tuple[Stage, ...] = ("encode", "train", "predict")


@dataclass(frozen=True)
class Job:
    """What there is to do until masks are on every slice.

    Attributes:
        units: how many of each stage: slices and views to encode, steps, slices to predict.
        seconds: what one unit takes by the table.
    """

    units: Mapping[Stage, float]
    seconds: Mapping[Stage, float]


def job(
    settings: Settings, encoder: str | None, new: int, to_predict: int, *, kind: str, classes: int, warm: bool
) -> Job:
    """What a training with the prediction after it comes to.

    Args:
        settings: how to learn.
        encoder: its name where known.
        new: labelled slices that were not learnt from before; their views have to be encoded.
        to_predict: slices that get masks.
        kind: of the case, "volume" or "pictures".
        classes: how many, without the background; more take more steps.
        warm: whether a trained model is continued.
    """
    area = (settings.input_size / 256) ** 2
    heavier = next((factor for name, factor in _SLOWER.items() if encoder and encoder.endswith(name)), 1.0)
    blocks = 1.0 if settings.blocks == "conv" else _LEAN
    sides = _SIDES if kind == "pictures" and settings.mirrors and classes == 1 else 1
    steps = settings.planned_steps(classes + 1, new, warm=warm)
    views = min(new * (settings.views + 1), steps * settings.batch_size)  # no more than the steps can show
    return Job(
        units={"encode": views, "train": steps, "predict": to_predict},
        seconds={
            "encode": _ENCODE * area * heavier,
            "train": _STEP * blocks * area * (settings.width or 256) / 64 * settings.batch_size / 4,
            "predict": _PREDICT * area * max(1.0, heavier / 2) * sides,
        },
    )


@dataclass
class Pace:
    """What this machine has shown with the settings at hand.

    Attributes:
        measured: seconds for one unit of a stage, the one measured last at the end.
    """

    measured: dict[Stage, float] = field(default_factory=dict)
    _first: Progress | None = None  # the first unit of the running stage: it takes longer, for memory is prepared

    @property
    def is_known(self) -> bool:
        """Whether a training was measured, which takes most of the time."""
        return "train" in self.measured

    def forget(self) -> None:
        """Other settings have another pace."""
        self.measured.clear()
        self._first = None

    def note(self, event: Progress) -> None:
        """Learn from the progress of running work."""
        if event.stage not in _STAGES or not event.done:
            return
        first = self._first
        if first is None or first.stage != event.stage or first.done >= event.done:
            self._first = event
        elif event.elapsed - first.elapsed > _ENOUGH:
            self.measured.pop(event.stage, None)
            self.measured[event.stage] = (event.elapsed - first.elapsed) / (event.done - first.done)

    def seconds(self, job: Job, stages: tuple[Stage, ...] = _STAGES) -> float:
        """How long stages of a job take.

        A stage that was not measured takes its time in the table, times how much slower (or faster) than the table this
        machine was in the stage that was measured last.
        """
        last = next(reversed(self.measured), None)
        slower = self.measured[last] / job.seconds[last] if last is not None else 1.0
        pace = {stage: self.measured.get(stage, job.seconds[stage] * slower) for stage in stages}
        return sum(job.units[stage] * pace[stage] for stage in stages)

    def left(self, job: Job, event: Progress) -> float | None:
        """Seconds until all of a job is done; None while too little was seen to tell.

        How fast slices are encoded says little about the training steps, which take most of the time.
        """
        if event.stage not in self.measured:
            return None
        later = _STAGES[_STAGES.index(event.stage) + 1 :]
        if "train" in later and not self.is_known:
            return None
        return (event.total - event.done) * self.measured[event.stage] + self.seconds(job, later)


def in_words(seconds: float) -> str:
    """A time as people say it, never more exact than it is."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"
