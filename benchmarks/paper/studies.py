"""Shots and test cases of one draw as one study: what a session works on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case
from benchmarks.multi_study import MultiStudy
from benchmarks.paper.sources import PictureSource, VolumeSource
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.study import MaskFolder, PictureStudy, Study


class Collection(ABC):
    """A study with its truth.

    Attributes:
        study: slices of the shots first, then those of the test cases.
    """

    study: Study

    @abstractmethod
    def labelled(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The slices of the shots with their true labels (H, W)."""

    @abstractmethod
    def tested(self) -> Iterator[tuple[str, range, NDArray[np.uint8]]]:
        """Of each test case: its name, its slices in the study, and its truth, (N, H, W), or (H, W) of a picture."""


class Volumes(Collection):
    """Volumes, in memory.

    Args:
        shots: to learn from; all their slices are labelled.
        test: the cases to score on.
        name: for messages.
    """

    def __init__(self, shots: Sequence[VolumeSource], test: Sequence[Case], name: str) -> None:
        self._shots = [source.read() for source in shots]
        self._test = list(test)
        self._all = MultiStudy([*self._shots, *self._test], "volume", name)
        self.study = self._all

    def labelled(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `Collection`."""
        for case in self._shots:
            for i in self._all.indices(case):
                yield i, self._all.truth(i)

    def tested(self) -> Iterator[tuple[str, range, NDArray[np.uint8]]]:
        """See `Collection`."""
        for case in self._test:
            yield case.name, self._all.indices(case), np.stack(case.truth)


class Pictures(Collection):
    """Pictures, decoded when they are needed: a thousand of them would not fit into memory.

    Args:
        root: the folder that was asked for.
        shots: to learn from.
        test: to score on.
    """

    def __init__(self, root: Path, shots: Sequence[PictureSource], test: Sequence[PictureSource]) -> None:
        self._sources = [*shots, *test]
        self._n_shots = len(shots)
        self.study = PictureStudy(root, [source.picture for source in self._sources])
        # By number: two parts of a set may use one name for different pictures.
        self._masks = MaskFolder({str(i): source.mask for i, source in enumerate(self._sources)})

    def labelled(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `Collection`."""
        for i in range(self._n_shots):
            yield i, self._truth(i)

    def tested(self) -> Iterator[tuple[str, range, NDArray[np.uint8]]]:
        """See `Collection`."""
        for i in range(self._n_shots, len(self._sources)):
            yield self._sources[i].name, range(i, i + 1), self._truth(i)

    def _truth(self, i: int) -> NDArray[np.uint8]:
        mask = self._masks[str(i)] > 0
        if mask.shape != self.study.slice_shape(i):
            height, width = self.study.slice_shape(i)
            msg = (
                f"{self._masks.path(str(i))}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, but its picture is "
                f"{width} x {height}. Download both again."
            )
            raise LabelError(msg)
        return mask.astype(np.uint8)
