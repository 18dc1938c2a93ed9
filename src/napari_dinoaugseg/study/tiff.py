"""Multi-page TIFF stacks. TIFF has no place for position and direction, so the pages are slices and nothing more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.files import reading, require_file
from napari_dinoaugseg.study.grid import Grid
from napari_dinoaugseg.study.nifti import choose_component
from napari_dinoaugseg.study.voxels import Voxels, check

EXPECTED = "a TIFF picture"
# tifffile's names of axes that number the pages of a stack, the likeliest first.
_SLICE_AXES = "ZIQTR"


class _Complaints(logging.Handler):
    """Keeps what tifffile only logs: a broken chain of pages gives fewer pages and no exception."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file, and raise on leaving when tifffile met damage.

    Raises:
        StudyError: the file is damaged or no TIFF.
    """
    complaints, logger = _Complaints(), logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with reading(path, EXPECTED), tifffile.TiffFile(path) as tiff:
            yield tiff
            if complaints.messages:
                raise ValueError(complaints.messages[0])
    finally:
        logger.removeHandler(complaints)


def count_pages(path: Path) -> int:
    """Return how many images a TIFF file holds, previews of lower resolution not counted.

    Raises:
        StudyError: the file is damaged or no TIFF.
    """
    require_file(path)
    with open_tiff(path) as tiff:
        return sum(_planes(series) for series in tiff.series)


def _planes(series: tifffile.TiffPageSeries) -> int:
    return int(np.prod([n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS"]))


def read_tiff_stack(path: Path, component: int | None = None) -> Voxels:
    """Read a multi-page TIFF: page k is slice k.

    Args:
        path: the .tif or .tiff file.
        component: which channel or time point of a stack that has these beside its slices.

    Raises:
        StudyError: the file is damaged, its pages differ in size, or a component must be chosen.
    """
    require_file(path)
    with open_tiff(path) as tiff:
        if len(tiff.series) != 1:
            msg = f"{path}: its pages differ in size or type. Save them as single pictures in a folder."
            raise StudyError(msg)
        series = tiff.series[0]
        axes = series.axes
        array = series.asarray()
    if "Y" not in axes or "X" not in axes or array.size == 0:
        msg = f"{path}: the pages hold no pixels. Export the stack again."
        raise StudyError(msg)
    stored = _to_native(path, array, axes, component)
    shape = (stored.shape[0], stored.shape[1], stored.shape[2])
    # With axes to L, P and S, display order is page order and every page is shown as it is stored.
    grid = Grid(shape, np.diag([-1.0, -1.0, 1.0, 1.0]), known=False)
    return check(Voxels(path=path, files=[path], format="tiff", stored=stored, grid=grid, file_shape=shape))


def _to_native(path: Path, array: NDArray[Any], axes: str, component: int | None) -> NDArray[Any]:
    """Bring the axes of a TIFF into the order (x, y, page[, colour])."""
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
        raise StudyError(msg)
    return chosen[..., :3]


def save_tiff_stack(path: Path, array: NDArray[Any]) -> None:
    """Write an array in stored order (x, y, page) as a multi-page TIFF, one page per slice."""
    pages = np.ascontiguousarray(array.transpose(2, 1, 0))
    with tifffile.TiffWriter(path, bigtiff=pages.nbytes > 2**31) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", compression="zlib", metadata=None, software=False)
