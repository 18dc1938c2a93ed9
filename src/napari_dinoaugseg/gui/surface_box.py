"""The view in three dimensions in the panel: its switch, what it shows, and the volume of each class."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QWidget

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.widgets import button, column, quietly, row, sentence
from napari_dinoaugseg.session.surfaces import ClassSurface

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller


class SurfaceBox(QWidget):
    """Switches between slices and surfaces."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.switch = button("Show in 3-D", "", self._switch)
        self.update_button = button("Update", "Show the labels as they are now", lambda: controller.surfaces.update())
        self.predictions = QCheckBox("with predictions")
        self.predictions.setToolTip("Off: painted and accepted labels only")
        self.predictions.toggled.connect(self._include)
        self.volumes = sentence(rich=True)
        column(
            self,
            row(self.switch, self.predictions, self.update_button),
            self.volumes,
            margins=(0, 0, 0, 0),
        )
        controller.changed.connect(self._on_change)
        self.refresh()

    def _switch(self) -> None:
        self.controller.surfaces.switch(not self.controller.surfaces.is_on, in_turns=True)

    def _include(self, predictions: bool) -> None:
        self.controller.surfaces.update(everything=predictions)

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.VIEW):
            self.refresh()

    def refresh(self) -> None:
        """Show whether the case is in 3-D, and the volumes of what is shown."""
        surfaces = self.controller.surfaces
        self.switch.setText("Back to slices" if surfaces.is_on else "Show in 3-D")
        self.switch.setToolTip(surfaces.reason or "A smooth surface of each class, with its volume")
        self.switch.setEnabled(surfaces.is_on or not surfaces.reason)
        quietly(self.predictions, lambda: self.predictions.setChecked(surfaces.everything))
        for widget in (self.predictions, self.update_button):
            widget.setVisible(surfaces.is_on)
        lines = [_described(surface) for surface in surfaces.found]
        text = "<br>".join([*lines, "Computing surfaces…"] if surfaces.working else lines)
        self.volumes.setText(text)
        self.volumes.setVisible(surfaces.is_on and bool(text))


def _described(surface: ClassSurface) -> str:
    """A class with its colour and volume: "■ liver: 1480.2 ml"."""
    size = f"{surface.voxels} voxels" if surface.volume_ml is None else f"{surface.volume_ml:.4g} ml"
    return f'<span style="color: {surface.entry.colour}">■</span> {escape(surface.entry.name)}: <b>{size}</b>'
