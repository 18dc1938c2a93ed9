"""DICOM headers as plain values, codes for the names of segments, and descriptions of objects without an image.

Attributes follow DICOM PS3.3: General Image, Image Plane (C.7.6.2) and Multi-frame Functional Groups (C.7.6.16). A
value that cannot be decoded counts as missing.

DICOM SEG needs a coded category and type for each segment (PS3.3 C.8.20.2). Codes come from the context groups of DICOM
PS3.16 in pydicom: CID 7150 categories, CID 7192 anatomical structures, CID 7166 tissues and CID 7194 morphological
abnormalities. A name in none of them becomes "Tissue", the most general category. SOP classes are those of DICOM PS3.4,
annex B.5.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from napari_dinoaugseg.case.files import is_dicom

EXPECTED = "a DICOM file"
Facts = Mapping[str, Any]

# Nuclear medicine (PS3.3 C.8.4.8): energy window, detector, slice, time... of each frame.
FRAME_VECTORS = (
    *("EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector"),
    *("TimeSlotVector", "SliceVector", "AngularViewVector", "TimeSliceVector"),
)
# Attributes outside the functional groups that may hold the geometry of images.
OF_GEOMETRY = (
    *("Rows", "Columns", "NumberOfFrames", "Modality", "ImageType"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePlanePixelSpacing"),
    *("SequenceOfUltrasoundRegions", "DetectorInformationSequence", "FrameIncrementPointer", "FrameTime"),
    *("FrameTimeVector", "SliceLocationVector", "GridFrameOffsetVector", *FRAME_VECTORS),
)
OF_THE_FILE = (
    *OF_GEOMETRY,
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("SeriesDescription", "SeriesNumber", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept"),
    *("BitsStored", "PixelRepresentation", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime"),
    *("DiffusionBValue", "TriggerTime", "AcquisitionNumber", "AcquisitionTime", "InstanceNumber"),
)
# Functional groups of a frame that hold top-level attributes of a single-frame file.
_OF_A_FRAME: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")),
    ("FramePixelDataPropertiesSequence", ("ImagerPixelSpacing",)),
    ("PlanePositionSequence", ("ImagePositionPatient",)),
    ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
    ("PlanePositionVolumeSequence", ("ImagePositionVolume",)),
    ("PlaneOrientationVolumeSequence", ("ImageOrientationVolume",)),
    ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept")),
    (
        "FrameContentSequence",
        ("StackID", "TemporalPositionIndex", "FrameAcquisitionNumber", "FrameAcquisitionDateTime"),
    ),
    ("MREchoSequence", ("EffectiveEchoTime",)),
    ("MRDiffusionSequence", ("DiffusionBValue",)),
    ("CardiacSynchronizationSequence", ("NominalCardiacTriggerDelayTime",)),
    ("MRImageFrameTypeSequence", ("FrameType",)),
    ("CTImageFrameTypeSequence", ("FrameType",)),
    ("SegmentIdentificationSequence", ("ReferencedSegmentNumber",)),
)
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


@dataclass(frozen=True)
class Slice:
    """One 2-D image: a file, or one frame of a multi-frame file.

    Attributes:
        path: the file.
        facts: header values of this slice by keyword.
        frame: the number of the frame, from 1 as in DICOM; None for a single-frame file.
    """

    path: Path
    facts: Facts = field(repr=False)
    frame: int | None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.facts["Rows"]), int(self.facts["Columns"])

    @property
    def place(self) -> str:
        """The name of this slice in messages: its path and frame."""
        return self._named(str(self.path))

    @property
    def short_place(self) -> str:
        """The same without the folder."""
        return self._named(self.path.name)

    def _named(self, file: str) -> str:
        return file if self.frame is None else f"{file}, frame {self.frame}"


def read_header(path: Path, keywords: Sequence[str]) -> Dataset:
    """Read some attributes of a file, up to the pixels."""
    return read_dataset(path, stop_before_pixels=True, specific_tags=list(keywords))


def read_dataset(path: Path, **options: Any) -> Dataset:
    """Read a file with pydicom and its `options`. Damage raises almost any exception: use it in `reading`."""
    with _Bounded(path) as stream:
        # Files without the preamble are read too.
        return pydicom.dcmread(stream, force=not is_dicom(path), **options)


class _Bounded(io.BufferedReader):
    """A file that limits reads to its size: otherwise a damaged length allocates up to 4 GiB."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def number(facts: Facts, keyword: str) -> float | None:
    """Return a finite number; None if missing or invalid."""
    value = facts.get(keyword)
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def numbers(facts: Facts, keyword: str, count: int) -> NDArray[np.float64] | None:
    """Return `count` finite numbers; None if missing, invalid, or of another count."""
    value = facts.get(keyword)
    try:
        found = np.array([float(part) for part in (value if isinstance(value, tuple) else (value,))])
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.size == count and np.isfinite(found).all() else None


def text(facts: Facts, keyword: str) -> str:
    """Return a text as one printable line; empty if missing."""
    value = facts.get(keyword)
    return "" if value is None else "".join(c for c in " ".join(str(value).split()) if c.isprintable())


def facts_of(dataset: Dataset, keywords: Sequence[str]) -> dict[str, Any]:
    """Return the values of a dataset that are present and valid."""
    found = ((keyword, value_of(dataset, keyword)) for keyword in keywords)
    return {keyword: value for keyword, value in found if value not in (None, "", ())}


