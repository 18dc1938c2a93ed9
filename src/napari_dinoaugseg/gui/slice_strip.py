"""One thin cell per slice in the colour of its status, the slice in view marked; a click jumps there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPoint, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QPalette, QPolygon
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_dinoaugseg.session.labels import Status

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

# Colour-blind safe; told apart in both themes.
COLOURS = {
    Status.EMPTY: "#8a8f98",
    Status.MANUAL: "#e69f00",
    Status.ACCEPTED: "#009e73",
    Status.PREDICTED: "#56b4e9",
}
SUGGESTED = "#d55e00"
WORDS = {
    Status.EMPTY: "not labelled",
    Status.MANUAL: "labelled by hand",
    Status.ACCEPTED: "accepted",
    Status.PREDICTED: "predicted",
}
_MARK = 6  # pixels above and below the cells for the marks
_PAUSE = 60  # ms


class SliceStrip(QWidget):
    """The strip. The first slice is on the left."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.setMouseTracking(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.statuses: list[Status] = []
        self.suggested: int | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.refresh)
        for signal in (
            controller.session_changed,
            controller.labels_changed,
            controller.predictions_changed,
            controller.work_finished,
        ):
            signal.connect(self._soon)
        controller.slice_changed.connect(self._moved)
        self.refresh()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As wide as there is room."""
        return QSize(240, 34)

    def _soon(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start(_PAUSE)

    def _moved(self, _: int) -> None:
        self.update()

    def refresh(self) -> None:
        """Read the status of every slice."""
        session = self.controller.session
        self.statuses = [session.labels.status(i) for i in range(session.study.n_slices)] if session is not None else []
        # While masks are coming in, what was suggested would jump about.
        if session is None or not session.labels.labelled:
            self.suggested = None
        elif not self.controller.busy:
            found = self.controller.suggestion()
            self.suggested = found.index if found is not None else None
        self.update()

    def slice_at(self, x: float) -> int | None:
        """The slice whose cell is at a place in the widget."""
        count = len(self.statuses)
        return min(max(int(x / max(1, self.width()) * count), 0), count - 1) if count else None

    # --- Qt ---------------------------------------------------------------------------------------------------------

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw cells, then marks."""
        painter = QPainter(self)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        if not self.statuses:
            painter.setPen(text)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "one cell per slice, once a study is open")
            return
        width = self.width() / len(self.statuses)
        gap = 1.0 if width >= 4 else 0.0
        top, height = float(_MARK), float(self.height() - 2 * _MARK)
        for index, status in enumerate(self.statuses):
            cell = QRectF(index * width, top, max(width - gap, 1.0), height)
            if status is Status.EMPTY:  # lower, so that what is there stands out
                cell = QRectF(cell.x(), top + height * 0.35, cell.width(), height * 0.3)
            painter.fillRect(cell, QColor(COLOURS[status]))
        if self.suggested is not None:
            self._mark(painter, self.suggested, width, QColor(SUGGESTED), above=False)
        here = self.controller.current_slice
        centre = (here + 0.5) * width
        painter.fillRect(QRectF(centre - 1, 0, 2, self.height()), text)
        self._mark(painter, here, width, text, above=True)

    def _mark(self, painter: QPainter, index: int, width: float, colour: QColor, *, above: bool) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(colour)
        painter.setPen(Qt.PenStyle.NoPen)
        x, tip = round((index + 0.5) * width), _MARK if above else self.height() - _MARK
        base = 0 if above else self.height()
        painter.drawPolygon(QPolygon([QPoint(x - 5, base), QPoint(x + 5, base), QPoint(x, tip)]))

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Jump."""
        self._jump(event)

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Say what is under the mouse; with the button down, go along."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._jump(event)
        index = self.slice_at(event.pos().x())
        session = self.controller.session
        if index is not None and session is not None:
            extra = ", suggested next" if index == self.suggested else ""
            confidence = session.labels.confidence.get(index)
            if confidence is not None and self.statuses[index] is Status.PREDICTED:
                extra = f", confidence {confidence:.0%}{extra}"
            words = f"{session.study.slice_name(index)}: {WORDS[self.statuses[index]]}{extra}"
            QToolTip.showText(self.mapToGlobal(event.pos()), words, self)

    def _jump(self, event: Any) -> None:
        index = self.slice_at(event.pos().x())
        if index is not None:
            self.controller.go_to(index)
