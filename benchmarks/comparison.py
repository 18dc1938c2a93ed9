"""Arithmetic on rows: means over draws, paired differences, and how honest confidence is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.rows import Row

POOR = 0.8
"""Dice below which a slice should be found by its low confidence."""

_LEAST = 3  # pairs, for an interval
_RESAMPLES = 5000

Place = tuple[str, int]
"""A set, and how many samples or slices of it are labelled."""
Values = dict[tuple[Place, str], dict[int, float]]
"""By place and method: one value for each draw."""


@dataclass(frozen=True)
class Difference:
    """A method against the reference on the same draws.

    Attributes:
        pairs: how many.
        mean: of method minus reference.
        interval: 95 % bootstrap interval of the mean over the pairs; None for fewer than three.
        better: pairs in which the method has the larger value.
        worse: pairs in which the reference has.
        p: of the two-sided sign test; ties are left out.
    """

    pairs: int
    mean: float
    interval: tuple[float, float] | None
    better: int
    worse: int
    p: float


def by_draw(rows: Iterable[Row], value: Callable[[Row], float | None]) -> Values:
    """A value for each draw; several volumes of one draw are averaged. Rows without the value are left out."""
    lists: dict[tuple[Place, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found = value(row)
        if found is not None:
            lists[(row["set"], row["labels"]), row["method"]][row["draw"]].append(found)
    return {
        key: {draw: float(np.mean(entries)) for draw, entries in sorted(draws.items())} for key, draws in lists.items()
    }


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation of a sample; None for a single value."""
    every = np.array(list(values), dtype=np.float64)
    return float(every.mean()), float(every.std(ddof=1)) if len(every) > 1 else None


def compare(pairs: Sequence[tuple[float, float]]) -> Difference:
    """Compare pairs of (method, reference), at least one."""
    differences = np.array([ours - theirs for ours, theirs in pairs], dtype=np.float64)
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return Difference(len(pairs), float(differences.mean()), _interval(differences), better, worse, p)


def _interval(differences: NDArray[np.float64]) -> tuple[float, float] | None:
    if len(differences) < _LEAST:
        return None
    random = np.random.default_rng(0)
    means = random.choice(differences, size=(_RESAMPLES, len(differences))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def pairs_of(values: Values, place: Place, method: str, reference: str) -> list[tuple[float, float]]:
    """Values of a method and of the reference in the draws that both have."""
    ours, theirs = values.get((place, method), {}), values.get((place, reference), {})
    return [(ours[draw], theirs[draw]) for draw in sorted(ours.keys() & theirs.keys())]


def mean_hd95(row: Row) -> float | None:
    """Mean HD95 over samples and classes that have one; None when none has."""
    known = [value for sample in row["hd95"].values() for value in sample.values() if value is not None]
    return float(np.mean(known)) if known else None


def missing_hd95(rows: Iterable[Row]) -> float:
    """Share of samples and classes without a distance, because one mask lacks the class."""
    every = [value for row in rows for sample in row["hd95"].values() for value in sample.values()]
    return sum(value is None for value in every) / len(every)


def seconds_to_masks(row: Row) -> float:
    """From labels to a trained model: encoding the labelled slices and views, as if none was at hand, and training."""
    return float(row["seconds"]["encode_each"] * row["encoded"] + row["seconds"]["train"])


def expected_calibration_error(rows: Iterable[Row]) -> float:
    """Mean gap between confidence and share of right pixels, over bins weighted by their pixels; 0 is perfect."""
    pixels, confidence, right = (
        np.sum([row["calibration"][name] for row in rows], axis=0) for name in ("pixels", "confidence", "right")
    )
    return float(np.abs(confidence - right).sum() / pixels.sum())


def auroc_of_poor_slices(rows: Iterable[Row]) -> tuple[float | None, int, int]:
    """How well low confidence finds slices with a Dice below `POOR`.

    Returns:
        The area under the ROC curve (0.5 = chance; None when all slices are poor or none is), poor slices, slices.
    """
    from sklearn.metrics import roc_auc_score

    slices = [entry for row in rows for entry in row["slices"]]
    poor = np.array([found < POOR for _, _, _, found in slices])
    doubt = np.array([1 - confidence for _, _, confidence, _ in slices])
    area = float(roc_auc_score(poor, doubt)) if poor.any() and not poor.all() else None
    return area, int(poor.sum()), len(poor)
