"""Labelling: the brushes and actions on slices, the slice strip, masks beside pictures, and the table of classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPoint, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPolygon
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QColorDialog,
    QGridLayout,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QToolTip,
    QWidget,
)

from napari_dinoaugseg.case.pictures import find_masks_beside
from napari_dinoaugseg.gui.brush_options import BrushSize, PaintOverRow, SmartBrushOptions
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.smart_box import SmartBox
from napari_dinoaugseg.gui.widgets import (
    Elided,
    Inbox,
    ask_for_file,
    ask_for_folder,
    button,
    column,
    confirmed,
    in_background,
    quietly,
    row,
    sentence,
)
from napari_dinoaugseg.gui.words import counted, slice_name
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.pixel_counts import volumes_ml

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.gui.controller import Controller

# Distinct for colour-blind people and in both themes.
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
_MARK = 6  # pixels above and below the cells, for the marks
_BACKGROUND_BRUSH = -1
_LABEL_FILES = "Labels (*.nii *.nii.gz *.nrrd *.dcm *.tif *.tiff);;All files (*)"

NUMBER, COLOUR, NAME, SLICES, VOLUME = range(5)
_ROW = 24  # pixels
_MOST_ROWS = 5


class LabelSection(QWidget):
    """The section "Label"."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.masks_offer = MasksOffer(controller)
        self.picture = Elided()
        self.picture.setObjectName("picture")
        self.position = QLabel()
        self.strip = SliceStrip(controller)
        self.legend = QLabel(
            " ".join(
                f'<span style="color:{colour}">■</span>&nbsp;{word}'
                for word, colour in (
                    ("by hand", COLOURS[Status.MANUAL]),
                    ("accepted", COLOURS[Status.ACCEPTED]),
                    ("predicted", COLOURS[Status.PREDICTED]),
                    ("next", SUGGESTED),
                )
            )
        )
        self.legend.setWordWrap(True)
        self._build()
        self._arrange()
        controller.changed.connect(self._on_change)
        self.refresh()

    def _build(self) -> None:
        controller = self.controller
        self.previous_button = button(
            "◀",
            tooltip("Go to the labelled slice before", "previous_labelled"),
            lambda: controller.view.next_labelled(-1),
        )
        self.next_button = button(
            "▶", tooltip("Go to the next labelled slice", "next_labelled"), lambda: controller.view.next_labelled(1)
        )
        self.suggested_button = button(
            "Go to suggested",
            tooltip("Go to the slice worth labelling next", "next_suggested"),
            controller.view.next_suggested,
        )
        rules = controller.paint_rules
        self.paint_button = _brush(
            button("Brush", "Paint the selected class with the mouse (key: P)", lambda: self._take_brush(smart=False))
        )
        self.smart_button = _brush(
            button(
                "Smart brush",
                tooltip("Paint, inside the brush, only what is like the pixel where the stroke begins", "smart_brush"),
                lambda: self._take_brush(smart=True),
            )
        )
        self.erase_button = _brush(button("Eraser", "Remove paint (key: E)", lambda: self._take("erase")))
        self.polygon_button = _brush(
            button(
                "Polygon",
                "Click the corners of a shape; Enter or a double click fills it, a right click removes the last corner"
                " (key: 3)",
                lambda: self._take("polygon"),
            )
        )
        self.outline_button = button(
            "Outline",
            "With the brush, right-click on the edge of a shape, then move round it, without a button, and back to the"
            " start:\nthe inside is filled. Esc drops it",
            rules.offer_outline,
        )
        self.bucket_button = _brush(
            button("Fill", "Click inside an outline to fill it (key: F)", lambda: self._take("fill"))
        )
        self.background_button = _brush(
            button(
                "Background",
                "Paint background: with scribbles, unpainted pixels are unknown, so mark where nothing is",
                lambda: self._take("paint", _BACKGROUND_BRUSH),
            )
        )
        self.paint_over = PaintOverRow(controller)
        self.smart_options = SmartBrushOptions(controller)
        self.brush_size = BrushSize(controller)
        self.scribbles = QCheckBox("Scribbles: unpainted means unknown")
        self.scribbles.setToolTip(
            "Off: paint a slice completely, the rest of it is background.\n"
            "On: a few strokes of each class and of the background are enough; applies to slices you begin from now on"
        )
        self.scribbles.toggled.connect(controller.labels.set_scribbles)
        self.smart_box = SmartBox(controller)
        self.empty_button = button(
            "Slice is empty", "Nothing to paint here: label this slice as background", self._mark_empty
        )
        self.clear_button = button("Clear slice", "Remove all labels of this slice (Ctrl+Z undoes it)", self._clear)
        self.fill_button = button(
            "Fill between",
            "Fill the slices between the labelled ones before and after this one, as a starting point:\n"
            "with the model's masks where it is sure of them, by interpolation elsewhere",
            controller.labels.fill_between,
        )
        self.fill_all_button = button(
            "Fill all gaps",
            "Fill all slices between the first and the last one that is painted as a whole",
            controller.labels.fill_every_gap,
        )
        self.load_button = button(
            "Load labels…",
            "Begin with labels from a file: NIfTI, NRRD, DICOM SEG or RTSTRUCT of this image; for pictures a folder of "
            "masks, or with annotations of COCO or LabelMe (JSON). What you labelled by hand stays",
            self._load,
        )
        self.restore_button = button(
            "Bring layers back",
            "Restore layers that were removed, with all labels",
            controller.view.restore_layers,
        )
        self.plane_button = button(
            "Back to the plane",
            "Show whole slices again, and paint on them one by one: paint in this view goes across slices",
            controller.view.back_to_plane,
        )

    def _arrange(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(4)
        for number, widget in enumerate((self.empty_button, self.clear_button, self.fill_button)):
            grid.addWidget(widget, 0, number)
        grid.addWidget(self.load_button, 1, 0, 1, 2)
        grid.addWidget(self.fill_all_button, 1, 2)
        column(
            self,
            self.restore_button,
            self.masks_offer,
            row(self.picture, self.position, stretch=0),
            self.plane_button,
            self.strip,
            self.legend,
            row(self.previous_button, QLabel("labelled"), self.next_button, self.suggested_button, stretch=3),
            row(self.paint_button, self.smart_button, self.erase_button, self.background_button),
            row(self.polygon_button, self.outline_button, self.bucket_button),
            self.paint_over,
            self.smart_options,
            self.brush_size,
            self.smart_box,
            self.scribbles,
            grid,
        )

    # --- showing ----------------------------------------------------------------------------------------------------

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.LAYERS | Change.SETTINGS | Change.TOOL | Change.VIEW):
            self.refresh()
        elif what & Change.SLICE:
            self._show_picture()

    def refresh(self) -> None:
        """Show the state of the tools and enable the buttons."""
        controller = self.controller
        layers = controller.layers
        manual = layers.manual if layers is not None else None
        missing = layers is not None and (manual is None or layers.prediction is None or layers.image is None)
        self.restore_button.setVisible(missing)
        self.plane_button.setVisible(layers is not None and not layers.shows_slices)
        for widget in (self.previous_button, self.next_button, self.suggested_button):
            widget.setEnabled(controller.session is not None)
        writable = not controller.read_only
        filling = (self.fill_button, self.fill_all_button)
        for widget in (self.empty_button, self.clear_button, *filling, self.load_button, self.scribbles):
            widget.setEnabled(controller.session is not None and writable)
        for widget in (
            self.paint_button,
            self.smart_button,
            self.erase_button,
            self.polygon_button,
            self.outline_button,
            self.bucket_button,
        ):
            widget.setEnabled(manual is not None and writable)
        self.outline_button.setVisible(manual is None or controller.paint_rules.has_outline)
        self.background_button.setVisible(controller.labels.scribbles or controller.smart.is_on)
        self.background_button.setEnabled(manual is not None and writable)
        quietly(self.scribbles, lambda: self.scribbles.setChecked(controller.labels.scribbles))
        tool = controller.tools.active
        self.paint_button.setChecked(tool == "brush")
        self.smart_button.setChecked(tool == "smart brush")
        self.erase_button.setChecked(tool == "eraser")
        self.polygon_button.setChecked(tool == "polygon")
        self.bucket_button.setChecked(tool == "fill")
        self.background_button.setChecked(tool == "background")
        self._show_picture()

    def _show_picture(self) -> None:
        """Show the name of the picture in view; slices of a volume have none."""
        session = self.controller.session
        has_names = session is not None and session.case.kind == "pictures"
        for widget in (self.picture, self.position):
            widget.setVisible(has_names)
        if session is not None and has_names:
            here = self.controller.current_slice
            self.picture.show_text(slice_name(session.case, here))
            self.position.setText(f"picture {here + 1} of {session.case.n_slices}")

    # --- doing ------------------------------------------------------------------------------------------------------

    def _take_brush(self, *, smart: bool) -> None:
        self.controller.paint_rules.take_brush(smart=smart)
        self.refresh()  # a click unchecks a button even if its tool stays in use

    def _take(self, mode: str, number: int | None = None) -> None:
        self.controller.paint_rules.take(mode, number, smart=False if number is not None else None)
        self.refresh()

    def _mark_empty(self) -> None:
        self.controller.labels.mark_empty(self.controller.current_slice)

    def _load(self) -> None:
        session = self.controller.session
        if session is None:
            return
        if session.case.kind == "pictures":
            path = ask_for_folder(self, "labels", "Open a folder of masks")
        else:
            path = ask_for_file(self, "labels", "Open labels", _LABEL_FILES)
        if path is not None:
            self.controller.jobs.load_labels(path)

    def _clear(self) -> None:
        self.controller.labels.clear(self.controller.current_slice)


