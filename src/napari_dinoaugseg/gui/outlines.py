"""Masks drawn as outlines, as wide as the usual zoom asks for, at a cost that no step between slices shows.

napari draws outlines itself, by morphology on the whole slice: 9 ms for 512 × 512 pixels, 150 ms and more for a
radiograph. A comparison of neighbours within the bounding box of the mask takes a tenth of that and draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

_PIXELS_A_WIDTH = 256
"""Pixels of the shorter side of a slice for each pixel of the outline, which is then about 3 wide on the screen."""

_TOOLS = {"polygon": "polygon", "brush_stroke": "paint"}  # napari's names of what is drawn, and of the tool


def outline_width(shape: Sequence[int]) -> int:
    """The width of an outline in pixels of a slice (H, W), at least 1."""
    return max(1, round(min(shape) / _PIXELS_A_WIDTH))


def outline(labels: NDArray[Any], width: int) -> NDArray[Any]:
    """The outlines of the classes in a label image.

    Args:
        labels: (H, W), 0 = background.
        width: pixels, at least 1, drawn on the inside.

    Returns:
        (H, W): the labels that lie within `width` pixels of another label, 0 elsewhere. The border of the image is no
        outline.
    """
    drawn = np.zeros_like(labels)
    box = _bounding_box(labels)
    if box is None:
        return drawn
    inside = labels[box]
    edge = np.zeros(inside.shape, np.uint8)
    below, beside = inside[1:] != inside[:-1], inside[:, 1:] != inside[:, :-1]
    edge[1:] |= below
    edge[:-1] |= below
    edge[:, 1:] |= beside
    edge[:, :-1] |= beside
    if width > 1:
        from scipy.ndimage import maximum_filter1d

        for axis in (0, 1):
            edge = maximum_filter1d(edge, 2 * width - 1, axis=axis)
    drawn[box] = np.where(edge, inside, 0)
    return drawn


def _bounding_box(labels: NDArray[Any]) -> tuple[slice, slice] | None:
    """The box around all labels and one pixel of what surrounds them; None without any."""
    rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
    if not len(rows):
        return None
    top, left = max(0, rows[0] - 1), max(0, columns[0] - 1)
    return slice(top, rows[-1] + 2), slice(left, columns[-1] + 2)


def draw_outlines(layer: Labels) -> None:
    """Let a layer draw its outlines with :func:`outline` while its `contour` is above 0; its data stay as they are.

    With a napari that computes them elsewhere nothing changes.
    """
    if hasattr(layer, "_calculate_contour"):
        layer._calculate_contour = partial(_contour_of, layer)


def make_tools_late(layer: Labels) -> None:
    """Let napari make what its polygon, and its outline that fills itself, draw when the person chooses their tools.

    They take longer to make than the rest of a layer, and are drawn in each frame, though most layers never need them.

    Args:
        layer: not in a viewer yet.
    """
    overlays: Any = getattr(layer, "_overlays", {})
    tools = {name: mode for name, mode in _TOOLS.items() if name in overlays}
    for name in tools:
        overlays[name].visible = False

    def make(_: object) -> None:
        for name, mode in tools.items():
            if layer.mode == mode:
                overlays[name].visible = True

    layer.events.mode.connect(make)


def _contour_of(layer: Labels, labels: NDArray[Any], part: tuple[slice, ...]) -> NDArray[Any] | None:
    """What napari draws of a part of a slice (H, W); None where it draws the labels themselves."""
    if layer.contour < 1 or labels.ndim > 2:  # in 3-D napari would warn each time
        return None
    drawn: NDArray[Any] = outline(np.asarray(labels), int(layer.contour))[part]
    return drawn
