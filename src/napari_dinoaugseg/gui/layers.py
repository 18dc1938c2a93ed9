"""The layers of a case in the viewer: made, placed, coloured, and brought back when somebody removed them.

Three layers: the image, "manual" (what counts as labelled: painted or accepted), and "prediction" (only shown, on
slices that are not labelled yet). A fourth, "confidence", is made when it is first asked for.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_dinoaugseg.gui.display import (
    AXIS,
    BACKGROUND,
    axis_order,
    case_metadata,
    case_of,
    certainty_colours,
    display_of,
    from_layer,
    is_scribbled,
    is_shown,
    label_colours,
    stack_shape,
    to_layer,
    window_of,
)
from napari_dinoaugseg.gui.history import History, Mark, Step
from napari_dinoaugseg.gui.orientation import Orientation
from napari_dinoaugseg.gui.takeback import put_class
from napari_dinoaugseg.gui.widgets import stop
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.session.labels import LabelClass, SliceLabels, foreign_values, new_class
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    import napari


_NEXT_FRAME = 60  # ms


class LayerStack:
    """Layers of one case in one viewer; see :class:`~napari_dinoaugseg.gui.layers.CaseLayers`."""

    slice_changed = Signal(int)
    window_moved = Signal(float, float)  # the person moved napari's contrast slider: the new limits
    turned = Signal()  # napari's axes were rolled or transposed, or 2-D and 3-D switched

    def __init__(
        self, viewer: napari.Viewer, session: Session, image: Image | None = None, window: str = "auto"
    ) -> None:
        self.viewer = viewer
        self.session = session
        self.case = session.case
        self.axis = AXIS[self.case.plane]
        self._shape = stack_shape(self.case)
        self.image: Image | None = image
        self.window = window  # what the person looks through, a name or "low,high"
        self._showing_window = False
        self.manual: Labels | None = None
        self.prediction: Labels | None = None
        self.confidence: Image | None = None
        self._certainty: dict[int, NDArray[np.uint8]] = {}
        self._slice = 0
        self._colour_timer = QTimer()
        self._colour_timer.setSingleShot(True)
        self._colour_timer.timeout.connect(self._colour)
        self.orientation = Orientation(self)
        viewer.dims.events.point.connect(self._on_moved)
        viewer.dims.events.order.connect(self._on_turned)
        viewer.dims.events.ndisplay.connect(self._on_turned)

    @abstractmethod
    def undo(self) -> None:
        """Take back the last change; napari's Ctrl+Z on our layers comes here."""

    @abstractmethod
    def redo(self) -> None:
        """Do again what was taken back."""

    @abstractmethod
    def _begin_to_follow(self, layer: Labels) -> None:
        """A new manual layer is there, still empty."""

    # --- making -----------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Make the layers that are not there, filled from the label book, and show the case's plane."""
        if self.image is None or self.image not in self.viewer.layers:
            self.image = self._make_image()
            self.viewer.layers.move(self.viewer.layers.index(self.image), 0)  # below the labels
        self.image.visible = True
        self.image.events.contrast_limits.connect(self._on_contrast)
        self.show_window(self.window)
        if self.prediction is None:
            self.prediction = self._make_labels("prediction", opacity=0.5)
            self.prediction.editable = False  # napari's tools do not paint on it
            self.show_predictions(range(self.case.n_slices))
        if self.manual is None:
            self.manual = self._make_labels("manual", opacity=0.7)
            self._begin_to_follow(self.manual)
        self.viewer.layers.selection.active = self.manual
        order = axis_order(self.axis)
        if self.viewer.dims.ndim == 3 and tuple(self.viewer.dims.order) != order:
            self.viewer.dims.order = order
        if self.viewer.dims.ndim == 3:
            names = ["row", "column"]
            names.insert(self.axis, "slice" if self.case.kind == "volume" else "picture")
            self.viewer.dims.axis_labels = tuple(names)
        self.orientation.begin()
        self._slice = self.current_slice

    @property
    def own(self) -> list[Layer]:
        """The layers of this case that are in the viewer, from the top to the bottom."""
        layers = (self.confidence, self.manual, self.prediction, self.image)
        return [layer for layer in layers if layer is not None and layer in self.viewer.layers]

    def hide_others(self) -> list[str]:
        """Hide every layer that is not of this case; returns the names of those that were visible."""
        others = [layer for layer in self.viewer.layers if layer.visible and layer not in self.own]
        for layer in others:
            layer.visible = False
        return [layer.name for layer in others]

    def fit(self) -> None:
        """Fit the camera to this case, and show its middle slice."""
        self.go_to(self.case.n_slices // 2)
        self._fit_camera()

    def _fit_camera(self) -> None:
        try:
            self.viewer.reset_view(layers=self.own)
        except TypeError:  # before napari 0.6.3 it always fits all layers
            self.viewer.reset_view()

    def _make_image(self) -> Image:
        data, rgb, scale, units = display_of(self.case)
        window = None if rgb else window_of(self.case, self.window)
        return self.viewer.add_image(
            data,
            name=self.case.name,
            rgb=rgb,
            scale=scale,
            units=units,
            metadata=case_metadata(self.case),
            **({"contrast_limits": window} if window else {}),
        )

    def _make_labels(self, name: str, opacity: float) -> Labels:
        values = np.zeros(self._shape, np.uint16)
        about = case_metadata(self.case)
        colours = label_colours(self.session.labels.classes)
        layer = Labels(values, name=name, opacity=opacity, colormap=colours, metadata=about, **self._place())
        layer.bind_key("Control-Z", lambda _: self.undo(), overwrite=True)
        layer.bind_key("Control-Shift-Z", lambda _: self.redo(), overwrite=True)
        self.viewer.add_layer(layer)
        return layer

    def _place(self) -> dict[str, Any]:
        """Scale, position and units as the image has them; a 2-D image is one slice of a stack."""
        image = self.image
        if image is None:
            return {}
        scale, translate, units = list(image.scale), list(image.translate), list(image.units)
        if len(scale) == 2:
            scale, translate, units = [1.0, *scale], [0.0, *translate], [units[0], *units]
            return {"scale": scale, "translate": translate, "units": units}
        return {"scale": scale, "translate": translate, "units": units, "affine": image.affine}

    # --- where we are -----------------------------------------------------------------------------------------------

    @property
    def current_slice(self) -> int:
        """The slice in view, by the case's numbering."""
        layer = self.manual or self.prediction
        dims = self.viewer.dims
        if layer is None or dims.ndim < 3:
            return self._slice if layer is None else 0
        point = dims.point[-3 + self.axis]
        index = round((point - layer.translate[self.axis]) / layer.scale[self.axis])
        return int(min(max(index, 0), self.case.n_slices - 1))

    def go_to(self, index: int) -> None:
        """Show a slice."""
        layer = self.manual or self.prediction
        dims = self.viewer.dims
        if layer is not None and dims.ndim >= 3:
            world = layer.translate[self.axis] + index * layer.scale[self.axis]
            dims.set_point(dims.ndim - 3 + self.axis, world)

    def _on_moved(self) -> None:
        index = self.current_slice
        if index != self._slice:
            self._slice = index
            self.slice_changed.emit(index)

    @property
    def shows_slices(self) -> bool:
        """Whether whole slices are in view: neither 3-D nor napari's rolled view, in which a slice is one line."""
        dims = self.viewer.dims
        return dims.ndisplay == 2 and dims.ndim - 3 + self.axis not in dims.displayed

    def back_to_plane(self) -> None:
        """Show the slice again that was in view before napari's axes were rolled or 3-D was shown, and paint on it."""
        dims = self.viewer.dims
        more = dims.ndim - 3  # axes of other layers
        dims.ndisplay = 2
        if more >= 0:
            dims.order = (*range(more), *(axis + more for axis in axis_order(self.axis)))
        if self.manual is not None:
            self.manual.n_edit_dimensions = 2
        self._fit_camera()

    def _on_turned(self) -> None:
        self.turned.emit()

    # --- what is shown -------------------------------------------------------------------------------------------

    def _slices(self, layer: Labels) -> NDArray[Any]:
        """The layer's data as (n_slices, H, W), a view."""
        return np.moveaxis(np.asarray(layer.data), self.axis, 0)

    def show_predictions(self, indices: Iterable[int]) -> None:
        """Show the predictions of slices where they say something new: not where all is labelled."""
        if self.prediction is None:
            return
        slices, book, here = self._slices(self.prediction), self.session.labels, self.current_slice
        upright = tuple(self.viewer.dims.order[-3:]) == axis_order(self.axis) and self.viewer.dims.ndisplay == 2
        refresh = False
        for index in indices:
            predicted = book.predicted(index)
            said = book.of_slice(index)
            done = said.accepted is not None or (said.manual is not None and not is_scribbled(said))
            height, width = self.case.slice_shape(index)
            shown = slices[index, :height, :width]
            if predicted is None or done:
                if not shown.any():
                    continue
                shown[...] = 0
            else:
                shown[...] = predicted
            refresh = refresh or index == here or not upright
        if refresh:
            self.prediction.refresh()

    def show_colours(self) -> None:
        """Give the layers the classes' colours, soon.

        Not at once: a colormap that is replaced before the canvas drew it leaves vispy looking for its texture.
        """
        if not self._colour_timer.isActive():
            self._colour_timer.start(_NEXT_FRAME)

    def _colour(self) -> None:
        colours = label_colours(self.session.labels.classes)
        for layer in (self.manual, self.prediction):
            if layer is not None:
                layer.colormap = colours

    def show_window(self, name: str) -> None:
        """Show the image through a window. Raises SettingsError when there is no such window."""
        limits = window_of(self.case, name)
        self.window = name
        if self.image is not None and not self.image.rgb and limits is not None:
            self._showing_window = True
            try:
                self.image.contrast_limits = limits
            finally:
                self._showing_window = False

    def _on_contrast(self) -> None:
        if self.image is not None and not self._showing_window:
            low, high = self.image.contrast_limits
            self.window_moved.emit(float(low), float(high))

    def select_label(self, number: int) -> None:
        """Load the brush: a class number, 0 = the eraser, -1 = the background."""
        if self.manual is None:
            return
        self.manual.selected_label = BACKGROUND if number == -1 else number
        if self.manual.mode in ("pan_zoom", "transform"):
            self.manual.mode = "paint"

    # --- confidence -------------------------------------------------------------------------------------------------

    def keep_confidence(self, prediction: Prediction) -> None:
        """Remember how sure a prediction is of each pixel, for the overlay."""
        certain = np.round(prediction.pixel_confidence * 255).astype(np.uint8)
        self._certainty[prediction.index] = certain
        if self.confidence is not None:
            height, width = certain.shape
            np.moveaxis(np.asarray(self.confidence.data), self.axis, 0)[prediction.index, :height, :width] = certain
            if prediction.index == self.current_slice:
                self.confidence.refresh()

    def show_confidence(self, on: bool) -> None:
        """Show or hide the overlay that marks where the model is unsure."""
        if self.confidence is None and on:
            data = np.full(self._shape, 255, np.uint8)
            slices = np.moveaxis(data, self.axis, 0)
            for index, certain in self._certainty.items():
                slices[index, : certain.shape[0], : certain.shape[1]] = certain
            active = self.viewer.layers.selection.active
            self.confidence = Image(
                data,
                name="confidence",
                colormap=certainty_colours(),
                contrast_limits=(102, 255),
                blending="translucent_no_depth",
                **self._place(),
            )
            self.viewer.add_layer(self.confidence)
            self.viewer.layers.selection.active = active
        if self.confidence is not None:
            self.confidence.visible = on


# What the person paints into "manual" goes into the label book.
#
# Painting is taken over soon after each stroke: events only say that something may have changed, so slices are compared
# with what is known of them, a few milliseconds at a time.


_SETTLE = 120  # ms after the last event of a stroke until it is taken over
_LATEST = 500  # ms after its first one: who paints without a pause must not wait to be saved
_SHARE = 0.008  # seconds of comparing at a time


class FollowedLayers(LayerStack):
    """Layers of one case; "manual" is followed. See :class:`~napari_dinoaugseg.gui.layers.CaseLayers`."""

    labels_taken = Signal(list)  # slices whose painted labels went into the label book
    painted_across = Signal()  # a stroke across slices began some of them as scribbles
    classes_found = Signal()  # somebody painted with a number that was no class yet
    label_selected = Signal(int)  # the brush in napari's own controls: class number, 0, or -1 for the background
    lost = Signal(str)  # which layer was removed
    failed = Signal(object)  # an exception while taking labels over

    def __init__(
        self, viewer: napari.Viewer, session: Session, image: Image | None = None, window: str = "auto"
    ) -> None:
        super().__init__(viewer, session, image, window)
        self.scribbles = False
        self._known: dict[int, NDArray[np.uint16]] = {}  # slices of "manual" as last compared; the others are all 0
        self._array: NDArray[np.uint16] | None = None  # that of the layer, until somebody gives it another
        self._history = History()
        self._former: dict[int, LabelClass] = {}  # removed classes, for whoever paints with their number again
        self._todo: dict[int, None] = {}
        self._touched: dict[int, None] = {}  # slices in view when something happened: compared before the others
        self._first: dict[int, bool] = {}  # slices with strokes not yet compared: whether the first went across slices
        self._began_across = False  # whether such a stroke was the first on a slice
        self._drawing = False  # whether a mouse button is down on the layer
        self._since = 0.0
        self._writing = False
        self._view: tuple[float, ...] = ()
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._compare_some)
        viewer.layers.events.removed.connect(self._on_removed)

    # --- from the layer to the label book ---------------------------------------------------------------------------

    def _begin_to_follow(self, layer: Labels) -> None:
        self._array = layer.data
        self._begin_history()
        for index in self._history.slices():
            self._view_of(index)[...] = to_layer(self._history.marked(index).said, self.case.slice_shape(index))
            self._known[index] = self._followed()[index].copy()
        # Scripts and other plugins take strokes back through the same door as Ctrl+Z.
        layer.undo, layer.redo = self.undo, self.redo
        layer.events.set_data.connect(self._on_shown)
        layer.events.paint.connect(self._on_stroke)
        layer.events.data.connect(self._on_replaced)
        layer.mouse_drag_callbacks.append(self._on_drag)
        layer.events.selected_label.connect(self._on_selected)
        self._view = self._view_now()

    def _begin_history(self) -> None:
        """Nothing can be taken back any more, and nothing is known of the layer."""
        self._known.clear()
        self._history = History()
        for index in range(self.case.n_slices):
            said = self.session.labels.of_slice(index)
            if not said.is_empty:
                self._history.mark(index, Mark(said, is_scribbled(said)))

    def flush(self) -> None:
        """Take over now whatever was painted."""
        if self.manual is not None and self.manual.data is not self._array:
            self._on_replaced()  # napari failed to draw it and told nobody
        self._compare_all()

    def _compare_all(self) -> None:
        stop(self._timer)
        if self.manual is not None:
            self._todo = dict.fromkeys(range(self.case.n_slices))
            self._compare(None)

    def _on_shown(self) -> None:
        """Something may have changed (an undo tells no more than that). Moving to another slice comes here too."""
        if self._writing:
            return
        view, self._view = self._view, self._view_now()
        if view == self._view:
            self._look_soon()

    def _view_now(self) -> tuple[float, ...]:
        dims = self.viewer.dims
        return (*dims.point, *dims.order, dims.ndisplay)

    def _look_soon(self) -> None:
        now = time.monotonic()
        if not self._timer.isActive():
            self._since = now
        self._touched[self.current_slice] = None
        self._todo = dict.fromkeys([*self._touched, *range(self.case.n_slices)])
        left = _LATEST - 1000 * (now - self._since)
        self._timer.start(int(max(0, min(_SETTLE, left))))

    def _on_drag(self, _layer: Labels, event: Any) -> Iterator[None]:
        self._drawing = True
        yield
        while event.type == "mouse_move":
            yield
        self._drawing = False

    def _on_stroke(self, event: Any) -> None:
        if self.manual is not None and not self._writing:
            self._history.push(pixels_of(self.manual))
            spanned, changed = slices_of_edits(event, self.axis) or self._changed_now()
            across = len(spanned) > 1 or not self.shows_slices
            for index in changed:
                self._first.setdefault(index, across)
            self._look_soon()

    def _changed_now(self) -> tuple[set[int], set[int]]:
        """Which slices a stroke changed, seen by comparing them all."""
        changed = {i for i in range(self.case.n_slices) if i not in self._first and not self._is_known(i)}
        return changed, changed

    def _on_replaced(self) -> None:
        """Somebody gave the layer another array: taken over when it fits, else the layer is theirs from now on."""
        layer = self.manual
        if layer is None or self._writing:
            return
        data = np.asarray(layer.data)
        if data.shape != self._shape or data.min() < 0 or data.max() > BACKGROUND:
            self._let_go(layer)
            self.lost.emit("manual")
        elif data is layer.data and data.dtype == np.uint16 and data.flags.writeable:
            self._take_array(layer.data)
        else:
            layer.data = data.astype(np.uint16)  # comes back here

    def _take_array(self, data: NDArray[np.uint16]) -> None:
        """Follow another array. That is a step: napari does not take it back, so we put the old slices there again."""
        self._compare_all()  # the last strokes are in the old one
        before, self._array = self._array, data
        if before is not None and before is not data:
            old, new = (np.moveaxis(array, self.axis, 0) for array in (before, data))
            changed = [index for index in range(len(old)) if not np.array_equal(old[index], new[index])]
            if changed:
                back, again = ({index: slices[index].copy() for index in changed} for slices in (old, new))
                self._history.push(Step((partial(self._put, back),), (partial(self._put, again),)))
        self._compare_all()

    def _compare_some(self) -> None:
        self._compare(time.monotonic() + _SHARE)
        if self._todo:
            self._timer.start(1)

    def _compare(self, until: float | None) -> None:
        if self.manual is None:
            self._todo.clear()
            return
        slices = self._followed()
        taken: list[int] = []
        while self._todo and (until is None or time.monotonic() < until):
            index = next(iter(self._todo))
            del self._todo[index]
            self._touched.pop(index, None)
            if self._is_known(index):
                continue
            try:
                self._take(index, slices[index].copy())
                taken.append(index)
            except Exception as error:  # whatever it is, the paint stays in the layer
                self._known[index] = slices[index].copy()
                self.failed.emit(error)
        if not self._todo:
            self._first.clear()
        if taken:
            self.labels_taken.emit(taken)
        if self._began_across:
            self._began_across = False
            self.painted_across.emit()

    def _is_known(self, index: int) -> bool:
        """Whether a slice of the layer is as it was last compared."""
        values, known = self._followed()[index], self._known.get(index)
        return not values.any() if known is None else np.array_equal(values, known)

    def _take(self, index: int, values: NDArray[np.uint16]) -> None:
        """What the person made of a slice goes into the label book."""
        height, width = self.case.slice_shape(index)
        before, self._known[index] = self._known.get(index), values
        if not (values[:height, :width] != (0 if before is None else before[:height, :width])).any():
            return  # only beside a picture that is smaller than others
        mark = self._history.marked(index)
        if mark.said.is_empty:
            # A stroke across slices shows a few pixels of each, and says nothing of the rest of them.
            across = self._first.get(index, self._draws_across)
            self._began_across = self._began_across or (across and not self.scribbles)
            self._read(index, self.scribbles or across)
        else:
            self._read(index, mark.scribbled)

    @property
    def _draws_across(self) -> bool:
        """Whether a stroke is being drawn that may go across slices; work in the background may look before its end."""
        layer = self.manual
        return self._drawing and layer is not None and (layer.n_edit_dimensions > 2 or not self.shows_slices)

    def _read(self, index: int, scribbles: bool) -> None:
        """Let the label book have what the layer's pixels mean."""
        values = self._view_of(index)
        self._meet_numbers(values)
        labels = from_layer(values, scribbles=scribbles)
        if labels is None:
            self.session.labels.clear(index)
        else:
            self.session.paint(index, labels)
        self._history.mark(index, Mark(self.session.labels.of_slice(index), scribbles and labels is not None))

    def _meet_numbers(self, values: NDArray[np.uint16]) -> None:
        """Paint with a number that is no class makes it one: nothing painted is refused."""
        book = self.session.labels
        new = foreign_values(values, [entry.number for entry in book.classes])
        for number in new:
            put_class(book, self._former.get(number) or new_class(number))
        if new:
            self.show_colours()
            self.classes_found.emit()

    def _followed(self) -> NDArray[np.uint16]:
        """The array that is followed, as (n_slices, H, W): a view."""
        array = self._array if self._array is not None else np.zeros(self._shape, np.uint16)
        return np.moveaxis(array, self.axis, 0)

    def _view_of(self, index: int) -> NDArray[np.uint16]:
        """The pixels of a slice in the layer, (H, W); what the label book says when the layer is gone."""
        if self.manual is None:
            return to_layer(self._history.marked(index).said, self.case.slice_shape(index))
        height, width = self.case.slice_shape(index)
        return self._followed()[index, :height, :width]

    def _put(self, values: Mapping[int, NDArray[np.uint16] | None]) -> None:
        """Put slices (None = all 0) into the layer, beside napari's history."""
        slices = self._followed()
        for index, slice_values in values.items():
            if slice_values is None:
                slices[index] = 0
            else:
                height, width = slice_values.shape
                slices[index, :height, :width] = slice_values
        if self.manual is not None:
            self.manual.refresh()

    @contextmanager
    def _silently(self) -> Iterator[None]:
        """What napari tells of the layer meanwhile is our own doing."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _on_selected(self) -> None:
        if self.manual is not None:
            number = int(self.manual.selected_label)
            self.label_selected.emit(-1 if number == BACKGROUND else number)

    # --- letting go -------------------------------------------------------------------------------------------------

    def _on_removed(self, event: Any) -> None:
        """A layer left the viewer. The last strokes in it are still taken over."""
        layer = event.value
        if layer is self.manual and layer is not None:
            self.flush()
            self._let_go(layer)
            self.lost.emit("manual")
        elif layer is self.prediction and layer is not None:
            self.prediction = None
            self.lost.emit("prediction")
        elif layer is self.confidence:
            self.confidence = None
        elif layer is self.image and layer is not None:
            self.image = None
            self.lost.emit("image")

    def _let_go(self, layer: Labels) -> None:
        stop(self._timer)
        for events in (layer.events.set_data, layer.events.paint, layer.events.data, layer.events.selected_label):
            for handler in (self._on_shown, self._on_stroke, self._on_replaced, self._on_selected):
                if handler in events.callbacks:
                    events.disconnect(handler)
        if self._on_drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._on_drag)
        self._drawing = False
        # From now on it is a layer as any other, with napari's own undo.
        for name, key in (("undo", "Control-Z"), ("redo", "Control-Shift-Z")):
            vars(layer).pop(name, None)
            layer.bind_key(key, None, overwrite=True)
        self.manual, self._array = None, None
        self._begin_history()


def pixels_of(layer: Labels | None) -> Step:
    """The last entry of napari's own history. What scripts call is ours, see ``_begin_to_follow``."""
    return Step((partial(Labels.undo, layer),), (partial(Labels.redo, layer),))


