"""How a case appears in napari: which layer shows it, as which array, in which colours, which way up."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from napari.layers import Image, Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case, PictureCase, Plane, VolumeCase, choose_window
from napari_dinoaugseg.case.array import ArrayCase, case_from_array
from napari_dinoaugseg.case.opening import own_names
from napari_dinoaugseg.case.sequences import check_names, shared_name
from napari_dinoaugseg.case.volume import join_sequences
from napari_dinoaugseg.errors import CaseError
from napari_dinoaugseg.gui.canvas import canvas_widget, load_letters, overlays_of
from napari_dinoaugseg.session.labels import BACKGROUND, LabelClass

AXIS = {Plane.AXIAL: 0, Plane.CORONAL: 1, Plane.SAGITTAL: 2, Plane.NATIVE: 0}
"""The axis of the display (z, y, x) that is perpendicular to a plane."""

_IN_MEMORY = 256 * 2**20  # bytes: larger picture stacks are loaded lazily


def axis_order(axis: int) -> tuple[int, int, int]:
    """Napari's order of the axes that displays slices perpendicular to ``axis``."""
    return {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 0, 1)}[axis]


def stack_shape(case: Case) -> tuple[int, int, int]:
    """The shape of the label layers: (z, y, x) of a volume, or of a stack as large as the largest picture."""
    count = case.n_slices if case.kind == "pictures" else 1
    sizes = np.array([case.slice_shape(index) for index in range(count)])
    shape = [int(sizes[:, 0].max()), int(sizes[:, 1].max())]
    shape.insert(AXIS[case.plane], case.n_slices)
    return shape[0], shape[1], shape[2]


def display_of(case: Case) -> tuple[Any, bool, tuple[float, float, float], list[str]]:
    """The image to display: data, whether it is RGB, scale, units. Pictures are padded to the largest one."""
    units = [_unit_of(case)] * 3
    if isinstance(case, VolumeCase):
        return case.display, case.is_colour, case.display_scale, units
    rgb = shows_colour(case)
    return _picture_stack(case, rgb), rgb, (1.0, 1.0, 1.0), units


def _unit_of(case: Case) -> str:
    return "mm" if isinstance(case, VolumeCase) and case.grid.known else "pixel"


def set_unit(layers: Iterable[Layer], case: Case) -> None:
    """Give layers the unit of a case whose image comes next: napari warns when it draws layers of different units."""
    for layer in layers:
        with layer.events.blocker_all():
            layer.units = [_unit_of(case)] * layer.ndim


def shows_colour(case: Case) -> bool:
    """Whether the image layer of a case is RGB."""
    return case.is_colour if isinstance(case, VolumeCase) else isinstance(case, PictureCase) and case.has_colour


def _picture_stack(case: Case, rgb: bool) -> Any:
    count, height, width = stack_shape(case)
    shape = (height, width, 3) if rgb else (height, width)
    dtype = np.dtype(np.uint8 if case.is_byte else np.float32)

    def padded(index: int) -> np.ndarray[Any, Any]:
        picture = case.slice(index)
        if rgb and picture.ndim == 2:
            picture = np.repeat(picture[..., np.newaxis], 3, axis=2)
        result = np.zeros(shape, dtype)
        result[: picture.shape[0], : picture.shape[1]] = picture
        return result

    if count * int(np.prod(shape)) * dtype.itemsize <= _IN_MEMORY:
        return np.stack([padded(index) for index in range(count)])
    import dask
    import dask.array

    lazy: Any = dask  # ships no types
    pictures = [lazy.array.from_delayed(lazy.delayed(padded)(index), shape, dtype) for index in range(count)]
    return lazy.array.stack(pictures)


def window_of(case: Case, name: str) -> tuple[float, float] | None:
    """Contrast limits of a grey case: the encoder's intensity window of that name. None for colour."""
    if case.is_colour:
        return None
    window = choose_window(case, name)
    return (window.low, window.high) if window is not None else (0.0, 255.0)


@cache
def prepare_layers() -> threading.Thread:
    """Load what napari needs for its first layers, for which the first case would wait. Once in a process.

    Returns:
        The thread that loads it.
    """
    import pint

    # Here and not in the thread: two threads must not fill the table of units at the same time.
    pint.get_application_registry().Unit("pixel")  # type: ignore[no-untyped-call]

    def work() -> None:
        for name in ("pandas", "scipy.spatial.transform", "skimage.color.colorconv", "skimage.exposure"):
            with suppress(ImportError):  # of a version of napari that does without
                import_module(name)
        with suppress(ImportError, AttributeError):
            # The patterns of dashed lines, which the first layer of labels computes for a fifth of a second.
            import_module("vispy.visuals.line.dash_atlas").DashAtlas()

    # Python waits for its end, because exiting during an import would abort.
    thread = threading.Thread(target=work, name="prepare-layers")
    thread.start()
    return thread


