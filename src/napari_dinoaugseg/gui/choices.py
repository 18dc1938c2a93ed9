"""Questions in a window of their own: which series, which volume, which grey values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFormLayout,
    QInputDialog,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dinoaugseg.errors import SeriesInfo


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
