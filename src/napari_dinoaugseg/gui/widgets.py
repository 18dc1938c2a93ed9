"""The small widgets, dialogs and questions that the sections of the panel share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import platformdirs
from qtpy.compat import isalive
from qtpy.QtCore import QSettings, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dinoaugseg.case import CT_WINDOWS
from napari_dinoaugseg.errors import SeriesInfo


def text_colour(viewer: Any) -> str:
    """The colour of text in the viewer's theme, ``#rrggbb``."""
    return _colour(viewer, "text")


def background_colour(viewer: Any) -> str:
    """The colour behind the text, ``#rrggbb``. A plot without one keeps that of the theme it was made in."""
    return _colour(viewer, "background")


def is_dark(viewer: Any) -> bool:
    """Whether the viewer's theme writes light on dark."""
    return _brightness(text_colour(viewer)) > _brightness(background_colour(viewer))


def follow_theme(viewer: Any, widget: QWidget, show: Callable[[], None]) -> None:
    """Show a widget in the colours of the theme: now, and at each change of the theme while the widget lives."""

    def changed(*_: object) -> None:
        show()

    def let_go(*_: object) -> None:
        viewer.events.theme.disconnect(changed)

    viewer.events.theme.connect(changed)
    widget.destroyed.connect(let_go)
    show()


def _brightness(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _colour(viewer: Any, name: str) -> str:
    from napari.utils.theme import get_theme

    return str(getattr(get_theme(viewer.theme), name).as_hex(format="long"))


def camera_of(viewer: Any) -> Any:
    """The camera, which napari 0.9 moved into the scene."""
    return getattr(viewer, "scene", viewer).camera


# Small widgets that several sections use.


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


# File dialogs that open where the last one of the same purpose was used, also after a restart.


Purpose = Literal["case", "labels", "export", "report", "model", "weights"]
"""What a dialog is for; each purpose has a folder of its own."""


def ask_for_file(
    parent: QWidget, purpose: Purpose, title: str, filters: str, *, beside: Path | None = None
) -> Path | None:
    """Let the person choose a file that is there.

    Args:
        parent: the widget below the dialog.
        purpose: what for.
        title: of the dialog.
        filters: as Qt takes them: ``Model (*.safetensors);;All files (*)``.
        beside: where to begin while no folder of this purpose is known; None = at home.

    Returns:
        The file; None = cancelled.
    """
    name, _ = QFileDialog.getOpenFileName(parent, title, str(_start(purpose, beside)), filters)
    return _remember(purpose, name, is_inside=True)


def ask_for_folder(parent: QWidget, purpose: Purpose, title: str, *, beside: Path | None = None) -> Path | None:
    """Let the person choose a folder that is there; arguments as of :func:`ask_for_file`. None = cancelled."""
    name = QFileDialog.getExistingDirectory(parent, title, str(_start(purpose, beside)))
    # The next case lies beside the last one; what is written goes into the folder.
    return _remember(purpose, name, is_inside=purpose != "export")


def ask_where_to_save(
    parent: QWidget, purpose: Purpose, title: str, name: str, filters: str, *, beside: Path | None = None
) -> tuple[Path, str] | None:
    """Let the person name a file to write; whether it may be replaced is asked elsewhere, for all files at once.

    Args:
        parent: the widget below the dialog.
        purpose: what for.
        title: of the dialog.
        name: the proposed name.
        filters: as Qt takes them.
        beside: where to begin while no folder of this purpose is known; None = at home.

    Returns:
        The file and the filter that was chosen; None = cancelled.
    """
    options = QFileDialog.Option.DontConfirmOverwrite
    proposed = str(_start(purpose, beside) / name)
    picked, chosen = QFileDialog.getSaveFileName(parent, title, proposed, filters, options=options)
    path = _remember(purpose, picked, is_inside=True)
    return None if path is None else (path, chosen)


def _start(purpose: Purpose, beside: Path | None) -> Path:
    known = _folders().value(purpose)
    for folder in (Path(known) if isinstance(known, str) else None, beside):
        if folder is not None and folder.is_dir():
            return folder
    return Path.home()


def _remember(purpose: Purpose, name: str, *, is_inside: bool) -> Path | None:
    """What the dialog gave, as a path; its folder is where the next one begins."""
    if not name:
        return None
    path = Path(name)
    _folders().setValue(purpose, str(path.parent if is_inside else path))
    return path


def _folders() -> QSettings:
    """The folders by purpose. A cache: whoever clears it begins at home again."""
    named = os.environ.get("DINOAUGSEG_CACHE")
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("napari-dinoaugseg", appauthor=False))
    return QSettings(str(folder / "dialogs.ini"), QSettings.Format.IniFormat)


