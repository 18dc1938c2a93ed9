"""What every method gets and returns, and the clock that is the same for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import SampleCases
from napari_dinoaugseg.errors import TrainingError
from napari_dinoaugseg.learning.augmentation import View, symmetry_of, views_for
from napari_dinoaugseg.learning.events import Event, Notice, Prediction
from napari_dinoaugseg.learning.features import FeatureStore, SliceView
from napari_dinoaugseg.learning.train import Example, resize_target


@dataclass(frozen=True)
class Problem:
    """Labelled slices to learn from.

    Attributes:
        cases: labelled and other slices.
        store: their features.
        labelled: slice numbers.
        n_classes: with the background.
        seed: of everything random.
        seconds: of training that are allowed; encoding is not counted.
        cache: folder in which features outlive the run; None = they are kept in memory only.
    """

    cases: SampleCases
    store: FeatureStore
    labelled: tuple[int, ...]
    n_classes: int
    seed: int
    seconds: float
    cache: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where to compute: where the encoder is."""
        return self.store.encoder.device

    def views(self, count: int) -> tuple[View | None, ...]:
        """The plain slice and ``count`` views, as the program makes them."""
        images = (self.store.image(i) for i in self.labelled)
        return views_for(count, self.seed, symmetry_of(self.cases.slices.kind, images, self.n_classes))

    @property
    def examples(self) -> list[Example]:
        """The labelled slices with their truth."""
        return [self.cases.example(i) for i in self.labelled]

    def target(self, index: int, view: View | None) -> Tensor:
        """Class indices (S, S) int16 of a view of a slice at the input size."""
        plain = resize_target(torch.from_numpy(self.cases.example(index).target), self.store.input_size)
        return view.of_labels(plain) if view else plain


@dataclass(frozen=True)
class Learnt:
    """What a method has learnt, and what it took.

    Attributes:
        predict: masks of slices, one by one.
        steps: done; trees for a forest.
        planned: steps without a limit of time.
        seconds: of training, see `seconds_on`.
        encoded: how many slices and views the training needs from the encoder, at hand or not.
    """

    predict: Callable[[Sequence[int]], Iterator[Prediction]]
    steps: int
    planned: int
    seconds: float
    encoded: int


def seconds_on(device: torch.device) -> float:
    """A clock for work on ``device``.

    On the CPU the time of this process on one thread, which does not count what other programs take from it, and
    is what the wall clock shows on an idle machine; elsewhere the wall clock.
    """
    return time.process_time() if device.type == "cpu" else time.perf_counter()


class Limit:
    """Time for training, from the moment that this is made."""

    def __init__(self, problem: Problem) -> None:
        self._device, self._allowed = problem.device, problem.seconds
        self._started = seconds_on(self._device)

    @property
    def seconds(self) -> float:
        """Time spent."""
        return seconds_on(self._device) - self._started

    @property
    def is_reached(self) -> bool:
        """Whether no time is left."""
        return self.seconds >= self._allowed


def encode(problem: Problem, pairs: Iterable[SliceView]) -> None:
    """Encode what training will ask for, so that the limit of time counts training alone."""
    for event in problem.store.prepare(pairs):
        raise_on_notice(event)


def raise_on_notice(event: Event) -> None:
    """Refuse to go on with less memory or on another device: figures would not be comparable."""
    if isinstance(event, Notice):
        msg = f"{event.text} A benchmark compares only what ran as planned: free memory or disk, and start it again."
        raise TrainingError(msg)
