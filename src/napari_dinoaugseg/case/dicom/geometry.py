"""Place the slices of a DICOM series: split into volumes, sorted along the normal, refused where they form no volume.

Names and rules are those of DICOM PS3.3: Image Plane Module (C.7.6.2). Coordinates are in mm, LPS.
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
from napari_dinoaugseg.errors import CaseError, Hint, SeveralVolumesError

# Directions may differ by rounding of their text form only.
_SAME_DIRECTION = 1e-3
# Directions written with two or three decimals are unit vectors and at right angles only so far.
_ORTHONORMAL = 1e-2
# Slices may lie this share of a step off even places: positions come rounded, and tables move with some play.
_OFF_EVEN = 0.1
# Rounding explains no more than this share of a step: beyond it, a slice might as well be missing.
_MOST_ROUNDING = 0.25
# From this share of a step on, a notice says that the even places are not those of the file.
_WORTH_TELLING = 0.02
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
        affine: (4, 4), from (column, row, slice) to RAS mm. The first stored axis runs along a row of the image (its
            step is the distance between columns), the second down a column, the third from slice to slice.
        offsets: as `Grid.offsets`: None where the slices are evenly spaced.
        notices: what a person should know about it.
    """

    ordered: list[Header]
    affine: NDArray[np.float64]
    offsets: tuple[float, ...] | None
    notices: list[str]


def stack(headers: list[Header]) -> Stack:
    """Sort the slices of one volume along their normal; neither names nor instance numbers are trusted.

    Raises:
        CaseError: mixed directions, sizes or spacings, duplicate positions, or a tilted gantry.
    """
    first = headers[0]
    for header in headers[1:]:
        require_alike(first, header)
    # Frames that follow against the normal stay in the order of their file, as other programs read them.
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
    if lean <= math.sqrt(3) * unit:  # rounding of its ends, which would only make the grid skew
        mean = normal * (heights[-1] - heights[0]) / (len(ordered) - 1)
    fitted, off = _line(heights)
    if off <= _tolerance(ordered, normal, fitted):
        is_plain = off <= max(_WORTH_TELLING * fitted, SAME_PLACE)
        notices = [] if is_plain else [_rounded(off, float(np.linalg.norm(mean)))]
        return Stack(ordered, _affine(ordered[0], mean), None, notices)
    offsets = tuple(float(height) for height in heights - heights[0])
    return Stack(ordered, _affine(ordered[0], mean), offsets, [_uneven(ordered, np.diff(heights))])


def loop(ordered: list[Header]) -> Stack:
    """Stack frames that lie at one place in the given order, 1 mm apart for want of a distance.

    Raises:
        CaseError: mixed directions, sizes or spacings.
    """
    first = ordered[0]
    for header in ordered[1:]:
        require_alike(first, header)
    return Stack(ordered, _affine(first, first.normal), (0.0,) * len(ordered), [])


def require_alike(first: Header, header: Header) -> None:
    """Raise `CaseError` unless two slices have one direction, size and pixel spacing."""
    differs = _difference(first, header)
    if differs:
        msg = (
            f"{header.place}: its {differs} differs from {first.short_place}, so the series is not one volume. "
            "Move scouts and other acquisitions to another folder."
        )
        raise CaseError(msg)


def are_alike(first: Header, header: Header) -> bool:
    """Return whether two slices have one direction, size and pixel spacing."""
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
            "points (cardiac phases) in one series, and nothing tells them apart. Keep one set in the folder."
        )
        raise CaseError(msg)


def _usual(steps: NDArray[np.float64]) -> float:
    return float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: one gap among two steps is a gap


def _line(heights: NDArray[np.float64]) -> tuple[float, float]:
    """Return the step of even places that come closest to these, and how far off the worst of them lies, in mm."""
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
    """Return whether slices, several of which may lie at one position, lie on evenly spaced places, three at least."""
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
    """Return how far off even places slices may lie, in mm."""
    return min(max(_OFF_EVEN * step, _rounding(headers, normal) + SAME_PLACE), _MOST_ROUNDING * step)


def _rounding(headers: list[Header], normal: NDArray[np.float64]) -> float:
    """Return how far, in mm along the normal, the decimals of the positions leave open where a slice lies."""
    return 0.5 * _unit(headers) * float(np.abs(normal).sum())


def _unit(headers: list[Header]) -> float:
    """Return the last decimal of the positions, in mm; 0 where they are exact to a hundredth and more."""
    positions = np.array([header.position for header in headers])
    for unit in (0.1, 0.01):  # whole millimetres are more often meant than rounded
        if np.abs(positions / unit - np.rint(positions / unit)).max() < 1e-6:
            return unit
    return 0.0


def _rounded(off: float, mean: float) -> str:
    """Return the notice about rounded positions, with the distance that is used; ITK computes the same."""
    return (
        f"the positions of the slices lie up to {off:.2g} mm off even steps, as rounding leaves them: {mean:.4g} mm, "
        "the mean from the first to the last slice, is taken as the distance of slices"
    )


