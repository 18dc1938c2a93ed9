"""What a DICOM object is, in words: most objects of a study are no images, and a message has to name what they are.

Classes are those of DICOM PS3.4, annex B.5; their names end in "Storage".
"""

from __future__ import annotations

import re

from pydicom.config import IGNORE
from pydicom.uid import UID

# The class UIDs and words of the classes' names, the more special first, and what a person calls such an object.
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
# Where the class is private or missing, the modality still says something.
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
# Objects of these modalities may have rows and columns but are no acquired images.
NO_IMAGES = frozenset(_BY_MODALITY)


def class_name(sop_class: str) -> str:
    """Return the name of a SOP class, such as "CT Image Storage"; the UID itself where it is not of the standard."""
    return UID(sop_class, validation_mode=IGNORE).name if sop_class else ""


def kind_of(sop_class: str, modality: str) -> str:
    """Return what an object that is no image is, such as "a structured report (SR)".

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
    """Return what a person can do with an object that was given as an image."""
    if "RTSTRUCT" in kind:
        return "Contours cannot be read yet: convert them to DICOM SEG or NIfTI, for example with 3D Slicer."
    if "SEG" in kind:
        return "Open the images that it was drawn on, and give it as labels."
    if "DICOMDIR" in kind:
        return "Name the folder that holds the images."
    return "Name the images of one series."
