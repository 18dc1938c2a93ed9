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
        explicit: write background as such everywhere, so that it stays background on a slice with scribbles.
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


def is_scribbled(said: SliceLabels, default: bool) -> bool:
    """Whether unpainted pixels of a slice are unknown: as it was begun, else by the mode that is on now."""
    if said.manual is not None:
        return bool((said.manual == UNKNOWN).any())
    return default if said.accepted is None else False
