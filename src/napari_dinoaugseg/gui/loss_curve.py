"""The training loss, live."""

from __future__ import annotations

from typing import Any

import pyqtgraph
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_dinoaugseg.gui.theme import background_colour, follow_theme, is_dark, text_colour

_HEIGHT = 100
_LINE = {True: "#56b4e9", False: "#0072b2"}  # on dark, on light: both colour-blind safe
_PAUSE = 100  # ms between redraws: drawing must not take the time of the brush


class LossCurve(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """Loss over steps of the training that goes on or went on last."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent, background=None)
        self._viewer = viewer
        self.setFixedHeight(_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMenuEnabled(False)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.setToolTip("How far the model is from your labels while it learns: lower is better")
        self.setLabel("left", "loss")
        self.setLabel("bottom", "step")
        self.getAxis("left").enableAutoSIPrefix(False)
        self.steps: list[int] = []
        self.losses: list[float] = []
        self._line = self.plot()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw)
        follow_theme(viewer, self, self._show_colours)

    def start(self, total: int) -> None:
        """Begin a new curve of ``total`` steps."""
        self.steps.clear()
        self.losses.clear()
        self.setXRange(0, max(1, total), padding=0.02)
        self._draw()

    def add(self, step: int, loss: float) -> None:
        """Add a point."""
        self.steps.append(step)
        self.losses.append(loss)
        if not self._timer.isActive():
            self._timer.start(_PAUSE)

    def _show_colours(self) -> None:
        self.setBackground(background_colour(self._viewer))
        colour = text_colour(self._viewer)
        for side in ("left", "bottom"):
            axis = self.getAxis(side)
            axis.setPen(colour)
            axis.setTextPen(colour)
        self._line.setPen(pyqtgraph.mkPen(_LINE[is_dark(self._viewer)], width=2))

    def _draw(self) -> None:
        self._line.setData(self.steps, self.losses)
        if self.losses:
            top = max(self.losses) * 1.05
            self.setYRange(0, top, padding=0)
            self.getAxis("left").setTicks([[(0, "0"), (top / 2, f"{top / 2:.1f}"), (top, "")]])
