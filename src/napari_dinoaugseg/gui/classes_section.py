"""The section "Classes": what can be painted, in which colour, and how much of it there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dinoaugseg.gui.widgets import button, confirmed, quietly, row
from napari_dinoaugseg.session.pixel_counts import volumes_ml

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller


NUMBER, COLOUR, NAME, SLICES, VOLUME = range(5)
_PAUSE = 150  # ms: masks come one by one, the table follows in steps
_ROW = 24  # pixels
_MOST_ROWS = 5


class ClassesSection(QWidget):
    """The section "Classes"."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.table = _table()
        self.table.setHorizontalHeaderLabels(["No.", "", "Name", "Slices", "ml"])
        self.table.setToolTip("Select a class to paint it. Double-click its name or its colour to change them")
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(_ROW)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = self.table.horizontalHeader()
        header.setMinimumSectionSize(24)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in ((NUMBER, 36), (COLOUR, 28), (SLICES, 48), (VOLUME, 58)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.table.setColumnWidth(column, width)
        self.table.itemSelectionChanged.connect(self._select)
        self.table.itemChanged.connect(self._rename)
        self.table.cellDoubleClicked.connect(self._recolour)
        self.add_button = button("Add class", "Add a class to paint", self._add)
        self.remove_button = button("Remove", "Remove the selected class; asks when it is painted", self._remove)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 4)
        layout.addWidget(self.table)
        layout.addLayout(row(self.add_button, self.remove_button))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.refresh)
        for signal in (controller.session_changed, controller.classes_changed):
            signal.connect(self.refresh)
        for signal in (controller.labels_changed, controller.predictions_changed):
            signal.connect(self._soon)
        controller.class_selected.connect(self._show_selected)
        self.refresh()

    # --- showing ----------------------------------------------------------------------------------------------------

    def _soon(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start(_PAUSE)

    def refresh(self) -> None:
        """Show the classes and their amounts."""
        session = self.controller.session
        classes = session.labels.classes if session is not None else []
        quietly(self.table, self._fill)
        self.table.setFixedHeight(_ROW * (min(max(len(classes), 2), _MOST_ROWS) + 1) + 6)
        self.add_button.setEnabled(session is not None)
        self.remove_button.setEnabled(bool(classes))
        self._show_selected()

    def _fill(self) -> None:
        session = self.controller.session
        if session is None:
            self.table.setRowCount(0)
            return
        slices, pixels = (
            session.pixel_counts.labelled_slices(session.labels),
            session.pixel_counts.total(session.labels),
        )
        volumes = volumes_ml(session.case, pixels)
        self.table.horizontalHeaderItem(VOLUME).setText("ml" if volumes is not None else "pixels")
        self.table.setRowCount(len(session.labels.classes))
        for line, entry in enumerate(session.labels.classes):
            amount = (
                f"{volumes.get(entry.number, 0.0):.1f}" if volumes is not None else f"{pixels.get(entry.number, 0)}"
            )
            texts = (str(entry.number), "", entry.name, str(slices.get(entry.number, 0)), amount)
            for column, text in enumerate(texts):
                item = self.table.item(line, column)
                if item is None:
                    item = QTableWidgetItem()
                    self.table.setItem(line, column, item)
                if column != NAME:
                    item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                if column in (SLICES, VOLUME):
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                if item.text() != text:
                    item.setText(text)
            self._show_colour(line, entry.colour)

    def _show_colour(self, line: int, colour: str) -> None:
        # A widget, for napari's style sheet hides the background of an item.
        patch = self.table.cellWidget(line, COLOUR)
        if patch is None:
            patch = QWidget()
            patch.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            self.table.setCellWidget(line, COLOUR, patch)
        patch.setStyleSheet(f"background-color: {colour}; margin: 4px; border-radius: 3px;")

    def _show_selected(self, *_: object) -> None:
        numbers = self._numbers()
        selected = self.controller.selected_class
        if selected in numbers:
            quietly(self.table, lambda: self.table.selectRow(numbers.index(selected)))
        else:
            quietly(self.table, self.table.clearSelection)

    def _numbers(self) -> list[int]:
        session = self.controller.session
        return [entry.number for entry in session.labels.classes] if session is not None else []

    def _selected_number(self) -> int | None:
        lines = {index.row() for index in self.table.selectedIndexes()}
        numbers = self._numbers()
        return numbers[min(lines)] if lines and min(lines) < len(numbers) else None

    # --- doing ------------------------------------------------------------------------------------------------------

    def _select(self) -> None:
        number = self._selected_number()
        if number is not None and number != self.controller.selected_class:
            self.controller.select_class(number)

    def _add(self) -> None:
        self.controller.add_class()

    def _rename(self, item: QTableWidgetItem) -> None:
        numbers = self._numbers()
        if item.column() == NAME and item.row() < len(numbers):
            self.controller.rename_class(numbers[item.row()], item.text())

    def _recolour(self, line: int, column: int) -> None:
        session = self.controller.session
        if column != COLOUR or session is None:
            return
        entry = session.labels.classes[line]
        colour = QColorDialog.getColor(QColor(entry.colour), self, f"Colour of {entry.name}")
        if colour.isValid():
            self.controller.recolour_class(entry.number, colour.name())

    def _remove(self) -> None:
        number = self._selected_number()
        session = self.controller.session
        if number is None or session is None:
            return
        name = next(entry.name for entry in session.labels.classes if entry.number == number)
        painted = self.controller.class_holds_paint(number)
        if painted and not self._may_erase(name, len(painted)):
            return
        self.controller.remove_class(number, erase=bool(painted))

    def _may_erase(self, name: str, count: int) -> bool:
        text = (
            f"{name} is painted on {count} slice{'' if count == 1 else 's'}. Remove the class and erase that paint? "
            "Ctrl+Z brings it back."
        )
        return confirmed(self, "Remove a class that is painted?", text)


def _table() -> Any:
    """Of no declared type: PyQt's stubs say of every part of a table that it may be missing."""
    return QTableWidget(0, 5)
