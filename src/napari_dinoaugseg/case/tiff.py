"""Read and write multi-page TIFF stacks. TIFF has neither position nor direction; ImageJ and OME add a voxel size."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_dinoaugseg.case.files import TIFF_SUFFIXES, reading, require_file, require_memory, suffix_of, times
from napari_dinoaugseg.case.geometry import MM_PER_UNIT, Grid, Voxels, check
from napari_dinoaugseg.case.nifti import choose_component
from napari_dinoaugseg.errors import CaseError

EXPECTED = "a TIFF picture"
# Axes in the notation of tifffile that may number the pages of a stack, the likeliest first.
_SLICE_AXES = "ZIQTR"

_LARGE_PART = 64 * 2**20  # bytes: a tile may be larger than a small page


@dataclass(frozen=True)
class VoxelSize:
    """The voxel size of a TIFF file.

    Attributes:
        x: distance between columns, in `unit`.
        y: distance between rows.
        z: distance between pages.
        unit: in the spelling of the file.
    """

    x: float
    y: float
    z: float
    unit: str

    @property
    def millimetres(self) -> tuple[float, float, float]:
        """The size (x, y, z) in mm."""
        unit = MM_PER_UNIT[_plain(self.unit)]
        return self.x * unit, self.y * unit, self.z * unit


class _Complaints(logging.Handler):
    """Collect errors that tifffile only logs, such as a broken chain of pages."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file; raise on exit if tifffile logged an error.

    Raises:
        CaseError: the file is damaged or not TIFF.
    """
    complaints, logger = _Complaints(), logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        # OME-TIFF may refer to other files; only this one is read.
        with reading(path, EXPECTED), tifffile.TiffFile(path, _multifile=False) as tiff:
            _require_parts(path, tiff)
            yield tiff
            if complaints.messages:
                raise ValueError(complaints.messages[0])
    finally:
        logger.removeHandler(complaints)


def _require_parts(path: Path, tiff: tifffile.TiffFile) -> None:
    """Raise `ValueError` when damage makes a strip or tile longer than the file, or far larger than its page.

    Or when there are more of them than the file has bytes: each takes some, and tifffile goes through all.
    """
    size = path.stat().st_size
    pages = (page for series in tiff.series for page in series.pages if page is not None)  # cyclic chains end here
    for page in pages:
        part = math.prod(page.chunks) * page.dtype.itemsize if page.dtype is not None else 0
        longest = max(page.databytecounts, default=0)
        if longest > size or math.prod(page.chunked) > size or part > max(page.nbytes, _LARGE_PART):
            msg = "its strips or tiles announce more than there is"
            raise ValueError(msg)


def count_planes(tiff: tifffile.TiffFile) -> int:
    """Return the number of images in an open TIFF file, without previews of lower resolution."""
    return sum(_planes(series) for series in tiff.series)


def is_stack(path: Path) -> bool:
    """Return whether a file is a TIFF of several pages. Raises CaseError if it is damaged or not TIFF."""
    if suffix_of(path) not in TIFF_SUFFIXES:
        return False
    require_file(path)
    with open_tiff(path) as tiff:
        return count_planes(tiff) > 1


def _planes(series: tifffile.TiffPageSeries) -> int:
    return int(np.prod([n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS"]))


def read_tiff_stack(path: Path, component: int | None = None) -> Voxels:
    """Read a multi-page TIFF: page k is slice k.

    Args:
        path: the .tif or .tiff file.
        component: which channel or time point of a stack that has several.

    Raises:
        CaseError: the file is damaged, its pages differ in size, or a component must be chosen.
    """
    require_file(path)
    with open_tiff(path) as tiff:
        if len(tiff.series) != 1:
            msg = f"{path}: its pages differ in size or type. Save them as single pictures in a folder."
            raise CaseError(msg)
        series = tiff.series[0]
        axes = series.axes
        require_memory(path, int(series.nbytes))
        array = series.asarray()
        size, notices = _voxel_size(path, tiff)
    if "Y" not in axes or "X" not in axes or array.size == 0:
        msg = f"{path}: the pages hold no pixels. Export the stack again."
        raise CaseError(msg)
    stored = _to_native(path, array, axes, component)
    shape = (stored.shape[0], stored.shape[1], stored.shape[2])
    x, y, z = size.millimetres if size is not None else (1.0, 1.0, 1.0)
    # With axes to L, P and S, pages are displayed in their order and as stored.
    grid = Grid(shape, np.diag([-x, -y, z, 1.0]), known=size is not None)
    voxels = Voxels(path=path, files=[path], format="tiff", stored=stored, grid=grid, file_shape=shape, header=size)
    voxels.notices.extend(notices)
    return check(voxels)


def _voxel_size(path: Path, tiff: tifffile.TiffFile) -> tuple[VoxelSize | None, list[str]]:
    """Return the voxel size from ImageJ or OME metadata, and notices."""
    if tiff.is_imagej:
        found, problem = _of_imagej(tiff)
    elif tiff.is_ome:
        found, problem = _of_ome(tiff)
    else:
        return None, []
    if found is None:
        return None, [f"{path.name}: {problem}, so distances are counted in voxels"] if problem else []
    voxels = f"{path.name}: voxels of {times(found.millimetres)} mm, {problem or 'as the file says'}"
    return found, [f"{voxels}; TIFF says nothing about position and direction in the body"]


def _of_imagej(tiff: tifffile.TiffFile) -> tuple[VoxelSize | None, str]:
    facts, page = tiff.imagej_metadata or {}, tiff.pages.first
    unit = str(facts.get("unit", "")).strip()
    per_unit = [_per_unit(page.tags.get(name)) for name in ("XResolution", "YResolution")]
    if not unit and int(getattr(page.tags.get("ResolutionUnit"), "value", 1)) in (2, 3) and "spacing" in facts:
        unit = "inch" if int(page.tags["ResolutionUnit"].value) == 2 else "cm"
    spacing = _number(facts.get("spacing", 1.0))
    if _plain(unit) not in MM_PER_UNIT:
        measured = "spacing" in facts and spacing not in (None, 1.0)
        named = f"the unit {unit!r}, which is not a length" if unit and _plain(unit) not in _NO_UNIT else "no unit"
        is_given = (measured or (unit and _plain(unit) not in _NO_UNIT)) and _plain(unit) not in ("pixel", "pixels")
        return None, f"ImageJ gives its voxel size in {named}" if is_given else ""
    if spacing is None or spacing == 0 or None in per_unit:
        return None, "ImageJ gives a voxel size that is not a positive number"
    x, y = (1 / value for value in per_unit if value is not None)
    # ImageJ omits the slice distance if it is one unit.
    problem = "" if "spacing" in facts else f"their depth taken as 1 {unit}, which ImageJ leaves out"
    return VoxelSize(x, y, abs(spacing), unit), problem


# Placeholders of uncalibrated files.
_NO_UNIT = frozenset({"", "pixel", "pixels", "none", "null"})


def _of_ome(tiff: tifffile.TiffFile) -> tuple[VoxelSize | None, str]:
    images = tifffile.xml2dict(tiff.ome_metadata or "").get("OME", {}).get("Image", {})
    pixels = (images[0] if isinstance(images, list) else images).get("Pixels", {})
    given = {axis: pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"}
    if all(value is None for value in given.values()):
        return None, ""
    sizes = {axis: _number(value) for axis, value in given.items()}
    # The default unit of the OME schema is the micrometre.
    units = {axis: str(pixels.get(f"PhysicalSize{axis}Unit", "um")) for axis in "XYZ"}
    lacking = [axis for axis, value in sizes.items() if not value or _plain(units[axis]) not in MM_PER_UNIT]
    if lacking:
        return None, f"OME gives no usable voxel size along {', '.join(lacking)}"
    x, y, z = (abs(sizes[axis] or 0.0) * MM_PER_UNIT[_plain(units[axis])] for axis in "XYZ")
    return VoxelSize(x, y, z, "mm"), ""


def _plain(unit: str) -> str:
    r"""Return a unit in lower case, with the escapes that ImageJ writes (`\u00B5m`) resolved."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), unit).strip().casefold()


