"""What DICOM objects made from a series share: the headers of its images, patient and study, and labels as text.

Of the patient's data, only the attributes required for every object are copied from the source (type 1 and 2 of the
Patient and General Study modules: name, ID, birth date, sex; UIDs, date, time, ID and accession number of the study,
referring physician), so that an archive files the segmentation with the study, and whether the source was
de-identified. Neither the creator nor the institution is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from napari_dinoaugseg.case.case import Segment, described
from napari_dinoaugseg.case.dicom.frames import DicomSource, slices_of
from napari_dinoaugseg.case.dicom.geometry import Header, parse
from napari_dinoaugseg.case.dicom.headers import GROUPS, OF_GEOMETRY, read_header
from napari_dinoaugseg.errors import CaseError, OutputError

SOFTWARE = "napari-dinoaugseg"
SERIES_NUMBERS_ABOVE = 1000  # viewers list the object after the images
_LONGEST_LABEL = 64  # characters of the value representation LO

# Type 2: present, but empty if the source does not have a value.
_PERSON = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName")
_IF_PRESENT = (
    *("IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "SeriesNumber"),
)
OF_AN_IMAGE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
)
_HEADER = tuple(dict.fromkeys((*OF_AN_IMAGE, *OF_GEOMETRY, *GROUPS)))


def classes_in(
    path: Path, array: NDArray[np.uint8] | NDArray[np.uint16], segments: Sequence[Segment], what: str
) -> list[Segment]:
    """Return the classes of labels (i, j, k), and those that are only named.

    Args:
        path: where they will be written, for the message.
        array: the labels.
        segments: names and colours of the classes.
        what: the kind of object with its article, for the message.

    Raises:
        OutputError: without a class.
    """
    classes = described([int(number) for number in np.unique(array)], tuple(segments))
    if not classes:
        msg = f"{path}: {what} needs at least one class, and nothing is labelled. Label something first."
        raise OutputError(msg)
    return classes


@contextmanager
def making(path: Path, what: str) -> Iterator[None]:
    """Turn what the libraries raise while they make an object into an `OutputError`.

    Args:
        path: where it will be written.
        what: the kind of object, for the message.
    """
    with warnings.catch_warnings():
        # Both libraries warn about unusual values of the source.
        warnings.simplefilter("ignore")
        try:
            yield
        except OSError as error:
            where = f"{error.filename}: {error.strerror}"
            msg = f"{path}: the images that this mask belongs to cannot be read any more ({where}). Put them back."
            raise OutputError(msg) from error
        except (CaseError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
            # The libraries raise these for faults in the header of the source that do not affect reading.
            detail = " ".join(str(error).split())[:160]
            msg = f"{path}: these images cannot have a {what} ({detail}). Write .nii.gz instead."
            raise OutputError(msg) from error


def headers_of(source: DicomSource) -> list[Header]:
    """Read the geometry of all images again: of each file of a series, or of every frame of a multi-frame file."""
    first, frame = source.frames[0]
    if frame is not None:
        return [parse(slice_) for slice_ in slices_of(first, read_header(first, _HEADER))]
    return [parse(slices_of(path, read_header(path, _HEADER))[0]) for path, _ in source.frames]


def patient_of(path: Path) -> Dataset:
    """Return the attributes of patient and study of an image, present but empty where it has none."""
    header = read_header(path, (*_PERSON, *_STUDY, *_IF_PRESENT))
    kept = Dataset()
    for keyword in (*_PERSON, *_STUDY):
        value = header.get(keyword)
        # Decoded here, since the SEG is written in UTF-8.
        setattr(kept, keyword, PersonName(str(value)) if isinstance(value, PersonName) else (value or None))
    for keyword in _IF_PRESENT:
        if header.get(keyword) not in (None, ""):
            setattr(kept, keyword, header.get(keyword))
    return kept


def label_of(entry: Segment) -> str:
    """Return the name as a valid LO value: printable, without backslash (the value separator), not too long."""
    text = "".join(c for c in entry.name.replace("\\", "/") if c.isprintable()).strip()
    return text[:_LONGEST_LABEL].strip() or f"class {entry.number}"
