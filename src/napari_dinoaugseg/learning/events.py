"""Events of background work: progress, notices, cancellation, and the prediction of a slice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Stage = Literal["download", "send", "encode", "train", "adapt", "predict", "live", "search", "fetch", "store"]
_STEPS = {"train": "training", "adapt": "training the encoder, too", "live": "learning"}


@dataclass(frozen=True)
class Progress:
    """One step forward.

    Attributes:
        stage: the kind of work.
        done: units done: slices (send, predict), slices and views of them (encode), steps (train; adapt, where the
            encoder learns; live), megabytes (download), studies (search), images (fetch), or files (store).
        total: units in this stage.
        elapsed: seconds since the stage began.
        loss: training loss of the last step, smoothed; only in ``train``, ``adapt`` and ``live``.
        learning_rate: of the last step; only in ``train`` and ``adapt``.
        views: how many of ``total`` are augmented or mirrored views; only in ``encode``.
    """

    stage: Stage
    done: int
    total: int
    elapsed: float
    loss: float | None = None
    learning_rate: float | None = None
    views: int = 0

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.done / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def words(self) -> str:
        """A phrase for the person: ``encoding image 5 of 64 (60 of them augmented views)``."""
        if self.stage in _STEPS:
            return f"{_STEPS[self.stage]}, step {self.done} of {self.total}"
        if self.stage == "encode":
            views = f" ({self.views} of them augmented views)" if self.views else ""
            return f"encoding image {self.done} of {self.total}{views}"
        if self.stage == "download":
            return f"downloading, {self.done} of {self.total} MB"
        if self.stage == "search":
            return f"searching study {self.done} of {self.total}"
        if self.stage == "store":
            return f"sending file {self.done} of {self.total}"
        verb = {"send": "sending", "fetch": "fetching"}.get(self.stage, "predicting")
        return f"{verb} image {self.done} of {self.total}"

    @property
    def remaining(self) -> float:
        """Seconds left in this stage at the present rate."""
        return (self.total - self.done) / self.rate if self.rate > 0 else 0.0


@dataclass(frozen=True)
class Notice:
    """One sentence for the person, such as a fallback or a reduced size."""

    text: str


Event = Progress | Notice
Report = Callable[[Event], None]
"""Receives progress and notices, in the thread of the work."""


def ignore(_: Event) -> None:
    """A report that discards events."""


class Cancel:
    """A request to stop running work at its next step; may be set from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Request the stop."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()


@dataclass(frozen=True)
class Prediction:
    """The mask of one slice.

    Attributes:
        index: slice number.
        classes: (H, W) class indices, 0 = background, at the slice's own size.
        pixel_confidence: (H, W) float32, probability of the chosen class, 1 / K to 1; less in removed components.
        confidence: of the slice, 0 to 1: the Dice to expect (see `learning.confidence`).
    """

    index: int
    classes: NDArray[np.uint16]
    pixel_confidence: NDArray[np.float32]
    confidence: float


def nearest_first(indices: Iterable[int], centre: int) -> list[int]:
    """Slices by distance from ``centre``."""
    return sorted(indices, key=lambda index: (abs(index - centre), index))
