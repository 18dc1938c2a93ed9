"""A simulated person: labels a few slices from the truth, trains, labels more where it pays, and so on."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.learning.events import Event
from napari_dinoaugseg.learning.prediction import Prediction
from napari_dinoaugseg.session.classes import classes_of
from napari_dinoaugseg.session.labels import UNKNOWN, Labels
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.study.study import ReadLabels

StrategyName = Literal["suggested", "even", "random"]


@dataclass(frozen=True)
class SimulatedRound:
    """One round.

    Attributes:
        labelled: all slices labelled so far.
        dice: by class number, over the voxels of the slices that are not labelled; empty when none is left.
        seconds: of training and prediction.
    """

    labelled: list[int]
    dice: dict[int, float]
    seconds: float

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes."""
        return float(np.mean(list(self.dice.values()))) if self.dice else None


def simulate(
    session: Session, truth: Mapping[int, Labels], counts: Sequence[int], strategy: StrategyName, seed: int = 0
) -> Generator[Event | Prediction | SimulatedRound, None, None]:
    """Play ``len(counts)`` rounds, labelling ``counts[r]`` slices in round r; yields events and one result a round.

    The first slices are spread evenly over those that hold the structure (``random``: drawn from them), for that is
    where a person starts who scrolls through the study. After that the strategy picks among all slices.

    Args:
        session: fresh, without labels.
        truth: the true mask of every slice that holds paint, (H, W); other slices are background. Where it is UNKNOWN,
            nothing is learnt and nothing counted.
        counts: slices to label in each round.
        strategy: ``suggested`` takes the session's suggestions, ``even`` halves the largest gaps, ``random`` draws.
        seed: of the drawing.

    Raises:
        LabelError: the truth holds nothing.
    """
    holding = sorted(index for index, labels in truth.items() if ((labels > 0) & (labels != UNKNOWN)).any())
    if not holding:
        msg = "The true mask holds only background; there is nothing to simulate."
        raise LabelError(msg)
    numbers = {int(value) for labels in truth.values() for value in np.unique(labels)} - {UNKNOWN}
    session.labels.classes = classes_of(numbers, truth.segments if isinstance(truth, ReadLabels) else ())
    random = np.random.default_rng(seed)
    for number, count in enumerate(counts):
        chosen = (
            first_slices(holding, count, strategy, random)
            if number == 0
            else next_slices(session, count, strategy, random)
        )
        for index in chosen:
            session.paint(index, _true_slice(session, truth, index))
        started = time.monotonic()
        yield from session.train()
        yield from session.predict(chosen[0] if chosen else 0)
        yield SimulatedRound(session.labels.labelled, _dice(session, truth), time.monotonic() - started)


def first_slices(holding: Sequence[int], count: int, strategy: StrategyName, random: np.random.Generator) -> list[int]:
    """Where a person starts: ``count`` of the slices that hold the structure, fewer when fewer do."""
    count = min(count, len(holding))
    if strategy == "random":
        return sorted(int(index) for index in random.choice(holding, size=count, replace=False))
    # Middles of equal parts: neither the first nor the last slice, which hold little of the structure.
    return [holding[int((part + 0.5) * len(holding) / count)] for part in range(count)]


def next_slices(session: Session, count: int, strategy: StrategyName, random: np.random.Generator) -> list[int]:
    """``count`` of the slices that are not labelled, in the order of the strategy; fewer when fewer are left."""
    if strategy == "suggested":
        return [suggestion.index for suggestion in session.suggest(count)]
    labelled = set(session.labels.labelled)
    n_slices = session.study.n_slices
    left = [index for index in range(n_slices) if index not in labelled]
    if strategy == "random":
        return sorted(int(index) for index in random.choice(left, size=min(count, len(left)), replace=False))
    chosen: list[int] = []
    while len(chosen) < min(count, len(left)):
        taken = sorted(labelled | set(chosen))
        free = [index for index in left if index not in chosen]
        chosen.append(max(free, key=lambda index: (min(abs(index - other) for other in taken), -index)))
    return chosen


def _true_slice(session: Session, truth: Mapping[int, Labels], index: int) -> Labels:
    empty: Labels = np.zeros(session.study.slice_shape(index), np.uint16)
    return truth.get(index, empty)


def _dice(session: Session, truth: Mapping[int, Labels]) -> dict[int, float]:
    labelled = set(session.labels.labelled)
    left = [index for index in range(session.study.n_slices) if index not in labelled]
    result = {}
    for entry in session.labels.classes:
        overlap = size = 0
        for index in left:
            truly = _true_slice(session, truth, index)
            found = (session.labels.result(index) == entry.number) & (truly != UNKNOWN)
            true = truly == entry.number
            overlap += int(np.count_nonzero(found & true))
            size += int(np.count_nonzero(found)) + int(np.count_nonzero(true))
        if size:
            result[entry.number] = 2 * overlap / size
    return result
