"""Small made-up files in the layouts of the public sets. Values tell the class: from 100 on 1, from 200 on 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.case.builders import write_dicom, write_nifti

SHAPE = (5, 24, 20)  # (slice, row, column)


def labels(seed: int, highest: int = 1, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """An ellipse of class 1 off the middle, in all slices but the first, with one of class 2 inside."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices(shape[-2:])
    centre = np.array(shape[-2:]) * random.uniform(0.35, 0.65, 2)
    radius = np.array(shape[-2:]) * random.uniform(0.2, 0.33, 2)
    distance = ((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2
    plane = (distance < 1).astype(np.uint8)
    if highest > 1:
        plane[distance < 0.3] = 2
    if len(shape) == 2:
        return plane
    volume = np.repeat(plane[None], shape[0], axis=0)
    volume[0] = 0
    return volume


def grey(of: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 50, of.shape)
    return (100 * of.astype(int) + noise).astype(np.uint8)


def colour(of: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    return np.stack([grey(of, seed + k) for k in range(3)], axis=-1)


def _save(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_clinicdb(folder: Path, seed: int, shape: tuple[int, int] = (24, 32)) -> None:
    truth = labels(seed, shape=shape)
    mask = 255 * truth
    mask[0, 0], mask[0, 1] = 20, 100  # stray values, as some masks of the set have
    _save(folder / "images" / f"{seed}.png", colour(truth, seed))
    _save(folder / "masks" / f"{seed}.png", mask)


def write_ph2(folder: Path, seed: int) -> None:
    truth = labels(seed, shape=(24, 32))
    _save(folder / "images" / f"IMD{seed:03d}.png", colour(truth, seed))
    _save(folder / "masks" / f"IMD{seed:03d}_lesion.png", 255 * truth)


def write_lung_ct(folder: Path, seed: int) -> None:
    truth = labels(seed, shape=(32, 32))
    for kind, pixels in (("2d_images", grey(truth, seed).astype(np.int16)), ("2d_masks", 255 * truth)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / kind / f"ID_{seed:04d}_Z_0064.tif", pixels)


def write_busi(folder: Path, seed: int) -> None:
    truth = labels(seed, shape=(24, 32))
    kind = "benign" if seed % 2 else "malignant"
    _save(folder / kind / f"{kind} ({seed}).png", colour(truth, seed))
    _save(folder / kind / f"{kind} ({seed})_mask.png", 255 * truth)


def write_hc18(folder: Path, seed: int) -> None:
    truth = labels(seed, shape=(24, 32))
    _save(folder / f"{seed:03d}_HC.png", grey(truth, seed))
    _save(folder / f"{seed:03d}_HC_Annotation.png", np.repeat(255 * truth[..., None], 3, axis=-1))
    table = folder.parent / "pixel_size_and_HC.csv"
    if not table.exists():
        table.write_text("filename,pixel size(mm),head circumference (mm)\n", encoding="utf-8")
    with table.open("a", encoding="utf-8") as file:
        file.write(f"{seed:03d}_HC.png,0.{seed}5,70\n")


def _write_h5(path: Path, image: NDArray[Any], label: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = image.astype(np.float32), label


def write_acdc(folder: Path, seed: int) -> None:
    truth = labels(seed, 2)
    truth[1, 0, 0] = 3
    _write_h5(folder / f"patient{seed:03d}_frame01.h5", grey(np.minimum(truth, 2), seed), truth)


def write_la2018(folder: Path, seed: int) -> None:
    truth = labels(seed)
    image = np.moveaxis(grey(truth, seed), 0, 2)
    _write_h5(folder / f"SCAN{seed}" / "mri_norm2.h5", image, np.moveaxis(truth, 0, 2))


def write_hippocampus(folder: Path, seed: int) -> None:
    truth = labels(seed, 2)
    for kind, values in (("images", grey(truth, seed)), ("labels", truth)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_nifti(folder / kind / f"hippocampus_{seed:03d}.nii.gz", values.T, np.diag([-1.0, 1.0, 1.2, 1.0]))


def write_spleen(folder: Path, seed: int) -> None:
    truth = labels(seed)
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([0.8, 0.8, 5.0, 1.0])
    write_nifti(folder / f"sub-spleen{seed}_ct.nii.gz", grey(truth, seed).T, affine)
    write_nifti(folder / f"sub-spleen{seed}_ct_seg-manual.nii.gz", truth.T, affine)


def write_sunnybrook(folder: Path, seed: int) -> None:
    truth = labels(seed, 2)
    truth[2, 3] = 1  # no two slices alike
    phase = folder / f"SCD{seed:07d}" / "ED"
    # Names in another order than positions.
    names = [f"{number}.dcm" for number in (79, 9, 119, 59, 99)]
    write_dicom(phase / "dicom", grey(truth, seed).astype(np.int16), names=names.__getitem__, step=10.0, intercept=0)
    for name, mask in zip(names, truth, strict=True):
        _save(phase / "masks" / f"{Path(name).stem}.png", mask)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "cvc_clinicdb": write_clinicdb,
    "ph2": write_ph2,
    "lung_ct": write_lung_ct,
    "busi": write_busi,
    "hc18": write_hc18,
    "acdc": write_acdc,
    "la2018": write_la2018,
    "msd_hippocampus": write_hippocampus,
    "msd_spleen_sample": write_spleen,
    "sunnybrook_dicom": write_sunnybrook,
}


def its_process() -> dict[str, Any]:
    """Hold 60 MB. It stands here because its process imports this module, and the modules of most tests load much."""
    held = np.ones(60_000_000 // 8)
    return {"pid": os.getpid(), "sum": float(held.sum())}
