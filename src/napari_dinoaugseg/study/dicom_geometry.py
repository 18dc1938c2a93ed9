"""Where the slices of a DICOM series lie: sorted by position along the normal, and refused when they make no volume.

Names and rules are those of DICOM PS3.3: Image Plane Module (C.7.6.2). Coordinates are in mm, LPS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.dicom_facts import Slice, number

# Directions may differ by rounding of their text form only.
_SAME_DIRECTION = 1e-3
# Directions written with two or three decimals are unit vectors and at right angles only so far.
_ORTHONORMAL = 1e-2
# Distances between neighbours may differ by this share of a step: positions are often rounded to 0.1 mm or coarser.
_SAME_STEP = 0.1
# Slices less apart (in mm) lie at one position.
SAME_PLACE = 1e-3
# A shift within the slice plane of one step per hundred is about half a degree of gantry tilt.
_TILT = 0.01


@dataclass(frozen=True)
class Header(Slice):
    """One slice whose place in the patient is known.

    Attributes:
        position: of the centre of the first pixel, (3,) in mm.
        orientation: directions of increasing column and row, (6,).
        spacing: distance between rows, and between columns, in mm.
    """

    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """The unit vector across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def parse(slice_: Slice) -> Header:
    """Read the geometry of one slice.

    Raises:
        StudyError: position, orientation or pixel spacing is missing or broken.
    """
    position = _numbers(slice_, "ImagePositionPatient", 3)
    orientation = _numbers(slice_, "ImageOrientationPatient", 6)
    spacing = _numbers(slice_, "PixelSpacing", 2)
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    skew = abs(float(orientation[:3] @ orientation[3:]))
    if np.abs(lengths - 1).max() > _ORTHONORMAL or skew > _ORTHONORMAL or (spacing <= 0).any():
        msg = f"{slice_.place}: its orientation or pixel spacing is broken. Export the series again."
        raise StudyError(msg)
    pixel = (float(spacing[0]), float(spacing[1]))
    return Header(slice_.path, slice_.facts, slice_.frame, position, orientation, pixel)


def _numbers(slice_: Slice, keyword: str, count: int) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(value) for value in slice_.facts.get(keyword) or ()])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.size != count or not np.isfinite(numbers).all():
        msg = (
            f"{slice_.place}: it has no usable {keyword}, so its place in the body is unknown. Export the series again."
        )
        raise StudyError(msg)
    return numbers


def sort_slices(headers: list[Header]) -> list[Header]:
    """Return the slices of one series in order along their normal; neither names nor instance numbers are trusted.

    Raises:
        StudyError: mixed directions, sizes or spacings, duplicate positions, a gap, uneven steps, or a tilted gantry.
    """
    first = headers[0]
    for header in headers[1:]:
        require_alike(first, header)
    normal = first.normal
    ordered = sorted(headers, key=lambda header: (float(header.position @ normal), header.path.name, header.frame or 0))
    if len(ordered) == 1:
        return ordered
    heights = np.array([float(header.position @ normal) for header in ordered])
    _require_even(ordered, heights)
    _require_straight(ordered, heights)
    return ordered


def require_alike(first: Header, header: Header) -> None:
    """Raise `StudyError` unless two slices have one direction, size and pixel spacing."""
    differs = None
    if np.abs(header.orientation - first.orientation).max() > _SAME_DIRECTION:
        differs = "direction"
    elif header.size != first.size:
        differs = f"size ({header.size[1]} x {header.size[0]} and {first.size[1]} x {first.size[0]} pixels)"
    elif max(abs(a - b) for a, b in zip(header.spacing, first.spacing, strict=True)) > 1e-3 * max(first.spacing):
        differs = "pixel spacing"
    if differs is not None:
        msg = (
            f"{header.place}: its {differs} differs from {first.short_place}, so the series is not one volume. "
            "Move scouts and other acquisitions to another folder."
        )
        raise StudyError(msg)


def _require_even(ordered: list[Header], heights: NDArray[np.float64]) -> None:
    steps = np.diff(heights)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: one gap among two steps is a gap
    same = int(steps.argmin())
    if steps[same] < SAME_PLACE or steps[same] < 0.01 * usual:
        msg = (
            f"{_both(ordered[same], ordered[same + 1])} lie at the same position: duplicates, or two time points "
            "(cardiac phases) in one series. Keep one set in the folder."
        )
        raise StudyError(msg)
    worst = int(np.abs(steps - usual).argmax())
    if abs(steps[worst] - usual) > _SAME_STEP * usual:
        between = _both(ordered[worst], ordered[worst + 1])
        if steps[worst] > 1.5 * usual:
            missing = max(1, round(float(steps[worst]) / usual) - 1)
            noun = "slice seems" if missing == 1 else "slices seem"
            what = f"a gap of {steps[worst]:.3g} mm instead of {usual:.3g} mm: {missing} {noun} missing"
        else:
            what = f"{steps[worst]:.3g} mm instead of {usual:.3g} mm: the slices are not evenly spaced"
        msg = f"Between {between} there is {what}. Export the whole series, or resample it."
        raise StudyError(msg)


def _both(a: Header, b: Header) -> str:
    """Name two slices, the folder once where it is the same, and so the file."""
    if a.path == b.path:
        return f"{a.path}, frames {a.frame} and {b.frame}" if a.frame != b.frame else f"{a.path} and itself"
    return f"{a.place} and {b.short_place if a.path.parent == b.path.parent else b.place}"


def _require_straight(ordered: list[Header], heights: NDArray[np.float64]) -> None:
    """Refuse a stack that leans (gantry tilt) or whose slices are shifted against each other."""
    positions = np.array([header.position for header in ordered])
    folder = ordered[0].path if ordered[0].frame is not None else ordered[0].path.parent
    lean = (positions[-1] - positions[0]) - (heights[-1] - heights[0]) * ordered[0].normal
    share = float(np.linalg.norm(lean)) / float(heights[-1] - heights[0])
    if share > _TILT:
        angle = float(np.degrees(np.arctan(share)))
        msg = (
            f"{folder}: the slices are shifted sideways by {angle:.1f} degrees (a tilted gantry), so they form no "
            "rectangular grid. Correct the tilt first, for example with dcm2niix."
        )
        raise StudyError(msg)
    along = (heights - heights[0]) / (heights[-1] - heights[0])
    line = positions[0] + along[:, np.newaxis] * (positions[-1] - positions[0])
    off = np.linalg.norm(positions - line, axis=1)
    worst = int(off.argmax())
    if off[worst] > 0.5 * min(ordered[0].spacing):
        msg = (
            f"{ordered[worst].place}: this slice is shifted by {off[worst]:.3g} mm against the others. "
            "Keep the slices of one acquisition in the folder."
        )
        raise StudyError(msg)


def affine(ordered: list[Header]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the (4, 4) affine from (column, row, slice) to RAS mm, and notices.

    The first stored axis runs along a row of the image (its step is the distance between columns), the second down a
    column, the third from slice to slice.
    """
    first, last = ordered[0], ordered[-1]
    notices: list[str] = []
    if len(ordered) > 1:
        step = (last.position - first.position) / (len(ordered) - 1)
    else:
        thickness = number(first.facts, "SpacingBetweenSlices") or number(first.facts, "SliceThickness") or 0.0
        if thickness <= 0:
            notices.append("the slice thickness is unknown: 1 mm is assumed")
        step = first.normal * (thickness if thickness > 0 else 1.0)
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * first.spacing[1]
    lps[:3, 1] = first.orientation[3:] * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, notices
