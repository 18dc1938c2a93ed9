"""Masks that are coded in colours, and the file beside them that explains the colours.

CVAT and Datumaro write `labelmap.txt` beside masks in the format of Pascal VOC (`polyp:128,0,0::`), and
`label_colors.txt` beside those of CamVid (`128 0 0 polyp`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.study.files import listed
from napari_dinoaugseg.study.segments import Segment

TABLES = ("labelmap.txt", "label_colors.txt")
# The colour of the border that Pascal VOC leaves open; its number in palettes is 255.
VOC_VOID = (224, 224, 192)
VOID = 255

_Colour = tuple[int, int, int]
_VOC = re.compile(r"([^:]+):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?")
_CAMVID = re.compile(r"(\d+)\s+(\d+)\s+(\d+)\s+(.+)")


@dataclass(frozen=True)
class ColourTable:
    """What the colours of masks mean.

    Attributes:
        path: the file that says so.
        names: the name of each colour, in the order of the file.
    """

    path: Path
    names: dict[_Colour, str]

    @property
    def numbers(self) -> dict[_Colour, int]:
        """The label of each colour: 0 for the background, then from 1 in the order of the file; 255 for VOC's border.

        The background is black; where the file has no black, it is the colour of that name.
        """
        named = (colour for colour, name in self.names.items() if name.casefold() in ("background", "_background_"))
        background = (0, 0, 0) if (0, 0, 0) in self.names else next(named, (0, 0, 0))
        rest = [colour for colour in self.names if colour not in (background, VOC_VOID)]
        return {background: 0, VOC_VOID: VOID, **{colour: number for number, colour in enumerate(rest, start=1)}}

    def segments(self) -> list[Segment]:
        """Name and colour of each label."""
        numbers = self.numbers
        known = [colour for colour in self.names if numbers[colour] not in (0, VOID)]
        return [Segment(numbers[colour], self.names[colour], hexadecimal(colour)) for colour in known]

    def read(self, path: Path, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the labels (H, W) of a mask (H, W, 3).

        Raises:
            LabelError: a colour that the table does not list, or more classes than a mask of 8 bits holds.
        """
        numbers = self.numbers
        if max(numbers.values()) > VOID:
            msg = f"{self.path}: it lists more than 254 classes. Save masks as grey with label numbers instead."
            raise LabelError(msg)
        found, places = np.unique(colours.reshape(-1, 3), axis=0, return_inverse=True)
        keys = [(int(r), int(g), int(b)) for r, g, b in found]
        unlisted = [",".join(map(str, key)) for key in keys if key not in numbers]
        if unlisted:
            msg = f"{path}: its colours {listed(unlisted)} are not in {self.path.name}. Add them there, with a name."
            raise LabelError(msg)
        return np.array([numbers[key] for key in keys], np.uint8)[places.reshape(colours.shape[:2])]


def hexadecimal(colour: Iterable[int]) -> str:
    """Return a colour as `#rrggbb`."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def find_table(mask: Path) -> ColourTable | None:
    """Return the table that explains a mask: beside it, or in the folder above, where CVAT puts it.

    Raises:
        LabelError: a line that is no colour with a name, or one colour with two names.
    """
    for folder in (mask.absolute().parent, mask.absolute().parent.parent):
        for name in TABLES:
            if (folder / name).is_file():
                return _read_table(folder / name)
    return None


def _read_table(path: Path) -> ColourTable:
    names: dict[_Colour, str] = {}
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        voc, camvid = _VOC.fullmatch(text), _CAMVID.fullmatch(text)
        if voc:
            name, parts = voc[1].strip(), (voc[2], voc[3], voc[4])
        elif camvid:
            name, parts = camvid[4].strip(), (camvid[1], camvid[2], camvid[3])
        else:
            msg = f"{path}: the line {text[:40]!r} is no colour with a name. Write lines such as polyp:128,0,0::"
            raise LabelError(msg)
        colour = (int(parts[0]), int(parts[1]), int(parts[2]))
        if max(colour) > 255:
            msg = f"{path}: the colour of {name} reaches beyond 255. Give red, green and blue from 0 to 255."
            raise LabelError(msg)
        if names.setdefault(colour, name) != name:
            msg = f"{path}: {names[colour]} and {name} have the same colour. Give each class a colour of its own."
            raise LabelError(msg)
    return ColourTable(path, names)
