"""The way between the layers of a study and the label book.

``layer_following.py`` takes over what is painted. Here what the label book says comes into the layers: into "manual"
as whole slices, in one step each, beside napari's own history, which keeps a position and two values for every pixel
and takes seconds for a few hundred slices. Taking back goes through our history, which knows what pixels meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray

from napari_dinoaugseg.gui.encoding import from_layer, is_scribbled, is_shown, to_layer
from napari_dinoaugseg.gui.history import Mark, Step
from napari_dinoaugseg.gui.layer_following import FollowedLayers
from napari_dinoaugseg.gui.metadata import study_of
from napari_dinoaugseg.gui.parts import stop
from napari_dinoaugseg.session.classes import LabelClass
from napari_dinoaugseg.session.labels import SliceLabels


class StudyLayers(FollowedLayers):
    """Layers of one study in one viewer. Lives on the thread of the interface.

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
                pending[index] = to_layer(said, self.study.slice_shape(index), explicit=self.scribbles)
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
            if study_of(self.image) is None and self.image in leaving:
                leaving.remove(self.image)
        manual = self.manual
        if manual is not None:
            self._let_go(manual)
            if keep_labels_as:
                manual.name, manual.visible = keep_labels_as, False
                leaving.remove(manual)
        return leaving
