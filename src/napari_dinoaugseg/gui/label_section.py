"""Painting: the slice strip, ways through the slices, the brushes, and what a slice as a whole can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.dialogs import ask_for_file, ask_for_folder
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.masks_offer import MasksOffer
from napari_dinoaugseg.gui.parts import Elided, button, quietly, row
from napari_dinoaugseg.gui.slice_strip import COLOURS, SUGGESTED, SliceStrip
from napari_dinoaugseg.session.labels import Status

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

    from napari_dinoaugseg.gui.controller import Controller

BACKGROUND_BRUSH = -1
_LABEL_FILES = "Labels (*.nii *.nii.gz *.nrrd *.dcm *.tif *.tiff);;All files (*)"


class LabelSection(QWidget):
    """The section "Label"."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self._brush_class = 1  # what the brush goes back to after the eraser
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
        controller.session_changed.connect(self.refresh)
        controller.layers_changed.connect(self.refresh)
        controller.settings_changed.connect(self.refresh)
        controller.tool_changed.connect(self.refresh)
        controller.slice_changed.connect(self._show_picture)
        controller.view_turned.connect(self.refresh)
        self.refresh()

    def _build(self) -> None:
        controller = self.controller
        self.previous_button = button(
            "◀",
            tooltip("Go to the labelled slice before", "previous_labelled"),
            lambda: controller.next_labelled(-1),
        )
        self.next_button = button(
            "▶", tooltip("Go to the next labelled slice", "next_labelled"), lambda: controller.next_labelled(1)
        )
        self.suggested_button = button(
            "Go to suggested",
            tooltip("Go to the slice worth labelling next", "next_suggested"),
            controller.next_suggested,
        )
        self.paint_button = _brush(button("Brush", "Paint the selected class with the mouse", self._paint))
        self.erase_button = _brush(button("Eraser", "Take paint off", self._erase))
        self.background_button = _brush(
            button(
                "Background",
                "Paint background: with scribbles, what you leave unpainted is unknown, so say where nothing is",
                lambda: self._take("paint", BACKGROUND_BRUSH),
            )
        )
        self.brush_size = QSlider(Qt.Orientation.Horizontal)
        self.brush_size.setRange(1, 60)
        self.brush_size.setToolTip("Size of the brush, in pixels ([ and ] change it too)")
        self.brush_size.valueChanged.connect(self._resize)
        self.scribbles = QCheckBox("Scribbles: unpainted means unknown")
        self.scribbles.setToolTip(
            "Off: paint a slice completely, the rest of it is background.\n"
            "On: a few strokes of each class and of the background are enough; applies to slices you begin from now on"
        )
        self.scribbles.toggled.connect(controller.set_scribbles)
        self.empty_button = button(
            "Slice is empty", "Nothing to paint here: label this slice as background", self._mark_empty
        )
        self.clear_button = button(
            "Clear slice", "Take all labels off this slice (Ctrl+Z brings them back)", self._clear
        )
        self.fill_button = button(
            "Fill between",
            "Fill the slices between the labelled ones before and after this one, as a starting point",
            controller.fill_between,
        )
        self.load_button = button(
            "Load labels…",
            "Begin with labels from a file: NIfTI, NRRD or DICOM SEG of this image, or a folder of masks for pictures."
            " What you labelled by hand stays",
            self._load,
        )
        self.restore_button = button(
            "Bring layers back", "Make the layers again that were removed, with all labels", controller.restore_layers
        )
        self.plane_button = button(
            "Back to the plane",
            "Show whole slices again, and paint on them one by one: paint in this view goes across slices",
            controller.back_to_plane,
        )

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 4)
        layout.setSpacing(4)
        layout.addWidget(self.restore_button)
        layout.addWidget(self.masks_offer)
        name = row(self.picture, self.position)
        name.setStretch(0, 1)
        layout.addLayout(name)
        layout.addWidget(self.plane_button)
        layout.addWidget(self.strip)
        layout.addWidget(self.legend)
        ways = row(self.previous_button, QLabel("labelled"), self.next_button, self.suggested_button)
        ways.setStretch(3, 1)
        layout.addLayout(ways)
        layout.addLayout(row(self.paint_button, self.erase_button, self.background_button))
        layout.addLayout(row(QLabel("Brush size"), self.brush_size))
        layout.addWidget(self.scribbles)
        grid = QGridLayout()
        grid.setSpacing(4)
        for column, widget in enumerate((self.empty_button, self.clear_button, self.fill_button)):
            grid.addWidget(widget, 0, column)
        grid.addWidget(self.load_button, 1, 0, 1, 3)
        layout.addLayout(grid)

    # --- showing ----------------------------------------------------------------------------------------------------

    def refresh(self, *_: object) -> None:
        """Show what can be done."""
        controller = self.controller
        layers = controller.layers
        manual = layers.manual if layers is not None else None
        missing = layers is not None and (manual is None or layers.prediction is None or layers.image is None)
        self.restore_button.setVisible(missing)
        self.plane_button.setVisible(layers is not None and not layers.shows_slices)
        for widget in (self.previous_button, self.next_button, self.suggested_button):
            widget.setEnabled(controller.session is not None)
        writable = not controller.read_only
        for widget in (self.empty_button, self.clear_button, self.fill_button, self.load_button, self.scribbles):
            widget.setEnabled(controller.session is not None and writable)
        for widget in (self.paint_button, self.erase_button, self.brush_size):
            widget.setEnabled(manual is not None and writable)
        self.background_button.setVisible(controller.scribbles)
        self.background_button.setEnabled(manual is not None and writable)
        quietly(self.scribbles, lambda: self.scribbles.setChecked(controller.scribbles))
        if controller.selected_class > 0:
            self._brush_class = controller.selected_class
        tool = controller.tools.active
        self.paint_button.setChecked(tool == "brush")
        self.erase_button.setChecked(tool == "eraser")
        self.background_button.setChecked(tool == "background")
        self._show_picture()
        if manual is not None:
            manual.events.brush_size.connect(self._show_size)
            self._show_size()

    def _show_picture(self, *_: object) -> None:
        """The name of the picture in view; slices of a volume have none."""
        session = self.controller.session
        has_names = session is not None and session.study.kind == "pictures"
        for widget in (self.picture, self.position):
            widget.setVisible(has_names)
        if session is not None and has_names:
            here = self.controller.current_slice
            self.picture.show_text(session.study.slice_name(here))
            self.position.setText(f"picture {here + 1} of {session.study.n_slices}")

    def _show_size(self, *_: object) -> None:
        layers = self.controller.layers
        if layers is not None and layers.manual is not None:
            size = round(layers.manual.brush_size)
            quietly(self.brush_size, lambda: self.brush_size.setValue(size))

    # --- doing ------------------------------------------------------------------------------------------------------

    def _paint(self) -> None:
        session = self.controller.session
        numbers = [entry.number for entry in session.labels.classes] if session is not None else []
        self._take("paint", self._brush_class if self._brush_class in numbers or not numbers else numbers[0])

    def _erase(self) -> None:
        """The class stays selected, for the brush to go on with."""
        self._take("erase")

    def _take(self, mode: str, number: int | None = None) -> None:
        layers = self.controller.layers
        if layers is not None and layers.manual is not None:
            self.controller.viewer.layers.selection.active = layers.manual
            layers.manual.mode = mode
        if number is not None:
            self.controller.select_class(number)
        self.refresh()  # a click unlights a button that stays in use

    def _resize(self, size: int) -> None:
        layers = self.controller.layers
        if layers is not None and layers.manual is not None:
            layers.manual.brush_size = size

    def _mark_empty(self) -> None:
        self.controller.mark_empty(self.controller.current_slice)

    def _load(self) -> None:
        session = self.controller.session
        if session is None:
            return
        if session.study.kind == "pictures":
            path = ask_for_folder(self, "labels", "Open a folder of masks")
        else:
            path = ask_for_file(self, "labels", "Open labels", _LABEL_FILES)
        if path is not None:
            self.controller.load_labels(path)

    def _clear(self) -> None:
        self.controller.clear(self.controller.current_slice)


def _brush(made: QPushButton) -> QPushButton:
    made.setCheckable(True)
    return made
