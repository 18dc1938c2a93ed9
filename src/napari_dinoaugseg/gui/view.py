"""What is in view: the slice, its window, which way up it stands, and when it may be painted."""

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

from napari_dinoaugseg.case import Case, Plane, VolumeCase
from napari_dinoaugseg.case.array import ArrayCase
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.display import axis_order
from napari_dinoaugseg.gui.widgets import camera_of, confirmed
from napari_dinoaugseg.session.labels import BACKGROUND

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers
    from napari_dinoaugseg.learning.query import Suggestion


class View:
    """What of the case is in view.

    Attributes:
        window: the window the person looks through: ``auto``, ``percentiles``, a CT window by name, or ``low,high``.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.window = controller.setup.settings.window

    # --- slices -----------------------------------------------------------------------------------------------------

    def go_to(self, index: int) -> None:
        """Show a slice; the first or the last one where there is none of this number."""
        session, layers = self.controller.session, self.controller.layers
        if session is not None and layers is not None:
            layers.go_to(min(max(index, 0), session.case.n_slices - 1))

    def next_labelled(self, step: int = 1) -> None:
        """Show the next labelled slice (``step`` = 1), or the previous one (-1); wraps around at the end."""
        controller = self.controller
        if controller.session is None:
            return
        controller.flush()
        labelled = controller.session.labels.labelled
        if not labelled:
            controller.notify("No slice is labelled yet.")
            return
        here = controller.current_slice
        if step > 0:
            self.go_to(next((i for i in labelled if i > here), labelled[0]))
        else:
            self.go_to(next((i for i in reversed(labelled) if i < here), labelled[-1]))

    def suggestion(self) -> Suggestion | None:
        """The slice worth labelling next, with the reason; None when every slice is labelled or no case is open."""
        session = self.controller.session
        found = session.suggest(1) if session is not None else []
        return found[0] if found else None

    def next_suggested(self) -> None:
        """Show the slice worth labelling next, and why."""
        controller = self.controller
        if controller.session is None:
            return
        controller.flush()
        found = self.suggestion()
        if found is None:
            controller.notify("Every slice is labelled.")
            return
        self.go_to(found.index)
        name = controller.session.case.slice_name(found.index).capitalize()
        controller.notify(f"{name}: {found.reason}.", "slice")

    def restore_layers(self) -> None:
        """Bring back layers that were removed from the viewer, with all labels."""
        controller = self.controller
        if controller.layers is not None:
            controller.layers.show()
            controller.labels.select_class(controller.labels.selected_class)
            controller.touch(Change.LAYERS)

    def back_to_plane(self) -> None:
        """Show whole slices again, after napari's axes were rolled or 3-D was shown."""
        if self.controller.layers is not None:
            self.controller.layers.back_to_plane()

    # --- windows ----------------------------------------------------------------------------------------------------

    @property
    def is_what_the_model_sees(self) -> bool:
        """Whether the first training will see through the same window: as long as there is no model."""
        session = self.controller.session
        return session is None or not (self.controller.jobs.busy or session.is_trained)

    @guarded
    def look_through(self, window: str) -> None:
        """Look through a window, see `window`.

        A trained model, or one that is being trained, keeps the window that was chosen at Train.
        """
        if self.controller.layers is not None:
            self.controller.layers.show_window(window)
        self._take_window(window)

    @guarded
    def on_window_moved(self, low: float, high: float) -> None:
        """The person moved napari's contrast limits."""
        self._take_window(f"{low:g},{high:g}")

    def _take_window(self, window: str) -> None:
        """The image is shown through this window now."""
        self.window = window
        setup = self.controller.setup
        if self.is_what_the_model_sees and window != setup.settings.window:
            setup.change(window=window)
        self.controller.touch(Change.WINDOW)


