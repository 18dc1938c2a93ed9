"""Smart scribble in the panel: its switch, and what to do next in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.keys import hint, tooltip
from napari_dinoaugseg.gui.widgets import quietly

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.smart import Asks

_WORDS: dict[Asks, str] = {
    "nothing": "",
    "strokes": f"One stroke inside, one of the background around it ({hint('background')}); Enter takes the outline.",
    "background": f"Now a stroke of the background around it (button Background, or {hint('background')}).",
    "class": f"Now a stroke of the class inside it (button Brush, or {hint('background')}).",
    "decision": "Enter takes the outline, Esc drops it; more strokes correct it.",
}


def smart_advice(controller: Controller) -> str:
    """What to draw or press next, a sentence; empty if that is not about Smart scribble."""
    return _WORDS[controller.smart.asks]


class SmartBox(QCheckBox):
    """The switch of Smart scribble."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Smart scribble: two strokes, an outline")
        self.controller = controller
        self.setToolTip(
            tooltip(
                "One stroke inside, one of the background around it: an outline appears. Enter takes it as painted, "
                "Esc drops it, and more strokes correct it",
                "smart",
            )
        )
        self.toggled.connect(self._switch)
        controller.changed.connect(self._on_change)
        self.refresh()

    def _switch(self, on: bool) -> None:
        self.controller.smart.switch(on)

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.LAYERS | Change.SETTINGS):
            self.refresh()

    def refresh(self) -> None:
        """Show whether it is on, and whether anything can be painted."""
        controller = self.controller
        layers = controller.layers
        self.setEnabled(layers is not None and layers.manual is not None and not controller.read_only)
        quietly(self, lambda: self.setChecked(controller.smart.is_on))
