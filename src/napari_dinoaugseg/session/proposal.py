"""A proposal for all pixels of a slice, made from the strokes on it.

On a slice that had no labels, completion decides about every pixel. On a slice that was labelled before its strokes,
the classes on it are finished: completion sees them, but only fills what is free, and only from the new strokes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.case import Case, choose_window
from napari_dinoaugseg.case.intensity import to_unit
from napari_dinoaugseg.learning.completion import complete
from napari_dinoaugseg.session.labels import UNKNOWN, Labels, Strokes

_AROUND = 0.25  # of the size of the strokes: how far from them finished classes are seen


def has_background(strokes: Strokes) -> bool:
    """Whether a stroke is background."""
    return bool((strokes.marks == 0).any())


def has_class(strokes: Strokes) -> bool:
    """Whether a stroke is one of a class."""
    return bool(((strokes.marks != 0) & (strokes.marks != UNKNOWN)).any())


def propose(image: NDArray[Any], strokes: Strokes) -> Labels | None:
    """Propose labels for a slice.

    Strokes keep their class. Without a stroke of the background nothing says where a class ends, so there is no
    proposal; neither is there one without a stroke of a class.

    Args:
        image: (H, W) or (H, W, 3), see :func:`unit_image`.
        strokes: on the slice.

    Returns:
        (H, W) class numbers, 0 = background; None without a proposal.

    Raises:
        LabelError: the strokes do not have the size of the image.
    """
    if not (has_background(strokes) and has_class(strokes)):
        return None
    marks, base = strokes.marks, strokes.base
    if base is None:
        return complete(image, marks)
    free = (base == 0) | (base == UNKNOWN)
    finished = ~free & (marks == UNKNOWN) & _near(marks)
    found = complete(image, np.where(finished, base, marks))
    labels = np.where(free, 0, base).astype(np.uint16)
    for number in np.unique(marks[marks != UNKNOWN]):
        if number != 0:
            parts, count = ndimage.label(((found == number) & free) | (marks == number))
            held = np.zeros(count + 1, bool)
            held[parts[marks == number]] = True
            labels[held[parts]] = number
    drawn = marks != UNKNOWN
    labels[drawn] = marks[drawn]
    return labels


def _near(marks: Labels) -> NDArray[np.bool_]:
    """The box around the strokes: classes far away would only make the grid of the completion coarser."""
    near = np.zeros(marks.shape, bool)
    places = np.nonzero(marks != UNKNOWN)
    ends = [(int(place.min()), int(place.max()) + 1) for place in places]
    margin = max(2, int(_AROUND * max(stop - start for start, stop in ends)))
    (top, bottom), (left, right) = ends
    near[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = True
    return near


def unit_image(case: Case, index: int, window: str) -> NDArray[np.float32]:
    """A slice scaled to 0..1, (H, W), or (H, W, 3) in colour.

    Args:
        case: the case.
        index: the slice.
        window: the intensity window for grey values, a name as for `choose_window`.

    Raises:
        SettingsError: unknown window.
    """
    return to_unit(case.slice(index), choose_window(case, window))
