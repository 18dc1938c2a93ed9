"""Refuses paint while what stands on the screen is not the study that the strokes would go to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Layer
from psygnal import Signal

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.layers import StudyLayers

_PAINTS = ("paint", "erase", "fill", "polygon")


class ViewGuard:
    """Watches the viewer for one study.

    napari has no way to refuse a stroke once the mouse button is down. So the tool leaves the hand as soon as the view
    leaves the study, and comes back with it. (An uneditable layer would do the same, but napari then forgets its undo
    history.)

    Attributes:
        reason: why nothing can be painted now, a sentence; empty when it can.
    """

    changed = Signal(str)  # the new reason
    refused = Signal(str)  # somebody pressed the mouse to paint: the reason

    def __init__(self, viewer: napari.Viewer, layers: StudyLayers) -> None:
        self._viewer, self._layers = viewer, layers
        self._mode = ""  # the tool that was in hand when paint was first refused
        self._labels: Labels | None = None  # the layer whose tool is watched
        self.reason = ""
        for event in self._viewer_events():
            event.connect(self.look)
        viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in viewer.layers:
            layer.events.visible.connect(self.look)
        viewer.mouse_drag_callbacks.append(self._on_press)

    def close(self) -> None:
        """Watch no longer."""
        for event in self._viewer_events():
            event.disconnect(self.look)
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        for layer in self._viewer.layers:
            layer.events.visible.disconnect(self.look)
        self._watch(None)
        if self._on_press in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)

    def look(self, *_: object) -> None:
        """Find out whether the study is in view, and let the labels layer follow."""
        reason = self._outside() or self._covered()
        manual = self._layers.manual
        self._watch(manual)
        before, self.reason = self.reason, reason
        if manual is not None and reason and manual.mode in _PAINTS:
            self._mode = str(manual.mode)
            manual.mode = "pan_zoom"
        elif manual is not None and not reason and self._mode:
            manual.mode, self._mode = self._mode, ""
        if reason != before:
            self.changed.emit(reason)

    def _watch(self, labels: Labels | None) -> None:
        """Follow the tool of the labels layer, which may have been removed and made again."""
        if labels is self._labels:
            return
        if self._labels is not None:
            self._labels.events.mode.disconnect(self._on_mode)
        self._labels = labels
        if labels is not None:
            labels.events.mode.connect(self._on_mode)

    def _on_mode(self) -> None:
        """Somebody takes a tool; not while the study is out of view."""
        if self.reason and self._labels is not None and self._labels.mode in _PAINTS:
            self._mode = str(self._labels.mode)
            self._labels.mode = "pan_zoom"
            self.refused.emit(self.reason)

    def _outside(self) -> str:
        """A sentence when the slider of an axis stands outside the study."""
        layer, dims = self._layers.manual or self._layers.prediction, self._viewer.dims
        if layer is None or dims.ndim < layer.ndim:
            return ""
        position = layer.world_to_data(dims.point)
        hidden = [axis - (dims.ndim - layer.ndim) for axis in dims.not_displayed]
        inside = all(-0.5 <= position[axis] <= layer.data.shape[axis] - 0.5 for axis in hidden if axis >= 0)
        if inside:
            return ""
        return f"The view is outside {self._layers.study.name}: nothing is painted here. Move the slider back into it."

    def _covered(self) -> str:
        """A sentence when an image of something else is what a person sees."""
        stack, image = self._viewer.layers, self._layers.image
        if image is None or image not in stack:
            return ""
        own = self._layers.own
        above = stack.index(image) if image.visible else -1
        for layer in reversed(stack):
            if isinstance(layer, Image) and layer not in own and layer.visible and stack.index(layer) > above:
                name = self._layers.study.name
                return (
                    f"The image '{layer.name}' lies above {name}: nothing is painted, for the strokes would go to "
                    f"{name}. Hide '{layer.name}' with its eye in the layer list, or annotate it instead."
                )
        return ""

    def _on_inserted(self, event: Any) -> None:
        layer: Layer = event.value
        layer.events.visible.connect(self.look)
        self.look()

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Say why there is no stroke; a generator, as napari wants it of a drag."""
        if self.reason and self._mode and viewer.layers.selection.active is self._labels and event.button == 1:
            self.refused.emit(self.reason)
        yield

    def _viewer_events(self) -> list[Any]:
        dims, layers = self._viewer.dims.events, self._viewer.layers.events
        return [dims.point, dims.order, dims.ndisplay, layers.removed, layers.reordered]
