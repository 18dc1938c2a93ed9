"""The layers of a case in the viewer: their creation, position and colours, and their restoration after removal.

There are three: the image, "manual" (painted and accepted labels), and "prediction" (read-only, on slices without
labels). Two more are created when they are first shown: "confidence", and "proposal" (read-only, the outline of Smart
scribble).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray
from psygnal import Signal

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.gui.canvas import make_brush_circle, one_drawing, scale_bar, steady_sliders
from napari_dinoaugseg.gui.display import (
    AXIS,
    Orientation,
    awaiting_case,
    axis_order,
    case_metadata,
    case_of,
    certainty_colours,
    display_of,
    label_colours,
    letters_ahead,
    no_collection,
    prepare_layers,
    remove_layers,
    remove_letters,
    set_unit,
    stack_shape,
    window_of,
)
from napari_dinoaugseg.gui.outlines import draw_outlines, make_tools_late, outline_width
from napari_dinoaugseg.gui.painting import Painting
from napari_dinoaugseg.gui.widgets import BREATH, single_shot, stop
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.session.labels import BACKGROUND, Changed, new_class
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    import napari


@dataclass(frozen=True)
class Spare:
    """What shows a case that is being closed, or was made while one is read, to be used for another one.

    Removing layers and creating new ones takes napari ten times as long as showing other arrays in them.

    Attributes:
        image, prediction, manual, proposal: layers; None where the case needs a new one.
        orientation: of the case that is shown; None without one.
        is_ahead: whether they were made while a case is read.
        case: that the image shows already, if it was.
        index: of its slice in view.
    """

    image: Image
    prediction: Labels | None = None
    manual: Labels | None = None
    orientation: Orientation | None = None
    proposal: Labels | None = None
    is_ahead: bool = False
    case: Case | None = None
    index: int = 0

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, from bottom to top."""
        made = (self.image, self.prediction, self.manual, self.proposal)
        return tuple(layer for layer in made if layer is not None)


