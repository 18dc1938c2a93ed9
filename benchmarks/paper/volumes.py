"""Loaders of the sets of volumes: ACDC, LA2018 and Synapse, each in its public layouts.

Labels go to class indices of the paper; a volume is read when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper import published
from benchmarks.paper.files import find, folder_below, given_split, read_nifti, read_nrrd, read_pair
from benchmarks.paper.sources import DataSet, VolumeSource, check_labels, left_out, make_sample
from benchmarks.samples import Sample
from napari_dinoaugseg.case import Window
from napari_dinoaugseg.errors import CaseError

Found = tuple[list[VolumeSource], str, list[str]]
"""Labelled volumes, the name of their layout, notices."""

# TransUNet keeps 8 of the 13 organs. Its files do not name them: this is the order of its table.
SYNAPSE_ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
BTCV_TO_SYNAPSE = np.array([0, 7, 4, 3, 2, 0, 5, 8, 1, 0, 0, 6, 0, 0], np.uint8)
CT_WINDOW = Window(-125.0, 275.0)


# --- ACDC -----------------------------------------------------------------------------------------------------------


def load_acdc(root: Path) -> DataSet:
    """ACDC as released (NIfTI), or as HDF5 volumes or slices."""
    return _by_patients(root, _find_acdc, published.authors_test("acdc"), published.ACDC_PATIENTS)


def _find_acdc(root: Path) -> Found:
    images = {path.name[:-7]: path for path in find(root, r"patient\d+_frame\d+(_mr)?\.nii\.gz")}
    if images:
        masks = {path.name[:-10]: path for path in find(root, r"patient\d+_frame\d+_gt\.nii\.gz")}
        images = {name.removesuffix("_mr"): path for name, path in images.items()}
        sources = [
            VolumeSource(name, _patient(name), partial(_nifti, name, path, masks[name], 3))
            for name, path in images.items()
            if name in masks
        ]
        return sources, "NIfTI as released", left_out([name for name in images if name not in masks], "a _gt file")
    volumes = find(root, r"patient\d+_frame\d+\.h5")
    if volumes:
        found = [VolumeSource(path.stem, _patient(path.stem), partial(_acdc_volume, path)) for path in volumes]
        return found, "HDF5 volumes", []
    slices: dict[str, list[Path]] = {}
    for path in find(root, r"patient\d+_frame\d+_slice_\d+\.h5"):
        slices.setdefault(path.stem.split("_slice_")[0], []).append(path)
    found = [VolumeSource(name, _patient(name), partial(_stack, name, paths, 3)) for name, paths in slices.items()]
    return found, "HDF5 slices", []


def _patient(name: str) -> str:
    return name.split("_")[0]


def _acdc_volume(path: Path) -> Sample:
    images, labels = read_pair(path)
    return make_sample(path.stem, images, labels, 3)


def _nifti(name: str, image: Path, mask: Path, highest: int) -> Sample:
    return make_sample(name, read_nifti(image), read_nifti(mask), highest)


def _stack(name: str, paths: Sequence[Path], highest: int) -> Sample:
    """A volume of single slices (H, W), given in their order."""
    pairs = [read_pair(path) for path in paths]
    images, labels = (_stacked(name, [pair[side] for pair in pairs]) for side in (0, 1))
    return make_sample(name, images, labels, highest)


def _stacked(name: str, slices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len({one.shape for one in slices}) > 1:
        msg = f"{name}: its slices differ in size. Download them again."
        raise CaseError(msg)
    return np.stack(slices)


# --- LA2018 ---------------------------------------------------------------------------------------------------------


def load_la2018(root: Path) -> DataSet:
    """LA2018 as cropped HDF5 files, or as the challenge released it (NRRD)."""
    return _by_patients(root, _find_la2018, published.authors_test("la2018"), None)


def _find_la2018(root: Path) -> Found:
    cropped = find(root, r"mri_norm2\.h5")
    if cropped:
        found = [VolumeSource(path.parent.name, path.parent.name, partial(_la2018_volume, path)) for path in cropped]
        return found, "HDF5, cropped around the atrium", []
    images = find(root, r"lgemri\.nrrd")
    masks = {path: path.with_name("laendo.nrrd") for path in images}
    found = [
        VolumeSource(path.parent.name, path.parent.name, partial(_challenge_volume, path, mask))
        for path, mask in masks.items()
        if mask.is_file()
    ]
    lacking = [path.parent.name for path, mask in masks.items() if not mask.is_file()]
    return found, "NRRD of the challenge, not cropped as the paper's files are", left_out(lacking, "laendo.nrrd")


def _la2018_volume(path: Path) -> Sample:
    # (row, column, slice), and the slices are those of the paper: along the last axis.
    images, labels = (np.moveaxis(array, -1, 0) for array in read_pair(path))
    return make_sample(path.parent.name, images, labels, 1)


def _challenge_volume(image: Path, mask: Path) -> Sample:
    return make_sample(image.parent.name, read_nrrd(image), (read_nrrd(mask) > 0).astype(np.uint8), 1)


# --- Synapse --------------------------------------------------------------------------------------------------------


def load_synapse(root: Path) -> DataSet:
    """Synapse as TransUNet prepared it (npz slices and HDF5 volumes, 8 organs), or BTCV's NIfTI with 13 organs."""
    slices_at, volumes_at = folder_below(root, "train_npz"), folder_below(root, "test_vol_h5")
    if slices_at is not None and volumes_at is not None:
        slices: dict[str, list[Path]] = {}
        for path in find(slices_at, r"case\d+_slice\d+\.npz"):
            slices.setdefault(path.stem.split("_")[0], []).append(path)
        pool = [VolumeSource(name, name, partial(_stack, name, paths, 8)) for name, paths in slices.items()]
        test = [
            VolumeSource(path.name.split(".")[0], path.name.split(".")[0], partial(_synapse_volume, path))
            for path in find(volumes_at, r"case\d+(\.npy)?\.h5")
        ]
        return DataSet(pool, test, "as TransUNet prepared it", "the test volumes of TransUNet", True, window="0,1")
    images = {f"case{path.name[3:7]}": path for path in find(root, r"img\d{4}\.nii\.gz")}
    masks = {f"case{path.name[5:9]}": path for path in find(root, r"label\d{4}\.nii\.gz")}
    found = [
        VolumeSource(name, name, partial(_btcv_volume, name, path, masks[name]))
        for name, path in images.items()
        if name in masks
    ]
    tested = published.authors_test("synapse")
    test = [source for source in found if source.name in tested]
    pool = [source for source in found if source.name not in tested]
    notices = left_out([name for name in images if name not in masks], "a label file")
    window = f"{CT_WINDOW.low:g},{CT_WINDOW.high:g}"
    return DataSet(
        pool, test, "NIfTI of BTCV, 8 of its 13 organs", "the test volumes of TransUNet", True, notices, window
    )


