"""What a loader hands over: where each labelled sample lies, which are for testing, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.samples import Sample
from napari_dinoaugseg.case.files import listed
from napari_dinoaugseg.errors import CaseError, LabelError


@dataclass(frozen=True)
class VolumeSource:
    """A labelled volume.

    Attributes:
        name: as its files are called.
        group: what is drawn as one: the patient.
        read: gives it as a sample.
    """

    name: str
    group: str
    read: Callable[[], Sample]


@dataclass(frozen=True)
class PictureSource:
    """A picture and the file with its mask; its name is the stem of the picture."""

    picture: Path
    mask: Path

    @property
    def name(self) -> str:
        """The stem."""
        return self.picture.stem

    @property
    def group(self) -> str:
        """The picture itself: the sets do not say whose it is."""
        return self.name


Source = VolumeSource | PictureSource


@dataclass(frozen=True)
class DataSet:
    """The samples of a data set as they lie in a folder.

    Attributes:
        pool: to draw shots from, in natural order.
        test: to score on; empty where no split is published: then it is drawn from what a draw leaves.
        layout: which of the public layouts was found, and what was done to it.
        split: how the test samples were chosen.
        papers_split: whether that is how the paper chose them.
        notices: sentences for the person: samples that were left out.
        window: of intensities, as in `Settings`.
    """

    pool: Sequence[Source]
    test: Sequence[Source]
    layout: str
    split: str
    papers_split: bool
    notices: list[str] = field(default_factory=list)
    window: str = "auto"


def groups_of(sources: Iterable[Source]) -> list[str]:
    """Each group once, in order."""
    return list(dict.fromkeys(source.group for source in sources))


def left_out(names: Sequence[str], lack: str) -> list[str]:
    """A notice of samples that lack something; nothing when every sample is whole."""
    return [f"left out, for lack of {lack}: {listed(list(names))}"] if names else []


def make_sample(name: str, images: NDArray[Any], labels: NDArray[Any], highest: int) -> Sample:
    """A volume of the benchmark.

    Args:
        name: of the volume.
        images: (N, H, W) grey values.
        labels: whole numbers of the same shape.
        highest: label number of the data set.

    Raises:
        CaseError: no volume, or labels of another shape.
        LabelError: a label that the data set does not have.
    """
    if images.ndim != 3 or 0 in images.shape or images.shape != labels.shape:
        msg = (
            f"{name}: image and labels must be volumes of one shape, not {_times(images.shape)} and "
            f"{_times(labels.shape)}. Download both files again."
        )
        raise CaseError(msg)
    check_labels(name, labels, highest)
    if images.dtype == np.float64:  # a scaled NIfTI file; a set of volumes is held in memory
        images = images.astype(np.float32)
    return Sample(name, tuple(images), tuple(labels.astype(np.uint8)), None)


def check_labels(name: str, labels: NDArray[Any], highest: int) -> None:
    """Raise LabelError when there is another value than 0 to ``highest``."""
    strange = sorted({float(value) for value in np.unique(labels)} - set(range(highest + 1)))
    if strange:
        msg = f"{name}: it has the label {strange[0]:g}, but this data set has 0 to {highest}. Use the public files."
        raise LabelError(msg)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
