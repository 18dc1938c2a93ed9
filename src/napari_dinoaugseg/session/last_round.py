"""The predictions of a case before the last round changed them, to be compared with those of today."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from napari_dinoaugseg.session.labels import Labels


@dataclass(frozen=True)
class _Packed:
    """A compressed label image: some 2 kB for a mask of 512 × 512 pixels, so that no second volume is kept."""

    content: bytes
    shape: tuple[int, int]
    dtype: str

    @classmethod
    def of(cls, labels: Labels) -> _Packed:
        narrow = labels.astype(np.uint8) if labels.max(initial=0) < 256 else labels
        height, width = labels.shape
        return cls(zlib.compress(np.ascontiguousarray(narrow).tobytes(), 1), (height, width), narrow.dtype.str)

    def unpacked(self) -> Labels:
        values = np.frombuffer(zlib.decompress(self.content), self.dtype).reshape(self.shape)
        return values.astype(np.uint16)


class LastRound:
    """For each slice the prediction before the current one. In memory only, and compressed.

    A round is one prediction of the case, or what Live makes of one change of the labels. Within a round a slice may be
    predicted several times; what counts is the prediction before the first of them.
    """

    def __init__(self) -> None:
        self._before: dict[int, _Packed] = {}
        self._replaced: set[int] = set()  # slices that were predicted in this round

    def begin(self) -> None:
        """Begin a round."""
        self._replaced.clear()

    def replace(self, index: int, labels: Labels | None) -> None:
        """Keep the prediction of a slice, (H, W), that a new one is about to replace; None if there is none."""
        if index in self._replaced:
            return
        self._replaced.add(index)
        if labels is not None:
            self._before[index] = _Packed.of(labels)

    def labels(self, index: int, numbers: Collection[int]) -> Labels | None:
        """The prediction of a slice before the current one, (H, W); None if there is none.

        Args:
            index: the slice.
            numbers: the classes; others, removed since, are background.
        """
        packed = self._before.get(index)
        if packed is None:
            return None
        labels = packed.unpacked()
        labels[~np.isin(labels, list(numbers))] = 0
        return labels

    @property
    def nbytes(self) -> int:
        """The memory that the predictions take, in bytes."""
        return sum(len(packed.content) for packed in self._before.values())
