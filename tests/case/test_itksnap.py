"""Label descriptions of ITK-SNAP: names and colours of a label file, from the text file beside it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.case.case import ReadLabels, Segment
from napari_dinoaugseg.case.itksnap import descriptions_beside, write_descriptions
from tests.case.builders import numbers, write_nifti

# As ITK-SNAP 4 exports them: names of the default table for labels that nobody named.
TABLE = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0   16        1  1  1    "Leber, \u201elinks\u201c"
    2     0  255    0        0.6  1  1    "Label 2"
    4     0    0  255        1  1  1    "Label 4"
   12   255  255    0        1  0  1    "tumour"
"""


@pytest.fixture
def case(tmp_path: Path) -> VolumeCase:
    opened = open_case(write_nifti(tmp_path / "image.nii.gz", numbers((6, 7, 5))))
    assert isinstance(opened, VolumeCase)
    return opened


@pytest.fixture
def mask(case: VolumeCase, tmp_path: Path) -> Path:
    labels = np.zeros((6, 7, 5), np.uint8)
    labels[1:3, 2:4, 1], labels[4, 4, 2] = 1, 2
    folder = tmp_path / "labels"
    folder.mkdir()
    return write_nifti(folder / "mask.nii.gz", labels, nib.load(case.path).affine)


def read(case: VolumeCase, path: Path) -> ReadLabels:
    labels = case.read_labels(path)
    assert isinstance(labels, ReadLabels)
    return labels


@pytest.mark.parametrize("name", ["mask.txt", "mask.label", "everything.txt"])
def test_names_and_colours_come_from_the_descriptions_beside(name: str, case: VolumeCase, mask: Path) -> None:
    (mask.parent / name).write_text(TABLE, encoding="utf-8")
    (mask.parent / "notes.txt").write_text("Measured on Monday.")
    labels = read(case, mask)
    found = [(entry.number, entry.name, entry.colour) for entry in labels.segments]
    # Label 4 is neither in the mask nor did anybody name it.
    named = [(1, "Leber, \u201elinks\u201c", "#ff0010"), (2, "Label 2", "#00ff00"), (12, "tumour", "#ffff00")]
    assert found == named
    assert labels.notices == [f"Names and colours of the labels are those of {name}."]


def test_of_several_descriptions_without_its_name_none_is_taken(case: VolumeCase, mask: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (mask.parent / name).write_text(TABLE, encoding="utf-8")
    labels = read(case, mask)
    assert (labels.segments, labels.notices) == ((), [])


@pytest.mark.parametrize("line", ["1 2 3", '1 256 0 0 1 1 1 "a"', '70000 0 0 0 1 1 1 "a"', "1 0 0 0 1 1 1 name"])
def test_labels_with_broken_descriptions_are_read_without_names(line: str, case: VolumeCase, mask: Path) -> None:
    (mask.parent / "mask.txt").write_text(TABLE + line, encoding="utf-8")
    labels = read(case, mask)
    assert labels
    assert labels.segments == ()
    assert labels.notices == ["Line 13 of mask.txt does not describe a label: names and colours are not taken from it."]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    meant = [Segment(7, 'K\u00f6rper  "ganz"', "#0072b2"), Segment(1, "liver", "#e69f00"), Segment(300, "c")]
    write_descriptions(tmp_path / "mask.txt", meant)
    found, _ = descriptions_beside(tmp_path / "mask.nii.gz", np.array([[[1, 7, 300]]]))
    assert [(entry.number, entry.name) for entry in found] == [(1, "liver"), (7, "K\u00f6rper 'ganz'"), (300, "c")]
    assert [entry.colour for entry in found[:2]] == ["#e69f00", "#0072b2"]
    text = (tmp_path / "mask.txt").read_text(encoding="utf-8")
    assert '    1   230  159    0        1  1  1    "liver"\n' in text
    assert '    0     0    0    0        0  0  0    "Clear Label"\n' in text
