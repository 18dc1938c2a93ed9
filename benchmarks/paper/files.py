"""Reading arrays from the kinds of file that the public data sets come in; damaged files raise a CaseError."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import nibabel
import nrrd
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from napari_dinoaugseg.case.files import is_hidden, natural_key
from napari_dinoaugseg.errors import CaseError

_DAMAGE = (OSError, EOFError, KeyError, ValueError, ImageFileError, zipfile.BadZipFile, nrrd.NRRDError)


def find(root: Path, pattern: str) -> list[Path]:
    """Files below a folder whose whole name fits a regular expression, in natural order of their paths."""
    fits = re.compile(pattern)
    found = (path for path in root.rglob("*") if fits.fullmatch(path.name) and path.is_file())
    return sorted((path for path in found if not is_hidden(path, root)), key=lambda path: natural_key(str(path)))


def folder_below(root: Path, name: str) -> Path | None:
    """The folder of that name in ``root`` or one level below, where archives are often unpacked; None without one."""
    places = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    return next((place / name for place in places if (place / name).is_dir()), None)


def given_split(root: Path) -> tuple[Path, Path] | None:
    """The folders ``train`` and ``test``, where somebody has split the data already."""
    train, test = root / "train", root / "test"
    return (train, test) if train.is_dir() and test.is_dir() else None


def read_pair(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """``image`` and ``label`` of an HDF5 or NPZ file. Raises CaseError."""
    with _readable(path):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return arrays["image"], arrays["label"]
        with h5py.File(path) as file:
            return np.asarray(file["image"]), np.asarray(file["label"])


def read_nifti(path: Path) -> NDArray[Any]:
    """The values of a NIfTI file as slices, (z, x, y), as the authors cut its (x, y, z). Raises CaseError."""
    with _readable(path):
        return np.moveaxis(np.asarray(nibabel.load(path).dataobj), -1, 0)


def read_nrrd(path: Path) -> NDArray[Any]:
    """The values of an NRRD file as slices: its (x, y, z) as (z, y, x). Raises CaseError."""
    with _readable(path):
        return nrrd.read(str(path))[0].T


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"{path}: it cannot be read ({what}). Download it again."
        raise CaseError(msg) from error
