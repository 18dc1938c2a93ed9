"""Which tool is in the person's hand: what the panel's buttons light up for, whoever chose it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.core import ControllerCore

Tool = Literal["brush", "eraser", "background"]


class Tools:
    """Follows napari's selected layer and the mode of the manual layer; `tool_changed` of the controller tells."""

    def __init__(self, controller: ControllerCore) -> None:
        self._controller = controller
        controller.viewer.layers.selection.events.active.connect(self._changed)
        controller.session_changed.connect(self._follow)
        controller.layers_changed.connect(self._follow)
        controller.class_selected.connect(self._changed)

    @property
    def active(self) -> Tool | None:
        """The tool of the panel that the mouse would use now; None for any other of napari, or on another layer."""
        layers = self._controller.layers
        manual = layers.manual if layers is not None else None
        if manual is None or self._controller.viewer.layers.selection.active is not manual:
            return None
        if manual.mode == "erase":
            return "eraser"
        if manual.mode != "paint":
            return None
        selected = self._controller.selected_class
        return "brush" if selected > 0 else "eraser" if selected == 0 else "background"

    def _follow(self) -> None:
        layers = self._controller.layers
        if layers is not None and layers.manual is not None:
            layers.manual.events.mode.connect(self._changed)  # once: napari leaves out what is connected already
        self._changed()

    def _changed(self, *_: object) -> None:
        if not self._controller.closed:
            self._controller.tool_changed.emit()