def slices_of_edits(event: Any, axis: int) -> tuple[set[int], set[int]] | None:
    """The slices across `axis` over which a stroke went, and those that it changed; None when this cannot be read.

    What a paint event holds is napari's own affair: a list of edits, each with the box around a brush and a mask of
    what changed in it (None: all), or with the indices of voxels and their values.
    """
    edits = getattr(event, "value", None)
    if not isinstance(edits, list):
        return None
    spanned: set[int] = set()
    changed: set[int] = set()
    for edit in edits:
        box, mask = getattr(edit, "slice_key", None), getattr(edit, "mask", None)
        if isinstance(box, tuple) and len(box) > axis and isinstance(box[axis], slice):
            within = np.arange(box[axis].start, box[axis].stop)
            spanned.update(within.tolist())
            changed.update((within if mask is None else within[np.moveaxis(mask, axis, 0).any(axis=(1, 2))]).tolist())
        elif box is None and isinstance(edit, tuple) and isinstance(edit[0], tuple) and len(edit[0]) > axis:
            indices = np.unique(edit[0][axis]).tolist()
            spanned.update(indices)
            changed.update(indices)
        else:
            return None
    return spanned, changed


# The way between the layers of a case and the label book.
#
# ``layer_following.py`` takes over what is painted. Here what the label book says comes into the layers: into "manual"
# as whole slices, in one step each, beside napari's own history, which keeps a position and two values for every pixel
# and takes seconds for a few hundred slices. Taking back goes through our history, which knows what pixels meant.


