"""A case in three dimensions: a smooth surface of each class in place of napari's voxels, until slices come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Surface
from numpy.typing import NDArray
from qtpy.QtGui import QColor

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.gui.canvas import one_drawing
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.display import (
    camera_of,
    directions_of,
    light_from_the_front,
    no_collection,
    remove_layers,
    show_layers,
    view_from_the_front,
)
from napari_dinoaugseg.gui.layers import place_of
from napari_dinoaugseg.gui.widgets import Inbox, Pieces, Turns, in_background, single_shot, stop
from napari_dinoaugseg.learning.events import Cancel
from napari_dinoaugseg.session.export import MANUAL_AND_ACCEPTED
from napari_dinoaugseg.session.labels import EVERYTHING
from napari_dinoaugseg.session.surfaces import ClassSurface, class_surfaces

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

_DARKEST = 0.25  # of the brightness of a class, where it faces away from the light
_CONTRAST = 1.3  # exponent of the brightness between the darkest and the brightest

_Aim = tuple[tuple[float, float, float], float]
"""Centre and zoom of a camera."""


@dataclass(frozen=True)
class _SliceView:
    """What of the view in slices comes back after the one in three dimensions."""

    point: tuple[float, ...]
    order: tuple[int, ...]
    aim: _Aim
    hidden: tuple[Layer, ...]
    active: Layer | None


class Surfaces:
    """Shows the classes of the open case as surfaces while the viewer is in 3-D, whoever switched it there.

    napari draws label layers in 3-D voxel by voxel, which takes seconds a frame without a graphics card, so they are
    hidden before napari draws them. The surfaces are computed in a thread, when 3-D begins and on request: labels may
    change while they are shown.

    Attributes:
        controller: of the viewer.
        everything: whether predictions count, not only painted and accepted labels.
        found: the surfaces of the last run so far, also those whose layer the person removed.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.everything = True
        self.found: tuple[ClassSurface, ...] = ()
        self._running: Cancel | None = None
        self._outdated = False  # whether the surfaces shown are those of an earlier run
        self._is_aimed = False  # whether the camera was turned to the surfaces
        self._before: _SliceView | None = None  # None in slices
        self._is_going_back = False  # to slices, in turns
        self._layers: list[Surface] = []
        self._aim_before: _Aim = (0.0, 0.0, 0.0), 1.0
        self._camera_timer = single_shot(self._restore_camera)
        self._turns = Turns(controller.guarded)
        self._sent = Inbox(self._turns.add)
        controller.viewer.dims.events.ndisplay.connect(self._on_turned, position="last")

    def dispose(self) -> None:
        """End with the viewer."""
        self.controller.viewer.dims.events.ndisplay.disconnect(self._on_turned)
        stop(self._camera_timer)
        self._turns.drop()
        self._cancel()

    # --- the person -------------------------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether the open case is in three dimensions."""
        return self._before is not None

    @property
    def working(self) -> bool:
        """Whether surfaces are being computed or shown, or the view is on its way to 3-D or back."""
        return self._running is not None or self._turns.busy

    @property
    def reason(self) -> str:
        """A sentence on why there are no surfaces of the open case; empty if there can be."""
        session = self.controller.session
        if session is None:
            return "Open a case first."
        if session.case.kind != "volume" or session.case.n_slices < 2:
            return "Pictures have no third dimension."
        return ""

    @guarded
    def switch(self, on: bool, *, in_turns: bool = False) -> None:
        """Show the case in 3-D, or in slices again.

        Args:
            on: in 3-D.
            in_turns: let the window answer after each piece.
        """
        if on and self.reason:
            raise LabelError(self.reason)
        self._turns.drop()
        self._turns.add(self._enter() if on else self._go_back())
        if not in_turns:
            self._turns.finish()

    def _enter(self) -> Pieces:
        viewer = self.controller.viewer
        with one_drawing(viewer):
            self._hide()
            yield
            if viewer.dims.ndisplay == 3:  # still, because the person changed their mind on the way back
                self._begin()
            viewer.dims.ndisplay = 3

    def _go_back(self) -> Pieces:
        viewer = self.controller.viewer
        with one_drawing(viewer):
            self._cancel()
            while self._layers:
                self._remove(self._layers[-1:])
                yield
            self._is_going_back = True
            try:
                viewer.dims.ndisplay = 2
            finally:
                self._is_going_back = False
            yield
            self._end()

    @guarded
    def update(self, everything: bool | None = None) -> None:
        """Compute the surfaces again from the labels as they are now.

        Args:
            everything: as the attribute; None keeps it.
        """
        if everything is not None:
            self.everything = everything
        self._compute()

    def follow(self, what: Change) -> None:
        """Leave the camera to the next case."""
        if what & Change.SESSION:
            stop(self._camera_timer)

    def leave(self) -> None:
        """Show slices again, before the case is closed."""
        if self.is_on:
            self.switch(False)

    # --- 2-D and 3-D ------------------------------------------------------------------------------------------------

    def _on_turned(self, *_: object) -> None:
        """The view shows three dimensions, or two, whether that was asked for here or by its own button."""
        if self.controller.viewer.dims.ndisplay == 3:
            self._turns.drop()
            self._begin()
        elif not self._is_going_back:
            self._turns.drop()
            self._end()

    def _begin(self) -> None:
        self._hide()
        if self.is_on:
            dims = self.controller.viewer.dims
            dims.order = tuple(range(dims.ndim))  # napari 0.9.2 aims at another place where axes are rolled
            self._compute()

    def _hide(self) -> None:
        """Hide what napari would draw slowly in 3-D, if possible before it is in 3-D."""
        controller, viewer, layers = self.controller, self.controller.viewer, self.controller.layers
        if controller.closed or layers is None or self.reason or self.is_on:
            return
        ours, active = [*layers.own, controller.ruler.drawing], viewer.layers.selection.active
        shown = tuple(layer for layer in ours if layer is not None and layer.visible)
        self._before = _SliceView(viewer.dims.point, viewer.dims.order, _aim(viewer), shown, active)
        self._is_aimed = False
        show_layers(viewer, shown, False)

    def _cancel(self) -> None:
        """Compute no more surfaces, and show none that comes."""
        if self._running is not None:
            self._running.set()
            self._running = None

    def _end(self) -> None:
        viewer, before = self.controller.viewer, self._before
        self._cancel()
        self._remove()
        if before is None:
            return
        self._before = None
        # Where slices and 3-D have cameras of their own, napari has already turned to that of the slices.
        shared = getattr(camera_of(viewer), "synced", True)
        self._aim_before = before.aim if shared else _aim(viewer)
        show_layers(viewer, [layer for layer in before.hidden if layer in viewer.layers], True)
        if before.active in viewer.layers:
            viewer.layers.selection.active = before.active
        if len(before.point) == viewer.dims.ndim:
            viewer.dims.order, viewer.dims.point = before.order, before.point
        self._camera_timer.start(0)
        self.controller.touch(Change.VIEW)

    def _restore_camera(self) -> None:
        """After napari has moved it, which it does for another order of the axes."""
        camera = camera_of(self.controller.viewer)
        if not self.is_on:
            (_, *across), zoom = self._aim_before
            camera.center, camera.zoom = (camera.center[0], *across), zoom

    # --- surfaces ---------------------------------------------------------------------------------------------------

    def _compute(self) -> None:
        """Compute the surfaces in a thread; each replaces those shown before as soon as it is ready."""
        controller, session = self.controller, self.controller.session
        if session is None or not self.is_on:
            return
        controller.flush()
        if self._running is not None:
            self._running.set()
        cancel = self._running = Cancel()
        include = EVERYTHING if self.everything else MANUAL_AND_ACCEPTED
        self._outdated = True

        def work() -> None:
            error: Exception | None = None
            try:
                for surface in class_surfaces(session, include):
                    if cancel:
                        return
                    self._sent.send(self._show(cancel, surface))
            except Exception as found:
                error = found
            self._sent.send(self._conclude(cancel, error))

        in_background(work, "surfaces", cancel)
        controller.touch(Change.VIEW)

    def _show(self, cancel: Cancel, surface: ClassSurface) -> Pieces:
        viewer, layers = self.controller.viewer, self.controller.layers
        if cancel is not self._running or layers is None:
            return
        if self._outdated:
            self._remove()
        directions = directions_of(layers.case)
        layer = _layer_of(surface, layers.axis, place_of(layers.image), light_from_the_front(directions))
        yield
        if cancel is not self._running:
            return
        self._layers.append(layer)
        self.found = (*self.found, surface)
        with one_drawing(viewer):
            viewer.add_layer(layer)
            yield
            if cancel is self._running and not self._is_aimed:
                self._is_aimed = True
                viewer.reset_view()
                if directions is not None:
                    axes = [axis - (viewer.dims.ndim - 3) for axis in viewer.dims.order[-3:]]
                    camera_of(viewer).set_view_direction(*view_from_the_front(directions, axes))
                    if hasattr(viewer, "fit_to_view"):  # since napari 0.6.5
                        viewer.fit_to_view()
        self.controller.touch(Change.VIEW)
        yield  # the next one comes after this one is drawn

    def _conclude(self, cancel: Cancel, error: Exception | None) -> Pieces:
        yield
        if cancel is not self._running:
            return
        self._running = None
        if error is not None:
            self.controller.show_error(error)
        elif self._outdated:
            self._remove()
            self.controller.notify("There are no labels to show in 3-D yet.", "notice")
        self.controller.touch(Change.VIEW)

    def _remove(self, leaving: Sequence[Surface] | None = None) -> None:
        """Remove some of the surfaces; all by default, with their volumes."""
        if leaving is None:
            leaving, self.found = self._layers, ()
            self._outdated = False
        self._layers = [layer for layer in self._layers if layer not in leaving]
        with no_collection():
            remove_layers(self.controller.viewer, leaving)


