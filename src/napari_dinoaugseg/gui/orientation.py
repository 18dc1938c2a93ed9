"""Which way up a case stands on the canvas, and the letters at its edges.

Data are never turned: napari's camera is. As radiologists hang images: the patient's right on the left of the screen,
anterior on top of axial slices and on the left of sagittal ones, the head on top of coronal and sagittal ones. The
depth follows from both, so that a volume in 3-D is no mirror image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_dinoaugseg.case import Case, Plane, VolumeCase
from napari_dinoaugseg.case.array import ArrayCase
from napari_dinoaugseg.gui.display import axis_order
from napari_dinoaugseg.gui.saving import camera_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dinoaugseg.gui.core import ControllerCore
    from napari_dinoaugseg.gui.layers import CaseLayers


Directions = tuple[str, str, str]
"""Towards what the three axes of the display grow: R, L, A, P, H (head) or F (feet)."""

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "H": "F", "F": "H"}
_VECTORS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}  # LPS
_TOP, _RIGHT = "HAR", "LPH"  # what radiologists have on top, and on the right of the screen
_EDGES = {"left": "middle_left", "right": "middle_right", "top": "top_center", "bottom": "bottom_center"}
_COVERING = ("inserted", "removed", "reordered", "visible")  # events of layers: another image may lie above ours
_MOVING = ("scale", "rotate", "shear", "affine")  # a layer lies differently in the world


def directions_of(case: Case) -> Directions | None:
    """Towards what the axes of a case's display grow; None for pictures and where its file does not say.

    Of an oblique volume, the closest directions.
    """
    if not isinstance(case, VolumeCase) or isinstance(case, ArrayCase) or not case.grid.known:
        return None
    if case.plane is not Plane.NATIVE:
        return "H", "P", "L"
    codes = case.grid.axcodes.replace("S", "H").replace("I", "F")
    return codes[2], codes[1], codes[0]


def camera_orientation(directions: Directions, axes: Sequence[int], *, as_stored: bool = False) -> tuple[str, str, str]:
    """The camera's orientation: where on the screen depth, rows and columns grow to.

    Args:
        directions: of the display's axes.
        axes: those that lie in depth, down and across the screen: a permutation of 0, 1, 2.
        as_stored: leave the first row on top and the first column on the left.
    """
    depth, vertical, horizontal = (directions[axis] for axis in axes)
    down = as_stored or vertical not in _TOP
    left = not as_stored and horizontal not in _RIGHT
    across, upwards = np.array(_VECTORS[horizontal]), np.array(_VECTORS[vertical])
    out_of_screen = np.cross(-across if left else across, -upwards if down else upwards)
    away = out_of_screen @ _VECTORS[depth] < 0
    return "away" if away else "towards", "down" if down else "up", "left" if left else "right"


def edge_letters(directions: Directions, axes: Sequence[int], orientation: Sequence[str]) -> dict[str, str]:
    """The letter at each edge of the canvas: ``left``, ``right``, ``top``, ``bottom``; see `camera_orientation`."""
    _, vertical, horizontal = (directions[axis] for axis in axes)
    _, towards, across = orientation
    bottom = vertical if towards == "down" else _OPPOSITE[vertical]
    right = horizontal if across == "right" else _OPPOSITE[horizontal]
    return {"left": _OPPOSITE[right], "right": right, "top": _OPPOSITE[bottom], "bottom": bottom}


class Orientation:
    """Turns the camera for one case and shows the letters, as long as the case is in the viewer.

    A person may turn the camera as well: the letters follow, and that is what they find when the case has left.
    """

    def __init__(self, layers: CaseLayers) -> None:
        self._layers = layers
        case = layers.case
        self._directions = directions_of(case)
        self._is_loop = isinstance(case, VolumeCase) and case.grid.in_time
        self._before: tuple[str, str, str] | None = None  # the person's own; None while the case is not shown
        self._turning = False

    def begin(self) -> None:
        """The case is shown: turn the camera, and again whenever napari's axes are rolled or transposed."""
        camera = camera_of(self._layers.viewer)
        if self._before is not None or self._directions is None or not hasattr(camera, "orientation"):
            return
        self._before = _words(camera.orientation)
        for emitter, follow in self._followed():
            emitter.connect(follow)
        self._turn()

    def end(self) -> None:
        """The case leaves: the camera stands as the person had it, and the letters are gone."""
        if self._before is None:
            return
        for emitter, follow in self._followed():
            emitter.disconnect(follow)
        self._set(self._before)
        self._before = None
        overlays = self._overlays()
        for edge in _EDGES:
            if overlays is not None and _name(edge) in overlays:
                del overlays[_name(edge)]

    def _followed(self) -> list[tuple[Any, Any]]:
        viewer = self._layers.viewer
        dims = viewer.dims.events
        return [
            (dims.order, self._turn),
            (dims.ndisplay, self._turn),
            (dims.ndim, self._turn),
            (viewer.layers.events, self._on_layers),
            (camera_of(viewer).events.orientation, self._on_camera),
        ]

    def _on_layers(self, event: Any) -> None:
        if event.type in _MOVING:
            self._turn()
        elif event.type in _COVERING:
            self._show_letters()

    def _on_camera(self, *_: object) -> None:
        """The person turned the camera."""
        if not self._turning:
            self._before = _words(camera_of(self._layers.viewer).orientation)
            self._show_letters()

    # --- turning ----------------------------------------------------------------------------------------------------

    def _turn(self, *_: object) -> None:
        axes = self._axes()
        if axes is not None and self._directions is not None:
            as_stored = self._layers.case.plane is Plane.NATIVE
            self._set(camera_orientation(self._directions, axes, as_stored=as_stored))
        elif self._before is not None:
            self._set(self._before)
        self._show_letters()

    def _set(self, orientation: tuple[str, str, str]) -> None:
        camera = camera_of(self._layers.viewer)
        if _words(camera.orientation) == orientation:
            return
        self._turning = True
        try:
            camera.orientation = orientation
        finally:
            self._turning = False

    def _axes(self) -> tuple[int, int, int] | None:
        """The display's axes in depth, down and across the screen; None where something else is displayed."""
        dims, image = self._layers.viewer.dims, self._layers.image
        more = dims.ndim - 3  # of other layers
        vertical, horizontal = (axis - more for axis in dims.order[-2:])
        if image is None or min(more, vertical, horizontal) < 0 or not _is_straight(image):
            return None
        if self._is_loop and not self._layers.shows_slices:
            return None  # from frame to frame it is time that passes
        (depth,) = {0, 1, 2} - {vertical, horizontal}
        if dims.ndisplay == 3 and dims.order[-3] - more != depth:
            return None
        return depth, vertical, horizontal

    # --- letters ----------------------------------------------------------------------------------------------------

    def _show_letters(self) -> None:
        overlays = self._overlays()
        if overlays is None:
            return
        axes, letters = self._axes(), {}
        if axes is not None and self._directions is not None and self._is_in_view():
            orientation = _words(camera_of(self._layers.viewer).orientation)
            letters = edge_letters(self._directions, axes, orientation)
        for edge, position in _EDGES.items():
            if _name(edge) not in overlays:
                overlays[_name(edge)] = _letter(position)
            overlay = overlays[_name(edge)]
            overlay.text = letters.get(edge, "")
            overlay.visible = bool(letters)

    def _is_in_view(self) -> bool:
        """Whether what is seen is a slice of the case, and its file says where left and right are."""
        viewer, case, image, own = self._layers.viewer, self._layers.case, self._layers.image, self._layers.own
        if viewer.dims.ndisplay == 3 or not isinstance(case, VolumeCase) or not case.grid.oriented:
            return False
        if image is None or image not in own or not image.visible:
            return False
        above = list(viewer.layers)[viewer.layers.index(image) + 1 :]
        return not any(isinstance(layer, Image) and layer.visible and layer not in own for layer in above)

    def _overlays(self) -> Any:
        """The canvas's overlays by name; None before napari 0.9, which has no public place for them."""
        return getattr(getattr(self._layers.viewer, "canvas", None), "overlays", None)


