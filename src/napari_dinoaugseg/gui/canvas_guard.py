"""What has to be done on the canvas before a layer leaves the viewer, or the process may die.

napari deletes the OpenGL programs of a removed layer at once, in whatever context is current then; once Qt has composed
the window, that is Qt's own. Mesa then sets the programs aside for the canvas's context. When it frees them there it
unbinds the vertex shader, and does not bind it again as long as one and the same program is drawn: the next frame calls
a shader that is not there, and the process ends in glDrawArrays (seen with Mesa 22.3, llvmpipe, napari 0.9.2). One
program is all that is drawn when a single layer is left, or none but an overlay that paint mode had brought. Deleted in
the context that made them, programs are never set aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.compat import isalive
from qtpy.QtWidgets import QOpenGLWidget

if TYPE_CHECKING:
    import napari


class CanvasGuard:
    """Prepares the canvas of a viewer for the removal of layers, whoever removes them.

    Keep it as long as the viewer: that refers to it weakly.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        viewer.layers.events.removing.connect(self._before_removal)

    def _before_removal(self, event: Any) -> None:
        layer = self._viewer.layers[event.index]
        if isinstance(layer, Labels):
            layer.mode = "pan_zoom"  # its brush leaves the canvas with it
        window: Any = getattr(self._viewer.window, "_qt_window", None)
        if window is None or not isalive(window):  # type: ignore[no-untyped-call]
            return  # the window was closed, and nothing is drawn any more
        canvas = window.centralWidget().findChild(QOpenGLWidget)
        if canvas is not None and canvas.isValid():
            canvas.makeCurrent()
