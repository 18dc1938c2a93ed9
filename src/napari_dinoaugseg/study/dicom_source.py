"""Where the slices of a DICOM study came from: what a segmentation of it has to refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dinoaugseg.study.dicom_facts import Slice
from napari_dinoaugseg.study.dicom_mosaic import TILE


@dataclass(frozen=True)
class DicomSource:
    """The slices of one volume.

    Attributes:
        frames: file and frame (from 1; None for a file that is one image) of each slice, in stored order.
        series: the SeriesInstanceUIDs: one, or one for each slice where a scanner gave each a series of its own.
        instances: the SOPInstanceUID of the file of each slice, in stored order.
        frame_of_reference: the FrameOfReferenceUID; empty when there is none or the slices do not share it.
        problem: why no DICOM SEG can refer to these slices; None when one can.
        at_one_place: whether the slices are frames of a loop, told apart by time and not by their place.
    """

    frames: tuple[tuple[Path, int | None], ...]
    series: frozenset[str]
    instances: tuple[str, ...]
    frame_of_reference: str
    problem: str | None
    at_one_place: bool = False


def source_of(ordered: Sequence[Slice], *, placed: bool, at_one_place: bool = False) -> DicomSource:
    """Describe the slices of a study.

    Args:
        ordered: the slices in stored order.
        placed: whether their place in the patient is known.
        at_one_place: whether they are frames of a loop.
    """
    references = {str(slice_.facts.get("FrameOfReferenceUID", "")) for slice_ in ordered}
    return DicomSource(
        frames=tuple((slice_.path, slice_.frame) for slice_ in ordered),
        series=frozenset(str(slice_.facts.get("SeriesInstanceUID", "")) for slice_ in ordered) - {""},
        at_one_place=at_one_place,
        instances=tuple(str(slice_.facts.get("SOPInstanceUID", "")) for slice_ in ordered),
        frame_of_reference=references.pop() if len(references) == 1 else "",
        problem=_problem(ordered, placed),
    )


def _problem(ordered: Sequence[Slice], placed: bool) -> str | None:
    if not placed:
        return "the images have no place in the patient"
    if any(TILE in slice_.facts for slice_ in ordered):
        return "its slices are tiles of mosaics, which have no number of their own"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID"):
        if any(not slice_.facts.get(keyword) for slice_ in ordered):
            return f"the images have no {keyword}"
    if len({slice_.facts["FrameOfReferenceUID"] for slice_ in ordered}) > 1:
        return "each image has a FrameOfReferenceUID of its own"
    files = {slice_.path for slice_ in ordered}
    if len(files) > 1 and any(slice_.frame is not None for slice_ in ordered):
        return "the slices are frames of several files"
    return None