def _number(value: Any) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _per_unit(tag: tifffile.TiffTag | None) -> float | None:
    """Return the pixels per unit of a resolution tag (a fraction); 1 without the tag, None for an invalid one."""
    if tag is None:
        return 1.0
    above, below = tag.value if isinstance(tag.value, tuple) else (tag.value, 1)
    number = _number(above / below) if below else None
    return number if number is not None and number > 0 else None


def _to_native(path: Path, array: NDArray[Any], axes: str, component: int | None) -> NDArray[Any]:
    """Return the array with its axes in the order (x, y, page[, colour])."""
    colour = "S" in axes
    others = [axis for axis in axes if axis not in "YXS"]
    page = next((axis for axis in _SLICE_AXES if axis in others), others[0] if others else None)
    rest = [axis for axis in others if axis != page]
    if page is None:
        array, axes, page = array[np.newaxis], f"Z{axes}", "Z"
    order = [axes.index(axis) for axis in ("X", "Y", page, *rest, *("S" if colour else ""))]
    moved = array.transpose(order)
    trailing = moved.shape[3 : 3 + len(rest)]
    chosen = moved
    for n in np.unravel_index(choose_component(path, trailing, component), trailing) if rest else ():
        chosen = chosen[:, :, :, n]
    if not colour:
        return chosen
    if chosen.dtype != np.uint8 or chosen.shape[3] not in (3, 4):
        msg = f"{path}: colour pages must be 8-bit RGB. Convert the stack to 8-bit RGB or to grey."
        raise CaseError(msg)
    return chosen[..., :3]


def save_tiff_stack(path: Path, array: NDArray[Any], size: VoxelSize | None = None) -> None:
    """Write an array in stored order (x, y, page) as a multi-page TIFF, one page per slice.

    Args:
        path: where to write.
        array: labels, or a confidence as float32.
        size: the voxel size, written as ImageJ metadata; None for no size.
    """
    pages = np.ascontiguousarray(array.transpose(2, 1, 0))
    if size is not None:
        unit = "".join(char if char.isascii() else f"\\u{ord(char):04X}" for char in size.unit)  # as ImageJ escapes
        facts = {"axes": "ZYX", "spacing": size.z, "unit": unit}
        per_unit = (1 / size.x, 1 / size.y)
        tifffile.imwrite(path, pages, imagej=True, resolution=per_unit, metadata=facts, compression="zlib")
        return
    with tifffile.TiffWriter(path, bigtiff=pages.nbytes > 2**31) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", compression="zlib", metadata=None, software=False)
