"""Write masks as DICOM SEG: a binary segment for each class, in the study and frame of reference of the source series.

Class numbers may have gaps, but the segments of a binary SEG are numbered consecutively from 1 (PS3.3 C.8.20.2). The
number of a class is therefore stored in its Segment Description (0062,0006), a standard attribute that archives keep,
unlike private ones; `seg` reads it back.

The attributes of patient and study are those of `source`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.dicom.frames import DicomSource
from napari_dinoaugseg.case.dicom.geometry import Header
from napari_dinoaugseg.case.dicom.headers import property_of
from napari_dinoaugseg.case.dicom.source import (
    OF_AN_IMAGE,
    SERIES_NUMBERS_ABOVE,
    SOFTWARE,
    classes_in,
    headers_of,
    label_of,
    making,
    patient_of,
)

CLASS_NUMBER = "Class number {}"


def seg_of(
    path: Path, array: NDArray[np.uint8] | NDArray[np.uint16], source: DicomSource, segments: Sequence[Segment] = ()
) -> Dataset:
    """Return labels as a DICOM SEG dataset. Frames without a voxel of their segment are omitted.

    Args:
        path: the output path, for messages.
        array: labels (i, j, k) in stored order: column, row, slice.
        source: the slices the labels were drawn on.
        segments: names and colours of the classes; absent classes are described too, without a frame.

    Raises:
        OutputError: no class, an unreadable source, or a source whose header does not allow a SEG.
    """
    classes = classes_in(path, array, segments, "a DICOM SEG")
    with making(path, "DICOM SEG"):
        headers = headers_of(source)
        number_of = _numbering(classes, int(array.max(initial=0)))
        frames = _frames(array, source, len(headers), number_of.dtype, number_of.__getitem__)
        described_classes = [_describe(n, entry) for n, entry in enumerate(classes, start=1)]
        return _make(source, headers, frames, described_classes, "BINARY")


def confidence_of(path: Path, array: NDArray[np.float32], source: DicomSource) -> Dataset:
    """Return a confidence as a fractional DICOM SEG of one segment, in steps of 1/255.

    Args:
        path: the output path, for messages.
        array: (i, j, k) from 0 to 1, in stored order.
        source: the slices it belongs to.

    Raises:
        OutputError: an unreadable source, or one whose header does not allow a SEG.
    """
    with making(path, "DICOM SEG"):
        headers = headers_of(source)
        frames = _frames(np.clip(array, 0, 1), source, len(headers), np.dtype(np.float32), np.asarray)
        return _make(source, headers, frames, [_describe(1, Segment(1, "confidence"))], "FRACTIONAL")


def _numbering(classes: Sequence[Segment], highest: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the segment number of each label up to `highest`."""
    size = max(highest, classes[-1].number) + 1
    number_of: NDArray[Any] = np.zeros(size, dtype=np.uint8 if len(classes) < 256 else np.uint16)
    number_of[[entry.number for entry in classes]] = np.arange(1, len(classes) + 1)
    return number_of


def _frames(
    array: NDArray[Any],
    source: DicomSource,
    count: int,
    kind: np.dtype[Any],
    convert: Callable[[NDArray[Any]], NDArray[Any]],
) -> NDArray[Any]:
    """Return images (image, row, column) in the order of the source; images without a slice stay empty."""
    frames = np.zeros((count, array.shape[1], array.shape[0]), dtype=kind)
    for k, (_, frame) in enumerate(source.frames):
        frames[k if frame is None else frame - 1] = convert(array[:, :, k].T)
    return frames


def _sources(headers: list[Header]) -> list[Dataset]:
    """Return the source images for highdicom, with the copied attributes only and one exact orientation."""
    person = patient_of(headers[0].path)
    orientation = list(headers[0].facts["ImageOrientationPatient"])
    if headers[0].frame is None:
        singles = [_single(header, person, orientation) for header in headers]
        for image in singles:
            # highdicom accepts images of one series only; `_refer_to_all_series` restores the references.
            image.SeriesInstanceUID = singles[0].SeriesInstanceUID
        return singles
    return [_multi(headers, person, orientation)]


def _image(header: Header, person: Dataset) -> Dataset:
    image = Dataset()
    image.update(person)
    for keyword in OF_AN_IMAGE:
        setattr(image, keyword, header.facts.get(keyword))
    image.Rows, image.Columns = header.size
    return image


def _single(header: Header, person: Dataset, orientation: list[Any]) -> Dataset:
    image = _image(header, person)
    image.ImagePositionPatient = list(header.facts["ImagePositionPatient"])
    image.ImageOrientationPatient = orientation
    image.PixelSpacing = list(header.facts["PixelSpacing"])
    image.SliceThickness = header.facts.get("SliceThickness")
    return image


def _multi(headers: list[Header], person: Dataset, orientation: list[Any]) -> Dataset:
    image = _image(headers[0], person)
    image.NumberOfFrames = len(headers)
    measures = highdicom.PixelMeasuresSequence(headers[0].facts["PixelSpacing"], headers[0].facts.get("SliceThickness"))
    shared = Dataset()
    shared.PixelMeasuresSequence = measures
    shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence("PATIENT", orientation)
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = [_place(header) for header in headers]
    return image


def _place(header: Header) -> Dataset:
    group = Dataset()
    group.PlanePositionSequence = highdicom.PlanePositionSequence("PATIENT", header.facts["ImagePositionPatient"])
    return group


