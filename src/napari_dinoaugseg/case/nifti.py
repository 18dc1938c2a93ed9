"""Read NIfTI-1 and NIfTI-2 files, and write masks with the header of their image."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from numpy.typing import NDArray

from napari_dinoaugseg.case.files import (
    GZIP,
    is_gzip,
    reading,
    require_file,
    require_memory,
    suffix_of,
    times,
    unreadable,
)
from napari_dinoaugseg.case.geometry import SAME_GRID, Grid, Voxels, apart, check, forward_in_time
from napari_dinoaugseg.errors import CaseError, Hint, SeveralVolumesError

# By the lowest three bits of xyzt_units: metres, millimetres, micrometres; anything else is taken as millimetres.
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_CIFTI_INTENTS = range(3000, 3100)
# Intents whose trailing dimension holds the components of one voxel: matrices, vectors, colours.
_COMPONENT_INTENTS = frozenset({1004, 1005, 1006, 1007, 1008, 1009, 1010, 2003, 2004})
# Tolerances of ITK for orthonormal axes and for equal forms, determined experimentally.
_ORTHOGONAL = 1e-4
_ALIKE_FORMS = 1e-4
_GZIP_MEMBER = zlib.MAX_WBITS | 16
_PACKED_PIECE, _PIECE = 1 << 18, 1 << 20  # bytes that are read and unpacked at a time


def read_nifti(path: Path, component: int | None = None) -> Voxels:
    """Read one volume of a NIfTI file in its stored type, compressed or not, regardless of its name.

    Uncompressed files are memory-mapped. Of a 4-D file only the chosen component is read. The slices of a file of one
    slice at several times, of shape (X, Y, 1, T), (X, 1, Y, T) or (1, X, Y, T), are its frames.

    Args:
        path: the file.
        component: which volume of a file with more than three dimensions, counted over the trailing dimensions in
            stored order (the fourth varies fastest).

    Raises:
        CaseError: the file is missing, damaged, not NIfTI, complex, empty, or 4-D and no component was chosen.
    """
    require_file(path)
    packed = is_gzip(path)
    expected = "a gzip-packed NIfTI file" if packed or suffix_of(path) == ".nii.gz" else "a NIfTI file"
    with reading(path, expected):
        header = _read_header(path, packed, expected)
        sound = _sound(header)
        file_shape = tuple(int(n) for n in sound.get_data_shape())
        dtype = np.dtype(sound.get_data_dtype())
        slope, intercept = _scaling(sound, dtype)
        offset = int(sound.get_data_offset())
    shape, trailing = _split_shape(path, file_shape)
    frames = component is None and _is_in_time(header, shape, trailing)
    axes = (0, 1, 2)
    if frames:
        # The voxels lie in the file as those of (X, Y, T): an axis of one voxel takes no place.
        axes = _axes_of_frame(shape)
        shape, trailing = (shape[axes[0]], shape[axes[1]], math.prod(trailing)), ()
    index = choose_component(path, trailing, component)
    step = math.prod(shape) * dtype.itemsize
    total = step * math.prod(trailing)
    with reading(path, expected):
        read = _read_packed if packed else _map
        stored = read(path, shape, dtype, offset, step * index, total)
        place = _place(header, sound, shape, axes, frames=frames)
    # The mask of one component is one volume; frames and trailing dimensions of size one are kept.
    mask_shape = file_shape if math.prod(trailing) == 1 else shape
    return check(
        Voxels(
            path=path,
            files=[path],
            format="nifti",
            stored=_channels_last(stored),
            grid=place.grid,
            file_shape=mask_shape,
            slope=slope,
            intercept=intercept,
            header=header,
            form=place.form,
            other_grids=place.others,
            itk_grid=place.itk,
            itk_refuses=place.itk_refuses,
            of_series=(index, math.prod(trailing)) if math.prod(trailing) > 1 else None,
            notices=[*_name_notices(path, packed), *place.notices],
        )
    )


def _read_header(path: Path, packed: bool, expected: str) -> nib.Nifti1Header:
    """Read the header without repairs, with its extensions.

    Raises:
        CaseError: not NIfTI, compressed twice, CIFTI, or half of a pair of files.
    """
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        start = stream.read(nib.Nifti2Header.sizeof_hdr)
        kinds = (nib.Nifti1Header, nib.Nifti2Header)
        kind = next((kind for kind in kinds if kind.may_contain_header(start)), None)
        if kind is None and packed and start.startswith(GZIP):
            msg = f"{path}: it is packed with gzip twice. Unpack it once, and give what comes out."
            raise CaseError(msg)
        if kind is None:
            raise CaseError(unreadable(path, expected))
        plain = kind(start[: kind.sizeof_hdr], check=False)
        if bytes(plain["magic"].item())[:3] != kind.single_magic[:3] or plain["vox_offset"] < kind.single_vox_offset:
            msg = f"{path}: its header is one of a pair of files (.hdr and .img). Save the image as one .nii file."
            raise CaseError(msg)
        stream.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about extensions of odd length, which are kept
            header = kind.from_fileobj(stream, check=False)
    if int(header["intent_code"]) in _CIFTI_INTENTS:
        msg = f"{path}: this is a CIFTI file (surfaces or connectivity), not an image. Give the volume as NIfTI."
        raise CaseError(msg)
    return header


def _sound(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Return a copy repaired by nibabel, for reading only.

    A mask keeps the original header, so that every program interprets its faults alike for image and mask.
    """
    sound = header.copy()
    for code in ("qform_code", "sform_code"):
        if int(sound[code]) not in sound._field_recoders[code].value_set():
            sound[code] = 2 if int(sound[code]) > 0 else 0  # the form exists, aligned to something
    with LoggingOutputSuppressor():
        sound.check_fix()
    return sound


