"""The fill bucket: asks before it floods what nobody outlined.

On a slice without labels, or through a gap in an outline, one click would label nearly everything, and a training would
learn it. Nothing is changed before the person has answered, so a refusal leaves no trace in the undo history either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_dinoaugseg.gui.encoding import BACKGROUND
from napari_dinoaugseg.gui.questions import confirmed

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.core import ControllerCore

_FLOOD = 0.5
"""Share of the slice from which a fill counts as a flood."""
_AGAIN = 20  # ms between two looks at the mouse


class FillGuard:
    """Stands before the fill bucket of the manual layer, on the thread of the interface."""

    def __init__(self, controller: ControllerCore) -> None:
        self._controller = controller
        self._layer: Labels | None = None
        self._asking = False
        controller.session_changed.connect(self._follow)
        controller.layers_changed.connect(self._follow)

    def _follow(self) -> None:
        """Guard the manual layer that is there now."""
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
        # napari's mouse fills without a refresh of its own; a script, which has nobody to ask, with one.
        question = "" if refresh else self._question(layer, coord, new_label)
        if not question:
            Labels.fill(layer, coord, new_label, refresh)
        elif not self._asking:  # with the button down, every move of the mouse comes here
            self._asking = True
            QTimer.singleShot(_AGAIN, partial(self._ask, layer, tuple(coord), new_label, question))

    def _ask(self, layer: Labels, coord: tuple[float, ...], new_label: int, question: str) -> None:
        """Ask once the mouse button is up: a window that opens before would keep napari from seeing that."""
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            QTimer.singleShot(_AGAIN, partial(self._ask, layer, coord, new_label, question))
            return
        self._asking = False
        if self._controller.closed or self._layer is not layer:
            return
        window = self._controller.viewer.window._qt_window
        if confirmed(window, "Fill nearly everything?", question) and self._layer is layer:
            Labels.fill(layer, coord, new_label)

    def _question(self, layer: Labels, coord: Sequence[float], new_label: int) -> str:
        """What to ask before a fill; empty when there is nothing to ask."""
        session, layers = self._controller.session, self._controller.layers
        if session is None or layers is None or new_label == 0:
            return ""
        place = [round(value) for value in coord]
        order = self._controller.viewer.dims.order
        axes = [axis - (len(order) - layer.ndim) for axis in order[-layer.n_edit_dimensions :]]
        # What is filled across: the slice itself, another cut through the volume, or all of it.
        window: list[Any] = [slice(None) if axis in axes else place[axis] for axis in range(layer.ndim)]
        if layers.axis not in axes:
            height, width = session.study.slice_shape(place[layers.axis])
            inside = [axis for axis in range(layer.ndim) if axis != layers.axis]
            for axis, size in zip(inside, (height, width), strict=True):
                window[axis] = slice(size)
                if not 0 <= place[axis] < size:
                    return ""  # beside a picture that is smaller than others
        area = np.asarray(layer.data)[tuple(window)]
        seed = tuple(place[axis] for axis in sorted(axes))
        if area[seed] == new_label or (new_label == BACKGROUND and area.any()):
            return ""  # around what is painted, background is mostly what is left
        share = _reach(area, seed, contiguous=layer.contiguous)
        if share <= _FLOOD:
            return ""
        name = session.study.slice_name(place[layers.axis]) if layers.axis not in axes else "this view"
        word = {entry.number: entry.name for entry in session.labels.classes}.get(new_label, f"class {new_label}")
        if new_label == BACKGROUND:
            word = "background"
        return (
            f"Fill {share:.0%} of {name} with {word}? To fill a shape, outline it with the brush without a gap and "
            "click inside."
        )


def _reach(area: np.ndarray[Any, Any], seed: tuple[int, ...], *, contiguous: bool) -> float:
    """The share of an area that a fill from a pixel would reach, 0 to 1."""
    if not contiguous:
        return float(np.mean(area == area[seed]))
    from skimage.segmentation import flood

    reached: Any = flood(area, seed, connectivity=1)  # type: ignore[no-untyped-call]
    return float(np.mean(reached))
