"""A small curve: how well predictions agreed with the person's corrections, round after round."""

from __future__ import annotations

from collections.abc import Mapping

import pyqtgraph
from qtpy.QtWidgets import QVBoxLayout, QWidget

_HEIGHT = 136
_LINE = "#e69f00"


class AgreementCurve(QWidget):
    """Dice in percent over trainings.

    Attributes:
        points: what is shown: agreement (0 to 1) by the number of the training that predicted, from 1.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.points: dict[int, float] = {}
        self.plot = pyqtgraph.PlotWidget()
        self.plot.setFixedHeight(_HEIGHT)
        self.plot.setMenuEnabled(False)
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.hideButtons()
        self.plot.setToolTip("Dice of the predictions with what you made of them; 100 % = nothing had to be corrected")
        self.plot.setLabel("bottom", "agreement in % after each training")
        self.plot.getAxis("bottom").setHeight(44)  # by itself it cuts the tails of the letters
        self._line = self.plot.plot(pen=pyqtgraph.mkPen(_LINE, width=2), symbol="o", symbolSize=7, symbolBrush=_LINE)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)

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

    def set_colours(self, text: str, background: str) -> None:
        """Draw axes and numbers in one colour, on the other."""
        self.plot.setBackground(background)
        for side in ("left", "bottom"):
            axis = self.plot.getAxis(side)
            axis.setPen(text)
            axis.setTextPen(text)
