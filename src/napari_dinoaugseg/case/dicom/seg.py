"""Read DICOM SEG as labels, and place them on the slices of an image by the positions of the frames.

Attributes are those of DICOM PS3.3 C.8.20 (Segmentation). A fractional segmentation is read only if its values are
binary: any other needs a threshold, which the user must choose.

A SEG omits slices without labels, so its grid is incomplete, and its frames are placed on the slices of the image one
by one. highdicom's `Volume.match_geometry` (0.28) is not suitable: it returns a volume of another shape for finer
pixels and for frames outside the image, and refuses positions rounded to 0.1 mm.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import SegmentationStorage

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.dicom.frames import DicomSource, slices_of
from napari_dinoaugseg.case.dicom.geometry import SAME_PLACE, Header, parse, require_alike
from napari_dinoaugseg.case.dicom.headers import class_name, kind_of, number, read_header, text
from napari_dinoaugseg.case.dicom.pixels import decode, open_pixels
from napari_dinoaugseg.case.files import (
    DICOM_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    is_dicom,
    reading,
    require_file,
    suffix_of,
)
from napari_dinoaugseg.case.geometry import Grid
from napari_dinoaugseg.errors import LabelError

EXPECTED = "a DICOM segmentation"
_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage, younger than pydicom's table
_HIGHEST = int(np.iinfo(np.uint16).max)
# As `seg_writer` writes it.
_CLASS_NUMBER = re.compile(r"Class number (\d{1,5})")

_TO_RAS = np.array([-1.0, -1.0, 1.0])

Image = tuple[str, int | None]
Labels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class SegLabels:
    """The labels of one DICOM SEG: the slices that have a frame, and their positions. Coordinates are RAS, in mm.

    Attributes:
        path: the file.
        mask: labels (i, j, n): column, row, and one slice for each position.
        positions: (n, 3), of the first pixel of each slice, in order along the normal.
        segments: the names of the labels.
        sources: the image (SOPInstanceUID, and frame from 1 or None) of each slice for frames of a loop, which share
            one position; else empty.
        across: (3,), from one column to the next.
        down: (3,), from one row to the next.
        distance: Spacing Between Slices; None if missing.
        series: the referenced SeriesInstanceUIDs; may be empty.
        instances: the referenced SOPInstanceUIDs; may be empty.
        frame_of_reference: its FrameOfReferenceUID; may be empty.
    """

    path: Path
    mask: Labels
    positions: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    distance: float | None
    series: frozenset[str]
    instances: frozenset[str]
    frame_of_reference: str
    segments: tuple[Segment, ...] = ()
    sources: tuple[Image, ...] = ()


def is_seg(path: Path) -> bool:
    """Return whether a label file is DICOM by its suffix or its content: a SEG, or an RTSTRUCT."""
    suffix = suffix_of(path)
    return suffix in DICOM_SUFFIXES or (suffix not in NIFTI_SUFFIXES | NRRD_SUFFIXES and is_dicom(path))


def read_seg(path: Path) -> SegLabels:
    """Read a DICOM SEG.

    Raises:
        CaseError: the file is damaged or not DICOM.
        LabelError: not a segmentation, a fractional one, overlapping segments, or frames without a position.
    """
    require_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with reading(path, EXPECTED):
            _require_segmentation(path)
            dataset = open_pixels(path)
            classes = _classes(path, dataset)
            headers = [parse(slice_) for slice_ in slices_of(path, dataset)]
            places, positions = _places(headers)
            sources: tuple[Image, ...] = ()
            if len(positions) == 1:
                places, sources = _of_loop(places, _frame_sources(dataset, len(headers)))
                positions = np.repeat(positions, max(1, len(sources)), axis=0)
            mask = _fill(path, dataset, headers, places, len(positions), classes)
            series, instances = _references(dataset)
            frame_of_reference = text({"uid": dataset.get("FrameOfReferenceUID")}, "uid")
    first = headers[0]
    distance = number(first.facts, "SpacingBetweenSlices") or 0.0
    return SegLabels(
        path=path,
        mask=mask,
        positions=positions * _TO_RAS,
        across=first.orientation[:3] * first.spacing[1] * _TO_RAS,
        down=first.orientation[3:] * first.spacing[0] * _TO_RAS,
        distance=distance if distance > 0 else None,
        series=series,
        instances=instances,
        frame_of_reference=frame_of_reference,
        segments=tuple(classes.values()),
        sources=sources,
    )


def _require_segmentation(path: Path) -> None:
    """Raise `LabelError` for a DICOM object of another kind."""
    header = read_header(path, ("SOPClassUID",))
    kind = text({"uid": header.get("SOPClassUID")}, "uid")
    if kind in (SegmentationStorage, _LABEL_MAP):
        return
    name = class_name(kind)
    if not name or name == kind or "Image Storage" in name:
        msg = f"{path}: this is not a DICOM segmentation ({name or 'it has no class'}). Give DICOM SEG, NIfTI or NRRD."
        raise LabelError(msg)
    msg = f"{path}: this is {kind_of(kind, '')}, not labels. Give DICOM SEG, RTSTRUCT, NIfTI or NRRD."
    raise LabelError(msg)


def require_source(labels: SegLabels, source: DicomSource) -> None:
    """Raise `LabelError` if a segmentation refers to other images.

    Without references on either side it is accepted: then the grid decides.
    """
    differs = None
    if labels.frame_of_reference and source.frame_of_reference:
        differs = "frame of reference" if labels.frame_of_reference != source.frame_of_reference else None
    if differs is None and labels.series and source.series and source.series.isdisjoint(labels.series):
        differs = "series"
    if differs is None and labels.instances and labels.instances.isdisjoint(source.instances):
        differs = "volume of this series"
    if differs is not None:
        msg = f"{labels.path}: this segmentation belongs to another {differs}. Give the one drawn on these images."
        raise LabelError(msg)


def _classes(path: Path, dataset: Dataset) -> dict[int, Segment]:
    """Return the class of each segment number; masks written by `seg_writer` keep their class numbers."""
    segments = list(dataset.get("SegmentSequence") or ())
    classes: dict[int, Segment] = {}
    ours: dict[int, int] = {}
    for segment in segments:
        own = int(segment.SegmentNumber)
        name = text({"label": segment.get("SegmentLabel")}, "label") or f"segment {own}"
        if own in classes:
            msg = f"{path}: two segments have the number {own}. Export the segmentation again."
            raise LabelError(msg)
        classes[own] = Segment(own, name)
        written = _CLASS_NUMBER.fullmatch(str(segment.get("SegmentDescription") or ""))
        if written is not None and 0 < int(written[1]) <= _HIGHEST:
            ours[own] = int(written[1])
    if not classes:
        msg = f"{path}: it describes no segment. Export the segmentation again."
        raise LabelError(msg)
    if len(set(ours.values())) == len(classes):
        return {own: Segment(ours[own], entry.name) for own, entry in classes.items()}
    return classes


def _places(headers: Sequence[Header]) -> tuple[list[int], NDArray[np.float64]]:
    """Return the slice number of each frame, and the position (LPS) of each slice, sorted along the normal."""
    first = headers[0]
    for header in headers[1:]:
        require_alike(first, header)
    heights = np.array([float(header.position @ first.normal) for header in headers])
    order = np.argsort(heights, kind="stable")
    # Frames of several segments share a position.
    slices = np.concatenate([[0], np.cumsum(np.diff(heights[order]) > SAME_PLACE)])
    places = np.empty(len(headers), dtype=int)
    places[order] = slices
    starts = np.unique(slices, return_index=True)[1]
    return [int(place) for place in places], np.array([headers[int(order[n])].position for n in starts])


def _frame_sources(dataset: Dataset, count: int) -> list[Image | None]:
    """Return the source image of each frame; None if missing."""
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())[:count]
    found: list[Image | None] = []
    for group in groups:
        derived = next(iter(group.get("DerivationImageSequence") or ()), Dataset())
        source = next(iter(derived.get("SourceImageSequence") or ()), None)
        frame = None if source is None else source.get("ReferencedFrameNumber")
        frames = list(frame) if isinstance(frame, MultiValue) else [frame]
        uid = "" if source is None else str(source.get("ReferencedSOPInstanceUID", ""))
        found.append((uid, None if frames[0] is None else int(frames[0])) if uid else None)
    return found


def _of_loop(places: list[int], sources: Sequence[Image | None]) -> tuple[list[int], tuple[Image, ...]]:
    """Return the slice of each frame and the image of each slice, if source images distinguish the frames."""
    images = list(dict.fromkeys(source for source in sources if source is not None))
    if None in sources or len(images) < 2:
        return places, ()
    return [images.index(source) for source in sources if source is not None], tuple(images)


def _fill(
    path: Path,
    dataset: Dataset,
    headers: Sequence[Header],
    places: Sequence[int],
    count: int,
    classes: dict[int, Segment],
) -> Labels:
    """Merge the labels of all frames (column, row, slice)."""
    names = {entry.number: entry.name for entry in classes.values()}
    frames = _labels(path, dataset, headers, classes)
    mask: NDArray[Any] | None = None
    for header, place, labels in zip(headers, places, frames, strict=True):
        if labels.shape != header.size:
            msg = f"{header.place}: its pixels are {labels.shape}, but {header.size} were announced. Export it again."
            raise LabelError(msg)
        if mask is None:
            # Allocated after decoding a frame, so that a damaged header cannot request excessive memory.
            mask = empty_mask(path, (labels.shape[1], labels.shape[0], count), max(names))
        there = mask[:, :, place].T
        clash = (there != 0) & (labels != 0) & (there != labels)
        if clash.any():
            row, column = (int(n[0]) for n in np.nonzero(clash))
            pair = [names.get(int(image[row, column]), str(image[row, column])) for image in (there, labels)]
            msg = (
                f"{header.place}: the segments {pair[0]!r} and {pair[1]!r} overlap, but a pixel has one label here. "
                "Export segments that do not overlap."
            )
            raise LabelError(msg)
        there[labels != 0] = labels[labels != 0]
    if mask is None:
        msg = f"{path}: it has no frame. Export the segmentation again."
        raise LabelError(msg)
    return mask


def empty_mask(path: Path, shape: tuple[int, int, int], highest: int) -> Labels:
    """Return background for labels up to `highest`. Raises `LabelError` when memory is insufficient."""
    try:
        if highest < 256:
            return np.zeros(shape, dtype=np.uint8, order="F")
        return np.zeros(shape, dtype=np.uint16, order="F")
    except (MemoryError, ValueError) as error:
        size = " x ".join(str(n) for n in shape)
        msg = f"{path}: {size} voxels are more than there is memory for. Export the segmentation again."
        raise LabelError(msg) from error


def _labels(
    path: Path, dataset: Dataset, headers: Sequence[Header], classes: dict[int, Segment]
) -> Iterator[NDArray[np.uint16]]:
    """Yield the class numbers (row, column) of each frame."""
    kind = str(dataset.get("SegmentationType", "LABELMAP"))
    frames = decode(path, dataset, iter(range(len(headers))))
    if kind == "LABELMAP":
        number_of = _label_map(dataset, classes)
        yield from (number_of[pixels] for pixels in frames)
        return
    highest = int(dataset.get("MaximumFractionalValue") or 1) if kind == "FRACTIONAL" else 1
    for header, pixels in zip(headers, frames, strict=True):
        own = header.facts.get("ReferencedSegmentNumber")
        if own not in classes:
            msg = f"{header.place}: it belongs to the segment {own}, which nothing describes. Export it again."
            raise LabelError(msg)
        if ((pixels != 0) & (pixels != highest)).any():
            msg = (
                f"{header.place}: the segment {classes[own].name!r} is fractional, with values between no and yes. "
                "Cut it at a threshold, such as 0.5, and export it as a binary segmentation."
            )
            raise LabelError(msg)
        yield np.where(pixels != 0, np.uint16(classes[own].number), np.uint16(0))


def _label_map(dataset: Dataset, classes: dict[int, Segment]) -> NDArray[np.uint16]:
    """Return the class number of each pixel value; 0 and the padding value are background."""
    number_of = np.arange(_HIGHEST + 1, dtype=np.uint16)
    for own, entry in classes.items():
        number_of[own] = entry.number
    for background in (0, int(dataset.get("PixelPaddingValue") or 0)):
        number_of[background] = 0
    return number_of


def _references(dataset: Dataset) -> tuple[frozenset[str], frozenset[str]]:
    """Return the referenced SeriesInstanceUIDs and SOPInstanceUIDs."""
    series: set[str] = set()
    instances: set[str] = set()
    for item in dataset.get("ReferencedSeriesSequence") or ():
        series.add(str(item.get("SeriesInstanceUID", "")))
        for image in item.get("ReferencedInstanceSequence") or ():
            instances.add(str(image.get("ReferencedSOPInstanceUID", "")))
    return frozenset(series - {""}), frozenset(instances - {""})


# Allowed deviation of a frame in voxels: the grid of a series is fitted to positions that are often rounded to 0.1 mm
# or coarser, and the frames of its segmentation repeat these.
_OFF = 0.1
# Across evenly spaced slices it may be larger if the segmentation refers to these images: even positions replace ones
# that were rounded by up to a quarter of a step, and the nearest slice is unambiguous.
_OFF_OWN = 0.45
_MOST_SLICES = 65535


def on_grid(labels: SegLabels, grid: Grid, source: DicomSource | None = None) -> Labels:
    """Return the labels (i, j, k) in the stored order of a grid; slices without a frame are background.

    Args:
        labels: the segmentation.
        grid: the target grid.
        source: the DICOM images of the grid; None if it has another origin.

    Raises:
        LabelError: the frames do not match slices of this grid; the message has no path.
    """
    if not grid.known:
        msg = "the image says nothing about position"
        raise LabelError(msg)
    axes, signs = _axes(labels, grid)
    shape = [grid.shape[axis] for axis in axes]
    if (labels.mask.shape[0], labels.mask.shape[1]) != (shape[0], shape[1]):
        columns, rows = labels.mask.shape[:2]
        msg = f"its frames have {columns} x {rows} pixels, the slices {shape[0]} x {shape[1]}"
        raise LabelError(msg)
    if grid.in_time:
        slices = _frames(labels, source)
    else:
        is_own = source is not None and bool(labels.instances) and grid.offsets is None
        slices = _slices(labels, grid, axes, signs, _OFF_OWN if is_own else _OFF)
    highest = int(labels.mask.max(initial=0))
    placed = empty_mask(labels.path, grid.shape, highest)
    flips = tuple(slice(None, None, sign) for sign in signs)
    view = placed.transpose(axes)[flips[0], flips[1]]
    for n, index in enumerate(slices):
        view[:, :, index] = labels.mask[:, :, n]
    return placed


def _axes(labels: SegLabels, grid: Grid) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the axes of the grid along columns, rows and slices of the frames, and the signs of the first two."""
    inverse = np.linalg.inv(grid.affine[:3, :3])
    axes: list[int] = []
    signs: list[int] = []
    for step, count in ((labels.across, labels.mask.shape[0]), (labels.down, labels.mask.shape[1])):
        along = inverse @ step
        axis = int(np.abs(along).argmax())
        sign = 1 if along[axis] > 0 else -1
        # Deviations per pixel accumulate up to the last one.
        if axis in axes or np.abs(along - sign * np.eye(3)[axis]).max() * max(1, count - 1) > _OFF:
            msg = "the frames have another pixel size or direction than the slices"
            raise LabelError(msg)
        axes.append(axis)
        signs.append(sign)
    return (axes[0], axes[1], 3 - axes[0] - axes[1]), (signs[0], signs[1])


