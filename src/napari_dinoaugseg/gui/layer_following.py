"""What the person paints into "manual" goes into the label book.

Painting is taken over soon after each stroke: events only say that something may have changed, so slices are compared
with what is known of them, a few milliseconds at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_dinoaugseg.gui.encoding import BACKGROUND, from_layer, is_scribbled, to_layer
from napari_dinoaugseg.gui.history import History, Mark, Step
from napari_dinoaugseg.gui.layer_stack import LayerStack
from napari_dinoaugseg.gui.parts import stop
from napari_dinoaugseg.gui.takeback import put_class
from napari_dinoaugseg.session.classes import LabelClass, new_class
from napari_dinoaugseg.session.labels import foreign_values
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    import napari

_SETTLE = 120  # ms after the last event of a stroke until it is taken over
_LATEST = 500  # ms after its first one: who paints without a pause must not wait to be saved
_SHARE = 0.008  # seconds of comparing at a time


class FollowedLayers(LayerStack):
    """Layers of one study; "manual" is followed. See :class:`~napari_dinoaugseg.gui.layers.StudyLayers`."""

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
            self._view_of(index)[...] = to_layer(self._history.marked(index).said, self.study.slice_shape(index))
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
        for index in range(self.study.n_slices):
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
            self._todo = dict.fromkeys(range(self.study.n_slices))
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
        self._todo = dict.fromkeys([*self._touched, *range(self.study.n_slices)])
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
        changed = {i for i in range(self.study.n_slices) if i not in self._first and not self._is_known(i)}
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
        height, width = self.study.slice_shape(index)
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
            return to_layer(self._history.marked(index).said, self.study.slice_shape(index))
        height, width = self.study.slice_shape(index)
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
