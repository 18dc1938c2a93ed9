"""The brain template in one sequence and in several: Dice, and what encoding each further sequence costs.

    python -m benchmarks.sequences [--noise 0.05 0.2] [--preset fast] [--seeds 3]

The first sequence is the template's T1 (nilearn's ICBM 152, the sample of the program). The others are made up, for the
shared sets hold no patient with two: a T2-like and a proton-density-like contrast, each the sum of the template's
probabilities of grey matter, white matter and what is left of the head (fluid) times the brightness of that tissue,
blurred, under a bias field of its own. Noise is added to all alike, Rician as in MR, with a standard deviation given as
a share of the brightest voxel. As the made contrasts hold the true tissue, the figures show what the model makes of a
second sequence whose noise is independent, not what a T2 of a patient is worth. Five slices are labelled, the others
are scored.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn import datasets
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.memory import Meter
from napari_dinoaugseg import Session, Settings, open_case
from napari_dinoaugseg.case.array import _CROP, CLASS_NAMES, LABELLED_SLICES, brain_sample
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.session.labels import new_class

_ENCODER = "efficientnet-lite0"
NAMES = ("t1", "t2", "pd")
_SETS = (("t1",), ("t2",), ("t1", "t2"))
# Brightness of grey matter, white matter, and fluid.
_BRIGHTNESS = {"t2": (0.6, 0.4, 1.0), "pd": (0.9, 0.65, 0.75)}
_BLUR = 0.7  # mm
_BIAS = 0.15  # the least and the most of the bias field lie so far from 1


def contrasts(noise: float, seed: int) -> dict[str, NDArray[np.uint16]]:
    """The three sequences on the grid of the sample, (i, j, k), 0 to about 1,000; noise as a share of the brightest."""
    sample = brain_sample()
    first = np.asarray(sample.image.dataobj) / 255.0
    grey, white = (
        load(resolution=1).slicer[_CROP].get_fdata(dtype=np.float32)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    head = gaussian_filter((first > 0.1).astype(np.float32), 1.0)
    fluid = np.clip(head - grey - white, 0, 1)
    images = {"t1": first / first.max()}
    for name, (of_grey, of_white, of_fluid) in _BRIGHTNESS.items():
        image = gaussian_filter(of_grey * grey + of_white * white + of_fluid * fluid, _BLUR)
        images[name] = image * _bias(image.shape, np.random.default_rng([seed, NAMES.index(name)]))
    made = {}
    for number, (name, image) in enumerate(images.items()):
        random = np.random.default_rng([seed, 10 + number])
        real, imaginary = (random.normal(0, noise, image.shape) for _ in range(2))
        made[name] = np.round(1000 * np.hypot(image + real, imaginary)).astype(np.uint16)
    return made


def _bias(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float64]:
    """A smooth field between 1 - _BIAS and 1 + _BIAS: a plane in a direction of its own."""
    direction = random.normal(size=3)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij", sparse=True)
    field: NDArray[np.float64] = direction[0] * axes[0] + direction[1] * axes[1] + direction[2] * axes[2]
    return 1 + _BIAS * field / np.abs(field).max()


def write(folder: Path, noise: float, seed: int) -> dict[str, Path]:
    """Write the sequences as `brain_t1.nii.gz` and so on."""
    affine = brain_sample().image.affine
    paths = {}
    for name, voxels in contrasts(noise, seed).items():
        image = nib.Nifti1Image(voxels, affine)
        image.header.set_xyzt_units("mm")
        paths[name] = folder / f"brain_{name}.nii.gz"
        nib.save(image, paths[name])
    return paths


def measure(files: list[Path], settings: Settings) -> list[float]:
    """Dice of each class over the slices that were not labelled."""
    session = Session(open_case(files if len(files) > 1 else files[0]), settings)
    truth = session.case.to_slices(np.asarray(brain_sample().tissue.dataobj))
    classes = [new_class(number, name) for number, name in CLASS_NAMES.items()]
    session.labels.label({i: truth[i].astype(np.uint16) for i in LABELLED_SLICES}, classes=classes)
    for _ in session.train():
        pass
    for _ in session.predict():
        pass
    others = [i for i in range(session.case.n_slices) if i not in LABELLED_SLICES]
    found = np.stack([session.labels.result(i) for i in others])
    return [dice(found == number, truth[others] == number) for number in CLASS_NAMES]


def encode(folder: Path, count: int) -> None:
    """Encode all slices of a case of so many sequences; print what it took."""
    files = list(write(folder, 0.05, 0).values())[:count]
    session = Session(open_case(files if count > 1 else files[0]), Settings.of_preset("fast", encoder=_ENCODER))
    store = session.engine.store
    for _ in store.prepare([(0, None)]):  # what the first slice takes longer is the program's start
        pass
    kept, meter, worked = store.memory_used, Meter(), time.process_time()
    with meter.stage(f"{count} encoded"):
        for _ in store.prepare([(index, None) for index in range(1, session.case.n_slices)]):
            pass
    worked = time.process_time() - worked
    count = session.case.n_slices - 1
    per_slice = (store.memory_used - kept) / count
    print(
        f"{'':<12} a slice: {1000 * worked / count:.0f} ms of processor, features of {per_slice / 1e6:.2f} MB",
        flush=True,
    )


def main() -> None:
    """Measure what encoding costs, then the Dice of each set of sequences; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--preset", default="fast", choices=["fast", "balanced"])
    parser.add_argument("--seeds", type=int, default=3, help="of the noise and of the training")
    parser.add_argument("--encode", type=int, help="only encode so many sequences, and say what that takes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["DINOAUGSEG_CACHE"] = str(Path(name) / "cache")
        if options.encode:
            encode(Path(name), options.encode)
            return
        for count in range(1, len(NAMES) + 1):  # each in a process of its own, with nothing encoded before
            subprocess.run([sys.executable, "-m", "benchmarks.sequences", "--encode", str(count)], check=True)
        for noise in options.noise:
            files = [write(_folder(name, noise, seed), noise, seed) for seed in range(options.seeds)]
            for chosen in _SETS:
                found = []
                for seed, paths in enumerate(files):
                    settings = Settings.of_preset(options.preset, encoder=_ENCODER, seed=seed)
                    found.append(measure([paths[each] for each in chosen], settings))
                means = ", ".join(
                    f"{CLASS_NAMES[number]} {mean:.1%}"
                    for number, mean in zip(CLASS_NAMES, np.mean(found, axis=0), strict=True)
                )
                spread = np.mean(found, axis=1)
                line = f"noise {noise:.0%}, {' + '.join(chosen):<8} mean Dice {spread.mean():.1%}"
                print(f"{line} ({spread.min():.1%} to {spread.max():.1%}): {means}", flush=True)


def _folder(name: str, noise: float, seed: int) -> Path:
    folder = Path(name, f"{noise}_{seed}")
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
