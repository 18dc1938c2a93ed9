"""What has to be done on the canvas before a layer leaves the viewer, or the process may die.

napari deletes the OpenGL programs of a removed layer at once, in whatever context is current then; once Qt has composed
the window, that is Qt's own. Mesa then sets the programs aside for the canvas's context. When it frees them there it
unbinds the vertex shader, and does not bind it again as long as one and the same program is drawn: the next frame calls
a shader that is not there, and the process ends in glDrawArrays (seen with Mesa 22.3, llvmpipe, napari 0.9.2). One
program is all that is drawn when a single layer is left, or none but an overlay that paint mode had brought. Deleted in
the context that made them, programs are never set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Labels, Layer
from psygnal import Signal
from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QOpenGLWidget

from napari_dinoaugseg.gui.widgets import confirmed
from napari_dinoaugseg.session.labels import BACKGROUND

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.core import ControllerCore
    from napari_dinoaugseg.gui.layers import CaseLayers


class CanvasGuard:
    """Prepares the canvas of a viewer for the removal of layers, whoever removes them.

    Keep it as long as the viewer: that refers to it weakly.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        viewer.layers.events.removing.connect(self._before_removal)

    def _before_removal(self, event: Any) -> None:
        layer = self._viewer.layers[event.index]
        if isinstance(layer, Labels):
            layer.mode = "pan_zoom"  # its brush leaves the canvas with it
        window: Any = getattr(self._viewer.window, "_qt_window", None)
        if window is None or not isalive(window):  # type: ignore[no-untyped-call]
            return  # the window was closed, and nothing is drawn any more
        canvas = window.centralWidget().findChild(QOpenGLWidget)
        if canvas is not None and canvas.isValid():
            canvas.makeCurrent()


# Refuses paint while what stands on the screen is not the case that the strokes would go to.


_PAINTS = ("paint", "erase", "fill", "polygon")