class _Colours(DirectLabelColormap):  # type: ignore[misc]
    """The same colours as napari's, which takes a tenth of a second for the 65,536 numbers that a label may have."""

    def _map_precast(self, values: NDArray[Any], apply_selection: bool) -> NDArray[np.float32]:
        colours = self._values_mapping_to_minimum_values_set(apply_selection)[1]
        table = np.zeros((max(colours) + 1, 4), np.float32)
        for value, colour in colours.items():
            table[value] = colour
        mapped: NDArray[np.float32] = table[values]
        return mapped


def label_colours(classes: Iterable[LabelClass]) -> DirectLabelColormap:
    """The colours of the classes; explicit background is translucent, numbers without a class are white."""
    colours: dict[int | None, Any] = {None: "white", 0: "transparent", BACKGROUND: (0.5, 0.6, 0.8, 0.35)}
    colours.update({entry.number: entry.colour for entry in classes})
    return _Colours(color_dict=colours)


def certainty_colours() -> Colormap:
    """A colormap for confidence: red where it is low, transparent where it is high."""
    return Colormap(
        [[0.9, 0.1, 0.1, 0.9], [0.95, 0.7, 0.1, 0.5], [1.0, 1.0, 1.0, 0.0]], controls=[0.0, 0.6, 1.0], name="doubt"
    )


# --- the case of a layer: readers put it into the metadata, the panel and the writers read it from there ------------

CASE_KEY = "napari-dinoaugseg"
"""Key in `layer.metadata`."""


def case_metadata(case: Case) -> dict[str, Any]:
    """Metadata of a layer whose data are in the display order of the case."""
    return {CASE_KEY: case}


def case_in(metadata: Mapping[str, Any]) -> Case | None:
    """The case in a layer's metadata, or None."""
    found = metadata.get(CASE_KEY)
    return found if isinstance(found, Case) else None


def case_of(layer: Any) -> Case | None:
    """The case in the metadata of a layer, or None."""
    return case_in(layer.metadata)


def awaiting_case() -> dict[str, Any]:
    """Metadata of a layer that waits for a case which is being read."""
    return {CASE_KEY: None}


def awaits_case(layer: Any) -> bool:
    """Whether a layer waits for a case which is being read."""
    return CASE_KEY in layer.metadata and layer.metadata[CASE_KEY] is None


def case_of_layer(layer: Any, plane: Plane | None = None) -> Case:
    """The case in the metadata of an image layer, or else a case made of its pixels.

    Args:
        layer: the chosen layer; None if there is none.
        plane: the slicing plane; None keeps it.

    Raises:
        CaseError: the layer is not an image, or not a single volume or picture.
    """
    if layer is None:
        msg = "The viewer has no image yet. Open a file or folder, or drop an image into the viewer."
        raise CaseError(msg)
    if not isinstance(layer, Image):
        msg = f"The layer '{layer.name}' is not an image. Select an image layer, or open a file."
        raise CaseError(msg)
    if awaits_case(layer):
        msg = f"The layer '{layer.name}' waits for a case that is still being read."
        raise CaseError(msg)
    made = case_of(layer)
    if made is not None:
        return made if plane in (None, made.plane) else case_in_plane(made, plane)
    return case_from_array(
        layer.data, spacing=spacing_in(layer.scale, layer.units), name=layer.name, is_rgb=bool(layer.rgb), plane=plane
    )


