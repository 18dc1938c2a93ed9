"""NIfTI-1 and NIfTI-2 files, read and written with their own header."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from numpy.typing import NDArray

from napari_dinoaugseg.errors import SeveralVolumesError, StudyError
from napari_dinoaugseg.study.files import reading, require_file, suffix_of, unreadable
from napari_dinoaugseg.study.grid import SAME_GRID, Grid
from napari_dinoaugseg.study.voxels import Voxels, check

_MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
# Deflate cannot pack tighter than about 1032 to 1: a header that asks for more is not to be believed.
_MOST_PACKED = 1100


def read_nifti(path: Path, component: int | None = None) -> Voxels:
    """Read one volume of a NIfTI file in its stored type.

    Uncompressed files are memory-mapped. A chosen component of a 4-D file is read alone.

    Args:
        path: the .nii or .nii.gz file.
        component: which volume of a file with more than three dimensions, counted over the trailing dimensions in
            stored order (the fourth runs fastest).

    Raises:
        StudyError: the file is missing, damaged, not NIfTI, complex, empty, or 4-D and no component was chosen.
    """
    require_file(path)
    packed = suffix_of(path) == ".nii.gz"
    expected = "a gzip-packed NIfTI file" if packed else "a NIfTI file"
    with reading(path, expected), LoggingOutputSuppressor():
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
            raise StudyError(unreadable(path, expected))
        header = image.header
        file_shape = tuple(int(n) for n in image.shape)
        dtype = np.dtype(image.get_data_dtype())
        affine = np.asarray(image.affine, dtype=np.float64)
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        offset = int(image.dataobj.offset)
    shape, trailing = _split_shape(path, file_shape, dtype)
    index = choose_component(path, trailing, component)
    step = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    total = step * int(np.prod(trailing, dtype=np.int64))
    with reading(path, expected):
        read = _read_packed if packed else _map
        stored = read(path, shape, dtype, offset, step * index, total)
    units = str(header.get_xyzt_units()[0])
    grid = Grid(shape, affine, mm_per_unit=_MM_PER_UNIT.get(units, 1.0))
    # With a component chosen the mask is one volume; trailing dimensions of size one are kept as they are.
    mask_shape = file_shape if np.prod(trailing) == 1 else shape
    return check(
        Voxels(
            path=path,
            files=[path],
            format="nifti",
            stored=_channels_last(stored),
            grid=grid,
            file_shape=mask_shape,
            slope=slope,
            intercept=intercept,
            header=header,
            notices=_geometry_notices(header),
        )
    )


def _split_shape(
    path: Path, file_shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return the three spatial axes (a 2-D file is one slice) and the trailing ones."""
    if len(file_shape) < 2 or min(file_shape) < 1:
        msg = f"{path}: the image has no pixels (its size is {file_shape}). Export it again."
        raise StudyError(msg)
    if dtype.kind == "c":
        msg = f"{path}: it holds complex numbers, which have no one intensity. Export the magnitude image."
        raise StudyError(msg)
    padded = (*file_shape, 1)
    return (padded[0], padded[1], padded[2]), file_shape[3:]


def choose_component(path: Path, trailing: tuple[int, ...], component: int | None) -> int:
    """Return which volume to read of a file with trailing dimensions.

    Raises:
        StudyError: there are several and none was chosen, or the chosen one does not exist.
    """
    count = int(np.prod(trailing, dtype=np.int64))
    if component is None:
        if count > 1:
            msg = (
                f"{path}: it holds {count} volumes (time points or channels). "
                f"Choose one with --component, from 0 to {count - 1}."
            )
            raise SeveralVolumesError(msg, count)
        return 0
    if not 0 <= component < count:
        msg = f"{path}: there is no component {component}. Choose one with --component, from 0 to {count - 1}."
        raise StudyError(msg)
    return component


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, start: int, total: int) -> NDArray[Any]:
    """Map the voxels of an uncompressed file; writes stay in memory (mode c)."""
    size = path.stat().st_size
    if size < offset + total:
        msg = f"{path}: the file is cut off: {size} bytes of {offset + total}. Copy or export it again."
        raise StudyError(msg)
    return np.memmap(path, dtype=dtype, mode="c", offset=offset + start, shape=shape, order="F")


