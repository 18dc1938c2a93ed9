"""Keeps the manual layer and the label book in step: paint is read into the book, and the book is shown in the layer.

The book is the only undo history; napari's own is off for this layer. A stroke is read when it ends, as one action.
Other changes of the layer (by a script, or by a new array) only raise an event that something may have changed, so
shortly after it all slices are compared with what they last showed, a few milliseconds at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from napari.layers import Labels
from napari.utils.interactions import mouse_release_callbacks
from numpy.typing import NDArray
from psygnal import Signal

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.gui.widgets import single_shot, stop
from napari_dinoaugseg.session import labels
from napari_dinoaugseg.session.labels import BACKGROUND
from napari_dinoaugseg.session.session import Session

_SETTLE = 120  # ms from the last event of a stroke to the signal
_LATEST = 500  # ms from its first event to the signal, so that continuous painting is saved too
_SHARE = 0.008  # seconds of comparing at a time
_PAGE = 4096  # bytes, the smallest that a system has


class Stack(Protocol):
    """The layers of a case in a viewer, as :class:`Painting` sees them; `CaseLayers` is one."""

    viewer: Any
    session: Session
    case: Case
    axis: int

    @property
    def current_slice(self) -> int:
        """The slice in view."""

    @property
    def shows_slices(self) -> bool:
        """Whether whole slices are in view."""

    def undo(self) -> None:
        """Undo the last action of the label book and show the result."""

    def redo(self) -> None:
        """Redo what was undone last and show the result."""


class Painting:
    """Keeps the manual layer of a case and its label book in step. Used on the GUI thread only.

    Args:
        layers: the layers of the case.
        read_only: napari's tools do not paint, and paint by scripts is reverted.

    Attributes:
        layer: the manual layer; None while there is none.
        scribbles: whether unpainted pixels of slices labelled from now on are unknown.
        smart: the same, while Smart scribble completes the strokes.
    """

    read = Signal()  # paint was read into the label book, as soon as a stroke ends
    taken = Signal(list)  # slices whose paint was read into the label book
    went_across = Signal()  # a stroke across slices began some of them as scribbles
    classes_found = Signal()  # paint with an unknown number created a class
    label_selected = Signal(int)  # the brush in napari's own controls: class number, 0, or -1 for the background
    given_up = Signal()  # the layer got an array that does not fit the case, and is no longer followed
    failed = Signal(object)  # an exception while reading paint

    def __init__(self, layers: Stack, *, read_only: bool) -> None:
        self.layer: Labels | None = None
        self.scribbles = self.smart = False
        self._layers = layers
        self._case, self._book = layers.case, layers.session.labels
        self._read_only = read_only
        self._array: NDArray[np.uint16] | None = None  # the layer's array as last followed
        self._shown: dict[int, labels.Labels] = {}  # the slices as last compared; others are 0
        self._touched: dict[int, None] = {}  # slices in view at an event, compared first
        self._others: dict[int, None] | None = {}  # slices to compare after them; None if they are still to be found
        self._news: dict[int, None] = {}  # slices that were read but not yet reported by `taken`
        self._new_classes = self._new_across = False
        self._announced: dict[int, bool] = {}  # slices of the last stroke; whether it went across
        self._drawing = False  # whether a mouse button is down on the layer
        self._reading_on = False  # whether the next paint continues the last action
        self._across = False  # whether a stroke is drawn in another plane
        self._since = 0.0
        self._writing = False  # whether events of the layer come from our own changes
        self._withheld: list[Any] | None = None  # what a tool reports while it is filtered
        self._view: tuple[float, ...] = ()
        self._timer = single_shot(self._compare_some)

    # --- the layer --------------------------------------------------------------------------------------------------

    def follow(self, layer: Labels) -> None:
        """Show the label book in a new layer, empty or with these labels, and start reading paint from it."""
        self.layer, self._array = layer, layer.data
        keep_no_history(layer)
        # Scripts and other plugins that call these get the same undo as Ctrl+Z.
        layer.undo, layer.redo = self._layers.undo, self._layers.redo
        for index in self._book.labelled:
            self._book.lay_out(index, explicit=False)  # a saved session comes back as it was painted
        self.show(self._book.labelled)
        for emitter, handler in self._followed_events(layer):
            emitter.connect(handler)
        layer.mouse_drag_callbacks.append(self._on_drag)
        if self._read_only:
            layer.editable = False
        self._view = self._view_now()

    def let_go(self) -> Labels | None:
        """Stop following the layer, which gets napari's own undo back. Returns it."""
        stop(self._timer)
        layer, self.layer, self._array = self.layer, None, None
        self._shown.clear()
        self._touched, self._others = {}, {}
        self._announced.clear()
        self._drawing = self._reading_on = self._across = False
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
        """Show the labels of slices from the label book. Call :meth:`flush` before changing them in the book."""
        if self.layer is None:
            return
        slices, changed = self._slices(), False
        for index in indices:
            self._book.lay_out(index, explicit=self.scribbles)
            canvas, shown = self._book.canvas(index), slices[index]
            height, width = canvas.shape
            if not np.array_equal(shown[:height, :width], canvas):
                shown[:height, :width] = canvas
                shown[height:], shown[:, width:] = 0, 0
                changed = True
            self._note_shown(index, canvas)
        if changed:
            with self._silently():
                self.layer.refresh()

    def make_room(self, index: int) -> None:
        """Take the memory of a slice that is likely to be labelled, which the system hands out page by page.

        Until then an empty slice takes none; labels for 180 large slices at once would stop the window for it.
        """
        if self._array is not None:
            pixels = self._slices()[index]
            if pixels.flags.c_contiguous:
                pixels.reshape(-1)[:: _PAGE // pixels.itemsize] += 0  # as they are

    def _note_shown(self, index: int, canvas: labels.Labels) -> None:
        if canvas.any():
            self._shown[index] = canvas
        else:
            self._shown.pop(index, None)

    # --- from the layer to the label book ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Read all paint now, and emit the signals."""
        if self._withheld is not None:
            return  # in the middle of a tool, which is read as soon as it is done
        if self.layer is not None and self.layer.data is not self._array:
            self._on_replaced()  # napari failed to draw it and emitted no event
        self._compare_all()

    def end_stroke(self) -> None:
        """End a stroke that is being drawn as if the mouse were released: its rest must not go into another case."""
        if self._drawing and self.layer is not None:
            mouse_release_callbacks(self.layer, SimpleNamespace(type="mouse_release"))

    @contextmanager
    def withheld(self) -> Iterator[None]:
        """Read nothing while a tool paints what it may have to put back; what it reports is read at the end."""
        if self._withheld is not None or self.layer is None:
            yield
            return
        self._take_announced()
        self._withheld = []
        try:
            yield
        finally:
            events, self._withheld = self._withheld, None
            for event in events:
                self._on_stroke(event)

    def _on_drag(self, _layer: Labels, event: Any) -> Iterator[None]:
        self._take_announced()
        self._drawing, self._reading_on = True, False
        yield
        while event.type == "mouse_move":
            yield
        self._drawing = False

    def _on_stroke(self, event: Any) -> None:
        """Read a stroke that has ended, or paint by a script."""
        if self.layer is None or self._writing:
            return
        if self._withheld is not None:
            self._withheld.append(event)
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

    # --- strokes across slices, drawn in a view of another plane ---

    def begin_across(self) -> None:
        """Read what follows until :meth:`end_across` as one stroke across slices."""
        self._take_announced()
        self._drawing, self._reading_on, self._across = True, False, True

    def write_across(self, box: tuple[slice, slice, slice], values: NDArray[np.uint16]) -> None:
        """Put labels into a box of the layer. They are drawn by :meth:`show_across`, and read when the stroke ends.

        Args:
            box: in the axes of the layer.
            values: canvas codes, in the shape of the box.
        """
        if self._array is not None:
            self._array[box] = values

    def show_across(self) -> None:
        """Draw what the stroke has put into the layer so far."""
        if self.layer is not None:
            with self._silently():
                self.layer.refresh()

    def end_across(self, indices: Iterable[int]) -> None:
        """Read the stroke into the label book, as one action.

        Args:
            indices: the slices that it may have changed. Those without labels become scribbled ones.
        """
        if self.layer is not None and self._across:
            self._take([index for index in sorted(indices) if not self._is_known(index)], across=True)
            self._look_soon()
        self._drawing = self._reading_on = self._across = False

    def _take_announced(self) -> None:
        """Read the last stroke after napari has drawn it: some strokes are reported before they are drawn."""
        announced, self._announced = self._announced, {}
        indices = [index for index in sorted(announced) if not self._is_known(index)]
        if indices:
            self._take(indices, across=announced[indices[0]])
            self._reading_on = False
        self._wipe(announced)

    def _wipe(self, indices: Iterable[int]) -> None:
        """Remove paint in the padding of pictures smaller than the largest."""
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
        """Compare soon, because the data may have changed; moving to another slice raises this event too."""
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
        """Read a new array of the layer if it fits the case; otherwise give the layer up."""
        layer = self.layer
        if layer is None or self._writing or self._array is None:
            return
        data = np.asarray(layer.data)
        if data.shape != self._array.shape or data.min() < 0 or data.max() > BACKGROUND:
            self._compare_all()  # the last strokes are in the previous array
            self.given_up.emit()
        elif data is layer.data and data.dtype == np.uint16 and data.flags.writeable:
            self._compare_all()
            self._array = layer.data
            self._compare_all()
        else:
            layer.data = data.astype(np.uint16)  # raises this event again

    def _look_soon(self) -> None:
        now = time.monotonic()
        if not self._timer.isActive():
            self._since = now
        self._touched[self._layers.current_slice] = None
        self._others = None
        left = _LATEST - 1000 * (now - self._since)
        self._timer.start(int(max(0, min(_SETTLE, left))))

    def _compare_all(self) -> None:
        stop(self._timer)
        if self.layer is not None:
            self._touched, self._others = {}, None
            self._compare(None)

    def _compare_some(self) -> None:
        self._compare(time.monotonic() + _SHARE)
        if self._touched or self._others != {}:
            self._timer.start(1)

    def _compare(self, until: float | None) -> None:
        """Compare slices until a time, or all of them, and read those that changed."""
        if self.layer is None:
            self._touched, self._others = {}, {}
            return
        self._take_announced()
        found = []
        while until is None or time.monotonic() < until:
            if not self._touched and self._others is None:
                self._others = self._with_paint()
            slices = self._touched or self._others
            if not slices:
                break
            index = next(iter(slices))
            del slices[index]
            if not self._is_known(index):
                found.append(index)
        self._take(found, across=self._draws_across)
        if self._touched or self._others != {}:
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

    def _with_paint(self) -> dict[int, None]:
        """The slices with paint, or with some when last compared; the others cannot have changed.

        In one pass in the order of the memory: one by one, sagittal slices take 25 times as long.
        """
        painted = np.flatnonzero(np.bitwise_or.reduce(self._slices(), axis=(1, 2)))
        return dict.fromkeys(sorted({*painted.tolist(), *self._shown}))

    def _is_known(self, index: int) -> bool:
        """Whether a slice of the layer is unchanged since it was last compared."""
        canvas, shown = self._canvas(index), self._shown.get(index)
        return not canvas.any() if shown is None else np.array_equal(canvas, shown)

    def _take(self, indices: list[int], *, across: bool) -> None:
        """Read slices into the label book.

        Args:
            indices: the slices that changed.
            across: whether the paint was drawn across slices, so that the unpainted pixels of each are unknown.
        """
        if not indices:
            return
        if self._read_only:
            self._put_back(indices)
            return
        canvases = {index: self._canvas(index).copy() for index in indices}
        scribbles = self.scribbles or self.smart
        begun = any(self._book.of_slice(index).is_empty for index in indices)
        try:
            changed = self._book.paint(canvases, scribbles=scribbles or across, continues=self._reading_on)
        except Exception as error:  # of any kind: the paint stays in the layer
            self._shown.update(canvases)
            self.failed.emit(error)
            return
        self._reading_on = True
        for index in indices:
            self._note_shown(index, self._book.canvas(index))
        self._news.update(dict.fromkeys(indices))
        self._new_classes = self._new_classes or changed.classes
        self._new_across = self._new_across or (begun and across and not scribbles)
        self.read.emit()

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
        """Whether a stroke is being drawn that may go across slices."""
        if self._across:
            return True
        if not self._drawing or self.layer is None:
            return False
        return self.layer.n_edit_dimensions > 2 or not self._layers.shows_slices

    def _slices(self) -> NDArray[np.uint16]:
        """A view of the followed array as (n_slices, H, W)."""
        if self._array is None:
            msg = "no layer is followed"
            raise RuntimeError(msg)
        return np.moveaxis(self._array, self._layers.axis, 0)

    def _canvas(self, index: int) -> NDArray[np.uint16]:
        """A view of a slice in the layer, (H, W)."""
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
    """Switch off napari's undo history of a layer, which would keep every pixel and could write old ones back."""
    layer._history_limit = 0
    layer._reset_history()


def keep_history(layer: Labels) -> None:
    """Switch napari's undo history of a layer on again."""
    vars(layer).pop("_history_limit", None)
    layer._reset_history()


def slices_of_edits(event: Any, axis: int) -> tuple[set[int], set[int]] | None:
    """The slices along `axis` that a stroke went over, and those that it changed; None if the event is not readable.

    The value of a paint event is internal to napari: a list of edits, each with the box around a brush and a mask of
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
