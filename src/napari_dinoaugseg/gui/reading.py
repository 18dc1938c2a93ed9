"""What is read off the window: which slice is in view, where the cursor is in the patient, how long a centimetre is.

In the window slices are counted from 1, as people do: on the canvas, on napari's slider, in the status bar and in every
sentence of the panel, so that a slice has one number. Files, reports and the command count from 0.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from qtpy.compat import isalive
from qtpy.QtCore import QTimer

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.gui.canvas import label_canvas, scale_bar, slice_sliders
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.words import noun_of, slice_name
from napari_dinoaugseg.session.labels import BACKGROUND

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

SLICE_LABEL = "dinoaugseg_slice"
"""The name of the label that shows the slice in view."""
_LETTERS = (("R", "L"), ("A", "P"), ("H", "F"))  # of positive and negative coordinates
_LONGEST = 40  # letters of a name on the canvas


def in_view(case: Case, index: int) -> str:
    """The slice in view, for the canvas: ``slice 9 of 16``, or the name of a picture and its number."""
    number = f"{noun_of(case)} {index + 1} of {case.n_slices}"
    if case.kind == "volume":
        return number
    name = slice_name(case, index)
    return f"{name if len(name) <= _LONGEST else f'{name[: _LONGEST - 1]}…'}  ({number})"


def position_in_words(case: Case, index: int, row: float, column: float) -> str:
    """Where a place on a slice lies: in the patient if the file tells, else from the top left pixel.

    Args:
        case: of the slice.
        index: the slice.
        row: in pixels; the centre of the first one is 0.
        column: likewise.

    Returns:
        As ``R 12.3  A 40.1  H 88.0 mm``, ``x 12.3  y 40.1 mm``, or ``x 31  y 102 px``.
    """
    placed = case.patient_position(index, row, column)
    if placed is not None:
        axes = zip(placed, _LETTERS, strict=True)
        return "  ".join(f"{letters[value < 0]} {abs(value):.1f}" for value, letters in axes) + " mm"
    spacing = case.slice_spacing(index)
    if spacing is not None:
        return f"x {column * spacing[1]:.1f}  y {row * spacing[0]:.1f} mm"
    return f"x {round(column)}  y {round(row)} px"


class Reading:
    """Shows the slice in view on the canvas, the place under the cursor in the status bar, and a scale bar.

    napari's sliders count from 1 as long as a case is open.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._layers: list[Layer] = []  # whose status is ours
        self._sliders: list[Any] = []
        self._bar_before: bool | None = None  # whether the scale bar was visible before the first case
        controller.viewer.dims.events.ndim.connect(self._on_axes)

    def follow(self, what: Change) -> None:
        """Follow the slice, the case and its layers."""
        if what & (Change.SESSION | Change.LAYERS):
            self._follow_layers()
            self._count_sliders()
            self._show_bar()
        if what & (Change.SESSION | Change.SLICE | Change.VIEW):
            self._show_slice()

    def dispose(self) -> None:
        """End with the viewer, or with the case."""
        self._release()
        self.controller.viewer.dims.events.ndim.disconnect(self._on_axes)

    # --- the canvas -------------------------------------------------------------------------------------------------

    def _show_slice(self) -> None:
        session, layers = self.controller.session, self.controller.layers
        text = in_view(session.case, self.controller.current_slice) if session is not None else ""
        sequence = self.controller.view.sequences.name
        text = f"{sequence}   {text}" if sequence else text
        shown = layers is not None and layers.shows_slices
        label_canvas(self.controller.viewer, SLICE_LABEL, text if shown else "")

    def _show_bar(self) -> None:
        """Show the scale bar with the first case; from then on the person decides."""
        bar = scale_bar(self.controller.viewer)
        if bar is None:
            return
        if self.controller.session is not None and self._bar_before is None:
            self._bar_before, bar.visible = bool(bar.visible), True
        elif self.controller.session is None and self._bar_before is not None:
            bar.visible, self._bar_before = self._bar_before, None

    # --- the status bar ---------------------------------------------------------------------------------------------

    def _follow_layers(self) -> None:
        layers = self.controller.layers
        ours = layers.own if layers is not None else []
        for layer in self._layers:
            if layer not in ours:
                vars(layer).pop("get_status", None)
        self._layers = ours
        for layer in ours:
            layer.get_status = partial(self._status, layer)

    def _status(self, layer: Layer, position: Any = None, **options: Any) -> dict[str, str]:
        """What napari shows of a position in the world; called in a thread of napari, and only reads."""
        status: dict[str, str] = type(layer).get_status(layer, position, **options)
        place = self.place_of(position) if options.get("world") else None
        session = self.controller.session
        if place is None or session is None:
            return status
        index, row, column = place
        words = [slice_name(session.case, index), position_in_words(session.case, index, row, column)]
        words += self._values(position, options)
        return {**status, "coordinates": "   ".join(words)}

    def place_of(self, position: Any) -> tuple[int, float, float] | None:
        """The slice, row and column of a position in the world; None outside the case, and in 3-D."""
        session, layers = self.controller.session, self.controller.layers
        placed = layers.manual or layers.prediction if layers is not None else None
        viewer = self.controller.viewer
        if session is None or layers is None or placed is None or position is None:
            return None
        if viewer.dims.ndisplay != 2 or len(position) < placed.ndim:
            return None
        found = np.asarray(placed.world_to_data(position), dtype=float)[-3:]
        index = int(np.round(found[layers.axis]))
        row, column = (float(value) for value in np.delete(found, layers.axis))
        if not 0 <= index < session.case.n_slices:
            return None
        height, width = session.case.slice_shape(index)
        inside = -0.5 <= row <= height - 0.5 and -0.5 <= column <= width - 0.5
        return (index, row, column) if inside else None

    def _values(self, position: Any, options: dict[str, Any]) -> list[str]:
        """The value of the image at a position, and the classes there that are visible."""
        session, layers = self.controller.session, self.controller.layers
        if session is None or layers is None:
            return []
        asked: dict[str, Any] = {
            name: options[name] for name in ("view_direction", "dims_displayed", "world") if name in options
        }
        words = []
        if layers.image is not None:
            value = layers.image.get_value(position, **asked)
            words += [] if value is None else [_number(value)]
        names = {entry.number: entry.name for entry in session.labels.classes} | {BACKGROUND: "background"}
        for layer, what in ((layers.manual, ""), (layers.prediction, " (predicted)")):
            number = _label_at(layer, position, asked)
            words += [f"{names.get(number, f'class {number}')}{what}"] if number else []
        return words

    # --- the sliders ------------------------------------------------------------------------------------------------

    def _on_axes(self, *_: object) -> None:
        """Napari makes new sliders for other axes, after this event."""
        QTimer.singleShot(0, self._count_sliders)

    def _count_sliders(self) -> None:
        """Let the sliders count from 1 while a case is open."""
        if self.controller.closed:
            return
        if self.controller.session is None:
            self._release_sliders()
            return
        self._sliders = [slider for slider in self._sliders if isalive(slider)]  # type: ignore[no-untyped-call]
        for slider in slice_sliders(self.controller.viewer):
            if slider not in self._sliders:
                self._sliders.append(slider)
                slider.curslice_label.editingFinished.disconnect(slider._set_slice_from_label)
                slider._update_slice_labels = partial(_number_slider, slider)
                slider._set_slice_from_label = partial(_slide_to_number, slider)
                slider.curslice_label.editingFinished.connect(slider._set_slice_from_label)
            if slider.axis < slider.dims.ndim:
                slider._update_slice_labels()

    def _release_sliders(self) -> None:
        sliders, self._sliders = self._sliders, []
        for slider in sliders:
            if not isalive(slider):  # type: ignore[no-untyped-call]
                continue
            slider.curslice_label.editingFinished.disconnect(slider._set_slice_from_label)
            for name in ("_update_slice_labels", "_set_slice_from_label"):
                vars(slider).pop(name, None)
            slider.curslice_label.editingFinished.connect(slider._set_slice_from_label)
            if slider.axis < slider.dims.ndim:
                slider._update_range()

    def _release(self) -> None:
        self._release_sliders()
        for layer in self._layers:
            vars(layer).pop("get_status", None)
        self._layers = []


