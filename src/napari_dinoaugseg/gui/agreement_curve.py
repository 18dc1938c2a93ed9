"""A small curve: how well predictions agreed with the person's corrections, round after round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyqtgraph
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_dinoaugseg.gui.theme import background_colour, follow_theme, is_dark, text_colour

_HEIGHT = 136
_LINE = {True: "#e69f00", False: "#b35900"}  # on dark, on light


class AgreementCurve(QWidget):
    """Dice in percent over trainings.

    Attributes:
        points: what is shown: agreement (0 to 1) by the number of the training that predicted, from 1.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.points: dict[int, float] = {}
        self.plot = pyqtgraph.PlotWidget()
        self.plot.setFixedHeight(_HEIGHT)
        self.plot.setMenuEnabled(False)
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.hideButtons()
        self.plot.setToolTip("Dice of the predictions with what you made of them; 100 % = nothing had to be corrected")
        self.plot.setLabel("bottom", "agreement in % after each training")
        self.plot.getAxis("bottom").setHeight(44)  # by itself it cuts the tails of the letters
        self._line = self.plot.plot(symbol="o", symbolSize=7)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        follow_theme(viewer, self, self._show_colours)

    def show_points(self, points: Mapping[int, float]) -> None:
        """Show agreement (0 to 1) by the number of the training that predicted."""
        if dict(points) == self.points:
            return
        self.points = dict(points)
        numbers = sorted(self.points)
        percent = [100 * self.points[number] for number in numbers]
        self._line.setData(numbers, percent)
        if not numbers:
            return
        ticks = [(number, str(number)) for number in range(numbers[0], numbers[-1] + 1)]
        self.plot.getAxis("bottom").setTicks([ticks])
        self.plot.setXRange(numbers[0] - 0.4, numbers[-1] + 0.4, padding=0)
        self.plot.setYRange(max(0.0, min(percent) - 5), 104, padding=0)

    def _show_colours(self) -> None:
        self.plot.setBackground(background_colour(self._viewer))
        text, line = text_colour(self._viewer), _LINE[is_dark(self._viewer)]
        for side in ("left", "bottom"):
            axis = self.plot.getAxis(side)
            axis.setPen(text)
            axis.setTextPen(text)
        self._line.setPen(pyqtgraph.mkPen(line, width=2))
        self._line.setSymbolPen(line)
        self._line.setSymbolBrush(line)
