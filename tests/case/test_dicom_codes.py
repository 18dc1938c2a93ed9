"""Codes of segments: those of the standard's own lists, found by the names that people write."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from napari_dinoaugseg.case.dicom.headers import _ALSO, _known, property_of


@pytest.mark.parametrize(
    ("name", "code", "meaning", "category"),
    [
        ("Liver", "10200004", "Liver", "Anatomical Structure"),
        ("spleen", "78961009", "Spleen", "Anatomical Structure"),
        ("KIDNEYS", "64033007", "Kidney", "Anatomical Structure"),
        ("aorta", "15825003", "Aorta", "Anatomical Structure"),
        ("left ventricle", "87878005", "Left ventricle", "Anatomical Structure"),
        ("Right_Atrium", "73829009", "Right atrium", "Anatomical Structure"),
        ("grey matter", "389081007", "Gray Matter", "Anatomical Structure"),
        ("urinary bladder", "89837001", "Bladder", "Anatomical Structure"),
        ("fat", "55603005", "Fat", "Tissue"),
        ("tumour", "108369006", "Neoplasm", "Morphologically Abnormal Structure"),
        ("lesions", "52988006", "Lesion", "Morphologically Abnormal Structure"),
    ],
)
def test_common_names_have_their_code(name: str, code: str, meaning: str, category: str) -> None:
    found = property_of(name)
    assert (found.type.value, found.type.scheme_designator, found.type.meaning) == (code, "SCT", meaning)
    assert found.category.meaning == category
    assert found.side is None


@pytest.mark.parametrize(
    ("name", "side"), [("left kidney", "Left"), ("Kidney, right", "Right"), ("lungs_left", "Left")]
)
def test_a_side_that_the_code_lacks_is_said_beside_it(name: str, side: str) -> None:
    found = property_of(name)
    assert found.type.meaning in ("Kidney", "Lung")
    assert found.side is not None
    assert found.side.meaning == side


@pytest.mark.parametrize("name", ["", "class 1", "liverish", "肝", "left", "left right kidney", "thing 3"])
def test_other_names_are_tissue(name: str) -> None:
    assert property_of(name) == property_of("something else")
    assert property_of(name).type == codes.SCT.Tissue


def test_every_known_property_is_of_a_category_of_the_standard() -> None:
    categories = [getattr(codes.cid7150, keyword) for keyword in codes.cid7150.dir()]
    assert all(found.category in categories for found in _known().values())
    assert set(_ALSO.values()) <= set(_known())
