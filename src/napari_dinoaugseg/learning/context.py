"""With which neighbours a slice goes to the encoder, in the channels in which colour would be.

Where slices are thin, the next ones show where a border goes on, and those a little farther off show it more clearly;
where slices are thick, the next one is another picture.
"""

from __future__ import annotations

import numpy as np

from napari_dinoaugseg.study import Slices
from napari_dinoaugseg.study.intensity import Scale, to_unit_rgb

_FARTHEST = 2
"""In slices. In trials the left atrium, whose slices are most alike, gained more by this than by 1 and by 3."""

_ALIKE = 0.8
"""Correlation from which on a neighbour helps. In trials on public volumes thick slices of the heart (0.6 to 0.75) lost
a little by it; the spleen at 5 mm (0.89) and everything thinner gained."""
_PAIRS = 16  # to look at, evenly over the volume


def neighbour_distance(study: Slices, window: Scale, wanted: int | None = None) -> int:
    """How far the neighbours are that a slice is encoded with, in slices; 0 = it is encoded alone.

    Args:
        study: the study. Pictures have no neighbours, and colour has no channels left.
        window: how its grey values become 0 to 1.
        wanted: what the person says; None takes the farthest neighbours that are alike.
    """
    if study.kind != "volume" or study.is_colour:
        return 0
    if wanted is not None:
        return min(wanted, study.n_slices - 1)
    distance = 0
    while distance < min(_FARTHEST, study.n_slices - 1) and likeness(study, window, distance + 1) >= _ALIKE:
        distance += 1
    return distance


def likeness(study: Slices, window: Scale, distance: int = 1) -> float:
    """Median correlation, -1 to 1, of slices of a volume that are so far apart; 0 where no two show anything."""
    found = []
    for i in np.unique(np.linspace(0, study.n_slices - 1 - distance, _PAIRS).round().astype(int)):
        _, after = study.neighbours(int(i), distance)
        here, there = (to_unit_rgb(study.slice(n), window)[0].ravel() for n in (int(i), after))
        if after == i + distance and here.std() and there.std():
            found.append(float(np.corrcoef(here, there)[0, 1]))
    return float(np.median(found)) if found else 0.0