def case_of_layers(layers: Sequence[Any]) -> Case:
    """The case of an image layer, or of several as the sequences of one case.

    These are called as when their files are opened, or like the layers where they are of no files or were renamed.

    Args:
        layers: all opened from files, whose positions are then known, or all of the same voxels in the viewer. The
            first gives the grid.

    Raises:
        CaseError: as for `case_of_layer`; colours, or layers that do not lie on each other.
    """
    first = layers[0]
    if len(layers) == 1:
        return case_of_layer(first)
    cases = [case_of_layer(layer) for layer in layers]
    volumes = [case for case in cases if isinstance(case, VolumeCase) and len(case.sequences) == 1]
    for layer, case in zip(layers, cases, strict=True):
        if case not in volumes:
            msg = f"The layer '{layer.name}' is not a single volume. Select layers of which each is one sequence."
            raise CaseError(msg)
        shape, extent = np.shape(layer.data), layer.extent.world
        of_files = case_of(layer) is not None
        if of_files != (case_of(first) is not None) or not (
            of_files or (shape == np.shape(first.data) and np.allclose(extent, first.extent.world))
        ):
            msg = (
                f"The layers '{first.name}' and '{layer.name}' do not have the same voxels in the same place, so they "
                "are not sequences of one case. Open their files: position and voxel size are then known."
            )
            raise CaseError(msg)
    files = [case.path for case in cases]
    if case_of(first) is not None and all(layer.name == case.name for layer, case in zip(layers, cases, strict=True)):
        names = own_names(files, [None] * len(files), volumes)
        return join_sequences(volumes, names, shared_name(files, names))
    return join_sequences(volumes, check_names([layer.name for layer in layers], files))


def case_in_plane(case: Case, plane: Plane) -> VolumeCase:
    """The same volume sliced along another plane: same voxels, same mapping to the file.

    Raises:
        CaseError: the case consists of pictures, which have only one plane.
    """
    if not isinstance(case, VolumeCase):
        msg = f"{case.name}: these are pictures, not a volume. They cannot be cut along another plane."
        raise CaseError(msg)
    return case.in_plane(plane)


def shows_alike(case: Case, plane: Plane) -> bool:
    """Whether a case has the same display array in another plane; True for pictures, which have one plane."""
    return not isinstance(case, VolumeCase) or case.shows_alike(plane)


def spacing_in(scale: Sequence[float], units: Sequence[Any] | None) -> tuple[float, ...] | None:
    """The voxel size in mm along each axis of a layer, from its scale and units; None where it is unknown.

    A scale in pixels counts as millimetres, because plugins without support for units mean it so; a scale of 1 pixel
    counts as unknown.
    """
    sizes = [abs(float(size)) for size in scale]
    factors = [_millimetres(unit) for unit in units] if units is not None else [None] * len(sizes)
    if all(factor is None for factor in factors) and all(size == 1 for size in sizes):
        return None
    return tuple(size * (factor or 1.0) for size, factor in zip(sizes, factors, strict=True))


def _millimetres(unit: Any) -> float | None:
    """The length of a unit in millimetres; None if it is not a length (pixels)."""
    import pint

    try:
        return float(pint.Quantity(1, str(unit)).to("mm").magnitude)
    except (pint.DimensionalityError, pint.UndefinedUnitError):
        return None


# --- which way up ---------------------------------------------------------------------------------------------------
#
# The camera is turned, never the data, to the radiological convention: the patient's right on the left of the screen,
# anterior at the top of axial slices and on the left of sagittal ones, the head at the top of coronal and sagittal
# ones. The depth axis follows from both, so that a volume in 3-D is not mirrored.

Directions = tuple[str, str, str]
"""The anatomical directions of the three display axes: R, L, A, P, H (head) or F (feet)."""

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "H": "F", "F": "H"}
_VECTORS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}  # LPS
_TOP, _RIGHT = "HAR", "LPH"  # directions that point to the top and to the right of the screen
_EDGES = {"left": "middle_left", "right": "middle_right", "top": "top_center", "bottom": "bottom_center"}
_BLANK = " "  # the letter of an edge before it is known
_COVERING = ("inserted", "removed", "reordered", "visible")  # layer events after which another image may cover ours
_MOVING = ("scale", "rotate", "shear", "affine")  # layer events that change its position in the world


def directions_of(case: Case) -> Directions | None:
    """The directions of the display axes of a case, for an oblique volume the closest ones.

    None for pictures, and where the file does not record the orientation.
    """
    if not isinstance(case, VolumeCase) or isinstance(case, ArrayCase) or not case.grid.known:
        return None
    if case.plane is not Plane.NATIVE:
        return "H", "P", "L"
    codes = case.grid.axcodes.replace("S", "H").replace("I", "F")
    return codes[2], codes[1], codes[0]


