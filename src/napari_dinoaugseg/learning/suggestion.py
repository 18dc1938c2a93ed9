"""Which slice is worth labelling next: where the model is unsure, and far from what it has seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


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


_REACH = 2
"""Slices: so near a structure there may be more of it that is not seen yet."""

_ANYWHERE = 0.03
"""Weight of a slice far from all structure that is known, relative to the slice that shows most of it."""


def suggest(
    n_slices: int,
    labelled: Collection[int],
    confidence: Mapping[int, float],
    count: int = 1,
    amounts: Mapping[int, int] | None = None,
) -> list[Suggestion]:
    """The ``count`` slices to label next, best first; fewer when fewer are unlabelled.

    A slice scores by its uncertainty (1 - confidence, relative to the least certain slice) times a factor that grows
    with the distance to the nearest labelled or already suggested slice, so that the choice spreads over the volume:
    neighbours of a labelled slice look much like it. Without predictions the distance alone decides. In a volume, what
    a slice adds to the whole counts as well: a doubt about a few pixels at the end of an organ is worth little.

    Args:
        n_slices: of the study.
        labelled: slices with manual or accepted labels.
        confidence: of predicted slices, 0 to 1.
        count: how many to suggest.
        amounts: pixels of structure in the slices that are labelled or predicted; None where slices do not belong
            together, as pictures.
    """
    taken = set(labelled)
    weights = _weights(n_slices, amounts) if amounts and confidence else [1.0] * n_slices
    worst = max((1 - value for value in confidence.values()), default=0.0)
    suggestions: list[Suggestion] = []
    while len(suggestions) < count and len(taken) < n_slices:
        scores = {
            index: weights[index] * _score(_distance(index, taken, n_slices), confidence.get(index), worst, n_slices)
            for index in range(n_slices)
            if index not in taken
        }
        index = max(scores, key=lambda candidate: (scores[candidate], -abs(candidate - n_slices // 2), -candidate))
        distance = _distance(index, taken, n_slices) if taken else None
        suggestions.append(
            Suggestion(index, _reason(confidence.get(index), distance, worst), confidence.get(index), distance)
        )
        taken.add(index)
    return suggestions


def _distance(index: int, taken: Collection[int], n_slices: int) -> int:
    return min((abs(index - other) for other in taken), default=n_slices)


def _weights(n_slices: int, amounts: Mapping[int, int]) -> list[float]:
    """By the most structure that a slice or a near one shows, from ``_ANYWHERE`` to 1."""
    most = max(amounts.values())
    if not most:
        return [1.0] * n_slices
    near = [max(amounts.get(i + step, 0) for step in range(-_REACH, _REACH + 1)) for i in range(n_slices)]
    return [_ANYWHERE + (1 - _ANYWHERE) * amount / most for amount in near]


def _score(distance: int, confidence: float | None, worst: float, n_slices: int) -> float:
    if worst <= 0:
        return float(distance)
    # A quarter of the stack away is far: further brings no more news.
    spread = min(1.0, 4 * distance / n_slices)
    doubt = 1.0 if confidence is None else (1 - confidence) / worst
    return doubt * spread


def _reason(confidence: float | None, distance: int | None, worst: float) -> str:
    parts = []
    if confidence is not None:
        parts.append("most uncertain" if worst and (1 - confidence) > 0.8 * worst else "uncertain")
    if distance is not None and distance > 2:
        parts.append("far from labelled slices")
    return ", ".join(parts) or "not labelled yet"
