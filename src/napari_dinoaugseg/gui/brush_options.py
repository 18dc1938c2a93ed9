"""The options of the painting tools: what paint goes over, the smart brush, and the size of the brush."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QLabel, QSlider, QWidget

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.widgets import choice, column, quietly, row, sentence
from napari_dinoaugseg.session.paint_rules import PaintOver, brush_extent, size_of_extent

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers

_STEPS_OF_TOLERANCE = 4  # of the slider, for each multiple of the local contrast
_LARGEST_TOLERANCE = 10
_BOX = 104  # pixels: the width of a number between napari's wide buttons
_LARGEST_BRUSH = 999  # pixels; the slider ends before


class PaintOverRow(QWidget):
    """What paint may replace."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self._rules: list[PaintOver] = []
        self.choice = choice(
            [],
            "What the brush, the eraser, the fill bucket, the polygon and the outline may change.\n"
            "Only what is free: finished classes are safe, and the eraser removes the selected class only"
            " (napari's key B).\nOnly a class: paint inside it, and nothing else changes",
        )
        self.choice.currentIndexChanged.connect(self._choose)
        self.setLayout(row(QLabel("Paint over"), self.choice, stretch=1))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.CLASSES | Change.TOOL | Change.SETTINGS | Change.LAYERS):
            self.refresh()

    def refresh(self) -> None:
        """Show the classes to choose from, and the rule."""
        controller = self.controller
        rules = [PaintOver(), PaintOver("free")]
        names = ["everything", "only what is free"]
        for entry in controller.session.labels.classes if controller.session is not None else ():
            rules.append(PaintOver("class", entry.number))
            plain = f"class {entry.number}"
            names.append(f"only {entry.name}" if entry.name == plain else f"only {plain}: {entry.name}")
        self._rules = rules
        quietly(self.choice, lambda: self._fill(names, rules))
        layers = controller.layers
        self.setEnabled(layers is not None and layers.manual is not None and not controller.read_only)

    def _fill(self, names: list[str], rules: list[PaintOver]) -> None:
        if [self.choice.itemText(place) for place in range(self.choice.count())] != names:
            self.choice.clear()
            self.choice.addItems(names)
        over = self.controller.paint_rules.over
        self.choice.setCurrentIndex(rules.index(over) if over in rules else 0)

    def _choose(self, place: int) -> None:
        if 0 <= place < len(self._rules):
            self.controller.paint_rules.paint_over(self._rules[place])


