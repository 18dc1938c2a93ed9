"""How much structure each slice shows: pixels of any class, counted once for each array of the label book."""

from __future__ import annotations

import numpy as np

from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, Labels


class Structure:
    """Counts the pixels that are not background, in what was said of a slice or else predicted for it."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Labels, int]] = {}

    def amounts(self, book: LabelBook) -> dict[int, int]:
        """Pixels of structure by slice; slices of which nothing is known are left out."""
        labelled = set(book.labelled)
        amounts = {}
        for index in range(book.n_slices):
            labels = book.truth(index) if index in labelled else book.predicted(index)
            if labels is None:
                continue
            seen = self._seen.get(index)
            if seen is None or seen[0] is not labels:  # the book's arrays never change
                seen = self._seen[index] = labels, int(np.count_nonzero((labels != 0) & (labels != UNKNOWN)))
            amounts[index] = seen[1]
        return amounts
