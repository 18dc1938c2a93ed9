"""The table of the cases of a project, and the dialog that lists cases to add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QFont, QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dinoaugseg.gui.project import Column, ProjectWork
from napari_dinoaugseg.gui.thumbnails import SIDE, Thumbnail
from napari_dinoaugseg.gui.widgets import ok_and_cancel, row
from napari_dinoaugseg.session.adding import Addition
from napari_dinoaugseg.session.project import ProjectCase

COLUMNS: tuple[Column, ...] = get_args(Column)
NAME, DONE = COLUMNS.index("name"), COLUMNS.index("done")
_HEADINGS: dict[Column, tuple[str, str]] = {
    "name": ("Case", "Its name and its middle slice; sort by name"),
    "manual": ("Hand", "Slices labelled by hand"),
    "accepted": ("Acc.", "Slices whose prediction was accepted"),
    "predicted": ("Pred.", "Slices that are predicted and not yet accepted"),
    "confidence": ("Sure", "How sure the model is of the predicted slices; sort by it to see most doubt first"),
    "done": ("Done", "Tick a case that is finished"),
}
_ROW = SIDE + 6  # pixels
_PADDING = 6  # pixels beside a heading
_MOST_ROWS = 5  # in view; the rest by scrolling


class CaseTableModel(QAbstractTableModel):
    """The rows are the cases in the order of the project."""

    def __init__(self, work: ProjectWork, parent: QWidget) -> None:
        super().__init__(parent)
        self._work = work
        self._cases: list[ProjectCase] = []
        self._icons: dict[int, tuple[Thumbnail, QIcon]] = {}

    def refresh(self) -> None:
        """Show what has changed; the rows are laid out again only if they or their order have changed."""
        cases = self._work.order.cases
        if [case.number for case in cases] != [case.number for case in self._cases]:
            self.beginResetModel()
            self._cases = list(cases)
            self.endResetModel()
        elif cases:
            self._cases = list(cases)
            self.dataChanged.emit(self.index(0, 0), self.index(len(cases) - 1, len(COLUMNS) - 1))

    def case(self, line: int) -> ProjectCase | None:
        """The case in a row."""
        return self._cases[line] if 0 <= line < len(self._cases) else None

    def line(self, case: ProjectCase | None) -> int:
        """The row of a case; -1 if it is not shown."""
        return next((line for line, shown in enumerate(self._cases) if shown is case), -1)

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """How many cases are shown."""
        return 0 if parent is not None and parent.isValid() else len(self._cases)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """How many columns there are."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802
        """The heading of a column and its tooltip."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        heading, tip = _HEADINGS[COLUMNS[section]]
        return {int(Qt.ItemDataRole.DisplayRole): heading, int(Qt.ItemDataRole.ToolTipRole): tip}.get(int(role))

    def flags(self, index: QModelIndex) -> Any:
        """Rows are selected; only "done" can be changed."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == DONE and not self._work.read_only:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """What a cell shows."""
        case = self.case(index.row())
        if case is None:
            return None
        column = COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(case, column)
        if role == Qt.ItemDataRole.TextAlignmentRole and column not in ("name", "done"):
            return Qt.AlignmentFlag.AlignCenter
        if role == Qt.ItemDataRole.DecorationRole and column == "name":
            return self._icon(case)
        if role == Qt.ItemDataRole.FontRole and case is self._work.case:
            bold = QFont()
            bold.setBold(True)
            return bold
        if role == Qt.ItemDataRole.CheckStateRole and column == "done":
            return Qt.CheckState.Checked if case.is_done else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tip(case)
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = 0) -> bool:  # noqa: N802
        """Tick or untick a case."""
        case = self.case(index.row())
        if case is None or role != Qt.ItemDataRole.CheckStateRole or index.column() != DONE:
            return False
        self._work.set_done(case, done=Qt.CheckState(value) == Qt.CheckState.Checked)
        self.dataChanged.emit(index, index)
        return True

    def _text(self, case: ProjectCase, column: Column) -> str:
        status = self._work.status(case)
        if column == "name":
            mark = "▶ " if case is self._work.case else ""
            return f"{mark}{case.name}{' (image missing)' if case is self._work.missing else ''}"
        if column == "confidence":
            return "" if status.confidence is None else f"{status.confidence:.0%}"
        counts = {"manual": status.n_manual, "accepted": status.n_accepted, "predicted": status.n_predicted}
        return str(counts[column] or "") if column in counts else ""

    def _tip(self, case: ProjectCase) -> str:
        status = self._work.status(case)
        left = status.n_slices - status.n_manual - status.n_accepted - status.n_predicted
        return (
            f"{case.path}\n{status.n_slices} slices: {status.n_manual} by hand, {status.n_accepted} accepted, "
            f"{status.n_predicted} predicted, {left} without labels. Double-click opens the case."
        )

    def _icon(self, case: ProjectCase) -> QIcon | None:
        thumbnail = self._work.thumbnails.get(case.number)
        if thumbnail is None:
            return None
        known = self._icons.get(case.number)
        if known is None or known[0] is not thumbnail:
            height, width = thumbnail.shape[:2]
            content = thumbnail.tobytes()
            image = QImage(content, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
            known = self._icons[case.number] = thumbnail, QIcon(QPixmap.fromImage(image))
        return known[1]


class CaseTable(QTableView):
    """The table; a click on a heading sorts, a double click opens a case."""

    opened = Signal(object)  # ProjectCase

    def __init__(self, work: ProjectWork) -> None:
        super().__init__()
        self._work = work
        self.cases = CaseTableModel(work, self)
        self.setModel(self.cases)
        self.setIconSize(QSize(SIDE, SIDE))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        rows: Any = self.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(_ROW)
        header: Any = self.horizontalHeader()
        header.setSectionsClickable(True)
        header.setHighlightSections(False)
        header.setSortIndicatorShown(True)
        header.setMinimumSectionSize(20)
        header.setStyleSheet("QHeaderView::section { padding: 2px; font-size: 11px; }")  # the names need the room
        for column in range(len(COLUMNS)):
            header.setSectionResizeMode(
                column, QHeaderView.ResizeMode.Stretch if column == NAME else QHeaderView.ResizeMode.Fixed
            )
            if column != NAME:
                text = _HEADINGS[COLUMNS[column]][0]
                values = (text, "100%") if COLUMNS[column] == "confidence" else (text,)
                widest = max(header.fontMetrics().horizontalAdvance(words) for words in values)
                header.resizeSection(column, widest + _PADDING)
        header.sectionClicked.connect(self._sort)
        self.doubleClicked.connect(self._open)

    def refresh(self) -> None:
        """Show the cases, in their order; the open one is scrolled into view when it changes."""
        header: Any = self.horizontalHeader()
        order = self._work.order
        way = Qt.SortOrder.DescendingOrder if order.descending else Qt.SortOrder.AscendingOrder
        header.setSortIndicator(COLUMNS.index(order.column), way)
        selected = self.selected()
        self.cases.refresh()
        rows = min(max(2, len(order.cases)), _MOST_ROWS)
        self.setFixedHeight(header.sizeHint().height() + rows * _ROW + 2 * self.frameWidth())
        line = self.cases.line(selected)
        if line >= 0 and selected is not self.selected():
            self.selectRow(line)

    def show_case(self, case: ProjectCase | None) -> None:
        """Select a case and scroll to it."""
        line = self.cases.line(case)
        if line >= 0:
            self.selectRow(line)
            self.scrollTo(self.cases.index(line, NAME))

    def selected(self) -> ProjectCase | None:
        """The case in the selected row."""
        selection: Any = self.selectionModel()
        lines = selection.selectedRows()
        return self.cases.case(lines[0].row()) if lines else None

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802
        """Enter opens the selected case."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.selected() is not None:
            self.opened.emit(self.selected())
            return
        super().keyPressEvent(event)

    def _open(self, index: QModelIndex) -> None:
        case = self.cases.case(index.row())
        if case is not None and index.column() != DONE:
            self.opened.emit(case)

    def _sort(self, section: int) -> None:
        order, column = self._work.order, COLUMNS[section]
        order.arrange(column, descending=not order.descending if order.column == column else False)


