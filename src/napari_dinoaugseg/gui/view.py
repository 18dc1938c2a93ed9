"""What is in view: the slice and its window, which slices were seen, and when the view may be painted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Labels, Layer
from psygnal import Signal
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_dinoaugseg.gui.canvas import canvas_widget, main_window
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.display import axis_order
from napari_dinoaugseg.gui.sequences import Sequences
from napari_dinoaugseg.gui.widgets import confirmed
from napari_dinoaugseg.gui.words import slice_name
from napari_dinoaugseg.session.labels import BACKGROUND

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers
    from napari_dinoaugseg.learning.query import Suggestion


class View:
    """What of the case is in view.

    Attributes:
        window: the intensity window of the view: ``auto``, ``percentiles``, the name of a CT window, or ``low,high``.
        sequences: which sequence of the case is in view.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.window = controller.setup.settings.window
        self.sequences = Sequences(controller)

    # --- slices -----------------------------------------------------------------------------------------------------

    def go_to(self, index: int) -> None:
        """Show a slice; an index out of range is clipped to the first or last one."""
        session, layers = self.controller.session, self.controller.layers
        if session is not None and layers is not None:
            layers.go_to(min(max(index, 0), session.case.n_slices - 1))

    def next_labelled(self, step: int = 1) -> None:
        """Show the next labelled slice (``step`` = 1) or the previous one (-1), wrapping around at the ends."""
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
        """The slice most worth labelling next, with the reason; None if all are labelled or no case is open."""
        session = self.controller.session
        found = session.suggest(1) if session is not None else []
        return found[0] if found else None

    def next_suggested(self) -> None:
        """Show the suggested slice and the reason for it."""
        controller = self.controller
        if controller.session is None:
            return
        controller.flush()
        found = self.suggestion()
        if found is None:
            controller.notify("Every slice is labelled.")
            return
        self.go_to(found.index)
        name = slice_name(controller.session.case, found.index)
        controller.notify(f"{name[0].upper()}{name[1:]}: {found.reason}.", "slice")

    def restore_layers(self) -> None:
        """Restore layers that were removed from the viewer, with all labels."""
        controller = self.controller
        if controller.layers is not None:
            controller.layers.show()
            controller.labels.select_class(controller.labels.selected_class)
            controller.touch(Change.LAYERS)

    def back_to_plane(self) -> None:
        """Show whole slices again after napari's axes were rolled or the view was 3-D."""
        if self.controller.layers is not None:
            self.controller.layers.back_to_plane()

    # --- windows ----------------------------------------------------------------------------------------------------

    @property
    def is_what_the_model_sees(self) -> bool:
        """Whether the next training uses the window of the view: until a model is trained or being trained."""
        session = self.controller.session
        return session is None or not (self.controller.jobs.busy or session.is_trained)

    @guarded
    def look_through(self, window: str) -> None:
        """Change the window of the view, see `window`.

        A model that is trained, or being trained, keeps the window chosen in the Train section.
        """
        if self.controller.layers is not None:
            self.controller.layers.show_window(window)
        self._take_window(window)

    @guarded
    def on_window_moved(self, low: float, high: float) -> None:
        """The person moved napari's contrast limits."""
        self._take_window(f"{low:g},{high:g}")

    def _take_window(self, window: str) -> None:
        """Record the window in which the image is now shown, and train with it while there is no model.

        The setting is that of the first sequence; the model sees each other one in a window of its own.
        """
        self.window = window
        setup = self.controller.setup
        if (
            self.is_what_the_model_sees
            and not self.controller.view.sequences.number
            and window != setup.settings.window
        ):
            setup.change(window=window)
        self.controller.touch(Change.WINDOW)


