"""What has to be done on the canvas before a layer leaves the viewer, or the process may die.

napari deletes the OpenGL programs of a removed layer at once, in whatever context is current then; once Qt has composed
the window, that is Qt's own. Mesa sets the programs aside for the canvas's context, unbinds its vertex shader when it
frees them, and does not bind it again as long as one and the same program is drawn: the next frame calls a shader that
is not there, and the process ends in glDrawArrays (seen with Mesa 22.3, llvmpipe, napari 0.9.2). One program is all
that is drawn when one layer is left, or none with the brush's overlays. Deleted in the context that made them, programs
are never set aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
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
        canvas = window.centralWidget().findChild(QOpenGLWidget) if window is not None else None
        if canvas is not None and canvas.isValid():
            canvas.makeCurrent()