def _synapse_volume(path: Path) -> Sample:
    images, labels = read_pair(path)
    return make_sample(path.name.split(".")[0], images, labels, 8)


def _btcv_volume(name: str, image: Path, mask: Path) -> Sample:
    labels = read_nifti(mask)
    check_labels(name, labels, len(BTCV_TO_SYNAPSE) - 1)
    # Clipped here, as TransUNet did before anything is scaled: slices may be scaled one by one.
    clipped = np.clip(read_nifti(image).astype(np.float32), CT_WINDOW.low, CT_WINDOW.high)
    return make_sample(name, clipped, BTCV_TO_SYNAPSE[labels.astype(np.intp)], 8)


# --- splits ---------------------------------------------------------------------------------------------------------


def _by_patients(
    root: Path, search: Callable[[Path], Found], test: frozenset[str], known: frozenset[str] | None
) -> DataSet:
    """Split as the folder is (``train`` and ``test``), or else as the authors did.

    Args:
        root: where the volumes lie.
        search: finds them below a folder.
        test: groups that the authors test on.
        known: groups of which the authors chose; None = all.
    """
    given = given_split(root)
    if given is not None:
        (pool, layout, notices), (tested, _, more) = (search(folder) for folder in given)
        return DataSet(pool, tested, layout, "the folder's own train and test", False, notices + more)
    found, layout, notices = search(root)
    found = [source for source in found if known is None or source.group in known]
    return DataSet(
        [source for source in found if source.group not in test],
        [source for source in found if source.group in test],
        layout,
        "the authors' test patients",
        True,
        notices,
    )