def _aim(viewer: Any) -> _Aim:
    camera = camera_of(viewer)
    depth, vertical, horizontal = camera.center
    return (depth, vertical, horizontal), camera.zoom


def _layer_of(surface: ClassSurface, axis: int, place: dict[str, Any], light: tuple[float, float, float]) -> Surface:
    """A layer in the place of the label layers, whose slices lie along ``axis``, lit from a direction.

    The light is in the colours of the vertices, because napari's own comes from behind where the camera is turned to
    the radiological convention (napari 0.9.2).
    """
    vertices, normals = (_in_display(vectors, axis) for vectors in (surface.vertices, surface.normals))
    bright = _DARKEST + (1 - _DARKEST) * ((1 + normals @ np.array(light, np.float32)) / 2) ** _CONTRAST
    colours = np.ones((len(vertices), 4), np.float32)
    colours[:, :3] = bright[:, np.newaxis] * np.array(QColor(surface.entry.colour).getRgbF()[:3], np.float32)
    return Surface(
        (vertices, surface.faces), name=f"{surface.entry.name} in 3-D", vertex_colors=colours, shading="none", **place
    )


def _in_display(vectors: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Vectors along (slice, row, column), (N, 3), along the axes of the display, whose slices lie along ``axis``."""
    return np.insert(vectors[:, 1:], axis, vectors[:, 0], axis=1)
