"""Brush strokes across slices, drawn in a view of another plane.

Such a stroke touches many slices of the case, each along a line or less. It goes to the label book as one action, in
which slices without labels become scribbled slices: what the stroke did not touch is unknown, not background. The brush
is napari's: as large in mm, with the same class, eraser and number of dimensions, and under the same rule of what paint
may replace; but napari's own tools cannot draw it, because they paint along the axes of the large view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_dinoaugseg.session.paint_rules import SmartBrush, kept, reached

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers

ToVoxel = Callable[[Sequence[float]], NDArray[np.float64]]
"""From a position in the world to a voxel of the case, not rounded."""


@dataclass
class _Stroke:
    """A stroke that is being drawn.

    Attributes:
        layers: of the case that it belongs to.
        label: what it writes; 0 = the eraser.
        depth: the axis across the plane of the stroke.
        brush: the smart brush; None for the plain one.
        slices: those that were changed.
        tried: whether the brush met a pixel to change.
        allowed: whether the rule allowed it to change one.
    """

    layers: CaseLayers
    label: int
    depth: int
    brush: SmartBrush | None = None
    slices: set[int] = field(default_factory=set)
    tried: bool = False
    allowed: bool = False


class PlaneStrokes:
    """Paints in the views of the other planes.

    Args:
        controller: of the viewer.
        ended: called with the last voxel of a stroke.
    """

    def __init__(self, controller: Controller, ended: Callable[[NDArray[np.float64]], None]) -> None:
        self._controller = controller
        self._ended = ended
        self._stroke: _Stroke | None = None

    @property
    def tool(self) -> str:
        """The brush in the hand, napari's ``paint`` or ``erase``; empty for other tools and other layers."""
        layers = self._controller.layers
        layer = layers.manual if layers is not None else None
        if layer is None or self._controller.viewer.layers.selection.active is not layer:
            return ""
        return str(layer.mode) if layer.mode in ("paint", "erase") else ""

    @property
    def paints(self) -> bool:
        """Whether a brush is in the hand."""
        return bool(self.tool)

    def draw(self, event: Any, depth: int, voxel: ToVoxel) -> Iterator[None]:
        """A stroke of the mouse, as a callback of napari.

        Args:
            event: napari's mouse event, which changes while the mouse moves.
            depth: the axis of the case across the plane of the stroke.
            voxel: finds the place of the mouse in the case.
        """
        reason = self._refusal
        if reason:
            self._controller.notify(reason, "notice")
            yield
            return
        last = voxel(event.position)
        stroke = self._begin(last, depth)
        try:
            self._paint(stroke, [last])
            yield
            while event.type == "mouse_move":
                now = voxel(event.position)
                self._paint(stroke, between(last, now))
                last = now
                yield
        finally:
            if self._stroke is stroke:
                self.stop()
                self._ended(last)

    @property
    def _refusal(self) -> str:
        """A sentence on why nothing can be painted; empty if it can."""
        guard = self._controller.guard
        return self._controller.read_only or (guard.reason if guard is not None else "")

    def _begin(self, at: NDArray[np.float64], depth: int) -> _Stroke:
        layers, rules = self._controller.layers, self._controller.paint_rules
        layer = layers.manual if layers is not None else None
        if layers is None or layer is None:
            msg = "no case is open"
            raise RuntimeError(msg)
        label = 0 if self.tool == "erase" else int(layer.selected_label)
        stroke = self._stroke = _Stroke(layers, label, depth)
        if rules.is_smart and label and layers.image is not None:
            image, place = _plane(layers, at, depth)
            inside = all(0 <= one < size for one, size in zip(place, image.shape, strict=False))
            low, high = rules.limits or (None, None)
            stroke.brush = (
                SmartBrush.begin(image, place, rules.tolerance, low, high) if inside else SmartBrush((0.0,), -1.0)
            )
        layers.painting.begin_across()
        return stroke

    def stop(self) -> None:
        """End the stroke that is being drawn: it is read into the label book."""
        stroke, self._stroke = self._stroke, None
        if stroke is None:
            return
        stroke.layers.painting.end_across(stroke.slices)
        if stroke.tried and not stroke.slices:
            rules = self._controller.paint_rules
            why = f"paint goes only over {rules.name_of_rule} ('Paint over' in the Label section)."
            if stroke.allowed:
                why = "the smart brush found nothing like the start of the stroke in its intensity range."
            self._controller.notify(f"Nothing changed here: {why}")

    def _paint(self, stroke: _Stroke, places: Sequence[NDArray[np.float64]]) -> None:
        if self._stroke is stroke:
            for place in places:
                self._dab(stroke, place)
            stroke.layers.painting.show_across()

    def _dab(self, stroke: _Stroke, at: NDArray[np.float64]) -> None:
        """Write the label wherever the brush lies and may paint."""
        layer = stroke.layers.manual
        if layer is None:
            return
        centre = np.round(at).astype(int)
        axes = [axis for axis in range(3) if axis != stroke.depth or layer.n_edit_dimensions > 2]
        box, mask = brush_box(centre, layer.brush_size, np.abs(layer.scale), axes, layer.data.shape)
        if not mask.any():
            return
        before = np.array(layer.data[box])
        changed = mask & (before != stroke.label)
        if not changed.any():
            return
        may = self._controller.paint_rules.may_replace(before, stroke.label)
        stroke.tried, stroke.allowed = True, stroke.allowed or bool((changed & may).any())
        if stroke.brush is not None:
            may = may & self._alike(stroke, stroke.brush, layer, box)
            corner = tuple(int(place - one.start) for place, one in zip(centre, box, strict=True))
            if stroke.brush.tolerance is not None:
                may = reached(changed & may, corner, before == stroke.label)
        changed &= may
        if changed.any():
            after = kept(before, np.full_like(before, stroke.label), changed)
            stroke.layers.painting.write_across(box, after)
            axis = stroke.layers.axis
            within = np.arange(box[axis].start, box[axis].stop)
            others = tuple(one for one in range(3) if one != axis)
            stroke.slices.update(within[changed.any(axis=others)].tolist())

    @staticmethod
    def _alike(stroke: _Stroke, brush: SmartBrush, layer: Labels, box: tuple[slice, slice, slice]) -> NDArray[np.bool_]:
        """Where the smart brush paints within a box. It looks one pixel beyond it, for holes at its border."""
        image = stroke.layers.image
        if image is None:
            return np.zeros([one.stop - one.start for one in box], bool)
        around, inner = [], []
        for one, size in zip(box, layer.data.shape, strict=True):
            start, stop = max(0, one.start - 1), min(size, one.stop + 1)
            if one.stop - one.start == 1:
                start, stop = one.start, one.stop
            around.append(slice(start, stop))
            inner.append(slice(one.start - start, one.stop - start))
        values = np.asarray(image.data[tuple(around)])
        single = tuple(axis for axis in range(3) if values.shape[axis] == 1)
        alike = brush.like(np.squeeze(values, axis=single)).reshape(values.shape[:3])
        return alike[tuple(inner)]