def _number(value: Any) -> str:
    """A value of the image: ``-57``, ``0.25``, or the three of a colour."""
    if np.ndim(value):
        return " ".join(_number(part) for part in np.atleast_1d(value))
    return f"{float(value):.4g}" if isinstance(value, np.floating | float) else str(int(value))


def _label_at(layer: Labels | None, position: Any, asked: dict[str, Any]) -> int:
    if layer is None or not layer.visible:
        return 0
    value = layer.get_value(position, **asked)
    return 0 if value is None else int(value)


def _number_slider(slider: Any) -> None:
    """Show the position of a napari slider, and how many there are, counted from 1."""
    count = int(slider.dims.nsteps[slider.axis])
    slider.curslice_label.setText(str(slider.dims.current_step[slider.axis] + 1))
    slider.totslice_label.setText(str(count))
    needed = slider.curslice_label.fontMetrics().boundingRect("8" * (len(str(count)) + 1)).width()
    for label in (slider.curslice_label, slider.totslice_label):
        if label.maximumWidth() < needed:  # napari makes room for the digits of one slice less
            label.setFixedWidth(needed)


def _slide_to_number(slider: Any) -> None:
    """Show the slice whose number, from 1, was typed beside a napari slider."""
    count = int(slider.dims.nsteps[slider.axis])
    step = min(max(int(slider.curslice_label.text() or 1), 1), count) - 1
    slider.curslice_label.clearFocus()
    slider.qt_dims.setFocus()
    slider.dims.set_current_step(slider.axis, step)
    _number_slider(slider)
