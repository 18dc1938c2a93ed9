"""What a person paints into the manual layer goes into the label book, and what the book holds is shown there.

The book is the only history: napari keeps none of its own for this layer. A stroke is read when it ends, as one action.
Whatever else changes the layer (a script, another array) only raises an event that something may have changed, so the
slices are compared soon after it with what they last showed, a few milliseconds at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_dinoaugseg.gui.widgets import stop
from napari_dinoaugseg.session.labels import BACKGROUND

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.layers import CaseLayers
    from napari_dinoaugseg.session import labels

_SETTLE = 120  # ms after the last event of a stroke until others hear of it
_LATEST = 500  # ms after its first one: who paints without a pause must not wait to be saved
_SHARE = 0.008  # seconds of comparing at a time


class Painting:
    """Keeps the manual layer of a case and its label book in step. Lives on the thread of the interface.

    Args:
        layers: the layers of the case.
        read_only: napari's tools do not paint, and what a script paints is put back.

    Attributes:
        layer: the manual layer; None while there is none.
        scribbles: whether unpainted pixels of slices labelled from now on are unknown.
    """

    taken = Signal(list)  # slices whose paint went into the label book
    went_across = Signal()  # a stroke across slices began some of them as scribbles
    classes_found = Signal()  # paint with a number that was no class yet made it one
    label_selected = Signal(int)  # the brush in napari's own controls: class number, 0, or -1 for the background
    given_up = Signal()  # somebody gave the layer an array that does not fit the case: it is theirs now
    failed = Signal(object)  # an exception while reading paint

    def __init__(self, layers: CaseLayers, *, read_only: bool) -> None:
        self.layer: Labels | None = None
        self.scribbles = False
        self._layers = layers
        self._case, self._book = layers.case, layers.session.labels
        self._read_only = read_only
        self._array: NDArray[np.uint16] | None = None  # that of the layer, until somebody gives it another
        self._shown: dict[int, labels.Labels] = {}  # the canvas of each slice as it was last compared; others are 0
        self._todo: dict[int, None] = {}  # slices to compare
        self._touched: dict[int, None] = {}  # slices in view when something happened: compared before the others
        self._news: dict[int, None] = {}  # slices that were taken and of which nobody heard yet
        self._new_classes = self._new_across = False
        self._announced: dict[int, bool] = {}  # slices of the last stroke, and whether it went across slices
        self._drawing = False  # whether a mouse button is down on the layer
        self._reading_on = False  # whether the next paint continues the last action
        self._since = 0.0
        self._writing = False  # what napari reports of the layer is our own doing
        self._view: tuple[float, ...] = ()
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._compare_some)

    # --- the layer --------------------------------------------------------------------------------------------------

    def follow(self, layer: Labels) -> None:
        """Show the label book in a new, empty layer, and read what is painted there."""
        self.layer, self._array = layer, layer.data
        keep_no_history(layer)
        # Scripts and other plugins undo through the same door as Ctrl+Z.
        layer.undo, layer.redo = self._layers.undo, self._layers.redo
        self.show(self._book.labelled)
        for emitter, handler in self._followed_events(layer):
            emitter.connect(handler)
        layer.mouse_drag_callbacks.append(self._on_drag)
        if self._read_only:
            layer.editable = False
        self._view = self._view_now()

    def let_go(self) -> Labels | None:
        """Follow the layer no longer: from now on it is a layer as any other, with napari's own undo. Returns it."""
        stop(self._timer)
        layer, self.layer, self._array = self.layer, None, None
        self._shown.clear()
        self._todo.clear()
        self._announced.clear()
        self._drawing = self._reading_on = False
        if layer is None:
            return None
        for emitter, handler in self._followed_events(layer):
            emitter.disconnect(handler)
        if self._on_drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._on_drag)
        for name in ("undo", "redo"):
            vars(layer).pop(name, None)
        keep_history(layer)
        return layer

    def _followed_events(self, layer: Labels) -> list[tuple[Any, Any]]:
        events = [
            (layer.events.set_data, self._on_shown),
            (layer.events.paint, self._on_stroke),
            (layer.events.labels_update, self._on_drawn),
            (layer.events.data, self._on_replaced),
            (layer.events.selected_label, self._on_selected),
        ]
        return [*events, (layer.events.editable, self._on_editable)] if self._read_only else events

    # --- from the label book to the layer ----------------------------------------------------------------------------

    def show(self, indices: Iterable[int]) -> None:
        """Show what the label book holds of slices. Read what was painted before: see :meth:`flush`."""
        if self.layer is None:
            return
        slices, changed = self._slices(), False
        for index in indices:
            self._book.lay_out(index, explicit=self.scribbles)
            canvas, shown = self._book.canvas(index), slices[index]
            height, width = canvas.shape
            if not np.array_equal(shown[:height, :width], canvas):
                shown[...] = 0
                shown[:height, :width] = canvas
                changed = True
            self._note_shown(index, canvas)
        if changed:
            with self._silently():
                self.layer.refresh()

    def _note_shown(self, index: int, canvas: labels.Labels) -> None:
        if canvas.any():
            self._shown[index] = canvas
        else:
            self._shown.pop(index, None)

    # --- from the layer to the label book ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Read now whatever was painted, and let others hear of it."""
        if self.layer is not None and self.layer.data is not self._array:
            self._on_replaced()  # napari failed to draw it and reported nothing
        self._compare_all()

    def _on_drag(self, _layer: Labels, event: Any) -> Iterator[None]:
        self._take_announced()
        self._drawing, self._reading_on = True, False
        yield
        while event.type == "mouse_move":
            yield
        self._drawing = False

    def _on_stroke(self, event: Any) -> None:
        """A stroke has ended, or a script has painted."""
        if self.layer is None or self._writing:
            return
        self._take_announced()
        spanned, changed = slices_of_edits(event, self._layers.axis) or (None, range(self._case.n_slices))
        indices = [index for index in sorted(changed) if not self._is_known(index)]
        across = not self._layers.shows_slices or len(indices if spanned is None else spanned) > 1
        self._take(indices, across=across)
        if not indices:
            self._announced = dict.fromkeys(changed, across)
        self._wipe(changed)
        self._reading_on = False
        self._look_soon()

    def _take_announced(self) -> None:
        """Take the last stroke once its pixels are there: of some strokes, napari reports before it draws them."""
        announced, self._announced = self._announced, {}
        indices = [index for index in sorted(announced) if not self._is_known(index)]
        if indices:
            self._take(indices, across=announced[indices[0]])
            self._reading_on = False
        self._wipe(announced)

    def _wipe(self, indices: Iterable[int]) -> None:
        """Remove paint beside a picture that is smaller than others."""
        if self.layer is None or self._case.kind != "pictures":
            return
        slices, wiped = self._slices(), False
        for index in indices:
            height, width = self._case.slice_shape(index)
            for beside in (slices[index, height:], slices[index, :, width:]):
                if beside.any():
                    beside[...], wiped = 0, True
        if wiped:
            with self._silently():
                self.layer.refresh()

    def _on_drawn(self) -> None:
        if not self._writing:
            self._take_announced()

    def _on_shown(self) -> None:
        """Something may have changed. Moving to another slice comes here too."""
        if self._writing:
            return
        self._take_announced()
        view, self._view = self._view, self._view_now()
        if view == self._view:
            self._look_soon()

    def _view_now(self) -> tuple[float, ...]:
        dims = self._layers.viewer.dims
        return (*dims.point, *dims.order, dims.ndisplay)

    def _on_replaced(self) -> None:
        """Somebody gave the layer another array: read when it fits, else the layer is theirs from now on."""
        layer = self.layer
        if layer is None or self._writing or self._array is None:
            return
        data = np.asarray(layer.data)
        if data.shape != self._array.shape or data.min() < 0 or data.max() > BACKGROUND:
            self._compare_all()  # the last strokes are in the array before
            self.given_up.emit()
        elif data is layer.data and data.dtype == np.uint16 and data.flags.writeable:
            self._compare_all()
            self._array = layer.data
            self._compare_all()
        else:
            layer.data = data.astype(np.uint16)  # comes back here

    def _look_soon(self) -> None:
        now = time.monotonic()
        if not self._timer.isActive():
            self._since = now
        self._touched[self._layers.current_slice] = None
        self._todo = dict.fromkeys([*self._touched, *range(self._case.n_slices)])
        left = _LATEST - 1000 * (now - self._since)
        self._timer.start(int(max(0, min(_SETTLE, left))))

    def _compare_all(self) -> None:
        stop(self._timer)
        if self.layer is not None:
            self._todo = dict.fromkeys(range(self._case.n_slices))
            self._compare(None)

    def _compare_some(self) -> None:
        self._compare(time.monotonic() + _SHARE)
        if self._todo:
            self._timer.start(1)

    def _compare(self, until: float | None) -> None:
        """Compare slices until a moment, or all of them, and take those that changed."""
        if self.layer is None:
            self._todo.clear()
            return
        self._take_announced()
        found = []
        while self._todo and (until is None or time.monotonic() < until):
            index = next(iter(self._todo))
            del self._todo[index]
            self._touched.pop(index, None)
            if not self._is_known(index):
                found.append(index)
        self._take(found, across=self._draws_across)
        if self._todo:
            return
        self._reading_on = self._drawing
        news, self._news = list(self._news), {}
        classes, self._new_classes = self._new_classes, False
        across, self._new_across = self._new_across, False
        if classes:
            self.classes_found.emit()
        if news:
            self.taken.emit(news)
        if across:
            self.went_across.emit()

    def _is_known(self, index: int) -> bool:
        """Whether a slice of the layer is as it was last compared."""
        canvas, shown = self._canvas(index), self._shown.get(index)
        return not canvas.any() if shown is None else np.array_equal(canvas, shown)

    def _take(self, indices: list[int], *, across: bool) -> None:
        """What a person made of slices goes into the label book.

        Args:
            indices: the slices that changed.
            across: whether this was drawn across slices: a few pixels of each, which say nothing of the rest of them.
        """
        if not indices:
            return
        if self._read_only:
            self._put_back(indices)
            return
        canvases = {index: self._canvas(index).copy() for index in indices}
        begun = any(self._book.of_slice(index).is_empty for index in indices)
        try:
            changed = self._book.paint(canvases, scribbles=self.scribbles or across, continues=self._reading_on)
        except Exception as error:  # whatever it is, the paint stays in the layer
            self._shown.update(canvases)
            self.failed.emit(error)
            return
        self._reading_on = True
        for index in indices:
            self._note_shown(index, self._book.canvas(index))
        self._news.update(dict.fromkeys(indices))
        self._new_classes = self._new_classes or changed.classes
        self._new_across = self._new_across or (begun and across and not self.scribbles)

    def _put_back(self, indices: Iterable[int]) -> None:
        slices = self._slices()
        for index in indices:
            shown = self._shown.get(index)
            slices[index] = 0
            if shown is not None:
                slices[index, : shown.shape[0], : shown.shape[1]] = shown
        if self.layer is not None:
            with self._silently():
                self.layer.refresh()

    @property
    def _draws_across(self) -> bool:
        """Whether a stroke is being drawn that may go across slices; others may want to know before its end."""
        if not self._drawing or self.layer is None:
            return False
        return self.layer.n_edit_dimensions > 2 or not self._layers.shows_slices

    def _slices(self) -> NDArray[np.uint16]:
        """The array that is followed, as (n_slices, H, W): a view."""
        if self._array is None:
            msg = "no layer is followed"
            raise RuntimeError(msg)
        return np.moveaxis(self._array, self._layers.axis, 0)

    def _canvas(self, index: int) -> NDArray[np.uint16]:
        """The pixels of a slice in the layer, (H, W): a view."""
        height, width = self._case.slice_shape(index)
        return self._slices()[index, :height, :width]

    @contextmanager
    def _silently(self) -> Iterator[None]:
        before, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = before

    def _on_selected(self) -> None:
        if self.layer is not None:
            number = int(self.layer.selected_label)
            self.label_selected.emit(-1 if number == BACKGROUND else number)

    def _on_editable(self) -> None:
        if self.layer is not None and self.layer.editable:  # napari resets it with new data
            self.layer.editable = False


def keep_no_history(layer: Labels) -> None:
    """Let napari remember no strokes on a layer: it would hold every pixel, and could write old ones back."""
    layer._history_limit = 0
    layer._reset_history()


def keep_history(layer: Labels) -> None:
    """Let napari remember strokes on a layer again."""
    vars(layer).pop("_history_limit", None)
    layer._reset_history()


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
