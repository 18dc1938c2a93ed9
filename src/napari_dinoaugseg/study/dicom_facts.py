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
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.files import is_dicom, reading, unreadable

EXPECTED = "a DICOM file"
Facts = Mapping[str, Any]

# Objects that may have rows and columns but are no acquired images.
_NO_IMAGES = frozenset({"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "DOC"})
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"

_OF_THE_FILE = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("SeriesDescription", "Modality", "Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "ImageType", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime"),
    *("DiffusionBValue", "TriggerTime", "AcquisitionNumber", "AcquisitionTime", "InstanceNumber"),
)
# Where the functional groups of a frame keep what a file of one image has at the top.
_OF_A_FRAME: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")),
    ("PlanePositionSequence", ("ImagePositionPatient",)),
    ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
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
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
_SMALLEST_FRAME = 16  # bytes
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


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


@dataclass(frozen=True)
class ImageFile:
    """One DICOM file that holds an image.

    Attributes:
        path: the file.
        facts: what its header says as a whole.
        slices: its images, in the order of the file.
        has_place: whether it says where any of its images lies in the patient.
    """

    path: Path
    facts: Facts
    slices: Sequence[Slice]
    has_place: bool


def read_image_file(path: Path) -> ImageFile | None:
    """Read the header of an image; None for a DICOM object that is no image, such as a report or a segmentation.

    Raises:
        StudyError: not DICOM, damaged, or a whole-slide image.
    """
    with reading(path, EXPECTED):
        dataset = read_header(path, (*_OF_THE_FILE, *_GROUPS))
        facts = _facts(dataset, _OF_THE_FILE)
        kind = facts.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
        sized = all(isinstance(facts.get(keyword), int) for keyword in ("Rows", "Columns"))
        if not kind or (not sized and "Image Storage" in UID(str(kind)).name):
            raise StudyError(unreadable(path, EXPECTED))  # an image class without a size: the header is cut off
        if not sized or facts.get("Modality") in _NO_IMAGES:
            return None
        if kind == _WHOLE_SLIDE:
            msg = f"{path}: this is a whole-slide image, cut into tiles. Export the region of interest as PNG or TIFF."
            raise StudyError(msg)
        slices = slices_of(path, dataset, facts)
    has_place = any(keyword in slice_.facts for slice_ in slices for keyword in _PLACE)
    return ImageFile(path, facts, slices, has_place)


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


def slices_of(path: Path, dataset: Dataset, facts: Facts | None = None) -> list[Slice]:
    """Return the images of one file, each with its facts.

    Args:
        path: the file.
        dataset: its header.
        facts: what was read from the top of the header already.

    Raises:
        StudyError: more or fewer frames are described than announced, or more than the file can hold.
    """
    facts = _facts(dataset, _OF_THE_FILE) if facts is None else facts
    count = int(facts.get("NumberOfFrames") or 1)
    shared = next(iter(_value(dataset, _GROUPS[0]) or ()), Dataset())
    groups = list(_value(dataset, _GROUPS[1]) or ())
    if not groups and count <= 1:
        return [Slice(path, facts, None)]
    if not groups:
        return _alike(path, {**facts, **_flat(shared)}, count)
    if len(groups) != count:
        msg = f"{path}: it announces {count} frames but describes {len(groups)}. Export it again."
        raise StudyError(msg)
    common = {**facts, **_flat(shared)}
    return [Slice(path, {**common, **_flat(group)}, number) for number, group in enumerate(groups, start=1)]


def _alike(path: Path, facts: Facts, count: int) -> list[Slice]:
    # Even a compressed frame takes the header of its item and some bytes: more were never written.
    if count > path.stat().st_size / _SMALLEST_FRAME:
        msg = (
            f"{path}: it announces {count} frames, more than fit into the file. It is damaged; copy or export it again."
        )
        raise StudyError(msg)
    # Nothing tells one frame from another, so no position is theirs: one at the top can only be that of the first.
    common = {keyword: value for keyword, value in facts.items() if keyword not in _PLACE}
    return [Slice(path, common, number) for number in range(1, count + 1)]


def number(facts: Facts, keyword: str) -> float | None:
    """Return a finite number; None where there is none."""
    value = facts.get(keyword)
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def text(facts: Facts, keyword: str) -> str:
    """Return a text on one printable line; empty where there is none."""
    value = facts.get(keyword)
    return "" if value is None else "".join(c for c in " ".join(str(value).split()) if c.isprintable())


def _facts(dataset: Dataset, keywords: Sequence[str]) -> dict[str, Any]:
    found = ((keyword, _value(dataset, keyword)) for keyword in keywords)
    return {keyword: value for keyword, value in found if value not in (None, "", ())}


def _flat(groups: Dataset) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for sequence, keywords in _OF_A_FRAME:
        for item in _value(groups, sequence) or ():
            facts.update(_facts(item, keywords))
    return facts


def _value(dataset: Dataset, keyword: str) -> Any:
    """Return a value, several as a tuple; None when it is missing or cannot be understood."""
    try:
        value = dataset.get(keyword)
    except Exception:
        # pydicom decodes a value when it is asked for, and answers damage with almost any exception.
        return None
    return tuple(value) if isinstance(value, MultiValue | list) else value  # a list for some damaged types
