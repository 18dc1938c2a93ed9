"""Segmentations of 3D Slicer (`.seg.nrrd`): a NRRD file that keeps name, colour and layer of each segment.

The pairs of key and value are those that 3D Slicer documents for its segmentation file format. Segments that overlap
lie in different layers, a further axis of the array, and segments of different layers may share a label value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.study.nrrd_file import NrrdContent
from napari_dinoaugseg.study.segments import Segment, described

_KEY = re.compile(r"Segment(\d+)_(\w+)")


@dataclass(frozen=True)
class _Stored:
    """One segment as the file has it: its name, its colour, and the layer and value of its voxels."""

    name: str
    colour: str | None
    layer: int
    value: int


def holds_segments(content: NrrdContent) -> bool:
    """Tell whether a NRRD file is a segmentation of 3D Slicer."""
    return any(_KEY.fullmatch(str(key)) for key in content.header)


def merge_layers(path: Path, content: NrrdContent) -> tuple[NDArray[Any], list[Segment], list[str]]:
    """Bring the layers of a segmentation into one array of labels.

    Args:
        path: the file, for messages.
        content: what it holds.

    Returns:
        The labels (i, j, k), the segments by number, and notices. Numbers are the label values of the file; where two
        segments share one, the segments are numbered in their order, from 1.

    Raises:
        LabelError: segments overlap, or several layers hold values that nothing describes.
    """
    if content.colour or len(content.trailing) > 1:
        msg = f"{path}: it is no segmentation: its voxels hold several numbers. Export it again from 3D Slicer."
        raise LabelError(msg)
    layers = content.array.reshape((*content.array.shape[:3], -1), order="F")
    stored = _segments(path, content.header, layers.shape[3])
    values = [segment.value for segment in stored]
    own = len(set(values)) == len(values)
    numbers = values if own else list(range(1, len(stored) + 1))
    segments = [Segment(number, entry.name, entry.colour) for number, entry in zip(numbers, stored, strict=True)]
    if layers.shape[3] == 1 and own:
        return layers[..., 0], segments, []
    merged = np.zeros(layers.shape[:3], dtype=np.uint16, order="F")
    for n, layer in enumerate(np.moveaxis(layers, 3, 0)):
        of_value = {entry.value: number for entry, number in zip(stored, numbers, strict=True) if entry.layer == n}
        found = np.unique(layer)
        stray = [value for value in found.tolist() if value and value not in of_value]
        if stray:
            msg = f"{path}: layer {n} holds {stray[0]:g}, which no segment has. Export it again from 3D Slicer."
            raise LabelError(msg)
        for value, number in of_value.items():
            if value not in found:
                continue
            there = layer == value
            clash = there & (merged != 0)
            if clash.any():
                names = {segment.number: segment.name for segment in segments}
                first = names[int(merged[clash][0])]
                msg = (
                    f"{path}: the segments {first!r} and {names[number]!r} overlap in {int(clash.sum())} voxels, but a "
                    "voxel has one label here. Take the overlap from one of them (3D Slicer: Logical operators, "
                    "Subtract), and save again."
                )
                raise LabelError(msg)
            merged[there] = number
    notices = []
    if not own:
        listed = ", ".join(f"{segment.number} {segment.name}" for segment in segments)
        notices.append(
            f"Segments of {path.name} share label values, since they lie in different layers: they are numbered in "
            f"their order ({listed})."
        )
    return merged, segments, notices


def _segments(path: Path, header: Mapping[str, Any], n_layers: int) -> list[_Stored]:
    """Return the segments in their order. Files of before 3D Slicer 4.11 have one layer for each, with the value 1."""
    found: dict[int, dict[str, str]] = {}
    for key, value in header.items():
        match = _KEY.fullmatch(str(key))
        if match is not None:
            found.setdefault(int(match[1]), {})[match[2]] = str(value)
    stored = []
    try:
        for order, (_, fields) in enumerate(sorted(found.items())):
            named = " ".join(fields.get("Name", fields.get("ID", "")).replace("\\n", " ").split())
            stored.append(
                _Stored(
                    name=named.replace("\\\\", "\\") or f"segment {order + 1}",
                    colour=_colour(fields.get("Color", "")),
                    layer=int(fields.get("Layer", order if n_layers > 1 else 0)),
                    value=int(fields.get("LabelValue", 1 if n_layers > 1 or len(found) == 1 else order + 1)),
                )
            )
    except ValueError as error:
        msg = f"{path}: layer or label value of a segment is no number. Export it again from 3D Slicer."
        raise LabelError(msg) from error
    places = [(entry.layer, entry.value) for entry in stored]
    wrong = next((entry for entry in stored if not (0 <= entry.layer < n_layers and 0 < entry.value < 2**16)), None)
    if wrong is not None or len(set(places)) < len(places):
        what = f"the segment {wrong.name!r} has no voxels of its own" if wrong else "two segments have the same voxels"
        msg = f"{path}: {what} by its layer and label value. Export it again from 3D Slicer."
        raise LabelError(msg)
    return stored


def _colour(text: str) -> str | None:
    """Return `#rrggbb` of three numbers from 0 to 1; None of anything else."""
    try:
        parts = [float(part) for part in text.split()]
    except ValueError:
        return None
    if len(parts) != 3 or not all(0 <= part <= 1 for part in parts):
        return None
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)


def slicer_pairs(labels: NDArray[Any], segments: Sequence[Segment]) -> dict[str, str]:
    """Return the pairs of key and value with which 3D Slicer reads an array as a segmentation of one layer.

    Args:
        labels: (i, j, k).
        segments: what the labels mean; a label without is `class N`.
    """
    numbers = [int(value) for value in np.unique(labels)]
    extent = " ".join(f"0 {n - 1}" for n in labels.shape)
    pairs: dict[str, str] = {}
    for n, segment in enumerate(described(numbers, tuple(segments))):
        name = " ".join(segment.name.split()).replace("\\", "\\\\")
        pairs |= {
            f"Segment{n}_Extent": extent,
            f"Segment{n}_ID": f"Segment_{segment.number}",
            f"Segment{n}_LabelValue": str(segment.number),
            f"Segment{n}_Layer": "0",
            f"Segment{n}_Name": name,
            f"Segment{n}_NameAutoGenerated": "0",
            f"Segment{n}_Tags": "Segmentation.Status:inprogress|",
        }
        if segment.colour is not None:
            parts = [int(segment.colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
            pairs[f"Segment{n}_Color"] = " ".join(f"{part:.6g}" for part in parts)
            pairs[f"Segment{n}_ColorAutoGenerated"] = "0"
    return {
        **pairs,
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": "",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