class Looking:
    """Marks slices as seen in the label book while their labels or predictions are visible.

    Masks that nobody has looked at are neither exported nor accepted without a question, so the label book records for
    each slice whether it was in view since the model or an interpolation filled it.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        for event in (controller.viewer.dims.events.order, controller.viewer.dims.events.ndisplay):
            event.connect(self._look)

    def follow(self, what: Change) -> None:
        """Check again when what is visible of a slice may have changed."""
        if what & (Change.SESSION | Change.LAYERS | Change.LABELS | Change.PREDICTIONS | Change.SLICE):
            self._look()

    def _look(self, *_: object) -> None:
        controller, layers = self._controller, self._controller.layers
        if controller.closed or controller.session is None or layers is None:
            return
        for layer in (layers.prediction, layers.manual):
            if layer is not None:
                layer.events.visible.connect(self._look)  # napari connects it once only
        dims = controller.viewer.dims
        if dims.ndisplay != 2 or tuple(dims.order[-3:]) != axis_order(layers.axis):
            return  # a reformatted or 3-D view
        book, here = controller.session.labels, controller.current_slice
        labels = book.of_slice(here)
        # Predictions are not shown on a slice that is labelled as a whole, see `CaseLayers.show_predictions`.
        drawn = [layers.manual] if not labels.is_empty else []
        if not labels.is_whole:
            drawn.append(layers.prediction)
        if all(layer is not None and layer.visible for layer in drawn):
            book.see(here)


class CanvasGuard:
    """Makes the canvas's OpenGL context current before a layer is removed, which otherwise may crash the process.

    napari deletes the OpenGL programs of a removed layer immediately, in the context that is current at that moment;
    after Qt has composed the window, that is Qt's own. Mesa then defers the deletion to the canvas's context, where it
    unbinds the vertex shader and does not rebind it as long as the same program is drawn, so the next frame crashes in
    glDrawArrays (seen with Mesa 22.3, llvmpipe, napari 0.9.2). This needs that only one program is drawn: a single
    remaining layer, or only the overlay of paint mode.

    Keep a reference as long as the viewer exists: it refers to this object weakly.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        viewer.layers.events.removing.connect(self._before_removal)

    def _before_removal(self, event: Any) -> None:
        layer = self._viewer.layers[event.index]
        if isinstance(layer, Labels):
            layer.mode = "pan_zoom"  # also removes the overlay of its brush
        canvas: Any = canvas_widget(self._viewer)
        if canvas is not None and canvas.isValid():
            canvas.makeCurrent()


_PAINTS = ("paint", "erase", "fill", "polygon")


class ViewGuard:
    """Prevents painting while the view shows something other than the case that strokes would go to.

    napari cannot refuse a stroke once the mouse button is down, so the painting tool is deselected as soon as the view
    leaves the case, and selected again when it returns.

    Attributes:
        reason: a sentence on why painting is not possible now; empty if it is.
    """

    changed = Signal(str)  # the new reason
    refused = Signal(str)  # an attempt to paint was refused: the reason

    def __init__(self, viewer: napari.Viewer, layers: CaseLayers) -> None:
        self._viewer, self._layers = viewer, layers
        self._mode = ""  # the deselected tool, to be selected again
        self._labels: Labels | None = None  # the layer whose mode is followed
        self.reason = ""
        for event in self._viewer_events():
            event.connect(self.look)
        viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in viewer.layers:
            layer.events.visible.connect(self.look)
        viewer.mouse_drag_callbacks.append(self._on_press)

    def close(self) -> None:
        """Stop following the viewer."""
        for event in self._viewer_events():
            event.disconnect(self.look)
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        for layer in self._viewer.layers:
            layer.events.visible.disconnect(self.look)
        self._watch(None)
        if self._on_press in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)

    def look(self, *_: object) -> None:
        """Check whether the case is in view, and deselect or restore the tool of the labels layer."""
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
        """Follow the mode of the labels layer, which may have been removed and created again."""
        if labels is self._labels:
            return
        if self._labels is not None:
            self._labels.events.mode.disconnect(self._on_mode)
        self._labels = labels
        if labels is not None:
            labels.events.mode.connect(self._on_mode)

    def _on_mode(self) -> None:
        """Deselect a painting tool that was chosen while the case is out of view."""
        if self.reason and self._labels is not None and self._labels.mode in _PAINTS:
            self._mode = str(self._labels.mode)
            self._labels.mode = "pan_zoom"
            self.refused.emit(self.reason)

    def _outside(self) -> str:
        """The reason if the slider of an axis is outside the case; else empty."""
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
        """The reason if another image covers the case; else empty."""
        stack, image = self._viewer.layers, self._layers.image
        if image is None or image not in stack:
            return ""
        own = self._layers.own
        above = stack.index(image) if image.visible else -1
        for layer in reversed(stack):
            if isinstance(layer, Image) and layer not in own and layer.visible and stack.index(layer) > above:
                name = self._layers.case.name
                return (
                    f"The image '{layer.name}' lies above {name}: nothing is painted, because the strokes would go to "
                    f"{name}. Hide '{layer.name}' with its eye in the layer list, or annotate it instead."
                )
        return ""

    def _on_inserted(self, event: Any) -> None:
        layer: Layer = event.value
        layer.events.visible.connect(self.look)
        self.look()

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Report why the press does not paint. A generator, because napari expects one of drag callbacks."""
        if self.reason and self._mode and viewer.layers.selection.active is self._labels and event.button == 1:
            self.refused.emit(self.reason)
        yield

    def _viewer_events(self) -> list[Any]:
        dims, layers = self._viewer.dims.events, self._viewer.layers.events
        return [dims.point, dims.order, dims.ndisplay, layers.removed, layers.reordered]


_FLOOD = 0.5
"""Share of the slice above which a fill counts as a flood."""
_AGAIN = 20  # ms between two checks of the mouse button


class FillGuard:
    """Asks before the fill tool floods most of a slice.

    On a slice without labels, or through a gap in an outline, a single click would label nearly everything. Nothing
    changes before the person has answered, so a refusal leaves no trace in the undo history.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._layer: Labels | None = None
        self._asking = False

    def follow(self, what: Change) -> None:
        """Guard the current manual layer."""
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
        # napari's mouse handler fills with refresh=False; scripts, where nobody can answer, use the default.
        question = "" if refresh else self._question(layer, coord, new_label)
        if not question:
            self._controller.paint_rules.fill(layer, coord, new_label, refresh)
        elif not self._asking:  # every mouse move with the button down calls this
            self._asking = True
            QTimer.singleShot(_AGAIN, partial(self._ask, layer, tuple(coord), new_label, question))

    def _ask(self, layer: Labels, coord: tuple[float, ...], new_label: int, question: str) -> None:
        """Ask once the mouse button is up, because a dialog would hide its release from napari."""
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            QTimer.singleShot(_AGAIN, partial(self._ask, layer, coord, new_label, question))
            return
        self._asking = False
        if self._controller.closed or self._layer is not layer:
            return
        window = main_window(self._controller.viewer)
        if confirmed(window, "Fill nearly everything?", question) and self._layer is layer:
            self._controller.paint_rules.fill(layer, coord, new_label)

    def _question(self, layer: Labels, coord: Sequence[float], new_label: int) -> str:
        """The question before a fill; empty if none is needed."""
        session, layers = self._controller.session, self._controller.layers
        if session is None or layers is None or new_label == 0:
            return ""
        place = [round(value) for value in coord]
        order = self._controller.viewer.dims.order
        axes = [axis - (len(order) - layer.ndim) for axis in order[-layer.n_edit_dimensions :]]
        # The filled region: the slice, another section through the volume, or the whole volume.
        window: list[Any] = [slice(None) if axis in axes else place[axis] for axis in range(layer.ndim)]
        if layers.axis not in axes:
            height, width = session.case.slice_shape(place[layers.axis])
            inside = [axis for axis in range(layer.ndim) if axis != layers.axis]
            for axis, size in zip(inside, (height, width), strict=True):
                window[axis] = slice(size)
                if not 0 <= place[axis] < size:
                    return ""  # in the padding of a picture
        area = np.asarray(layer.data)[tuple(window)]
        seed = tuple(place[axis] for axis in sorted(axes))
        if area[seed] == new_label or (new_label == BACKGROUND and area.any()):
            return ""  # filling the rest with background is usual
        if self._controller.paint_rules.refuses(int(area[seed]), new_label):
            return ""  # nothing will be filled
        share = _reach(area, seed, contiguous=layer.contiguous)
        if share <= _FLOOD:
            return ""
        name = slice_name(session.case, place[layers.axis]) if layers.axis not in axes else "this view"
        word = {entry.number: entry.name for entry in session.labels.classes}.get(new_label, f"class {new_label}")
        if new_label == BACKGROUND:
            word = "background"
        return (
            f"Fill {share:.0%} of {name} with {word}? To fill a shape, outline it with the brush without a gap and "
            "click inside."
        )


