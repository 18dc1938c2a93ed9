"""Arrange the slices of a DICOM series: split them into volumes, sort these along the normal, refuse invalid ones.

Names and rules follow DICOM PS3.3, Image Plane Module (C.7.6.2). Coordinates are in mm, LPS.

A series may hold several volumes: cardiac phases, time points, echoes, or stacks of a multi-frame file. Slices are
split only into complete volumes, one slice per position; otherwise they stay together, and `stack` refuses them by
name. Images of one slice over time are a loop, whose frames are the slices of the case.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.dicom.frames import DESCENDING, FRAME_NUMBER, TILE
from napari_dinoaugseg.case.dicom.headers import Slice, number
from napari_dinoaugseg.case.files import listed
from napari_dinoaugseg.case.nifti import require_component
from napari_dinoaugseg.errors import CaseError, SeveralVolumesError

# Directions may differ only by the rounding of decimal strings.
_SAME_DIRECTION = 1e-3
# Directions with two or three decimals are orthonormal only up to this.
_ORTHONORMAL = 1e-2
# Slices may deviate by this share of a step from even positions: these are rounded, and tables are inexact.
_OFF_EVEN = 0.1
# Beyond this share of a step, a missing slice is as likely as rounding.
_MOST_ROUNDING = 0.25
# From this share of a step on, a notice reports that even positions differ from those of the file.
_NOTABLE = 0.02
# Slices closer than this (in mm) have the same position.
SAME_PLACE = 1e-3
# In-plane shift per step; this is about half a degree of gantry tilt.
_TILT = 0.01


@dataclass(frozen=True)
class Header(Slice):
    """One slice with a known position in the patient.

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
        """The unit normal of the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def parse(slice_: Slice) -> Header:
    """Read the geometry of one slice.

    Raises:
        CaseError: position, orientation or pixel spacing is missing or broken.
    """
    position = _numbers(slice_, "ImagePositionPatient", 3)
    orientation = _numbers(slice_, "ImageOrientationPatient", 6)
    spacing = _numbers(slice_, "PixelSpacing", 2)
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    skew = abs(float(orientation[:3] @ orientation[3:]))
    if np.abs(lengths - 1).max() > _ORTHONORMAL or skew > _ORTHONORMAL or (spacing <= 0).any():
        msg = f"{slice_.place}: its orientation or pixel spacing is broken. Export the series again."
        raise CaseError(msg)
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
        raise CaseError(msg)
    return numbers


@dataclass(frozen=True)
class Stack:
    """The slices of one volume in order.

    Attributes:
        ordered: the slices.
        affine: (4, 4), from (column, row, slice) to RAS mm. The step of the first stored axis is the distance between
            columns, that of the second the distance between rows, that of the third from slice to slice.
        offsets: as `Grid.offsets`: None if the slices are evenly spaced.
        notices: sentences for the user.
    """

    ordered: list[Header]
    affine: NDArray[np.float64]
    offsets: tuple[float, ...] | None
    notices: list[str]


def stack(headers: list[Header]) -> Stack:
    """Sort the slices of one volume along their normal, regardless of file names and instance numbers.

    Raises:
        CaseError: mixed directions, sizes or spacings, duplicate positions, or a tilted gantry.
    """
    first = headers[0]
    for header in headers[1:]:
        require_alike(first, header)
    # Frames stored against the normal keep the order of the file, as in other programs.
    normal = -first.normal if DESCENDING in first.facts else first.normal
    ordered = sorted(headers, key=lambda header: (float(header.position @ normal), header.path.name, header.frame or 0))
    if len(ordered) == 1:
        step, notices = _thickness(ordered[0])
        return Stack(ordered, _affine(ordered[0], ordered[0].normal * step), None, notices)
    heights = np.array([float(header.position @ normal) for header in ordered])
    _require_distinct(ordered, heights)
    unit = _unit(ordered)
    lean = _require_straight(ordered, heights, normal, unit)
    mean = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    if lean <= math.sqrt(3) * unit:  # only rounding of the end positions, which would skew the grid
        mean = normal * (heights[-1] - heights[0]) / (len(ordered) - 1)
    fitted, off = _line(heights)
    if off <= _tolerance(ordered, normal, fitted):
        is_plain = off <= max(_NOTABLE * fitted, SAME_PLACE)
        notices = [] if is_plain else [_rounded(off, float(np.linalg.norm(mean)))]
        return Stack(ordered, _affine(ordered[0], mean), None, notices)
    offsets = tuple(float(height) for height in heights - heights[0])
    return Stack(ordered, _affine(ordered[0], mean), offsets, [_uneven(ordered, np.diff(heights))])


def loop(ordered: list[Header]) -> Stack:
    """Stack frames at one position in the given order, nominally 1 mm apart.

    Raises:
        CaseError: mixed directions, sizes or spacings.
    """
    first = ordered[0]
    for header in ordered[1:]:
        require_alike(first, header)
    return Stack(ordered, _affine(first, first.normal), (0.0,) * len(ordered), [])


def require_alike(first: Header, header: Header) -> None:
    """Raise `CaseError` unless two slices have the same direction, size and pixel spacing."""
    differs = _difference(first, header)
    if differs:
        msg = (
            f"{header.place}: its {differs} differs from {first.short_place}, so the series is not one volume. "
            "Move scouts and other acquisitions to another folder."
        )
        raise CaseError(msg)


def are_alike(first: Header, header: Header) -> bool:
    """Return whether two slices have the same direction, size and pixel spacing."""
    return not _difference(first, header)


def _difference(first: Header, header: Header) -> str:
    """Return what differs between two slices; "" if nothing does."""
    if np.abs(header.orientation - first.orientation).max() > _SAME_DIRECTION:
        return "direction"
    if header.size != first.size:
        return f"size ({header.size[1]} x {header.size[0]} and {first.size[1]} x {first.size[0]} pixels)"
    if max(abs(a - b) for a, b in zip(header.spacing, first.spacing, strict=True)) > 1e-3 * max(first.spacing):
        return "pixel spacing"
    return ""


def _require_distinct(ordered: list[Header], heights: NDArray[np.float64]) -> None:
    """Refuse slices that lie at the same position."""
    steps = np.diff(heights)
    same = int(steps.argmin())
    if steps[same] < SAME_PLACE or steps[same] < 0.01 * _usual(steps):
        msg = (
            f"{_both(ordered[same], ordered[same + 1])} lie at the same position but differ: two acquisitions or time "
            "points (cardiac phases) in one series, and nothing distinguishes them. Keep one set in the folder."
        )
        raise CaseError(msg)


def _usual(steps: NDArray[np.float64]) -> float:
    return float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: one gap among two steps is a gap


def _line(heights: NDArray[np.float64]) -> tuple[float, float]:
    """Return the step of the best-fitting even positions, and the largest deviation from them, in mm."""
    numbers = np.arange(len(heights))

    def worst(step: float) -> float:
        return float(np.ptp(heights - step * numbers)) / 2

    low, high = 0.0, float(np.diff(heights).max())
    for _ in range(60):  # `worst` is convex in the step
        third = (high - low) / 3
        if worst(low + third) < worst(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2, worst((low + high) / 2)


def is_even(headers: list[Header]) -> bool:
    """Return whether slices lie at three or more evenly spaced positions; several may share a position."""
    if not headers:
        return False
    normal = headers[0].normal
    heights = np.sort([float(header.position @ normal) for header in headers])
    heights = heights[np.concatenate([[True], np.diff(heights) > SAME_PLACE])]
    if len(heights) < 3:
        return False
    step, off = _line(heights)
    return off <= _tolerance(headers, normal, step)


def _tolerance(headers: list[Header], normal: NDArray[np.float64], step: float) -> float:
    """Return the allowed deviation of slices from even positions, in mm."""
    return min(max(_OFF_EVEN * step, _rounding(headers, normal) + SAME_PLACE), _MOST_ROUNDING * step)


def _rounding(headers: list[Header], normal: NDArray[np.float64]) -> float:
    """Return the uncertainty of slice positions along the normal due to their decimals, in mm."""
    return 0.5 * _unit(headers) * float(np.abs(normal).sum())


def _unit(headers: list[Header]) -> float:
    """Return the last decimal of the positions in mm; 0 for more than two decimals."""
    positions = np.array([header.position for header in headers])
    for unit in (0.1, 0.01):  # whole millimetres are usually exact
        if np.abs(positions / unit - np.rint(positions / unit)).max() < 1e-6:
            return unit
    return 0.0


def _rounded(off: float, mean: float) -> str:
    """Return the notice about rounded positions, with the distance in use, which is that of ITK."""
    return (
        f"the positions of the slices lie up to {off:.2g} mm off even steps, as rounding leaves them: {mean:.4g} mm, "
        "the mean from the first to the last slice, is taken as the distance of slices"
    )


def _uneven(ordered: list[Header], steps: NDArray[np.float64]) -> str:
    """Return the notice about missing or deliberately uneven slices."""
    usual = _usual(steps)
    counts = np.rint(steps / usual)
    if counts.min() >= 1:
        usual = float(steps.sum() / counts.sum())  # the mean is more precise than one step between rounded positions
    gaps = np.flatnonzero(counts > 1)
    regular = counts.min() >= 1 and np.abs(steps / usual - counts).max() <= _MOST_ROUNDING
    kept = "the slices that are there can be labelled, but no NIfTI or NRRD file can hold their places"
    if regular and 0 < len(gaps) <= max(1, len(steps) // 4):
        found = [
            f"between {ordered[k].short_place} and {ordered[k + 1].short_place} there is a gap of {steps[k]:.3g} mm "
            f"instead of {usual:.3g} mm, {_missing(int(counts[k]) - 1)}"
            for k in gaps[:3]
        ]
        more = f"; {len(gaps) - 3} more gaps" if len(gaps) > 3 else ""
        return f"{'; '.join(found)}{more}: {kept}"
    return f"the slices are not evenly spaced, {steps.min():.3g} to {steps.max():.3g} mm apart: {kept}"


def _missing(count: int) -> str:
    return "where 1 slice seems missing" if count == 1 else f"where {count} slices seem missing"


def _both(a: Header, b: Header) -> str:
    """Return the names of two slices, with their common folder or file once."""
    if a.path == b.path:
        return f"{a.path}, frames {a.frame} and {b.frame}" if a.frame != b.frame else f"{a.path} and itself"
    return f"{a.place} and {b.short_place if a.path.parent == b.path.parent else b.place}"


def _require_straight(
    ordered: list[Header], heights: NDArray[np.float64], normal: NDArray[np.float64], unit: float
) -> float:
    """Refuse a sheared stack (gantry tilt) or one with shifted slices; return its total shear in mm.

    Positions rounded to `unit` may be off by half of it in each of three directions, at both ends.
    """
    positions = np.array([header.position for header in ordered])
    folder = ordered[0].path if ordered[0].frame is not None else ordered[0].path.parent
    lean = float(np.linalg.norm((positions[-1] - positions[0]) - (heights[-1] - heights[0]) * normal))
    share = lean / float(heights[-1] - heights[0])
    if share > _TILT and lean > math.sqrt(3) * unit:
        angle = float(np.degrees(np.arctan(share)))
        msg = (
            f"{folder}: the slices are shifted sideways by {angle:.1f} degrees (a tilted gantry), so they form no "
            "rectangular grid. Correct the tilt first, for example with dcm2niix."
        )
        raise CaseError(msg)
    along = (heights - heights[0]) / (heights[-1] - heights[0])
    line = positions[0] + along[:, np.newaxis] * (positions[-1] - positions[0])
    off = np.linalg.norm(positions - line, axis=1)
    worst = int(off.argmax())
    if off[worst] > 0.5 * min(ordered[0].spacing):
        msg = (
            f"{ordered[worst].place}: this slice is shifted by {off[worst]:.3g} mm against the others. "
            "Keep the slices of one acquisition in the folder."
        )
        raise CaseError(msg)
    return lean


def _thickness(header: Header) -> tuple[float, list[str]]:
    """Return the nominal slice distance of a single slice in mm, and notices."""
    thickness = abs(number(header.facts, "SpacingBetweenSlices") or number(header.facts, "SliceThickness") or 0.0)
    return (thickness, []) if thickness > 0 else (1.0, ["the slice thickness is unknown: 1 mm is assumed"])


def _affine(first: Header, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (4, 4) affine to RAS mm of slices from `first` on, one `step` (3,) in LPS mm apart."""
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * first.spacing[1]
    lps[:3, 1] = first.orientation[3:] * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


