"""NRRD files (attached header), as 3D Slicer and ITK write them."""

from __future__ import annotations

import bz2
import gzip
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.files import reading, require_file
from napari_dinoaugseg.study.grid import Grid
from napari_dinoaugseg.study.nifti import choose_component
from napari_dinoaugseg.study.voxels import Voxels, check

EXPECTED = "a NRRD file"
# How each named space turns into RAS: the sign of its three axes.
_TO_RAS: dict[str, tuple[int, int, int]] = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_COLOUR_KINDS = frozenset({"rgb-color", "rgba-color"})
_SPATIAL_KINDS = frozenset({"domain", "space"})
_UNPACKERS: dict[str, Callable[..., Any]] = {
    "gzip": gzip.open,
    "gz": gzip.open,
    "bzip2": bz2.open,
    "bz2": bz2.open,
}
# Bytes in front of the voxels of a packed file that says that they are at its end.
_MOST_SKIPPED = 2**20


def read_nrrd(path: Path, component: int | None = None) -> Voxels:
    """Read one volume of a NRRD file in its stored type.

    Args:
        path: the .nrrd file; a header with its data in another file is refused.
        component: which volume where the file has a further axis.

    Raises:
        StudyError: the file is missing, damaged, detached, empty, or 4-D and no component was chosen.
    """
    require_file(path)
    with reading(path, EXPECTED), path.open("rb") as stream:
        header = nrrd.read_header(stream)
        if any(str(field).lower() in ("data file", "datafile") for field in header):
            msg = f"{path}: a detached NRRD header is not supported. Save the image as one .nrrd file."
            raise StudyError(msg)
        sizes = [int(n) for n in header["sizes"]]
        if not sizes or min(sizes) < 1:
            msg = f"{path}: the image has no voxels (its size is {tuple(sizes)}). Export it again."
            raise StudyError(msg)
        array = _read_array(path, header, stream)
        spatial, other = _axes(path, header, array.ndim)
        array = array.transpose(spatial + other)
        array, shape = _pad(array, len(spatial))
        colour = bool(other) and _is_colour(header, other[-1], array)
        trailing = array.shape[3:-1] if colour else array.shape[3:]
        grid, notices = _grid(header, spatial, shape)
        kept = _geometry_fields(header, spatial)
    index = choose_component(path, trailing, component)
    stored = array.reshape((*shape, -1, array.shape[-1]) if colour else (*shape, -1), order="F")[:, :, :, index]
    return check(
        Voxels(
            path=path,
            files=[path],
            format="nrrd",
            stored=stored[..., :3] if colour else stored,
            grid=grid,
            file_shape=tuple(shape[: max(len(spatial), 2)]),
            header=kept,
            notices=notices,
        )
    )


def _read_array(path: Path, header: Mapping[str, Any], stream: IO[bytes]) -> NDArray[Any]:
    """Read the voxels that follow the header, in the order of `sizes`."""
    lines = int(header.get("line skip", header.get("lineskip", 0)))
    if lines > path.stat().st_size:
        msg = f"{path}: its header skips more lines than the file has. It is damaged; export the image again."
        raise StudyError(msg)
    unpacker = _UNPACKERS.get(header["encoding"])
    if unpacker is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy only warns of text that is no number
            return np.asarray(nrrd.read_data(header, stream, str(path)))
    for _ in range(lines):
        stream.readline()
    return _unpack(path, header, unpacker(stream))


def _unpack(path: Path, header: Mapping[str, Any], stream: IO[bytes]) -> NDArray[Any]:
    """Read packed voxels: pynrrd would unpack a stranger's file without end before it looks at the size."""
    # pynrrd's table of types, asked by way of an array of one number.
    one = {"dimension": 1, "sizes": np.array([1]), "encoding": "raw"}
    probe = nrrd.read_data({**header, **one, "byte skip": 0, "line skip": 0}, io.BytesIO(bytes(16)))
    sizes = [int(n) for n in header["sizes"]]
    if len(sizes) != int(header["dimension"]):
        msg = f"{len(sizes)} sizes for {header['dimension']} axes"
        raise ValueError(msg)
    size = math.prod(sizes) * probe.dtype.itemsize
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    most = size + (_MOST_SKIPPED if skip < 0 else skip)
    buffer = bytearray()
    while len(buffer) <= most and (chunk := stream.read(min(1 << 24, most + 1 - len(buffer)))):
        buffer += chunk
    start = len(buffer) - size if skip < 0 else skip
    if len(buffer) > most or len(buffer) != start + size or start < 0:
        found = "more" if len(buffer) > most else f"only {len(buffer)}"
        msg = f"{path}: its header tells of {size} bytes, but there are {found}. It is damaged; export it again."
        raise StudyError(msg)
    return np.frombuffer(buffer, probe.dtype, offset=start).reshape(sizes, order="F")


