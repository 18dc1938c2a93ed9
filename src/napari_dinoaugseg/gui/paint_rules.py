"""What the painting tools may change: the rule "paint over", and the smart brush.

napari's tools write into the layer through its methods `paint`, `fill` and `paint_polygon`. They are replaced here on
the manual layer, so that a pixel that may not change is put back within the same call, before anything is drawn or read
into the label book. The brush, the eraser, the fill bucket, the polygon and napari's outline (right click while
painting) all pass through them, and so does a script that calls them, as with napari's own "preserve labels". A script
that writes into the array or calls `data_setitem` is not filtered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.session.labels import BACKGROUND
from napari_dinoaugseg.session.paint_rules import TOLERANCE, PaintOver, SmartBrush, reached

if TYPE_CHECKING:
    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.gui.controller import Controller

_METHODS = ("paint", "paint_polygon")
_NOTHING = SmartBrush((0.0,), -1.0)  # nothing is alike


@dataclass
class _Stroke:
    """One press of the mouse, and what follows until the next.

    Attributes:
        case: whose slices it reads.
        is_held: whether the button is down.
        brush: the smart brush; None before the stroke touches the image.
        tried: whether the tool met a pixel to change.
        allowed: whether the rule allowed it to change one.
        changed: whether a pixel was changed.
        pictures: the slices that were read, by index: decoding a picture takes longer than a movement of the mouse.
    """

    case: Case
    is_held: bool = True
    brush: SmartBrush | None = None
    tried: bool = False
    allowed: bool = False
    changed: bool = False
    pictures: dict[int, NDArray[Any]] = field(default_factory=dict)

    def picture(self, index: int) -> NDArray[Any]:
        """A slice of the case, (H, W) or (H, W, 3), in the values of the file."""
        if index not in self.pictures:
            self.pictures[index] = self.case.slice(index)
        return self.pictures[index]


@dataclass(frozen=True)
class _Box:
    """A box of the layer: from `low`, inclusive, to `high`, exclusive, along each axis."""

    low: tuple[int, ...]
    high: tuple[int, ...]

    @classmethod
    def within(cls, shape: Sequence[int], low: Sequence[int], high: Sequence[int]) -> _Box:
        """A box, clipped to a shape."""
        start = tuple(min(max(0, place), size) for place, size in zip(low, shape, strict=True))
        stop = tuple(min(max(0, place), size) for place, size in zip(high, shape, strict=True))
        return cls(start, tuple(max(one, other) for one, other in zip(start, stop, strict=True)))

    @property
    def key(self) -> tuple[slice, ...]:
        """The index of the box in the array of the layer."""
        return tuple(slice(start, stop) for start, stop in zip(self.low, self.high, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size along each axis."""
        return tuple(stop - start for start, stop in zip(self.low, self.high, strict=True))

    def grown(self, shape: Sequence[int]) -> _Box:
        """With one more pixel on each side of the axes along which it extends."""
        more = [int(size > 1) for size in self.shape]
        low = [start - one for start, one in zip(self.low, more, strict=True)]
        return _Box.within(shape, low, [stop + one for stop, one in zip(self.high, more, strict=True)])

    def inside(self, point: Sequence[int]) -> tuple[int, ...]:
        """A place of the layer, counted from the corner of the box."""
        return tuple(place - start for place, start in zip(point, self.low, strict=True))


