"""What a person can do with labels and classes: each is an action of the label book, which the layers then show."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.gui.core import ControllerCore
from napari_dinoaugseg.gui.guards import FillGuard, Tools
from napari_dinoaugseg.gui.orientation import Looking
from napari_dinoaugseg.session.labels import UNKNOWN, Changed, LabelBook, Status

if TYPE_CHECKING:
    import napari


class LabelActions(ControllerCore):
    """Part of the controller. Errors become sentences (``failed``), results too (``said``)."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self._numbers: list[int] = []  # of the classes as they were last shown
        self._looking = Looking(self)
        self._fill_guard = FillGuard(self)
        self.tools = Tools(self)

    # --- predictions ------------------------------------------------------------------------------------------------

    def accept(self, index: int) -> None:
        """Take the prediction of a slice as its label; manual labels stay what they are."""
        if self.guarded(self.require_view, index):
            self.guarded(self._accept, [index])

    def accept_above(self, confidence: float) -> None:
        """Accept every predicted slice with at least this confidence (0 to 1), in one undoable step."""
        self.guarded(self._accept, confidence)

    def certain_slices(self, confidence: float) -> list[int]:
        """The predicted slices with at least this confidence (0 to 1), ascending."""
        if self.session is None:
            return []
        book = self.session.labels
        found = (index for index, value in book.confidence.items() if value >= confidence)
        return sorted(index for index in found if book.status(index) is Status.PREDICTED)

    def reject(self, index: int) -> None:
        """Throw away the prediction of a slice, and its acceptance."""
        self.guarded(self._reject, index)

    def copy_to_manual(self, index: int, overwrite: bool = False) -> None:
        """Take the prediction as a starting point for correction by hand.

        Pixels that scribbles left open are filled; painted ones stay. A slice that is painted as a whole is only
        overwritten when ``overwrite`` says so.
        """
        self.guarded(self._copy_to_manual, index, overwrite)

    def _accept(self, which: list[int] | float) -> None:
        """Accept these slices, or all that are at least so certain."""
        book = self._book_now()
        if book is None:
            return
        indices = which if isinstance(which, list) else self.certain_slices(which)
        done = book.accept_all(indices)
        self._show_labels(done)
        if not indices:
            self.said.emit("No slice is that certain yet.")
        elif not done:
            self.said.emit("This slice is labelled by hand already; nothing was changed.")
        else:
            self.said.emit(f"{len(done)} slice{'s' if len(done) > 1 else ''} accepted. Ctrl+Z takes it back.")

    def _reject(self, index: int) -> None:
        self.require_view(index)
        book = self._book_now()
        if book is None:
            return
        if book.predicted(index) is None:
            msg = "This slice has no prediction to reject."
            raise LabelError(msg)
        book.reject(index)
        self._show_labels([index])
        self.predictions_changed.emit(index)
        self.said.emit("Prediction rejected. Ctrl+Z takes it back.")

    def _copy_to_manual(self, index: int, overwrite: bool) -> None:
        self.require_view(index)
        book = self._book_now()
        if book is None:
            return
        painted = book.manual(index)
        if painted is not None and not overwrite and (painted == UNKNOWN).any() and book.predicted(index) is not None:
            book.set_manual(index, book.result(index))
        else:
            book.copy_to_manual(index, overwrite=overwrite)
        self._show_labels([index])
        self.said.emit("Now correct it with the brush; it counts as labelled by hand.")

    # --- slices -----------------------------------------------------------------------------------------------------

    def mark_empty(self, index: int) -> None:
        """Label a slice as background only. Refused where something is painted."""
        self.guarded(self._mark_empty, index)

    def clear(self, index: int) -> None:
        """Take all labels off a slice (Ctrl+Z brings them back)."""
        book = self._book_now()
        if book is None:
            return
        if self.guarded(self.require_view, index) and self.guarded(book.clear, index):
            self._show_labels([index])

    def fill_between(self) -> None:
        """Fill the slices between the two labelled ones around the slice in view with shapes in between."""
        self.guarded(self._fill_between)

    def set_scribbles(self, on: bool) -> None:
        """Whether unpainted pixels mean "unknown" on slices that are labelled from now on."""
        self.scribbles = on
        self.flush()
        if self.layers is not None:
            self.layers.painting.scribbles = on
        if not on and self.selected_class == -1:
            self.select_class(1)
        self.settings_changed.emit()

    def _mark_empty(self, index: int) -> None:
        self.require_view(index)
        book = self._book_now()
        if book is None:
            return
        if book.status(index) is Status.MANUAL and (book.truth(index) % UNKNOWN).any():
            msg = "Something is painted on this slice. Erase it or clear the slice first."
            raise LabelError(msg)
        book.mark_empty(index)
        self._show_labels([index])
        self.said.emit("This slice counts as empty: background only.")

    def _fill_between(self) -> None:
        from napari_dinoaugseg.session.fill import fill_between

        book = self._book_now()
        if book is None:
            return
        here = self.current_slice
        manual = [i for i in book.labelled if book.manual(i) is not None]
        below = max((i for i in manual if i <= here), default=None)
        above = min((i for i in manual if i >= here and i != below), default=None)
        if below is None or above is None or above - below < 2:
            msg = "Go to a slice between two slices that are labelled by hand; the slices between them are filled."
            raise LabelError(msg)
        first, last = book.truth(below), book.truth(above)
        if (first == UNKNOWN).any() or (last == UNKNOWN).any():
            msg = "Filling needs two slices that are painted as a whole, not scribbles."
            raise LabelError(msg)
        between = [i for i in range(below + 1, above) if i not in book.labelled]
        if not between:
            msg = "The slices between are labelled already; there is nothing to fill."
            raise LabelError(msg)
        spacing = self.session.case.slice_spacing(here) if self.session is not None else None
        filled = fill_between(first, last, above - below - 1, spacing)
        book.label({index: filled[index - below - 1] for index in between}, seen=False)
        self._show_labels(between)
        self.said.emit(f"{len(between)} slices filled as a starting point: check them. Ctrl+Z takes it back.")

    def back_to_plane(self) -> None:
        """Show the slice in view again, after napari's axes were rolled or 3-D was shown."""
        if self.layers is not None:
            self.layers.back_to_plane()

    # --- classes ----------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Undo the last action on labels or classes, and show the slice that it changed."""
        if self.layers is not None:
            self.layers.undo()

    def redo(self) -> None:
        """Do again what was undone last."""
        if self.layers is not None:
            self.layers.redo()

    def add_class(self, name: str | None = None) -> None:
        """Add a class with the next free number, and select it."""
        book = self._book_now()
        before = [entry.number for entry in book.classes] if book is not None else []
        if book is not None and self.guarded(book.add_class, name):
            self._classes_were_changed()
            self.select_class(next(entry.number for entry in book.classes if entry.number not in before))

    def rename_class(self, number: int, name: str) -> None:
        """Give a class another name."""
        self._change_class(lambda book: book.rename_class(number, name))

    def recolour_class(self, number: int, colour: str) -> None:
        """Give a class another colour, ``#rrggbb``."""
        self._change_class(lambda book: book.recolour_class(number, colour))

    def _change_class(self, change: Callable[[LabelBook], Any]) -> None:
        book = self._book_now()
        if book is not None:
            self.guarded(change, book)
            self._classes_were_changed()

    def class_holds_paint(self, number: int) -> list[int]:
        """The slices on which a class is painted."""
        book = self._book_now()
        return book.holds_paint(number) if book is not None else []

    def remove_class(self, number: int, erase: bool = False) -> None:
        """Remove a class. Where it holds paint, that is only erased when ``erase`` says so; Ctrl+Z brings it back."""
        self.guarded(self._remove_class, number, erase)

    def select_class(self, number: int) -> None:
        """Choose what the brush paints: a class number, 0 = the eraser, -1 = the background (scribbles)."""
        self.selected_class = number
        if self.layers is not None:
            self.layers.select_label(number)
        self.class_selected.emit(number)

    def _remove_class(self, number: int, erase: bool) -> None:
        book = self._book_now()
        if book is None or self.session is None:
            return
        book.remove_class(number, erase=erase)
        self._show_labels(list(range(self.session.case.n_slices)))
        self.predictions_changed.emit(-1)
        self._classes_were_changed()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _book_now(self) -> LabelBook | None:
        """The label book with the last strokes in it."""
        self.flush()
        return self.session.labels if self.session is not None else None

    def _show_labels(self, indices: list[int]) -> None:
        if self.layers is not None:
            self.layers.show_labels(indices)
        self.labels_changed.emit()

    def _classes_were_changed(self) -> None:
        if self.layers is not None:
            self.layers.show_colours()
        before, self._numbers = self._numbers, self._numbers_now()
        if self.selected_class in before and self.selected_class not in self._numbers:
            self.select_class(self._numbers[0] if self._numbers else 0)
        self.classes_changed.emit()

    def _numbers_now(self) -> list[int]:
        return [entry.number for entry in self.session.labels.classes] if self.session is not None else []

    def _follow_layers(self) -> None:
        """Listen to the layers of a new case."""
        if self.layers is None:
            return
        self._numbers = self._numbers_now()
        painting = self.layers.painting
        painting.scribbles = self.scribbles
        painting.taken.connect(self._on_labels_taken)
        painting.went_across.connect(self._on_painted_across)
        painting.classes_found.connect(self._classes_were_changed)
        painting.failed.connect(self.tell_error)
        painting.label_selected.connect(self._on_label_selected)
        self.layers.undone.connect(self._on_undone)
        self.layers.turned.connect(self.view_turned.emit)
        # psygnal probes the signature of an `emit` by emitting.
        self.layers.slice_changed.connect(lambda index: self.slice_changed.emit(index))
        self.layers.lost.connect(self._on_layer_lost)

    def _on_undone(self, changed: Changed) -> None:
        if changed.classes:
            self._classes_were_changed()
        if changed.labels:
            self.labels_changed.emit()
        if changed.predictions:
            self.predictions_changed.emit(min(changed.predictions) if len(changed.predictions) == 1 else -1)

    def _on_labels_taken(self, indices: list[int]) -> None:
        if self.layers is not None:
            self.layers.show_predictions(indices)
        self.labels_changed.emit()

    def _on_painted_across(self) -> None:
        what = "pictures" if self.session is not None and self.session.case.kind == "pictures" else "slices"
        way = (
            "" if self.layers is None or self.layers.shows_slices else " 'Back to the plane' shows whole slices again."
        )
        self.said.emit(
            f"Painted across {what}: they count as scribbles, so what is left unpainted on them is unknown, not"
            f" background; {what} that were labelled before stay as they were.{way}"
        )

    def _on_label_selected(self, number: int) -> None:
        if number != self.selected_class:
            self.selected_class = number
            self.class_selected.emit(number)

    def _on_layer_lost(self, kind: str) -> None:
        safe = " Your labels are safe." if kind == "manual" else ""
        self.layers_changed.emit()
        self.notice.emit(f"The {kind} layer was removed.{safe} 'Bring layers back' (Label section) shows it again.")