def _frames(labels: SegLabels, source: DicomSource | None) -> Sequence[int]:
    """Return the frame of a loop for each slice of a segmentation, by its source image."""
    if source is None or not labels.sources:
        msg = "its frames do not say to which images of the loop they belong"
        raise LabelError(msg)
    images = [(uid, frame) for uid, (_, frame) in zip(source.instances, source.frames, strict=True)]
    missing = [uid for uid, frame in labels.sources if (uid, frame) not in images]
    if missing:
        msg = "its frames belong to images that are not in this loop"
        raise LabelError(msg)
    return [images.index(image) for image in labels.sources]


def _slices(
    labels: SegLabels, grid: Grid, axes: tuple[int, int, int], signs: tuple[int, int], most: float
) -> Sequence[int]:
    """Return the slice of the grid for each frame, which may deviate by `most` of a step."""
    affine = grid.affine
    found = np.column_stack([labels.positions, np.ones(len(labels.positions))]) @ np.linalg.inv(affine).T
    if grid.offsets is not None:
        found[:, axes[2]] = between(found[:, axes[2]] * grid.spacing[2], np.array(grid.offsets))
    expected = np.rint(found[:, :3])
    for axis, sign in zip(axes[:2], signs, strict=True):
        expected[:, axis] = 0 if sign > 0 else grid.shape[axis] - 1
    off = np.abs(found[:, :3] - expected)
    across = off[:, axes[2]].copy()
    off[:, axes[2]] = np.where(across <= most, 0.0, across)
    if off.max() > _OFF:
        worst = int(off.max(axis=1).argmax())
        distance = float(np.linalg.norm(affine[:3, :3] @ (found[worst, :3] - expected[worst])))
        msg = f"its frames lie up to {distance:.3g} mm off the slices"
        raise LabelError(msg)
    slices = expected[:, axes[2]].astype(int)
    if slices.min() < 0 or slices.max() >= grid.shape[axes[2]] or len(set(slices)) < len(slices):
        msg = "its frames lie where the image has no slice"
        raise LabelError(msg)
    return [int(index) for index in slices]


