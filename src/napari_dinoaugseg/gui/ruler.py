"""The ruler: distances and angles that the mouse takes on the slice in view, and their drawing in a layer of their own.

The measures belong to the session, by slice; the layer only shows them, and napari cannot change it. While the ruler is
in use the labels layer is in the mode that moves the image, so that nothing is painted; choosing a tool of the brush
ends it. Measures are no labels: undo does not touch them, and they never leave their case.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Labels, Shapes
from numpy.typing import NDArray
from qtpy.compat import isalive
from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import QWidget

from napari_dinoaugseg.case.measure import Measure, Point, value_of
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.gui.canvas import canvas_widget
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.display import camera_of
from napari_dinoaugseg.gui.layers import outline_width_on, place_of
from napari_dinoaugseg.session.measures import long_axis_of

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

RulerTool = Literal["distance", "angle"]

LAYER = "measures"
_COLOUR = "#00e5e5"  # none of the palette of the classes
_LEFT = 1  # vispy's number of the mouse button
_HALF = np.array([14.0, 56.0])  # pixels of the screen: half the height and width of a value
_GAP = 6.0  # pixels of the screen between a line and its value
_SHORTEST = 3.0  # pixels of the screen: a shorter drag is a click


def value_in_words(measure: Measure, session: Session) -> str:
    """A value with its unit: ``34.2 mm``, ``12.0 px``, ``45.3°``."""
    value, unit = value_of(measure, session.case)
    if unit == "degrees":
        return "no angle" if math.isnan(value) else f"{value:.1f}°"
    return f"{value:.1f} {unit}"


class Ruler:
    """Takes measures on the slices of the open case, and shows them on the canvas.

    Attributes:
        tool: what the mouse measures: ``distance`` or ``angle``; None while it does something else.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.tool: RulerTool | None = None
        self._mode = ""  # of the labels layer before
        self._holding: Labels | None = None  # the labels layer that moves with no drag meanwhile
        self._clicked: list[tuple[int, Point]] = []  # corners of an angle so far: the slice and the place
        self._seen: list[tuple[float, float]] = []  # the same on the canvas
        self._layer: Shapes | None = None
        self._is_adding = False  # whether our own layer is the active one, as long as napari adds it
        self._preview: _Preview | None = None
        viewer = controller.viewer
        viewer.mouse_drag_callbacks.append(self._on_drag)
        viewer.mouse_move_callbacks.append(self._on_move)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def drawing(self) -> Shapes | None:
        """The layer that shows the measures; None while there is nothing to show."""
        return self._layer

    # --- the tool ---------------------------------------------------------------------------------------------------

    def take(self, tool: RulerTool) -> None:
        """Take the ruler to measure distances or angles, or put it down if that is what it measures."""
        if self.tool == tool:
            self.put_down()
            return
        layers = self.controller.layers
        if layers is None or layers.manual is None:
            return
        if self.tool is None:
            self.controller.viewer.layers.selection.active = layers.manual
            self._mode, self._holding = str(layers.manual.mode), layers.manual
        self.tool = tool
        self._forget()
        layers.manual.mode = "pan_zoom"
        layers.manual.mouse_pan = False  # a drag measures
        self.controller.touch(Change.MEASURES)

    def put_down(self, *, restore: bool = True) -> None:
        """Put the ruler down; ``restore``: with the tool of the brush that was in use before."""
        if self.tool is None:
            return
        self.tool = None
        self._forget()
        layer, self._holding = self._holding, None
        if layer is not None:
            if str(layer.mode) == "pan_zoom":
                layer.mouse_pan = True
            if restore:
                layer.mode = self._mode
        self.controller.touch(Change.MEASURES)

    def follow(self, what: Change) -> None:
        """Follow the tools, the case and what is in view."""
        if what & (Change.SLICE | Change.VIEW | Change.SESSION):
            self._forget()
        if self._holding is not None and not self._is_adding and what & (Change.TOOL | Change.LAYERS | Change.SESSION):
            layers, active = self.controller.layers, self.controller.viewer.layers.selection.active
            kept = layers is not None and layers.manual is self._holding is active
            if not kept or str(self._holding.mode) != "pan_zoom":
                self.put_down(restore=False)
        if what & (Change.SESSION | Change.LAYERS):
            self._draw()

    def leave(self) -> None:
        """Put the ruler down and remove the drawing, before another case is shown."""
        self.put_down()
        layer, self._layer = self._layer, None
        if layer is not None and layer in self.controller.viewer.layers:
            self.controller.viewer.layers.remove(layer)

    def dispose(self) -> None:
        """End with the viewer."""
        viewer = self.controller.viewer
        for callbacks, callback in (
            (viewer.mouse_drag_callbacks, self._on_drag),
            (viewer.mouse_move_callbacks, self._on_move),
        ):
            if callback in callbacks:
                callbacks.remove(callback)
        viewer.layers.events.removed.disconnect(self._on_removed)

    # --- measuring --------------------------------------------------------------------------------------------------

    @guarded
    def measure_class(self) -> None:
        """Measure the long axis of the selected class on the slice in view."""
        controller = self.controller
        controller.flush()
        session, number = controller.session, controller.labels.selected_class
        if session is None:
            return
        if number < 1:
            msg = "Select a class in the Classes section: its long axis is measured."
            raise LabelError(msg)
        self._add(long_axis_of(session, controller.current_slice, number))

    def remove(self, measures: Sequence[Measure]) -> None:
        """Remove measures."""
        session = self.controller.session
        if session is not None and not self.controller.read_only:
            gone = {id(measure) for measure in measures}
            session.measures = [one for one in session.measures if id(one) not in gone]
            self._changed()

    def _add(self, measure: Measure) -> None:
        session = self.controller.session
        if session is None:
            return
        self.controller.require_writable()
        session.measures = [*session.measures, measure]
        self._changed()

    def _changed(self) -> None:
        self._draw()
        self.controller.touch(Change.MEASURES)

    # --- the mouse --------------------------------------------------------------------------------------------------

    def _on_drag(self, _viewer: Any, event: Any) -> Iterator[None]:
        if self.tool is None or event.button != _LEFT or event.modifiers or self.controller.closed:
            return
        place = self._place(event)
        if place is None:
            return
        if self.tool == "angle":
            self._click(place, event)
            return
        start = (float(event.pos[0]), float(event.pos[1]))
        yield
        last = place
        while event.type == "mouse_move":
            found = self._place(event)
            last = found if found is not None and found[0] == place[0] else last
            self._show_preview([start, (float(event.pos[0]), float(event.pos[1]))], [place, last])
            yield
        self._show_preview([], [])
        apart = math.hypot(float(event.pos[0]) - start[0], float(event.pos[1]) - start[1])
        if self.tool == "distance" and apart >= _SHORTEST and last[1] != place[1]:
            measure = Measure("distance", place[0], (place[1], last[1]))
            self.controller.guarded(self._add, measure)

    def _click(self, place: tuple[int, Point], event: Any) -> None:
        self._clicked.append(place)
        self._seen.append((float(event.pos[0]), float(event.pos[1])))
        if len(self._clicked) == 3:
            measure = Measure("angle", place[0], tuple(point for _, point in self._clicked))
            self._forget()
            self.controller.guarded(self._add, measure)

    def _on_move(self, _viewer: Any, event: Any) -> None:
        if self._clicked:
            place = self._place(event)
            ends = [*self._clicked, *([] if place is None else [place])]
            self._show_preview([*self._seen, (float(event.pos[0]), float(event.pos[1]))], ends)

    def _place(self, event: Any) -> tuple[int, Point] | None:
        """The slice and the place on it under the mouse; None outside the case, and where no whole slice is in view."""
        layers = self.controller.layers
        if layers is None or not layers.shows_slices:
            self.controller.notify("Measures are taken on whole slices: press 'Back to the plane'.", "notice")
            return None
        found = self.controller.reading.place_of(event.position)
        return None if found is None else (found[0], (found[1], found[2]))

    def _forget(self) -> None:
        """Forget the corners that were clicked."""
        self._clicked, self._seen = [], []
        self._show_preview([], [])

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _show_preview(self, line: Sequence[tuple[float, float]], places: Sequence[tuple[int, Point]]) -> None:
        """Show what is being measured: a line on the canvas, in pixels of Qt, and its value."""
        session, canvas = self.controller.session, canvas_widget(self.controller.viewer)
        if self._preview is not None and not isalive(self._preview):  # type: ignore[no-untyped-call]
            self._preview = None
        if self._preview is None:
            if canvas is None or not line:
                return
            self._preview = _Preview(canvas)
        text = ""
        if session is not None and self.tool is not None and len(places) == (3 if self.tool == "angle" else 2):
            measure = Measure(self.tool, places[0][0], tuple(point for _, point in places))
            text = value_in_words(measure, session)
        self._preview.show_line(line, text)

    def _draw(self) -> None:
        """Draw the measures of the open case, in a layer that is made for the first one."""
        controller, session, layers = self.controller, self.controller.session, self.controller.layers
        if session is None or layers is None or layers.manual is None:
            return
        if self._layer is None:
            if not session.measures:
                return
            active = controller.viewer.layers.selection.active
            self._layer = Shapes(ndim=3, name=LAYER, opacity=1.0, **place_of(layers.image))
            self._is_adding = True
            controller.viewer.add_layer(self._layer)
            self._layer.editable = False
            controller.viewer.layers.selection.active = active
            self._is_adding = False
        layer, axis = self._layer, layers.axis
        layer.selected_data = set(range(layer.nshapes))
        layer.remove_selected()
        if session.measures:
            lines = [np.insert(np.asarray(one.points, float), axis, one.index, axis=1) for one in session.measures]
            # A value stands at a point beyond the end of its line, so that it never lies on it.
            pixel = 1 / (camera_of(controller.viewer).zoom * np.delete(np.asarray(layer.scale), axis))
            marks = [np.insert(_mark(one, pixel), axis, one.index, axis=1) for one in session.measures]
            layer.add(
                [*lines, *marks],
                shape_type="path",
                edge_width=0.6 * outline_width_on(layers),
                edge_color=[_COLOUR] * len(lines) + ["transparent"] * len(marks),
                face_color="transparent",
            )
            values = [value_in_words(one, session) for one in session.measures]
            layer.features = {"value": [""] * len(lines) + values}
            layer.text = {"string": "{value}", "color": _COLOUR, "size": 13, "anchor": "center"}
        layer.selected_data = set()
        layer.refresh()

    def _on_removed(self, event: Any) -> None:
        """The person removed the layer: it comes back with the next measure."""
        if event.value is self._layer:
            self._layer = None


