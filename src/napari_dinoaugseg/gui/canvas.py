"""What lies over the image: text in the corners of the canvas, its widget, and how napari draws a layer.

napari has no public access to the last two. Where a version keeps them elsewhere they are None, and what needs them is
not offered.
"""

from __future__ import annotations

from typing import Any

from napari.layers import Layer
from qtpy.compat import isalive
from qtpy.QtWidgets import QOpenGLWidget, QWidget


def write_on_canvas(viewer: Any, name: str, text: str, position: str, size: int = 14) -> None:
    """Show a text on the canvas, or hide it if it is empty. Nothing happens before napari 0.9.

    Args:
        viewer: of napari.
        name: of the text, by which it is replaced.
        text: at most a few words.
        position: as napari names them: ``bottom_left``, ``top_right`` …
        size: of the letters, in points.
    """
    overlays = getattr(getattr(viewer, "canvas", None), "overlays", None)
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


def canvas_widget(viewer: Any) -> QWidget | None:
    """The widget of the canvas; None without a window."""
    window: Any = getattr(viewer.window, "_qt_window", None)
    if window is None or not isalive(window):  # type: ignore[no-untyped-call]
        return None
    found: QWidget | None = window.centralWidget().findChild(QOpenGLWidget)
    return found


def drawn_node(viewer: Any, layer: Layer) -> Any:
    """The vispy node that draws a layer; None where this napari has none."""
    canvas = getattr(getattr(viewer.window, "_qt_viewer", None), "canvas", None)
    visual = getattr(canvas, "layer_to_visual", {}).get(layer)
    return getattr(visual, "node", None)
