"""How much of each class there is in the current mask, kept up to date slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_dinoaugseg.session.labels import UNKNOWN
from napari_dinoaugseg.session.session import Session


class Amounts:
    """Counts pixels of each class; slices whose labels are the same as last time are not counted again."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._seen: dict[int, tuple[tuple[Any, ...], dict[int, int]]] = {}

    def pixels(self, session: Session) -> dict[int, int]:
        """Pixels of each class in the mask that an export would write now."""
        self._refresh(session)
        total: dict[int, int] = {}
        for _, counts in self._seen.values():
            for number, count in counts.items():
                total[number] = total.get(number, 0) + count
        return total

    def millilitres(self, session: Session) -> dict[int, float] | None:
        """Volume of each class; None where the voxel size is unknown."""
        study = session.study
        pixel, between = study.slice_spacing(0), study.slice_distance
        if pixel is None or between is None:
            return None
        voxel = pixel[0] * pixel[1] * between / 1000
        return {number: count * voxel for number, count in self.pixels(session).items()}

    def labelled_slices(self, session: Session) -> dict[int, int]:
        """On how many labelled slices each class is."""
        book = session.labels
        self._refresh(session)
        found: dict[int, int] = {}
        for index in book.labelled:
            for number in self._seen[index][1] if index in self._seen else ():
                found[number] = found.get(number, 0) + 1
        return found

    def _refresh(self, session: Session) -> None:
        if session is not self._session:
            self._session, self._seen = session, {}
        book = session.labels
        for index in range(session.study.n_slices):
            key: tuple[Any, ...]
            said, predicted = book.of_slice(index), book.predicted(index)
            # What decides the result; accepting a prediction changes nothing about it.
            if said.manual is not None:
                key = (said.manual, predicted)
            else:
                key = (said.accepted if said.accepted is not None else predicted, None)
            if key[0] is None:
                self._seen.pop(index, None)
                continue
            seen = self._seen.get(index)
            # The book's arrays never change, so the same objects mean the same labels.
            if seen is None or any(a is not b for a, b in zip(seen[0], key, strict=True)):
                counts = np.bincount(book.result(index).ravel())
                numbers = np.flatnonzero(counts)
                self._seen[index] = (key, {int(n): int(counts[n]) for n in numbers if n not in (0, UNKNOWN)})
