"""A small volume that can be learnt in seconds: a bright ball and a dim one in noise."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (40, 48, 16)
AFFINE = np.array([[0, -1.2, 0, 20], [1.1, 0, 0, -30], [0, 0, 4.0, 5], [0, 0, 0, 1.0]])
LABELLED = (4, 8, 11)
LEFT_OUT = tuple(index for index in range(SHAPE[2]) if index not in LABELLED)


def truth_voxels() -> np.ndarray:
    """1 = bright ball, 3 = dim ball, in the array order of the file."""
    i, j, k = np.indices(SHAPE)
    truth = np.zeros(SHAPE, np.uint8)
    truth[((i - 13) / 8) ** 2 + ((j - 15) / 8) ** 2 + ((k - 8) / 6) ** 2 < 1] = 1
    truth[((i - 28) / 7) ** 2 + ((j - 32) / 9) ** 2 + ((k - 8) / 7) ** 2 < 1] = 3
    return truth


def image_voxels(seed: int = 0) -> np.ndarray:
    """int16, noise of 40 around 0, 350 and 700."""
    truth = truth_voxels()
    noise = np.random.default_rng(seed).normal(0, 40, SHAPE)
    return (noise + 700 * (truth == 1) + 350 * (truth == 3)).astype(np.int16)


def write_case(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write the image and its truth; returns both paths."""
    image, truth = folder / f"image{seed}.nii.gz", folder / "truth.nii.gz"
    for path, voxels in ((image, image_voxels(seed)), (truth, truth_voxels())):
        written = nib.Nifti1Image(voxels, AFFINE)
        written.header.set_xyzt_units("mm")
        nib.save(written, path)
    return image, truth
