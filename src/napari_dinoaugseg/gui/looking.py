"""Which slices the person has looked at since the model, or an interpolation, filled them.

A mask that nobody has seen must not leave the program, or be accepted, without a word. So the label book keeps for each
slice whether what is on it was in view; here the viewer's events become those facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.gui.display import axis_order
from napari_dinoaugseg.gui.encoding import is_scribbled

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.core import ControllerCore


class Looking:
    """Notes what is in view of one viewer, on the thread of the interface."""

    def __init__(self, controller: ControllerCore) -> None:
        self._controller = controller
        # Connected before any section of the panel, which shows the result.
        for signal in (
            controller.session_changed,
            controller.layers_changed,
            controller.labels_changed,
            controller.predictions_changed,
            controller.slice_changed,
        ):
            signal.connect(self._look)
        for event in (controller.viewer.dims.events.order, controller.viewer.dims.events.ndisplay):
            event.connect(self._look)

    def _look(self, *_: object) -> None:
        controller, layers = self._controller, self._controller.layers
        if controller.closed or controller.session is None or layers is None:
            return
        for layer in (layers.prediction, layers.manual):
            if layer is not None:
                layer.events.visible.connect(self._look)  # once: napari leaves out what is connected already
        dims = controller.viewer.dims
        if dims.ndisplay != 2 or tuple(dims.order[-3:]) != axis_order(layers.axis):
            return  # another cut through the volume, or a rendering of it
        book, here = controller.session.labels, controller.current_slice
        said = book.of_slice(here)
        # Of a slice that is labelled as a whole only the labels are drawn, see `LayerStack.show_predictions`.
        drawn = [layers.manual] if not said.is_empty else []
        if said.is_empty or is_scribbled(said):
            drawn.append(layers.prediction)
        if all(layer is not None and layer.visible for layer in drawn):
            book.see(here)
