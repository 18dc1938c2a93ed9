"""The question whether an image that came into the viewer is to be annotated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.parts import button, row, sentence

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller


class OfferBar(QFrame):
    """Shown when somebody dropped, opened or added an image; it is never annotated without a click."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.setObjectName("offer_bar")
        self.setStyleSheet("#offer_bar { border: 2px solid #e69f00; border-radius: 4px; }")
        self.text = sentence()
        self.yes_button = button("Annotate", "Open it here; the study before is saved", controller.take_offer)
        self.no_button = button("Not now", "Leave it in the viewer as it is", controller.decline_offer)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addLayout(row(self.yes_button, self.no_button))
        for signal in (controller.offered, controller.work_started, controller.work_finished):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Ask, where there is something to ask."""
        layer = self.controller.offer
        self.setVisible(layer is not None)
        self.yes_button.setEnabled(not self.controller.busy)
        if layer is not None:
            self.text.setText(f"Annotate {layer.name}?")