class AddDialog(QDialog):
    """The cases found in a folder: which of them to add."""

    def __init__(self, additions: Sequence[Addition], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Which cases to add?")
        self._additions = list(additions)
        self.table = QTableWidget(len(self._additions), 4)
        self.table.setHorizontalHeaderLabels(["Case", "Description", "Slices", "Modality"])
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        for line, entry in enumerate(self._additions):
            name = QTableWidgetItem(entry.name if not entry.description else str(entry.path))
            flags: Any = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable
            name.setFlags(flags)  # PyQt5's stubs call this a number
            # A localizer or a single picture is seldom meant.
            is_usual = entry.slices is None or entry.slices > 1
            name.setCheckState(Qt.CheckState.Checked if is_usual else Qt.CheckState.Unchecked)
            name.setToolTip(str(entry.path))
            self.table.setItem(line, 0, name)
            slices = "" if entry.slices is None else str(entry.slices)
            for column, text in enumerate((entry.description, slices, entry.modality), start=1):
                self.table.setItem(line, column, QTableWidgetItem(text))
        self.table.resizeColumnsToContents()
        self.all_button = QPushButton("All")
        self.all_button.clicked.connect(lambda *_: self._tick(Qt.CheckState.Checked))
        self.none_button = QPushButton("None")
        self.none_button.clicked.connect(lambda *_: self._tick(Qt.CheckState.Unchecked))
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(f"{len(self._additions)} series were found. Those with a tick become cases."))
        layout.addWidget(self.table)
        layout.addLayout(row(self.all_button, self.none_button))
        layout.addWidget(ok_and_cancel(self))
        self.resize(720, 420)

    @property
    def chosen(self) -> list[Addition]:
        """The ticked ones."""
        items = [self.table.item(line, 0) for line in range(len(self._additions))]
        return [
            entry
            for entry, item in zip(self._additions, items, strict=True)
            if item is not None and item.checkState() == Qt.CheckState.Checked
        ]

    def _tick(self, state: Any) -> None:
        for line in range(len(self._additions)):
            item = self.table.item(line, 0)
            if item is not None:
                item.setCheckState(state)
