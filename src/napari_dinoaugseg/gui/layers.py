"""The way between the layers of a study and the label book.

Painting is taken over soon after each stroke: events only say that something may have changed, so slices are compared
with what is known of them, a few milliseconds at a time. What we write into "manual" goes through napari's own history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_dinoaugseg.gui.encoding import BACKGROUND, from_layer, is_scribbled, to_layer
from napari_dinoaugseg.gui.layer_stack import LayerStack
from napari_dinoaugseg.session.classes import LabelClass
from napari_dinoaugseg.session.labels import SliceLabels
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    import napari

_Step = tuple[Callable[[], None], Callable[[], None]]  # take back, do again

_SETTLE = 120  # ms after the last event of a stroke until it is taken over
_SHARE = 0.008  # seconds of comparing at a time
_HISTORY = 100  # undo steps, as many as napari keeps


class StudyLayers(LayerStack):
    """Layers of one study in one viewer. Lives on the thread of the interface.

    Attributes:
        image, manual, prediction, confidence: the layers; None where the person removed one or it was not made yet.
        scribbles: whether unpainted pixels of slices labelled from now on mean "unknown".
    """

    labels_taken = Signal(list)  # slices whose painted labels went into the label book
    classes_found = Signal()  # somebody painted with a number that was no class yet
    label_selected = Signal(int)  # the brush in napari's own controls: class number, 0, or -1 for the background
    lost = Signal(str)  # which layer was removed
    failed = Signal(object)  # an exception while taking labels over

    def __init__(self, viewer: napari.Viewer, session: Session, image: Image | None = None) -> None:
        super().__init__(viewer, session, image)
        self.scribbles = False
        self._known: dict[int, NDArray[np.uint16]] = {}  # slices of "manual" that are not all 0, as last compared
        # Where a prediction was accepted: what the layer holds, and what the label book does.
        self._accepted: dict[int, tuple[NDArray[np.uint16], NDArray[np.uint16]]] = {}
        self._former: dict[int, LabelClass] = {}  # removed classes, which an undo may bring back
        self._undo: list[_Step] = []
        self._redo: list[_Step] = []
        self._todo: dict[int, None] = {}
        self._pending: dict[int, NDArray[np.uint16]] = {}
        self._writing = False
        self._view: tuple[float, ...] = ()
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._compare_some)
        viewer.layers.events.removed.connect(self._on_removed)

    # --- from the layer to the label book ---------------------------------------------------------------------------

    def _begin_to_follow(self, layer: Labels) -> None:
        self._known.clear()
        self._undo.clear()
        self._redo.clear()
        for index in range(self.study.n_slices):
            said = self.session.labels.of_slice(index)
            if not said.is_empty:
                self._put_quietly(index, to_layer(said, self.study.slice_shape(index)))
        layer.events.set_data.connect(self._on_shown)
        layer.events.paint.connect(self._on_stroke)
        layer.events.data.connect(self._on_replaced)
        layer.events.selected_label.connect(self._on_selected)
        self._view = tuple(self.viewer.dims.point)

    def flush(self) -> None:
        """Take over now whatever was painted."""
        self._timer.stop()
        if self.manual is not None:
            self._todo = dict.fromkeys(range(self.study.n_slices))
            self._compare(None)

    def _on_shown(self) -> None:
        """Something may have changed (an undo tells no more than that). Moving to another slice comes here too."""
        if self._writing:
            return
        view = (*self.viewer.dims.point, *self.viewer.dims.order, self.viewer.dims.ndisplay)
        if view != self._view:
            self._view = view
            return
        self._look_soon()

    def _look_soon(self) -> None:
        here = self.current_slice
        self._todo = dict.fromkeys([here, *range(self.study.n_slices)])
        self._timer.start(_SETTLE)

    def _on_stroke(self) -> None:
        if not self._writing and self.manual is not None:
            self.push_undo(self.manual.undo, self.manual.redo)
            self._look_soon()

    def _on_replaced(self) -> None:
        """Somebody gave the layer another array: taken over when it fits, else the layer is theirs from now on."""
        layer = self.manual
        if layer is None or self._writing:
            return
        data = np.asarray(layer.data)
        if data.shape == self._shape and data.dtype != np.uint16 and data.min() >= 0 and data.max() <= BACKGROUND:
            layer.data = data.astype(np.uint16)  # comes back here
        elif data.shape == self._shape and data.dtype == np.uint16:
            self._look_soon()
        else:
            self._let_go(layer)
            self.lost.emit("manual")

    def _compare_some(self) -> None:
        self._compare(time.monotonic() + _SHARE)
        if self._todo:
            self._timer.start(1)

    def _compare(self, until: float | None) -> None:
        if self.manual is None:
            self._todo.clear()
            return
        slices = self._slices(self.manual)
        taken: list[int] = []
        while self._todo and (until is None or time.monotonic() < until):
            index = next(iter(self._todo))
            del self._todo[index]
            values, known = slices[index], self._known.get(index)
            if (not values.any()) if known is None else np.array_equal(values, known):
                continue
            try:
                self._take(index, np.array(values, dtype=np.uint16))
                taken.append(index)
            except Exception as error:  # whatever it is, the paint stays in the layer
                self._remember(index, values)
                self.failed.emit(error)
        if taken:
            self.labels_taken.emit(taken)

    def _take(self, index: int, values: NDArray[np.uint16]) -> None:
        """What the person made of a slice goes into the label book."""
        height, width = self.study.slice_shape(index)
        inside = values[:height, :width]
        self._remember(index, values)
        book = self.session.labels
        accepted = self._accepted.get(index)
        if accepted is not None and np.array_equal(accepted[0], inside):
            book.put_back(index, SliceLabels(accepted=accepted[1]))
            return
        self._meet_numbers(inside)
        labels = from_layer(inside, scribbles=is_scribbled(book.of_slice(index), self.scribbles))
        if labels is None:
            book.clear(index)
        else:
            self.session.paint(index, labels)

    def _meet_numbers(self, values: NDArray[np.uint16]) -> None:
        """Paint with a number that is no class makes it one: nothing painted is refused."""
        book = self.session.labels
        new = {int(n) for n in np.unique(values)} - {0, BACKGROUND} - {entry.number for entry in book.classes}
        for number in sorted(new):
            former = self._former.get(number)
            book.add_class(former.name if former else None, number)
            if former:
                book.recolour_class(number, former.colour)
        if new:
            self.show_colours()
            self.classes_found.emit()

    def _remember(self, index: int, values: NDArray[np.uint16]) -> None:
        if values.any():
            self._known[index] = np.array(values, dtype=np.uint16)
        else:
            self._known.pop(index, None)

    # --- from the label book to the layers --------------------------------------------------------------------------

    def write_labels(self, indices: Iterable[int], *, undoable: bool = True) -> None:
        """Show what the label book says about slices, as one step that Ctrl+Z takes back.

        Args:
            indices: the slices.
            undoable: False when the caller has an undo of its own; nothing goes into the history then.
        """
        book = self.session.labels
        for index in indices:
            said, shape = book.of_slice(index), self.study.slice_shape(index)
            self._todo.pop(index, None)
            values = to_layer(said, shape, explicit=self.scribbles)
            if said.manual is None and said.accepted is not None:
                self._accepted[index] = (values, said.accepted)
            elif said.manual is not None:
                self._accepted.pop(index, None)
            if undoable:
                self._pending[index] = values
            else:
                self._put_quietly(index, values)
        self._write_pending()
        if not undoable and self.manual is not None:
            self._writing = True
            self.manual.refresh()
            self._writing = False

    def erase_class(self, entry: LabelClass) -> None:
        """Take a class that the label book has removed out of the layer, undoably."""
        self._former[entry.number] = entry
        for index, known in list(self._known.items()):
            if (known == entry.number).any():
                self._pending[index] = np.where(known == entry.number, 0, known).astype(np.uint16)
        # What is left decides: a slice that held nothing else is not labelled any more.
        self._write_pending(remember=False)
        self.flush()
        self.show_predictions(range(self.study.n_slices))

    def _write_pending(self, *, remember: bool = True) -> None:
        pending, self._pending = self._pending, {}
        layer = self.manual
        if layer is None or not pending:
            return
        slices = self._slices(layer)
        self._writing = True
        try:
            with layer.block_history():
                for index, values in pending.items():
                    height, width = values.shape
                    rows, columns = np.nonzero(slices[index, :height, :width] != values)
                    where = [rows, columns]
                    where.insert(self.axis, np.full(len(rows), index))
                    layer.data_setitem(tuple(where), values[rows, columns], refresh=False)
                    if remember:
                        self._remember(index, slices[index])
            layer.refresh()
        finally:
            self._writing = False
        self.push_undo(layer.undo, layer.redo)

    def _put_quietly(self, index: int, values: NDArray[np.uint16]) -> None:
        """Without history: for a layer that is being filled."""
        if self.manual is not None:
            height, width = values.shape
            self._slices(self.manual)[index, :height, :width] = values
            self._remember(index, self._slices(self.manual)[index])

    def _on_selected(self) -> None:
        if self.manual is not None:
            number = int(self.manual.selected_label)
            self.label_selected.emit(-1 if number == BACKGROUND else number)

    # --- taking back ------------------------------------------------------------------------------------------------

    def push_undo(self, undo: Callable[[], None], redo: Callable[[], None]) -> None:
        """Remember how to take back what was just done. Strokes and our own changes come back in their order."""
        self._undo.append((undo, redo))
        del self._undo[:-_HISTORY]
        self._redo.clear()

    def undo(self) -> None:
        """Take back the last change; napari's Ctrl+Z on our layers comes here."""
        if self._undo:
            step = self._undo.pop()
            self._redo.append(step)
            step[0]()
            self.flush()

    def redo(self) -> None:
        """Do again what was taken back."""
        if self._redo:
            step = self._redo.pop()
            self._undo.append(step)
            step[1]()
            self.flush()

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
        self._timer.stop()
        for events in (layer.events.set_data, layer.events.paint, layer.events.data, layer.events.selected_label):
            for handler in (self._on_shown, self._on_stroke, self._on_replaced, self._on_selected):
                if handler in events.callbacks:
                    events.disconnect(handler)
        self.manual = None
        self._undo.clear()
        self._redo.clear()

    def detach(self, keep_as: str | None = None) -> None:
        """Follow the viewer no longer.

        Args:
            keep_as: name of the study whose layers stay in the viewer; empty ones are removed then.
        """
        self._timer.stop()
        self._colour_timer.stop()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.dims.events.point.disconnect(self._on_moved)
        manual, prediction = self.manual, self.prediction
        if manual is not None:
            self._let_go(manual)
        if keep_as is None:
            return
        for layer in (manual, prediction, self.confidence):
            if layer is None or layer not in self.viewer.layers:
                continue
            if layer is not self.confidence and np.asarray(layer.data).any():
                layer.name = f"{keep_as}: {layer.name}"
            else:
                self.viewer.layers.remove(layer)