class LayersAhead:
    """The layers of a case that is being read, made one after the other in the meantime.

    napari takes longer to make a layer than to show another array in it, and longest at the first ones of a window.
    The window answers between two of them. The image is in view once it is read; the others, which would delay it, are
    made after that, or while a case is read that takes longer.

    Args:
        viewer: napari's viewer, without layers.
        name: of the case.
        ready: is set when all are made, or none is made any more.

    Attributes:
        viewer: as given.
        image: the layer of the image; None before it is made.
        case: the case in view; of no use before :meth:`show`.
    """

    case: Case

    def __init__(self, viewer: napari.Viewer, name: str, ready: threading.Event) -> None:
        self.viewer, self._name, self._ready = viewer, name, ready
        self.image: Image | None = None
        self._read: tuple[Case, str] | None = None  # a case and its window, to be shown
        self._orientation: Orientation | None = None  # while a case is in view
        self._has_letters = False  # napari takes long to make them
        self._libraries = prepare_layers()
        self._is_drawn = True  # what was made last
        self._others_from = time.monotonic() + _SOON_READ
        self._made: list[Any] = []
        self._colours = label_colours([new_class(1)])
        self._bar_before: bool | None = None  # whether the scale bar was visible
        self._steps = [
            self._make_sliders,
            self._make_image,
            lambda: self._make_labels("prediction", FILLED),
            lambda: self._make_labels("manual", PAINTED),
            *letters_ahead(viewer),
            self._show_letters,
            lambda: make_brush_circle(viewer),
            self._show_bar,
            self._hide_bar,
            ready.set,
        ]
        self._timer = single_shot(self._make_next)
        self._timer.start(0)

    @property
    def own(self) -> list[Layer]:
        """The image, once it is made."""
        return [self.image] if self.image is not None else []

    @property
    def shows_slices(self) -> bool:
        """Whether whole slices are in view: nothing else can be asked for yet."""
        return True

    def show(self, case: Case, window: str) -> None:
        """Show the middle slice of a volume that is read, in a window, while the labels are still to come."""
        self._read = case, window
        if self.image is not None:
            self._show_read()

    def _show_read(self) -> None:
        case, window = self._read or (None, "")
        image, dims = self.image, self.viewer.dims
        if case is None or image is None or image not in self.viewer.layers or case.kind != "volume":
            return
        data, rgb, scale, units = display_of(case)
        if rgb != image.rgb:
            return
        self.case = case
        with one_drawing(self.viewer):
            set_unit(self._made[1:], case)
            _renew(image, data, awaiting_case(), {"scale": scale, "units": units})
            for layer in self._made[1:]:
                layer.scale = scale  # else the slider steps by 1 mm
            image.name = case.name
            limits = window_of(case, window)
            if limits is not None:
                image.reset_contrast_limits_range()
                image.contrast_limits = limits
            axis = AXIS[case.plane]
            dims.order = axis_order(axis)
            self._orientation = Orientation(self, with_letters=self._has_letters)
            self._orientation.begin()
            dims.set_point(axis, case.n_slices // 2 * scale[axis])
            self.viewer.reset_view()

    def take(self) -> Spare | None:
        """Stop, and return what was made; None if nothing was, or if the person removed some of it."""
        self.stop()
        self._hide_bar()
        made, self._made = self._made, []
        if made and all(layer in self.viewer.layers for layer in made):
            orientation, self._orientation = self._orientation, None
            image, prediction, manual = [*made, None, None][:3]
            spare = Spare(image, prediction, manual, orientation, is_ahead=True)
            return spare if orientation is None else replace(spare, case=self.case, index=self._index(image))
        self._remove(made)
        return None

    def discard(self) -> None:
        """Stop, and remove what was made."""
        self.stop()
        self._hide_bar()
        self._remove(self._made)
        if not self.viewer.layers:
            self.viewer.dims.ndim = 2  # as napari does when a layer goes

    def _index(self, image: Image) -> int:
        """The slice in view, where the person may have gone."""
        axis = AXIS[self.case.plane]
        index = round(float(self.viewer.dims.point[axis] / image.scale[axis]))
        return min(max(index, 0), self.case.n_slices - 1)

    def stop(self) -> None:
        """Make no more."""
        stop(self._timer)
        self._ready.set()

    def _remove(self, layers: list[Layer]) -> None:
        if self._orientation is not None:
            self._orientation.end()
            self._orientation = None
        with no_collection():
            remove_layers(self.viewer, layers)
        remove_letters(self.viewer)

    def _make_next(self) -> None:
        """Make one, and let the window draw it before the next, which takes a turn of its own."""
        awaits_case = self.image is not None and self._read is None and time.monotonic() < self._others_from
        if self._is_drawn and not self._libraries.is_alive() and not awaits_case:
            with one_drawing(self.viewer):
                self._steps.pop(0)()
            self._is_drawn = False
        else:
            self._is_drawn = True
        if self._steps:
            self._timer.start(BREATH)

    def _show_letters(self) -> None:
        self._has_letters = True
        if self._orientation is not None:
            self._orientation.show_letters()

    def _show_bar(self) -> None:
        bar = scale_bar(self.viewer)
        if bar is not None:
            self._bar_before, bar.visible = bool(bar.visible), True

    def _hide_bar(self) -> None:
        before, self._bar_before = self._bar_before, None
        if before is not None:
            scale_bar(self.viewer).visible = before

    def _make_sliders(self) -> None:
        self.viewer.dims.ndim = len(_AWAITING)

    def _make_image(self) -> None:
        voxels = np.zeros(_AWAITING, np.int16)
        self.image = self.viewer.add_image(voxels, contrast_limits=(0, 1), **self._about(self._name))
        self._made.append(self.image)
        if self._read is not None:
            self._steps.insert(0, self._show_read)  # in a turn of its own

    def _make_labels(self, name: str, opacity: float) -> None:
        scale = None if self.image is None else self.image.scale
        empty = np.zeros(_AWAITING, np.uint16)
        layer = Labels(empty, colormap=self._colours, opacity=opacity, scale=scale, **self._about(name))
        draw_outlines(layer)
        make_tools_late(layer)
        layer.editable = False
        self._made.append(self.viewer.add_layer(layer))

    @staticmethod
    def _about(name: str) -> dict[str, Any]:
        units, names = ["mm"] * 3, ("slice", "row", "column")
        return {"name": name, "units": units, "axis_labels": names, "metadata": awaiting_case()}


def spare_layers(layers: CaseLayers | None) -> Spare | None:
    """The layers of a case that can show another one; None if some were removed, or an image is the person's own."""
    if layers is None:
        return None
    image, prediction, manual = layers.image, layers.prediction, layers.manual
    if image is None or prediction is None or manual is None:
        return None
    shown = layers.viewer.layers
    ours = case_of(image) is not None and image.ndim == 3 and not image.multiscale
    whole = all(layer in shown for layer in (image, prediction, manual))
    return Spare(image, prediction, manual, layers.orientation, layers.proposal) if ours and whole else None


def _renew(layer: Image | Labels, data: Any, metadata: dict[str, Any], place: Mapping[str, Any]) -> None:
    """Show another array in a layer, in its own place.

    napari draws a layer and arranges the viewer's axes again after each property that is set, here only in the end.
    """
    if isinstance(layer, Labels):
        layer.mode = "pan_zoom"
    units = [str(unit) for unit in place["units"]]
    has_other_units = [str(unit) for unit in layer.units] != units
    not_drawn: Any = getattr(layer, "_block_refresh", nullcontext)  # since napari 0.5
    with layer.events.blocker_all(), not_drawn():
        layer.data = data
        layer.metadata = metadata
        affine = np.asarray(place.get("affine", np.eye(4)))
        if not np.array_equal(np.asarray(layer.affine), affine):
            layer.affine = affine
        for name, value in (("scale", place["scale"]), ("translate", place.get("translate", (0.0, 0.0, 0.0)))):
            if not np.array_equal(getattr(layer, name), value):
                setattr(layer, name, value)
        if has_other_units:
            layer.units = place["units"]
        layer.axis_labels = place.get("axis_labels", layer.axis_labels)
    if layer.visible:
        layer.refresh()
    else:
        layer.visible = True
    layer.events.data(value=layer.data)
    if has_other_units:
        layer.events.units()


def place_of(image: Image | None) -> dict[str, Any]:
    """Scale, translation, units and names of the axes of an image for a layer above it.

    Those of a 2-D image are made for a stack of one slice.
    """
    if image is None:
        return {}
    scale, translate, units = list(image.scale), list(image.translate), list(image.units)
    if len(scale) == 2:
        scale, translate, units = [1.0, *scale], [0.0, *translate], [units[0], *units]
        return {"scale": scale, "translate": translate, "units": units}
    names = tuple(image.axis_labels)
    return {"scale": scale, "translate": translate, "units": units, "affine": image.affine, "axis_labels": names}


def _colours_of(colormap: Any) -> dict[Any, tuple[float, ...]]:
    return {number: tuple(colour) for number, colour in getattr(colormap, "color_dict", {}).items()}


FILLED, OUTLINED, PAINTED = 0.5, 1.0, 0.7
"""The opacity of filled predictions, of those drawn as outlines, and of labels, until the person changes it."""
_AWAITING = (2, 2, 2)  # voxels of layers that wait for a case
_SOON_READ = 1.5  # s within which most cases are read
_NEXT_FRAME = 60  # ms
_UNDO, _REDO = ("Control-Z",), ("Control-Shift-Z", "Control-Y")


class CaseLayers:
    """The layers of one case in one viewer. Used on the GUI thread only.

    Args:
        viewer: napari's viewer.
        session: the case with its label book.
        image: the image layer of the case if it is already in the viewer; None creates one.
        window: the intensity window of the image.
        read_only: whether another window writes this session, so that nothing can be painted.
        spare: layers that showed another case and are used again for this one; see :func:`spare_layers`.

    Attributes:
        image, manual, prediction, confidence, proposal: the layers; None if removed or not created yet.
        painting: keeps the manual layer and the label book in step.
    """

    slice_changed = Signal(int)
    undone = Signal(Changed, str)  # what "undo" or "redo" changed, which is shown; empty if there was nothing to change
    lost = Signal(str)  # the layer that the person removed: manual, prediction, image or proposal
    window_moved = Signal(float, float)  # the person moved napari's contrast slider: the new limits
    turned = Signal()  # napari's axes were rolled or transposed, or 2-D and 3-D switched

    def __init__(
        self,
        viewer: napari.Viewer,
        session: Session,
        image: Image | None = None,
        window: str = "auto",
        *,
        read_only: bool = False,
        spare: Spare | None = None,
    ) -> None:
        self.viewer = viewer
        self._spare = spare
        self.session = session
        self.case = session.case
        self.axis = AXIS[self.case.plane]
        self._read_only = read_only
        self._shape = stack_shape(self.case)
        self.image: Image | None = image
        self.window = window  # a name or "low,high"
        self._in_view: Case = self.case  # or one of its sequences
        self._showing_window = False
        self.prediction: Labels | None = None
        self.confidence: Image | None = None
        self.proposal: Labels | None = None
        self._proposed: int | None = None  # the slice that has an outline
        self._instead: tuple[int, NDArray[Any]] | None = None  # a slice, and what is shown in place of its prediction
        self._certainty: dict[int, NDArray[np.uint8]] = {}
        self._slice = 0
        self._colour_timer = single_shot(self._colour)
        self.orientation = (spare.orientation if spare is not None else None) or Orientation(self)
        self.painting = Painting(self, read_only=read_only)
        self.painting.given_up.connect(self._on_given_up)
        session.labels.forget_history()  # the initial labels cannot be undone
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.dims.events.point.connect(self._on_moved)
        viewer.dims.events.order.connect(self._on_turned)
        viewer.dims.events.ndisplay.connect(self._on_turned)

    @property
    def manual(self) -> Labels | None:
        """The layer to paint on, which shows painted and accepted labels."""
        return self.painting.layer

    # --- making -----------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Create missing layers, filled from the label book, and show the plane of the case."""
        self._show()
        self._spare = None  # a layer that is restored later is a new one

    def _show(self) -> None:
        if self.image is None or self.image not in self.viewer.layers:
            self.image = self._make_image()
            self.viewer.layers.move(self.viewer.layers.index(self.image), 0)  # below the labels
        if not self.image.visible:
            self.image.visible = True
        self._bind(self.image)
        self.image.events.contrast_limits.connect(self._on_contrast)
        self.show_window(self.window)
        if self.prediction is None:
            self.prediction = self._make_labels("prediction", self._drawn_prediction, opacity=FILLED)
            self.prediction.editable = False  # napari's tools do not paint on it
            draw_outlines(self.prediction)
        if self.manual is None:
            self.painting.follow(self._make_labels("manual", self._drawn_labels, opacity=PAINTED))
        if self._spare is not None and self._spare.proposal is not None:
            self.proposal = self._make_proposal()
        self.viewer.layers.selection.active = self.manual
        order = axis_order(self.axis)
        if self.viewer.dims.ndim == 3 and tuple(self.viewer.dims.order) != order:
            with steady_sliders(self.viewer):
                self.viewer.dims.order = order
        for layer in self.own:
            if layer.ndim == 3 and tuple(layer.axis_labels) != self._axis_names:
                layer.axis_labels = self._axis_names
        if self.viewer.dims.ndim == 3:
            self.viewer.dims.axis_labels = self._axis_names
        self.orientation.pass_to(self)
        self.orientation.begin()
        self._slice = self.current_slice

    @property
    def own(self) -> list[Layer]:
        """The layers of this case that are in the viewer, from top to bottom."""
        layers = (self.confidence, self.proposal, self.manual, self.prediction, self.image)
        return [layer for layer in layers if layer is not None and layer in self.viewer.layers]

    def hide_others(self) -> list[str]:
        """Hide all layers that do not belong to this case; returns the names of those that were visible."""
        others = [layer for layer in self.viewer.layers if layer.visible and layer not in self.own]
        for layer in others:
            layer.visible = False
        return [layer.name for layer in others]

    def fit(self) -> None:
        """Fit the camera to this case."""
        own = self.own
        if len(own) == len(self.viewer.layers):
            self.viewer.reset_view()  # the same, without a list of layers, which takes napari some time to make
            return
        try:
            self.viewer.reset_view(layers=own)
        except TypeError:  # before napari 0.6.3 it always fits all layers
            self.viewer.reset_view()

    @property
    def _axis_names(self) -> tuple[str, ...]:
        names = ["row", "column"]
        names.insert(self.axis, "slice" if self.case.kind == "volume" else "picture")
        return tuple(names)

    def _make_image(self) -> Image:
        if self._spare is not None and self._spare.case is self._in_view:
            self._spare.image.metadata = case_metadata(self.case)
            return self._spare.image
        data, rgb, scale, units = display_of(self._in_view)
        window = None if rgb else window_of(self._in_view, self.window)
        if self._spare is not None and self._spare.image.rgb == rgb:
            image = self._spare.image
            place = {"scale": scale, "units": units, "axis_labels": self._axis_names}
            _renew(image, data, case_metadata(self.case), place)
            image.name = self.case.name
            if window is not None:
                image.reset_contrast_limits_range()
                image.contrast_limits = window
            return image
        return self.viewer.add_image(
            data,
            name=self.case.name,
            rgb=rgb,
            scale=scale,
            units=units,
            axis_labels=self._axis_names,
            metadata=case_metadata(self.case),
            **({"contrast_limits": window} if window else {}),
        )

    def _make_labels(self, name: str, drawn: Callable[[int], NDArray[Any] | None], opacity: float) -> Labels:
        """A layer with its labels in it, because each further change is drawn again."""
        slices = np.zeros(np.moveaxis(np.empty(self._shape, bool), self.axis, 0).shape, np.uint16)
        values = np.moveaxis(slices, 0, self.axis)  # each slice lies together in memory, whatever its plane
        for index in range(self.case.n_slices):
            labels = drawn(index)
            if labels is not None:
                slices[index, : labels.shape[0], : labels.shape[1]] = labels
        about = case_metadata(self.case)
        colours = label_colours(self.session.labels.classes)
        spare = getattr(self._spare, name) if self._spare is not None else None
        if spare is not None:
            _renew(spare, values, about, place_of(self.image))
            spare.editable, spare.n_edit_dimensions = True, 2
            if _colours_of(spare.colormap) != _colours_of(colours):  # napari takes long to map all pixels again
                spare.colormap = colours
            self._bind(spare)
            return spare
        layer = Labels(values, name=name, opacity=opacity, colormap=colours, metadata=about, **place_of(self.image))
        make_tools_late(layer)
        self._bind(layer)
        self.viewer.add_layer(layer)
        return layer

    def _bind(self, layer: Layer) -> None:
        """Bind the undo and redo keys to a layer of the case."""
        for key in _UNDO:
            layer.bind_key(key, lambda _: self.undo(), overwrite=True)
        for key in _REDO:
            layer.bind_key(key, lambda _: self.redo(), overwrite=True)

    @staticmethod
    def _unbind(layer: Layer) -> None:
        for key in (*_UNDO, *_REDO):
            layer.bind_key(key, None, overwrite=True)

    # --- the slice in view ------------------------------------------------------------------------------------------

    @property
    def _placed(self) -> Layer | None:
        """A layer that shows where the slices lie: one of labels, which is always a stack, else the image."""
        image = self.image if self.image is not None and len(self.image.scale) == 3 else None
        return self.manual or self.prediction or image

    @property
    def current_slice(self) -> int:
        """The index of the slice in view."""
        layer, dims = self._placed, self.viewer.dims
        if layer is None or dims.ndim < 3:
            return self._slice if layer is None else 0
        point = dims.point[-3 + self.axis]
        index = round((point - layer.translate[self.axis]) / layer.scale[self.axis])
        return int(min(max(index, 0), self.case.n_slices - 1))

    def go_to(self, index: int) -> None:
        """Show a slice."""
        layer, dims = self._placed, self.viewer.dims
        if layer is not None and dims.ndim >= 3:
            world = layer.translate[self.axis] + index * layer.scale[self.axis]
            dims.set_point(dims.ndim - 3 + self.axis, world)

    def _on_moved(self) -> None:
        index = self.current_slice
        if index != self._slice:
            self._slice = index
            self.slice_changed.emit(index)

    @property
    def shows_slices(self) -> bool:
        """Whether whole slices are in view, as opposed to 3-D or rolled axes, where a slice is only a line."""
        dims = self.viewer.dims
        return dims.ndisplay == 2 and dims.ndim - 3 + self.axis not in dims.displayed

    def back_to_plane(self) -> None:
        """Show and paint on whole slices again after the axes were rolled or the view was 3-D."""
        dims = self.viewer.dims
        more = dims.ndim - 3  # leading axes of other layers
        dims.ndisplay = 2
        if more >= 0:
            dims.order = (*range(more), *(axis + more for axis in axis_order(self.axis)))
        if self.manual is not None:
            self.manual.n_edit_dimensions = 2
        self.fit()

    def _on_turned(self) -> None:
        self.turned.emit()

    # --- labels -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Read all paint into the label book now."""
        self.painting.flush()

    def show_labels(self, indices: Collection[int]) -> None:
        """Show labels and predictions of slices from the label book."""
        self.painting.show(indices)
        self.show_predictions(indices)

    def undo(self) -> None:
        """Undo the last action of the label book and show the slice that it changed (Ctrl+Z)."""
        self._step("undo", self.session.labels.undo)

    def redo(self) -> None:
        """Redo what was undone last (Ctrl+Y, Ctrl+Shift+Z)."""
        self._step("redo", self.session.labels.redo)

    def _step(self, name: str, step: Callable[[], Changed | None]) -> None:
        if self._read_only:
            return
        self.flush()
        changed = step()
        if changed is None:
            self.undone.emit(Changed(), name)
            return
        self.painting.show(changed.labels)
        self.show_predictions(changed.labels | changed.predictions)
        if changed.classes:
            self.show_colours()
        here, found = self.current_slice, changed.labels or changed.predictions
        if found and here not in found:
            self.go_to(min(found, key=lambda index: (abs(index - here), index)))
        self.undone.emit(changed, name)

    # --- what is shown -------------------------------------------------------------------------------------------

    def _slices(self, layer: Labels) -> NDArray[Any]:
        """A view of the layer's data as (n_slices, H, W)."""
        return np.moveaxis(np.asarray(layer.data), self.axis, 0)

    def show_predictions(self, indices: Iterable[int]) -> None:
        """Show the predictions of slices that are not labelled as a whole."""
        if self.prediction is None:
            return
        slices, here = self._slices(self.prediction), self.current_slice
        upright = tuple(self.viewer.dims.order[-3:]) == axis_order(self.axis) and self.viewer.dims.ndisplay == 2
        refresh = False
        for index in indices:
            predicted = self._drawn_prediction(index)
            height, width = self.case.slice_shape(index)
            shown = slices[index, :height, :width]
            if predicted is None:
                if not shown.any():
                    continue
                shown[...] = 0
            else:
                shown[...] = predicted
                self.painting.make_room(index)
            refresh = refresh or index == here or not upright
        if refresh:
            self.prediction.refresh()

    def _drawn_prediction(self, index: int) -> NDArray[Any] | None:
        """What the prediction layer shows of a slice, (H, W); None if nothing."""
        if self.session.labels.of_slice(index).is_whole:
            return None
        if self._instead is not None and self._instead[0] == index:
            return self._instead[1]
        return self.session.labels.predicted(index)

    def show_instead(self, index: int, labels: NDArray[Any] | None) -> None:
        """Show other labels (H, W) in place of the prediction of a slice; None shows the prediction again.

        The label book does not change.
        """
        before, self._instead = self._instead, None if labels is None else (index, labels)
        self.show_predictions({index, *(() if before is None else (before[0],))})

    def _drawn_labels(self, index: int) -> NDArray[Any] | None:
        """What the manual layer shows of a slice of a new or loaded session, (H, W); None if nothing."""
        book = self.session.labels
        book.lay_out(index, explicit=False)  # labels of a saved session come back as they were painted
        return None if book.of_slice(index).is_empty else book.canvas(index)

    def show_colours(self) -> None:
        """Set the colours of the classes on the layers at the next frame.

        Not immediately, because vispy fails if a colormap is replaced before the canvas has drawn it.
        """
        if not self._colour_timer.isActive():
            self._colour_timer.start(_NEXT_FRAME)

    def _colour(self) -> None:
        colours = label_colours(self.session.labels.classes)
        for layer in (self.manual, self.prediction, self.proposal):
            if layer is not None:
                layer.colormap = colours

    def show_window(self, name: str, sequence: Case | None = None) -> None:
        """Show the image in an intensity window.

        Args:
            name: of the window.
            sequence: of the case, to be shown from now on; None = the one that is.

        Raises:
            SettingsError: the window is unknown.
        """
        shown = sequence or self._in_view
        limits = window_of(shown, name)
        self.window = name
        if self.image is None or self.image.rgb or limits is None:
            self._in_view = shown
            return
        self._showing_window = True
        try:
            if shown is not self._in_view:
                self._in_view = shown
                self.image.data = display_of(shown)[0]
                self.image.reset_contrast_limits_range()
            self.image.contrast_limits = limits
        finally:
            self._showing_window = False

    def _on_contrast(self) -> None:
        if self.image is not None and not self._showing_window:
            low, high = self.image.contrast_limits
            self.window_moved.emit(float(low), float(high))

    def select_label(self, number: int) -> None:
        """Select what the brush paints: a class number, 0 = the eraser, -1 = the background."""
        if self.manual is None or self._read_only:
            return
        self.manual.selected_label = BACKGROUND if number == -1 else number
        if self.manual.mode in ("pan_zoom", "transform"):
            self.manual.mode = "paint"

    # --- proposal ---------------------------------------------------------------------------------------------------

    def prepare_proposal(self) -> bool:
        """Create the layer for outlines, which takes napari longer than to show one. Returns whether it is new."""
        if self.proposal is not None:
            return False
        active = self.viewer.layers.selection.active
        self.proposal = self._make_proposal()
        self.viewer.layers.selection.active = active
        return True

    def show_proposal(self, index: int, labels: NDArray[np.uint16]) -> None:
        """Show the outlines of the classes in a proposal (H, W) for a slice, in the layer that was prepared."""
        layer = self.proposal
        if layer is None:
            return
        self._wipe_proposal()
        height, width = labels.shape
        self._slices(layer)[index, :height, :width] = labels
        self._proposed = index
        layer.refresh()

    def hide_proposal(self) -> None:
        """Show no outline any more."""
        if self._wipe_proposal() and self.proposal is not None:
            self.proposal.refresh()

    def _wipe_proposal(self) -> bool:
        index, self._proposed = self._proposed, None
        if index is None or self.proposal is None:
            return False
        self._slices(self.proposal)[index] = 0
        return True

    def _make_proposal(self) -> Labels:
        layer = self._make_labels("proposal", lambda _: None, opacity=1.0)
        draw_outlines(layer)
        layer.contour = outline_width_on(self) + 1  # wider than that of a prediction on the same slice
        layer.editable = False
        return layer

    # --- confidence -------------------------------------------------------------------------------------------------

    def keep_confidence(self, prediction: Prediction) -> None:
        """Keep the confidence map of a prediction for the overlay."""
        certain = np.round(prediction.pixel_confidence * 255).astype(np.uint8)
        self._certainty[prediction.index] = certain
        if self.confidence is not None:
            height, width = certain.shape
            np.moveaxis(np.asarray(self.confidence.data), self.axis, 0)[prediction.index, :height, :width] = certain
            if prediction.index == self.current_slice:
                self.confidence.refresh()

    def show_confidence(self, on: bool) -> None:
        """Show or hide the confidence overlay."""
        if self.confidence is None and on:
            data = np.full(self._shape, 255, np.uint8)
            slices = np.moveaxis(data, self.axis, 0)
            for index, certain in self._certainty.items():
                slices[index, : certain.shape[0], : certain.shape[1]] = certain
            active = self.viewer.layers.selection.active
            self.confidence = Image(
                data,
                name="confidence",
                colormap=certainty_colours(),
                contrast_limits=(102, 255),
                blending="translucent_no_depth",
                **place_of(self.image),
            )
            self._bind(self.confidence)
            self.viewer.add_layer(self.confidence)
            self.viewer.layers.selection.active = active
        if self.confidence is not None:
            self.confidence.visible = on

    # --- detaching --------------------------------------------------------------------------------------------------

    def detach(self, *, keep_labels_as: str = "", hand_over: bool = False) -> list[Layer]:
        """Disconnect from the viewer.

        Args:
            keep_labels_as: a name under which the manual layer stays in the viewer, hidden, because its labels are not
                on disk; empty if they are.
            hand_over: keep the orientation of the camera and its letters for the next case, which ends or shows them.

        Returns:
            The layers to remove from the viewer; not an image that the person added as a plain array.
        """
        stop(self._colour_timer)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.dims.events.point.disconnect(self._on_moved)
        self.viewer.dims.events.order.disconnect(self._on_turned)
        self.viewer.dims.events.ndisplay.disconnect(self._on_turned)
        if not hand_over:
            self.orientation.end()
        leaving = self.own
        for layer in leaving:
            self._unbind(layer)
        if self.image is not None:
            self.image.events.contrast_limits.disconnect(self._on_contrast)
            if case_of(self.image) is None and self.image in leaving:
                leaving.remove(self.image)
        manual = self.painting.let_go()
        if manual is not None and keep_labels_as:
            manual.name, manual.visible = keep_labels_as, False
            leaving.remove(manual)
        return leaving

    def _on_removed(self, event: Any) -> None:
        """Follow the removal of a layer; the last strokes in the manual layer are still read."""
        layer = event.value
        if layer is None:
            return
        if layer is self.manual:
            self.flush()
            self._on_given_up()
        elif layer is self.prediction:
            self.prediction = None
            self.lost.emit("prediction")
        elif layer is self.confidence:
            self.confidence = None
        elif layer is self.proposal:
            self._unbind(layer)
            self.proposal, self._proposed = None, None
            self.lost.emit("proposal")
        elif layer is self.image:
            self._unbind(layer)
            self.image = None
            self.lost.emit("image")

    def _on_given_up(self) -> None:
        layer = self.painting.let_go()
        if layer is not None:
            self._unbind(layer)
        self.lost.emit("manual")


def outline_width_on(layers: CaseLayers) -> int:
    """The width of an outline on the slices of a case, in pixels."""
    return outline_width([size for axis, size in enumerate(stack_shape(layers.case)) if axis != layers.axis])
