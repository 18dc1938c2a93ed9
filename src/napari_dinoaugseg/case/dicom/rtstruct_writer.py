"""Write masks as a DICOM RT Structure Set (RTSTRUCT): contours of each class on the images of the source series.

The modules are those of DICOM PS3.3 A.19.3: Structure Set (C.8.8.5), ROI Contour (C.8.8.6) and RT ROI Observations
(C.8.8.8). Outlines are those of `contours`: closed polygons through half pixels, holes joined by channels. The ROI
Number is the number of the class, as the standard asks only that numbers differ. docs/decisions/rtstruct.md has the
reasons.

The file is in implicit value representation: with an explicit one, a value of more than 64 KiB, such as the coordinates
of 1,800 corners, loses its type. The attributes of patient and study are those of `source`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.contours import Points, outlines
from napari_dinoaugseg.case.dicom.frames import DicomSource
from napari_dinoaugseg.case.dicom.geometry import Header
from napari_dinoaugseg.case.dicom.headers import property_of
from napari_dinoaugseg.case.dicom.source import (
    SERIES_NUMBERS_ABOVE,
    SOFTWARE,
    classes_in,
    headers_of,
    label_of,
    making,
    patient_of,
)

# Retired, but what planning systems expect as the class of the referenced study (PS3.3 C.8.8.5).
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_LONGEST_DS = 16  # characters of the value representation DS
_DECIMALS = 6  # of a millimetre


def rtstruct_of(
    path: Path, array: NDArray[np.uint8] | NDArray[np.uint16], source: DicomSource, segments: Sequence[Segment] = ()
) -> Dataset:
    """Return labels as an RTSTRUCT dataset.

    Args:
        path: the output path, for messages.
        array: labels (i, j, k) in stored order: column, row, slice.
        source: the slices the labels were drawn on.
        segments: names and colours of the classes; absent classes are listed too, without a contour.

    Raises:
        OutputError: no class, an unreadable source, or a source whose header does not allow an RTSTRUCT.
    """
    classes = classes_in(path, array, segments, "an RTSTRUCT")
    with making(path, "RTSTRUCT"):
        headers = headers_of(source)
        # The image of each slice; frames of a multi-frame file are numbered from 1.
        ordered = [headers[k if frame is None else frame - 1] for k, (_, frame) in enumerate(source.frames)]
        made = _empty(headers[0])
        made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(headers, source)]
        made.StructureSetROISequence = [_structure(entry, source) for entry in classes]
        made.ROIContourSequence = [_contours(entry, array, ordered) for entry in classes]
        made.RTROIObservationsSequence = [_observation(n, entry) for n, entry in enumerate(classes, start=1)]
        return made


def _empty(first: Header) -> Dataset:
    """Return a structure set with the attributes of patient, study and equipment."""
    made = Dataset()
    made.update(patient_of(first.path))
    number = int(made.get("SeriesNumber") or 0)
    now = datetime.now().astimezone()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    made.InstanceCreationDate = made.StructureSetDate = made.SeriesDate = now.strftime("%Y%m%d")
    made.InstanceCreationTime = made.StructureSetTime = made.SeriesTime = now.strftime("%H%M%S")
    made.Modality, made.SeriesInstanceUID, made.SeriesNumber = "RTSTRUCT", generate_uid(), SERIES_NUMBERS_ABOVE + number
    made.StudyInstanceUID = first.facts["StudyInstanceUID"]
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = first.facts["FrameOfReferenceUID"], None
    made.SeriesDescription = f"Structures ({SOFTWARE})"
    made.Manufacturer = made.ManufacturerModelName = SOFTWARE
    made.SoftwareVersions = version("napari-dinoaugseg")
    made.OperatorsName = None  # type 2: present, but empty for privacy
    made.InstanceNumber = 1
    made.StructureSetLabel = "SEGMENTATION"
    made.ApprovalStatus = "UNAPPROVED"
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        made.pop(keyword, None)  # of an image, which this is not
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = (
        made.SOPClassUID,
        made.SOPInstanceUID,
    )
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return made


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _image(header: Header) -> Dataset:
    """Return the reference to an image, or to one frame of it."""
    item = _item(
        ReferencedSOPClassUID=header.facts["SOPClassUID"], ReferencedSOPInstanceUID=header.facts["SOPInstanceUID"]
    )
    if header.frame is not None:
        item.ReferencedFrameNumber = header.frame
    return item


def _frame_of_reference(headers: Sequence[Header], source: DicomSource) -> Dataset:
    """Return the references to all images, by study and series; a multi-frame file is named once."""
    first = headers[0]
    series: dict[str, dict[str, Dataset]] = {}
    for header in headers:
        image = _image(header)
        image.pop("ReferencedFrameNumber", None)
        series.setdefault(str(header.facts["SeriesInstanceUID"]), {})[str(image.ReferencedSOPInstanceUID)] = image
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=first.facts["StudyInstanceUID"],
        RTReferencedSeriesSequence=[
            _item(SeriesInstanceUID=uid, ContourImageSequence=list(images.values())) for uid, images in series.items()
        ],
    )
    return _item(FrameOfReferenceUID=source.frame_of_reference, RTReferencedStudySequence=[study])


def _structure(entry: Segment, source: DicomSource) -> Dataset:
    return _item(
        ROINumber=entry.number,
        ReferencedFrameOfReferenceUID=source.frame_of_reference,
        ROIName=label_of(entry),
        ROIGenerationAlgorithm="MANUAL" if entry.by_hand else "SEMIAUTOMATIC",
    )


def _contours(entry: Segment, array: NDArray[Any], headers: Sequence[Header]) -> Dataset:
    """Return the contours of a class on each slice (i, j, k)."""
    item = _item(ReferencedROINumber=entry.number)
    if entry.colour is not None:
        item.ROIDisplayColor = list(bytes.fromhex(entry.colour.removeprefix("#")))
    contours: list[Dataset] = []
    for k, header in enumerate(headers):
        for points in outlines(np.equal(array[:, :, k].T, entry.number)):
            contours.append(
                _item(
                    ContourImageSequence=[_image(header)],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourNumber=len(contours) + 1,
                    ContourData=_coordinates(points, header),
                )
            )
    if contours:
        item.ContourSequence = contours
    return item


def _coordinates(points: Points, header: Header) -> list[str]:
    """Return x, y, z (LPS, mm) of each corner (row, column), as decimal strings."""
    across, down = header.orientation[:3] * header.spacing[1], header.orientation[3:] * header.spacing[0]
    places = header.position + points[:, 1:] * across + points[:, :1] * down
    return [_decimal(value) for value in chain.from_iterable(places.tolist())]


def _decimal(value: float) -> str:
    text = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return text if len(text) <= _LONGEST_DS else format_number_as_ds(value)


def _observation(n: int, entry: Segment) -> Dataset:
    """Return the observation of a class: its code where its name has one."""
    item = _item(ObservationNumber=n, ReferencedROINumber=entry.number, RTROIInterpretedType=None, ROIInterpreter=None)
    coded = property_of(entry.name)
    if coded.type != codes.SCT.Tissue:
        code = _code(coded.type)
        if coded.side is not None:
            code.SegmentedPropertyTypeModifierCodeSequence = [_code(coded.side)]
        item.SegmentedPropertyCategoryCodeSequence = [_code(coded.category)]
        item.RTROIIdentificationCodeSequence = [code]
    return item


def _code(code: Code) -> Dataset:
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)