def _brush(made: QPushButton) -> QPushButton:
    made.setCheckable(True)
    return made


class SliceStrip(QWidget):
    """One cell for each slice, coloured by its status, the first slice on the left; a click shows the slice."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setMouseTracking(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.statuses: list[Status] = []
        self.suggested: int | None = None
        controller.changed.connect(self._on_change)
        self.refresh()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """The preferred size; the width expands."""
        return QSize(240, 34)

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.LABELS | Change.PREDICTIONS | Change.WORK):
            self.refresh()
        elif what & Change.SLICE:
            self.update()

    def refresh(self) -> None:
        """Read the status of every slice."""
        session = self.controller.session
        self.statuses = [session.labels.status(i) for i in range(session.case.n_slices)] if session is not None else []
        # The suggestion is not updated while masks arrive, because it would change all the time.
        if session is None or not session.labels.labelled:
            self.suggested = None
        elif not (self.controller.jobs.busy or self.controller.live.learns):
            found = self.controller.view.suggestion()
            self.suggested = found.index if found is not None else None
        self.update()

    def slice_at(self, x: float) -> int | None:
        """The slice whose cell is at a horizontal position in the widget."""
        count = len(self.statuses)
        return min(max(int(x / max(1, self.width()) * count), 0), count - 1) if count else None

    # --- Qt ---------------------------------------------------------------------------------------------------------

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw cells, then marks."""
        painter = QPainter(self)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        if not self.statuses:
            painter.setPen(text)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "one cell per slice, once a case is open")
            return
        width = self.width() / len(self.statuses)
        gap = 1.0 if width >= 4 else 0.0
        top, height = float(_MARK), float(self.height() - 2 * _MARK)
        for index, status in enumerate(self.statuses):
            cell = QRectF(index * width, top, max(width - gap, 1.0), height)
            if status is Status.EMPTY:  # a lower cell, so that labelled slices stand out
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
        """Show the slice under the mouse."""
        self._jump(event)

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Show a tooltip for the slice under the mouse, and with the button down the slice itself."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._jump(event)
        index = self.slice_at(event.pos().x())
        session = self.controller.session
        if index is not None and session is not None:
            extra = ", suggested next" if index == self.suggested else ""
            confidence = session.labels.confidence.get(index)
            if confidence is not None and self.statuses[index] is Status.PREDICTED:
                extra = f", confidence {confidence:.0%}{extra}"
            words = f"{slice_name(session.case, index)}: {WORDS[self.statuses[index]]}{extra}"
            QToolTip.showText(self.mapToGlobal(event.pos()), words, self)

    def _jump(self, event: Any) -> None:
        index = self.slice_at(event.pos().x())
        if index is not None:
            self.controller.view.go_to(index)


