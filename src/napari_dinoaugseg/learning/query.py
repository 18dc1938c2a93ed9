"""The query strategy: which slice to label next, by the uncertainty of the model and by what its label informs about:
the slices around it, or pictures like it; in a project also in which case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

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

_ASIDE = 2
"""Slices: further from the nearest labelled one it is far."""

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
    descriptors: Mapping[int, NDArray[np.float32]] = MappingProxyType({}),
) -> list[Suggestion]:
    """The ``count`` slices to label next, best first; fewer if fewer are unlabelled.

    In a volume a label also informs about the slices around it, less with distance. The next slice is the one that
    informs most: the sum, over the slices around it, of the information not given by a labelled or already suggested
    slice, times the root of that slice's uncertainty (1 - confidence), times the structure there. The root, because
    uncertainties differ more than errors; the structure, because a few pixels at the end of an organ matter little.
    Before the first prediction all slices are equally uncertain and may hold structure.

    A picture informs about those that are like it, by their descriptors: the first to label is the one most like all
    others, the next one is unlike it and like many that are left (facility location; figures in
    docs/decisions/query-strategy.md). Until all have descriptors, pictures are ranked by their own uncertainty and
    their distance to the nearest labelled or suggested one.

    Args:
        n_slices: of the case.
        labelled: slices with manual or accepted labels.
        confidence: of predicted slices, 0 to 1.
        count: how many to suggest.
        amounts: pixels of structure in labelled and predicted slices; None for pictures, which are independent.
        descriptors: (C,) of each picture, see `FeatureStore`; unused unless all are there.
    """
    taken = set(labelled)
    doubt = np.array([max(0.0, 1 - confidence.get(index, 0.0)) for index in range(n_slices)])  # rounding may exceed 1
    worst = max((1 - value for value in confidence.values()), default=0.0)
    known = amounts if amounts and confidence else {}  # before a prediction structure may be anywhere
    values = _standardised(descriptors) if amounts is None and len(descriptors) == n_slices else None
    suggestions: list[Suggestion] = []
    while len(suggestions) < count and len(taken) < n_slices:
        distances = _distances(n_slices, taken)
        is_unlike = distances > _ASIDE
        if values is not None:
            scores, nearest = _like_it(doubt, values, taken)
            is_unlike = nearest < _UNLIKE
        elif amounts is None:
            scores = _alone(doubt, worst, distances)
        else:
            scores = _around(doubt, known, distances)
        # Among equals the furthest, then the most central.
        index = max(
            (candidate for candidate in range(n_slices) if candidate not in taken),
            key=lambda i: (scores[i], distances[i], -abs(i - n_slices // 2), -i),
        )
        distance = int(distances[index]) if taken else None
        far = None if not taken or not is_unlike[index] else _FAR if values is None else _NEW
        suggestions.append(
            Suggestion(index, _reason(confidence.get(index), far, worst), confidence.get(index), distance)
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


_MOST = 300
"""Pictures that are compared with each candidate; of more, every second, third … stands for those beside it."""

_UNLIKE = 0.25
"""Likeness below which pictures are unlike."""


def _standardised(descriptors: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The descriptors of all pictures, (N, C): each channel counts alike, and the mean squared distance is 2."""
    values = np.stack([descriptors[index] for index in range(len(descriptors))])
    varies = values.std(axis=0) > 0
    values = (values - values.mean(axis=0))[:, varies] / values.std(axis=0)[varies]
    return np.asarray(values / max(1, values.shape[1]) ** 0.5)


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """How like pictures (N, C) are to others (M, C): (N, M), 1 for the same, 0 at the mean distance and beyond."""
    squared = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.asarray(np.clip(1 - squared / 2, 0, 1))


