"""Shots and test samples of one draw as cases of the program, with their truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.paper.draws import Draw
from benchmarks.paper.sources import DataSet, PictureSource, Source, VolumeSource
from benchmarks.samples import Sample
from napari_dinoaugseg.case import Case, PictureCase, case_from_array
from napari_dinoaugseg.errors import LabelError

_CUT = 125


@dataclass(frozen=True)
class ScoredSample:
    """A test sample.

    Attributes:
        name: of the sample.
        slices: its slice numbers in the case.
        truth: (N, H, W), or (H, W) of a picture.
    """

    name: str
    slices: range
    truth: NDArray[np.uint8]


class Collection(ABC):
    """The shots and test samples of a draw."""

    @abstractmethod
    def labelled(self) -> Sequence[tuple[Case, Mapping[int, NDArray[np.uint8]]]]:
        """Each case with shots, and the true labels (H, W) of its labelled slices by number."""

    @abstractmethod
    def tested(self) -> Iterator[tuple[Case, Iterator[ScoredSample]]]:
        """Each case with test samples, and these in the order of its slices."""


class Volumes(Collection):
    """Volumes in memory, each a case of its own; all slices of a shot are labelled.

    Args:
        shots: to learn from.
        test: the samples to score on.
    """

    def __init__(self, shots: Sequence[VolumeSource], test: Sequence[Sample]) -> None:
        self._shots = [source.read() for source in shots]
        self._test = list(test)

    def labelled(self) -> Sequence[tuple[Case, Mapping[int, NDArray[np.uint8]]]]:
        """See `Collection`."""
        return [(_case_of(sample), dict(enumerate(sample.truth))) for sample in self._shots]

    def tested(self) -> Iterator[tuple[Case, Iterator[ScoredSample]]]:
        """See `Collection`."""
        for sample in self._test:
            yield _case_of(sample), iter([ScoredSample(sample.name, range(sample.n_slices), np.stack(sample.truth))])


def _case_of(sample: Sample) -> Case:
    return case_from_array(np.stack(sample.images), name=sample.name)


class Pictures(Collection):
    """Pictures, all in one case, decoded when they are needed: a thousand of them would not fit into memory.

    Args:
        root: the folder that was asked for.
        shots: to learn from.
        test: to score on.
    """

    def __init__(self, root: Path, shots: Sequence[PictureSource], test: Sequence[PictureSource]) -> None:
        self._sources = [*shots, *test]
        self._n_shots = len(shots)
        self.case = PictureCase(root, [source.picture for source in self._sources])

    def labelled(self) -> Sequence[tuple[Case, Mapping[int, NDArray[np.uint8]]]]:
        """See `Collection`."""
        return [(self.case, {i: self._truth(i) for i in range(self._n_shots)})]

    def tested(self) -> Iterator[tuple[Case, Iterator[ScoredSample]]]:
        """See `Collection`."""
        numbers = range(self._n_shots, len(self._sources))
        yield self.case, (ScoredSample(self._sources[i].name, range(i, i + 1), self._truth(i)) for i in numbers)

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
    """Makes the cases of each draw; test volumes are read once for all of them.

    Args:
        data: the samples.
    """

    def __init__(self, data: DataSet) -> None:
        self._test_sources = _volumes(data.test)
        self._test: list[Sample] | None = None

    def check(self, draws: Sequence[Draw]) -> None:
        """Read every file once, so that a damaged one is known before anybody waits. Raises as `of` does."""
        for source in {source.name: source for draw in draws for source in _volumes(draw.shots)}.values():
            source.read()
        self._read_test()

    def of(self, draw: Draw) -> Volumes:
        """The cases of a draw. Raises CaseError, LabelError: a file is damaged, or not what it should be."""
        return Volumes(_volumes(draw.shots), self._read_test())

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
        for _, samples in Pictures(self._root, [], list(every.values())).tested():
            for _ in samples:
                pass  # to have come to the end is all that is wanted

    def of(self, draw: Draw) -> Pictures:
        """The case of a draw. Raises CaseError, LabelError: a file is damaged, or not what it should be."""
        return Pictures(self._root, _pictures(draw.shots), _pictures(draw.test))


def _volumes(sources: Iterable[Source]) -> list[VolumeSource]:
    return [source for source in sources if isinstance(source, VolumeSource)]


def _pictures(sources: Iterable[Source]) -> list[PictureSource]:
    return [source for source in sources if isinstance(source, PictureSource)]
