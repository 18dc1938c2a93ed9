"""Several volumes in one DICOM series: cardiac phases, time points, echoes, stacks of a multi-frame file.

The slices are split only where that leaves whole volumes, one slice for each position. What cannot be split so is left
as it is, and refused with the slices named when it is sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_dinoaugseg.errors import SeveralVolumesError, StudyError
from napari_dinoaugseg.study.dicom_geometry import SAME_PLACE, Header, require_alike
from napari_dinoaugseg.study.files import listed

# What all slices of one volume share, the clearest first. Real numbers are compared exactly: they were copied.
_SHARED = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "NominalCardiacTriggerDelayTime"),
    *("EchoNumbers", "EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ImageType", "FrameType"),
    *("AcquisitionNumber", "FrameAcquisitionNumber", "TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime"),
)
# What grows from volume to volume at each position, though it differs between positions too.
_ORDER = ("TriggerTime", "AcquisitionTime", "FrameAcquisitionDateTime", "InstanceNumber")
_Key = Callable[[Header], Any]


@dataclass(frozen=True)
class _Split:
    """Volumes of one series, and what tells them apart."""

    volumes: list[list[Header]]
    by: str


def choose_volume(path: Path, headers: list[Header], component: int | None) -> tuple[list[Header], list[str]]:
    """Return the slices of one volume, and notices.

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
    return chosen, [f"volume {component} (from 0) of the {count} in this series"] if count > 1 else []


def _split(headers: list[Header]) -> _Split:
    stacks = _by_value(headers, "StackID")
    if stacks is None or len(stacks) == 1:
        return _split_stack(headers)
    parts = [_split_stack(stack) for stack in stacks]
    volumes = [volume for part in parts for volume in part.volumes]
    reasons = dict.fromkeys(part.by for part in parts if part.by)
    return _Split(volumes, "; ".join([f"{len(stacks)} stacks", *reasons]))


def _split_stack(headers: list[Header]) -> _Split:
    places = _places(headers)
    if places is None:
        return _Split([headers], "")
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


def _places(headers: list[Header]) -> list[list[Header]] | None:
    """Group slices by position; None unless every position has the same number of slices, and more than one."""
    first = headers[0]
    try:
        for header in headers[1:]:
            require_alike(first, header)
    except StudyError:
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
    identities = {(header.facts.get("SOPInstanceUID", header.path), header.frame) for header in headers}
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
    ranked = [sorted(place, key=lambda header: _sortable(key(header))) for place in places]
    return [list(volume) for volume in zip(*ranked, strict=True)]


def _sortable(value: Any) -> tuple[int, float, str]:
    """Order numbers by size, and texts that hold numbers (times of day) too."""
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)