def _like_it(
    doubt: NDArray[np.float64], values: NDArray[np.float32], taken: Collection[int]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The score of each picture, and how like it the nearest of ``taken`` is.

    The score is the information that a label of each adds about all that are like it.
    """
    every = slice(None, None, 1 + len(values) // _MOST)
    nearest = _likeness(values, values[sorted(taken)]).max(axis=1, initial=0)
    informs = _likeness(values, values[every])
    return np.maximum(0, informs - nearest[every]) @ np.sqrt(doubt[every]), nearest


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


_FAR, _NEW = "far from labelled slices", "unlike the labelled pictures"


def _reason(confidence: float | None, far: str | None, worst: float) -> str:
    """In a few words; ``far``: how it differs from what is labelled."""
    parts = []
    doubt = 0.0 if confidence is None else 1 - confidence
    if doubt > 0.5 * worst:
        parts.append("most uncertain" if doubt > 0.8 * worst else "uncertain")
    if far is not None:
        parts.append(far)
    return ", ".join(parts) or "not labelled yet"


# --- projects -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaseFacts:
    """What the query strategy knows of a case of a project.

    Attributes:
        number: of the case.
        n_slices: of the case.
        labelled: slices with manual or accepted labels.
        confidence: mean over its predictions, 0 to 1; None without one.
        is_open: whether slices of it may be suggested.
    """

    number: int
    n_slices: int
    labelled: Collection[int]
    confidence: float | None
    is_open: bool = True


@dataclass(frozen=True)
class ProjectSuggestion:
    """A slice of a case to label next.

    Attributes:
        case: its number.
        index: slice number.
        reason: in a few words, for the person.
        confidence: of the case, 0 to 1; None without a prediction.
    """

    case: int
    index: int
    reason: str
    confidence: float | None


_NEAR = 0.1
"""Distance, as a share of the length of a case, over which the influence of a labelled slice falls to 1/e."""

_OWN = 3.0
"""Weight of a labelled slice of the same case, beside 1 for the same position in another case."""


Within = Callable[[CaseFacts, Collection[int]], Suggestion | None]
"""The slice of a case to label next by its own masks, beside those that are labelled; None if it has no masks."""


def suggest_in_project(
    cases: Sequence[CaseFacts], count: int = 1, within: Within = lambda *_: None, first: int | None = None
) -> list[ProjectSuggestion]:
    """The ``count`` slices to label next over many cases, best first.

    A label in a new case informs more than another one in a case that has some, so the case is one with the fewest
    labelled slices, and among those the one that the model is least sure of. In a new case the slice lies where the
    project has the fewest labels so far, as a position from the first slice (0) to the last (1): positions spread from
    end to end over the cases, empty slices beyond the ends of a structure included: a model that has only seen the
    middle of cases paints structures where there are none. A further slice of a case is the one that its masks need
    most.

    A case that is to be finished comes first: a correction repairs most in its own case.

    Args:
        cases: all of the project; labelled slices of those that are not open count as well.
        count: how many to suggest.
        within: suggests a further slice of a case; without masks the position decides there as well.
        first: number of the case to be finished; its masks decide from its first slice on.
    """
    labelled = {case.number: set(case.labelled) for case in cases}
    suggestions: list[ProjectSuggestion] = []
    while len(suggestions) < count:
        open_cases = [case for case in cases if case.is_open and len(labelled[case.number]) < case.n_slices]
        if not open_cases:
            break
        # Cases without prediction come first: nothing is known of them.
        case = min(
            open_cases,
            key=lambda c: (c.number != first, len(labelled[c.number]), -1.0 if c.confidence is None else c.confidence),
        )
        here, is_first = labelled[case.number], case.number == first
        found = within(case, here) if here or is_first else None
        index = _sparsest(case, cases, labelled) if found is None else found.index
        why = _why(case, here, found, is_first=is_first)
        suggestions.append(ProjectSuggestion(case.number, index, why, case.confidence))
        here.add(index)
    return suggestions


def _sparsest(case: CaseFacts, cases: Sequence[CaseFacts], labelled: Mapping[int, Collection[int]]) -> int:
    """The slice of a case at the position with the fewest labels around it."""
    places = [
        (_position(i, c.n_slices), _OWN if c.number == case.number else 1.0)
        for c in cases
        for i in sorted(labelled[c.number])
    ]
    here = np.array([_position(i, case.n_slices) for i in range(case.n_slices)])
    around = np.zeros(case.n_slices)
    for place, weight in places:
        # Reflected at both ends, where otherwise too few labels would seem to lie.
        around += weight * sum(np.exp(-np.abs(here - image) / _NEAR) for image in (place, -place, 2 - place))
    free = [i for i in range(case.n_slices) if i not in labelled[case.number]]
    return min(free, key=lambda i: (round(float(around[i]), 9), abs(here[i] - 0.5), i))


def _position(index: int, n_slices: int) -> float:
    """From 0 at the first slice to 1 at the last."""
    return index / (n_slices - 1) if n_slices > 1 else 0.5


def _why(case: CaseFacts, labelled: Collection[int], found: Suggestion | None, *, is_first: bool) -> str:
    named = "a case with few labels" if labelled else "a case without labels"
    parts = ["this case is not done" if is_first else named]
    if case.confidence is not None:
        parts.append(f"the model is {case.confidence:.0%} sure of it")
    if found is not None:
        parts.append(f"this slice: {found.reason}")
    return ", ".join(parts)
