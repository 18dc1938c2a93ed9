"""How predictions are seen against the image: as outlines or filled."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari.layers import Labels

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.layers import FILLED, OUTLINED
from napari_dinoaugseg.gui.setup import preferences, remember_outlines

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers


class Judging:
    """How the predictions of the open case are drawn. Nothing that is stored or exported changes.

    Painted and accepted labels are always filled, so that they differ from predictions at a glance.

    Attributes:
        outlines: whether predictions are drawn as outlines: the choice in the preferences, until another is made.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.outlines = preferences().outlines
        self._opacity = {False: FILLED, True: OUTLINED}  # of each style, as last seen
        self._drawn: weakref.ref[Labels] | None = None  # the layer that was drawn last, which may be gone
        self._of: weakref.ref[CaseLayers] | None = None  # and of which case

    def draw(self, *, outlines: bool) -> None:
        """Draw predictions as outlines or filled, in the next viewers too."""
        layer = self._layer()
        if layer is not None:
            self._opacity[layer.contour > 0] = layer.opacity
        self.outlines = outlines
        remember_outlines(outlines)
        if layer is not None:
            self._style(layer)
            layer.opacity = self._opacity[outlines]

    def follow(self, what: Change) -> None:
        """Draw a new prediction layer, or that of another case, in the chosen style."""
        if not what & (Change.SESSION | Change.LAYERS):
            return
        layer, layers = self._layer(), self.controller.layers
        if layer is None or layers is None:
            return
        is_new = self._drawn is None or self._drawn() is not layer
        if is_new or self._of is None or self._of() is not layers:
            self._style(layer)
        if is_new:
            layer.opacity = self._opacity[self.outlines]

    def _layer(self) -> Labels | None:
        layers = self.controller.layers
        return layers.prediction if layers is not None else None

    def _style(self, layer: Labels) -> None:
        layers = self.controller.layers
        if layers is None:
            return
        self._drawn, self._of = weakref.ref(layer), weakref.ref(layers)
        width = layers.outline_width if self.outlines else 0
        if layer.contour != width:
            layer.contour = width
