"""Many samples as one case in memory, so that one feature store, one training and one prediction see all of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.samples import Kind, Sample
from napari_dinoaugseg.case import Case, Plane, Window
from napari_dinoaugseg.case.case import ConfidenceOf, MaskOf
from napari_dinoaugseg.errors import LabelError, OutputError
from napari_dinoaugseg.learning.augmentation import neighbour_distance
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.train import Example
from napari_dinoaugseg.model.encoder import Encoder

UNIT = Window(0.0, 1.0)
"""The window of the whole: each sample went through its own before."""

_CACHE_LIMIT = 60 * 2**30  # bytes; a benchmark goes on where it was stopped, so that nothing should be evicted


class MultiCase(Case):
    """The slices of samples, one behind the other.

    Grey slices are 0 to 1 by their sample's own window, colour is as it was. Nothing can be written.

    Args:
        samples: at least one.
        kind: of all of them.
        name: for messages.
        raw: leave grey values as they are, for slices that are scaled one by one.
    """

    def __init__(self, samples: Sequence[Sample], kind: Kind, name: str, *, raw: bool = False) -> None:
        self.samples = tuple(samples)
        self._raw = raw
        self.kind = kind  # type: ignore[misc]  # of an instance here, of a class in the program
        self.name, self.path, self.plane = name, Path(name), Plane.NATIVE
        self.notices, self.modality, self.slice_distance = [], None, None
        starts = np.cumsum([0, *(sample.n_slices for sample in self.samples)])
        self._range_of = [range(int(a), int(b)) for a, b in itertools.pairwise(starts)]
        self._place = [(sample, i) for sample in self.samples for i in range(sample.n_slices)]
        self.n_slices = len(self._place)
        self.is_colour = all(image.ndim == 3 for sample in self.samples for image in sample.images)
        self._number = {sample.name: number for number, sample in enumerate(self.samples)}
        if len(self._number) < len(self.samples):
            msg = f"{name}: two samples have one name. Keep labelled samples and test samples apart."
            raise LabelError(msg)

    def indices(self, sample: Sample) -> range:
        """Slice numbers of a sample, in its order."""
        return self._range_of[self._number[sample.name]]

    def truth(self, i: int) -> NDArray[np.uint8]:
        """Class indices (H, W) of slice `i`."""
        sample, position = self._place[i]
        return sample.truth[position]

    def example(self, i: int) -> Example:
        """Slice `i`, labelled with its truth."""
        return Example(i, self.truth(i).astype(np.int16))

    def slice(self, i: int) -> NDArray[Any]:
        """Slice `i`: (H, W) float32 from 0 to 1 (raw: the values of its file), or (H, W, 3) uint8."""
        sample, position = self._place[i]
        image = sample.images[position]
        return image if image.ndim == 3 or self._raw else (sample.window or Window(0.0, 255.0)).apply(image)

    def neighbours(self, i: int, distance: int = 1) -> tuple[int, int]:
        """Two slices around slice `i` in its sample."""
        own = self.indices(self._place[i][0])
        return max(i - distance, own.start), min(i + distance, own.stop - 1)

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Height and width of slice `i`."""
        height, width = self.truth(i).shape
        return height, width

    def slice_spacing(self, i: int) -> tuple[float, float] | None:
        """Millimetres along (row, column)."""
        spacing = self._place[i][0].spacing
        return None if spacing is None else (spacing[-2], spacing[-1])

    def slice_name(self, i: int) -> str:
        """The sample, and for a volume the number of the slice in it."""
        sample, position = self._place[i]
        return sample.name if sample.n_slices == 1 else f"{sample.name}, slice {position}"

    def slice_fingerprint(self, i: int) -> str:
        """Hash of the pixels as they are encoded: the same slice in another collection has the same features."""
        pixels = np.ascontiguousarray(self.slice(i))
        digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
        digest.update(pixels.data)
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all slices in their order."""
        return hashlib.blake2b("".join(map(self.slice_fingerprint, range(self.n_slices))).encode()).hexdigest()

    @property
    def is_byte(self) -> bool:
        """Whether every slice has 8-bit values: so with colour only, for grey ones are scaled."""
        return self.is_colour

    def intensity_range(self) -> tuple[float, float]:
        """0 and 1, which grey values were scaled to; 0 and 255 for colour; of raw values the extremes."""
        if self._raw:
            every = [image for sample in self.samples for image in sample.images]
            return float(min(image.min() for image in every)), float(max(image.max() for image in every))
        return (0.0, 255.0) if self.is_colour else (UNIT.low, UNIT.high)

    def write_mask(self, path: Path, masks: MaskOf) -> None:
        """Refuse: the samples have no common geometry."""
        raise self._no_output(path)

    def write_confidence(self, path: Path, maps: ConfidenceOf) -> None:
        """Refuse: the samples have no common geometry."""
        raise self._no_output(path)

    def check_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Refuse: the samples have no common geometry."""
        raise self._no_output(path)

    def read_labels(self, path: Path, slices: Sequence[int] | None = None) -> dict[int, NDArray[np.uint16]]:
        """Refuse: the truth of the samples is here already, see `example`."""
        msg = f"{path}: the samples of {self.name} have their labels already. Use those."
        raise LabelError(msg)

    def _no_output(self, path: Path) -> OutputError:
        return OutputError(
            f"{path}: {self.name} is a collection of samples for a benchmark; nothing is written for it."
        )


def store_of(case: MultiCase, encoder: Encoder, input_size: int, cache: Path | None) -> FeatureStore:
    """A feature store of the samples.

    Args:
        case: the samples.
        encoder: what makes the features.
        input_size: side of the square that a slice is resized to.
        cache: folder in which features outlive the run; None = keep them in memory only.
    """
    kept = None if cache is None else FeatureCache(cache, limit=_CACHE_LIMIT)
    context = neighbour_distance(case, UNIT)
    return FeatureStore(case, encoder, input_size=input_size, window=UNIT, context=context, cache=kept)