def camera_orientation(directions: Directions, axes: Sequence[int], *, as_stored: bool = False) -> tuple[str, str, str]:
    """The camera's orientation: the directions on the screen of increasing depth, row and column.

    Args:
        directions: of the display axes.
        axes: the display axes shown in depth, vertically and horizontally: a permutation of 0, 1, 2.
        as_stored: keep the first row at the top and the first column on the left.
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
    _, down, across = orientation
    bottom = vertical if down == "down" else _OPPOSITE[vertical]
    right = horizontal if across == "right" else _OPPOSITE[horizontal]
    return {"left": _OPPOSITE[right], "right": right, "top": _OPPOSITE[bottom], "bottom": bottom}


def view_from_the_front(directions: Directions, axes: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Where a camera in 3-D looks that stands in front of the patient, and what is up for it.

    Args:
        directions: of the display axes.
        axes: the display axes in the order in which napari displays them.

    Returns:
        Two unit vectors along ``axes``: towards the back of the patient, and towards the head.
    """
    along = np.array([_VECTORS[directions[axis]] for axis in axes])
    towards, up = along @ _VECTORS["P"], along @ _VECTORS["H"]
    return tuple(towards.tolist()), tuple(up.tolist())


def light_from_the_front(directions: Directions | None) -> tuple[float, float, float]:
    """The direction to a lamp above the patient's head, in front, on the right; a unit vector along the display axes.

    Where the directions are unknown, to one before the first voxel.
    """
    lamp = np.add(_VECTORS["A"], np.add(_VECTORS["H"], _VECTORS["R"]))
    along = (-1, -1, -1) if directions is None else [np.dot(_VECTORS[name], lamp) for name in directions]
    z, y, x = (float(value) for value in np.array(along) / np.linalg.norm(along))
    return z, y, x


@contextmanager
def no_collection() -> Iterator[None]:
    """Let napari remove layers in this block without looking for garbage among all objects of the program.

    napari does so after each removal (0.9.2), which takes 0.2 to 0.5 s among PyTorch's objects. Python collects what
    the layers leave later. Not on Windows, where napari does it against crashes of OpenGL, and not for layers that hold
    volumes of their own, whose memory shall be free at once.
    """
    if sys.platform == "win32" or gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def remove_layers(viewer: Any, layers: Sequence[Layer]) -> None:
    """Remove layers from the viewer, all at once, because napari collects garbage after each removal."""
    there = [layer for layer in layers if layer in viewer.layers]
    batch = getattr(viewer.layers, "batched_update", nullcontext)  # since napari 0.7
    if there:
        with batch():
            for layer in there:
                viewer.layers.remove(layer)


def show_layers(viewer: Any, layers: Iterable[Layer], visible: bool) -> None:
    """Show or hide layers, all at once, because napari arranges all that it draws again after each one."""
    batch = getattr(viewer.layers, "batched_update", nullcontext) if sys.platform != "win32" else nullcontext
    canvas: Any = canvas_widget(viewer)
    if canvas is not None and canvas.isValid():
        canvas.makeCurrent()  # the end of a batch empties vispy's queue into the context that is current
    with no_collection(), batch():
        for layer in layers:
            layer.visible = visible


def camera_of(viewer: Any) -> Any:
    """The camera of a viewer, which napari 0.9 moved into the scene."""
    return getattr(viewer, "scene", viewer).camera


class Shown(Protocol):
    """A case in a viewer, as :class:`Orientation` sees it; `CaseLayers` is one."""

    viewer: Any
    case: Case
    image: Image | None

    @property
    def own(self) -> list[Layer]:
        """The layers of the case that are in the viewer."""

    @property
    def shows_slices(self) -> bool:
        """Whether whole slices are in view."""