class ViewGuard:
    """Watches the viewer for one case.

    napari has no way to refuse a stroke once the mouse button is down. So the tool leaves the hand as soon as the view
    leaves the case, and comes back with it. (An uneditable layer would do the same, but napari then forgets its undo
    history.)

    Attributes:
        reason: why nothing can be painted now, a sentence; empty when it can.
    """

    changed = Signal(str)  # the new reason
    refused = Signal(str)  # somebody pressed the mouse to paint: the reason

    def __init__(self, viewer: napari.Viewer, layers: CaseLayers) -> None:
        self._viewer, self._layers = viewer, layers
        self._mode = ""  # the tool that was in hand when paint was first refused
        self._labels: Labels | None = None  # the layer whose tool is watched
        self.reason = ""
        for event in self._viewer_events():
            event.connect(self.look)
        viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in viewer.layers:
            layer.events.visible.connect(self.look)
        viewer.mouse_drag_callbacks.append(self._on_press)

    def close(self) -> None:
        """Watch no longer."""
        for event in self._viewer_events():
            event.disconnect(self.look)
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        for layer in self._viewer.layers:
            layer.events.visible.disconnect(self.look)
        self._watch(None)
        if self._on_press in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)

    def look(self, *_: object) -> None:
        """Find out whether the case is in view, and let the labels layer follow."""
        reason = self._outside() or self._covered()
        manual = self._layers.manual
        self._watch(manual)
        before, self.reason = self.reason, reason
        if manual is not None and reason and manual.mode in _PAINTS:
            self._mode = str(manual.mode)
            manual.mode = "pan_zoom"
        elif manual is not None and not reason and self._mode:
            manual.mode, self._mode = self._mode, ""
        if reason != before:
            self.changed.emit(reason)

    def _watch(self, labels: Labels | None) -> None:
        """Follow the tool of the labels layer, which may have been removed and made again."""
        if labels is self._labels:
            return
        if self._labels is not None:
            self._labels.events.mode.disconnect(self._on_mode)
        self._labels = labels
        if labels is not None:
            labels.events.mode.connect(self._on_mode)

    def _on_mode(self) -> None:
        """Somebody takes a tool; not while the case is out of view."""
        if self.reason and self._labels is not None and self._labels.mode in _PAINTS:
            self._mode = str(self._labels.mode)
            self._labels.mode = "pan_zoom"
            self.refused.emit(self.reason)

    def _outside(self) -> str:
        """A sentence when the slider of an axis stands outside the case."""
        layer, dims = self._layers.manual or self._layers.prediction, self._viewer.dims
        if layer is None or dims.ndim < layer.ndim:
            return ""
        position = layer.world_to_data(dims.point)
        hidden = [axis - (dims.ndim - layer.ndim) for axis in dims.not_displayed]
        inside = all(-0.5 <= position[axis] <= layer.data.shape[axis] - 0.5 for axis in hidden if axis >= 0)
        if inside:
            return ""
        return f"The view is outside {self._layers.case.name}: nothing is painted here. Move the slider back into it."

    def _covered(self) -> str:
        """A sentence when an image of something else is what a person sees."""
        stack, image = self._viewer.layers, self._layers.image
        if image is None or image not in stack:
            return ""
        own = self._layers.own
        above = stack.index(image) if image.visible else -1
        for layer in reversed(stack):
            if isinstance(layer, Image) and layer not in own and layer.visible and stack.index(layer) > above:
                name = self._layers.case.name
                return (
                    f"The image '{layer.name}' lies above {name}: nothing is painted, for the strokes would go to "
                    f"{name}. Hide '{layer.name}' with its eye in the layer list, or annotate it instead."
                )
        return ""

    def _on_inserted(self, event: Any) -> None:
        layer: Layer = event.value
        layer.events.visible.connect(self.look)
        self.look()

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Say why there is no stroke; a generator, as napari wants it of a drag."""
        if self.reason and self._mode and viewer.layers.selection.active is self._labels and event.button == 1:
            self.refused.emit(self.reason)
        yield

    def _viewer_events(self) -> list[Any]:
        dims, layers = self._viewer.dims.events, self._viewer.layers.events
        return [dims.point, dims.order, dims.ndisplay, layers.removed, layers.reordered]


# The fill bucket: asks before it floods what nobody outlined.
#
# On a slice without labels, or through a gap in an outline, one click would label nearly everything, and a training
# would
# learn it. Nothing is changed before the person has answered, so a refusal leaves no trace in the undo history either.


_FLOOD = 0.5
"""Share of the slice from which a fill counts as a flood."""
_AGAIN = 20  # ms between two looks at the mouse


class FillGuard:
    """Stands before the fill bucket of the manual layer, on the thread of the interface."""

    def __init__(self, controller: ControllerCore) -> None:
        self._controller = controller
        self._layer: Labels | None = None
        self._asking = False
        controller.session_changed.connect(self._follow)
        controller.layers_changed.connect(self._follow)

    def _follow(self) -> None:
        """Guard the manual layer that is there now."""
        layers = self._controller.layers
        layer = layers.manual if layers is not None else None
        if layer is self._layer:
            return
        if self._layer is not None:
            vars(self._layer).pop("fill", None)
        self._layer = layer
        if layer is not None:
            layer.fill = partial(self._fill, layer)

    def _fill(self, layer: Labels, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        # napari's mouse fills without a refresh of its own; a script, which has nobody to ask, with one.
        question = "" if refresh else self._question(layer, coord, new_label)
        if not question:
            Labels.fill(layer, coord, new_label, refresh)
        elif not self._asking:  # with the button down, every move of the mouse comes here
            self._asking = True
            QTimer.singleShot(_AGAIN, partial(self._ask, layer, tuple(coord), new_label, question))

    def _ask(self, layer: Labels, coord: tuple[float, ...], new_label: int, question: str) -> None:
        """Ask once the mouse button is up: a window that opens before would keep napari from seeing that."""
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            QTimer.singleShot(_AGAIN, partial(self._ask, layer, coord, new_label, question))
            return
        self._asking = False
        if self._controller.closed or self._layer is not layer:
            return
        window = self._controller.viewer.window._qt_window
        if confirmed(window, "Fill nearly everything?", question) and self._layer is layer:
            Labels.fill(layer, coord, new_label)

    def _question(self, layer: Labels, coord: Sequence[float], new_label: int) -> str:
        """What to ask before a fill; empty when there is nothing to ask."""
        session, layers = self._controller.session, self._controller.layers
        if session is None or layers is None or new_label == 0:
            return ""
        place = [round(value) for value in coord]
        order = self._controller.viewer.dims.order
        axes = [axis - (len(order) - layer.ndim) for axis in order[-layer.n_edit_dimensions :]]
        # What is filled across: the slice itself, another cut through the volume, or all of it.
        window: list[Any] = [slice(None) if axis in axes else place[axis] for axis in range(layer.ndim)]
        if layers.axis not in axes:
            height, width = session.case.slice_shape(place[layers.axis])
            inside = [axis for axis in range(layer.ndim) if axis != layers.axis]
            for axis, size in zip(inside, (height, width), strict=True):
                window[axis] = slice(size)
                if not 0 <= place[axis] < size:
                    return ""  # beside a picture that is smaller than others
        area = np.asarray(layer.data)[tuple(window)]
        seed = tuple(place[axis] for axis in sorted(axes))
        if area[seed] == new_label or (new_label == BACKGROUND and area.any()):
            return ""  # around what is painted, background is mostly what is left
        share = _reach(area, seed, contiguous=layer.contiguous)
        if share <= _FLOOD:
            return ""
        name = session.case.slice_name(place[layers.axis]) if layers.axis not in axes else "this view"
        word = {entry.number: entry.name for entry in session.labels.classes}.get(new_label, f"class {new_label}")
        if new_label == BACKGROUND:
            word = "background"
        return (
            f"Fill {share:.0%} of {name} with {word}? To fill a shape, outline it with the brush without a gap and "
            "click inside."
        )


def _reach(area: np.ndarray[Any, Any], seed: tuple[int, ...], *, contiguous: bool) -> float:
    """The share of an area that a fill from a pixel would reach, 0 to 1."""
    if not contiguous:
        return float(np.mean(area == area[seed]))
    from skimage.segmentation import flood

    reached: Any = flood(area, seed, connectivity=1)  # type: ignore[no-untyped-call]
    return float(np.mean(reached))


# Which tool is in the person's hand: what the panel's buttons light up for, whoever chose it.


Tool = Literal["brush", "eraser", "background"]


class Tools:
    """Follows napari's selected layer and the mode of the manual layer; `tool_changed` of the controller tells."""

    def __init__(self, controller: ControllerCore) -> None:
        self._controller = controller
        controller.viewer.layers.selection.events.active.connect(self._changed)
        controller.session_changed.connect(self._follow)
        controller.layers_changed.connect(self._follow)
        controller.class_selected.connect(self._changed)

    @property
    def active(self) -> Tool | None:
        """The tool of the panel that the mouse would use now; None for any other of napari, or on another layer."""
        layers = self._controller.layers
        manual = layers.manual if layers is not None else None
        if manual is None or self._controller.viewer.layers.selection.active is not manual:
            return None
        if manual.mode == "erase":
            return "eraser"
        if manual.mode != "paint":
            return None
        selected = self._controller.selected_class
        return "brush" if selected > 0 else "eraser" if selected == 0 else "background"

    def _follow(self) -> None:
        layers = self._controller.layers
        if layers is not None and layers.manual is not None:
            layers.manual.events.mode.connect(self._changed)  # once: napari leaves out what is connected already
        self._changed()

    def _changed(self, *_: object) -> None:
        if not self._controller.closed:
            self._controller.tool_changed.emit()
