"""NIfTI-1 and NIfTI-2 files, read and written with their own header."""

from __future__ import annotations

import gzip
import io
import itertools
import math
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

# By the lowest three bits of xyzt_units: metres, millimetres, micrometres; anything else is taken as millimetres.
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
# Deflate cannot pack tighter than about 1032 to 1: a header that asks for more is not to be believed.
_MOST_PACKED = 1100
# Bytes in front of the voxels and behind them: an extension may claim any length, and a packed file hold anything.
_MOST_HEADER = 16 * 2**20
_MOST_BEHIND = 2**20
_CIFTI_INTENTS = range(3000, 3100)


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
        header = _read_header(path, packed)
        file_shape = tuple(int(n) for n in header.get_data_shape())
        dtype = np.dtype(header.get_data_dtype())
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        slope, intercept = _scaling(header, dtype)
        offset = int(header.get_data_offset())
    shape, trailing = _split_shape(path, file_shape, dtype)
    index = choose_component(path, trailing, component)
    step = math.prod(shape) * dtype.itemsize
    total = step * math.prod(trailing)
    with reading(path, expected):
        read = _read_packed if packed else _map
        stored = read(path, shape, dtype, offset, step * index, total)
    grid = Grid(shape, affine, mm_per_unit=_MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0))
    # With a component chosen the mask is one volume; trailing dimensions of size one are kept as they are.
    mask_shape = file_shape if math.prod(trailing) == 1 else shape
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
            notices=_geometry_notices(header, grid),
        )
    )


def _read_header(path: Path, packed: bool) -> nib.Nifti1Header:
    """Read the header and its extensions from the first bytes alone.

    nibabel believes the length that an extension claims, and would unpack as much of a stranger's file into memory.

    Raises:
        StudyError: another format of nibabel's, or half of a pair of files.
    """
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        start = stream.read(nib.Nifti2Header.sizeof_hdr)
        kinds = (nib.Nifti1Header, nib.Nifti2Header)
        kind = next((kind for kind in kinds if kind.may_contain_header(start)), None)
        if kind is None:
            raise StudyError(unreadable(path, "a gzip-packed NIfTI file" if packed else "a NIfTI file"))
        plain = kind(start[: kind.sizeof_hdr], check=False)
        offset = int(plain["vox_offset"])
        if bytes(plain["magic"].item())[:3] != kind.single_magic[:3] or offset < kind.single_vox_offset:
            msg = f"{path}: its header is one of a pair of files (.hdr and .img). Save the image as one .nii file."
            raise StudyError(msg)
        if offset > _MOST_HEADER:
            msg = f"{path}: its header claims to be {offset >> 20} MiB long, so it is damaged. Export the image again."
            raise StudyError(msg)
        start += stream.read(max(offset - len(start), 0))
    header = kind.from_fileobj(io.BytesIO(start))
    if int(header["intent_code"]) in _CIFTI_INTENTS:
        msg = f"{path}: this is a CIFTI file (surfaces or connectivity), not an image. Give the volume as NIfTI."
        raise StudyError(msg)
    return header


def _scaling(header: nib.Nifti1Header, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return slope and intercept; the format says that they do not hold for colours."""
    slope, intercept = header.get_slope_inter()
    if slope is None or dtype.names is not None:
        return 1.0, 0.0
    return float(slope), float(0.0 if intercept is None else intercept)


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
    count = math.prod(trailing)
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
        # What lies behind the volume is read for its checksum, but not without end.
        while remaining >= -(total + _MOST_BEHIND) and (chunk := stream.read(1 << 20)):
            remaining -= len(chunk)
    if remaining > 0:
        msg = f"{path}: the file is cut off: {remaining} bytes are missing. Copy or export it again."
        raise StudyError(msg)
    if remaining < -(total + _MOST_BEHIND):
        msg = f"{path}: it holds far more than the {total} bytes that its header tells of. Export the image again."
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


def _geometry_notices(header: nib.Nifti1Header, grid: Grid) -> list[str]:
    """Say where the header contradicts itself or is silent; nibabel's choice is followed: sform, qform, voxel sizes."""
    q_code, s_code = int(header["qform_code"]), int(header["sform_code"])
    if q_code == 0 and s_code == 0:
        return ["the header gives no orientation (qform and sform codes are 0): left and right are not certain"]
    if q_code == 0 or s_code == 0:
        return []
    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except ValueError:  # the quaternion is too long to be a rotation
        return ["the qform is no rotation: the sform is followed"]
    corners = np.array(list(itertools.product(*((0, n - 1) for n in grid.shape), (1,)))).T
    with np.errstate(all="ignore"):
        apart = np.linalg.norm(((qform - grid.affine) @ corners)[:3], axis=0).max() * grid.mm_per_unit
    if apart <= SAME_GRID * min(grid.spacing):
        return []
    amount = f"by up to {apart:.3g} mm" if np.isfinite(apart) else "(the qform holds numbers that are not finite)"
    return [f"qform and sform disagree {amount}: the sform is followed"]


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