def _letter(position: str) -> Any:
    from napari.components.overlays import TextOverlay

    return TextOverlay(position=position, font_size=14, box=True)


def _name(edge: str) -> str:
    return f"dinoaugseg_{edge}"


def _words(orientation: Sequence[Any]) -> tuple[str, str, str]:
    depth, vertical, horizontal = (str(one) for one in orientation)
    return depth, vertical, horizontal


def _is_straight(image: Image) -> bool:
    """Whether the image's axes are those of the world: somebody may have mirrored or turned the layer."""
    origin = np.array(image.data_to_world((0, 0, 0)))
    steps = np.array([image.data_to_world(tuple(step)) for step in np.eye(3)]) - origin
    along = np.diag(steps)
    return bool((along > 0).all() and np.allclose(steps, np.diag(along), atol=1e-6 * along.max()))


# Which slices the person has looked at since the model, or an interpolation, filled them.
#
# A mask that nobody has seen must not leave the program, or be accepted, without a word. So the label book keeps for
# each
# slice whether what is on it was in view; here the viewer's events become those facts.


class Looking:
    """Notes what is in view of one viewer, on the thread of the interface."""

    def __init__(self, controller: ControllerCore) -> None:
        self._controller = controller
        # Connected before any section of the panel, which shows the result.
        for signal in (
            controller.session_changed,
            controller.layers_changed,
            controller.labels_changed,
            controller.predictions_changed,
            controller.slice_changed,
        ):
            signal.connect(self._look)
        for event in (controller.viewer.dims.events.order, controller.viewer.dims.events.ndisplay):
            event.connect(self._look)

    def _look(self, *_: object) -> None:
        controller, layers = self._controller, self._controller.layers
        if controller.closed or controller.session is None or layers is None:
            return
        for layer in (layers.prediction, layers.manual):
            if layer is not None:
                layer.events.visible.connect(self._look)  # once: napari leaves out what is connected already
        dims = controller.viewer.dims
        if dims.ndisplay != 2 or tuple(dims.order[-3:]) != axis_order(layers.axis):
            return  # another cut through the volume, or a rendering of it
        book, here = controller.session.labels, controller.current_slice
        said = book.of_slice(here)
        # Of a slice that is labelled as a whole only the labels are drawn, see `CaseLayers.show_predictions`.
        drawn = [layers.manual] if not said.is_empty else []
        if said.is_empty or said.is_open:
            drawn.append(layers.prediction)
        if all(layer is not None and layer.visible for layer in drawn):
            book.see(here)