# Attributes shared by all slices of one volume, the most reliable first. Numbers are copies, so they compare exactly.
_SHARED = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "NominalCardiacTriggerDelayTime"),
    *("TimeSlotVector", "RRIntervalVector", "PhaseVector", "EnergyWindowVector", "DetectorVector"),
    *("EchoNumbers", "EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ImageType", "FrameType"),
    *("AcquisitionNumber", "FrameAcquisitionNumber", "TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime"),
)
# Attributes that increase from volume to volume at each position, but also differ between positions.
_ORDER = ("TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime", "InstanceNumber")
# Attributes that order the frames of a loop, the most reliable first, and those that separate loops of one slice.
_TIMES = (
    *(FRAME_NUMBER, "TemporalPositionIndex", "TemporalPositionIdentifier", "NominalCardiacTriggerDelayTime"),
    *("TriggerTime", "TimeSlotVector", "FrameAcquisitionDateTime", "AcquisitionTime", "InstanceNumber"),
)
_CONTRASTS = ("EchoNumbers", "EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ImageType", "FrameType")


@dataclass(frozen=True)
class Chosen:
    """The slices of one volume, or the frames of one loop.

    Attributes:
        headers: slices in any order; frames in the order of time.
        loop: the attribute that orders the frames of a loop, such as "TriggerTime"; empty for a volume.
        notices: sentences for the user.
    """

    headers: list[Header]
    loop: str
    notices: list[str]


