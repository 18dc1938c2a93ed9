"""A phantom of two sequences: each shows one of two discs, which the other does not.

A disc lies elsewhere on every slice, so that its place does not give it away.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from tests.blobs import AFFINE, SHAPE

NAMES = ("t1", "t2")
SHOWN = {"t1": 1, "t2": 3}
"""The class that each sequence shows."""
LABELLED = (2, 6, 10, 13)
_RADIUS = 8


def truth_voxels() -> np.ndarray:
    """1 and 3 = discs, one of each on every slice, in the array order of the file."""
    places = np.random.default_rng(4)
    i, j = np.indices(SHAPE[:2])
    truth = np.zeros(SHAPE, np.uint8)
    for k in range(SHAPE[2]):
        while True:
            one, other = places.uniform(_RADIUS, np.array(SHAPE[:2]) - _RADIUS, (2, 2))
            if np.hypot(*(one - other)) > 2 * _RADIUS:
                break
        for (row, column), number in ((one, 1), (other, 3)):
            truth[:, :, k][np.hypot(i - row, j - column) < _RADIUS] = number
    return truth


def sequence_voxels(name: str, seed: int = 0) -> np.ndarray:
    """int16, noise of 40 around 0, and 700 in the disc that the sequence shows."""
    noise = np.random.default_rng([seed, NAMES.index(name)]).normal(0, 40, SHAPE)
    return (noise + 700 * (truth_voxels() == SHOWN[name])).astype(np.int16)


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write voxels as NIfTI in millimetres."""
    written = nib.Nifti1Image(voxels, affine)
    written.header.set_xyzt_units("mm")
    nib.save(written, path)
    return path


def write_sequences(folder: Path, patient: str = "anna", seed: int = 0) -> list[Path]:
    """Write `anna_t1.nii.gz` and `anna_t2.nii.gz`."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_volume(folder / f"{patient}_{name}.nii.gz", sequence_voxels(name, seed)) for name in NAMES]


def write_truth(path: Path) -> Path:
    """Write the labels of both discs."""
    return write_volume(path, truth_voxels())
