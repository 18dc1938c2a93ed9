"""Shots and test samples of one draw as one case: what a session works on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.multi_case import MultiCase
from benchmarks.paper.draws import Draw
from benchmarks.paper.sources import DataSet, PictureSource, Source, VolumeSource
from benchmarks.samples import Sample
from napari_dinoaugseg.case import Case, PictureCase
from napari_dinoaugseg.errors import LabelError

_CUT = 125


class Collection(ABC):
    """A case with its truth: the slices of the shots first, then those of the test samples."""

    @property
    @abstractmethod
    def case(self) -> Case:
        """What a session works on."""

    @abstractmethod
    def labelled(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The slices of the shots with their true labels (H, W)."""

    @abstractmethod
    def tested(self) -> Iterator[tuple[str, range, NDArray[np.uint8]]]:
        """Of each test sample: its name, its slices in the case, and its truth, (N, H, W), or (H, W) of a picture."""


class Volumes(Collection):
    """Volumes, in memory.

    Args:
        shots: to learn from; all their slices are labelled.
        test: the samples to score on.
        name: for messages.
        raw: hand out slices with the values of their files, to be scaled one by one.
    """

    def __init__(self, shots: Sequence[VolumeSource], test: Sequence[Sample], name: str, *, raw: bool = False) -> None:
        self._shots = [source.read() for source in shots]
        self._test = list(test)
        self._case = MultiCase([*self._shots, *self._test], "volume", name, raw=raw)

    @property
    def case(self) -> MultiCase:
        """See `Collection`."""
        return self._case

    def labelled(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `Collection`."""
        for sample in self._shots:
            for i in self._case.indices(sample):
                yield i, self._case.truth(i)

    def tested(self) -> Iterator[tuple[str, range, NDArray[np.uint8]]]:
        """See `Collection`."""
        for sample in self._test:
            yield sample.name, self._case.indices(sample), np.stack(sample.truth)


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
        self._case = PictureCase(root, [source.picture for source in self._sources])

    @property
    def case(self) -> PictureCase:
        """See `Collection`."""
        return self._case

    def labelled(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `Collection`."""
        for i in range(self._n_shots):
            yield i, self._truth(i)

    def tested(self) -> Iterator[tuple[str, range, NDArray[np.uint8]]]:
        """See `Collection`."""
        for i in range(self._n_shots, len(self._sources)):
            yield self._sources[i].name, range(i, i + 1), self._truth(i)

    def _truth(self, i: int) -> NDArray[np.uint8]:
        path = self._sources[i].mask
        mask = _brighter(path)
        if mask.shape != self.case.slice_shape(i):
            height, width = self.case.slice_shape(i)
            msg = (
                f"{path}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, but its picture is "
                f"{width} x {height}. Download both again."
            )
            raise LabelError(msg)
        return mask.astype(np.uint8)


def _brighter(path: Path) -> NDArray[np.bool_]:
    """The mask in a file, (H, W): what is brighter than 125, as the authors cut theirs. Raises LabelError."""
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError) as error:  # the last: Pillow's word for a broken PNG
        msg = f"{path}: the mask cannot be read ({error}). Download it again."
        raise LabelError(msg) from error
    return grey > (_CUT if grey.max() > 1 else 0)  # a copy may hold 0 and 1


class VolumeCases:
    """Makes the case of each draw; test volumes are read once for all of them.

    Args:
        data: the samples.
        raw: as of `Volumes`.
    """

    def __init__(self, data: DataSet, *, raw: bool = False) -> None:
        self._raw = raw
        self._test_sources = _volumes(data.test)
        self._test: list[Sample] | None = None

    def check(self, draws: Sequence[Draw]) -> None:
        """Read every file once, so that a damaged one is known before anybody waits. Raises as `of` does."""
        for source in {source.name: source for draw in draws for source in _volumes(draw.shots)}.values():
            source.read()
        self._read_test()

    def of(self, draw: Draw) -> Volumes:
        """The case of a draw. Raises CaseError, LabelError: a file is damaged, or not what it should be."""
        return Volumes(_volumes(draw.shots), self._read_test(), f"draw {draw.name}", raw=self._raw)

    def _read_test(self) -> list[Sample]:
        if self._test is None:
            self._test = [source.read() for source in self._test_sources]
        return self._test


class PictureCases:
    """Makes the case of each draw.

    Args:
        data: the samples.
        root: the folder that was asked for.
    """

    def __init__(self, data: DataSet, root: Path) -> None:
        self._data, self._root = data, root

    def check(self, draws: Sequence[Draw]) -> None:
        """Decode every file once, so that a damaged one is known before anybody waits. Raises as `of` does."""
        every = {source.picture: source for draw in draws for source in _pictures([*draw.shots, *draw.test])}
        for _ in Pictures(self._root, [], list(every.values())).tested():
            pass  # to have come to the end is all that is wanted

    def of(self, draw: Draw) -> Pictures:
        """The case of a draw. Raises CaseError, LabelError: a file is damaged, or not what it should be."""
        return Pictures(self._root, _pictures(draw.shots), _pictures(draw.test))


def _volumes(sources: Iterable[Source]) -> list[VolumeSource]:
    return [source for source in sources if isinstance(source, VolumeSource)]


def _pictures(sources: Iterable[Source]) -> list[PictureSource]:
    return [source for source in sources if isinstance(source, PictureSource)]