def _plane(layers: CaseLayers, at: NDArray[np.float64], depth: int) -> tuple[NDArray[Any], tuple[int, int]]:
    """The image in the plane through a voxel, (H, W) or (H, W, 3), and the place of the voxel in it."""
    place = np.round(at).astype(int)
    image: Any = layers.image
    index = int(np.clip(place[depth], 0, image.data.shape[depth] - 1))
    row, column = (int(place[axis]) for axis in range(3) if axis != depth)
    return np.asarray(np.take(image.data, index, axis=depth)), (row, column)


def between(start: NDArray[np.float64], end: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The places from one voxel to another, at most a voxel apart, without the first."""
    count = max(1, int(np.ceil(np.abs(end - start).max())))
    return [start + (end - start) * step / count for step in range(1, count + 1)]


def brush_box(
    centre: NDArray[np.int_], size: float, scale: NDArray[np.float64], axes: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, slice, slice], NDArray[np.bool_]]:
    """The voxels that napari's brush paints, see :func:`~napari_dinoaugseg.session.paint_rules.brush_extent`.

    Args:
        centre: the voxel in its middle.
        size: napari's `brush_size`.
        scale: the size of a voxel along each of the three axes.
        axes: those along which the brush extends.
        shape: of the volume.

    Returns:
        A box of the volume, and a mask in its shape; both empty if the brush lies outside.
    """
    radius = np.floor(size / 2) + 0.5
    finest = min(scale[axis] for axis in axes)
    box, squares = [], np.zeros((1, 1, 1))
    for axis in range(3):
        reach = int(np.floor(radius * finest / scale[axis])) if axis in axes else 0
        start = min(max(0, int(centre[axis]) - reach), shape[axis])
        stop = max(start, min(shape[axis], int(centre[axis]) + reach + 1))
        offsets = (np.arange(start, stop) - centre[axis]) * scale[axis] / finest
        squares = squares + np.expand_dims(offsets**2, [other for other in range(3) if other != axis])
        box.append(slice(start, stop))
    return (box[0], box[1], box[2]), squares <= radius**2
