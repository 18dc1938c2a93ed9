"""The section "Measure": the tools of the ruler, and the list of measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.ruler import value_in_words
from napari_dinoaugseg.gui.widgets import ask_where_to_save, button, column, confirmed, quietly, row, sentence
from napari_dinoaugseg.gui.words import slice_name
from napari_dinoaugseg.session.measures import write_measures

if TYPE_CHECKING:
    from napari_dinoaugseg.case.measure import Measure
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

_HEIGHT = 110  # pixels of the list


class MeasureSection(QWidget):
    """The section "Measure"."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.distance_button = button(
            "Distance", tooltip("Drag from end to end", "ruler"), lambda: self._take("distance")
        )
        self.angle_button = button(
            "Angle", tooltip("Click an end, the vertex, and the other end", "angle"), lambda: self._take("angle")
        )
        for tool in (self.distance_button, self.angle_button):
            tool.setCheckable(True)
        self.axis_button = button(
            "Long axis",
            "The largest diameter of the selected class on this slice, painted or predicted; of several parts the"
            " largest one",
            controller.ruler.measure_class,
        )
        self.list = QListWidget()
        self.list.setFixedHeight(_HEIGHT)
        self.list.setToolTip("Click one to go to its slice. Measures are saved with the labels")
        self.list.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        self.list.itemClicked.connect(self._go)
        self.remove_button = button("Remove", "Remove the selected measures", self._remove)
        self.table_button = button(
            "Save as CSV…",
            "A table of all measures of this case, in which slices are counted from 0; the report lists them too",
            self.save_table,
        )
        self.result = sentence()
        self.result.hide()
        column(
            self,
            row(self.distance_button, self.angle_button, self.axis_button),
            self.list,
            row(self.remove_button, self.table_button),
            self.result,
        )
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.MEASURES | Change.LAYERS | Change.CLASSES | Change.SAVED_SESSIONS):
            self.refresh()

    def refresh(self) -> None:
        """Show the measures of the case, by slice, and the tool in use."""
        controller = self.controller
        session, tool = controller.session, controller.ruler.tool
        writable = session is not None and controller.layers is not None and not controller.read_only
        for widget in (self.distance_button, self.angle_button, self.axis_button):
            widget.setEnabled(writable)
        self.distance_button.setChecked(tool == "distance")
        self.angle_button.setChecked(tool == "angle")
        measures = [] if session is None else sorted(session.measures, key=lambda one: one.index)
        if session is not None:
            quietly(self.list, lambda: self._fill(session, measures))
        else:
            self.list.clear()
        self.remove_button.setEnabled(writable and bool(measures))
        self.table_button.setEnabled(bool(measures))

    def _fill(self, session: Session, measures: list[Measure]) -> None:
        names = {entry.number: entry.name for entry in session.labels.classes}
        self.list.clear()
        for measure in measures:
            what = "" if measure.kind == "distance" else f"{measure.kind} "
            if measure.kind == "long axis":
                what = f"{names.get(measure.number, f'class {measure.number}')}, long axis "
            item = QListWidgetItem(
                f"{slice_name(session.case, measure.index)}: {what}{value_in_words(measure, session)}"
            )
            item.setData(Qt.ItemDataRole.UserRole, measure)
            self.list.addItem(item)

    def _take(self, tool: str) -> None:
        self.controller.ruler.take("angle" if tool == "angle" else "distance")
        self.refresh()  # a click checks a button even if the ruler was put down

    def _go(self, item: QListWidgetItem) -> None:
        self.controller.view.go_to(item.data(Qt.ItemDataRole.UserRole).index)

    def _remove(self) -> None:
        self.controller.ruler.remove([item.data(Qt.ItemDataRole.UserRole) for item in self.list.selectedItems()])

    @guarded
    def save_table(self) -> None:
        """Write the measures as CSV."""
        session = self.controller.session
        if session is None:
            return
        folder = session.case.path.parent if session.case.path.is_absolute() else None
        answer = ask_where_to_save(self, "report", "Save the measures", "measures.csv", "CSV (*.csv)", beside=folder)
        if answer is None:
            return
        path = answer[0] if answer[0].suffix else answer[0].with_suffix(".csv")
        if path.exists() and not confirmed(self, "Replace the file?", f"{path} already exists. Replace it?"):
            return
        write_measures(path, session)
        self.result.setText(f"Written: {path}")
        self.result.show()
