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


def suggest(
    n_slices: int, labelled: Collection[int], confidence: Mapping[int, float], count: int = 1
) -> list[Suggestion]:
    """The ``count`` slices to label next, best first; fewer when fewer are unlabelled.

    A slice scores by its uncertainty (1 - confidence, relative to the least certain slice) times a factor that grows
    with the distance to the nearest labelled or already suggested slice, so that the choice spreads over the volume:
    neighbours of a labelled slice look much like it. Without predictions the distance alone decides.

    Args:
        n_slices: of the study.
        labelled: slices with manual or accepted labels.
        confidence: of predicted slices, 0 to 1.
        count: how many to suggest.
    """
    taken = set(labelled)
    worst = max((1 - value for value in confidence.values()), default=0.0)
    suggestions: list[Suggestion] = []
    while len(suggestions) < count and len(taken) < n_slices:
        scores = {
            index: _score(_distance(index, taken, n_slices), confidence.get(index), worst, n_slices)
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
