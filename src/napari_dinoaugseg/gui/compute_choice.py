"""Choice of the machine that computes: this computer, or a worker of a Dask scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QLineEdit, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.parts import quietly, sentence
from napari_dinoaugseg.session.connection import INSTALL, is_installed

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

_HERE, _SCHEDULER = "this computer", "a Dask scheduler at…"


class ComputeChoice(QWidget):
    """A list of two, a field for the scheduler's address, and a word on what that means."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.places = QComboBox()
        self.places.addItems([_HERE, _SCHEDULER])
        self.places.setToolTip("Training and prediction run here, or on a machine with a graphics card elsewhere")
        self.places.activated.connect(self._choose)
        self.address = QLineEdit()
        self.address.setPlaceholderText("tls://gpu-room:8786")
        self.address.setToolTip("The scheduler's address, as whoever runs it says; press Enter")
        self.address.editingFinished.connect(self._use_address)
        self.state = sentence()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        for widget in (self.places, self.address, self.state):
            layout.addWidget(widget)
        controller.settings_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the chosen machine."""
        scheduler = self.controller.scheduler
        quietly(self.places, lambda: self.places.setCurrentText(_SCHEDULER if scheduler else _HERE))
        quietly(self.address, lambda: self.address.setText(scheduler))
        self._show_address(bool(scheduler))
        self.state.setText(_describe(scheduler))

    def _show_address(self, shown: bool) -> None:
        self.address.setVisible(shown)
        self.state.setVisible(shown)

    def _choose(self, *_: object) -> None:
        if self.places.currentText() == _HERE:
            self.controller.use_scheduler("")
            self.refresh()
            return
        self._show_address(True)
        if not self.controller.scheduler:
            self.state.setText("Enter the scheduler's address." if is_installed() else _describe("-"))
        self.address.setFocus()

    def _use_address(self) -> None:
        if self.address.text().strip() != self.controller.scheduler:
            self.controller.use_scheduler(self.address.text())
            self.refresh()


def _describe(scheduler: str) -> str:
    if not is_installed():
        return f"This needs dask.distributed: {INSTALL}"
    if not scheduler.startswith("tls://"):
        return "Pixels and labels of the study travel there, and this address is not encrypted (tls:// would be)."
    return "Pixels and labels of the study travel there, encrypted; names and paths stay here."
