"""Codes for what a segment shows, found by its name.

DICOM SEG needs a coded category and type for each segment (PS3.3 C.8.20.2). The codes are those of the context groups
of DICOM PS3.16, as pydicom carries them: CID 7150 categories, CID 7192 anatomical structures, CID 7166 tissues, and
CID 7194 morphological abnormalities. A name that is in none of them is "Tissue", the widest of the categories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

# Where pydicom has a structure under another keyword than people write.
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
        type: what it is.
        side: left or right, where the name says so and the type does not; else None.
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
    # "kidneys" are coded as "kidney".
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