class CaseLayers(FollowedLayers):
    """Layers of one case in one viewer. Lives on the thread of the interface.

    Attributes:
        image, manual, prediction, confidence: the layers; None where the person removed one or it was not made yet.
        scribbles: whether unpainted pixels of slices labelled from now on mean "unknown".
    """

    # --- from the label book to the layers --------------------------------------------------------------------------

    def write_labels(self, indices: Iterable[int], also: Step | None = None) -> None:
        """Show what the label book says about slices, as one step that Ctrl+Z takes back.

        Args:
            indices: the slices.
            also: what else was done in this step, and how it is taken back and done again.
        """
        marks: dict[int, Mark] = {}
        pending: dict[int, NDArray[np.uint16]] = {}
        for index in indices:
            said = self.session.labels.of_slice(index)
            mark = Mark(said, is_scribbled(said))
            if mark.says_as(self._history.marked(index)):
                mark = self._history.marked(index)  # nothing new: a slice stays scribbled as it was begun
            marks[index] = mark
            if not is_shown(said, self._view_of(index), scribbles=mark.scribbled):
                pending[index] = to_layer(said, self.case.slice_shape(index), explicit=self.scribbles)
        step = self._write(pending)
        if also or step or any(mark is not self._history.marked(index) for index, mark in marks.items()):
            step, also = step or Step(), also or Step()
            self._history.push(Step(step.back + also.back, step.again + also.again))
        for index, mark in marks.items():
            self._history.mark(index, mark)

    def erase_class(self, entry: LabelClass, also: Step) -> None:
        """Take a class that the label book has removed out of the layer, in one step with the removal."""
        self._former[entry.number] = entry
        holding = []
        for index in self._history.slices():
            values, mark = self._view_of(index), self._history.marked(index)
            if (values == entry.number).any():
                holding.append(index)
                # What is left decides: a slice that held nothing else is not labelled any more.
                left = from_layer(np.where(values == entry.number, 0, values), scribbles=mark.scribbled)
                accepted = left is not None and mark.said.manual is None
                said = self.session.labels.of_slice(index) if accepted else SliceLabels(manual=left)
                self.session.labels.put_back(index, said)
        self.write_labels(holding, also)

    def _write(self, pending: dict[int, NDArray[np.uint16]]) -> Step | None:
        """Write slices into the layer; returns how that is taken back and done again, None where nothing changes."""
        if self.manual is None or not pending:
            return None
        slices = self._followed()
        # The arrays of a label book never change, so what was written needs no copy; nor does a slice of zeros.
        before = {index: slices[index].copy() if slices[index].any() else None for index in pending}
        with self._silently():
            self._put(pending)
        for index, values in pending.items():
            self._todo.pop(index, None)
            self._known[index] = values if values.shape == slices[index].shape else slices[index].copy()
        return Step((partial(self._put, before),), (partial(self._put, pending),))

    # --- taking back ------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Take back the last change; napari's Ctrl+Z on our layers comes here."""
        self.flush()
        found = self._history.back()
        if found and not self._carry_out(found[0].back, found[1]):
            self._history.clear()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.flush()
        found = self._history.forth()
        if found and not self._carry_out(found[0].again, found[1]):
            self._history.give_up_again()

    def _carry_out(self, actions: Iterable[Callable[[], None]], touched: dict[int, Mark]) -> bool:
        """Undo or redo; then each slice means again what it meant at this point of the history.

        Returns False when nothing happened: napari's history does not hold the pixels any more.
        """
        with self._silently():
            for action in actions:
                action()
        slices = self._followed()
        changed = {index for index in range(len(slices)) if not self._is_known(index)}
        found = sorted({*touched, *changed})
        for index in changed:
            if slices[index].any():
                self._known[index] = slices[index].copy()
            else:
                self._known.pop(index, None)
        meant = [self._mean_again(index, None if index in changed else touched[index]) for index in found]
        if found:
            self.labels_taken.emit(found)
        return all(meant) or bool(changed) or not actions

    def _mean_again(self, index: int, until_now: Mark | None) -> bool:
        """Let the label book have what a slice meant here; False when its pixels are not those of that time.

        Args:
            index: the slice.
            until_now: what it meant, where its pixels did not change.
        """
        mark, values = self._history.marked(index), self._view_of(index)
        if is_shown(mark.said, values, scribbles=mark.scribbled):
            self._meet_numbers(values)
            self.session.labels.put_back(index, mark.said)
            self._history.mark(index, mark)
            return True
        if until_now is None:
            # Not read at this point: among strokes that followed each other too quickly.
            known = mark if not mark.said.is_empty else self._history.marked_later(index)
            self._read(index, self.scribbles if known.said.is_empty else known.scribbled)
            return True
        # Painted before this step and only read after it, or napari's history does not hold its pixels.
        self._history.mark(index, until_now)
        return False

    # --- letting go -------------------------------------------------------------------------------------------------

    def detach(self, *, keep_labels_as: str = "") -> list[Layer]:
        """Follow the viewer no longer.

        Args:
            keep_labels_as: a name under which the painted labels stay in the viewer, hidden: they are not on disk.
                Empty = they are.

        Returns:
            The layers that can leave the viewer. An image that the person brought without a file behind it (a plain
            array) is not among them.
        """
        stop(self._timer)
        stop(self._colour_timer)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.dims.events.point.disconnect(self._on_moved)
        self.viewer.dims.events.order.disconnect(self._on_turned)
        self.viewer.dims.events.ndisplay.disconnect(self._on_turned)
        self.orientation.end()
        leaving = self.own
        if self.image is not None:
            self.image.events.contrast_limits.disconnect(self._on_contrast)
            if case_of(self.image) is None and self.image in leaving:
                leaving.remove(self.image)
        manual = self.manual
        if manual is not None:
            self._let_go(manual)
            if keep_labels_as:
                manual.name, manual.visible = keep_labels_as, False
                leaving.remove(manual)
        return leaving


# Layers of a session that another window writes: they can be looked at, and nothing sticks to them.


class ReadOnlyLayers(CaseLayers):
    """napari's tools do not paint here; what a script paints is put back."""

    def _begin_to_follow(self, layer: Labels) -> None:
        super()._begin_to_follow(layer)
        layer.editable = False
        layer.events.editable.connect(self._on_editable)  # napari resets it with new data

    def _on_editable(self) -> None:
        if self.manual is not None and self.manual.editable:
            self.manual.editable = False

    def _take(self, index: int, values: NDArray[np.uint16]) -> None:
        layer = self.manual
        if layer is None:
            return
        slices, before = self._slices(layer), self._known.get(index)
        self._writing = True
        try:
            slices[index] = 0 if before is None else before
            layer.refresh()
        finally:
            self._writing = False

    def undo(self) -> None:
        """There is nothing to take back."""

    def redo(self) -> None:
        """Nor to do again."""

    def select_label(self, number: int) -> None:
        """The brush stays out of the hand."""
