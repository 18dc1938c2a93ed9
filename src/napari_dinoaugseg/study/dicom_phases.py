"""Several volumes in one DICOM series: cardiac phases, time points, echoes, stacks of a multi-frame file.

The slices are split only where that leaves whole volumes, one slice for each position. What cannot be split so is left
as it is, and refused with the slices named when it is sorted. Images of one slice over time are a loop: its frames are
the slices of the study.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_dinoaugseg.errors import SeveralVolumesError, StudyError
from napari_dinoaugseg.study.dicom_frames import FRAME_NUMBER
from napari_dinoaugseg.study.dicom_geometry import SAME_PLACE, Header, are_alike
from napari_dinoaugseg.study.dicom_mosaic import TILE
from napari_dinoaugseg.study.files import listed

# What all slices of one volume share, the clearest first. Real numbers are compared exactly: they were copied.
_SHARED = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "NominalCardiacTriggerDelayTime"),
    *("TimeSlotVector", "RRIntervalVector", "PhaseVector", "EnergyWindowVector", "DetectorVector"),
    *("EchoNumbers", "EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ImageType", "FrameType"),
    *("AcquisitionNumber", "FrameAcquisitionNumber", "TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime"),
)
# What grows from volume to volume at each position, though it differs between positions too.
_ORDER = ("TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime", "InstanceNumber")
# What tells the frames of a loop in time, the clearest first; and what makes two loops of one slice.
_TIMES = (
    *(FRAME_NUMBER, "TemporalPositionIndex", "TemporalPositionIdentifier", "NominalCardiacTriggerDelayTime"),
    *("TriggerTime", "TimeSlotVector", "FrameAcquisitionDateTime", "AcquisitionTime", "InstanceNumber"),
)
_CONTRASTS = ("EchoNumbers", "EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ImageType", "FrameType")
_Key = Callable[[Header], Any]


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
        StudyError: there is no such volume.
    """
    found = _split(headers)
    count = len(found.volumes)
    if component is None and count > 1:
        msg = (
            f"{path}: the series holds {count} volumes ({found.by}). "
            f"Choose one with --component, from 0 to {count - 1}."
        )
        raise SeveralVolumesError(msg, count)
    if not 0 <= (component or 0) < count:
        msg = f"{path}: there is no component {component}. Choose one with --component, from 0 to {count - 1}."
        raise StudyError(msg)
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
    for name, key in _keys(_SHARED):
        volumes = _shared(places, key)
        if volumes is not None:
            values = [f"{key(volume[0])!s}" for volume in volumes]
            return _Split(volumes, f"images at the same position, told apart by {name}: {listed(values)}")
    for name, key in _keys(_ORDER):
        volumes = _ordered(places, key)
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
    for name, key in _keys(_TIMES):
        values = [{key(header) for header in group} for group in groups]
        if all(None not in found and len(found) == len(groups[0]) for found in values):
            volumes = [_in_order(group, key) for group in groups]
            names = [name for n, name in enumerate(_CONTRASTS) if len({found[n] for found in contrasts}) > 1]
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


def _keys(names: Sequence[str]) -> list[tuple[str, _Key]]:
    return [(name, partial(_fact, name)) for name in names]


def _fact(name: str, header: Header) -> Any:
    return header.facts.get(name)


def _by_value(headers: Sequence[Header], name: str) -> list[list[Header]] | None:
    """Group slices by a value; None unless all of them have it."""
    groups: dict[Hashable, list[Header]] = {}
    for header in headers:
        value = header.facts.get(name)
        if value is None:
            return None
        groups.setdefault(value, []).append(header)
    return [groups[value] for value in sorted(groups, key=_sortable)]


def _shared(places: list[list[Header]], key: _Key) -> list[list[Header]] | None:
    """Split by a value that all slices of a volume share; None unless that gives whole volumes."""
    values = sorted({key(header) for header in places[0]}, key=_sortable)
    if None in values or len(values) != len(places[0]):
        return None
    volumes: dict[Any, list[Header]] = {value: [] for value in values}
    for place in places:
        if {key(header) for header in place} != set(values):
            return None
        for header in place:
            volumes[key(header)].append(header)
    return list(volumes.values())


def _ordered(places: list[list[Header]], key: _Key) -> list[list[Header]] | None:
    """Split by rank at each position; None unless the values differ there."""
    for place in places:
        values = {key(header) for header in place}
        if None in values or len(values) != len(place):
            return None
    ranked = [_in_order(place, key) for place in places]
    return [list(volume) for volume in zip(*ranked, strict=True)]


def _in_order(headers: Sequence[Header], key: _Key) -> list[Header]:
    return sorted(headers, key=lambda header: _sortable(key(header)))


def _sortable(value: Any) -> tuple[int, float, str]:
    """Order numbers by size, and texts that hold numbers (times of day) too."""
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)
