"""How a case looks in napari (arrays, scales, colours), and how a layer remembers its case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_dinoaugseg.case import Case, PictureCase, Plane, VolumeCase, choose_window
from napari_dinoaugseg.errors import CaseError
from napari_dinoaugseg.session.labels import BACKGROUND, LabelClass

if TYPE_CHECKING:
    from napari_dinoaugseg.case import Case, Plane, VolumeCase

AXIS = {Plane.AXIAL: 0, Plane.CORONAL: 1, Plane.SAGITTAL: 2, Plane.NATIVE: 0}
"""The axis of the display (z, y, x) across which a plane is cut."""

_IN_MEMORY = 256 * 2**20  # bytes of pictures that are loaded at once; more are loaded as they are looked at


def axis_order(axis: int) -> tuple[int, int, int]:
    """Napari's order of the axes that shows slices across ``axis``."""
    return {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 0, 1)}[axis]


def stack_shape(case: Case) -> tuple[int, int, int]:
    """Shape of the label layers: the display (z, y, x) of a volume, or a stack that holds the largest picture."""
    count = case.n_slices if case.kind == "pictures" else 1
    sizes = np.array([case.slice_shape(index) for index in range(count)])
    shape = [int(sizes[:, 0].max()), int(sizes[:, 1].max())]
    shape.insert(AXIS[case.plane], case.n_slices)
    return shape[0], shape[1], shape[2]


def display_of(case: Case) -> tuple[Any, bool, tuple[float, float, float], list[str]]:
    """The image to show: data, whether it is colour, scale, units. Pictures are padded to the largest one."""
    if isinstance(case, VolumeCase):
        unit = "mm" if case.grid.known else "pixel"
        return case.display, case.is_colour, case.display_scale, [unit] * 3
    rgb = isinstance(case, PictureCase) and case.has_colour
    return _picture_stack(case, rgb), rgb, (1.0, 1.0, 1.0), ["pixel"] * 3


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
    """Contrast limits for a grey case: the window in which the encoder sees it. None for colour."""
    if case.is_colour:
        return None
    window = choose_window(case, name)
    return (window.low, window.high) if window is not None else (0.0, 255.0)


def label_colours(classes: Iterable[LabelClass]) -> DirectLabelColormap:
    """The classes' colours; explicit background is a thin veil, and a number that is no class yet is white."""
    colours: dict[int | None, Any] = {None: "white", 0: "transparent", BACKGROUND: (0.5, 0.6, 0.8, 0.35)}
    colours.update({entry.number: entry.colour for entry in classes})
    return DirectLabelColormap(color_dict=colours)


def certainty_colours() -> Colormap:
    """Red where the model is unsure, clear where it is sure."""
    return Colormap(
        [[0.9, 0.1, 0.1, 0.9], [0.95, 0.7, 0.1, 0.5], [1.0, 1.0, 1.0, 0.0]], controls=[0.0, 0.6, 1.0], name="doubt"
    )


# How a layer remembers the case it shows: readers put it there, the panel and the writers find it again.
#
# And how a case is made of a layer, or cut along another plane.


CASE_KEY = "napari-dinoaugseg"
"""Key in `layer.metadata`."""


def case_metadata(case: Case) -> dict[str, Any]:
    """Metadata for a layer whose data lie in the display order of the case."""
    return {CASE_KEY: case}


def case_in(metadata: Mapping[str, Any]) -> Case | None:
    """The case that a layer's metadata name, or None."""
    if CASE_KEY not in metadata:
        return None
    from napari_dinoaugseg.case import Case

    found = metadata[CASE_KEY]
    return found if isinstance(found, Case) else None


def case_of(layer: Any) -> Case | None:
    """The case that a layer shows, or None when the layer is not ours."""
    return case_in(layer.metadata)


def case_of_layer(layer: Any, plane: Plane | None = None) -> Case:
    """The case that a layer shows; where nobody left one, a case of its pixels.

    Args:
        layer: what the person chose; None = there is nothing to choose.
        plane: direction of the slices; None leaves it as it is.

    Raises:
        CaseError: it is no image, or no single volume or picture.
    """
    from napari.layers import Image

    if layer is None:
        msg = "There is no image yet. Open a file or folder, or drop an image into the viewer."
        raise CaseError(msg)
    if not isinstance(layer, Image):
        msg = f"The layer '{layer.name}' is no image. Select an image layer, or open a file."
        raise CaseError(msg)
    made = case_of(layer)
    if made is not None:
        return made if plane in (None, made.plane) else case_in_plane(made, plane)
    from napari_dinoaugseg.case.array import case_from_array

    return case_from_array(
        layer.data, spacing=spacing_in(layer.scale, layer.units), name=layer.name, is_rgb=bool(layer.rgb), plane=plane
    )


def case_in_plane(case: Case, plane: Plane) -> VolumeCase:
    """The same volume cut along another plane: the same voxels, the same way back into the file.

    Raises:
        CaseError: pictures have no other plane.
    """
    from napari_dinoaugseg.case import VolumeCase

    if not isinstance(case, VolumeCase):
        msg = f"{case.name}: these are pictures, not a volume. They cannot be cut along another plane."
        raise CaseError(msg)
    return case.in_plane(plane)


def shows_alike(case: Case, plane: Plane) -> bool:
    """Whether a case is displayed by the same array in another plane; pictures have only one."""
    from napari_dinoaugseg.case import VolumeCase

    return not isinstance(case, VolumeCase) or case.shows_alike(plane)


def spacing_in(scale: Sequence[float], units: Sequence[Any] | None) -> tuple[float, ...] | None:
    """The voxel size in mm along each axis of a layer, from its scale and units; None where it is unknown.

    A scale in pixels counts as millimetres, as plugins that know no units mean it; a scale of 1 in pixels says nothing.
    """
    sizes = [abs(float(size)) for size in scale]
    factors = [_millimetres(unit) for unit in units] if units is not None else [None] * len(sizes)
    if all(factor is None for factor in factors) and all(size == 1 for size in sizes):
        return None
    return tuple(size * (factor or 1.0) for size, factor in zip(sizes, factors, strict=True))


def _millimetres(unit: Any) -> float | None:
    """How many millimetres one unit is; None when it is no length (pixels)."""
    import pint

    try:
        return float(pint.Quantity(1, str(unit)).to("mm").magnitude)
    except (pint.DimensionalityError, pint.UndefinedUnitError):
        return None
