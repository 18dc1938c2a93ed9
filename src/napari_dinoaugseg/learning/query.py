"""Which slice is worth labelling next: where the model is unsure, and far from what it has seen."""

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
"""Slices: so near a structure there may be more of it that is not seen yet."""

_ANYWHERE = 0.03
"""Weight of a slice far from all structure that is known, relative to the slice that shows most of it."""

_REACH = 0.25
"""Share of the slices with structure, or of all: so far from a labelled slice it tells nothing any more."""


def suggest(
    n_slices: int,
    labelled: Collection[int],
    confidence: Mapping[int, float],
    count: int = 1,
    amounts: Mapping[int, int] | None = None,
) -> list[Suggestion]:
    """The ``count`` slices to label next, best first; fewer when fewer are unlabelled.

    In a volume a labelled slice tells of those around it as well, the less the further they are. The slice that comes
    next is the one that tells most: the sum, over the slices around it, of what is not told by a labelled or already
    suggested one, times the root of the doubt (1 - confidence) about that slice, times the structure there. The root,
    because doubts differ more than errors do; the structure, because a few pixels at the end of an organ add little to
    the whole. Before the first prediction slices are in doubt and may hold structure all alike. Pictures count by their
    own doubt and by their distance to the nearest labelled or suggested one.

    Args:
        n_slices: of the case.
        labelled: slices with manual or accepted labels.
        confidence: of predicted slices, 0 to 1.
        count: how many to suggest.
        amounts: pixels of structure in the slices that are labelled or predicted; None where slices do not belong
            together, as pictures.
    """
    taken = set(labelled)
    doubt = np.array([max(0.0, 1 - confidence.get(index, 0.0)) for index in range(n_slices)])  # rounding may exceed 1
    worst = max((1 - value for value in confidence.values()), default=0.0)
    known = amounts if amounts and confidence else {}  # before a prediction structure may be anywhere
    suggestions: list[Suggestion] = []
    while len(suggestions) < count and len(taken) < n_slices:
        distances = _distances(n_slices, taken)
        scores = _alone(doubt, worst, distances) if amounts is None else _around(doubt, known, distances)
        # Among equals the furthest, then the one in the middle.
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
    """Slices to the nearest of ``taken``; the number of slices where there is none."""
    steps = np.abs(np.subtract.outer(np.arange(n_slices), np.array(sorted(taken), np.intp)))
    return np.asarray(steps.min(axis=1, initial=n_slices))


def _alone(doubt: NDArray[np.float64], worst: float, distances: NDArray[np.intp]) -> NDArray[np.float64]:
    """What slices are worth by themselves."""
    if worst <= 0:
        return distances.astype(float)
    return doubt / worst * np.minimum(1.0, distances / (_REACH * len(doubt)))  # further brings no more news


def _around(doubt: NDArray[np.float64], amounts: Mapping[int, int], distances: NDArray[np.intp]) -> NDArray[np.float64]:
    """What each slice would tell of those around it that is not told yet."""
    reach = max(2.0, _REACH * (sum(amount > 0 for amount in amounts.values()) or len(doubt)))
    aside = int(reach)
    tells = 1 - np.abs(np.arange(-aside, aside + 1)) / reach
    told, needed = (
        sliding_window_view(np.pad(values, aside), len(tells))
        for values in (np.maximum(0.0, 1 - distances / reach), np.sqrt(doubt) * _weights(len(doubt), amounts))
    )
    return np.asarray((np.maximum(0.0, tells - told) * needed).sum(axis=1))


def _weights(n_slices: int, amounts: Mapping[int, int]) -> NDArray[np.float64]:
    """By the most structure that a slice or a near one shows, from ``_ANYWHERE`` to 1."""
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