def _read_packed(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, start: int, total: int
) -> NDArray[Any]:
    """Read the voxels of a .nii.gz straight into one array, then the rest of the stream to have its checksum tested."""
    if total > path.stat().st_size * _MOST_PACKED:
        msg = f"{path}: the file is cut off: it is too small for the size in its header. Copy or export it again."
        raise StudyError(msg)
    stored = np.empty(shape, dtype=dtype, order="F")
    buffer = stored.reshape(-1, order="F").view(np.uint8).data
    with gzip.open(path, "rb") as stream:
        stream.seek(offset + start)
        done = 0
        while done < len(buffer):
            count = stream.readinto(buffer[done : done + (1 << 24)])
            if not count:
                msg = f"{path}: the file is cut off: {done} bytes of {len(buffer)}. Copy or export it again."
                raise StudyError(msg)
            done += count
        remaining = offset + total - stream.tell()
        while chunk := stream.read(1 << 20):
            remaining -= len(chunk)
    if remaining > 0:
        msg = f"{path}: the file is cut off: {remaining} bytes are missing. Copy or export it again."
        raise StudyError(msg)
    return stored


def _channels_last(stored: NDArray[Any]) -> NDArray[Any]:
    """Turn RGB24 and RGBA32 voxels into (i, j, k, 3); the opacity is dropped."""
    if stored.dtype.names is None or stored.dtype.names[:3] != ("R", "G", "B"):
        return stored
    count = len(stored.dtype.names)
    # The channels of a voxel lie side by side: look at the first axis, which is contiguous, as bytes.
    flat = np.asarray(stored).reshape(-1, order="F").view(np.uint8).reshape(-1, count)
    return flat.reshape((*stored.shape, count), order="F")[..., :3]


def _geometry_notices(header: Any) -> list[str]:
    """Say where the header contradicts itself or is silent; nibabel's choice is followed: sform, qform, voxel sizes."""
    q_code, s_code = int(header["qform_code"]), int(header["sform_code"])
    if q_code == 0 and s_code == 0:
        return ["the header gives no orientation (qform and sform codes are 0): left and right are not certain"]
    if q_code and s_code:
        shape = np.array([*header.get_data_shape()[:3], 1, 1][:3])
        corner = np.append(shape - 1, 1)
        with np.errstate(all="ignore"):
            apart = np.abs((header.get_qform() - header.get_sform()) @ np.stack([[0, 0, 0, 1], corner]).T)[:3].max()
        if not apart <= SAME_GRID * float(np.min(header.get_zooms()[:3])):
            return [f"qform and sform disagree by up to {apart:.3g} mm: the sform is followed"]
    return []


def save_nifti(path: Path, array: NDArray[Any], grid: Grid, header: Any = None) -> None:
    """Write an array in stored order (i, j, k) as NIfTI with slope 1 and intercept 0.

    Args:
        path: where to write; the suffix decides whether it is packed.
        array: the mask or confidence in the shape of the file.
        grid: its grid; written as sform and qform when no header is given.
        header: a NIfTI header whose affine, codes, units and extensions are kept bit for bit.
    """
    if header is None:
        image = nib.Nifti1Image(array, grid.affine)
        image.set_sform(grid.affine, code=1)
        image.set_qform(grid.affine, code=1)
        image.header.set_xyzt_units("mm")
    else:
        kept = header.copy()
        kept.set_data_dtype(array.dtype)
        # What described the intensities of the image says nothing about labels.
        kept.set_intent("none")
        kept["cal_max"] = kept["cal_min"] = 0
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        # affine None: nibabel leaves the qform, the sform and their codes as they stand in the header.
        image = kind(array, None, kept)
    image.header.set_slope_inter(1, 0)
    nib.save(image, path)
