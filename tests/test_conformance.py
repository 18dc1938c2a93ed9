"""The DICOM conformance statement lists what the program does, no less and no more."""

from __future__ import annotations

import re

import numpy as np
import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID_dictionary

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.dicom import headers, pixels, seg, source
from napari_dinoaugseg.pacs import find, send
from tests.case.builders import write_dicom
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "dicom_conformance.md").read_text(encoding="utf-8")


def part(title: str) -> str:
    """The text of a section, without the sections below it."""
    return re.split(r"^#+ ", TEXT.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def keywords(text: str) -> set[str]:
    return {word for word in re.findall(r"`([A-Za-z]+)`", text) if tag_for_keyword(word) is not None}


def uids(text: str) -> set[str]:
    return set(re.findall(r"`(1\.2\.840\.10008[\d.]+)`", text))


def test_every_keyword_is_one_of_dicom():
    words = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+|[A-Z]{2,}[a-z]\w+)`", TEXT))
    assert len(words) > 80
    assert {word for word in words if tag_for_keyword(word) is None} == set()


def test_the_transfer_syntaxes_are_those_that_can_be_decoded():
    assert pixels.is_available("1.2.840.10008.1.2.4.70")
    can = set()
    for uid, (_, kind, *_) in UID_dictionary.items():
        if kind == "Transfer Syntax":
            try:
                if get_decoder(uid).is_available:
                    can.add(str(uid))
            except NotImplementedError:  # of no image
                continue
    assert uids(part("Transfer syntaxes")) == can


def test_the_attributes_that_are_read_are_those_of_the_reader():
    groups = {keyword for _, found in headers._OF_A_FRAME for keyword in found}
    assert keywords(part("Attributes that are read")) == set(headers.OF_THE_FILE) | groups


def test_the_classes_of_labels_are_those_of_the_readers_and_the_sender():
    assert uids(part("Labels that are read")) == {*map(str, send.KINDS), seg._LABEL_MAP}


def test_the_keys_of_searches_are_those_that_are_sent():
    assert set(find._STUDY) | set(find._SERIES) <= keywords(part("Services"))
    assert f"at most {send._BATCH_FILES} files or {send._BATCH_BYTES // 2**20} MiB" in part("Services")


@pytest.mark.parametrize("name", ["mask.dcm", "mask.rtstruct.dcm"])
def test_the_attributes_that_are_written_are_in_the_statement(tmp_path, name):
    write_dicom(tmp_path / "series", np.zeros((4, 16, 16), np.int16))
    case = open_case(tmp_path / "series")
    case.write_mask(tmp_path / name, np.ones((4, 16, 16), np.uint16).__getitem__, [Segment(1, "Liver", "#e69f00")])
    made = pydicom.dcmread(tmp_path / name)
    text = part("Objects that are written")
    assert {element.keyword for element in made} <= keywords(text)
    assert {*source._PERSON, *source._STUDY, *source._IF_PRESENT} <= keywords(text)
    assert {str(made.SOPClassUID), str(made.file_meta.TransferSyntaxUID)} <= uids(text)
    assert not made.get("OperatorsName")
    assert not made.get("ContentCreatorName")
