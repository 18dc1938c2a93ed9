"""How many pixels of each class the slices of a label book hold, and the volumes that follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.session.labels import LabelBook, Labels, Status

EVERY_STATUS = (Status.MANUAL, Status.ACCEPTED, Status.PREDICTED)
_LABELLED = (Status.MANUAL, Status.ACCEPTED)

_Layers = tuple[Labels | None, ...]


class PixelCounts:
    """Counts pixels of each class; a slice whose labels are those of the last time is not counted again.

    The arrays of a label book never change, so the same array means the same labels.
    """

    def __init__(self) -> None:
        self._counted: dict[tuple[int, tuple[Status, ...]], tuple[_Layers, Mapping[int, int]]] = {}

    def of_slice(self, book: LabelBook, index: int, include: Iterable[Status] = EVERY_STATUS) -> Mapping[int, int]:
        """Pixels by class number in :meth:`LabelBook.result` of a slice; classes that it does not hold are left out."""
        wanted = tuple(include)
        by_person = book.of_slice(index)
        layers = {
            Status.MANUAL: by_person.manual,
            Status.ACCEPTED: by_person.accepted,
            Status.PREDICTED: book.predicted(index),
        }
        used = tuple(layers[status] for status in EVERY_STATUS if status in wanted)
        before, counts = self._counted.get((index, wanted), ((), {}))
        if len(before) != len(used) or any(one is not other for one, other in zip(before, used, strict=True)):
            counts = _count(book.result(index, wanted)) if any(labels is not None for labels in used) else {}
            self._counted[index, wanted] = (used, counts)
        return counts

    def total(self, book: LabelBook, include: Iterable[Status] = EVERY_STATUS) -> dict[int, int]:
        """Pixels by class number in the mask that an export writes."""
        wanted, total = tuple(include), dict[int, int]()
        for index in range(book.n_slices):
            for number, count in self.of_slice(book, index, wanted).items():
                total[number] = total.get(number, 0) + count
        return total

    def labelled_slices(self, book: LabelBook) -> dict[int, int]:
        """On how many labelled slices each class is, by class number."""
        found: dict[int, int] = {}
        for index in book.labelled:
            for number in self.of_slice(book, index):
                found[number] = found.get(number, 0) + 1
        return found

    def foreground(self, book: LabelBook) -> dict[int, int]:
        """Pixels of any class by slice: as labelled, else as predicted; slices with neither are left out."""
        labelled = set(book.labelled)
        return {
            index: sum(self.of_slice(book, index, _LABELLED if index in labelled else (Status.PREDICTED,)).values())
            for index in range(book.n_slices)
            if index in labelled or book.predicted(index) is not None
        }


def volumes_ml(case: Case, pixels: Mapping[int, int]) -> dict[int, float] | None:
    """Volume of each class in millilitres, by number; None where the voxel size is unknown (pictures)."""
    spacing, distance = case.slice_spacing(0), case.slice_distance
    if spacing is None or distance is None:
        return None
    voxel = spacing[0] * spacing[1] * distance / 1000
    return {number: count * voxel for number, count in pixels.items()}


def _count(labels: Labels) -> dict[int, int]:
    counts = np.bincount(labels.reshape(-1))
    return {number: int(counts[number]) for number in np.flatnonzero(counts).tolist() if number != 0}
