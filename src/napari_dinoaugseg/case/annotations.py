"""Annotations of pictures as JSON: COCO (one file for all pictures) and LabelMe (one file for each).

COCO: `images`, `categories` and `annotations`, whose `segmentation` is a list of polygons, or runs of pixels in columns
(RLE), as numbers or packed into text (cocodataset.org, "Data format"; CVAT, Label Studio and Roboflow export it).
LabelMe: `shapes` with a label, points and a type. In both, the centre of the first pixel is (0.5, 0.5), and a pixel
belongs to a shape if its centre lies inside.

A pixel has one class. Where annotations of several classes overlap, the smaller annotation keeps it; in LabelMe the
later shape, as in its own conversion. A notice counts such pixels.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.case.case import UNKNOWN, Segment
from napari_dinoaugseg.case.contours import Box, filled
from napari_dinoaugseg.case.files import listed, look_into, reading
from napari_dinoaugseg.errors import CaseError, LabelError

EXPECTED = "annotations in COCO or LabelMe format (JSON)"
SUFFIX = ".json"
_HIGHEST = UNKNOWN - 1
# Labels with a meaning in LabelMe.
_BACKGROUND, _IGNORED = "_background_", "__ignore__"
_LARGEST_MASK = 2**26  # pixels of a mask inside JSON, where the size of the picture is unknown
_FARTHEST = 1e7  # pixels


@dataclass(frozen=True)
class Shape:
    """One annotated region.

    Attributes:
        number: its class, 0 for the background, or `UNKNOWN`.
        polygons: corners (n, 2) as (row, column) between pixel centres; the region is their union.
        runs: lengths of runs outside and inside, in columns; used instead of polygons.
        size: rows and columns that the runs are for.
        mask: a mask and its first row and column; used instead of polygons.
    """

    number: int
    polygons: tuple[NDArray[np.float64], ...] = ()
    runs: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    mask: tuple[NDArray[np.bool_], int, int] | None = None


@dataclass
class Annotated:
    """The annotations of one picture.

    Attributes:
        name: the name of the picture without suffix, as in the file.
        size: (rows, columns) of the picture; None if the file does not give it.
        shapes: in the order of the file.
        later_wins: whether later shapes cover earlier ones; otherwise smaller ones cover larger ones.
    """

    name: str
    size: tuple[int, int] | None
    shapes: list[Shape] = field(default_factory=list)
    later_wins: bool = False


@dataclass(frozen=True)
class Annotations:
    """The annotations of pictures.

    Attributes:
        pictures: of each picture.
        segments: number, name and colour of the classes.
        notices: sentences for the user.
    """

    pictures: tuple[Annotated, ...]
    segments: tuple[Segment, ...]
    notices: tuple[str, ...] = ()


def annotation_files(path: Path) -> list[Path]:
    """Return the JSON files at a path: the file itself, or those of a folder."""
    if path.is_file():
        return [path] if path.suffix.lower() == SUFFIX else []
    return [file for file in look_into(path).others if file.suffix.lower() == SUFFIX]


def read_annotations(files: Sequence[Path]) -> Annotations | None:
    """Read one file of COCO, or files of LabelMe; other JSON files among these are left out.

    Args:
        files: JSON files.

    Returns:
        The annotations; None if no file holds any.

    Raises:
        LabelError: a file is damaged, there are several of COCO, or both kinds.
    """
    coco: list[tuple[Path, Mapping[str, Any]]] = []
    labelme: list[tuple[Path, Mapping[str, Any]]] = []
    others: list[Path] = []
    for path in files:
        content = _load(path)
        if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content:
            coco.append((path, content))
        elif isinstance(content, dict) and isinstance(content.get("shapes"), list):
            labelme.append((path, content))
        else:
            others.append(path)
    if len(coco) > 1 or (coco and labelme):
        names = listed([path.name for path, _ in (*coco, *labelme)])
        msg = f"{files[0].parent}: several files hold annotations ({names}). Name one file of COCO."
        raise LabelError(msg)
    if not coco and not labelme:
        return None
    found = _from_coco(*coco[0]) if coco else _from_labelme(labelme)
    left = listed([path.name for path in others])
    notices = [f"JSON files without annotations of pictures left out: {left}"] if others else []
    return Annotations(found.pictures, found.segments, (*notices, *found.notices))


def _load(path: Path) -> Any:
    try:
        with reading(path, EXPECTED):
            return json.loads(path.read_bytes())
    except CaseError as error:
        raise LabelError(error.message) from error


class _Reader:
    """Read values of one file; whatever is not as the format wants it is refused with the place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: Counter[str] = Counter()

    def refused(self, where: str, why: str) -> LabelError:
        return LabelError(f"{self.path}: {where}: {why}. Export the annotations again.")

    def dictionary(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.refused(where, "it is not an object")
        return value

    def items(self, value: Any, where: str) -> list[Mapping[str, Any]]:
        if not isinstance(value, list):
            raise self.refused(where, "it is not a list")
        return [self.dictionary(entry, f"{where} {n}") for n, entry in enumerate(value, start=1)]

    def whole(self, value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or int(value) != value:
            raise self.refused(where, f"{str(value)[:40]!r} is not a whole number")
        return int(value)

    def corners(self, values: Any, where: str) -> NDArray[np.float64]:
        """Return x, y, x, y, … or pairs as (row, column) of pixel centres."""
        try:
            numbers = np.array(values, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            raise self.refused(where, "its points are not pairs of numbers") from None
        if not (np.abs(numbers) < _FARTHEST).all():
            raise self.refused(where, "its points lie nowhere near a picture")
        return np.ascontiguousarray(numbers[:, ::-1]) - 0.5

    def size(self, entry: Mapping[str, Any], height: str, width: str, where: str) -> tuple[int, int] | None:
        if entry.get(height) is None or entry.get(width) is None:
            return None
        return self.whole(entry[height], where), self.whole(entry[width], where)


def _stem(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).with_suffix("").as_posix().lstrip("/") if name.strip("./\\") else name


def _printable(text: Any) -> str:
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())[:200]


# --- COCO -----------------------------------------------------------------------------------------------------------


def _from_coco(path: Path, content: Mapping[str, Any]) -> Annotations:
    reader = _Reader(path)
    pictures: dict[int, Annotated] = {}
    for n, entry in enumerate(reader.items(content["images"], "images"), start=1):
        where = f"image {n}"
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise reader.refused(where, "it has no file_name")
        size = reader.size(entry, "height", "width", where)
        pictures[reader.whole(entry.get("id"), where)] = Annotated(_stem(name), size)
    segments, number_of, notices = _categories(reader, content)
    for n, entry in enumerate(reader.items(content["annotations"], "annotations"), start=1):
        where = f"annotation {n}"
        picture = pictures.get(reader.whole(entry.get("image_id"), where))
        category = reader.whole(entry.get("category_id"), where)
        if picture is None or category not in number_of:
            raise reader.refused(where, "nothing describes its image or its category")
        shape = _coco_shape(reader, entry, number_of[category], where)
        if shape is None:
            reader.left_out["without an outline (boxes or key points)"] += 1
        else:
            picture.shapes.append(shape)
    return Annotations(tuple(pictures.values()), segments, (*notices, *_left_out(reader.left_out)))


def _categories(reader: _Reader, content: Mapping[str, Any]) -> tuple[tuple[Segment, ...], dict[int, int], list[str]]:
    """Return the classes, the number of each category, and notices."""
    entries = reader.items(content.get("categories") or [], "categories")
    ids = [reader.whole(entry.get("id"), f"category {n}") for n, entry in enumerate(entries, start=1)]
    if len(set(ids)) < len(ids):
        raise reader.refused("categories", "two have the same id")
    if len(ids) > _HIGHEST:
        raise reader.refused("categories", f"there are more than {_HIGHEST}")
    keeps = all(0 < own <= _HIGHEST for own in ids)
    number_of = {own: own if keeps else n for n, own in enumerate(ids, start=1)}
    segments = tuple(
        Segment(number_of[own], _printable(entry.get("name", "")) or f"class {number_of[own]}", _colour(entry))
        for own, entry in zip(ids, entries, strict=True)
    )
    if keeps:
        return segments, number_of, []
    named = [f"{segment.number} {segment.name}" for segment in segments]
    return segments, number_of, [f"categories have ids that no class can have: they are numbered ({listed(named)})"]


def _colour(entry: Mapping[str, Any]) -> str | None:
    colour = entry.get("color")
    if isinstance(colour, str) and len(colour) == 7 and colour[0] == "#":
        digits = colour[1:].lower()
        return f"#{digits}" if all(c in "0123456789abcdef" for c in digits) else None
    if isinstance(colour, list) and len(colour) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in colour):
        return "#" + "".join(f"{c:02x}" for c in colour)
    return None


def _coco_shape(reader: _Reader, entry: Mapping[str, Any], number: int, where: str) -> Shape | None:
    found = entry.get("segmentation")
    if isinstance(found, list):
        polygons = [reader.corners(points, where) for points in found if points]
        polygons = [points for points in polygons if len(points) >= 3]
        return Shape(number, tuple(polygons)) if polygons else None
    if found is None:
        return None
    runs = reader.dictionary(found, where)
    size = runs.get("size")
    if not isinstance(size, list) or len(size) != 2:
        raise reader.refused(where, "its runs have no size")
    shape = reader.whole(size[0], where), reader.whole(size[1], where)
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = _unpacked(reader, counts, where)
    if not isinstance(counts, list):
        raise reader.refused(where, "its runs have no counts")
    lengths = tuple(reader.whole(count, where) for count in counts)
    if min(lengths, default=0) < 0 or min(shape) < 1 or sum(lengths) != shape[0] * shape[1]:
        raise reader.refused(where, f"its runs do not fill {shape[1]} x {shape[0]} pixels")
    return Shape(number, runs=lengths, size=shape)


def _unpacked(reader: _Reader, text: str, where: str) -> list[int]:
    """Return the runs of COCO's packed text.

    A number takes groups of five bits, the lowest first, each in a character from "0" on: bit 5 says that more follow,
    bit 4 of the last one is the sign. From the third on, a number is the difference to the run two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise reader.refused(where, "its packed runs are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise reader.refused(where, "its packed runs are cut off")
    return counts


# --- LabelMe --------------------------------------------------------------------------------------------------------


def _from_labelme(files: Sequence[tuple[Path, Mapping[str, Any]]]) -> Annotations:
    readers = {path: _Reader(path) for path, _ in files}
    shapes = {path: readers[path].items(content["shapes"], "shapes") for path, content in files}
    labels = {_printable(entry.get("label", "")) for entries in shapes.values() for entry in entries}
    names = sorted(labels - {"", _BACKGROUND, _IGNORED})
    numbers = {_BACKGROUND: 0, _IGNORED: UNKNOWN, **{name: n for n, name in enumerate(names, start=1)}}
    pictures = []
    left_out: Counter[str] = Counter()
    for path, content in files:
        reader = readers[path]
        size = reader.size(content, "imageHeight", "imageWidth", "the picture")
        found = Annotated(path.stem, size, later_wins=True)
        for n, entry in enumerate(shapes[path], start=1):
            where = f"shape {n}"
            label = _printable(entry.get("label", ""))
            if label not in numbers:
                raise reader.refused(where, "it has no label")
            shape = _labelme_shape(reader, entry, numbers[label], size, where)
            if shape is not None:
                found.shapes.append(shape)
        left_out += reader.left_out
        pictures.append(found)
    segments = tuple(Segment(numbers[name], name) for name in names)
    return Annotations(tuple(pictures), segments, tuple(_left_out(left_out)))


def _labelme_shape(
    reader: _Reader, entry: Mapping[str, Any], number: int, size: tuple[int, int] | None, where: str
) -> Shape | None:
    kind = entry.get("shape_type") or "polygon"
    corners = reader.corners(entry.get("points") or [], where)
    if kind == "polygon" and len(corners) >= 3:
        return Shape(number, (corners,))
    if kind == "rectangle" and len(corners) == 2:
        (top, left), (bottom, right) = corners
        return Shape(number, (np.array([[top, left], [top, right], [bottom, right], [bottom, left]]),))
    if kind == "circle" and len(corners) == 2:
        radius = float(np.linalg.norm(corners[1] - corners[0]))
        angles = np.linspace(0, 2 * np.pi, max(16, min(int(8 * radius), 4096)), endpoint=False)
        return Shape(number, (corners[0] + radius * np.column_stack([np.sin(angles), np.cos(angles)]),))
    if kind == "mask" and len(corners) == 2:
        row, column = (round(float(x)) for x in corners.min(axis=0) + 0.5)
        return Shape(number, mask=(_labelme_mask(reader, entry, size, where), row, column))
    reader.left_out[f"of the type {_printable(kind)[:40]}, which encloses no area"] += 1
    return None


def _labelme_mask(
    reader: _Reader, entry: Mapping[str, Any], size: tuple[int, int] | None, where: str
) -> NDArray[np.bool_]:
    most = _LARGEST_MASK if size is None else min(size[0] * size[1], _LARGEST_MASK)
    try:
        image = Image.open(io.BytesIO(base64.b64decode(str(entry.get("mask", "")), validate=True)))
        if image.width * image.height > most:
            raise reader.refused(where, "its mask is larger than the picture")
        pixels = np.asarray(image)
    except LabelError:
        raise
    except Exception:  # Pillow raises almost anything for a damaged picture
        raise reader.refused(where, "its mask is not a picture") from None
    return np.asarray(pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0


def _left_out(counts: Counter[str]) -> list[str]:
    return [f"annotations {what} are left out ({count})" for what, count in counts.items()]


# --- onto a picture -------------------------------------------------------------------------------------------------


def drawn(annotated: Annotated, shape: tuple[int, int]) -> tuple[NDArray[np.uint16], int, int]:
    """Draw the shapes of a picture.

    Args:
        annotated: the annotations of the picture.
        shape: its rows and columns.

    Returns:
        The labels (H, W), how many pixels annotations of several classes share, and how many shapes reach beyond the
        picture or enclose no pixel centre.

    Raises:
        LabelError: runs or a mask of another size; the message has no path.
    """
    order = list(range(len(annotated.shapes)))
    lost = 0
    sizes = []
    for entry in annotated.shapes:
        _, pixels, beyond = _area(entry, shape)
        sizes.append(int(pixels.sum()))
        lost += beyond or not sizes[-1]
    if not annotated.later_wins:
        order.sort(key=lambda n: -sizes[n])
    labels = np.zeros(shape, dtype=np.uint16)
    covered = np.zeros(shape, dtype=bool)
    shared = 0
    # Each area is made a second time: many large ones must not be in memory at once.
    for n in order:
        number = annotated.shapes[n].number
        box, pixels, _ = _area(annotated.shapes[n], shape)
        part, before = labels[box], covered[box]
        shared += int((before & pixels & (part != number)).sum())
        part[pixels] = number
        before |= pixels
    return labels, shared, lost


def _area(entry: Shape, shape: tuple[int, int]) -> tuple[Box, NDArray[np.bool_], bool]:
    """Return the pixels of a shape in a part of the picture, and whether it reaches beyond."""
    whole = slice(0, shape[0]), slice(0, shape[1])
    if entry.runs:
        if entry.size != shape:
            msg = f"runs are for {entry.size[1]} x {entry.size[0]} pixels"
            raise LabelError(msg)
        inside = np.repeat(np.arange(len(entry.runs)) % 2 == 1, entry.runs)
        return whole, np.ascontiguousarray(inside.reshape(shape, order="F")), False
    area = np.zeros(shape, dtype=bool)
    if entry.mask is not None:
        pixels, row, column = entry.mask
        rows, columns = pixels.shape
        if row < 0 or column < 0 or row + rows > shape[0] or column + columns > shape[1]:
            msg = f"a mask of {columns} x {rows} pixels does not fit in"
            raise LabelError(msg)
        return (slice(row, row + rows), slice(column, column + columns)), pixels, False
    parts = [filled(points, shape) for points in entry.polygons]
    # Half a pixel more: annotation tools let corners lie on the border of the picture.
    limits = np.array(shape) + 0.5
    beyond = any(bool((points < -1).any() or (points > limits).any()) for points in entry.polygons)
    if len(parts) == 1:
        return *parts[0], beyond
    for box, pixels in parts:
        area[box] |= pixels
    return whole, area, beyond