@dataclass(frozen=True)
class _Split:
    """Volumes of one series, the attribute that separates them, and the one that orders the frames of loops."""

    volumes: list[list[Header]]
    by: str
    loop: str = ""


def choose_volume(path: Path, headers: list[Header], component: int | None) -> Chosen:
    """Return the slices of one volume, or the frames of one loop.

    Args:
        path: the file or folder given by the user, for messages.
        headers: all slices of the series, in any order.
        component: which volume, from 0; None if there is only one.

    Raises:
        SeveralVolumesError: there are several and none was chosen.
        CaseError: `component` is out of range.
    """
    found = _split(headers)
    count = len(found.volumes)
    if component is None and count > 1:
        msg = f"{path}: the series holds {count} volumes ({found.by})."
        raise SeveralVolumesError(msg, count)
    require_component(path, component or 0, count)
    chosen = found.volumes[component or 0]
    is_loop = len(chosen) > 1 and all(_same_place(chosen[0], header) for header in chosen)
    notices = [f"volume {component} (from 0) of the {count} in this series"] if count > 1 else []
    return Chosen(chosen, found.loop if is_loop else "", notices)


def _split(headers: list[Header]) -> _Split:
    stacks = _by_value(headers, "StackID")
    if stacks is None or len(stacks) == 1:
        stacks = _by_direction(headers)
    if len(stacks) == 1:
        return _split_stack(headers)
    parts = [_split_stack(stack) for stack in stacks]
    volumes = [volume for part in parts for volume in part.volumes]
    reasons = dict.fromkeys(part.by for part in parts if part.by)
    loop = next((part.loop for part in parts if part.loop), "")
    return _Split(volumes, "; ".join([f"{len(stacks)} stacks", *reasons]), loop)


