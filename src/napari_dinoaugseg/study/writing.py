"""Writing an array in stored order into the kind of file that its name asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.study.files import NIFTI_SUFFIXES, NRRD_SUFFIXES, TIFF_SUFFIXES, suffix_of
from napari_dinoaugseg.study.nifti import save_nifti
from napari_dinoaugseg.study.nrrd_file import save_nrrd
from napari_dinoaugseg.study.output import atomic_file
from napari_dinoaugseg.study.tiff import save_tiff_stack
from napari_dinoaugseg.study.voxels import Voxels


def output_suffixes(voxels: Voxels) -> tuple[str, ...]:
    """Return the suffixes that a mask of this volume may have, the most natural first."""
    medical = (".nii.gz", ".nii", ".nrrd")
    if voxels.format == "array" and len(voxels.file_shape) == 2:
        return (".png", *medical)
    return (".tif", ".tiff", *medical) if voxels.format == "tiff" else medical


def save_volume(path: Path, array: NDArray[Any], voxels: Voxels) -> None:
    """Write an array that lies on the grid of `voxels`; in the same format, with its own header.

    Args:
        path: where to write; its suffix chooses the format.
        array: (i, j, k) in stored order.
        voxels: the volume it belongs to.

    Raises:
        OutputError: the system refused to write.
    """
    suffix = suffix_of(path)
    with atomic_file(path) as temporary:
        if suffix in NIFTI_SUFFIXES:
            own = voxels.format == "nifti"
            shaped = array.reshape(voxels.file_shape, order="F") if own or voxels.format == "array" else array
            save_nifti(temporary, shaped, voxels.grid, voxels.header if own else None)
        elif suffix in NRRD_SUFFIXES:
            own = voxels.format == "nrrd"
            shaped = array.reshape(voxels.file_shape, order="F") if own or voxels.format == "array" else array
            save_nrrd(temporary, shaped, voxels.grid, voxels.header if own else None)
        elif suffix in TIFF_SUFFIXES:
            save_tiff_stack(temporary, array)
        elif suffix == ".png" and voxels.format == "array":
            _save_png(temporary, array[:, :, 0].T)
        else:
            msg = f"no writer for {suffix}"
            raise ValueError(msg)


def _save_png(path: Path, image: NDArray[Any]) -> None:
    """Write labels (H, W), or a confidence from 0 to 1 as 8-bit numbers."""
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8) if image.dtype.kind == "f" else image
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG")