class _InPieces:
    """Stands for the module `json` where highdicom reads its table of attributes, 22 MB in one object.

    Python does nothing else while it decodes one text, so that the window would stop for half a second.
    """

    _BETWEEN = re.compile(r"[\s,:]*")

    @classmethod
    def loads(cls, table: str) -> Any:
        """Decode an object one entry after the other; anything else at once."""
        if not table.startswith("{"):
            return json.loads(table)
        decode, between, found = json.JSONDecoder().raw_decode, cls._BETWEEN.match, {}
        at = _end(between(table, table.index("{") + 1))
        while table[at] != "}":
            name, at = decode(table, at)
            found[name], at = decode(table, _end(between(table, at)))
            at = _end(between(table, at))
        return found


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match is not None else 0


with suppress(ImportError):  # where highdicom keeps its tables otherwise
    import_module("highdicom._standard_utils").json = _InPieces  # type: ignore[attr-defined]


def _make(
    source: DicomSource,
    headers: list[Header],
    frames: NDArray[Any],
    descriptions: list[highdicom.seg.SegmentDescription],
    kind: str,
) -> Dataset:
    # highdicom requires distinct positions: frames of a loop get temporary ones.
    apart = [_shifted(header, k) for k, header in enumerate(headers)] if source.at_one_place else headers
    sources = _sources(apart)
    # An empty mask would keep every frame of every segment: one frame is enough.
    nothing: dict[str, Any] = {}
    if not frames.any():
        frames = frames[:1]
        nothing = {"plane_positions": [_place(apart[0]).PlanePositionSequence], "omit_empty_frames": False}
    made: Dataset = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBERS_ABOVE + int(sources[0].get("SeriesNumber") or 0),
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=SOFTWARE,
        software_versions=version("napari-dinoaugseg"),
        device_serial_number="0",  # type 1, but software has no serial number
        series_description=f"Segmentation ({SOFTWARE})",
        content_label="SEGMENTATION",
        specific_character_set="ISO_IR 192",
        **nothing,
    )
    made.ContentCreatorName = None  # type 2: present, but empty for privacy
    if source.at_one_place:
        _number_in_time(made, source, headers)
    if len(source.series) > 1:
        _refer_to_all_series(made, headers)
    return made


def _shifted(header: Header, k: int) -> Header:
    place = [float(x) for x in header.position + k * header.normal]
    return replace(header, facts={**header.facts, "ImagePositionPatient": place})


def _number_in_time(made: Dataset, source: DicomSource, headers: list[Header]) -> None:
    """Restore the position of the frames of a loop, and number them by Temporal Position Index instead."""
    number_of = {n if frame is None else frame - 1: n + 1 for n, (_, frame) in enumerate(source.frames)}
    first = headers[0]
    for group in made.PerFrameFunctionalGroupsSequence:
        place = np.array([float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient])
        k = round(float((place - first.position) @ first.normal))
        group.PlanePositionSequence[0].ImagePositionPatient = list(headers[k].facts["ImagePositionPatient"])
        content = group.FrameContentSequence[0]
        content.TemporalPositionIndex = number_of.get(k, k + 1)
        content.DimensionIndexValues = [int(content.DimensionIndexValues[0]), content.TemporalPositionIndex]
    time = made.DimensionIndexSequence[1]
    time.DimensionIndexPointer = tag_for_keyword("TemporalPositionIndex")
    time.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    time.DimensionDescriptionLabel = "Temporal Position Index"
    made.pop("DimensionOrganizationType", None)
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].pop("SpacingBetweenSlices", None)


def _refer_to_all_series(made: Dataset, headers: list[Header]) -> None:
    """Group the references to images by series, for scanners that give each slice its own series."""
    series_of = {str(header.facts["SOPInstanceUID"]): str(header.facts["SeriesInstanceUID"]) for header in headers}
    groups: dict[str, list[Dataset]] = {}
    for image in made.ReferencedSeriesSequence[0].ReferencedInstanceSequence:
        groups.setdefault(series_of[str(image.ReferencedSOPInstanceUID)], []).append(image)
    made.ReferencedSeriesSequence = []
    for uid, images in groups.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, images
        made.ReferencedSeriesSequence.append(item)


def _describe(number: int, entry: Segment) -> highdicom.seg.SegmentDescription:
    coded = property_of(entry.name)
    method = {}
    if not entry.by_hand:
        method["algorithm_identification"] = highdicom.AlgorithmIdentificationSequence(
            name=SOFTWARE, family=codes.DCM.ArtificialIntelligence, version=version("napari-dinoaugseg")
        )
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label_of(entry),
        segmented_property_category=coded.category,
        segmented_property_type=coded.type,
        algorithm_type="MANUAL" if entry.by_hand else "SEMIAUTOMATIC",
        display_color=_colour(entry),
        **method,
    )
    if coded.side is not None:
        side = highdicom.sr.CodedConcept.from_code(coded.side)
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    description.SegmentDescription = CLASS_NUMBER.format(entry.number)
    return description


def _colour(entry: Segment) -> highdicom.color.CIELabColor | None:
    if entry.colour is None:
        return None
    red, green, blue = bytes.fromhex(entry.colour.removeprefix("#"))
    return highdicom.color.CIELabColor.from_rgb(red, green, blue)