def _by_direction(headers: list[Header]) -> list[list[Header]]:
    """Group slices by direction, size and pixel spacing (a localizer in three planes), if every group has several."""
    groups: list[list[Header]] = []
    for header in headers:
        group = next((group for group in groups if are_alike(group[0], header)), None)
        if group is None:
            groups.append([header])
        else:
            group.append(header)
    return groups if all(len(group) > 1 for group in groups) else [headers]


def _same_place(first: Header, header: Header) -> bool:
    return abs(float((header.position - first.position) @ first.normal)) <= SAME_PLACE


def _split_stack(headers: list[Header]) -> _Split:
    places = _places(headers)
    if places is None:
        return _Split([headers], "")
    if len(places) == 1:
        loops = _loops(headers)
        if loops is not None:
            return loops
    for name in _SHARED:
        volumes = _shared(places, name)
        if volumes is not None:
            values = [str(volume[0].facts.get(name)) for volume in volumes]
            return _Split(volumes, f"images at the same position, told apart by {name}: {listed(values)}")
    for name in _ORDER:
        volumes = _ordered(places, name)
        if volumes is not None:
            return _Split(volumes, f"images at the same position, in the order of {name}")
    return _Split([headers], "")


def _loops(headers: list[Header]) -> _Split | None:
    """Return images of one position as loops over time, one per contrast; None if nothing orders the frames."""
    contrasts: dict[tuple[Any, ...], list[Header]] = {}
    for header in headers:
        contrasts.setdefault(tuple(header.facts.get(name) for name in _CONTRASTS), []).append(header)
    groups = list(contrasts.values())
    if len({len(group) for group in groups}) > 1 or len(groups[0]) < 2:
        return None
    for name in _TIMES:
        values = [{header.facts.get(name) for header in group} for group in groups]
        if all(None not in found and len(found) == len(groups[0]) for found in values):
            volumes = [_in_order(group, name) for group in groups]
            names = [contrast for n, contrast in enumerate(_CONTRASTS) if len({found[n] for found in contrasts}) > 1]
            return _Split(volumes, f"loops at the same position, told apart by {listed(names)}", name)
    return None