def _uneven(ordered: list[Header], steps: NDArray[np.float64]) -> str:
    """Return the notice about missing slices, or about slices that are unevenly spaced on purpose."""
    usual = _usual(steps)
    counts = np.rint(steps / usual)
    if counts.min() >= 1:
        usual = float(steps.sum() / counts.sum())  # rounded positions leave a single step less certain than their mean
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
    """Return the names of two slices, with a shared folder or file named once."""
    if a.path == b.path:
        return f"{a.path}, frames {a.frame} and {b.frame}" if a.frame != b.frame else f"{a.path} and itself"
    return f"{a.place} and {b.short_place if a.path.parent == b.path.parent else b.place}"


def _require_straight(
    ordered: list[Header], heights: NDArray[np.float64], normal: NDArray[np.float64], unit: float
) -> float:
    """Refuse a stack that leans (gantry tilt) or whose slices are shifted against each other; return how far it leans.

    Positions that are rounded to `unit` may lie half of it off in each of three directions, at both ends.
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
    """Return what stands for the distance of slices where there is one slice, in mm, and notices."""
    thickness = abs(number(header.facts, "SpacingBetweenSlices") or number(header.facts, "SliceThickness") or 0.0)
    return (thickness, []) if thickness > 0 else (1.0, ["the slice thickness is unknown: 1 mm is assumed"])


def _affine(first: Header, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (4, 4) affine to RAS mm of slices that follow `first` in this step (3,), in LPS mm."""
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * first.spacing[1]
    lps[:3, 1] = first.orientation[3:] * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


# --- several volumes in one series: cardiac phases, time points, echoes, stacks of a multi-frame file ---
#
# Slices are split only into whole volumes, one slice for each position; others are left together, and `stack` refuses
# them by name. Images of one slice over time are a loop, whose frames are the slices of the case.

# What all slices of one volume share, the clearest first. Real numbers are compared exactly: they were copied.
_SHARED = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "NominalCardiacTriggerDelayTime"),
    *("TimeSlotVector", "RRIntervalVector", "PhaseVector", "EnergyWindowVector", "DetectorVector"),
    *("EchoNumbers", "EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ImageType", "FrameType"),
    *("AcquisitionNumber", "FrameAcquisitionNumber", "TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime"),
)
# What grows from volume to volume at each position, though it differs between positions too.
_ORDER = ("TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime", "InstanceNumber")
# What orders the frames of a loop, the clearest first; and what makes two loops of one slice.
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
        loop: what orders the frames of a loop, such as "TriggerTime"; empty for a volume.
        notices: what a person should know.
    """

    headers: list[Header]
    loop: str
    notices: list[str]


@dataclass(frozen=True)
class _Split:
    """Volumes (or loops, and what orders their frames) of one series, and what tells them apart."""

    volumes: list[list[Header]]
    by: str
    loop: str = ""


def choose_volume(path: Path, headers: list[Header], component: int | None) -> Chosen:
    """Return the slices of one volume, or the frames of one loop.

    Args:
        path: the file or folder that was asked for, for messages.
        headers: all slices of the series, in any order.
        component: which volume, from 0; None where there is one only.

    Raises:
        SeveralVolumesError: there are several and none was chosen.
        CaseError: `component` is out of range.
    """
    found = _split(headers)
    count = len(found.volumes)
    if component is None and count > 1:
        msg = f"{path}: the series holds {count} volumes ({found.by})."
        raise SeveralVolumesError(msg, count)
    if not 0 <= (component or 0) < count:
        msg = f"{path}: there is no component {component}."
        raise CaseError(msg, Hint.CHOOSE_VOLUME, last=count - 1)
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
    """Group slices by direction, size and pixel spacing (a localizer in three planes), where no slice is left alone."""
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
    """Return images of one place as loops over time, one for each contrast; None where nothing orders the frames."""
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
    """Group slices by position; None unless every position has the same number of slices, and more than one."""
    first = headers[0]
    if not all(are_alike(first, header) for header in headers):
        return None  # no volume at all: sorting says so, with the slice named
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
    """Group slices by a value; None unless all of them have it."""
    groups: dict[Hashable, list[Header]] = {}
    for header in headers:
        value = header.facts.get(name)
        if value is None:
            return None
        groups.setdefault(value, []).append(header)
    return [groups[value] for value in sorted(groups, key=_sortable)]


def _shared(places: list[list[Header]], name: str) -> list[list[Header]] | None:
    """Split by a value that all slices of a volume share; None unless that gives whole volumes."""
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
    """Split by rank at each position; None unless the values differ there."""
    for place in places:
        values = {header.facts.get(name) for header in place}
        if None in values or len(values) != len(place):
            return None
    ranked = [_in_order(place, name) for place in places]
    return [list(volume) for volume in zip(*ranked, strict=True)]


def _in_order(headers: Sequence[Header], name: str) -> list[Header]:
    return sorted(headers, key=lambda header: _sortable(header.facts.get(name)))


def _sortable(value: Any) -> tuple[int, float, str]:
    """Order numbers by size, and texts that hold numbers (times of day) too."""
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)
