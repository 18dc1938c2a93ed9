"""Samples as cases of the program: each is written to a file, and opened from it as a person opens a file."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low

import nibabel as nib
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.samples import Sample
from napari_dinoaugseg.case import Case, Slices, choose_window, open_case
from napari_dinoaugseg.case.intensity import to_unit
from napari_dinoaugseg.case.joint import JointSlices
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.learning.augmentation import neighbour_distance
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example
from napari_dinoaugseg.model.encoder import Encoder
from napari_dinoaugseg.session.compute import ComputeConfig, MakeCompute, Notify
from napari_dinoaugseg.session.engine import Engine

_CACHE_LIMIT = 60 * 2**30  # bytes; a benchmark continues where it was stopped, so nothing should be evicted


def write_sample(sample: Sample, folder: Path) -> Path:
    """Write the images of a sample: a picture as PNG or TIFF, a volume as NIfTI whose slices are its images."""
    if sample.n_slices > 1:
        path = folder / f"{sample.name}.nii"
        voxels = np.stack(sample.images).T  # a file's axes are column, row, slice
        nib.save(nib.Nifti1Image(voxels, np.diag([*reversed(sample.spacing or (1.0, 1.0, 1.0)), 1.0])), path)
        return path
    (image,) = sample.images
    if image.dtype == np.uint8:
        path = folder / f"{sample.name}.png"
        Image.fromarray(image).save(path)
    else:
        path = folder / f"{sample.name}.tif"
        tifffile.imwrite(path, image)
    return path


class SampleCases:
    """Samples, each as a case from a file of its own, and their slices numbered one after the other.

    The files are removed with this object.

    Args:
        samples: at least one; all pictures or all volumes.

    Raises:
        LabelError: two samples have one name.
        CaseError: pictures and volumes together.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = tuple(samples)
        self._number = {sample.name: number for number, sample in enumerate(self.samples)}
        if len(self._number) < len(self.samples):
            msg = "Two samples have the same name. Keep labelled samples and test samples apart."
            raise LabelError(msg)
        folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.paths = [write_sample(sample, folder) for sample in self.samples]
        self.cases: list[Case] = [open_case(path, plane="native") for path in self.paths]
        self.slices = JointSlices(self.cases)
        self._place = [(number, i) for number, sample in enumerate(self.samples) for i in range(sample.n_slices)]

    def shown(self, i: int) -> NDArray[np.float32]:
        """Slice `i` as a person sees it, in the window of its case: (H, W) or (H, W, 3) from 0 to 1."""
        number, position = self._place[i]
        case = self.cases[number]
        return to_unit(case.slice(position), choose_window(case))

    def indices(self, sample: Sample) -> range:
        """Slice numbers of a sample, in its order."""
        numbers, _ = self.slices.parts[self._number[sample.name]]
        return numbers

    def place(self, i: int) -> tuple[int, int]:
        """The number of the sample that slice `i` belongs to, and the number of the slice in it."""
        return self._place[i]

    def truth(self, i: int) -> NDArray[np.uint8]:
        """Class indices (H, W) of slice `i`."""
        number, position = self._place[i]
        return self.samples[number].truth[position]

    def example(self, i: int) -> Example:
        """Slice `i`, labelled with its truth."""
        return Example(i, self.truth(i).astype(np.int16))

    def context(self, indices: Sequence[int]) -> int:
        """The distance of neighbouring slices that the program chooses when these slices are labelled."""
        labelled = [self.cases[number] for number in sorted({self._place[i][0] for i in indices})]
        return median_low(neighbour_distance(case, choose_window(case)) for case in labelled)

    def store(self, encoder: Encoder, input_size: int, cache: Path | None) -> FeatureStore:
        """A feature store of all slices, each case with its own intensity window, as the program's engine makes it.

        Args:
            encoder: makes the features.
            input_size: side of the square that a slice is resized to.
            cache: folder in which features outlive the run; None = keep them in memory only.
        """
        settings = Settings(encoder=encoder.spec.name, input_size=input_size)
        config = ComputeConfig(str(encoder.device))
        return engine_with(cache)(self.slices, settings, config, encoder=encoder, notify=lambda _: None).store


def engine_with(cache: Path | None) -> MakeCompute:
    """Makes the program's engine, with a cache of the benchmark's own; None = without a cache."""
    kept = None if cache is None else FeatureCache(cache, limit=_CACHE_LIMIT)

    def make(
        case: Slices, settings: Settings, config: ComputeConfig, *, encoder: Encoder | None, notify: Notify
    ) -> Engine:
        engine = Engine(case, settings, replace(config, cache=False), notify=notify, encoder=encoder)
        store = engine.store
        engine.store = FeatureStore(
            case,
            engine.encoder,
            input_size=store.input_size,
            window=store.window,
            context=store.context,
            cache=kept,
            exact=store.exact,
        )
        return engine

    return make