def _places(headers: list[Header]) -> list[list[Header]] | None:
    """Group slices by position; None unless all positions have the same number of slices, at least two."""
    first = headers[0]
    if not all(are_alike(first, header) for header in headers):
        return None  # not a volume: `stack` refuses it and names the slice
    heights = np.array([float(header.position @ first.normal) for header in headers])
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order])
    apart = steps[steps > SAME_PLACE]
    limit = max(SAME_PLACE, 0.01 * float(np.median(apart))) if apart.size else SAME_PLACE
    groups: list[list[Header]] = [[headers[order[0]]]]
    for n, step in zip(order[1:], steps, strict=True):
        if step > limit:
            groups.append([])
        groups[-1].append(headers[n])
    counts = {len(group) for group in groups}
    identities = {
        (header.facts.get("SOPInstanceUID", header.path), header.frame, header.facts.get(TILE)) for header in headers
    }
    if len(counts) > 1 or counts == {1} or len(identities) < len(headers):
        return None
    return groups


def _by_value(headers: Sequence[Header], name: str) -> list[list[Header]] | None:
    """Group slices by a value; None unless all slices have it."""
    groups: dict[Hashable, list[Header]] = {}
    for header in headers:
        value = header.facts.get(name)
        if value is None:
            return None
        groups.setdefault(value, []).append(header)
    return [groups[value] for value in sorted(groups, key=_sortable)]


def _shared(places: list[list[Header]], name: str) -> list[list[Header]] | None:
    """Split by a value that all slices of a volume share; None unless that gives complete volumes."""
    values = sorted({header.facts.get(name) for header in places[0]}, key=_sortable)
    if None in values or len(values) != len(places[0]):
        return None
    volumes: dict[Any, list[Header]] = {value: [] for value in values}
    for place in places:
        if {header.facts.get(name) for header in place} != set(values):
            return None
        for header in place:
            volumes[header.facts.get(name)].append(header)
    return list(volumes.values())


def _ordered(places: list[list[Header]], name: str) -> list[list[Header]] | None:
    """Split by rank at each position; None unless the values at each position differ."""
    for place in places:
        values = {header.facts.get(name) for header in place}
        if None in values or len(values) != len(place):
            return None
    ranked = [_in_order(place, name) for place in places]
    return [list(volume) for volume in zip(*ranked, strict=True)]


def _in_order(headers: Sequence[Header], name: str) -> list[Header]:
    return sorted(headers, key=lambda header: _sortable(header.facts.get(name)))


def _sortable(value: Any) -> tuple[int, float, str]:
    """Return a sort key: numbers and numeric texts (times of day) by value, before other texts."""
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)