def _is_in_time(header: nib.Nifti1Header, shape: tuple[int, int, int], trailing: tuple[int, ...]) -> bool:
    """Return whether a file is 2D+t: one slice at several times, not the components of a vector."""
    many = bool(trailing) and trailing[0] > 1 and math.prod(trailing[1:]) == 1
    is_slice = shape[2] == 1 or shape.count(1) == 1
    return many and is_slice and int(header["intent_code"]) not in _COMPONENT_INTENTS


def _axes_of_frame(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the spatial axes of a file of one slice in the order in which that across the slice is the last."""
    across = 2 if shape[2] == 1 else shape.index(1)
    first, second = (axis for axis in range(3) if axis != across)
    return first, second, across


def _name_notices(path: Path, packed: bool) -> list[str]:
    """Return a notice if the suffix does not match the content."""
    suffix = suffix_of(path)
    if suffix == (".nii.gz" if packed else ".nii"):
        return []
    is_what = "NIfTI packed with gzip" if packed else "NIfTI that is not packed"
    return [f"{path.name} is {is_what}, whatever its name says, and is read as such"]


def _scaling(header: nib.Nifti1Header, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return slope and intercept; colours are not scaled."""
    slope, intercept = header.get_slope_inter()
    if slope is None or dtype.names is not None:
        return 1.0, 0.0
    return float(slope), float(0.0 if intercept is None else intercept)


def _split_shape(path: Path, file_shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return the three spatial axes (a 2-D file is one slice) and the trailing ones."""
    if len(file_shape) < 2 or min(file_shape) < 1:
        msg = f"{path}: the image has no pixels (its size is {file_shape}). Export it again."
        raise CaseError(msg)
    padded = (*file_shape, 1)
    return (padded[0], padded[1], padded[2]), file_shape[3:]


def choose_component(path: Path, trailing: tuple[int, ...], component: int | None) -> int:
    """Return the index of the volume to read of a file with trailing dimensions.

    Raises:
        SeveralVolumesError: there are several and none was chosen.
        CaseError: the chosen one does not exist.
    """
    count = math.prod(trailing)
    if component is None:
        if count > 1:
            msg = f"{path}: it holds {count} volumes (time points or channels)."
            raise SeveralVolumesError(msg, count)
        return 0
    require_component(path, component, count)
    return component


def require_component(path: Path, component: int, count: int) -> None:
    """Raise `CaseError` unless `component` is one of `count` volumes."""
    if not 0 <= component < count:
        msg = f"{path}: there is no component {component}."
        raise CaseError(msg, Hint.CHOOSE_VOLUME, last=count - 1)


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, start: int, total: int) -> NDArray[Any]:
    """Memory-map the voxels of an uncompressed file; changes stay in memory (mode c)."""
    size = path.stat().st_size
    if size < offset + total:
        msg = f"{path}: the file is cut off: {size} bytes of {offset + total}. Copy or export it again."
        raise CaseError(msg)
    return np.memmap(path, dtype=dtype, mode="c", offset=offset + start, shape=shape, order="F")


def _read_packed(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, start: int, total: int
) -> NDArray[Any]:
    """Read voxels of a .nii.gz into one array, then the stream to its end to verify its checksum."""
    require_memory(path, math.prod(shape) * dtype.itemsize)
    stored = np.empty(shape, dtype=dtype, order="F")
    buffer = stored.reshape(-1, order="F").view(np.uint8).data
    before, done, behind = offset + start, 0, 0
    with path.open("rb") as stream:
        for piece in _unpacked(stream):
            voxels = memoryview(piece)[before:]
            before -= min(before, len(piece))
            wanted = voxels[: len(buffer) - done]
            buffer[done : done + len(wanted)] = wanted
            done += len(wanted)
            behind += len(voxels) - len(wanted)
    missing = total - start - done - behind
    if missing > 0:
        msg = f"{path}: the file is cut off: {missing} bytes are missing. Copy or export it again."
        raise CaseError(msg)
    return stored


def _unpacked(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what a gzip file holds, and verify its checksums.

    In larger pieces than the 8 kB of Python's own reader, which has to wait for the interpreter after each while the
    window draws.
    """
    member, packed, piece = zlib.decompressobj(_GZIP_MEMBER), b"", b""
    while packed or piece or (packed := stream.read(_PACKED_PIECE)):
        if member.eof:
            packed = packed.lstrip(b"\0")  # padding
            if not packed:
                piece = b""
                continue
            member = zlib.decompressobj(_GZIP_MEMBER)
        piece = member.decompress(packed, _PIECE)
        yield piece
        packed = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        msg = "the compressed file ended before its end-of-stream marker"
        raise EOFError(msg)


def _channels_last(stored: NDArray[Any]) -> NDArray[Any]:
    """Convert RGB24 and RGBA32 voxels to (i, j, k, 3), without opacity."""
    if stored.dtype.names is None or stored.dtype.names[:3] != ("R", "G", "B"):
        return stored
    count = len(stored.dtype.names)
    # The channels of a voxel are adjacent bytes: view the first axis, which is contiguous, as bytes.
    flat = np.asarray(stored).reshape(-1, order="F").view(np.uint8).reshape(-1, count)
    return flat.reshape((*stored.shape, count), order="F")[..., :3]


@dataclass(frozen=True)
class _Place:
    """The grid in use, the form it comes from, other readings of the header, and how ITK sees the file."""

    grid: Grid
    form: str
    others: list[tuple[str, Grid]]
    itk: Grid | None
    itk_refuses: bool
    notices: list[str]


def _place(
    header: nib.Nifti1Header,
    sound: nib.Nifti1Header,
    shape: tuple[int, int, int],
    axes: tuple[int, int, int],
    *,
    frames: bool,
) -> _Place:
    """Return the position of the voxels: as in nibabel, from the sform, else the qform, else the voxel sizes.

    `axes` are those of the file in the order of `shape`.
    """
    to_mm = np.diag([*[_MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)] * 3, 1.0])
    q_code, s_code = int(sound["qform_code"]), int(sound["sform_code"])
    form = "sform" if s_code > 0 else "qform" if q_code > 0 else "voxel sizes"

    def grid_of(affine: NDArray[Any]) -> Grid:
        turned = (to_mm @ np.asarray(affine, dtype=np.float64))[:, [*axes, 3]]
        grid = Grid(shape, turned, oriented=form != "voxel sizes")
        return forward_in_time(grid) if frames else grid

    grid = grid_of(sound.get_best_affine())
    notices = [f"the file holds {shape[2]} frames in time (2D+t): they are the slices"] if frames else []
    others: list[tuple[str, Grid]] = []
    if form == "voxel sizes":
        notices.append("the header gives no orientation (qform and sform codes are 0): left and right are not certain")
    if min(q_code, s_code) > 0:
        qform, notice = _other_form(sound, grid, grid_of)
        others.extend([("qform", qform)] if qform is not None else [])
        notices.extend([notice] if notice else [])
    itk = None
    affine = _itk_affine(header, sound)
    if affine is not None and grid.problem is None:
        itk = grid_of(affine)
        if apart(grid, itk)[1] <= SAME_GRID:
            itk = None
    if itk is not None:
        others.append(("place in ITK", itk))
        notices.extend(_itk_notices(header, grid, itk))
    return _Place(grid, form, others, itk, affine is None, notices)


def _other_form(
    sound: nib.Nifti1Header, grid: Grid, grid_of: Callable[[NDArray[Any]], Grid]
) -> tuple[Grid | None, str]:
    """Return the grid of the qform if it is usable, and a notice if it differs from that of the sform."""
    try:
        qform = grid_of(sound.get_qform())
    except ValueError:  # the quaternion is longer than 1
        return None, "the qform is not a rotation: the sform is followed"
    distance, voxels = apart(grid, qform)
    if voxels <= SAME_GRID:
        return qform, ""
    finite = np.isfinite(distance)
    amount = f"by up to {distance:.3g} mm" if finite else "(the qform holds numbers that are not finite)"
    return qform if qform.problem is None else None, f"qform and sform disagree {amount}: the sform is followed"


def _itk_affine(header: nib.Nifti1Header, sound: nib.Nifti1Header) -> NDArray[np.float64] | None:
    """Return the affine (RAS, in the units of the file) that ITK derives from a header; None if ITK refuses it.

    Observed with SimpleITK 2.5: spacing is |pixdim|, or 1 if that is 0 or NaN, regardless of the sform. Directions and
    origin come from the sform if its code is 1 or it is the only form, else from the qform; without either, the axes
    run to the left, back and head from 0. A negative pixdim mirrors its axis.
    """
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    sizes = np.where(np.isfinite(pixdim) & (pixdim != 0), np.abs(pixdim), 1.0)
    scales = np.where(pixdim < 0, -sizes, sizes)
    q_code, s_code = int(sound["qform_code"]), int(sound["sform_code"])
    qform = sform = None
    if q_code > 0:
        try:
            qform = np.asarray(sound.get_qform(), dtype=np.float64)
        except ValueError:
            return None
    if s_code > 0:
        sform = np.asarray(sound.get_sform(), dtype=np.float64)
        axes = _unit_columns(sform)
        sheared = not np.isfinite(sform).all() or np.abs(axes.T @ axes - np.eye(3)).max() > _ORTHOGONAL
        if sheared or (qform is not None and s_code != 1 and np.abs(qform - sform).max() > _ALIKE_FORMS):
            sform = None
    chosen = sform if sform is not None else qform
    if chosen is None:
        return None if s_code > 0 else np.diag([-scales[0], -scales[1], scales[2], 1.0])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = _unit_columns(chosen) * scales, chosen[:3, 3]
    return affine


def _unit_columns(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return np.asarray(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))


def _itk_notices(header: nib.Nifti1Header, grid: Grid, itk: Grid) -> list[str]:
    """Return a notice why ITK and 3D Slicer place the voxels elsewhere; they place a mask in NIfTI like its image."""
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if (pixdim < 0).any():
        why = f"voxel sizes in the header are negative ({times(pixdim)}): they are read as positive"
        then = "mirror these axes, so left and right are not certain"
    elif any(n > 1 and abs(a - b) > 1e-3 * a for n, a, b in zip(grid.shape, grid.spacing, itk.spacing, strict=True)):
        why = f"the voxel sizes in the header are not those of the affine ({times(grid.spacing)} mm)"
        then = f"see voxels of {times(itk.spacing)} mm"
    elif int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        return []
    else:
        why, then = "the header contradicts itself", "follow the other form"
    return [f"{why}; ITK and 3D Slicer {then}. A mask in NIfTI lies on the image in every program"]


_PLACE = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


def anonymous(header: nib.Nifti1Header, shape: tuple[int, ...]) -> nib.Nifti1Header:
    """Return a header of NIfTI-1 with the place of another one and nothing else of it; ITK does not read NIfTI-2.

    Its texts (`descrip`, `aux_file`, `db_name`, `intent_name`) and its extensions, which may hold a DICOM header, are
    left behind: they often name the patient.

    Args:
        header: of the image.
        shape: of the array that is written with the new header; two or three axes.
    """
    made = nib.Nifti1Header()
    made.set_data_shape(shape)
    for name in _PLACE:
        made[name] = header[name]
    made["pixdim"][: len(shape) + 1] = header["pixdim"][: len(shape) + 1]
    made["xyzt_units"] = int(header["xyzt_units"]) & 7
    return made


def save_nifti(path: Path, array: NDArray[Any], grid: Grid, header: Any = None) -> None:
    """Write an array in stored order (i, j, k) as NIfTI with slope 1 and intercept 0.

    Args:
        path: where to write; the suffix determines compression.
        array: the mask or confidence in the shape of the file.
        grid: its grid, written as sform and qform without a header.
        header: the NIfTI header of the image, whose affine, codes, units and extensions are kept bit for bit.
    """
    if header is None:
        image = nib.Nifti1Image(array, grid.affine)
        image.set_sform(grid.affine, code=1)
        image.set_qform(grid.affine, code=1)
        image.header.set_xyzt_units("mm")
    else:
        kept = header.copy()
        kept.set_data_dtype(array.dtype)
        # The intent and the display range apply to the intensities of the image only.
        kept.set_intent("none")
        kept["cal_max"] = kept["cal_min"] = 0
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        # affine None: nibabel keeps qform and sform, but repairs faults. They are restored, so that every program
        # interprets image and mask alike.
        with LoggingOutputSuppressor():
            image = kind(array, None, kept)
        for code in ("qform_code", "sform_code"):
            image.header[code] = header[code]
        axes = array.ndim + 1 if array.ndim < len(header.get_data_shape()) else None
        image.header["pixdim"][:axes] = header["pixdim"][:axes]
    image.header.set_slope_inter(1, 0)
    with LoggingOutputSuppressor():
        nib.save(image, path)
