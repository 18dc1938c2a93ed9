"""Window and level under the hand: a drag with Ctrl and the left button, or with the middle one, in every mode."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels

from napari_dinoaugseg.case.intensity import CT_WINDOWS, is_ct
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.gui.canvas import write_on_canvas
from napari_dinoaugseg.gui.core import guarded

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

_LEFT, _MIDDLE = 1, 3  # vispy's numbers of mouse buttons
_REACH = 300.0  # pixels of a drag that move the level by one width, or make the window e times as wide
_NARROWEST = 1e-4  # of the range of the image: the least width


class WindowDrag:
    """Changes the contrast limits of the image of the open case by a drag in the canvas, and nothing else.

    As in other viewers of radiology a drag to the right widens the window (less contrast), and a drag up lowers its
    level (brighter). While it lasts, napari's labels layer is in the mode that moves the image: in its other modes
    every button paints, whoever has handled the event. Callbacks of the image layer would not be called meanwhile,
    because napari asks the active layer alone; those of the viewer come first.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        controller.viewer.mouse_drag_callbacks.append(self.on_drag)

    def dispose(self) -> None:
        """End with the viewer."""
        callbacks = self.controller.viewer.mouse_drag_callbacks
        if self.on_drag in callbacks:
            callbacks.remove(self.on_drag)

    @guarded
    def show(self, window: str) -> None:
        """Show the image in a window by its name, as a key asks for it."""
        session = self.controller.session
        if session is None:
            return
        if session.case.is_colour:
            msg = "This image is in colour and has no intensity window."
            raise SettingsError(msg)
        if window in CT_WINDOWS and not is_ct(session.case):
            msg = f"The window '{window}' is for CT, and this image is not one. Use auto or percentiles."
            raise SettingsError(msg)
        self.controller.view.look_through(window)
        self.controller.notify(f"Window: {window}.")

    def on_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        """Move the window while the mouse is dragged; a callback of napari for any view of the case."""
        layers = self.controller.layers
        image = layers.image if layers is not None else None
        if self.controller.closed or image is None or image.rgb or not _is_asked(event):
            return
        low, high = (float(limit) for limit in image.contrast_limits)
        least = _NARROWEST * (image.contrast_limits_range[1] - image.contrast_limits_range[0])
        column, row = (float(place) for place in event.pos)
        with without_paint(viewer):
            yield
            while event.type == "mouse_move":
                across, up = float(event.pos[0]) - column, row - float(event.pos[1])
                image.contrast_limits = moved(low, high, across, up, least)
                self._write(image)
                yield
        self._write(None)

    def _write(self, image: Image | None) -> None:
        """Show the values on the canvas, or hide them."""
        text = "" if image is None else words(*image.contrast_limits)
        write_on_canvas(self.controller.viewer, "window", text, "bottom_left")


def moved(low: float, high: float, across: float, up: float, least: float) -> tuple[float, float]:
    """Limits after a drag.

    Args:
        low: the lower limit before it.
        high: the upper one.
        across: pixels to the right: the window gets wider.
        up: pixels upwards: the level falls by as much of the width.
        least: the least width.
    """
    width = max(least, (high - low) * math.exp(across / _REACH))
    level = (low + high) / 2 - up / _REACH * (high - low)
    return level - width / 2, level + width / 2


def words(low: float, high: float) -> str:
    """Width and level as radiologists write them: ``W 400  L 40``."""
    width, level = high - low, (low + high) / 2
    digits = max(0, 2 - math.floor(math.log10(width))) if width > 0 else 0
    return f"W {width:.{digits}f}  L {level:.{digits}f}"


def _is_asked(event: Any) -> bool:
    """Whether a press is meant for the window."""
    modifiers = {str(getattr(modifier, "name", modifier)) for modifier in event.modifiers}
    if event.button == _LEFT:
        return modifiers == {"Control"}
    return bool(event.button == _MIDDLE and not modifiers)


@contextmanager
def without_paint(viewer: Any) -> Iterator[None]:
    """Let the active layer paint nothing meanwhile."""
    layer = viewer.layers.selection.active
    mode = str(layer.mode) if isinstance(layer, Labels) else "pan_zoom"
    if mode == "pan_zoom":
        yield
        return
    layer.mode = "pan_zoom"
    try:
        yield
    finally:
        if str(layer.mode) == "pan_zoom":  # unless the person chose another tool meanwhile
            layer.mode = mode