def _reach(area: np.ndarray[Any, Any], seed: tuple[int, ...], *, contiguous: bool) -> float:
    """The share of an area, 0 to 1, that a fill from a pixel would reach."""
    if not contiguous:
        return float(np.mean(area == area[seed]))
    from skimage.segmentation import flood

    reached: Any = flood(area, seed, connectivity=1)
    return float(np.mean(reached))


Tool = Literal["brush", "smart brush", "eraser", "background", "polygon", "fill"]


class Tools:
    """The tool in use, for the buttons of the panel: from napari's active layer and the mode of the manual layer."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        controller.viewer.layers.selection.events.active.connect(self._changed)

    @property
    def active(self) -> Tool | None:
        """The panel's tool in use; None if it is another tool of napari, or another layer is active."""
        layers = self._controller.layers
        manual = layers.manual if layers is not None else None
        if manual is None or self._controller.viewer.layers.selection.active is not manual:
            return None
        if manual.mode == "erase":
            return "eraser"
        if manual.mode == "polygon":
            return "polygon"
        if manual.mode == "fill":
            return "fill"
        if manual.mode != "paint":
            return None
        selected = self._controller.labels.selected_class
        if selected == 0:
            return "eraser"
        if self._controller.paint_rules.is_smart:
            return "smart brush"
        return "brush" if selected > 0 else "background"

    def follow(self, what: Change) -> None:
        """Follow the current manual layer."""
        if not what & (Change.SESSION | Change.LAYERS | Change.SELECTION):
            return
        layers = self._controller.layers
        if layers is not None and layers.manual is not None:
            layers.manual.events.mode.connect(self._changed)  # napari connects it once only
        self._changed()

    def _changed(self, *_: object) -> None:
        if not self._controller.closed:
            self._controller.touch(Change.TOOL)
