"""Three linked planes: the two other planes of a volume beside napari's own view, with a crosshair in all three.

Each of the two views is a `ViewerModel` of napari in a `QtViewer`, inside the splitter that already holds napari's
canvas; it exists only while the views are open. Its layers are twins of the layers of the case: other layer objects,
read-only to napari's tools, that show the *same arrays*. So no volume is copied, and what is painted, predicted or
undone in the large view only has to be drawn again in the others.

The crosshair is a voxel of the case. Only its place along the depth of a view makes that view read another slice; the
lines are drawn beside napari's layers, so that nothing appears in the layer list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.qt import QtViewer
from numpy.typing import NDArray
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QApplication, QLabel, QSplitter

from napari_dinoaugseg.case import Case, VolumeCase
from napari_dinoaugseg.errors import CaseError
from napari_dinoaugseg.gui.canvas import one_drawing, qt_viewer
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.display import (
    axis_order,
    camera_of,
    camera_orientation,
    directions_of,
    edge_letters,
    no_collection,
)
from napari_dinoaugseg.gui.outlines import draw_outlines, make_tools_late
from napari_dinoaugseg.gui.plane_strokes import PlaneStrokes
from napari_dinoaugseg.gui.widgets import Pieces, Turns, single_shot, stop
from napari_dinoaugseg.gui.windowing import without_paint

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers

_LEFT, _RIGHT = 1, 2  # vispy's numbers of the mouse buttons
_ZOOM = 150.0  # pixels of a drag that zoom by a factor of e
_CLICK = 4  # pixels: a press that moves less is a click
_NEXT_FRAME = 40  # ms within which changes of the layers are drawn together
_LAID_OUT = 50  # ms after which a window with new widgets is laid out
_MEANWHILE = 250  # ms within which they are drawn during a stroke in the large view
_SHARE = 0.38  # of the window's width or height for the two views
_COLOUR = (0.25, 0.85, 0.45, 0.8)  # of the crosshair: readable on black, on white and on grey
_GAP = 10.0  # pixels around the crosshair's centre that stay free
_ON_TOP = 10**5  # above all layers
_MARGIN = 4  # pixels between the letters and the edge of the canvas

_EDGES = ("left", "right", "top", "bottom")
_PLANES = {"H": "Axial", "F": "Axial", "A": "Coronal", "P": "Coronal", "L": "Sagittal", "R": "Sagittal"}

# What a twin shows as its layer does, beside the array.
_OF_ALL = ("opacity", "blending", "visible")
_OF_IMAGES = ("contrast_limits", "gamma", "colormap", "interpolation2d")
_NOT_IN_STATE = ("contour", "selected_label", "show_selected_label")
_OF_LABELS = ("colormap", *_NOT_IN_STATE)


class ThreePlanes:
    """The two other planes of the open case, in views beside napari's own.

    They open when a person asks, follow the case from then on (its layers, its plane, the next case), and close without
    a trace.

    Attributes:
        views: the two views; empty while closed.
        strokes: painting in them.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.views: tuple[_SideView, ...] = ()
        self.strokes = PlaneStrokes(controller, self._after_stroke)
        self._layers: CaseLayers | None = None  # the case that is shown
        self._place = np.zeros(3, int)  # the voxel of the crosshair
        self._splitter: QSplitter | None = None
        self._lines: _Crosshair | None = None  # in the large view
        self._keys: _KeysToMain | None = None
        self._seen: tuple[Any, ...] = ()  # what the large view showed last
        self._moving = False  # whether the large view is being moved from here
        self._stale: set[Layer] = set()
        self._opening, self._closing = Turns(controller.guarded), Turns(controller.guarded)
        self._timer = single_shot(self._draw_stale)
        self._matching = single_shot(self._match)
        self._fitting = single_shot(self._fit_large)

    # --- opening and closing ----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the views are shown."""
        return bool(self.views)

    @property
    def reason(self) -> str:
        """A sentence on why the case has no three planes; empty if it has."""
        session, layers = self.controller.session, self.controller.layers
        if session is None or layers is None:
            return "Open a volume first."
        case = session.case
        if not isinstance(case, VolumeCase):
            return "These are pictures, not a volume: they have one plane only."
        if case.grid.in_time:
            return "The slices of this case are frames in time, not a volume: they have one plane only."
        if min(case.display.shape[:3]) < 2:
            return "This case is a single slice: it has one plane only."
        if layers.image is None or layers.manual is None:
            return "A layer of the case was removed. Press 'Bring layers back' in the Label section first."
        if not isinstance(layers.image, Image) or layers.image.ndim != 3 or _grid_of(layers.image) is None:
            return "This image layer is rotated or sheared in napari: its planes are not those of the case."
        return ""

    @property
    def is_opening(self) -> bool:
        """Whether the views are not all there yet."""
        return self._opening.busy

    @guarded
    def switch(self, on: bool, *, in_turns: bool = False) -> None:
        """Open or close the views.

        Args:
            on: open them.
            in_turns: let the window answer after each piece; the views come one after the other, and go at once.

        Raises:
            CaseError: the case has no three planes, see `reason`.
        """
        if on == self.is_open:
            return
        if not on:
            self.close(in_turns=in_turns)
        elif self.reason:
            raise CaseError(self.reason)
        else:
            self._opening.add(self._open())
            if not in_turns:
                self._opening.finish()
        self.controller.touch(Change.VIEW)

    def _open(self) -> Pieces:
        try:
            yield from self._opened()
        except Exception:
            self.close()  # no half of it stays
            raise

    def _opened(self) -> Pieces:
        viewer = self.controller.viewer
        main: Any = qt_viewer(viewer)
        self._layers = self.controller.layers
        self._keys = _KeysToMain(main.canvas.native)
        self._lines = _Crosshair(main.canvas, camera_of(viewer))
        self._place = np.array(self._shape) // 2
        for emitter, handler in self._followed():
            emitter.connect(handler)
        viewer.mouse_drag_callbacks.append(self._on_main_press)
        whole = self._is_whole
        for _ in range(2):
            view = _SideView(self)
            self.views = (*self.views, view)
            self._match(1)
            yield
            view.build(self._keys)
            yield
            self._arrange(main)
            self._on_main_moved()
            self._show_crosshair()
            view.fit()
            yield
            for number in range(2, len(self._layers.own) + 1 if self._layers is not None else 0):
                self._match(number)
                yield
        if whole:
            self._fitting.start(_LAID_OUT)

    def _fit_large(self) -> None:
        """Show the whole slice in the large view."""
        if self.controller.layers is not None:
            self.controller.layers.fit()

    def _arrange(self, main: Any) -> None:
        """Put the views into the splitter that holds napari's canvas: beside it, or below if the window is tall."""
        if self._splitter is not None:
            self._splitter.addWidget(self.views[-1].widget)
            self._splitter.setSizes([1000, 1000])  # alike
            return
        beside = main.width() >= main.height()
        across, along = Qt.Orientation.Horizontal, Qt.Orientation.Vertical
        self._splitter = QSplitter(along if beside else across)
        self._splitter.hide()  # Qt draws a canvas whenever its size changes, so that it may change once only
        self._splitter.addWidget(self.views[0].widget)
        main.setOrientation(across if beside else along)
        main.addWidget(self._splitter)
        whole = main.width() if beside else main.height()
        main.setSizes([round(whole * (1 - _SHARE)), round(whole * _SHARE)])
        self._splitter.show()

    def close(self, *, in_turns: bool = False) -> None:
        """Close the views, and leave the large one as it was.

        Args:
            in_turns: only hide them now, and remove them in pieces, after each of which the window answers.
        """
        if self.views:
            self._leave()
        if not in_turns:
            self._closing.finish()

    def _leave(self) -> None:
        """Hide the views, which follow nothing any more, and let them be removed."""
        for timer in (self._timer, self._matching, self._fitting):
            stop(timer)
        self._opening.drop()
        viewer, views, layers, whole = self.controller.viewer, self.views, self._layers, self._is_whole
        for emitter, handler in self._followed():
            emitter.disconnect(handler)
        if self._on_main_press in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._on_main_press)
        self.views, self._layers = (), None
        self._stale.clear()
        main: Any = qt_viewer(viewer)
        splitter = self._splitter if self._splitter is not None and isalive(self._splitter) else None  # type: ignore[no-untyped-call]
        with one_drawing(viewer):
            if splitter is not None:
                splitter.hide()  # nothing in it is drawn any more
            for view in views:
                view.leave()
            if self._lines is not None:
                self._lines.remove()
            if main is not None and splitter is not None:
                main.setOrientation(Qt.Orientation.Vertical)
                if whole and layers is not None and layers is self.controller.layers:
                    self._fitting.start(_LAID_OUT)
        self._splitter = self._lines = self._keys = None
        self._closing.add(_removal(views, splitter))

    @property
    def _is_whole(self) -> bool:
        """Whether the large view shows the whole slice, and shall do so in another size."""
        main: Any = qt_viewer(self.controller.viewer)
        if main is None:
            return False
        _, step = self._grid
        size = (np.array(self._shape) * step)[list(self._axes[1:])] * camera_of(self.controller.viewer).zoom
        canvas = main.canvas.native
        return bool((size <= 1.02 * np.array([canvas.height(), canvas.width()])).all())

    def dispose(self) -> None:
        """End with the viewer."""
        self.strokes.stop()
        self.close()
        stop(self._fitting)

    def _followed(self) -> list[tuple[Any, Callable[..., None]]]:
        viewer = self.controller.viewer
        dims, layers = viewer.dims.events, viewer.layers.events
        return [
            (dims.point, self._on_main_moved),
            (dims.order, self._on_main_turned),
            (dims.ndisplay, self._on_main_turned),
            (layers.inserted, self._match_soon),
            (layers.removed, self._match_soon),
            (layers.reordered, self._match_soon),
            (camera_of(viewer).events.zoom, self._on_main_zoomed),
            (viewer.events.theme, self._on_theme),
            (viewer.cursor.events.style, self._on_cursor),
            (viewer.cursor.events.size, self._on_cursor),
        ]

    # --- following the case -----------------------------------------------------------------------------------------

    def follow(self, what: Change) -> None:
        """Show the next case, restored layers, or labels and predictions that changed on any slice."""
        if not self.views:
            return
        if what & (Change.SESSION | Change.LAYERS):
            self._follow_case()
        elif (
            what & (Change.LABELS | Change.PREDICTIONS | Change.PROPOSAL | Change.CLASSES) and self._layers is not None
        ):
            self._draw_soon(*(layer for layer in self._layers.own if layer is not self._layers.image))

    def _follow_case(self) -> None:
        before, now, reason = self._layers, self.controller.layers, self.reason
        if reason:
            self.close()
            if now is not None:
                self.controller.notify(f"Three planes is closed. {reason}", "notice")
            self.controller.touch(Change.VIEW)
            return
        self.strokes.stop()
        self._layers = now
        self._opening.finish()
        self._match()
        if now is not before:
            self._place = np.array(self._shape) // 2
            for view in self.views:
                view.fit()
        self._on_main_moved()
        self._show_crosshair()

    def _match_soon(self, *_: object) -> None:
        """Follow layers that were added, removed or reordered, once the viewer is done with it."""
        self._matching.start(0)

    def _match(self, most: int | None = None) -> None:
        """Give each view the twins of the layers of the case, and the planes that the large view does not show.

        Args:
            most: layers, from the bottom, for views that have no more yet; None = all.
        """
        layers = self._layers
        if layers is None or layers is not self.controller.layers or self.reason:
            return
        own = sorted(layers.own, key=self.controller.viewer.layers.index)
        axes = self._axes
        for view, depth in zip(self.views, (axis for axis in range(3) if axis != axes[0]), strict=False):
            view.match(layers.case, own if most is None else own[: max(most, view.count)], depth)

    @property
    def _axes(self) -> tuple[int, int, int]:
        """The axes of the case that the large view shows in depth, vertically and horizontally."""
        dims = self.controller.viewer.dims
        depth, vertical, horizontal = (axis - (dims.ndim - 3) for axis in dims.order[-3:])
        if min(depth, vertical, horizontal) < 0:  # napari shows an axis that only layers of others have
            return axis_order(self._layers.axis if self._layers is not None else 0)
        return depth, vertical, horizontal

    @property
    def _shape(self) -> tuple[int, ...]:
        layer = self._layers.manual if self._layers is not None else None
        return tuple(layer.data.shape) if layer is not None else (1, 1, 1)

    @property
    def _grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Origin and step of the case in the world of the viewer."""
        layer = self._layers.manual if self._layers is not None else None
        found = _grid_of(layer) if layer is not None else None
        return found if found is not None else (np.zeros(3), np.ones(3))

    # --- drawing what changed ---------------------------------------------------------------------------------------

    def on_data(self, layer: Layer, *_: object) -> None:
        """A layer of the case may hold other labels; it reports the same when the large view moves to another slice."""
        if self._main_view() == self._seen:
            self._draw_soon(layer)

    def on_paint(self, layer: Layer, *_: object) -> None:
        """A stroke goes on in the large view, which must stay as fast as without the others."""
        self._draw_soon(layer, within=_MEANWHILE)

    def _draw_soon(self, *layers: Layer, within: int = _NEXT_FRAME) -> None:
        self._stale.update(layers)
        if not self._timer.isActive() or self._timer.remainingTime() > within:
            self._timer.start(within)

    def _draw_stale(self) -> None:
        stale, self._stale = self._stale, set()
        for view in self.views:
            view.draw(stale)

    def _main_view(self) -> tuple[Any, ...]:
        dims = self.controller.viewer.dims
        return (*dims.point, *dims.order, dims.ndisplay)

    def _on_theme(self, *_: object) -> None:
        for view in self.views:
            view.model.theme = self.controller.viewer.theme

    def _on_cursor(self, *_: object) -> None:
        for view in self.views:
            if view.model.mouse_over_canvas:
                view.show_brush()

    # --- the crosshair ----------------------------------------------------------------------------------------------

    @property
    def place(self) -> tuple[int, int, int]:
        """The voxel of the crosshair, in the display order of the case."""
        first, second, third = (int(one) for one in self._place)
        return first, second, third

    def go_to(self, place: Sequence[float] | NDArray[Any]) -> None:
        """Move the crosshair to a voxel, clipped to the case, and all three views with it."""
        if not self.views or self._layers is None:
            return
        now = np.clip(np.round(np.asarray(place, float)), 0, np.array(self._shape) - 1).astype(int)
        before, self._place = self._place, now
        depth = self._axes[0]
        if now[depth] != before[depth]:
            origin, step = self._grid
            dims = self.controller.viewer.dims
            self._moving = True
            try:
                dims.set_point(dims.ndim - 3 + depth, float(origin[depth] + now[depth] * step[depth]))
            finally:
                self._moving = False
        self._show_crosshair()

    def _show_crosshair(self) -> None:
        origin, step = self._grid
        at = origin + self._place * step
        low, high = origin - step / 2, origin + (np.array(self._shape) - 0.5) * step
        for view in self.views:
            view.show(self._place, at, low, high)
        if self._lines is not None:
            _, vertical, horizontal = self._axes
            is_flat = self.controller.viewer.dims.ndisplay == 2
            self._lines.show(at, low, high, (vertical, horizontal), visible=is_flat)

    def _on_main_moved(self, *_: object) -> None:
        """The large view shows another slice."""
        self._seen = self._main_view()
        if self._moving or self._layers is None or self._layers is not self.controller.layers:
            return
        origin, step = self._grid
        depth = self._axes[0]
        dims = self.controller.viewer.dims
        index = round((dims.point[dims.ndim - 3 + depth] - origin[depth]) / step[depth])
        if index != self._place[depth]:
            self._place[depth] = min(max(index, 0), self._shape[depth] - 1)
            self._show_crosshair()

    def _on_main_turned(self, *_: object) -> None:
        """The axes of the large view were rolled, or it shows the volume in 3-D."""
        self._seen = self._main_view()
        self._match()
        self._on_main_moved()
        self._show_crosshair()

    def _on_main_zoomed(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.draw()

    def _on_main_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Move the crosshair by a click in the large view, with Shift also while the mouse moves and in every mode."""
        asked = modifiers_of(event)
        if event.button != _LEFT or viewer.dims.ndisplay != 2 or asked - {"Shift"}:
            return
        start, moved = np.array(event.pos), False
        if asked:
            with without_paint(viewer):
                self.go_to(self._voxel(event.position))
                yield
                while event.type == "mouse_move":
                    self.go_to(self._voxel(event.position))
                    yield
            return
        at = event.position
        yield
        while event.type == "mouse_move":
            moved = moved or bool(np.abs(np.array(event.pos) - start).max() >= _CLICK)
            at = event.position
            yield
        if self.views and (not moved or self.strokes.paints):
            self.go_to(self._voxel(at))

    def _voxel(self, position: Sequence[float]) -> NDArray[np.float64]:
        origin, step = self._grid
        found: NDArray[np.float64] = (np.asarray(position, float)[-3:] - origin) / step
        return found

    def _after_stroke(self, place: NDArray[np.float64]) -> None:
        """A stroke in one of the views ended there."""
        self.go_to(place)


