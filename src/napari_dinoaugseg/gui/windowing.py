"""Window and level under the hand: a drag with Ctrl and the left button, or with the middle one, in every mode.

A small menu on the canvas shows the window and holds the presets, with their keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QMenu, QToolButton, QWidget

from napari_dinoaugseg.case.intensity import CT_WINDOWS, is_ct
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.gui.canvas import MARGIN, canvas_widget, write_on_canvas
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.widgets import WINDOWS, ask_for_window

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

_LEFT, _MIDDLE = 1, 3  # vispy's numbers of mouse buttons
_REACH = 300.0  # pixels of a drag that move the level by one width, or make the window e times as wide
_NARROWEST = 1e-4  # of the range of the image: the least width
_SAMPLE = 20_000  # pixels of the slice in view that percentiles are taken from
_OWN = "own values…"

WINDOW_KEYS = {
    "auto": "F5",
    "soft tissue": "F6",
    "lung": "F7",
    "bone": "F8",
    "brain": "F9",
    "liver": "F10",
    "percentiles": "F11",
}
"""The keys of windows, by name."""


class WindowDrag:
    """Changes the contrast limits of the image of the open case by a drag in the canvas, and nothing else.

    As in other viewers of radiology a drag to the right widens the window (less contrast), and a drag up lowers its
    level (brighter). While it lasts, napari's labels layer is in the mode that moves the image: in its other modes
    every button paints, whoever has handled the event. Callbacks of the image layer would not be called meanwhile,
    because napari asks the active layer alone; those of the viewer come first.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._menu: WindowMenu | None = None
        self._sorted: tuple[object, int, Any] | None = None  # a case, a slice, and its values in order
        controller.viewer.mouse_drag_callbacks.append(self.on_drag)

    def follow(self, what: Change) -> None:
        """Show the window in the menu on the canvas, where there is one."""
        if what & (Change.SESSION | Change.LAYERS | Change.WINDOW | Change.SLICE):
            self._show_menu()

    def in_words(self) -> str:
        """The window of the image: width and level, and but for CT which percentiles of the slice in view they are.

        Empty without an image, and in colour.
        """
        layers = self.controller.layers
        image = layers.image if layers is not None else None
        if image is None or image.rgb:
            return ""
        low, high = image.contrast_limits
        values = self._values(image)
        return words(low, high) if values is None else f"{words(low, high)}  {percentiles(low, high, values)}"

    def _values(self, image: Image) -> Any:
        """Some values of the slice in view in order; None for CT, and where they are not in memory."""
        session, layers = self.controller.session, self.controller.layers
        if session is None or layers is None or not isinstance(image.data, np.ndarray):
            return None
        case, index = self.controller.view.sequences.in_view(session.case), self.controller.current_slice
        if is_ct(case):
            return None
        if self._sorted is None or self._sorted[0] is not case or self._sorted[1] != index:
            stack = np.moveaxis(image.data, layers.axis, 0) if image.data.ndim == 3 else image.data[np.newaxis]
            height, width = case.slice_shape(index)
            pixels = stack[index, :height, :width]
            step = max(1, math.ceil(math.sqrt(pixels.size / _SAMPLE)))
            self._sorted = case, index, np.sort(pixels[::step, ::step], axis=None)
        return self._sorted[2]

    def _show_menu(self) -> None:
        if self._menu is not None and not isalive(self._menu):  # type: ignore[no-untyped-call]
            self._menu = None
        text, canvas = self.in_words(), canvas_widget(self.controller.viewer)
        if self._menu is None and text and canvas is not None:
            self._menu = WindowMenu(self.controller, canvas)
        if self._menu is not None:
            self._menu.show_text(text)

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
        if window in CT_WINDOWS and not is_ct(self.controller.view.sequences.in_view(session.case)):
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
        text = "" if image is None else self.in_words()
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


def percentiles(low: float, high: float, values: Any) -> str:
    """Which percentiles of sorted values two limits are: ``(2 to 98 %)``."""
    shares = [np.searchsorted(values, low, "left"), np.searchsorted(values, high, "right")]
    first, last = (100 * int(share) / max(1, len(values)) for share in shares)
    return f"({first:.0f} to {last:.0f} %)"


_LETTER = 14  # pixels that the letter above the image reaches to the right of the middle


class WindowMenu(QToolButton):
    """A button in the top right corner of the canvas: it shows the window, and opens the presets."""

    def __init__(self, controller: Controller, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.controller = controller
        self.setToolTip(
            "Window and level: choose one, or drag on the image with Ctrl and the left button, or with the middle one"
        )
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        # Of its own colours, because it lies on the image in both themes.
        self.setStyleSheet(
            "QToolButton { background-color: rgba(0, 0, 0, 170); color: white; border: none; padding: 1px 5px; }"
            "QToolButton::menu-indicator { image: none; }"
        )
        presets = QMenu(self)
        presets.aboutToShow.connect(self._fill)
        self.setMenu(presets)
        self.presets = presets
        self._whole = ""
        canvas.installEventFilter(self)

    def show_text(self, text: str) -> None:
        """Show the window; without a text there is none to choose."""
        if text != self._whole:
            self._whole = text
            self._place()
        self.setVisible(bool(text))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Stay in the corner when the canvas changes its size."""
        if event is not None and event.type() == QEvent.Type.Resize:
            self._place()
        return False

    def _place(self) -> None:
        """Write what there is room for: on a narrow canvas the percentiles would hide the letter above the image."""
        canvas = self.parentWidget()
        if canvas is None:
            return
        for text in (self._whole, self._whole.split("  (")[0]):
            self.setText(f"{text}  ▾" if text else "")
            self.adjustSize()
            if self.width() + MARGIN + _LETTER <= canvas.width() / 2:
                break
        self.move(canvas.width() - self.width() - MARGIN, MARGIN)

    def _fill(self) -> None:
        """List the windows that mean something for the open case, with their keys."""
        self.presets.clear()
        session = self.controller.session
        if session is None:
            return
        for name in WINDOWS:
            if name in CT_WINDOWS and not is_ct(self.controller.view.sequences.in_view(session.case)):
                continue
            key = WINDOW_KEYS.get(name, "")
            action: Any = self.presets.addAction(f"{name}  ({key})" if key else name)
            action.setCheckable(True)
            action.setChecked(self.controller.view.window == name)
            action.triggered.connect(lambda *_, name=name: self.controller.windowing.show(name))
        self.presets.addSeparator()
        own: Any = self.presets.addAction(_OWN)
        own.triggered.connect(self._ask)

    def _ask(self) -> None:
        layers = self.controller.layers
        if layers is not None and layers.image is not None:
            window = ask_for_window(self, *(float(limit) for limit in layers.image.contrast_limits))
            if window:
                self.controller.view.look_through(window)


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
