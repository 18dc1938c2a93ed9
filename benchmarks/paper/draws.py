"""Which samples are labelled: random draws, and the authors' own where it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.paper.protocols import Protocol
from benchmarks.paper.sources import DataSet, Source, groups_of
from napari_dinoaugseg.errors import SettingsError

MOST_TESTED = 120
"""Pictures that are tested where there is neither a published test list nor a part of the set to test on."""


@dataclass(frozen=True)
class Draw:
    """One choice of shots.

    Attributes:
        name: ``1``, ``2``, … or ``authors``.
        seed: of the choice and of the training.
        shots: the labelled samples.
        test: the samples to score on.
    """

    name: str
    seed: int
    shots: Sequence[Source]
    test: Sequence[Source]


def random_draws(protocol: Protocol, data: DataSet, shots: int, count: int) -> list[Draw]:
    """Draws of ``shots`` samples, patient by patient: the samples of a drawn patient are taken before the next one's.

    Raises:
        SettingsError: there are fewer samples, or none is left to test on.
    """
    most = len(data.pool) if data.test else len(data.pool) - 1
    if shots > most:
        kept = "" if data.test else ", and one is needed to test on"
        msg = (
            f"{shots} {protocol.unit}s to learn from were asked for, but {len(data.pool)} of {protocol.title} lie here"
            f"{kept}. Give --shots {most} or fewer, or more data. {protocol.where()}"
        )
        raise SettingsError(msg)
    draws = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        groups = [groups_of(data.pool)[i] for i in random.permutation(len(groups_of(data.pool)))]
        draws.append(_draw(str(seed + 1), seed, data, groups, shots))
    return draws


def authors_draw(protocol: Protocol, data: DataSet, shots: int) -> tuple[Draw | None, str]:
    """The draw of the authors, and what to say of it."""
    if not protocol.draw:
        return None, "the authors' draw is not public"
    taken = _take(data.pool, protocol.draw, shots)
    here = set(groups_of(data.pool))
    lacking = [group for group in protocol.draw[: _needed(data.pool, protocol.draw, shots)] if group not in here]
    if lacking:
        return None, f"the authors' draw cannot be repeated: {lacking[0]} is not among the training cases here"
    if len(taken) < shots:
        return None, f"the authors' draw is known for up to {len(taken)} {protocol.unit}s only"
    return _draw("authors", 0, data, protocol.draw, shots), ""


def _needed(pool: Sequence[Source], groups: Sequence[str], shots: int) -> int:
    """How many of the groups it takes to have ``shots`` samples; all of them where they are too few."""
    count = 0
    for number, group in enumerate(groups):
        count += max(1, sum(source.group == group for source in pool))
        if count >= shots:
            return number + 1
    return len(groups)


def _take(pool: Sequence[Source], groups: Sequence[str], shots: int) -> list[Source]:
    return [source for group in groups for source in pool if source.group == group][:shots]


def _draw(name: str, seed: int, data: DataSet, groups: Sequence[str], shots: int) -> Draw:
    taken = _take(data.pool, groups, shots)
    test = data.test
    if not test:
        left = [source for source in data.pool if source.group not in {shot.group for shot in taken}]
        chosen = np.random.default_rng(seed).permutation(len(left))[:MOST_TESTED]
        test = [left[i] for i in sorted(chosen)]
    return Draw(name, seed, taken, test)