def _mark(measure: Measure, pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """A shape without extent, (2, 2), where the value of a measure stands: beyond its end, or outside its angle.

    Args:
        measure: the measure.
        pixel: the size of a pixel of the screen, down and across, in pixels of the slice.
    """
    points = np.asarray(measure.points, float)
    if measure.kind == "angle":
        end, away = points[1], points[1] - (points[0] + points[2]) / 2
    else:
        end, away = points[-1], points[-1] - points[0]
    away = away / pixel
    away = away / np.linalg.norm(away) if away.any() else np.array([0.0, 1.0])
    # As far as the box around the value needs in this direction.
    distance = min(half / abs(part) for half, part in zip(_HALF, away, strict=True) if part) + _GAP
    place = end + distance * away * pixel
    return np.stack([place, place + 1e-3])


class _Preview(QWidget):
    """A line over the canvas while it is being drawn; napari would take longer than a frame for it."""

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._line: list[QPointF] = []
        self._text = ""

    def show_line(self, line: Sequence[tuple[float, float]], text: str) -> None:
        """Show a line through these points, and a text at its end; without points nothing."""
        self._line, self._text = [QPointF(*point) for point in line], text
        parent = self.parentWidget()
        if parent is not None:
            self.setGeometry(parent.rect())
        self.setVisible(bool(line))
        self.update()

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw the line and the text."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(_COLOUR), 2))
        for start, end in zip(self._line, self._line[1:], strict=False):
            painter.drawLine(start, end)
        if self._text and self._line:
            end = self._line[-1] + QPointF(14, -8)
            box = painter.fontMetrics().boundingRect(self._text).translated(end.toPoint()).adjusted(-4, -2, 4, 2)
            painter.fillRect(box, QColor(0, 0, 0, 170))
            painter.drawText(end, self._text)
