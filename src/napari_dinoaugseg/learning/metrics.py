"""Overlap and surface distance between a prediction and the truth.

Dice after Dice (1945); HD95 is the larger of the two directed 95th percentiles of surface distances, ASD the mean of
all surface distances in both directions. Surfaces and distances come from MONAI.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Score:
    """One class in one image.

    Attributes:
        dice: 0 to 1; 1 if the class is in neither mask, 0 if it is in one only.
        hd95: distance in the unit of the spacing; 0 if the class is in neither mask, None if it is in one only.
        asd: likewise, the mean distance.
        voxels: of the class in the prediction.
        truth_voxels: of the class in the truth.
    """

    dice: float
    hd95: float | None
    asd: float | None
    voxels: int
    truth_voxels: int


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice of two masks of one shape, 0 to 1; both empty = 1."""
    size = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(prediction & truth)) / size if size else 1.0


def mean_dice(first: NDArray[np.integer], second: NDArray[np.integer]) -> float | None:
    """The mean Dice, 0 to 1, of two masks of class numbers over the classes in either; None if both are empty."""
    numbers = np.union1d(first, second)
    scores = [dice(first == number, second == number) for number in numbers[numbers > 0]]
    return float(np.mean(scores)) if scores else None


def score(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    counted: NDArray[np.bool_] | None = None,
) -> Score:
    """Dice, HD95 and ASD of one class.

    Args:
        prediction: mask, 2-D or 3-D.
        truth: mask of the same shape.
        spacing: size of a voxel along each axis, usually in mm.
        counted: voxels to count; None = all. Surfaces are those of the whole masks, and only their points in
            ``counted`` are measured, so that leaving out slices adds no surface.
    """
    inside = np.ones_like(truth) if counted is None else counted
    n_prediction, n_truth = int(np.count_nonzero(prediction & inside)), int(np.count_nonzero(truth & inside))
    overlap = dice(prediction & inside, truth & inside)
    if not n_prediction or not n_truth:
        distance = None if n_prediction or n_truth else 0.0
        return Score(overlap, distance, distance, n_prediction, n_truth)
    forth, back = _surface_distances(prediction, truth, spacing, inside)
    if not forth.size or not back.size:
        return Score(overlap, None, None, n_prediction, n_truth)
    hd95 = float(max(np.percentile(forth, 95), np.percentile(back, 95)))
    return Score(overlap, hd95, float(np.concatenate([forth, back]).mean()), n_prediction, n_truth)


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _surface_distances(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float], counted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances from the counted surface points of each mask to the surface of the other."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    region = _bounding_box(prediction | truth)
    # One empty voxel all around: a mask also ends at the border of the volume.
    a, b, inside = (np.pad(mask[region], 1) for mask in (prediction, truth, counted))
    edges_a, edges_b = get_mask_edges(a, b, crop=False)
    distances = []
    for here, there in ((edges_a, edges_b), (edges_b, edges_a)):
        every = np.asarray(get_surface_distance(here, there, "euclidean", spacing=tuple(spacing)), dtype=np.float64)
        distances.append(every[inside[np.asarray(here, dtype=bool)]])
    return distances[0], distances[1]


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(line[0]), int(line[-1]) + 1))
    return tuple(box)
