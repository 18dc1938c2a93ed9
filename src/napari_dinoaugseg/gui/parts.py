"""Small widgets that several sections use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget


def stop(timer: QTimer) -> None:
    """Stop a timer. At the end of the program Qt may have deleted it before us."""
    if isalive(timer):  # type: ignore[no-untyped-call]
        timer.stop()


class Collapsible(QWidget):
    """A title that folds what is below it."""

    def __init__(self, title: str, content: QWidget, *, opened: bool = True, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.content = content
        self.title = QToolButton()
        self.title.setText(title)
        self.title.setCheckable(True)
        self.title.setChecked(opened)
        self.title.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.title.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        font = self.title.font()
        font.setBold(True)
        self.title.setFont(font)
        self.title.toggled.connect(self._fold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.title)
        layout.addWidget(content)
        self._fold(opened)

    def set_open(self, opened: bool) -> None:
        """Fold or unfold."""
        self.title.setChecked(opened)

    def _fold(self, opened: bool) -> None:
        self.title.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.content.setVisible(opened)


def button(text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
    """A button with a tooltip."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.clicked.connect(lambda *_: action())
    return made


def choice(items: list[str], tip: str) -> QComboBox:
    """A list to choose from, with a tooltip."""
    made = QComboBox()
    made.addItems(items)
    made.setToolTip(tip)
    # Long items must not set the width of the panel.
    made.setMinimumContentsLength(8)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return made


def row(*widgets: QWidget) -> QHBoxLayout:
    """Widgets side by side."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def sentence(text: str = "") -> QLabel:
    """A label that wraps, of plain text."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    # A wrapping label asks for the width of its longest line otherwise, and the panel would grow.
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


class Elided(QLabel):
    """One line of plain text; what does not fit is left out of its middle, and the whole is the tooltip."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._whole = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    @property
    def whole(self) -> str:
        """The text as it was given."""
        return self._whole

    def show_text(self, text: str) -> None:
        """Show another text."""
        self._whole = text
        self.setToolTip(text)
        self._fit()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Fit the text again."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self.setText(self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideMiddle, self.width()))


def quietly(widget: QWidget, change: Callable[[], Any]) -> None:
    """Change a widget without acting on it."""
    blocked = widget.blockSignals(True)
    try:
        change()
    finally:
        widget.blockSignals(blocked)


def as_sentence(text: str) -> str:
    """A notice of the engine, which may begin small and without a full stop, as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