class PaintRules:
    """The rule and the smart brush of one viewer.

    A new case begins with the plain brush over everything; the tolerance stays.

    Attributes:
        over: what paint may replace.
        is_smart: whether the brush paints only what is like the pixel where the stroke began.
        tolerance: of the smart brush, as a multiple of the local contrast around that pixel.
        limits: the lowest and highest intensity that the smart brush paints in; None = all. They also hold for
            napari's outline while the smart brush is in use, of which nothing needs to be alike.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.over = PaintOver()
        self.is_smart = False
        self.tolerance = TOLERANCE
        self.limits: tuple[float, float] | None = None
        self._selected = 1  # the class that was selected last
        self._layer: Labels | None = None
        self._session: object = None
        self._stroke: _Stroke | None = None
        self._setting = False  # whether napari's "preserve labels" is being set here
        controller.viewer.mouse_drag_callbacks.append(self._on_press)

    # --- choices ----------------------------------------------------------------------------------------------------

    def paint_over(self, over: PaintOver) -> None:
        """Choose what paint may replace. napari's own "preserve labels" (key B) shows and sets "free"."""
        self.over = over
        self._show_rule()
        self.controller.touch(Change.TOOL)

    def take_brush(self, *, smart: bool) -> None:
        """Take the smart brush, or the plain one, with the class that was selected last."""
        session = self.controller.session
        numbers = [entry.number for entry in session.labels.classes] if session is not None else []
        number = self._selected if self._selected in numbers or not numbers else numbers[0]
        self.take("paint", number, smart=smart)

    def take(self, mode: str, number: int | None = None, *, smart: bool | None = None) -> None:
        """Take a tool of napari on the manual layer.

        Args:
            mode: napari's name of it.
            number: what it paints, see `Labelling.selected_class`; None = as before.
            smart: whether the brush is the smart one; None = as before.
        """
        controller, layers = self.controller, self.controller.layers
        if layers is not None and layers.manual is not None:
            controller.viewer.layers.selection.active = layers.manual
            if mode == "polygon" and layers.manual.n_edit_dimensions != 2:
                layers.manual.n_edit_dimensions = 2  # napari puts the tool away otherwise, without a word
                controller.notify("A polygon is drawn on one slice, so painting across slices is off now.")
            layers.manual.mode = mode
        if smart is not None:
            self.is_smart = smart
        if number is not None:
            controller.labels.select_class(number)
        controller.touch(Change.TOOL)

    @property
    def has_outline(self) -> bool:
        """Whether napari fills an outline that is drawn with the right button, as it does from version 0.9."""
        return "brush_stroke" in getattr(self._layer, "_overlays", {})

    def offer_outline(self) -> None:
        """Take the plain brush and say how an outline is drawn."""
        self.take_brush(smart=False)
        self.controller.notify(
            "Outline: right-click on the edge of a shape, then move round it, without a button, and back to the start; "
            "the inside is filled. Esc drops it."
        )

    def set_tolerance(self, factor: float) -> None:
        """Set the tolerance of the strokes from now on."""
        self.tolerance = factor

    def set_limits(self, limits: tuple[float, float] | None) -> None:
        """Set the intensity range; a reversed one is turned round."""
        self.limits = None if limits is None else (min(limits), max(limits))
        self.controller.touch(Change.TOOL)

    def refuses(self, before: int, label: int) -> bool:
        """Whether the rule forbids writing a label over one that is there."""
        return not self.over.allows(np.array([before], np.uint16), label, self._selected).item()

    def may_replace(self, before: NDArray[np.uint16], label: int) -> NDArray[np.bool_]:
        """Where the rule allows writing a label over canvas codes; a mask in their shape."""
        return self.over.allows(before, label, self._selected)

    @property
    def name_of_rule(self) -> str:
        """What paint goes over, for a sentence: "what is free"."""
        if self.over.what == "class":
            return _class_name(self.controller, self.over.number)
        return "what is free" if self.over.what == "free" else "everything"

    # --- following the viewer ---------------------------------------------------------------------------------------

    def follow(self, what: Change) -> None:
        """Follow the manual layer, the case, its classes and the selected class."""
        controller = self.controller
        if what & Change.SESSION and controller.session is not self._session:
            self._session = controller.session
            self.over, self.is_smart, self.limits = PaintOver(), False, None
            self._stroke = None
            self._show_rule()
        if what & (Change.SESSION | Change.LAYERS):
            self._follow_layer()
        if controller.labels.selected_class > 0:
            self._selected = controller.labels.selected_class
        if what & Change.CLASSES and self.over.what == "class":
            session = controller.session
            numbers = [entry.number for entry in session.labels.classes] if session is not None else []
            if self.over.number not in numbers:
                self.paint_over(PaintOver())
                controller.notify("The class that paint was limited to is removed: paint goes over everything again.")

    def _follow_layer(self) -> None:
        layers = self.controller.layers
        layer = layers.manual if layers is not None else None
        if layer is self._layer:
            return
        if self._layer is not None:
            self._layer.events.preserve_labels.disconnect(self._on_preserve)
            for name in _METHODS:
                vars(self._layer).pop(name, None)
        self._layer = layer
        if layer is not None:
            layer.paint = partial(self._paint, layer)
            layer.paint_polygon = partial(self._paint_polygon, layer)
            layer.events.preserve_labels.connect(self._on_preserve)
            self._show_rule()

    def _show_rule(self) -> None:
        """Show in napari's controls whether paint goes only over what is free."""
        if self._layer is not None and self._layer.preserve_labels != (self.over.what == "free"):
            self._setting = True
            try:
                self._layer.preserve_labels = self.over.what == "free"
            finally:
                self._setting = False

    def _on_preserve(self) -> None:
        """The person switched "preserve labels" in napari's controls or with its key."""
        if self._layer is not None and not self._setting and not self.controller.closed:
            self.paint_over(PaintOver("free") if self._layer.preserve_labels else PaintOver())

    def _on_press(self, _viewer: Any, event: Any) -> Iterator[None]:
        session = self.controller.session
        if session is None or self._outlines:  # a press within an outline moves the canvas
            return
        self._stroke = stroke = _Stroke(self.controller.view.sequences.in_view(session.case))
        yield
        while event.type == "mouse_move":
            yield
        stroke.is_held = False
        stroke.pictures.clear()
        if not self._outlines:
            self._explain(stroke)

    @property
    def _outlines(self) -> bool:
        """Whether napari's outline (right click) is being drawn; napari before 0.9 has none."""
        overlay = getattr(self._layer, "_overlays", {}).get("brush_stroke")
        return overlay is not None and bool(overlay.active)

    def _explain(self, stroke: _Stroke | None) -> None:
        """Explain why a tool changed nothing, once it is done."""
        if stroke is None or stroke.is_held or not stroke.tried or stroke.changed:
            return
        stroke.tried = False
        if not stroke.allowed:
            why = f"paint goes only over {self.name_of_rule} ('Paint over' in the Label section)."
        else:
            why = "the smart brush found nothing like the start of the stroke in its intensity range."
        self.controller.notify(f"Nothing changed here: {why}")

    # --- napari's methods on the manual layer -----------------------------------------------------------------------

    def _paint(self, layer: Labels, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        brush = self._brush(layer, coord, new_label)
        if self.over.is_everything and brush is None:
            Labels.paint(layer, coord, new_label, refresh)
            return
        reach = int(layer.brush_size / 2) + 1
        with self._filtered(layer, self._box(layer, coord, reach), new_label, brush, spreads_from=_pixel(coord)):
            Labels.paint(layer, coord, new_label, False)
        if refresh:
            layer.refresh()

    def _paint_polygon(self, layer: Labels, points: Any, new_label: int) -> None:
        brush = self._brush(layer, points[0], new_label)
        if self.over.is_everything and brush is None:
            Labels.paint_polygon(layer, points, new_label)
            return
        with self._filtered(layer, self._box(layer, points[0], None), new_label, brush):
            Labels.paint_polygon(layer, points, new_label)
        layer.refresh()
        self._explain(self._stroke)

    def fill(self, layer: Labels, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        """Fill as napari does, unless the rule forbids it: all that a fill replaces has one label."""
        point = _pixel(coord)
        inside = all(0 <= place < size for place, size in zip(point, layer.data.shape, strict=True))
        before = int(layer.data[point]) if inside else 0
        if inside and before != new_label and self.refuses(before, new_label):
            if self._stroke is not None:
                self._stroke.tried = True
                self._explain(self._stroke)
            return
        if self._stroke is not None:
            self._stroke.changed = True
        with self._own_rule(layer):
            Labels.fill(layer, coord, new_label, refresh)

    # --- filtering --------------------------------------------------------------------------------------------------

    def _brush(self, layer: Labels, coord: Sequence[float], label: int) -> SmartBrush | None:
        """The smart brush of the present stroke; None if the tool is another one.

        Of an outline nothing needs to be like its start, which lies on an edge; only the intensity range holds.
        """
        stroke = self._stroke
        if not self.is_smart or label == 0 or layer.mode != "paint" or stroke is None:
            return None
        low, high = self.limits or (None, None)
        if self._outlines:
            return SmartBrush(low=low, high=high) if self.limits is not None else None
        if not stroke.is_held:
            return None  # a script
        if stroke.brush is None:
            index, row, column = self._slice_and_pixel(_pixel(coord))
            height, width = stroke.case.slice_shape(index) if 0 <= index < stroke.case.n_slices else (0, 0)
            if not (0 <= row < height and 0 <= column < width):
                return _NOTHING  # it has not touched the image yet
            stroke.brush = SmartBrush.begin(stroke.picture(index), (row, column), self.tolerance, low, high)
        return stroke.brush

    @contextmanager
    def _filtered(
        self,
        layer: Labels,
        box: _Box,
        label: int,
        brush: SmartBrush | None,
        *,
        spreads_from: tuple[int, ...] | None = None,
    ) -> Iterator[None]:
        """Put back what a tool changes and may not.

        Args:
            layer: the manual layer.
            box: all that the tool can change.
            label: what it writes.
            brush: the smart brush, if any.
            spreads_from: the middle of the brush, if it is one, from which smart paint spreads.
        """
        layers, before = self.controller.layers, np.array(layer.data[box.key])
        if layers is None:
            yield
            return
        with layers.painting.withheld(), self._own_rule(layer):
            yield
            changed = np.asarray(layer.data[box.key]) != before
            if not changed.any():
                return
            may = self.over.allows(before, label, self._selected)
            by_rule, stroke = bool((changed & may).any()), self._stroke
            if brush is not None and stroke is not None:
                alike = self._alike(stroke, brush, box, layer.data.shape)
                may = may & alike
                if spreads_from is not None and brush.tolerance is not None:
                    may = reached(changed & may, box.inside(spreads_from), before == label)
            if stroke is not None:
                stroke.tried = True
                stroke.allowed = stroke.allowed or by_rule
                stroke.changed = stroke.changed or bool((changed & may).any())
            refused = changed & ~may
            if refused.any():
                places = tuple(found + start for found, start in zip(np.nonzero(refused), box.low, strict=True))
                layer.data_setitem(places, before[refused], refresh=False)

    def _alike(self, stroke: _Stroke, brush: SmartBrush, box: _Box, shape: Sequence[int]) -> NDArray[np.bool_]:
        """Where the smart brush paints within a box."""
        around = box.grown(shape)
        values, inside = self._values(stroke, around, is_coloured=brush.is_coloured)
        single = tuple(axis for axis, size in enumerate(around.shape) if size == 1)
        alike = brush.like(np.squeeze(values, axis=single)).reshape(around.shape) & inside
        return alike[_Box(around.inside(box.low), around.inside(box.high)).key]

    def _values(
        self, stroke: _Stroke, box: _Box, *, is_coloured: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The image within a box, in the axes of the layer, and which of its pixels lie inside their slice.

        Pictures smaller than the largest do not fill the layer. Grey ones among coloured ones have equal channels.
        """
        (first, top, left), (last, bottom, right) = self._slice_and_pixel(box.low), self._slice_and_pixel(box.high)
        values = np.zeros((last - first, bottom - top, right - left, *((3,) if is_coloured else ())), np.float32)
        inside = np.zeros(values.shape[:3], bool)
        for index in range(first, last):
            part = stroke.picture(index)[top:bottom, left:right]
            if is_coloured and part.ndim == 2:
                part = part[..., np.newaxis]
            elif not is_coloured and part.ndim == 3:
                part = part.mean(axis=2)
            values[index - first, : part.shape[0], : part.shape[1]] = part
            inside[index - first, : part.shape[0], : part.shape[1]] = True
        return np.moveaxis(values, 0, self._axis), np.moveaxis(inside, 0, self._axis)

    @property
    def _axis(self) -> int:
        """The axis of the layer across the slices."""
        layers = self.controller.layers
        return layers.axis if layers is not None else 0

    def _slice_and_pixel(self, point: Sequence[int]) -> tuple[int, int, int]:
        """A place of the layer as slice, row and column."""
        row, column = (place for axis, place in enumerate(point) if axis != self._axis)
        return point[self._axis], row, column

    def _box(self, layer: Labels, coord: Sequence[float], reach: int | None) -> _Box:
        """All that a tool at a place can change: so far around it, or the whole plane (None)."""
        order = self.controller.viewer.dims.order
        painted = {axis - (len(order) - layer.ndim) for axis in order[-layer.n_edit_dimensions :]}
        low, high = [], []
        for axis, place in enumerate(_pixel(coord)):
            # Across the plane, napari rounds the corners of polygons down.
            around = (layer.data.shape[axis] if reach is None else reach) if axis in painted else int(reach is None)
            low.append(0 if reach is None and axis in painted else place - around)
            high.append(place + around + 1)
        return _Box.within(layer.data.shape, low, high)

    @contextmanager
    def _own_rule(self, layer: Labels) -> Iterator[None]:
        """Without napari's "preserve labels", which protects painted background too."""
        if not layer.preserve_labels:
            yield
            return
        with layer.events.preserve_labels.blocker():
            layer.preserve_labels = False
            try:
                yield
            finally:
                layer.preserve_labels = True

    # --- keys -------------------------------------------------------------------------------------------------------

    def step_class(self, step: int) -> None:
        """Select the next class (``step`` = 1) or the previous one (-1), wrapping around at the ends."""
        session, labels = self.controller.session, self.controller.labels
        numbers = [entry.number for entry in session.labels.classes] if session is not None else []
        if not numbers:
            return
        here = labels.selected_class
        if here in numbers:
            found = numbers[(numbers.index(here) + step) % len(numbers)]
        else:  # from the eraser or the background
            found = self._selected if self._selected in numbers else numbers[0]
        labels.select_class(found)
        self.controller.notify(f"Selected: {_class_name(self.controller, found)}.")

    def pick(self) -> None:
        """Select the class under the cursor: what is painted there, else what is predicted and shown."""
        controller, layers = self.controller, self.controller.layers
        if layers is None:
            return
        found = 0
        for layer in (layers.manual, layers.prediction):
            if layer is not None and layer.visible and found == 0:
                found = int(layer.get_value(controller.viewer.cursor.position, world=True) or 0)
        if found == 0:
            controller.notify("No class lies under the cursor.")
            return
        number = -1 if found == BACKGROUND else found
        if number == -1 and not (controller.labels.scribbles or controller.smart.is_on):
            controller.notify("Background lies under the cursor, no class.")
            return
        controller.labels.select_class(number)
        controller.notify(f"Selected: {_class_name(controller, number)}.")


def _pixel(coord: Sequence[float]) -> tuple[int, ...]:
    """A place in the layer, rounded as napari does."""
    return tuple(int(np.round(value)) for value in coord)


def _class_name(controller: Controller, number: int) -> str:
    """The class for a sentence: ``class 2``, or ``class 2 (liver)``."""
    if number == -1:
        return "background"
    session = controller.session
    names = {entry.number: entry.name for entry in session.labels.classes} if session is not None else {}
    plain = f"class {number}"
    return plain if names.get(number, plain) == plain else f"{plain} ({names[number]})"
