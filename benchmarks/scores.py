"""From predicted slices to the figures of a row: Dice and HD95 of samples and classes, and how honest confidence is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import SampleCases
from benchmarks.samples import Sample
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.learning.metrics import dice, score

BINS = 15
"""Equal bins of pixel confidence from 0 to 1 (Guo et al. 2017, On calibration of modern neural networks)."""


@dataclass
class Calibration:
    """Pixels by their confidence.

    Attributes:
        pixels: in each bin.
        confidence: sum in each bin.
        right: how many pixels of each bin have the true class.
    """

    pixels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    right: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Count the pixels of a slice."""
        values = confidence.ravel().astype(np.float64)
        numbers = np.clip(np.ceil(values * BINS).astype(int) - 1, 0, BINS - 1)
        self.pixels += np.bincount(numbers, minlength=BINS)
        self.confidence += np.bincount(numbers, weights=values, minlength=BINS)
        self.right += np.bincount(numbers, weights=right.ravel(), minlength=BINS)

    def as_plain(self) -> dict[str, list[float]]:
        """For JSON."""
        return {name: [round(v, 3) for v in getattr(self, name)] for name in ("pixels", "confidence", "right")}


@dataclass(frozen=True)
class Scores:
    """Figures of one method on some samples.

    Attributes:
        dice: by sample and class name, 0 to 1; 1 where neither mask has the class.
        hd95: likewise, in mm or pixels; None where one mask lacks the class.
        unit: of hd95.
        slices: (sample, number in it, confidence, Dice) of every counted slice.
        calibration: of their pixels.
    """

    dice: dict[str, dict[str, float]]
    hd95: dict[str, dict[str, float | None]]
    unit: str
    slices: list[tuple[str, int, float, float]]
    calibration: Calibration

    @property
    def mean_dice(self) -> float:
        """Mean over samples and classes."""
        return float(np.mean([value for sample in self.dice.values() for value in sample.values()]))


def score_samples(
    cases: SampleCases,
    samples: Iterable[Sample],
    predictions: Iterable[Prediction],
    classes: tuple[str, ...],
    given: Collection[int] = (),
) -> Scores:
    """Compare at the native size of each slice.

    Args:
        cases: of the samples.
        samples: to score.
        predictions: of all their slices but the given ones.
        classes: names of the foreground classes.
        given: labelled slices of these samples: not counted, and what they hold is the truth.
    """
    found: dict[int, NDArray[np.integer]] = {i: cases.truth(i) for i in given}
    confidence: dict[int, float] = {}
    calibration = Calibration()
    for prediction in predictions:
        found[prediction.index] = prediction.classes.astype(np.uint8)
        confidence[prediction.index] = prediction.confidence
        calibration.add(prediction.pixel_confidence, prediction.classes == cases.truth(prediction.index))
    every, distances, slices = {}, {}, []
    units = set()
    for sample in samples:
        indices = cases.indices(sample)
        scores = _score(sample, [found[i] for i in indices], [i not in given for i in indices], len(classes))
        every[sample.name] = {name: value for name, (value, _) in zip(classes, scores, strict=True)}
        distances[sample.name] = {name: value for name, (_, value) in zip(classes, scores, strict=True)}
        slices += [
            (sample.name, position, round(confidence[i], 5), round(_slice_dice(found[i], cases.truth(i)), 5))
            for position, i in enumerate(indices)
            if i in confidence
        ]
        units.add("px" if sample.spacing is None else "mm")
    return Scores(every, distances, "/".join(sorted(units)), slices, calibration)


def _score(
    sample: Sample, found: list[NDArray[np.integer]], counted: list[bool], n_classes: int
) -> list[tuple[float, float | None]]:
    """Dice and HD95 of each foreground class; a picture is measured in its plane."""
    prediction, truth = np.stack(found), np.stack(sample.truth)
    inside = np.broadcast_to(np.array(counted)[:, None, None], truth.shape)
    if sample.n_slices == 1:
        prediction, truth, inside = prediction[0], truth[0], inside[0]
    spacing = sample.spacing or (1.0,) * truth.ndim
    results = []
    for number in range(1, n_classes + 1):
        result = score(prediction == number, truth == number, spacing[-truth.ndim :], np.array(inside))
        results.append((round(result.dice, 6), None if result.hd95 is None else round(result.hd95, 4)))
    return results


def _slice_dice(found: NDArray[np.integer], truth: NDArray[np.uint8]) -> float:
    """Mean Dice over the classes in sight; 1 for a slice that is empty in both."""
    numbers = sorted((set(np.unique(found).tolist()) | set(np.unique(truth).tolist())) - {0})
    return float(np.mean([dice(found == n, truth == n) for n in numbers])) if numbers else 1.0
