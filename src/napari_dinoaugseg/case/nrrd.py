"""Read and write NRRD files with an attached header, and segmentations of 3D Slicer (`.seg.nrrd`).

A segmentation has the keys of 3D Slicer's segmentation file format. Overlapping segments lie in different layers (a
further axis of the array), and segments of different layers may share a label value.
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nrrd
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from napari_dinoaugseg.case.case import Segment, described
from napari_dinoaugseg.case.dicom.headers import property_of
from napari_dinoaugseg.case.files import reading, require_file, require_memory
from napari_dinoaugseg.case.geometry import MM_PER_UNIT, Grid, Voxels, check, forward_in_time
from napari_dinoaugseg.case.nifti import choose_component
from napari_dinoaugseg.errors import CaseError, LabelError

EXPECTED = "a NRRD file"
# Signs that convert the three axes of each named space to RAS.
_TO_RAS: dict[str, tuple[int, int, int]] = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_COLOUR_KINDS = frozenset({"rgb-color", "rgba-color"})
_TIME_KINDS = frozenset({"time", "domain", "space", "none", "???"})
_SPATIAL_KINDS = frozenset({"domain", "space"})
_UNPACKERS: dict[str, Callable[..., Any]] = {
    "gzip": gzip.open,
    "gz": gzip.open,
    "bzip2": bz2.open,
    "bz2": bz2.open,
}


@dataclass(frozen=True)
class NrrdContent:
    """The content of a NRRD file.

    Attributes:
        header: its fields and key/value pairs.
        array: (i, j, k, others…): the spatial axes, then time, channels or layers, then (3 or 4) colour.
        colour: whether the last axis is the colour of a voxel.
        grid: the grid of the voxels.
        itk_grid: the grid in ITK and 3D Slicer; None if it is `grid`.
        fields: the header fields that also apply to a mask.
        file_shape: the shape of a mask file.
        notices: sentences for the user.
    """

    header: Mapping[str, Any]
    array: NDArray[Any]
    colour: bool
    grid: Grid
    itk_grid: Grid | None
    fields: dict[str, Any]
    file_shape: tuple[int, ...]
    notices: list[str]

    @property
    def trailing(self) -> tuple[int, ...]:
        """The sizes of the axes other than space and colour."""
        return self.array.shape[3:-1] if self.colour else self.array.shape[3:]


def read_nrrd(path: Path, component: int | None = None) -> Voxels:
    """Read one volume of a NRRD file in its stored type.

    Args:
        path: the .nrrd file; a detached header is refused.
        component: which volume of a file with a further axis.

    Raises:
        CaseError: the file is missing, damaged, detached, empty, or 4-D and no component was chosen.
    """
    content = read_content(path)
    index = choose_component(path, content.trailing, component)
    array, colour = content.array, content.colour
    flat = array.reshape((*array.shape[:3], -1, array.shape[-1]) if colour else (*array.shape[:3], -1), order="F")
    stored = flat[:, :, :, index]
    voxels = voxels_of(path, content, stored[..., :3] if colour else stored)
    count = math.prod(content.trailing)
    voxels.of_series = (index, count) if count > 1 else None
    return voxels


def voxels_of(path: Path, content: NrrdContent, stored: NDArray[Any]) -> Voxels:
    """Return one volume (i, j, k[, colour]) of a file as `Voxels`."""
    itk = [] if content.itk_grid is None else [("place in ITK", content.itk_grid)]
    return check(
        Voxels(
            path=path,
            files=[path],
            format="nrrd",
            stored=stored,
            grid=content.grid,
            file_shape=content.file_shape,
            header=content.fields,
            other_grids=itk,
            itk_grid=content.itk_grid,
            notices=list(content.notices),
        )
    )


def read_content(path: Path) -> NrrdContent:
    """Read the whole content of a NRRD file.

    Raises:
        CaseError: the file is missing, damaged, detached or empty.
    """
    require_file(path)
    with reading(path, EXPECTED), path.open("rb") as stream:
        header = nrrd.read_header(_lines(stream))
        if any(str(field).lower() in ("data file", "datafile") for field in header):
            msg = f"{path}: a detached NRRD header is not supported. Save the image as one .nrrd file."
            raise CaseError(msg)
        sizes = [int(n) for n in header["sizes"]]
        if not sizes or min(sizes) < 1:
            msg = f"{path}: the image has no voxels (its size is {tuple(sizes)}). Export it again."
            raise CaseError(msg)
        require_memory(path, math.prod(sizes))  # at least one byte per voxel
        array = _read_array(path, header, stream)
        spatial, other = _axes(path, header, array.ndim)
        array = array.transpose(spatial + other)
        if len(spatial) == 2:
            array = np.expand_dims(array, 2)
        shape = (array.shape[0], array.shape[1], array.shape[2])
        colour = bool(other) and _is_colour(header, other[-1], array)
        in_time = _is_in_time(header, shape, spatial, other)
        if in_time:
            array = array[:, :, 0]
            shape = (array.shape[0], array.shape[1], array.shape[2])
        grid, itk_grid, notices = _grid(header, spatial, shape)
        if in_time:
            grid, itk_grid = forward_in_time(grid), itk_grid and forward_in_time(itk_grid)
            notices.insert(0, f"the file holds {shape[2]} frames in time (2D+t): they are the slices")
        # A mask keeps frames and axes of size one; the mask of one of several volumes has the spatial axes only.
        whole = in_time or (not colour and math.prod(array.shape[3:]) == 1)
        return NrrdContent(
            header=header,
            array=array,
            colour=colour,
            grid=grid,
            itk_grid=itk_grid,
            fields=_geometry_fields(header, range(len(sizes)) if whole else spatial),
            file_shape=tuple(sizes) if whole else tuple(shape[: len(spatial)]),
            notices=notices,
        )


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Decode the lines of a header: pynrrd drops non-ASCII characters, which turns micrometres into metres."""
    while line := stream.readline():
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            yield line.decode("latin-1")


