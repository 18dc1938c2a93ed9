"""How the labels of a slice stand in napari's layer.

In the layer, 0 means "nothing was said here" (that is what the eraser leaves), a class is its number, and a value of
its own is explicit background. So a slice of zeros is unlabelled, and one that is background all over is labelled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.session.labels import UNKNOWN, Labels, SliceLabels

BACKGROUND = 65535
"""Explicit background in the layer. No class can have this number."""


def to_layer(said: SliceLabels, shape: tuple[int, int], *, explicit: bool = False) -> Labels:
    """Values (H, W) for the layer from what the person said about a slice.

    Args:
        said: the label book's entry.
        shape: (H, W).
        explicit: write background as such everywhere, so that it is seen beside slices with scribbles.
    """
    labels = said.manual if said.manual is not None else said.accepted
    if labels is None:
        return np.zeros(shape, np.uint16)
    unknown = labels == UNKNOWN
    if explicit or unknown.any() or not labels.any():
        return np.where(unknown, 0, np.where(labels == 0, BACKGROUND, labels)).astype(np.uint16)
    return labels


def from_layer(values: NDArray[np.integer], *, scribbles: bool) -> Labels | None:
    """The manual labels (H, W) that the layer's values mean; None where nothing is labelled.

    Args:
        values: (H, W) of the layer.
        scribbles: unpainted pixels are unknown; otherwise they are background.
    """
    if not values.any():
        return None
    labels = values.astype(np.uint16)
    nothing = values == 0
    labels[values == BACKGROUND] = 0
    if scribbles:
        labels[nothing] = UNKNOWN
    return labels


def is_shown(said: SliceLabels, values: NDArray[np.integer], *, scribbles: bool) -> bool:
    """Whether the layer's values (H, W) mean what the person said about a slice."""
    labels = said.manual if said.manual is not None else said.accepted
    if (
        labels is not None
        and not scribbles
        and 0 < labels.max(initial=0) < BACKGROUND
        and np.array_equal(labels, values)
    ):
        return True  # as most slices are; this is called for hundreds at once
    return same_labels(labels, from_layer(values, scribbles=scribbles))


def is_scribbled(said: SliceLabels) -> bool:
    """Whether pixels of a slice that is labelled by hand were left open."""
    return said.manual is not None and bool((said.manual == UNKNOWN).any())


def same_labels(one: Labels | None, other: Labels | None) -> bool:
    """Whether both are the same labels, or none."""
    if one is None or other is None:
        return one is other
    return one is other or np.array_equal(one, other)
