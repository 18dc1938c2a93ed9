"""Layers of a session that another window writes: they can be looked at, and nothing sticks to them."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_dinoaugseg.gui.layers import StudyLayers


class ReadOnlyLayers(StudyLayers):
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