class MasksOffer(QWidget):
    """Offers to load masks found beside the pictures of the case, while nothing is labelled."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.place: Path | None = None
        self._case: Case | None = None
        self.text = sentence()
        self.load_button = button("Load them", "Use these masks as labels; Ctrl+Z undoes it", self._load)
        self.dismiss_button = button("No", "Begin without them; 'Load labels…' finds them later", self._dismiss)
        self.setLayout(row(self.text, self.load_button, self.dismiss_button, stretch=0))
        self._found = Inbox(self._on_found, self)
        controller.changed.connect(self._on_change)
        self._look()

    def _on_change(self, what: Change) -> None:
        if what & Change.SESSION:
            self._look()
        elif what & (Change.LABELS | Change.SAVED_SESSIONS | Change.WORK):
            self._refresh()

    def _look(self) -> None:
        """Search beside the pictures of a new case, in the background because network drives may be slow."""
        session = self.controller.session
        case = session.case if session is not None else None
        if case is not self._case:
            self._case, self.place = case, None
            if case is not None and case.kind == "pictures":
                in_background(partial(self._search, case), "look-for-masks")
        self._refresh()

    def _search(self, case: Case) -> None:
        self._found.send(case, find_masks_beside(case))

    def _on_found(self, case: Case, place: Path | None) -> None:
        if case is self._case:
            self.place = place
            self._refresh()

    def _refresh(self) -> None:
        controller = self.controller
        session = controller.session
        wanted = self.place is not None and session is not None and not session.labels.labelled
        # The offer of saved labels, shown above, comes first.
        self.setVisible(wanted and not controller.read_only and not controller.sessions.offers)
        self.load_button.setEnabled(not controller.jobs.busy)
        if self.place is not None:
            self.text.setText(f"Masks seem to lie beside these pictures, in {self.place.name}.")
            self.text.setToolTip(str(self.place))

    def _load(self) -> None:
        if self.place is not None:
            self.controller.jobs.load_labels(self.place)

    def _dismiss(self) -> None:
        self.place = None
        self._refresh()


class ClassesSection(QWidget):
    """The section "Classes"."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
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
        for number, width in ((NUMBER, 36), (COLOUR, 28), (SLICES, 48), (VOLUME, 58)):
            header.setSectionResizeMode(number, QHeaderView.ResizeMode.Fixed)
            self.table.setColumnWidth(number, width)
        self.table.itemSelectionChanged.connect(self._select)
        self.table.itemChanged.connect(self._rename)
        self.table.cellDoubleClicked.connect(self._recolour)
        self.add_button = button("Add class", "Add a class to paint", self._add)
        self.remove_button = button("Remove", "Remove the selected class; asks when it is painted", self._remove)
        column(self, self.table, row(self.add_button, self.remove_button), spacing=None)
        controller.changed.connect(self._on_change)
        self.refresh()

    # --- showing ----------------------------------------------------------------------------------------------------

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.CLASSES | Change.LABELS | Change.PREDICTIONS):
            self.refresh()
        elif what & Change.SELECTION:
            self._show_selected()

    def refresh(self) -> None:
        """Show the classes, and how many slices and how much volume they cover."""
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
        counts = session.pixel_counts
        slices, pixels = counts.labelled_slices(session.labels), counts.total(session.labels)
        volumes = volumes_ml(session.case, pixels)
        self.table.horizontalHeaderItem(VOLUME).setText("ml" if volumes is not None else "pixels")
        self.table.setRowCount(len(session.labels.classes))
        for line, entry in enumerate(session.labels.classes):
            amount = (
                f"{volumes.get(entry.number, 0.0):.1f}" if volumes is not None else f"{pixels.get(entry.number, 0)}"
            )
            texts = (str(entry.number), "", entry.name, str(slices.get(entry.number, 0)), amount)
            for place, text in enumerate(texts):
                item = self.table.item(line, place)
                if item is None:
                    item = QTableWidgetItem()
                    self.table.setItem(line, place, item)
                if place != NAME:
                    item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                if place in (SLICES, VOLUME):
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                if item.text() != text:
                    item.setText(text)
            self._show_colour(line, entry.colour)

    def _show_colour(self, line: int, colour: str) -> None:
        # A widget, because napari's style sheet hides the background of table items.
        patch = self.table.cellWidget(line, COLOUR)
        if patch is None:
            patch = QWidget()
            patch.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            self.table.setCellWidget(line, COLOUR, patch)
        patch.setStyleSheet(f"background-color: {colour}; margin: 4px; border-radius: 3px;")

    def _show_selected(self) -> None:
        numbers = self._numbers()
        selected = self.controller.labels.selected_class
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
        if number is not None and number != self.controller.labels.selected_class:
            self.controller.labels.select_class(number)

    def _add(self) -> None:
        self.controller.labels.add_class()

    def _rename(self, item: QTableWidgetItem) -> None:
        numbers = self._numbers()
        if item.column() == NAME and item.row() < len(numbers):
            self.controller.labels.rename_class(numbers[item.row()], item.text())

    def _recolour(self, line: int, column: int) -> None:
        session = self.controller.session
        if column != COLOUR or session is None or line >= len(session.labels.classes):
            return
        entry = session.labels.classes[line]
        colour = QColorDialog.getColor(QColor(entry.colour), self, f"Colour of {entry.name}")
        if colour.isValid():
            self.controller.labels.recolour_class(entry.number, colour.name())

    def _remove(self) -> None:
        number = self._selected_number()
        session = self.controller.session
        if number is None or session is None:
            return
        name = next(entry.name for entry in session.labels.classes if entry.number == number)
        painted = self.controller.labels.class_holds_paint(number)
        if painted and not self._may_erase(name, len(painted)):
            return
        self.controller.labels.remove_class(number, erase=bool(painted))

    def _may_erase(self, name: str, count: int) -> bool:
        text = (
            f"{name} is painted on {counted(count, 'slice')}. Remove the class and erase that paint? Ctrl+Z undoes it."
        )
        return confirmed(self, "Remove a class that is painted?", text)


def _table() -> Any:
    """A table without a declared type, because in PyQt's stubs every part of a table may be None."""
    return QTableWidget(0, 5)