def _axes(path: Path, header: Mapping[str, Any], ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tell the spatial axes from the others (time, channels), by their directions, then by their kinds."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    if "space directions" in header:
        directions = np.asarray(header["space directions"], dtype=float)
        spatial = [n for n in range(ndim) if np.isfinite(directions[n]).all()]
    elif kinds:
        spatial = [n for n in range(ndim) if kinds[n] in _SPATIAL_KINDS]
    else:
        spatial = list(range(min(ndim, 3)))
    if not 2 <= len(spatial) <= 3:
        msg = f"{path}: it has {len(spatial)} spatial axes, but 2 or 3 are needed. Export it as a volume."
        raise StudyError(msg)
    return tuple(spatial), tuple(n for n in range(ndim) if n not in spatial)


def _pad(array: NDArray[Any], spatial: int) -> tuple[NDArray[Any], tuple[int, int, int]]:
    """Give a 2-D image a third axis."""
    padded = array if spatial == 3 else np.expand_dims(array, 2)
    return padded, (padded.shape[0], padded.shape[1], padded.shape[2])


def _is_colour(header: Mapping[str, Any], axis: int, array: NDArray[Any]) -> bool:
    """Tell whether the last axis is the colour of a voxel."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    named = bool(kinds) and kinds[axis] in _COLOUR_KINDS
    return named and array.dtype == np.uint8 and array.shape[-1] in (3, 4)


def _grid(header: Mapping[str, Any], spatial: tuple[int, ...], shape: tuple[int, int, int]) -> tuple[Grid, list[str]]:
    """Return where the voxels lie, in RAS."""
    count = len(spatial)
    affine = np.eye(4)
    space = re.sub(r"-time$|t$", "", str(header.get("space", "")).lower())
    notices = []
    if "space directions" in header:
        directions = np.asarray(header["space directions"], dtype=float)[list(spatial)]
        dims = directions.shape[1]
        affine[:dims, :count] = directions.T
        if count == 2:
            affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] /= np.linalg.norm(affine[:3, 2]) or 1.0
        if "space origin" in header:
            affine[:dims, 3] = np.asarray(header["space origin"], dtype=float)[:dims]
    elif "spacings" in header and np.isfinite(np.asarray(header["spacings"], dtype=float)[list(spatial)]).all():
        affine[range(count), range(count)] = np.abs(np.asarray(header["spacings"], dtype=float)[list(spatial)])
    else:
        # Display order equals stored order for a grid whose axes run to L, P and S.
        return Grid(shape, np.diag([-1.0, -1.0, 1.0, 1.0]), known=False), ["the file does not say how large a voxel is"]
    if space not in _TO_RAS:
        notices.append("the file does not name its anatomical space: left-posterior-superior is assumed, as ITK does")
    signs = np.diag([*_TO_RAS.get(space, (-1, -1, 1)), 1])
    return Grid(shape, signs @ affine), notices


def _geometry_fields(header: Mapping[str, Any], spatial: tuple[int, ...]) -> dict[str, Any]:
    """Return the fields of the header that hold for a mask too: those of the spatial axes, and those of the whole."""
    kept: dict[str, Any] = {}
    per_axis = ("space directions", "spacings", "thicknesses", "axis mins", "axis maxs", "centers", "centerings")
    for key in ("space", "space dimension", "space origin", "space units", "measurement frame"):
        if key in header:
            kept[key] = header[key]
    for key in (*per_axis, "kinds", "units", "labels"):
        if key in header:
            # pynrrd knows this field by its other name only, and would write it as a remark.
            kept["centerings" if key == "centers" else key] = _of_axes(header[key], spatial)
    return kept


def _of_axes(values: Any, spatial: tuple[int, ...]) -> Any:
    """Return one value per spatial axis."""
    if isinstance(values, np.ndarray):
        return values[list(spatial)]
    words = values.split() if isinstance(values, str) else values
    return [words[n] for n in spatial]


def save_nrrd(path: Path, array: NDArray[Any], grid: Grid, header: Mapping[str, Any] | None = None) -> None:
    """Write an array in stored order as NRRD.

    Args:
        path: where to write.
        array: the mask or confidence in the shape of the file.
        grid: its grid; written as LPS when no header is given.
        header: the geometry fields of the original file, kept as they were.
    """
    fields = dict(header) if header is not None else lps_fields(grid, array.ndim)
    fields["encoding"] = "gzip"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pynrrd asks datetime.utcnow for its comment
        nrrd.write(buffer, array, fields, compression_level=6)
    text, _, data = buffer.getvalue().partition(b"\n\n")
    # pynrrd notes the time of writing in a comment; the same mask must give the same bytes.
    lines = [line for line in text.split(b"\n") if not line.startswith(b"#")]
    path.write_bytes(b"\n".join(lines) + b"\n\n" + data)


def lps_fields(grid: Grid, ndim: int) -> dict[str, Any]:
    """Return the geometry of a grid as NRRD fields in the space that ITK and 3D Slicer use."""
    if not grid.known:
        return {}
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine * grid.mm_per_unit
    return {
        "space": "left-posterior-superior",
        "kinds": ["domain"] * ndim,
        "space directions": lps[:3, :ndim].T,
        "space origin": lps[:3, 3],
    }
