"""The query strategy: which slice to label next, by the model's uncertainty and the distance to labelled slices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


@dataclass(frozen=True)
class Suggestion:
    """A slice to label next.

    Attributes:
        index: slice number.
        reason: in a few words, for the person.
        confidence: the model's confidence in that slice, 0 to 1; None without a prediction.
        distance: slices to the nearest labelled one; None when none is labelled.
    """

    index: int
    reason: str
    confidence: float | None
    distance: int | None


_BESIDE = 2
"""Slices: so close to a known structure there may be more of it."""

_ANYWHERE = 0.03
"""Weight of a slice far from any known structure, relative to the slice with most of it."""

_REACH = 0.25
"""Share of the slices with structure, or of all: beyond this distance a label carries no information."""


def suggest(
    n_slices: int,
    labelled: Collection[int],
    confidence: Mapping[int, float],
    count: int = 1,
    amounts: Mapping[int, int] | None = None,
) -> list[Suggestion]:
    """The ``count`` slices to label next, best first; fewer if fewer are unlabelled.

    In a volume a label also informs about the slices around it, less with distance. The next slice is the one that
    informs most: the sum, over the slices around it, of the information not given by a labelled or already suggested
    slice, times the root of that slice's uncertainty (1 - confidence), times the structure there. The root, because
    uncertainties differ more than errors; the structure, because a few pixels at the end of an organ matter little.
    Before the first prediction all slices are equally uncertain and may hold structure. Pictures are ranked by their
    own uncertainty and their distance to the nearest labelled or suggested one.

    Args:
        n_slices: of the case.
        labelled: slices with manual or accepted labels.
        confidence: of predicted slices, 0 to 1.
        count: how many to suggest.
        amounts: pixels of structure in labelled and predicted slices; None for pictures, which are independent.
    """
    taken = set(labelled)
    doubt = np.array([max(0.0, 1 - confidence.get(index, 0.0)) for index in range(n_slices)])  # rounding may exceed 1
    worst = max((1 - value for value in confidence.values()), default=0.0)
    known = amounts if amounts and confidence else {}  # before a prediction structure may be anywhere
    suggestions: list[Suggestion] = []
    while len(suggestions) < count and len(taken) < n_slices:
        distances = _distances(n_slices, taken)
        scores = _alone(doubt, worst, distances) if amounts is None else _around(doubt, known, distances)
        # Among equals the furthest, then the most central.
        index = max(
            (candidate for candidate in range(n_slices) if candidate not in taken),
            key=lambda i: (scores[i], distances[i], -abs(i - n_slices // 2), -i),
        )
        distance = int(distances[index]) if taken else None
        suggestions.append(
            Suggestion(index, _reason(confidence.get(index), distance, worst), confidence.get(index), distance)
        )
        taken.add(index)
    return suggestions


def _distances(n_slices: int, taken: Collection[int]) -> NDArray[np.intp]:
    """Distance in slices to the nearest of ``taken``; the number of slices if there are none."""
    steps = np.abs(np.subtract.outer(np.arange(n_slices), np.array(sorted(taken), np.intp)))
    return np.asarray(steps.min(axis=1, initial=n_slices))


def _alone(doubt: NDArray[np.float64], worst: float, distances: NDArray[np.intp]) -> NDArray[np.float64]:
    """The score of independent slices."""
    if worst <= 0:
        return distances.astype(float)
    return doubt / worst * np.minimum(1.0, distances / (_REACH * len(doubt)))  # further adds nothing


def _around(doubt: NDArray[np.float64], amounts: Mapping[int, int], distances: NDArray[np.intp]) -> NDArray[np.float64]:
    """The score of slices of a volume: the information that each adds about those around it."""
    reach = max(2.0, _REACH * (sum(amount > 0 for amount in amounts.values()) or len(doubt)))
    aside = int(reach)
    informs = 1 - np.abs(np.arange(-aside, aside + 1)) / reach
    known, needed = (
        sliding_window_view(np.pad(values, aside), len(informs))
        for values in (np.maximum(0.0, 1 - distances / reach), np.sqrt(doubt) * _weights(len(doubt), amounts))
    )
    return np.asarray((np.maximum(0.0, informs - known) * needed).sum(axis=1))


def _weights(n_slices: int, amounts: Mapping[int, int]) -> NDArray[np.float64]:
    """Weights from ``_ANYWHERE`` to 1, by the largest amount of structure in a slice or its neighbours."""
    shown = np.array([amounts.get(index, 0) for index in range(n_slices)])
    if not shown.any():
        return np.ones(n_slices)
    near = sliding_window_view(np.pad(shown, _BESIDE), 2 * _BESIDE + 1).max(axis=1)
    return np.asarray(_ANYWHERE + (1 - _ANYWHERE) * near / shown.max())


def _reason(confidence: float | None, distance: int | None, worst: float) -> str:
    parts = []
    doubt = 0.0 if confidence is None else 1 - confidence
    if doubt > 0.5 * worst:
        parts.append("most uncertain" if doubt > 0.8 * worst else "uncertain")
    if distance is not None and distance > 2:
        parts.append("far from labelled slices")
    return ", ".join(parts) or "not labelled yet"
