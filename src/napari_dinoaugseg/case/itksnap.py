"""Label descriptions of ITK-SNAP: a text file with number, colour and name of each label, beside the label file.

A line holds number, red, green, blue (0 to 255), opacity (0 to 1), visibility, visibility of the mesh (0 or 1), and the
name in quotation marks; lines that begin with # are comments, and the first ones name the format. ITK-SNAP reads and
writes it with *Segmentation > Import* or *Export Label Descriptions*.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.files import atomic_file, look_into, stem_of
from napari_dinoaugseg.errors import CaseError

SUFFIXES = (".txt", ".label")
_TITLE = re.compile(r"ITK-SnAP Label Description File", re.IGNORECASE)
_LINE = re.compile(r"(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+[\d.eE+-]+\s+\d+\s+\d+\s+\"(.*)\"")
# The names that ITK-SNAP gives to labels which nobody named.
_UNNAMED = re.compile(r"Label \d+")
_LARGEST = 4_000_000  # bytes: 65,535 labels with long names
_HEAD = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    IDX:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def write_descriptions(path: Path, segments: Sequence[Segment]) -> None:
    """Write number, colour and name of labels as ITK-SNAP reads them. Raises `OutputError`."""
    lines = [_line(segment) for segment in sorted(segments, key=lambda segment: segment.number)]
    with atomic_file(path) as temporary:
        temporary.write_text(_HEAD + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def _line(segment: Segment) -> str:
    red, green, blue = bytes.fromhex((segment.colour or _colour(segment.number)).removeprefix("#"))
    name = " ".join(segment.name.replace('"', "'").split())
    return f'{segment.number:5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{name}"'


def _colour(number: int) -> str:
    """Return a colour for a label without one: hues in steps of the golden ratio, which lie far apart."""
    parts = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.8, 0.9)
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)


def descriptions_beside(labels: Path, mask: NDArray[Any]) -> tuple[list[Segment], list[str]]:
    """Return the names and colours of the labels of a file, from the label descriptions beside it, and notices.

    Taken are the descriptions with the name of the file (`mask.txt` or `mask.label` beside `mask.nii.gz`), or else the
    only ones in its folder.

    Args:
        labels: the label file.
        mask: its labels (i, j, k); names of others are taken only if somebody gave them.
    """
    path = _find(labels)
    if path is None:
        return [], []
    present: set[int] = set().union(*(np.unique(mask[:, :, k]).tolist() for k in range(mask.shape[2])))
    found: dict[int, Segment] = {}
    for n, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        colour = [int(part) for part in match.groups()[1:4]] if match else []
        if match is None or max(colour) > 255 or int(match[1]) > 65535:
            return [], [f"Line {n} of {path.name} does not describe a label: names and colours are not taken from it."]
        number, name = int(match[1]), " ".join(match[5].split())
        if number and (number in present or not _UNNAMED.fullmatch(name)):
            colours = "#" + "".join(f"{part:02x}" for part in colour)
            found[number] = Segment(number, "".join(c for c in name if c.isprintable()) or f"class {number}", colours)
    return [found[n] for n in sorted(found)], [f"Names and colours of the labels are those of {path.name}."]


def _find(labels: Path) -> Path | None:
    own = [labels.with_name(stem_of(labels) + suffix) for suffix in SUFFIXES]
    named = next((path for path in own if _is_description(path)), None)
    if named is not None:
        return named
    try:
        others = [path for path in look_into(labels.parent).others if path.suffix.lower() in SUFFIXES]
    except CaseError:  # a folder that cannot be listed; the label file itself can be read
        return None
    there = [path for path in others if _is_description(path)]
    return there[0] if len(there) == 1 else None


def _is_description(path: Path) -> bool:
    """Return whether a file begins as ITK-SNAP writes it."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        with path.open("rb") as stream:
            return _TITLE.search(stream.read(1000).decode("utf-8", errors="replace")) is not None
    except OSError:
        return False
