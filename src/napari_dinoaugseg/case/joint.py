"""Several cases as one series of slices, so that one training learns from all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import Slices
from napari_dinoaugseg.case.sequences import in_words, same_sequences
from napari_dinoaugseg.errors import CaseError


class JointSlices(Slices):
    """The slices of several cases, numbered one after the other.

    Each case keeps its own intensity window and its own neighbours: it is one of the `parts`.

    Args:
        cases: at least one, all volumes or all pictures.

    Raises:
        CaseError: volumes and pictures together, or cases of other sequences.
    """

    def __init__(self, cases: Sequence[Slices]) -> None:
        kinds: set[Literal["volume", "pictures"]] = {case.kind for case in cases}
        if len(kinds) > 1:
            msg = "Volumes and pictures cannot be learned together. Keep them in two projects."
            raise CaseError(msg)
        self.kind = kinds.pop()
        first = tuple(cases[0].sequences)
        for case in cases:
            if not same_sequences(tuple(case.sequences), first):
                wanted, there = in_words(first), in_words(tuple(case.sequences))
                msg = f"A case of {there} cannot be learned together with one of {wanted}. Keep them in two projects."
                raise CaseError(msg)
        self.is_colour = all(case.is_colour for case in cases)
        modalities = {case.modality for case in cases}
        self.modality = modalities.pop() if len(modalities) == 1 else None
        starts = list(itertools.accumulate((case.n_slices for case in cases), initial=0))
        self.n_slices = starts[-1]
        self._parts = [
            (range(start, stop), case) for (start, stop), case in zip(itertools.pairwise(starts), cases, strict=True)
        ]
        self._starts = np.array(starts[:-1])

    @property
    def parts(self) -> list[tuple[range, Slices]]:
        """Each case with its slice numbers here."""
        return self._parts

    @cached_property
    def sequences(self) -> Mapping[str, Slices]:
        """One sequence of every case, by its name in the first; see `Slices.sequences`."""
        names = tuple(self._parts[0][1].sequences)
        if len(names) == 1:
            return {"": self}
        every = [list(case.sequences.values()) for _, case in self._parts]
        return {name: JointSlices(each) for name, each in zip(names, zip(*every, strict=True), strict=True)}

    def slice(self, i: int) -> NDArray[Any]:
        """Return slice `i` as its case does."""
        case, own = self._place(i)
        return case.slice(own)

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width."""
        case, own = self._place(i)
        return case.slice_shape(own)

    def slice_fingerprint(self, i: int) -> str:
        """Return the hash that its case gives: a slice has the same features here and there."""
        case, own = self._place(i)
        return case.slice_fingerprint(own)

    @property
    def is_byte(self) -> bool:
        """Whether every case has 8-bit values."""
        return all(case.is_byte for _, case in self._parts)

    def intensity_range(self) -> tuple[float, float]:
        """Return the lowest and highest value of the ranges of all cases."""
        ranges = [case.intensity_range() for _, case in self._parts]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def neighbours(self, i: int, distance: int = 1) -> tuple[int, int]:
        """Return the neighbours of slice `i` in its own case."""
        numbers, case = self._parts[self._part(i)]
        before, after = case.neighbours(i - numbers.start, distance)
        return numbers.start + before, numbers.start + after

    def _part(self, i: int) -> int:
        return int(np.searchsorted(self._starts, i, side="right")) - 1

    def _place(self, i: int) -> tuple[Slices, int]:
        numbers, case = self._parts[self._part(i)]
        return case, i - numbers.start