def _read_array(path: Path, header: Mapping[str, Any], stream: IO[bytes]) -> NDArray[Any]:
    """Read the voxels that follow the header, in the order of `sizes`."""
    lines = int(header.get("line skip", header.get("lineskip", 0)))
    if lines > path.stat().st_size:
        msg = f"{path}: its header skips more lines than the file has. It is damaged; export the image again."
        raise CaseError(msg)
    unpacker = _UNPACKERS.get(header["encoding"])
    if unpacker is not None:
        # Decompressed here, since pynrrd skips bytes before and after the compressed data.
        for _ in range(lines):
            stream.readline()
        stream = io.BytesIO(unpacker(stream).read())
        header = {**header, "encoding": "raw", "line skip": 0, "lineskip": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy only warns about text that is not numeric
        array = np.asarray(nrrd.read_data(header, stream, str(path)))
    if unpacker is not None and stream.read(1):
        msg = f"it holds more than the {array.nbytes} bytes that its header announces"
        raise ValueError(msg)
    return array


def _axes(path: Path, header: Mapping[str, Any], ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the spatial axes and the others (time, channels), from their directions, else from their kinds."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    if "space directions" in header:
        directions = np.asarray(header["space directions"], dtype=float)
        # An axis without a direction is a list or a channel; one along the fourth dimension only is time.
        spatial = [n for n in range(ndim) if np.isfinite(directions[n]).all() and directions[n, :3].any()]
    elif kinds:
        spatial = [n for n in range(ndim) if kinds[n] in _SPATIAL_KINDS]
    else:
        spatial = list(range(min(ndim, 3)))
    if not 2 <= len(spatial) <= 3:
        msg = f"{path}: it has {len(spatial)} spatial axes, but 2 or 3 are needed. Export it as a volume."
        raise CaseError(msg)
    return tuple(spatial), tuple(n for n in range(ndim) if n not in spatial)


def _is_colour(header: Mapping[str, Any], axis: int, array: NDArray[Any]) -> bool:
    """Return whether the last axis is the colour of a voxel."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    named = bool(kinds) and kinds[axis] in _COLOUR_KINDS
    return named and array.dtype == np.uint8 and array.shape[-1] in (3, 4)


def _is_in_time(
    header: Mapping[str, Any], shape: tuple[int, int, int], spatial: tuple[int, ...], other: tuple[int, ...]
) -> bool:
    """Return whether a file is 2D+t: one slice, and one more axis after the spatial ones that is time."""
    if shape[2] != 1 or len(other) != 1 or other[0] < max(spatial) or int(header["sizes"][other[0]]) == 1:
        return False
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    return (kinds[other[0]] if kinds else "time") in _TIME_KINDS


def _grid(
    header: Mapping[str, Any], spatial: tuple[int, ...], shape: tuple[int, int, int]
) -> tuple[Grid, Grid | None, list[str]]:
    """Return the grid of the voxels, that of ITK if it differs, and notices."""
    count = len(spatial)
    affine, units = np.eye(4), np.ones(3)
    notices: list[str] = []
    if "space directions" in header:
        directions = np.asarray(header["space directions"], dtype=float)[list(spatial)]
        dims = min(directions.shape[1], 3)  # a space may have time as its fourth dimension
        affine[:dims, :count] = directions[:, :dims].T
        if count == 2:
            affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] /= np.linalg.norm(affine[:3, 2]) or 1.0
        if "space origin" in header:
            affine[:dims, 3] = np.asarray(header["space origin"], dtype=float)[:dims]
        units[:dims] = _units(header.get("space units"), range(dims), notices)
    elif "spacings" in header and np.isfinite(np.asarray(header["spacings"], dtype=float)[list(spatial)]).all():
        spacings = np.asarray(header["spacings"], dtype=float)[list(spatial)]
        affine[range(count), range(count)] = spacings  # a negative one reverses the axis, as in ITK
        affine[:count, 3] = _first_voxel(header, spatial, spacings)
        units[:count] = _units(header.get("units"), spatial, notices)
    else:
        # With axes to L, P and S, display order is stored order.
        unknown = Grid(shape, np.diag([-1.0, -1.0, 1.0, 1.0]), known=False)
        return unknown, None, ["the file does not say how large a voxel is"]
    named = str(header.get("space", "")).strip()
    space = _without_time(named).lower()
    if space not in _TO_RAS:
        problem = "the file does not name its anatomical space"
        if named:
            problem = f"the file names the space {named!r}, which is not anatomical"
        notices.append(f"{problem}: left-posterior-superior is assumed, as ITK does")
    to_ras = np.diag([*_TO_RAS.get(space, (-1, -1, 1)), 1])
    itk = Grid(shape, to_ras @ affine)
    oriented = space in _TO_RAS and "space directions" in header
    grid = Grid(shape, to_ras @ np.diag([*units, 1.0]) @ affine, oriented=oriented)
    if (units == 1.0).all():
        return grid, None, notices
    notices.append(
        "the file gives its own unit of length: sizes are shown in mm here, but ITK and 3D Slicer take its numbers "
        "as mm, and a mask in another format lies where they see the image"
    )
    return grid, itk, notices


def _first_voxel(header: Mapping[str, Any], spatial: tuple[int, ...], spacings: NDArray[np.float64]) -> Any:
    """Return the centre of the first voxel: half a voxel from the axis minimum, or at it for node centering."""
    field = next((name for name in ("axis mins", "axismins") if name in header), None)
    if field is None:
        return np.zeros(len(spatial))
    begins = np.asarray(header[field], dtype=float)[list(spatial)]
    centred = next((header[name] for name in ("centerings", "centers") if name in header), ["cell"] * 16)
    words = centred.split() if isinstance(centred, str) else centred
    half = np.array([0.0 if str(words[n]).lower() == "node" else 0.5 for n in spatial])
    return np.where(np.isfinite(begins), begins + half * spacings, 0.0)


def _units(given: Any, axes: Iterable[int], notices: list[str]) -> list[float]:
    """Return the millimetres per unit of each axis; an unknown unit counts as mm, with a notice."""
    if given is None:
        return [1.0 for _ in axes]
    words = given.split() if isinstance(given, str) else given
    names = [str(words[n]).strip().strip('"').lower() for n in axes]
    unknown = sorted({name for name in names if name not in MM_PER_UNIT and name.strip("?") not in ("", "none")})
    if unknown:
        notices.append(f"the file measures in {', '.join(map(repr, unknown))}, which is not a length: taken as mm")
    return [MM_PER_UNIT.get(name, 1.0) for name in names]


def _geometry_fields(header: Mapping[str, Any], axes: Sequence[int]) -> dict[str, Any]:
    """Return the header fields that also apply to a mask: those of its axes and of the whole space."""
    kept: dict[str, Any] = {}
    per_axis = ("space directions", "spacings", "thicknesses", "axis mins", "axis maxs", "centers", "centerings")
    for key in ("space", "space dimension", "space origin", "space units", "measurement frame"):
        if key in header:
            value = header[key]
            if key == "space units":
                value = [_ascii(word) for word in value]
            kept[key] = _ascii(value) if isinstance(value, str) else value
    for key in (*per_axis, "kinds", "units", "labels"):
        if key in header:
            # pynrrd knows this field by its other name only, and would write it as a comment.
            kept["centerings" if key == "centers" else key] = _of_axes(header[key], axes)
    if len(axes) == 3 and len(kept.get("space origin", ())) > 3:  # one volume of a series in a space with time
        kept["space directions"], kept["space origin"] = kept["space directions"][:, :3], kept["space origin"][:3]
        kept.pop("measurement frame", None)
        if "space" in kept:
            kept["space"] = _without_time(str(kept["space"]))
        else:
            kept["space dimension"] = 3
    return kept


def _without_time(space: str) -> str:
    return re.sub(r"-time$|t$", "", space.strip(), flags=re.IGNORECASE)


def _of_axes(values: Any, axes: Sequence[int]) -> Any:
    """Return one value per axis, words in ASCII as pynrrd writes them."""
    if isinstance(values, np.ndarray):
        return values[list(axes)]
    words = values.split() if isinstance(values, str) else values
    return [_ascii(words[n]) for n in axes]


def _ascii(word: Any) -> str:
    return str(word).replace("\u00b5", "u").replace("\u03bc", "u").encode("ascii", "replace").decode()


def save_nrrd(
    path: Path,
    array: NDArray[Any],
    grid: Grid,
    header: Mapping[str, Any] | None = None,
    pairs: Mapping[str, str] | None = None,
) -> None:
    """Write an array in stored order as NRRD.

    Args:
        path: where to write.
        array: the mask or confidence in the shape of the file.
        grid: its grid, written as LPS without a header.
        header: the geometry fields of the original file, kept unchanged.
        pairs: key/value pairs to add, such as those of 3D Slicer's segmentations.
    """
    fields = dict(header) if header is not None else lps_fields(grid, array.ndim)
    fields["encoding"] = "gzip"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pynrrd calls datetime.utcnow for its comment
        nrrd.write(buffer, array, fields, compression_level=6)
    text, _, data = buffer.getvalue().partition(b"\n\n")
    # pynrrd writes the time into a comment; the same mask must give the same bytes.
    lines = [line for line in text.split(b"\n") if not line.startswith(b"#")]
    # pynrrd refuses non-ASCII text; names are UTF-8, as in 3D Slicer.
    lines.extend(f"{key}:={value}".encode() for key, value in (pairs or {}).items())
    path.write_bytes(b"\n".join(lines) + b"\n\n" + data)


def lps_fields(grid: Grid, ndim: int) -> dict[str, Any]:
    """Return the geometry of a grid as NRRD fields in LPS, the space of ITK and 3D Slicer."""
    if not grid.known:
        return {}
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    return {
        "space": "left-posterior-superior",
        "kinds": ["domain"] * ndim,
        "space directions": lps[:3, :ndim].T,
        "space origin": lps[:3, 3],
    }


_KEY = re.compile(r"Segment(\d+)_(\w+)")


@dataclass(frozen=True)
class _Stored:
    """One segment of a file: its name and colour, and the layer and value of its voxels."""

    name: str
    colour: str | None
    layer: int
    value: int


def holds_segments(content: NrrdContent) -> bool:
    """Return whether a NRRD file is a segmentation of 3D Slicer."""
    return any(_KEY.fullmatch(str(key)) for key in content.header)


def merge_layers(path: Path, content: NrrdContent) -> tuple[NDArray[Any], list[Segment], list[str]]:
    """Merge the layers of a segmentation into one array of labels.

    Args:
        path: the file, for messages.
        content: its content.

    Returns:
        The labels (i, j, k), the segments, and notices. Labels are the label values of the file; if two segments share
        one, the segments are numbered in order, from 1.

    Raises:
        LabelError: segments overlap, or a layer holds a value without a segment.
    """
    if content.colour or len(content.trailing) > 1:
        msg = f"{path}: it is not a segmentation: its voxels hold several numbers. Export it again from 3D Slicer."
        raise LabelError(msg)
    layers = content.array.reshape((*content.array.shape[:3], -1), order="F")
    stored = _segments(path, content.header, layers.shape[3])
    values = [segment.value for segment in stored]
    own = len(set(values)) == len(values)
    numbers = values if own else list(range(1, len(stored) + 1))
    segments = [Segment(number, entry.name, entry.colour) for number, entry in zip(numbers, stored, strict=True)]
    if layers.shape[3] == 1 and own:
        return layers[..., 0], segments, []
    merged = np.zeros(layers.shape[:3], dtype=np.uint16, order="F")
    for n, layer in enumerate(np.moveaxis(layers, 3, 0)):
        of_value = {entry.value: number for entry, number in zip(stored, numbers, strict=True) if entry.layer == n}
        found = np.unique(layer)
        stray = [value for value in found.tolist() if value and value not in of_value]
        if stray:
            msg = f"{path}: layer {n} holds {stray[0]:g}, which no segment has. Export it again from 3D Slicer."
            raise LabelError(msg)
        for value, number in of_value.items():
            if value not in found:
                continue
            there = layer == value
            clash = there & (merged != 0)
            if clash.any():
                names = {segment.number: segment.name for segment in segments}
                first = names[int(merged[clash][0])]
                msg = (
                    f"{path}: the segments {first!r} and {names[number]!r} overlap in {int(clash.sum())} voxels, but a "
                    "voxel has one label here. Take the overlap from one of them (3D Slicer: Logical operators, "
                    "Subtract), and save again."
                )
                raise LabelError(msg)
            merged[there] = number
    notices = []
    if not own:
        listed = ", ".join(f"{segment.number} {segment.name}" for segment in segments)
        notices.append(
            f"Segments of {path.name} share label values, since they lie in different layers: they are numbered in "
            f"their order ({listed})."
        )
    return merged, segments, notices


def _segments(path: Path, header: Mapping[str, Any], n_layers: int) -> list[_Stored]:
    """Return the segments in order. Files from before 3D Slicer 4.11 have one layer per segment, with value 1."""
    found: dict[int, dict[str, str]] = {}
    for key, value in header.items():
        match = _KEY.fullmatch(str(key))
        if match is not None:
            found.setdefault(int(match[1]), {})[match[2]] = str(value)
    stored = []
    try:
        for order, (_, fields) in enumerate(sorted(found.items())):
            named = " ".join(fields.get("Name", fields.get("ID", "")).replace("\\n", " ").split())
            stored.append(
                _Stored(
                    name=named.replace("\\\\", "\\") or f"segment {order + 1}",
                    colour=_colour(fields.get("Color", "")),
                    layer=int(fields.get("Layer", order if n_layers > 1 else 0)),
                    value=int(fields.get("LabelValue", 1 if n_layers > 1 or len(found) == 1 else order + 1)),
                )
            )
    except ValueError as error:
        msg = f"{path}: layer or label value of a segment is not a number. Export it again from 3D Slicer."
        raise LabelError(msg) from error
    places = [(entry.layer, entry.value) for entry in stored]
    wrong = next((entry for entry in stored if not (0 <= entry.layer < n_layers and 0 < entry.value < 2**16)), None)
    if wrong is not None or len(set(places)) < len(places):
        what = f"the segment {wrong.name!r} has no voxels of its own" if wrong else "two segments have the same voxels"
        msg = f"{path}: {what} by its layer and label value. Export it again from 3D Slicer."
        raise LabelError(msg)
    return stored


def _colour(text: str) -> str | None:
    """Convert three numbers from 0 to 1 to `#rrggbb`; None for anything else."""
    try:
        parts = [float(part) for part in text.split()]
    except ValueError:
        return None
    if len(parts) != 3 or not all(0 <= part <= 1 for part in parts):
        return None
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)


def slicer_pairs(labels: NDArray[Any], segments: Sequence[Segment]) -> dict[str, str]:
    """Return the key/value pairs that make an array a segmentation of one layer in 3D Slicer.

    The keys are those of Slicer's developer guide, "Segmentation labelmap file format". Where the name of a segment has
    a code, its tags say so; Slicer and slicerio find segments by these.

    Args:
        labels: (i, j, k).
        segments: names and colours of the labels; others are called `class N`.
    """
    extents = _extents(labels)
    pairs: dict[str, str] = {}
    for n, segment in enumerate(described(list(extents), tuple(segments))):
        name = " ".join(segment.name.split()).replace("\\", "\\\\")
        pairs |= {
            # An empty segment has the extent 0 to -1, as in Slicer.
            f"Segment{n}_Extent": " ".join(f"{low} {high}" for low, high in extents.get(segment.number, [(0, -1)] * 3)),
            f"Segment{n}_ID": f"Segment_{segment.number}",
            f"Segment{n}_LabelValue": str(segment.number),
            f"Segment{n}_Layer": "0",
            f"Segment{n}_Name": name,
            f"Segment{n}_NameAutoGenerated": "0",
            f"Segment{n}_Tags": f"Segmentation.Status:inprogress|{_terminology(segment.name)}",
        }
        if segment.colour is not None:
            parts = [int(segment.colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
            pairs[f"Segment{n}_Color"] = " ".join(f"{part:.6g}" for part in parts)
            pairs[f"Segment{n}_ColorAutoGenerated"] = "0"
    return {
        **pairs,
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": "",
        # The name of this key up to Slicer 5.2, and since.
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }


def _extents(labels: NDArray[Any]) -> dict[int, list[tuple[int, int]]]:
    """Return the first and last index of each label along the three axes."""
    ends: dict[int, list[tuple[int, int]]] = {}
    for axis in range(3):
        along: dict[int, tuple[int, int]] = {}
        for index, part in enumerate(np.moveaxis(labels, axis, 0)):
            for value in np.flatnonzero(np.bincount(part.ravel())).tolist():
                along[value] = (along.get(value, (index, index))[0], index)
        for value, found in along.items():
            ends.setdefault(value, []).append(found)
    ends.pop(0, None)
    return ends


def _terminology(name: str) -> str:
    """Return the tag that gives category, type and side of a segment by codes; empty where its name has none."""
    coded = property_of(name)
    if coded.type == codes.SCT.Tissue:
        return ""
    parts = [
        "Segmentation category and type - DICOM master list",
        *("^".join((code.scheme_designator, code.value, code.meaning)) for code in (coded.category, coded.type)),
        "^^" if coded.side is None else f"{coded.side.scheme_designator}^{coded.side.value}^{coded.side.meaning}",
        *("Anatomic codes - DICOM master list", "^^", "^^"),
    ]
    return f"TerminologyEntry:{'~'.join(parts)}|"
