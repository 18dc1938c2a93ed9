"""How a study looks in napari: arrays, scales, colours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_dinoaugseg.gui.encoding import BACKGROUND
from napari_dinoaugseg.session.classes import LabelClass
from napari_dinoaugseg.study import PictureStudy, Plane, Study, VolumeStudy, choose_window

AXIS = {Plane.AXIAL: 0, Plane.CORONAL: 1, Plane.SAGITTAL: 2, Plane.NATIVE: 0}
"""The axis of the display (z, y, x) across which a plane is cut."""

_IN_MEMORY = 256 * 2**20  # bytes of pictures that are loaded at once; more are loaded as they are looked at


def axis_order(axis: int) -> tuple[int, int, int]:
    """Napari's order of the axes that shows slices across ``axis``."""
    return {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 0, 1)}[axis]


def stack_shape(study: Study) -> tuple[int, int, int]:
    """Shape of the label layers: the display (z, y, x) of a volume, or a stack that holds the largest picture."""
    count = study.n_slices if study.kind == "pictures" else 1
    sizes = np.array([study.slice_shape(index) for index in range(count)])
    shape = [int(sizes[:, 0].max()), int(sizes[:, 1].max())]
    shape.insert(AXIS[study.plane], study.n_slices)
    return shape[0], shape[1], shape[2]


def display_of(study: Study) -> tuple[Any, bool, tuple[float, float, float], list[str]]:
    """The image to show: data, whether it is colour, scale, units. Pictures are padded to the largest one."""
    if isinstance(study, VolumeStudy):
        unit = "mm" if study.grid.known else "pixel"
        return study.display, study.is_colour, study.display_scale, [unit] * 3
    rgb = isinstance(study, PictureStudy) and study.has_colour
    return _picture_stack(study, rgb), rgb, (1.0, 1.0, 1.0), ["pixel"] * 3


def _picture_stack(study: Study, rgb: bool) -> Any:
    count, height, width = stack_shape(study)
    shape = (height, width, 3) if rgb else (height, width)
    dtype = np.dtype(np.uint8 if study.is_byte else np.float32)

    def padded(index: int) -> np.ndarray[Any, Any]:
        picture = study.slice(index)
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


def window_of(study: Study, name: str) -> tuple[float, float] | None:
    """Contrast limits for a grey study: the window in which the encoder sees it. None for colour."""
    if study.is_colour:
        return None
    window = choose_window(study, name)
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
