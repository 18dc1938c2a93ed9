"""What lies over the image: text in the corners of the canvas, its widget, and how napari draws a layer.

napari has no public access to the last two. Where a version keeps them elsewhere they are None, and what needs them is
not offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from napari.layers import Layer
from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel, QOpenGLWidget, QWidget

from napari_dinoaugseg.gui.widgets import BREATH

_MEASURED = "ÅÉÑŐjgpqy"  # vispy takes the height of a line from them
MARGIN = 6  # pixels from the edge of the canvas


def overlays_of(viewer: Any) -> Any:
    """The overlays of the canvas by name; None before napari 0.9, which has no public access to them."""
    return getattr(getattr(viewer, "canvas", None), "overlays", None)


def write_on_canvas(viewer: Any, name: str, text: str, position: str, size: int = 14) -> None:
    """Show a text on the canvas, or hide it if it is empty. Nothing happens before napari 0.9.

    Args:
        viewer: of napari.
        name: of the text, by which it is replaced.
        text: at most a few words.
        position: as napari names them: ``bottom_left``, ``top_right`` …
        size: of the letters, in points.
    """
    overlays = overlays_of(viewer)
    if overlays is None:
        return
    key = f"dinoaugseg_{name}"
    if key not in overlays:
        if not text:
            return
        from napari.components.overlays import TextOverlay

        overlays[key] = TextOverlay(position=position, font_size=size, box=True)  # its shaders take a while
    overlay = overlays[key]
    if text and overlay.text != text:
        overlay.text = text
    if overlay.visible != bool(text):
        overlay.visible = bool(text)


def label_canvas(viewer: Any, name: str, text: str) -> None:
    """Show a line in the top left corner of the canvas, or hide it if it is empty.

    A label of Qt, because new letters on the canvas itself take napari a tenth of a second at each step.

    Args:
        viewer: of napari.
        name: of the label, by which it is replaced.
        text: plain.
    """
    canvas = canvas_widget(viewer)
    if canvas is None:
        return
    label = canvas.findChild(QLabel, name)
    if label is None:
        label = QLabel(canvas)
        label.setObjectName(name)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        label.setStyleSheet("background-color: rgba(0, 0, 0, 170); color: white; padding: 1px 5px;")
        label.move(MARGIN, MARGIN)
    if label.text() != text:
        label.setText(text)
        label.adjustSize()
    label.setVisible(bool(text))


def main_window(viewer: Any) -> QWidget | None:
    """The window of a viewer; None without one, or when it is gone."""
    bar = getattr(getattr(viewer, "window", None), "main_menu", None)
    if bar is None or not isalive(bar):  # type: ignore[no-untyped-call]
        return None
    found: QWidget | None = bar.window()
    return found


def qt_viewer(viewer: Any) -> Any:
    """The widget with napari's canvas and sliders, a splitter; None without one, or when it is gone.

    napari has no public name for it: of all our code only this line depends on that.
    """
    found = getattr(getattr(viewer, "window", None), "_qt_viewer", None)
    return found if found is not None and isalive(found) else None  # type: ignore[no-untyped-call]


def canvas_widget(viewer: Any) -> QWidget | None:
    """The widget of the canvas; None without a window."""
    window: Any = main_window(viewer)
    if window is None:
        return None
    # The window may hold more canvases: those of three planes.
    canvas = getattr(qt_viewer(viewer), "canvas", None)
    found: QWidget | None = getattr(canvas, "native", None) or window.centralWidget().findChild(QOpenGLWidget)
    return found if found is not None and isalive(found) else None  # type: ignore[no-untyped-call]


def load_letters(viewer: Any, letters: str) -> None:
    """Load what napari draws letters from, for which their first drawing would wait; not in all versions of napari."""
    with suppress(AttributeError):
        fonts = qt_viewer(viewer).canvas.font_info()
        font = fonts.font_manager.get_font(fonts.face)
        for letter in (*_MEASURED, *letters):
            font[letter]


def steady_boxes() -> None:
    """Let the boxes behind napari's texts change only where they get other values; not in all versions of napari.

    napari sets them again, mostly with the same values, whenever something comes to the canvas, and each box then
    compiles its shaders again: 6 ms without a graphics card, for every letter at an edge.
    """
    try:
        from napari._vispy.overlays import base

        rectangle: Any = base.Rectangle
    except (ImportError, AttributeError):
        return
    if hasattr(rectangle, "is_steady"):
        return

    def steady(name: str) -> property:
        own = getattr(rectangle, name)

        def change(self: Any, value: Any) -> None:
            has = own.fget(self)
            if not np.array_equal(getattr(has, "rgba", has), value):
                own.fset(self, value)

        return property(own.fget, change)

    values = {name: steady(name) for name in ("width", "height", "center", "color")}
    base.Rectangle = type("SteadyRectangle", (rectangle,), {"is_steady": True, **values})


@contextmanager
def one_drawing(viewer: Any) -> Iterator[None]:
    """Let the canvas be drawn once, a moment after this block, and not several times in it.

    napari draws it whenever a slider below it comes or goes. So the window answers before it is drawn, too.
    """
    canvas = canvas_widget(viewer)
    if canvas is None or not canvas.updatesEnabled():
        yield
        return

    def draw() -> None:
        if isalive(canvas):  # type: ignore[no-untyped-call]
            canvas.setUpdatesEnabled(True)

    canvas.setUpdatesEnabled(False)
    try:
        yield
    finally:
        QTimer.singleShot(BREATH, draw)


@contextmanager
def steady_sliders(viewer: Any) -> Iterator[None]:
    """Keep the height of what holds napari's sliders, where one of them takes the place of another in this block.

    napari shows the one before it hides the other, so that the canvas would get another size, and be arranged again.
    """
    sliders: QWidget | None = getattr(qt_viewer(viewer), "dims", None)
    if sliders is None:
        yield
        return
    highest = sliders.maximumHeight()
    sliders.setMaximumHeight(sliders.height())
    try:
        yield
    finally:
        sliders.setMaximumHeight(highest)


def slice_sliders(viewer: Any) -> list[Any]:
    """Napari's sliders below the canvas, one for each axis; none where this napari has others."""
    try:
        from napari._qt.widgets.qt_dims_slider import QtDimSliderWidget
    except ImportError:
        return []
    window: Any = main_window(viewer)
    if window is None:
        return []
    needed = ("_update_slice_labels", "_set_slice_from_label", "curslice_label", "totslice_label")
    found = window.centralWidget().findChildren(QtDimSliderWidget)
    return [slider for slider in found if all(hasattr(slider, name) for name in needed)]


def scale_bar(viewer: Any) -> Any:
    """Napari's scale bar; None where this napari has another."""
    overlays = overlays_of(viewer)
    if overlays is not None:
        return overlays.get("scale_bar")
    return getattr(viewer, "scale_bar", None)


def make_brush_circle(viewer: Any) -> None:
    """Let napari make the circle that shows the brush, which it does when it is shown first; hidden again at once."""
    overlays = overlays_of(viewer)
    circle = overlays.get("_brush_circle") if overlays is not None else None
    if circle is not None and not circle.visible:
        circle.visible = True
        circle.visible = False


def drawn_node(viewer: Any, layer: Layer) -> Any:
    """The vispy node that draws a layer; None where this napari has none."""
    canvas = getattr(qt_viewer(viewer), "canvas", None)
    visual = getattr(canvas, "layer_to_visual", {}).get(layer)
    return getattr(visual, "node", None)
