"""Pixels and volume of each class in a label book."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.session.labels import EVERYTHING, LabelBook, Labels, Status

_LABELLED = (Status.MANUAL, Status.ACCEPTED)

_Layers = tuple[Labels | None, ...]


class PixelCounts:
    """Counts the pixels of each class; unchanged slices are not counted again.

    The arrays of a label book are immutable, so the same array means the same labels.
    """

    def __init__(self) -> None:
        self._counted: dict[tuple[int, tuple[Status, ...]], tuple[_Layers, Mapping[int, int]]] = {}

    def of_slice(self, book: LabelBook, index: int, include: Iterable[Status] = EVERYTHING) -> Mapping[int, int]:
        """Pixels by class number in :meth:`LabelBook.result` of a slice, without absent classes."""
        wanted = tuple(include)
        by_person = book.of_slice(index)
        layers = {
            Status.MANUAL: by_person.manual,
            Status.ACCEPTED: by_person.accepted,
            Status.PREDICTED: book.predicted(index),
        }
        used = tuple(layers[status] for status in EVERYTHING if status in wanted)
        before, counts = self._counted.get((index, wanted), ((), {}))
        if len(before) != len(used) or any(one is not other for one, other in zip(before, used, strict=True)):
            counts = _count(book.result(index, wanted)) if any(labels is not None for labels in used) else {}
            self._counted[index, wanted] = (used, counts)
        return counts

    def total(self, book: LabelBook, include: Iterable[Status] = EVERYTHING) -> dict[int, int]:
        """Pixels by class number in the exported mask."""
        wanted, total = tuple(include), dict[int, int]()
        for index in range(book.n_slices):
            for number, count in self.of_slice(book, index, wanted).items():
                total[number] = total.get(number, 0) + count
        return total

    def labelled_slices(self, book: LabelBook) -> dict[int, int]:
        """The number of labelled slices with each class, by class number."""
        found: dict[int, int] = {}
        for index in book.labelled:
            for number in self.of_slice(book, index):
                found[number] = found.get(number, 0) + 1
        return found

    def foreground(self, book: LabelBook) -> dict[int, int]:
        """Pixels of any class by slice: labelled, else predicted; slices with neither are left out."""
        labelled = set(book.labelled)
        return {
            index: sum(self.of_slice(book, index, _LABELLED if index in labelled else (Status.PREDICTED,)).values())
            for index in range(book.n_slices)
            if index in labelled or book.predicted(index) is not None
        }


def volumes_ml(case: Case, pixels: Mapping[int, int]) -> dict[int, float] | None:
    """Volume of each class in millilitres, by number; None if the voxel size is unknown (pictures)."""
    spacing, distance = case.slice_spacing(0), case.slice_distance
    if spacing is None or distance is None:
        return None
    voxel = spacing[0] * spacing[1] * distance / 1000
    return {number: count * voxel for number, count in pixels.items()}


_FEW = 16
"""Up to this number it is faster to count the pixels of each class than those of all numbers at once."""


def _count(labels: Labels) -> dict[int, int]:
    highest = int(labels.max(initial=0))
    if highest <= _FEW:
        found = {number: int(np.count_nonzero(labels == number)) for number in range(1, highest + 1)}
        return {number: count for number, count in found.items() if count}
    counts = np.bincount(labels.reshape(-1))
    return {number: int(counts[number]) for number in np.flatnonzero(counts).tolist() if number != 0}