# Which way up a case stands on the canvas, and the letters at its edges.
#
# Data are never turned: napari's camera is. As radiologists hang images: the patient's right on the left of the screen,
# anterior on top of axial slices and on the left of sagittal ones, the head on top of coronal and sagittal ones. The
# depth follows from both, so that a volume in 3-D is not mirrored.


Directions = tuple[str, str, str]
"""Towards what the three axes of the display grow: R, L, A, P, H (head) or F (feet)."""

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "H": "F", "F": "H"}
_VECTORS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}  # LPS
_TOP, _RIGHT = "HAR", "LPH"  # what radiologists have on top, and on the right of the screen
_EDGES = {"left": "middle_left", "right": "middle_right", "top": "top_center", "bottom": "bottom_center"}
_COVERING = ("inserted", "removed", "reordered", "visible")  # events of layers: another image may lie above ours
_MOVING = ("scale", "rotate", "shear", "affine")  # a layer lies differently in the world


def directions_of(case: Case) -> Directions | None:
    """Towards what the axes of a case's display grow; None for pictures and where its file does not record it.

    Of an oblique volume, the closest directions.
    """
    if not isinstance(case, VolumeCase) or isinstance(case, ArrayCase) or not case.grid.known:
        return None
    if case.plane is not Plane.NATIVE:
        return "H", "P", "L"
    codes = case.grid.axcodes.replace("S", "H").replace("I", "F")
    return codes[2], codes[1], codes[0]


def camera_orientation(directions: Directions, axes: Sequence[int], *, as_stored: bool = False) -> tuple[str, str, str]:
    """The camera's orientation: where on the screen depth, rows and columns grow to.

    Args:
        directions: of the display's axes.
        axes: those that lie in depth, down and across the screen: a permutation of 0, 1, 2.
        as_stored: leave the first row on top and the first column on the left.
    """
    depth, vertical, horizontal = (directions[axis] for axis in axes)
    down = as_stored or vertical not in _TOP
    left = not as_stored and horizontal not in _RIGHT
    across, upwards = np.array(_VECTORS[horizontal]), np.array(_VECTORS[vertical])
    out_of_screen = np.cross(-across if left else across, -upwards if down else upwards)
    away = out_of_screen @ _VECTORS[depth] < 0
    return "away" if away else "towards", "down" if down else "up", "left" if left else "right"


def edge_letters(directions: Directions, axes: Sequence[int], orientation: Sequence[str]) -> dict[str, str]:
    """The letter at each edge of the canvas: ``left``, ``right``, ``top``, ``bottom``; see `camera_orientation`."""
    _, vertical, horizontal = (directions[axis] for axis in axes)
    _, towards, across = orientation
    bottom = vertical if towards == "down" else _OPPOSITE[vertical]
    right = horizontal if across == "right" else _OPPOSITE[horizontal]
    return {"left": _OPPOSITE[right], "right": right, "top": _OPPOSITE[bottom], "bottom": bottom}


