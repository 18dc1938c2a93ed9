"""What DICOM headers say, as plain values: read once, laid flat for the frames of a multi-frame file, never trusted.

Attributes and their places are those of DICOM PS3.3: General Image, Image Plane (C.7.6.2) and Multi-frame Functional
Groups (C.7.6.16). A value that cannot be understood counts as missing, and whoever needs it refuses the file by name.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from napari_dinoaugseg.study.files import is_dicom

EXPECTED = "a DICOM file"
Facts = Mapping[str, Any]

# Of nuclear medicine (PS3.3 C.8.4.8): which energy, camera, slice, time... each frame shows.
FRAME_VECTORS = (
    *("EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector"),
    *("TimeSlotVector", "SliceVector", "AngularViewVector", "TimeSliceVector"),
)
# Where a file may keep the geometry of its images, beside their functional groups.
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
# Where the functional groups of a frame keep what a file of one image has at the top.
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
    """One two-dimensional image: a file, or one frame of a multi-frame file.

    Attributes:
        path: the file.
        facts: what the header says about this slice, by keyword.
        frame: the number of the frame from 1, as DICOM counts; None for a file that is one image.
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
        """How messages name this slice: its path, and its frame."""
        return self._named(str(self.path))

    @property
    def short_place(self) -> str:
        """The same without the folder."""
        return self._named(self.path.name)

    def _named(self, file: str) -> str:
        return file if self.frame is None else f"{file}, frame {self.frame}"


def read_header(path: Path, keywords: Sequence[str]) -> Dataset:
    """Read some attributes of a file; those in front of the pixels at most."""
    return read_dataset(path, stop_before_pixels=True, specific_tags=list(keywords))


def read_dataset(path: Path, **options: Any) -> Dataset:
    """Read a file with pydicom, which takes `options`. Damage shows as almost any exception: use it in `reading`."""
    with _Bounded(path) as stream:
        # A file from before the preamble was required still names its class.
        return pydicom.dcmread(stream, force=not is_dicom(path), **options)


class _Bounded(io.BufferedReader):
    """A file from which no more is asked than it has: a damaged length would have gigabytes set aside for nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def number(facts: Facts, keyword: str) -> float | None:
    """Return a finite number; None where there is none."""
    value = facts.get(keyword)
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def numbers(facts: Facts, keyword: str, count: int) -> NDArray[np.float64] | None:
    """Return so many finite numbers; None where these are not there."""
    value = facts.get(keyword)
    try:
        found = np.array([float(part) for part in (value if isinstance(value, tuple) else (value,))])
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.size == count and np.isfinite(found).all() else None


def text(facts: Facts, keyword: str) -> str:
    """Return a text on one printable line; empty where there is none."""
    value = facts.get(keyword)
    return "" if value is None else "".join(c for c in " ".join(str(value).split()) if c.isprintable())


def facts_of(dataset: Dataset, keywords: Sequence[str]) -> dict[str, Any]:
    """Return the values of a dataset that are there and can be understood."""
    found = ((keyword, value_of(dataset, keyword)) for keyword in keywords)
    return {keyword: value for keyword, value in found if value not in (None, "", ())}


def flat(groups: Dataset) -> dict[str, Any]:
    """Return the values of the functional groups of a frame, or of those that all frames share."""
    facts: dict[str, Any] = {}
    for sequence, keywords in _OF_A_FRAME:
        for item in value_of(groups, sequence) or ():
            facts.update(facts_of(item, keywords))
    return facts


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return a value, several as a tuple; None when it is missing or cannot be understood."""
    try:
        value = dataset.get(keyword)
    except Exception:
        # pydicom decodes a value when it is asked for, and answers damage with almost any exception.
        return None
    return tuple(value) if isinstance(value, MultiValue | list) else value  # a list for some damaged types
