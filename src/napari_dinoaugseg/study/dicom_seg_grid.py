"""DICOM SEG on a voxel grid: that of an image, or one of its own.

A SEG leaves out slices on which nothing is labelled, so it says less about its grid than a volume does. Its frames are
put on the slices of the image one by one, by their position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.study.dicom_seg import Labels, SegLabels, empty_mask
from napari_dinoaugseg.study.dicom_source import DicomSource
from napari_dinoaugseg.study.grid import Grid

# A frame may lie this share of a voxel off: the grid of a series is drawn through positions that are often rounded to
# 0.1 mm or coarser, and the frames of its segmentation repeat those.
_OFF = 0.1
# Across evenly spaced slices it may be more, where the segmentation says that it was drawn on these images: the even
# places stand for positions that were rounded by up to a quarter of a step, and what is nearest is sure all the same.
_OFF_OWN = 0.45
_MOST_SLICES = 65535


def on_grid(labels: SegLabels, grid: Grid, source: DicomSource | None = None) -> Labels:
    """Return the labels (i, j, k) in the stored order of a grid; slices without a frame are background.

    Args:
        labels: the segmentation.
        grid: where its frames are to lie.
        source: the images that the grid is that of; None when it is that of something else.

    Raises:
        LabelError: the frames do not lie on slices of this grid, pixel on pixel; no path in the message.
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
        # What is a little off at each pixel adds up to the last one.
        if axis in axes or np.abs(along - sign * np.eye(3)[axis]).max() * max(1, count - 1) > _OFF:
            msg = "the frames have another pixel size or direction than the slices"
            raise LabelError(msg)
        axes.append(axis)
        signs.append(sign)
    return (axes[0], axes[1], 3 - axes[0] - axes[1]), (signs[0], signs[1])


def _frames(labels: SegLabels, source: DicomSource | None) -> Sequence[int]:
    """Return the frame of a loop for each slice of a segmentation, by the image that it says it was drawn on."""
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
    """Return the slice of the grid for each frame, which may lie `most` of a step beside it."""
    affine = grid.affine
    found = np.column_stack([labels.positions, np.ones(len(labels.positions))]) @ np.linalg.inv(affine).T
    if grid.offsets is not None:
        found[:, axes[2]] = _between(found[:, axes[2]] * grid.spacing[2], np.array(grid.offsets))
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


def _between(heights: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the slice number of places that lie so many mm from the first of unevenly spaced slices."""
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
    """Return the distance of slices: what the file says where that fits, else the smallest there is."""
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
    """Return a grid with slices added at its ends, so that all frames of a SEG lie on it."""
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