# Questions: asked before anything is replaced, flooded or let out. The default loses nothing at a stray Enter.


def confirmed(parent: QWidget | None, title: str, text: str) -> bool:
    """Ask yes or no, and wait for the answer. "No" is the default."""
    button = QMessageBox.StandardButton
    buttons: Any = button.Yes | button.No  # PyQt5's stubs call this a number
    return bool(QMessageBox.question(parent, title, text, buttons, button.No) == button.Yes)


def chosen(parent: QWidget | None, title: str, text: str, answers: Sequence[str]) -> int | None:
    """Let the person choose one of several answers, or cancel, which is the default.

    Returns:
        The number of the answer; None = cancelled.
    """
    box = QMessageBox(QMessageBox.Icon.Question, title, text, parent=parent)
    buttons = [box.addButton(answer, QMessageBox.ButtonRole.AcceptRole) for answer in answers]
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(cancel)
    box.setEscapeButton(cancel)
    box.exec()
    clicked = box.clickedButton()
    return next((number for number, button in enumerate(buttons) if button is clicked), None)


# Questions in a window of their own: which series, which volume, which grey values.


def ask_for_series(parent: QWidget, series: Sequence[SeriesInfo]) -> str | None:
    """Let the person choose a DICOM series; its UID, or None."""
    dialog = SeriesDialog(series, parent)
    return dialog.uid if dialog.exec() else None


class SeriesDialog(QDialog):
    """The series of a DICOM folder: description, number of slices, spacing."""

    def __init__(self, series: Sequence[SeriesInfo], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a series")
        self._series = sorted(series, key=lambda entry: -entry.slices)
        self.table = QTableWidget(len(self._series), 3)
        self.table.setHorizontalHeaderLabels(["Description", "Slices", "Spacing"])
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        for line, entry in enumerate(self._series):
            for column, text in enumerate((entry.description or "(none)", str(entry.slices), _spacing(entry))):
                self.table.setItem(line, column, QTableWidgetItem(text))
        self.table.selectRow(0)
        self.table.resizeColumnsToContents()
        self.table.doubleClicked.connect(lambda *_: self.accept())
        buttons = _ok_and_cancel(self)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel("This folder holds several DICOM series."))
        layout.addWidget(self.table)
        layout.addWidget(buttons)
        self.resize(560, 300)

    @property
    def uid(self) -> str:
        """Of the selected series."""
        return self._series[max(0, self.table.currentRow())].uid


def ask_for_volume(parent: QWidget, count: int) -> int | None:
    """Let the person choose a time point or channel; its number from 0, or None."""
    number, chosen = QInputDialog.getInt(
        parent,
        "Choose a volume",
        f"This file holds {count} volumes (time points or channels).\nWhich one, from 0 to {count - 1}?",
        0,
        0,
        count - 1,
    )
    return number if chosen else None


def ask_for_window(parent: QWidget, low: float, high: float) -> str | None:
    """Let the person name the darkest and the brightest grey value; "low,high", or None."""
    dialog = QDialog(parent)
    dialog.setWindowTitle("Intensity window")
    fields = []
    form = QFormLayout(dialog)
    for name, value in (("Black from", low), ("White from", high)):
        field = QDoubleSpinBox()
        field.setRange(-1e9, 1e9)
        field.setDecimals(2)
        field.setValue(value)
        form.addRow(name, field)
        fields.append(field)
    form.addRow(_ok_and_cancel(dialog))
    if not dialog.exec():
        return None
    return f"{fields[0].value():g},{fields[1].value():g}"


def _ok_and_cancel(dialog: QDialog) -> QDialogButtonBox:
    both: Any = QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel  # PyQt5: a number
    buttons = QDialogButtonBox(both)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    return buttons


def _spacing(entry: SeriesInfo) -> str:
    between, row, column = entry.spacing
    parts = []
    if row is not None and column is not None:
        parts.append(f"{column:.3g} × {row:.3g} mm")
    if between is not None:
        parts.append(f"slices {between:.3g} mm")
    return ", ".join(parts) or "not said"


# Choices of an intensity window: one for the eyes (Case section), one for the model (Train section).


WINDOWS = ("auto", "percentiles", *CT_WINDOWS)


def show_window(choice: QComboBox, window: str) -> None:
    """Show a window in a list without acting on it; values of the person's own replace those shown before.

    The list holds WINDOWS and, last, an item that is not a window of its own ("own values…").
    """

    def change() -> None:
        for index in reversed(range(len(WINDOWS), choice.count() - 1)):
            choice.removeItem(index)
        if window not in WINDOWS:
            choice.insertItem(choice.count() - 1, window)
        choice.setCurrentText(window)

    quietly(choice, change)