class SmartBrushOptions(QWidget):
    """The tolerance and the intensity range of the smart brush; hidden while another tool is in use."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.tolerance = QSlider(Qt.Orientation.Horizontal)
        self.tolerance.setRange(1, _LARGEST_TOLERANCE * _STEPS_OF_TOLERANCE)
        self.tolerance.valueChanged.connect(self._set_tolerance)
        self.limited = QCheckBox("Only intensities")
        self.limited.setToolTip(
            "Paint only where the image is within this range, in the values of the file (HU in a CT; the mean of the"
            " channels in a colour image).\nIt also holds inside an outline that you draw with the smart brush"
        )
        self.limited.toggled.connect(self._limit)
        self.low, self.high = QDoubleSpinBox(), QDoubleSpinBox()
        for box, words in ((self.low, "Lowest"), (self.high, "Highest")):
            box.setRange(-1e7, 1e7)
            box.setKeyboardTracking(False)
            box.setToolTip(f"{words} intensity to paint in")
            box.setFixedWidth(_BOX)  # the largest number of its range would widen the panel
            box.valueChanged.connect(self._set_limits)
        column(
            self,
            row(QLabel("Tolerance"), self.tolerance, stretch=1),
            row(self.limited, self.low, QLabel("to"), self.high),
            margins=(0, 0, 0, 0),
        )
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.TOOL | Change.LAYERS):
            self.refresh()

    def refresh(self) -> None:
        """Show the tolerance and the range."""
        controller, rules = self.controller, self.controller.paint_rules
        self.setVisible(controller.tools.active == "smart brush")
        quietly(self.tolerance, lambda: self.tolerance.setValue(round(rules.tolerance * _STEPS_OF_TOLERANCE)))
        self.tolerance.setToolTip(
            "How much a pixel may differ from the one where the stroke begins:"
            f" {rules.tolerance:g} times the local contrast there"
        )
        quietly(self.limited, lambda: self.limited.setChecked(rules.limits is not None))
        for box in (self.low, self.high):
            box.setEnabled(rules.limits is not None)
        self._show_limits()

    def _show_limits(self) -> None:
        low, high = self.controller.paint_rules.limits or self._in_view()
        decimals = 0 if high - low >= 20 else 2 if high - low >= 1 else 4
        for box, value in ((self.low, low), (self.high, high)):
            quietly(box, lambda box=box, value=value: (box.setDecimals(decimals), box.setValue(value)))  # type: ignore[misc]

    def _in_view(self) -> tuple[float, float]:
        """The intensities that the view shows: what the range begins with."""
        layers = self.controller.layers
        if layers is None or layers.image is None or layers.image.rgb:
            return 0.0, 255.0
        low, high = layers.image.contrast_limits
        return float(low), float(high)

    def _set_tolerance(self, value: int) -> None:
        self.controller.paint_rules.set_tolerance(value / _STEPS_OF_TOLERANCE)

    def _limit(self, on: bool) -> None:
        self.controller.paint_rules.set_limits(self._in_view() if on else None)

    def _set_limits(self) -> None:
        if self.limited.isChecked():
            self.controller.paint_rules.set_limits((self.low.value(), self.high.value()))


class BrushSize(QWidget):
    """The size of the brush, in mm where the case has a spacing, else in pixels.

    napari's brush is round in the space of the layer, so along an axis with larger pixels it covers fewer of them. The
    box shows its diameter along the finest axis, the text beside it the pixels along each axis, across before down, and
    a sentence the mm if they differ.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(1, 60)
        self.slider.setToolTip("Size of the brush ([ and ] change it too)")
        self.slider.valueChanged.connect(self._resize)
        self.slider.setMinimumWidth(30)
        self.box = QDoubleSpinBox()
        self.box.setFixedWidth(_BOX)
        self.box.setKeyboardTracking(False)
        self.box.valueChanged.connect(self._measure)
        self.covered = QLabel()
        self.uneven = sentence()
        self._layer: object = None  # whose size is followed
        size = row(QLabel("Brush size"), self.slider, self.box, self.covered, stretch=1)
        column(self, size, self.uneven, margins=(0, 0, 0, 0))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.LAYERS | Change.VIEW | Change.SLICE | Change.TOOL):
            self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the size of the brush on the slice in view."""
        layers = self.controller.layers
        layer = layers.manual if layers is not None else None
        self.setEnabled(layer is not None and not self.controller.read_only)
        if layers is None or layer is None:
            return
        is_new = layer is not self._layer
        if is_new:
            self._layer = layer
            layer.events.brush_size.connect(self.refresh)  # until the layer is gone, which holds this weakly
            layer.events.n_edit_dimensions.connect(self.refresh)
        scale, spacing = self._painted(layers, layer)
        pixels = brush_extent(layer.brush_size, scale)
        finest = min(range(len(scale)), key=lambda place: scale[place])
        unit = spacing[finest] if spacing is not None else 1.0
        size, suffix = round(layer.brush_size), "mm" if spacing is not None else "px"
        quietly(self.slider, lambda: self.slider.setValue(size))
        quietly(self.box, lambda: self._show_size(pixels[finest] * unit, unit, suffix))
        lengths = None if spacing is None else [count * one for count, one in zip(pixels, spacing, strict=True)]
        # The unit stands here because napari's style leaves no room for it in the box.
        self.covered.setText(f"mm, {_covered(pixels)}" if spacing is not None else "px")
        uneven = lengths is not None and max(lengths) > 1.02 * min(lengths)
        self.uneven.setVisible(uneven)
        if lengths is not None and uneven:
            across = _times([f"{length:.3g}" for length in lengths])
            self.uneven.setText(f"The brush covers {across} mm of this view: its pixels are not square.")
        self.box.setToolTip(
            "Diameter of the brush in mm, along the axis with the smallest pixels; it covers an odd number of them"
            if spacing is not None
            else "Diameter of the brush in pixels, an odd number: this case has no spacing"
        )

    def _show_size(self, value: float, unit: float, suffix: str) -> None:
        self.box.setDecimals(0 if suffix == "px" else 1 if unit >= 0.1 else 2 if unit >= 0.01 else 4)
        self.box.setRange(unit if suffix == "px" else 0.0, _LARGEST_BRUSH * unit)
        self.box.setSingleStep(2 * unit)
        self.box.setValue(value)

    def _painted(self, layers: CaseLayers, layer: Labels) -> tuple[list[float], list[float] | None]:
        """Scale of the layer and spacing in mm along the axes that a stroke extends along, the horizontal one first.

        The spacing is None if it is unknown along one of them.
        """
        order = self.controller.viewer.dims.order
        axes = [axis - (len(order) - layer.ndim) for axis in order[-layer.n_edit_dimensions :]][::-1]
        known = _spacing(layers.case, layers.current_slice, layers.axis)
        spacing = [known[axis] for axis in axes]
        scale = [abs(float(layer.scale[axis])) for axis in axes]
        return scale, [one for one in spacing if one is not None] if None not in spacing else None

    def _resize(self, size: int) -> None:
        layers = self.controller.layers
        if layers is not None and layers.manual is not None:
            layers.manual.brush_size = size

    def _measure(self, value: float) -> None:
        """Set the brush to the size nearest to the one that the person asked for."""
        layers = self.controller.layers
        if layers is None or layers.manual is None:
            return
        scale, spacing = self._painted(layers, layers.manual)
        unit = spacing[scale.index(min(scale))] if spacing is not None else 1.0
        layers.manual.brush_size = size_of_extent(value / unit)
        self.refresh()  # also if it is the size that the brush has


def _spacing(case: Case, index: int, axis: int) -> list[float | None]:
    """The distance of pixels in mm along each axis of the layers; None where it is unknown."""
    known: list[float | None] = list(case.slice_spacing(index) or (None, None))
    known.insert(axis, case.slice_distance)
    return known


def _covered(pixels: Sequence[int]) -> str:
    """How many pixels the brush covers: ``11 px``, or ``11 x 5 px`` where they are not square."""
    return f"{pixels[0] if len(set(pixels)) == 1 else _times(pixels)} px"


def _times(values: Sequence[Any]) -> str:
    return " × ".join(str(value) for value in values)