class Orientation:
    """Turns the camera for one case and shows the letters, as long as the case is in the viewer.

    A person may turn the camera as well: the letters follow, and that is what they find when the case has left.
    """

    def __init__(self, layers: CaseLayers) -> None:
        self._layers = layers
        case = layers.case
        self._directions = directions_of(case)
        self._is_loop = isinstance(case, VolumeCase) and case.grid.in_time
        self._before: tuple[str, str, str] | None = None  # the person's own; None while the case is not shown
        self._turning = False

    def begin(self) -> None:
        """The case is shown: turn the camera, and again whenever napari's axes are rolled or transposed."""
        camera = camera_of(self._layers.viewer)
        if self._before is not None or self._directions is None or not hasattr(camera, "orientation"):
            return
        self._before = _words(camera.orientation)
        for emitter, follow in self._followed():
            emitter.connect(follow)
        self._turn()

    def end(self) -> None:
        """The case leaves: the camera stands as the person had it, and the letters are gone."""
        if self._before is None:
            return
        for emitter, follow in self._followed():
            emitter.disconnect(follow)
        self._set(self._before)
        self._before = None
        overlays = self._overlays()
        for edge in _EDGES:
            if overlays is not None and _name(edge) in overlays:
                del overlays[_name(edge)]

    def _followed(self) -> list[tuple[Any, Any]]:
        viewer = self._layers.viewer
        dims = viewer.dims.events
        return [
            (dims.order, self._turn),
            (dims.ndisplay, self._turn),
            (dims.ndim, self._turn),
            (viewer.layers.events, self._on_layers),
            (camera_of(viewer).events.orientation, self._on_camera),
        ]

    def _on_layers(self, event: Any) -> None:
        if event.type in _MOVING:
            self._turn()
        elif event.type in _COVERING:
            self._show_letters()

    def _on_camera(self, *_: object) -> None:
        """The person turned the camera."""
        if not self._turning:
            self._before = _words(camera_of(self._layers.viewer).orientation)
            self._show_letters()

    # --- turning ----------------------------------------------------------------------------------------------------

    def _turn(self, *_: object) -> None:
        axes = self._axes()
        if axes is not None and self._directions is not None:
            as_stored = self._layers.case.plane is Plane.NATIVE
            self._set(camera_orientation(self._directions, axes, as_stored=as_stored))
        elif self._before is not None:
            self._set(self._before)
        self._show_letters()

    def _set(self, orientation: tuple[str, str, str]) -> None:
        camera = camera_of(self._layers.viewer)
        if _words(camera.orientation) == orientation:
            return
        self._turning = True
        try:
            camera.orientation = orientation
        finally:
            self._turning = False

    def _axes(self) -> tuple[int, int, int] | None:
        """The display's axes in depth, down and across the screen; None where something else is displayed."""
        dims, image = self._layers.viewer.dims, self._layers.image
        more = dims.ndim - 3  # of other layers
        vertical, horizontal = (axis - more for axis in dims.order[-2:])
        if image is None or min(more, vertical, horizontal) < 0 or not _is_straight(image):
            return None
        if self._is_loop and not self._layers.shows_slices:
            return None  # from frame to frame it is time that passes
        (depth,) = {0, 1, 2} - {vertical, horizontal}
        if dims.ndisplay == 3 and dims.order[-3] - more != depth:
            return None
        return depth, vertical, horizontal

    # --- letters ----------------------------------------------------------------------------------------------------

    def _show_letters(self) -> None:
        overlays = self._overlays()
        if overlays is None:
            return
        axes, letters = self._axes(), {}
        if axes is not None and self._directions is not None and self._is_in_view():
            orientation = _words(camera_of(self._layers.viewer).orientation)
            letters = edge_letters(self._directions, axes, orientation)
        for edge, position in _EDGES.items():
            if _name(edge) not in overlays:
                overlays[_name(edge)] = _letter(position)
            overlay = overlays[_name(edge)]
            overlay.text = letters.get(edge, "")
            overlay.visible = bool(letters)

    def _is_in_view(self) -> bool:
        """Whether what is seen is a slice of the case, and its file records where left and right are."""
        viewer, case, image, own = self._layers.viewer, self._layers.case, self._layers.image, self._layers.own
        if viewer.dims.ndisplay == 3 or not isinstance(case, VolumeCase) or not case.grid.oriented:
            return False
        if image is None or image not in own or not image.visible:
            return False
        above = list(viewer.layers)[viewer.layers.index(image) + 1 :]
        return not any(isinstance(layer, Image) and layer.visible and layer not in own for layer in above)

    def _overlays(self) -> Any:
        """The canvas's overlays by name; None before napari 0.9, which has no public place for them."""
        return getattr(getattr(self._layers.viewer, "canvas", None), "overlays", None)


def _letter(position: str) -> Any:
    from napari.components.overlays import TextOverlay

    return TextOverlay(position=position, font_size=14, box=True)


def _name(edge: str) -> str:
    return f"dinoaugseg_{edge}"


