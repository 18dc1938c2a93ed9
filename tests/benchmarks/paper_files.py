"""Small made-up files in the public layouts of the paper's data sets."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel
import nrrd
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.paper.published import authors_test

SHAPE = (4, 12, 10)  # (slice, row, column)


def grey(seed: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def labels(seed: int, highest: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """Every label from 0 to ``highest`` occurs."""
    values = np.random.default_rng(seed).integers(0, highest + 1, shape).astype(np.uint8)
    values.reshape(-1)[: highest + 1] = np.arange(highest + 1)
    return values


def write_nifti(path: Path, slices: NDArray[np.generic]) -> None:
    """Slices (z, x, y) as the file's (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(slices, 0, -1), np.diag([1.5, 1.5, 8.0, 1.0])), path)


def write_h5(path: Path, image: NDArray[np.generic], label: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = image, label


def write_npz(path: Path, image: NDArray[np.generic], label: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, image=image, label=label)


def write_nrrd(path: Path, slices: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nrrd.write(str(path), np.ascontiguousarray(slices.T))


def write_picture(path: Path, pixels: NDArray[np.uint8], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def disc(size: int = 48, radius: float = 12.0) -> NDArray[np.uint8]:
    """A mask of 0 and 255."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.where(y**2 + x**2 < radius**2, 255, 0).astype(np.uint8)


def colour(seed: int, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture in which the masked part is brighter."""
    noise = np.random.default_rng(seed).integers(0, 60, (*mask.shape, 3))
    return (noise + (mask > 0)[..., np.newaxis] * 150).astype(np.uint8)


def acdc_released(root: Path, patients: list[int], frames: tuple[int, int] = (1, 12)) -> None:
    """ACDC as released, with the files beside the volumes that are none of ours."""
    for patient in patients:
        folder = root / "training" / f"patient{patient:03d}"
        for frame in frames:
            stem = f"patient{patient:03d}_frame{frame:02d}"
            write_nifti(folder / f"{stem}.nii.gz", grey(patient + frame) * 300)
            write_nifti(folder / f"{stem}_gt.nii.gz", labels(patient + frame, 3))
        write_nifti(folder / f"patient{patient:03d}_4d.nii.gz", grey(patient, (2, *SHAPE)))
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\n", encoding="utf-8")


def kvasir(root: Path, count: int, tested: int = 2) -> None:
    """Kvasir-SEG: pictures and masks are JPEG files of one name.

    Args:
        root: where to write.
        count: pictures to draw from, ``cju0`` and so on.
        tested: pictures of the official split's test list, with discs of the same sizes.
    """
    names = [f"cju{number}" for number in range(count)]
    for number, name in [*enumerate(names), *enumerate(sorted(authors_test("kvasir"))[:tested])]:
        mask = disc(radius=8.0 + number)
        write_picture(root / "images" / f"{name}.jpg", colour(number, mask), quality=95)
        write_picture(root / "masks" / f"{name}.jpg", np.repeat(mask[..., np.newaxis], 3, axis=2), quality=70)