@dataclass
class _Twin:
    """A layer of the case and the one that shows its array in another view."""

    layer: Layer
    twin: Layer
    connections: list[tuple[Any, Callable[..., None]]]

    @property
    def is_valid(self) -> bool:
        """Whether it still shows the same array in the same place."""
        layer, twin = self.layer, self.twin
        return twin.data is layer.data and all(
            np.array_equal(np.asarray(getattr(twin, name)), np.asarray(getattr(layer, name)))
            for name in ("scale", "translate", "affine")
        )

    def cut(self) -> None:
        """Stop following the layer."""
        for emitter, handler in self.connections:
            emitter.disconnect(handler)
        self.connections.clear()


class _Canvas(QtViewer):  # type: ignore[misc]
    """The widget of napari for one more viewer in the same window."""

    def _bind_shortcuts(self) -> None:
        """Leave napari's shortcuts alone, which are bound for all viewers already, and take long to be bound again."""


class _SideView:
    """One more view of the case: a model of napari's viewer with twins of the layers, and the widget that draws it.

    Attributes:
        model: napari's model of the viewer; its world is that of the large view.
        widget: napari's widget.
        depth: the axis of the case across the slices of this view.
    """

    def __init__(self, planes: ThreePlanes) -> None:
        self._planes = planes
        self._twins: list[_Twin] = []
        self._case: Case | None = None
        self._order = (0, 1, 2)
        self._scrolled = 0.0
        self._fitted: tuple[float, ...] = ()  # the camera when the whole slice was shown last
        self.depth = 0
        self.model = ViewerModel()
        self.model.theme = planes.controller.viewer.theme
        self.widget: Any = None
        self.letters: _Letters | None = None
        self._lines: _Crosshair | None = None

    def build(self, keys: QObject) -> None:
        """Create the widget, when the layers are there: a widget takes longer to follow each layer that is added."""
        planes, model = self._planes, self.model
        self.widget = _Canvas(model)
        self.widget.setAcceptDrops(False)  # a file that is dropped here is opened by the window
        self.widget.dims.hide()  # the wheel goes through the slices
        self.widget.setMinimumSize(120, 120)
        canvas = self.widget.canvas
        canvas.native.installEventFilter(keys)
        canvas.events.resize.connect(self._on_resize, position="last")
        self.letters = _Letters(canvas.native)
        self._lines = _Crosshair(canvas, self._camera)
        self._camera.events.zoom.connect(self._lines.draw)
        model.mouse_drag_callbacks[:] = [planes.controller.windowing.on_drag, self._on_press]
        model.mouse_wheel_callbacks[:] = [self._on_wheel]
        model.mouse_double_click_callbacks[:] = [self._on_double_click]
        model.mouse_move_callbacks.append(self._on_hover)
        self._turn()

    @property
    def _camera(self) -> Any:
        return camera_of(self.model)

    # --- layers -----------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many layers it shows."""
        return len(self._twins)

    def match(self, case: Case, layers: Sequence[Layer], depth: int) -> None:
        """Show twins of these layers, from bottom to top, in slices across an axis."""
        gone = [one for one in self._twins if one.layer not in layers or not one.is_valid]
        kept = {one.layer: one for one in self._twins if one not in gone}
        self._twins = [kept.get(layer) or self._made(layer) for layer in layers]
        if gone:
            self._make_current()
        for one in gone:
            one.cut()
            self.model.layers.remove(one.twin)
        for place, one in enumerate(self._twins):
            if one.twin.name != one.layer.name:  # napari had numbered it beside the one that was removed
                one.twin.name = one.layer.name
            if self.model.layers.index(one.twin) != place:
                self.model.layers.move(self.model.layers.index(one.twin), place)
        self.model.layers.selection.active = None
        self._camera.mouse_pan, self._camera.mouse_zoom = False, True
        order = _upright_order(case, depth)
        if (case, order) != (self._case, self._order) or tuple(self.model.dims.order) != order:
            self._case, self._order, self.depth = case, order, depth
            self.model.dims.order = order
            self._turn()

    def _made(self, layer: Layer) -> _Twin:
        """A twin, added to the view. It shares the array, and follows what napari's controls change on the layer."""
        twin = Layer.create(*layer.as_layer_data_tuple())
        twin.editable = False
        connections: list[tuple[Any, Callable[..., None]]] = []
        if isinstance(layer, Labels):
            draw_outlines(twin)
            make_tools_late(twin)
            for name in _NOT_IN_STATE:  # which napari does not count to the state of a layer
                setattr(twin, name, getattr(layer, name))
        for name in (*_OF_ALL, *(_OF_LABELS if isinstance(layer, Labels) else _OF_IMAGES)):
            if hasattr(layer.events, name):
                connections.append((getattr(layer.events, name), partial(self._copy, layer, twin, name)))
        connections.append((layer.events.set_data, partial(self._planes.on_data, layer)))
        if isinstance(layer, Labels):
            connections.append((layer.events.paint, partial(self._planes.on_paint, layer)))
            connections.append((layer.events.labels_update, partial(self._planes.on_paint, layer)))
        connections.append((layer.events.data, self._planes._match_soon))
        for emitter, handler in connections:
            emitter.connect(handler)
        self.model.add_layer(twin)
        return _Twin(layer, twin, connections)

    def _copy(self, layer: Layer, twin: Layer, name: str, *_: object) -> None:
        """Give a property of a layer to its twin, but for the layers that make way for surfaces in 3-D."""
        if name != "visible" or not self._planes.controller.surfaces.is_on:
            setattr(twin, name, getattr(layer, name))

    def draw(self, layers: set[Layer]) -> None:
        """Read the arrays of these layers again."""
        for one in self._twins:
            if one.layer in layers and one.twin.visible:
                one.twin.refresh(thumbnail=False, highlight=False, extent=False)

    def _make_current(self) -> None:
        """Make the canvas's OpenGL context current before layers are removed; see `CanvasGuard`."""
        native = self.widget.canvas.native if self.widget is not None else None
        if native is not None and isalive(native) and native.isValid():  # type: ignore[no-untyped-call]
            native.makeCurrent()

    def leave(self) -> None:
        """Follow nothing any more, so that nothing that changes is drawn."""
        for one in self._twins:
            one.cut()
        self._twins.clear()
        if self._lines is not None:
            self._lines.remove()
        for callbacks in (
            self.model.mouse_drag_callbacks,
            self.model.mouse_wheel_callbacks,
            self.model.mouse_double_click_callbacks,
            self.model.mouse_move_callbacks,
        ):
            callbacks.clear()
        self.model.dims.events.disconnect()  # else each layer that goes has napari arrange the axes and sliders again
        if self.widget is not None and isalive(self.widget):  # type: ignore[no-untyped-call]
            self.widget.canvas.events.resize.disconnect(self._on_resize)

    def removal(self) -> Pieces:
        """Remove the layers, one by one, and delete the widget."""
        while self.widget is not None and isalive(self.widget) and self.model.layers:  # type: ignore[no-untyped-call]
            self._make_current()
            with no_collection():
                self.model.layers.pop()
            yield
        if self.widget is not None and isalive(self.widget):  # type: ignore[no-untyped-call]
            self.widget.close()
            self.widget.setParent(None)
            self.widget.deleteLater()

    # --- which way up -----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Head up, and the patient's right on the left; letters at the edges where the file records them."""
        case = self._case
        directions = directions_of(case) if case is not None else None
        letters: dict[str, str] = {}
        orientation = ("towards", "down", "right")  # napari's own
        if directions is not None:
            orientation = camera_orientation(directions, self._order)
            letters = edge_letters(directions, self._order, orientation)
        is_oriented = isinstance(case, VolumeCase) and case.grid.oriented
        if hasattr(self._camera, "orientation"):
            self._camera.orientation = orientation
        elif orientation[1:] != ("down", "right"):
            is_oriented = False  # before napari 0.6 the camera cannot be turned, so the letters would be wrong
        if self.letters is not None:
            for edge in _EDGES:
                self.letters.write(edge, letters.get(edge, "") if is_oriented else "")

    @property
    def title(self) -> str:
        """The plane: "Coronal"; "Across rows" and the like where the file does not record it."""
        directions = directions_of(self._case) if self._case is not None else None
        if directions is None:
            return f"Across axis {self.depth}"
        return _PLANES[directions[self.depth]]

    # --- the slice and the crosshair --------------------------------------------------------------------------------

    def show(
        self, place: NDArray[np.int_], at: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> None:
        """Show the slice through a voxel, and the crosshair on it.

        Args:
            place: the voxel, in the display order of the case.
            at: its centre in the world.
            low: the corner of the case in the world.
            high: the opposite corner.
        """
        if self.model.dims.ndim == 3 and self.model.dims.point[self.depth] != at[self.depth]:
            self.model.dims.set_point(self.depth, float(at[self.depth]))
        shape = self._twins[0].layer.data.shape if self._twins else (0, 0, 0)
        if self.letters is not None:
            self.letters.write("slice", f"{self.title} {place[self.depth] + 1} of {shape[self.depth]}")
        if self._lines is not None:
            self._lines.show(at, low, high, self._order[1:])
        self._keep_in_view(at)

    def _keep_in_view(self, at: NDArray[np.float64]) -> None:
        """Move the camera where the crosshair has left the view, which is then zoomed in."""
        if self.widget is None:
            return
        camera, canvas = self._camera, self.widget.canvas
        height, width = canvas.size
        centre = np.array(camera.center[-2:], float)
        target = at[list(self._order[1:])]
        reach = np.array([height, width]) / 2 / max(camera.zoom, 1e-9)
        if (np.abs(target - centre) > reach).any():
            camera.center = (*camera.center[:-2], *target)

    def fit(self) -> None:
        """Show the whole slice."""
        self.model.reset_view()
        self._fitted = self._camera_now()

    def _camera_now(self) -> tuple[float, ...]:
        return (self._camera.zoom, *self._camera.center)

    def _on_resize(self, _event: Any) -> None:
        """Show the whole slice in the new size, unless the person has zoomed in."""
        if not self._fitted or self._camera_now() == self._fitted:
            self.fit()
        if self.letters is not None:
            self.letters.arrange()

    def show_brush(self) -> None:
        """Show the brush at the mouse as in the large view, if it paints here; else a cross."""
        cursor = self._planes.controller.viewer.cursor
        if self._planes.strokes.paints:
            self.model.cursor.size = cursor.size
            self.model.cursor.style = "circle"
        else:
            self.model.cursor.style = "cross"

    # --- the mouse --------------------------------------------------------------------------------------------------

    def _on_press(self, _model: Any, event: Any) -> Iterator[None]:
        """Move the crosshair; paint instead if a brush is in the hand, without Shift; zoom with the right button."""
        planes, asked = self._planes, modifiers_of(event)
        if event.button == _RIGHT and not asked:
            yield from self._zoom(event)
        if event.button != _LEFT or asked - {"Shift"}:
            return
        if planes.strokes.tool and not asked:
            yield from planes.strokes.draw(event, self.depth, planes._voxel)
            return
        planes.go_to(planes._voxel(event.position))
        yield
        while event.type == "mouse_move":
            planes.go_to(planes._voxel(event.position))
            yield

    def _zoom(self, event: Any) -> Iterator[None]:
        """Zoom in while the mouse goes up, and out while it goes down; what lies under the press stays in place."""
        camera, start, zoom = self._camera, float(event.pos[1]), self._camera.zoom
        fixed = np.asarray(event.position, float)[list(self._order[1:])]
        away = np.array(camera.center[-2:], float) - fixed
        yield
        while event.type == "mouse_move":
            factor = float(np.exp((start - float(event.pos[1])) / _ZOOM))
            camera.center = (*camera.center[:-2], *(fixed + away / factor))
            camera.zoom = zoom * factor
            yield

    def _on_wheel(self, _model: Any, event: Any) -> None:
        """Go through the slices of this view, one at a time."""
        event.handled = True  # else the camera zooms
        turned = float(np.clip(event.delta[1], -1, 1))
        self._scrolled += turned if event.native.inverted() else -turned
        steps = int(self._scrolled)
        self._scrolled -= steps
        if steps:
            place = np.array(self._planes.place)
            place[self.depth] += steps
            self._planes.go_to(place)

    def _on_double_click(self, _model: Any, _event: Any) -> None:
        """Show the whole slice; with a brush in the hand it is two quick dabs."""
        if not self._planes.strokes.paints:
            self.fit()

    def _on_hover(self, _model: Any, event: Any) -> None:
        """Show the brush, and let the key that picks a class know where the mouse is."""
        self.show_brush()
        viewer = self._planes.controller.viewer
        more = viewer.dims.ndim - 3
        viewer.cursor.position = (*viewer.dims.point[:more], *event.position[-3:])


def _removal(views: Sequence[_SideView], splitter: QSplitter | None) -> Pieces:
    """Remove views that are hidden, and what holds them."""
    yield
    for view in views:
        yield from view.removal()
        yield
    if splitter is not None and isalive(splitter):  # type: ignore[no-untyped-call]
        splitter.setParent(None)
        splitter.deleteLater()


class _Crosshair:
    """Two lines in a canvas, with a gap around their centre. They are no layer, and take no mouse."""

    def __init__(self, canvas: Any, camera: Any) -> None:
        from vispy.scene.visuals import Line  # type: ignore[import-untyped]

        self._camera, self._native = camera, canvas.native
        self._corners: NDArray[np.float64] | None = None
        self._line: Any = Line(np.zeros((2, 2)), color=_COLOUR, connect="segments", parent=canvas.view.scene)
        self._line.order = _ON_TOP
        self._line.set_gl_state("translucent", depth_test=False)
        self._line.visible = False

    def show(
        self,
        at: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        axes: Sequence[int],
        *,
        visible: bool = True,
    ) -> None:
        """Draw it.

        Args:
            at: its centre in the world.
            low: the corner of the case in the world.
            high: the opposite corner.
            axes: those in view, vertical and horizontal.
            visible: False hides it.
        """
        self._corners = np.array([at, low, high])[:, list(axes)]
        self._line.visible = visible
        self.draw()

    def draw(self, *_: object) -> None:
        """Draw it again, because the gap has the same size at any zoom."""
        if self._corners is None or self._line is None:
            return
        (row, column), (top, left), (bottom, right) = self._corners
        gap = _GAP / max(float(self._camera.zoom), 1e-9)
        ends = [(left, row), (column - gap, row), (column + gap, row), (right, row)]
        ends += [(column, top), (column, row - gap), (column, row + gap), (column, bottom)]
        points = np.clip(ends, (left, top), (right, bottom))
        self._line.set_data(pos=points.astype(np.float32))

    def remove(self) -> None:
        """Remove it from the canvas."""
        line, self._line = self._line, None
        if line is not None and isalive(self._native):  # type: ignore[no-untyped-call]
            line.parent = None


class _Letters:
    """Letters at the edges of a canvas, and a line at its top left.

    They are labels of Qt above the canvas: text that napari draws takes seconds to appear in two new canvases.

    Attributes:
        labels: by edge, and "slice" for the line.
    """

    def __init__(self, canvas: Any) -> None:
        self._canvas = canvas
        self.labels = {name: QLabel(canvas) for name in (*_EDGES, "slice")}
        for name, label in self.labels.items():
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            size = 11 if name == "slice" else 14
            label.setStyleSheet(f"background: rgba(0, 0, 0, 150); color: white; padding: 1px 4px; font-size: {size}pt;")
            label.hide()

    def write(self, name: str, text: str) -> None:
        """Show a text, or nothing if it is empty."""
        label = self.labels[name]
        if label.text() != text:
            label.setText(text)
            label.setVisible(bool(text))
            self.arrange()

    def arrange(self) -> None:
        """Put the labels where they belong in the size of the canvas."""
        width, height = self._canvas.width(), self._canvas.height()
        line, above = self.labels["slice"], self.labels["top"]
        line.adjustSize()
        above.adjustSize()
        meets = 2 * _MARGIN + line.width() > (width - above.width()) // 2  # in a narrow view
        for name, label in self.labels.items():
            label.adjustSize()
            across, down = (width - label.width()) // 2, (height - label.height()) // 2
            left, top = {
                "left": (_MARGIN, down),
                "right": (width - label.width() - _MARGIN, down),
                "top": (across, _MARGIN + (line.height() if meets else 0)),
                "bottom": (across, height - label.height() - _MARGIN),
                "slice": (_MARGIN, _MARGIN),
            }[name]
            label.move(left, top)


class _KeysToMain(QObject):
    """Forwards keys pressed in a small view to napari's canvas, so that they mean the same in all three."""

    def __init__(self, canvas: Any) -> None:
        super().__init__()
        self._canvas = canvas

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Forward a key; leave all other events alone."""
        if event is None or event.type() not in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
            return False
        if isalive(self._canvas):  # type: ignore[no-untyped-call]
            QApplication.sendEvent(self._canvas, event)
        return True


def modifiers_of(event: Any) -> set[str]:
    """The modifier keys of a mouse event of napari: ``Shift``, ``Control``, ``Alt``."""
    return {str(getattr(modifier, "name", modifier)) for modifier in event.modifiers}


def _grid_of(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Where a layer of three axes lies in the world: origin and step along each axis; None if it is rotated."""
    origin = np.array(layer.data_to_world((0, 0, 0)), float)
    steps = np.array([layer.data_to_world(tuple(step)) for step in np.eye(3)], float) - origin
    along = np.diag(steps)
    straight = (along > 0).all() and np.allclose(steps, np.diag(along), atol=1e-6 * along.max())
    return (origin, along) if straight else None


def _upright_order(case: Case, depth: int) -> tuple[int, int, int]:
    """The axes in depth, vertically and horizontally: head to feet is vertical, else front to back."""
    directions = directions_of(case)
    vertical, horizontal = axis_order(depth)[1:]
    if directions is not None:
        rank = {"H": 0, "F": 0, "A": 1, "P": 1, "L": 2, "R": 2}
        vertical, horizontal = sorted((vertical, horizontal), key=lambda axis: rank[directions[axis]])
    return depth, vertical, horizontal
