"""Siemens mosaics: the slices of a volume (fMRI, diffusion) side by side as tiles of one image, taken apart.

How many tiles there are and to which side the slices follow stands only in a private header (CSA), which nibabel reads.
The position of a mosaic is where the corner of the whole mosaic would lie if it were centred on the slice: that of a
tile lies half of the difference in size further in (nibabel, doc/source/dicom/dicom_mosaic.rst).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.dicom_facts import Facts, Slice, number, numbers, read_dataset

# Facts of ours about a tile: its first row and column in the mosaic.
TILE = "MosaicTile"
_PARALLEL = 0.99


def is_mosaic(facts: Facts) -> bool:
    """Tell whether an image calls itself a mosaic."""
    kinds = facts.get("ImageType")
    return isinstance(kinds, tuple) and "MOSAIC" in kinds and int(facts.get("NumberOfFrames") or 1) == 1


def tiles_of(path: Path, facts: Facts) -> tuple[list[Slice], list[str]]:
    """Return the slices of a mosaic in their order, and a notice.

    Raises:
        StudyError: the header does not say how the tiles are to be taken apart.
    """
    count, across = _private(path)
    position, orientation = numbers(facts, "ImagePositionPatient", 3), numbers(facts, "ImageOrientationPatient", 6)
    spacing, step = numbers(facts, "PixelSpacing", 2), number(facts, "SpacingBetweenSlices")
    side = math.ceil(math.sqrt(count or 0))
    rows, columns = int(facts["Rows"]), int(facts["Columns"])
    whole = side > 0 and rows % side == 0 and columns % side == 0
    if not whole or across is None or position is None or orientation is None or spacing is None or not step:
        raise StudyError(_refused(path))
    normal = np.cross(orientation[:3], orientation[3:])
    if abs(float(normal @ across)) < _PARALLEL:
        raise StudyError(_refused(path))
    height, width = rows // side, columns // side
    first = position + orientation[:3] * spacing[1] * (columns - width) / 2
    first = first + orientation[3:] * spacing[0] * (rows - height) / 2
    slices = []
    for k in range(count):
        place = first + k * abs(step) * np.sign(normal @ across) * normal
        own: dict[str, Any] = {"ImagePositionPatient": tuple(float(x) for x in place), "Rows": height, "Columns": width}
        slices.append(Slice(path, {**facts, **own, TILE: (k // side * height, k % side * width)}, None))
    return slices, [f"the images are mosaics of {count} tiles of {width} x {height} pixels: the tiles are the slices"]


def cut(slice_: Slice, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the tile of a mosaic (row, column), or the whole image where it is none."""
    if TILE not in slice_.facts:
        return pixels
    row, column = slice_.facts[TILE]
    height, width = slice_.size
    return pixels[row : row + height, column : column + width]


def _private(path: Path) -> tuple[int, NDArray[np.float64] | None]:
    """Return the number of tiles and the direction in which the slices follow (LPS), 0 and None where not said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nibabel calls these readers experimental, when they are imported
        from nibabel.nicom import csareader
    try:
        header = csareader.get_csa_header(read_dataset(path, stop_before_pixels=True))
        if header is None:
            return 0, None
        count, across = csareader.get_n_mosaic(header), csareader.get_slice_normal(header)
    except Exception:  # a private header of unknown origin: nibabel answers damage with almost any exception
        return 0, None
    return int(count or 0), None if across is None else np.asarray(across, dtype=float)


def _refused(path: Path) -> str:
    return (
        f"{path}: this is a mosaic, with the slices of a volume as tiles of one image, and its header does not say how "
        "to take it apart. Convert it to NIfTI, for example with dcm2niix."
    )