class Orientation:
    """Turns the camera for one case and shows direction letters at the edges, while the case is in the viewer.

    The person may turn the camera too: then the letters follow, and that orientation is restored when the case leaves.
    """

    def __init__(self, layers: Shown, *, with_letters: bool = True) -> None:
        self._has_letters = with_letters  # else they come with :meth:`show_letters`, or the case that it is passed to
        self._before: tuple[str, str, str] | None = None  # the person's orientation; None while inactive
        self._turning = False
        self._serve(layers)

    def pass_to(self, layers: Shown) -> None:
        """Serve another case in the same viewer, after :meth:`begin`.

        New letters take napari a tenth of a second, because their shaders are compiled.
        """
        self._has_letters = True
        self._serve(layers)

    def _serve(self, layers: Shown) -> None:
        self._layers = layers
        case = layers.case
        self._directions = directions_of(case)
        self._is_loop = isinstance(case, VolumeCase) and case.grid.in_time

    def begin(self) -> None:
        """Turn the camera now, and whenever napari's axes are rolled or transposed."""
        if self._before is not None:
            if self._directions is None:
                self.end()
            else:
                self._turn()
            return
        if self._directions is None:
            remove_letters(self._layers.viewer)  # that were made before the case was read
        camera = camera_of(self._layers.viewer)
        if self._directions is None or not hasattr(camera, "orientation"):
            return
        self._before = _words(camera.orientation)
        for emitter, follow in self._followed():
            emitter.connect(follow)
        self._turn()

    def end(self) -> None:
        """Restore the person's camera orientation and remove the letters."""
        if self._before is None:
            return
        for emitter, follow in self._followed():
            emitter.disconnect(follow)
        before, self._before = self._before, None
        viewer = self._layers.viewer
        if hasattr(viewer, "window") and canvas_widget(viewer) is None:  # closed: vispy would draw on what is deleted
            return
        self._set(before)
        remove_letters(self._layers.viewer)

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

    def show_letters(self) -> None:
        """Show the letters, if they were left out so far."""
        self._has_letters = True
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
        """The display axes in depth, vertically and horizontally; None where something else is displayed."""
        dims, image = self._layers.viewer.dims, self._layers.image
        more = dims.ndim - 3  # leading axes of other layers
        vertical, horizontal = (axis - more for axis in dims.order[-2:])
        if image is None or min(more, vertical, horizontal) < 0 or not _is_straight(image):
            return None
        if self._is_loop and not self._layers.shows_slices:
            return None  # one of the axes in view is time
        (depth,) = {0, 1, 2} - {vertical, horizontal}
        if dims.ndisplay == 3 and dims.order[-3] - more != depth:
            return None
        return depth, vertical, horizontal

    # --- letters ----------------------------------------------------------------------------------------------------

    def _show_letters(self) -> None:
        overlays = overlays_of(self._layers.viewer)
        if overlays is None or not self._has_letters:
            return
        axes, letters = self._axes(), {}
        if axes is not None and self._directions is not None and self._is_in_view():
            orientation = _words(camera_of(self._layers.viewer).orientation)
            letters = edge_letters(self._directions, axes, orientation)
        for edge, position in _EDGES.items():
            if _name(edge) not in overlays:
                overlays[_name(edge)] = _letter(position)
            overlay = overlays[_name(edge)]
            text, is_shown = letters.get(edge, ""), bool(letters)
            if (overlay.text, overlay.visible) != (text, is_shown):  # napari draws them again in any case
                overlay.text, overlay.visible = text, is_shown

    def _is_in_view(self) -> bool:
        """Whether a slice of the case is visible, and its file records left and right."""
        viewer, case, image, own = self._layers.viewer, self._layers.case, self._layers.image, self._layers.own
        if viewer.dims.ndisplay == 3 or not isinstance(case, VolumeCase) or not case.grid.oriented:
            return False
        if image is None or image not in own or not image.visible:
            return False
        above = list(viewer.layers)[viewer.layers.index(image) + 1 :]
        return not any(isinstance(layer, Image) and layer.visible and layer not in own for layer in above)


def letters_ahead(viewer: Any) -> list[Callable[[], None]]:
    """Steps in which napari makes what draws the letters, which takes it long the first time; they are blank."""

    def make(edge: str, position: str) -> None:
        if _name(edge) not in overlays:
            overlays[_name(edge)] = _letter(position)
            overlays[_name(edge)].text, overlays[_name(edge)].visible = _BLANK, True

    overlays = overlays_of(viewer)
    if overlays is None:
        return []
    return [partial(load_letters, viewer, _BLANK), *(partial(make, *one) for one in _EDGES.items())]


def remove_letters(viewer: Any) -> None:
    """Remove the letters from the canvas."""
    overlays = overlays_of(viewer)
    for edge in _EDGES if overlays is not None else ():
        if _name(edge) in overlays:
            del overlays[_name(edge)]


def _letter(position: str) -> Any:
    from napari.components.overlays import TextOverlay

    return TextOverlay(position=position, font_size=14, box=True)


def _name(edge: str) -> str:
    return f"dinoaugseg_{edge}"


def _words(orientation: Sequence[Any]) -> tuple[str, str, str]:
    depth, vertical, horizontal = (str(one) for one in orientation)
    return depth, vertical, horizontal


def _is_straight(image: Image) -> bool:
    """Whether the image axes are the world axes, which they are not if someone mirrored or rotated the layer."""
    origin = np.array(image.data_to_world((0, 0, 0)))
    steps = np.array([image.data_to_world(tuple(step)) for step in np.eye(3)]) - origin
    along = np.diag(steps)
    return bool((along > 0).all() and np.allclose(steps, np.diag(along), atol=1e-6 * along.max()))
