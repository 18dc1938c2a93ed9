"""Masks of pictures: what their pixels mean, and a folder of them.

People save masks in every way: 0 and 255, label numbers, 1 bit, RGB with equal channels, a palette, even JPEG. A folder
is judged as a whole, so that one empty mask among binary ones is binary too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import LabelError, StudyError
from napari_dinoaugseg.study.decode import Orientation, Picture, decode
from napari_dinoaugseg.study.files import PICTURE_SUFFIXES, is_hidden, listed, natural_key, suffix_of
from napari_dinoaugseg.study.matching import is_mask_folder, split_masks

_CUT = 128
# Few values, one of them on many painted pixels, are classes in grey steps; noise has many values, each on few pixels.
_CLASS_VALUES = 20
_CLASS_SHARE = 0.05


def find_pictures(folder: Path) -> list[Path]:
    """Return the picture files right in a folder, hidden ones left out, in natural order."""
    files = [path for path in folder.iterdir() if suffix_of(path) in PICTURE_SUFFIXES and path.is_file()]
    return sorted((path for path in files if not is_hidden(path, folder)), key=lambda path: natural_key(path.name))


def name_in(path: Path, root: Path) -> str:
    """Return the name that matching works with: relative to `root`, without suffix."""
    return path.relative_to(root).with_suffix("").as_posix()


def mask_files(folder: Path) -> dict[str, Path]:
    """Return the mask files of a folder by name.

    Subfolders are searched; where some are named like masks and no picture lies beside them, only those. Where pictures
    and their masks lie in one folder, the pictures are left out.

    Raises:
        LabelError: the folder is missing or empty, or two files share a name.
    """
    if not folder.exists():
        msg = f"{folder}: there is no such file or folder. Check the path."
        raise LabelError(msg)
    files = list(_walk(folder))
    if not files:
        msg = f"{folder}: there is no mask here. Give masks as PNG, TIFF, BMP or JPEG files."
        raise LabelError(msg)
    named: dict[str, Path] = {}
    for path in files:
        name = name_in(path, folder)
        if name in named:
            msg = f"{path}: {named[name].name} has the same name. Keep one mask for each picture."
            raise LabelError(msg)
        named[name] = path
    _, masks = split_masks(named)
    return {name: named[name] for name in masks} if masks else named


def _walk(folder: Path) -> Iterator[Path]:
    own = find_pictures(folder)
    yield from own
    folders = sorted(
        (path for path in folder.iterdir() if path.is_dir() and not is_hidden(path, folder)),
        key=lambda path: natural_key(path.name),
    )
    masks = [path for path in folders if is_mask_folder(path.name)]
    for path in masks if masks and not own else folders:
        yield from _walk(path)


class MaskFolder(Mapping[str, NDArray[np.uint16]]):
    """The label images of mask files by name, decoded when they are asked for.

    Args:
        files: the mask files by name.

    Raises:
        LabelError: a file cannot be read or holds no labels, or the grey values look like classes in grey steps.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)
        self.orientations: dict[str, Orientation] = {}
        lossy, deep, highest = False, False, 0
        counts = np.zeros(256, dtype=np.int64)
        for name, path in self._files.items():
            picture = _decode(path)
            values = _label_values(path, picture)
            self.orientations[name] = picture.orientation
            lossy = lossy or not picture.exact
            highest = max(highest, int(values.max()))
            deep = deep or values.dtype != np.uint8
            if values.dtype == np.uint8:
                counts += np.bincount(values.reshape(-1), minlength=256)
        # Nobody saves black and white as 16 bit: there 255 is a number like any other, and our own masks rely on it.
        self.is_binary = lossy or (highest == 255 and not deep)
        if self.is_binary and not lossy:
            _refuse_grey_classes(counts, next(iter(self._files.values())).parent)

    def __getitem__(self, name: str) -> NDArray[np.uint16]:
        """Return the labels (H, W) as stored; binary masks hold 0 and 255."""
        path = self._files[name]
        values = _label_values(path, _decode(path))
        if self.is_binary:
            return np.where(values >= _CUT, 255, 0).astype(np.uint16)
        return values.astype(np.uint16)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._files)

    def __len__(self) -> int:
        """Return how many masks there are."""
        return len(self._files)

    def path(self, name: str) -> Path:
        """Return the file of a mask."""
        return self._files[name]


def read_mask_folder(path: Path | Sequence[Path]) -> MaskFolder:
    """Read a folder (or a list) of masks on their own, for comparing two of them.

    Returns:
        A mapping from name (relative path without suffix) to labels (H, W), decoded one by one.

    Raises:
        LabelError: there is none, one cannot be read, or one holds no labels.
    """
    if isinstance(path, str | Path):
        folder = Path(path)
        return MaskFolder(mask_files(folder) if not folder.is_file() else {folder.stem: folder})
    files: dict[str, Path] = {}
    for file in map(Path, path):
        if file.stem in files:
            msg = f"{file}: {files[file.stem]} has the same name. Keep one mask for each picture."
            raise LabelError(msg)
        files[file.stem] = file
    if not files:
        msg = "The list of masks is empty. Name at least one mask."
        raise LabelError(msg)
    return MaskFolder(files)


def _decode(path: Path) -> Picture:
    try:
        return decode(path)
    except StudyError as error:
        raise LabelError(str(error)) from error


def _label_values(path: Path, picture: Picture) -> NDArray[Any]:
    """Return the pixels of one mask as uint8 or uint16 numbers.

    Raises:
        LabelError: colours, or numbers that are no labels.
    """
    if picture.indexed is not None:
        return picture.indexed
    pixels = picture.pixels
    if pixels.ndim == 3:
        spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
        # JPEG keeps colour coarsely: equal channels come back a few steps apart.
        if int(spread.max()) > (0 if picture.exact else 48):
            msg = f"{path}: this mask is coded in colours. Save it as grey with label numbers 0, 1, 2..."
            raise LabelError(msg)
        pixels = pixels[..., 1]
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if not np.isfinite(pixels).all() or (pixels != np.rint(pixels)).any() or pixels.min() < 0 or pixels.max() > 65535:
        msg = (
            f"{path}: it holds negative, fractional or too large values. Save labels as whole numbers from 0 to 65535."
        )
        raise LabelError(msg)
    return pixels.astype(np.uint8 if pixels.max() <= 255 else np.uint16)


def must_be_deep(labels: set[int]) -> bool:
    """Tell whether masks with these labels have to be written as 16 bit: as 8 bit, 255 would be read as white."""
    return max(labels, default=0) == 255 and not labels <= {0, 255}


def _refuse_grey_classes(counts: NDArray[np.int64], folder: Path) -> None:
    """Refuse masks such as 0, 85, 170, 255: cut at 128 they would lose classes without a word."""
    between = counts[1:255]
    painted = int(counts[1:].sum())
    values = [str(value) for value in np.flatnonzero(between) + 1]
    if 0 < len(values) <= _CLASS_VALUES and int(between.max()) > _CLASS_SHARE * painted:
        msg = (
            f"{folder}: masks hold 255 and {listed(values, 5)}, which look like several classes. "
            "Number the classes 1, 2, 3..., or save masks with 0 and 255 only."
        )
        raise LabelError(msg)