def between(heights: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fractional slice number of positions, in mm from the first of unevenly spaced slices."""
    steps = np.diff(offsets)
    numbers = np.interp(heights, offsets, np.arange(len(offsets)))
    below, above = heights < offsets[0], heights > offsets[-1]
    numbers[below] = (heights[below] - offsets[0]) / steps[0]
    numbers[above] = len(offsets) - 1 + (heights[above] - offsets[-1]) / steps[-1]
    return numbers


def own_grid(labels: SegLabels) -> Grid:
    """Return the evenly spaced grid from the first to the last frame of a SEG.

    Raises:
        LabelError: the frames are not evenly spaced, even with slices between them that have no frame.
    """
    if labels.sources:
        msg = f"{labels.path}: its frames lie at one place, one after the other in time, so they form no volume."
        raise LabelError(f"{msg} Give it together with the images, or as NIfTI.")
    across, down = (step / np.linalg.norm(step) for step in (labels.across, labels.down))
    normal = np.cross(across, down)
    heights = labels.positions @ normal
    step = _step(labels, np.diff(heights))
    count = round(float(heights[-1] - heights[0]) / step) + 1
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = labels.across, labels.down, labels.positions[0]
    affine[:3, 2] = (labels.positions[-1] - labels.positions[0]) / (count - 1) if count > 1 else normal * step
    grid = Grid((labels.mask.shape[0], labels.mask.shape[1], count), affine)
    if grid.problem is not None:
        msg = f"{labels.path}: {grid.problem}. Export the segmentation again."
        raise LabelError(msg)
    return grid


def _step(labels: SegLabels, gaps: NDArray[np.float64]) -> float:
    """Return the slice distance: that of the file if it fits, else the smallest gap."""
    if gaps.size == 0:
        return labels.distance or 1.0
    for step in (labels.distance, float(gaps.min())):
        if step is not None and gaps.sum() / step < _MOST_SLICES:
            counts = np.rint(gaps / step)
            if counts.min() >= 1 and np.abs(gaps / step - counts).max() <= _OFF:
                return step
    msg = f"{labels.path}: its frames are not evenly spaced, so they form no volume. Export the segmentation again."
    raise LabelError(msg)


def covering(grid: Grid, labels: SegLabels) -> Grid:
    """Extend a grid at its ends to include all frames of a SEG."""
    inverse = np.linalg.inv(grid.affine)
    axes, _ = _axes(labels, grid)
    found = (np.column_stack([labels.positions, np.ones(len(labels.positions))]) @ inverse.T)[:, axes[2]]
    before = max(0, -round(float(found.min())))
    after = max(0, round(float(found.max())) - grid.shape[axes[2]] + 1)
    shape = list(grid.shape)
    shape[axes[2]] += before + after
    if shape[axes[2]] > _MOST_SLICES:
        msg = "its frames lie far away from the other mask"
        raise LabelError(msg)
    affine = grid.affine.copy()
    affine[:3, 3] -= before * affine[:3, axes[2]]
    return Grid((shape[0], shape[1], shape[2]), affine)