def flat(groups: Dataset) -> dict[str, Any]:
    """Return the values of the functional groups of a frame, or of the shared ones."""
    facts: dict[str, Any] = {}
    for sequence, keywords in _OF_A_FRAME:
        for item in value_of(groups, sequence) or ():
            facts.update(facts_of(item, keywords))
    return facts


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return a value, multiple values as a tuple; None if missing or invalid."""
    try:
        value = dataset.get(keyword)
    except Exception:
        # pydicom decodes values on access, and raises almost anything for damaged ones.
        return None
    return tuple(value) if isinstance(value, MultiValue | list) else value  # a list for some damaged types


# Common names of structures that have another keyword in pydicom.
_ALSO = {
    "fat": "adiposetissue",
    "greymatter": "graymatter",
    "oesophagus": "esophagus",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "urinarybladder": "bladder",
}


@dataclass(frozen=True)
class Property:
    """The coded property of a segment.

    Attributes:
        category: from CID 7150.
        type: from CID 7192, 7166 or 7194.
        side: left or right if the name has a side and the type has none; else None.
    """

    category: Code
    type: Code
    side: Code | None = None


def property_of(name: str) -> Property:
    """Return the codes for a class name in English, such as `Liver`, `left kidney` or `tumour`."""
    words = re.findall(r"[a-z]+", name.casefold())
    found = _find(words)
    if found is not None:
        return found
    sides = {"left": codes.SCT.Left, "right": codes.SCT.Right}
    rest = [word for word in words if word not in sides]
    named = [sides[word] for word in words if word in sides]
    found = _find(rest) if len(named) == 1 else None
    if found is not None:
        return Property(found.category, found.type, named[0])
    return Property(codes.cid7150.Tissue, codes.SCT.Tissue)


def _find(words: list[str]) -> Property | None:
    key = "".join(words)
    known = _known()
    # Plurals are coded as singular: "kidneys" as "kidney".
    return known.get(_ALSO.get(key, key)) or known.get(key.removesuffix("s"))


@cache
def _known() -> dict[str, Property]:
    groups: list[tuple[Code, Any]] = [
        (codes.cid7150.MorphologicallyAbnormalStructure, codes.cid7194),
        (codes.cid7150.Tissue, codes.cid7166),
        (codes.cid7150.AnatomicalStructure, codes.cid7192),
    ]
    return {
        keyword.casefold(): Property(category, getattr(group, keyword))
        for category, group in groups
        for keyword in group.dir()
    }


# Patterns for the names of SOP classes, specific ones first, and the description of such an object.
_BY_CLASS: tuple[tuple[str, str], ...] = (
    ("Radiotherapy|^RT Structure Set", "a radiotherapy structure set (RTSTRUCT), which holds contours"),
    ("^RT Dose", "a radiotherapy dose (RTDOSE)"),
    ("^RT (Ion )?Plan|^RT .*(Beams|Brachy)|Brachy Treatment|Radiation Set", "a radiotherapy plan or record (RTPLAN)"),
    ("Surface Segmentation", "a segmentation of surfaces"),
    ("Segmentation", "a segmentation (DICOM SEG)"),
    ("Key Object Selection", "a selection of key images (KO)"),
    ("Presentation State|Hanging Protocol|Color Palette", "a presentation state (PR)"),
    (" SR |SR Storage|Procedure Log", "a structured report (SR)"),
    ("Encapsulated PDF", "a PDF document"),
    ("Encapsulated", "a document inside DICOM"),
    ("Waveform|ECG", "a waveform, such as an ECG"),
    ("Raw Data", "raw data of a scanner"),
    ("Registration|Fiducials", "a registration (REG)"),
    ("Real World Value Mapping", "a mapping of values (RWV)"),
    ("Spectroscopy", "MR spectroscopy, which has no pixels"),
    ("Tractography", "the result of a tractography"),
    ("Surface Scan", "a scan of a surface"),
    ("Media Storage Directory", "a DICOMDIR, the index of a disc"),
)
# For private or missing classes, the modality describes the object.
_BY_MODALITY = {
    "RTSTRUCT": "a radiotherapy structure set (RTSTRUCT), which holds contours",
    "RTDOSE": "a radiotherapy dose (RTDOSE)",
    "RTPLAN": "a radiotherapy plan or record (RTPLAN)",
    "RTRECORD": "a radiotherapy plan or record (RTPLAN)",
    "SEG": "a segmentation (DICOM SEG)",
    "SR": "a structured report (SR)",
    "PR": "a presentation state (PR)",
    "KO": "a selection of key images (KO)",
    "REG": "a registration (REG)",
    "DOC": "a document inside DICOM",
    "PLAN": "a radiotherapy plan or record (RTPLAN)",
}
# Objects of these modalities are not acquired images, even with rows and columns.
NO_IMAGES = frozenset(_BY_MODALITY)


def class_name(sop_class: str) -> str:
    """Return the name of a SOP class, such as "CT Image Storage"; the UID itself if it is not a standard class."""
    return UID(sop_class, validation_mode=IGNORE).name if sop_class else ""


def kind_of(sop_class: str, modality: str) -> str:
    """Describe an object without an image, such as "a structured report (SR)".

    Args:
        sop_class: its SOP Class UID; may be empty.
        modality: its Modality; may be empty.
    """
    name = class_name(sop_class)
    for words, kind in _BY_CLASS:
        if re.search(words, name):
            return kind
    if modality in _BY_MODALITY:
        return _BY_MODALITY[modality]
    return f"a DICOM object without pixels ({name})" if name and name != sop_class else "a DICOM object without pixels"


def advice_on(kind: str) -> str:
    """Return advice on an object that was opened as an image."""
    if "RTSTRUCT" in kind:
        return "Open the images that its contours were drawn on, and give it as labels."
    if "SEG" in kind:
        return "Open the images that it was drawn on, and give it as labels."
    if "DICOMDIR" in kind:
        return "Name the folder that holds the images."
    return "Name the images of one series."
