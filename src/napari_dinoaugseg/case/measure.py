"""Lengths and angles on a slice, in mm where the size of its pixels is known, else in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import Case

Kind = Literal["distance", "angle", "long axis"]
Point = tuple[float, float]
"""(row, column) in pixels of the slice; the centre of the first pixel is (0, 0)."""

_POINTS: Mapping[str, int] = {"distance": 2, "angle": 3, "long axis": 2}


@dataclass(frozen=True)
class Measure:
    """One measurement on one slice.

    Attributes:
        kind: ``distance``, ``angle`` or ``long axis``.
        index: the slice.
        points: two ends, or for an angle an end, the vertex and the other end.
        number: the class of a long axis; 0 for others.
    """

    kind: Kind
    index: int
    points: tuple[Point, ...]
    number: int = 0


def distance(points: Sequence[Point], spacing: tuple[float, float] | None) -> float:
    """The distance of two points in mm, or in pixels without a spacing.

    Args:
        points: the two.
        spacing: (row, column) distance of pixels in mm.
    """
    rows, columns = spacing or (1.0, 1.0)
    (row, column), (other_row, other_column) = points
    return math.hypot((other_row - row) * rows, (other_column - column) * columns)


def angle(points: Sequence[Point], spacing: tuple[float, float] | None) -> float:
    """The angle at the second of three points, 0 to 180 degrees; nan where two of them coincide.

    Args:
        points: an end, the vertex, the other end.
        spacing: (row, column) distance of pixels in mm; without one pixels count as square.
    """
    first, vertex, last = np.asarray(points, float) * (spacing or (1.0, 1.0))
    one, other = first - vertex, last - vertex
    if not one.any() or not other.any():
        return math.nan
    return math.degrees(math.atan2(abs(one[0] * other[1] - one[1] * other[0]), one @ other))


def long_axis(mask: NDArray[np.bool_], spacing: tuple[float, float] | None) -> tuple[Point, Point] | None:
    """The ends of the longest straight line between two points of the border of a mask: its largest diameter.

    The border runs through the middles of the edges of pixels, as an isoline at one half does, so that a row of n
    square pixels is n pixels long. Of a mask in several parts the largest is measured.

    Args:
        mask: (H, W).
        spacing: (row, column) distance of pixels in mm; without one pixels count as square.

    Returns:
        Two points; None for an empty mask.
    """
    from scipy.ndimage import binary_erosion, label
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist, squareform

    parts, count = label(mask, np.ones((3, 3)))
    if count == 0:
        return None
    part = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    border = np.argwhere(part & ~binary_erosion(part)).astype(float)
    around = np.concatenate([border + step for step in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))])
    corners = around[ConvexHull(around).vertices]
    lengths = squareform(pdist(corners * (spacing or (1.0, 1.0))))
    one, other = np.unravel_index(lengths.argmax(), lengths.shape)
    ends = [(float(row), float(column)) for row, column in corners[[one, other]]]
    return ends[0], ends[1]


def value_of(measure: Measure, case: Case) -> tuple[float, str]:
    """The value of a measure and its unit: ``mm``, ``px`` or ``degrees``."""
    spacing = case.slice_spacing(measure.index)
    if measure.kind == "angle":
        return angle(measure.points, spacing), "degrees"
    return distance(measure.points, spacing), "px" if spacing is None else "mm"


def measures_to_plain(measures: Iterable[Measure]) -> list[dict[str, Any]]:
    """Measures as JSON values."""
    return [{**asdict(one), "points": [list(point) for point in one.points]} for one in measures]


def measures_from(values: Any, n_slices: int) -> list[Measure]:
    """Measures from JSON values; what is none, or of a slice that does not exist, is left out."""
    found = (_from_plain(value, n_slices) for value in (values if isinstance(values, list) else []))
    return [measure for measure in found if measure is not None]


def _from_plain(value: Any, n_slices: int) -> Measure | None:
    if not isinstance(value, dict) or value.get("kind") not in get_args(Kind):
        return None
    try:
        index, number = int(value["index"]), int(value.get("number", 0))
        points = tuple((float(row), float(column)) for row, column in value["points"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    is_whole = len(points) == _POINTS[value["kind"]] and bool(np.isfinite(points).all())
    return Measure(value["kind"], index, points, number) if is_whole and 0 <= index < n_slices else None