def _words(orientation: Sequence[Any]) -> tuple[str, str, str]:
    depth, vertical, horizontal = (str(one) for one in orientation)
    return depth, vertical, horizontal


def _is_straight(image: Image) -> bool:
    """Whether the image's axes are those of the world: somebody may have mirrored or turned the layer."""
    origin = np.array(image.data_to_world((0, 0, 0)))
    steps = np.array([image.data_to_world(tuple(step)) for step in np.eye(3)]) - origin
    along = np.diag(steps)
    return bool((along > 0).all() and np.allclose(steps, np.diag(along), atol=1e-6 * along.max()))


# Which slices the person has looked at since the model, or an interpolation, filled them.
#
# A mask that nobody has seen must not leave the program, or be accepted, without a word. So the label book keeps for
# each
# slice whether what is on it was in view; here the viewer's events become those facts.


class Looking:
    """Notes what is in view of one viewer, on the thread of the interface."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        for event in (controller.viewer.dims.events.order, controller.viewer.dims.events.ndisplay):
            event.connect(self._look)

    def follow(self, what: Change) -> None:
        """Look again when what is shown of a slice may have changed."""
        if what & (Change.SESSION | Change.LAYERS | Change.LABELS | Change.PREDICTIONS | Change.SLICE):
            self._look()

    def _look(self, *_: object) -> None:
        controller, layers = self._controller, self._controller.layers
        if controller.closed or controller.session is None or layers is None:
            return
        for layer in (layers.prediction, layers.manual):
            if layer is not None:
                layer.events.visible.connect(self._look)  # once: napari leaves out what is connected already
        dims = controller.viewer.dims
        if dims.ndisplay != 2 or tuple(dims.order[-3:]) != axis_order(layers.axis):
            return  # another cut through the volume, or a rendering of it
        book, here = controller.session.labels, controller.current_slice
        said = book.of_slice(here)
        # Of a slice that is labelled as a whole only the labels are drawn, see `CaseLayers.show_predictions`.
        drawn = [layers.manual] if not said.is_empty else []
        if said.is_empty or said.is_open:
            drawn.append(layers.prediction)
        if all(layer is not None and layer.visible for layer in drawn):
            book.see(here)


# --- what is done on the canvas before a layer leaves the viewer, or the process may die ---
#
# napari deletes the OpenGL programs of a removed layer at once, in whatever context is current then; once Qt has
# composed the window, that is Qt's own. Mesa then sets the programs aside for the canvas's context. When it frees them
# there it unbinds the vertex shader, and does not bind it again as long as one and the same program is drawn: the next
# frame calls a shader that is not there, and the process ends in glDrawArrays (seen with Mesa 22.3, llvmpipe, napari
# 0.9.2). One program is all that is drawn when a single layer is left, or none but an overlay that paint mode had
# brought. Deleted in the context that made them, programs are never set aside.


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
        """Explain why there is no stroke; a generator, as napari wants it of a drag."""
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

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._layer: Labels | None = None
        self._asking = False

    def follow(self, what: Change) -> None:
        """Guard the manual layer that is there now."""
        if not what & (Change.SESSION | Change.LAYERS):
            return
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
    """Follows napari's selected layer and the mode of the manual layer, and reports each change of the tool."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        controller.viewer.layers.selection.events.active.connect(self._changed)

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
        selected = self._controller.labels.selected_class
        return "brush" if selected > 0 else "eraser" if selected == 0 else "background"

    def follow(self, what: Change) -> None:
        """Watch the manual layer that is there now."""
        if not what & (Change.SESSION | Change.LAYERS | Change.SELECTION):
            return
        layers = self._controller.layers
        if layers is not None and layers.manual is not None:
            layers.manual.events.mode.connect(self._changed)  # once: napari leaves out what is connected already
        self._changed()

    def _changed(self, *_: object) -> None:
        if not self._controller.closed:
            self._controller.touch(Change.TOOL)
