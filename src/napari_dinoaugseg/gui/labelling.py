"""Actions on labels and classes: each is an action of the label book, which the layers then show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.case.case import ReadLabels
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.words import counted, in_words, noun_of
from napari_dinoaugseg.session.labels import UNKNOWN, Changed, LabelBook, Labels, Status, names_kept

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.fill import Filled


class Labelling:
    """The labels and classes of the open case.

    Attributes:
        scribbles: whether unpainted pixels of newly labelled slices mean "unknown".
        selected_class: the number that the brush paints; 0 = the eraser, -1 = the background (scribbles).
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.scribbles = False
        self.selected_class = 1
        self._numbers: list[int] = []  # of the classes as they were last shown

    # --- predictions ------------------------------------------------------------------------------------------------

    @guarded
    def accept(self, index: int) -> None:
        """Accept the prediction of a slice as its label; manual labels are not replaced."""
        self.controller.require_view(index)
        book = self._book()
        if book is not None:
            self._accept(book, [index])

    @guarded
    def accept_above(self, confidence: float | None) -> None:
        """Accept every predicted slice with at least this confidence (0 to 1), in one undoable step.

        None accepts the masks of another program, which have no confidence.
        """
        book = self._book()
        if book is not None:
            self._accept(book, self.certain_slices(confidence))

    def _accept(self, book: LabelBook, indices: list[int]) -> None:
        done = book.accept_all(indices)
        self.show(done)
        if not indices:
            self.controller.notify("No slice has that confidence yet.")
        elif not done:
            self.controller.notify("This slice is labelled by hand already; nothing was changed.")
        else:
            self.controller.notify(f"{counted(len(done), 'slice')} accepted. Ctrl+Z undoes it.")

    def certain_slices(self, confidence: float | None) -> list[int]:
        """The predicted slices with at least this confidence (0 to 1), or those of another program; ascending."""
        session = self.controller.session
        return session.labels.certain_slices(confidence) if session is not None else []

    @guarded
    def reject(self, index: int) -> None:
        """Discard the prediction of a slice and its acceptance."""
        self.controller.require_view(index)
        book = self._book()
        if book is None:
            return
        if book.predicted(index) is None:
            msg = "This slice has no prediction to reject."
            raise LabelError(msg)
        book.reject(index)
        self.show([index])
        self.controller.touch(Change.PREDICTIONS)
        self.controller.notify("Prediction rejected. Ctrl+Z undoes it.")

    @guarded
    def copy_to_manual(self, index: int, overwrite: bool = False) -> None:
        """Copy the prediction of a slice to its manual labels, to be corrected by hand.

        On scribbled slices only unknown pixels are filled. A slice that is painted as a whole is overwritten only if
        ``overwrite`` is set.
        """
        self.controller.require_view(index)
        book = self._book()
        if book is None:
            return
        painted = book.manual(index)
        if painted is not None and not overwrite and (painted == UNKNOWN).any() and book.predicted(index) is not None:
            book.set_manual(index, book.result(index))
        else:
            book.copy_to_manual(index, overwrite=overwrite)
        self.show([index])
        self.controller.notify("Now correct it with the brush; it counts as labelled by hand.")

    # --- slices -----------------------------------------------------------------------------------------------------

    @guarded
    def mark_empty(self, index: int) -> None:
        """Label a slice as background only; refused if something is painted on it."""
        self.controller.require_view(index)
        book = self._book()
        if book is None:
            return
        if book.status(index) is Status.MANUAL and (book.truth(index) % UNKNOWN).any():
            msg = "Something is painted on this slice. Erase it or clear the slice first."
            raise LabelError(msg)
        book.mark_empty(index)
        self.show([index])
        self.controller.notify("This slice counts as empty: background only.")

    @guarded
    def clear(self, index: int) -> None:
        """Remove all labels of a slice."""
        book = self._book()
        if book is not None:
            self.controller.require_view(index)
            book.clear(index)
            self.show([index])

    @guarded
    def fill_between(self) -> None:
        """Fill the slices between the two nearest manually labelled ones around the slice in view."""
        from napari_dinoaugseg.session.fill import fill_gap

        self._fill(lambda book, spacing: fill_gap(book, self.controller.current_slice, spacing))

    @guarded
    def fill_every_gap(self) -> None:
        """Fill all slices between the first and the last one that is painted as a whole."""
        from napari_dinoaugseg.session.fill import fill_every_gap

        self._fill(fill_every_gap)

    def _fill(self, found: Callable[[LabelBook, tuple[float, float] | None], Filled]) -> None:
        controller, book = self.controller, self._book()
        if controller.session is None or book is None:
            return
        filled = found(book, controller.session.case.slice_spacing(controller.current_slice))
        book.label(filled.slices, seen=False)
        self.show(sorted(filled.slices))
        where = f" in {filled.gaps} gaps" if filled.gaps > 1 else ""
        means = ["by the model"] if filled.by_model else []
        means += ["by interpolation"] if filled.by_model < len(filled.slices) else []
        count, how = counted(len(filled.slices), "slice"), " and ".join(means)
        controller.notify(f"{count}{where} filled {how} as a starting point: check them. Ctrl+Z undoes it.")

    def set_scribbles(self, on: bool) -> None:
        """Set whether unpainted pixels mean "unknown" on slices that are labelled from now on."""
        controller = self.controller
        self.scribbles = on
        controller.flush()
        if controller.layers is not None:
            controller.layers.painting.scribbles = on
        if not on and self.selected_class == -1:
            self.select_class(1)
        controller.touch(Change.SETTINGS)

    def take(self, path: Path, loaded: dict[int, Labels]) -> None:
        """Apply labels read from a file to the slices that are not labelled by hand."""
        controller = self.controller
        session = controller.session
        if session is None:
            return
        controller.saving.secure()
        read = loaded if isinstance(loaded, ReadLabels) else ReadLabels(loaded)
        free = {index: labels for index, labels in read.items() if session.labels.manual(index) is None}
        taken = session.take_labels(ReadLabels(free, segments=read.segments, may_be_unknown=read.may_be_unknown), path)
        self.show_classes()
        self.show(taken)
        kept = len(loaded) - len(taken)
        words = f"{len(taken)} labelled slices loaded from {path.name}. Ctrl+Z undoes it."
        words = f"{words} {kept} that you labelled by hand stay as they are." if kept else words
        sentences = [*read.notices, *names_kept(session.labels.classes, read.segments)]
        controller.notify(" ".join([words, *(f"{in_words(sentence).rstrip('.')}." for sentence in sentences)]))

    # --- classes ----------------------------------------------------------------------------------------------------

    @guarded
    def add_class(self, name: str | None = None) -> None:
        """Add a class with the next free number, and select it."""
        book = self._book()
        if book is None:
            return
        # A class that was removed here may still be one of the project, whose number means that class elsewhere.
        project = self.controller.project.current
        reserved = [entry.number for entry in project.classes] if project is not None else []
        added = book.add_class(name, reserved=reserved)
        self.show_classes()
        self.select_class(added.number)

    def rename_class(self, number: int, name: str) -> None:
        """Rename a class."""
        self._change_class(lambda book: book.rename_class(number, name))

    def recolour_class(self, number: int, colour: str) -> None:
        """Change the colour of a class, ``#rrggbb``."""
        self._change_class(lambda book: book.recolour_class(number, colour))

    @guarded
    def _change_class(self, change: Callable[[LabelBook], Any]) -> None:
        book = self._book()
        if book is None:
            return
        try:
            change(book)
        finally:
            self.show_classes()  # also resets the table after a refusal

    def class_holds_paint(self, number: int) -> list[int]:
        """The slices on which a class is painted; empty if nothing can be erased."""
        session = self.controller.session
        if session is None or self.controller.read_only:
            return []
        self.controller.flush()
        return session.labels.holds_paint(number)

    @guarded
    def remove_class(self, number: int, erase: bool = False) -> None:
        """Remove a class; refused if it is painted anywhere, unless ``erase`` is set."""
        session, book = self.controller.session, self._book()
        if session is None or book is None:
            return
        name = next((entry.name for entry in book.classes if entry.number == number), "")
        book.remove_class(number, erase=erase)
        self.controller.project.note_removed_class(number, name)
        self.show(list(range(session.case.n_slices)))
        self.controller.touch(Change.PREDICTIONS)
        self.show_classes()

    def select_class(self, number: int) -> None:
        """Select what the brush paints, see `selected_class`."""
        self.selected_class = number
        if self.controller.layers is not None:
            self.controller.layers.select_label(number)
        self.controller.touch(Change.SELECTION)

    # --- showing ----------------------------------------------------------------------------------------------------

    def show(self, indices: list[int]) -> None:
        """Show labels after a change in the label book."""
        if self.controller.layers is not None:
            self.controller.layers.show_labels(indices)
        self.controller.touch(Change.LABELS)

    def show_classes(self) -> None:
        """Show the classes after a change in the label book."""
        if self.controller.layers is not None:
            self.controller.layers.show_colours()
        before, self._numbers = self._numbers, self._numbers_now()
        if self.selected_class in before and self.selected_class not in self._numbers:
            self.select_class(self._numbers[0] if self._numbers else 0)
        self.controller.touch(Change.CLASSES)

    def follow_layers(self) -> None:
        """Connect to the layers of a new case."""
        controller, layers = self.controller, self.controller.layers
        if layers is None:
            return
        self._numbers = self._numbers_now()
        painting = layers.painting
        painting.scribbles = self.scribbles
        painting.taken.connect(self._on_labels_taken)
        painting.went_across.connect(self._on_painted_across)
        painting.classes_found.connect(self.show_classes)
        painting.failed.connect(controller.show_error)
        painting.label_selected.connect(self._on_label_selected)
        layers.undone.connect(self._on_undone)
        layers.turned.connect(lambda: controller.touch(Change.VIEW))
        layers.slice_changed.connect(lambda _: controller.touch(Change.SLICE))
        layers.lost.connect(self._on_layer_lost)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _book(self) -> LabelBook | None:
        """The label book, with the last strokes read. Raises SessionError if it is read-only."""
        self.controller.require_writable()
        self.controller.flush()
        session = self.controller.session
        return session.labels if session is not None else None

    def _numbers_now(self) -> list[int]:
        session = self.controller.session
        return [entry.number for entry in session.labels.classes] if session is not None else []

    def _on_undone(self, changed: Changed, name: str) -> None:
        if changed:
            self.controller.notify("", "clear")  # it may be about what was undone, or that there is nothing to undo
        else:
            self.controller.notify(f"There is nothing to {name} in this case.")
        if changed.classes:
            self.show_classes()
        if changed.labels:
            self.controller.touch(Change.LABELS)
        if changed.predictions:
            self.controller.touch(Change.PREDICTIONS)

    def _on_labels_taken(self, indices: list[int]) -> None:
        if self.controller.layers is not None:
            self.controller.layers.show_predictions(indices)
        self.controller.touch(Change.LABELS)

    def _on_painted_across(self) -> None:
        session, layers = self.controller.session, self.controller.layers
        what = f"{noun_of(session.case)}s" if session is not None else "slices"
        way = "" if layers is None or layers.shows_slices else " 'Back to the plane' shows whole slices again."
        self.controller.notify(
            f"Painted across {what}: they count as scribbles, so what is left unpainted on them is unknown, not"
            f" background; {what} that were labelled before stay as they were.{way}"
        )

    def _on_label_selected(self, number: int) -> None:
        if number != self.selected_class:
            self.selected_class = number
            self.controller.touch(Change.SELECTION)

    def _on_layer_lost(self, kind: str) -> None:
        if kind == "proposal":
            return  # it comes back with the next outline
        safe = " Your labels are safe." if kind == "manual" else ""
        self.controller.touch(Change.LAYERS)
        self.controller.notify(
            f"The {kind} layer was removed.{safe} 'Bring layers back' (Label section) shows it again.", "notice"
        )
