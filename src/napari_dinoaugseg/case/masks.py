"""Masks of pictures: the meaning of their values, decided for a whole folder.

Masks come in many encodings: 0 and 255, label numbers, 1 bit, RGB with equal channels, a palette, colours with a table,
opacity, even JPEG. A folder is interpreted as a whole, so that an empty mask among binary ones is binary too, and 255
means the same in all of them.

Grey values between black and white are either classes or the fringe of a binary mask. Smoothing, resizing and JPEG
leave values between 0 and 255 at edges, within the 8 x 8 pixels of a JPEG block; some public data sets have wider bands
of varying values there. Classes are areas of one value, anywhere. Masks coded in colours come with a table: CVAT and
Datumaro write `labelmap.txt` beside masks in the format of Pascal VOC (`polyp:128,0,0::`), and `label_colors.txt`
beside those of CamVid (`128 0 0 polyp`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import UNKNOWN, Segment
from napari_dinoaugseg.case.files import LeftOut, counted, listed, look_into, not_found, once
from napari_dinoaugseg.case.matching import is_mask_folder, outdone, split_masks
from napari_dinoaugseg.case.picture_files import Orientation, Picture, decode
from napari_dinoaugseg.errors import CaseError, Hint, LabelError, Message

_REACH = 8
# In a fringe, values between 0 and 255 are at most this share of the white pixels, or more than so many.
_SMALL_PART = 0.25
_MANY = 20
# A band beside white is noise if it has at least so many values, and this share of neighbours differ.
_MIXED = 4
_ROUGH = 0.1
# With many values, up to this share of pixels may look like a class without making the folder one of classes.
_TOLERATED = 0.01


class Census:
    """Counts of the values of 8-bit masks, and statistics on the values between black and white.

    Attributes:
        counts: how many pixels have each value.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
        self._like_class = self._solid = 0

    def add(self, mask: NDArray[np.uint8]) -> None:
        """Count a mask (H, W)."""
        self.counts += np.bincount(mask.reshape(-1), minlength=256)
        middle = (mask > 0) & (mask < 255)
        if middle.any():
            self._like_class += _pixels_like_class(mask, middle)
            self._solid += int((_solid(mask) & middle).sum())

    @property
    def whites(self) -> int:
        """How many pixels are 255."""
        return int(self.counts[255])

    @property
    def middle(self) -> int:
        """How many pixels lie between 0 and 255."""
        return int(self.counts[1:255].sum())

    @property
    def values(self) -> list[int]:
        """The values between 0 and 255 that occur."""
        return [int(value) + 1 for value in np.flatnonzero(self.counts[1:255])]

    @property
    def is_fringe(self) -> bool:
        """Whether all values between 0 and 255 are a fringe between black and white; true without any."""
        number = len(self.values)
        speckled = number >= 2 * _MIXED and 2 * number >= self.middle
        small = self.middle <= _SMALL_PART * self.whites or number > _MANY or speckled
        return small and self._like_class <= (_TOLERATED * self.middle if number > _MANY else 0)

    @property
    def is_shaded(self) -> bool:
        """Whether values vary from pixel to pixel as in a photograph, instead of forming areas of one value."""
        return len(self.values) > _MANY and 2 * self._solid < self.middle


def _pixels_like_class(mask: NDArray[np.uint8], middle: NDArray[np.bool_]) -> int:
    """Return the number of pixels between 0 and 255 in connected components that are not a fringe.

    A component is a fringe if it lies within reach of an edge, is a single pixel, or is a small rough band beside
    white; a mask without white has no fringe.
    """
    from scipy import ndimage

    # A bright class amid black is near black everywhere; a dark strip at the image border may have no black nearby.
    far = middle & ~(_widened(mask == 255) & (_widened(mask == 0) | (mask < 128)))
    if not far.any():
        return 0
    parts, number = ndimage.label(middle, np.ones((3, 3)))
    size = np.bincount(parts.reshape(-1), minlength=number + 1)
    is_far = np.bincount(parts[far], minlength=number + 1) > 0
    pairs, steps = np.zeros(number + 1, np.int64), np.zeros(number + 1, np.int64)
    for axis in (0, 1):
        one, other = _neighbours(mask, axis)
        inside, _ = _neighbours(parts, axis)
        both = np.logical_and(*_neighbours(middle, axis))
        pairs += np.bincount(inside[both], minlength=number + 1)
        steps += np.bincount(inside[both & (one != other)], minlength=number + 1)
    values = np.unique(parts[middle].astype(np.int64) * 256 + mask[middle]) // 256
    is_mixed = np.bincount(values, minlength=number + 1) >= _MIXED
    beside_white = np.unique(parts[ndimage.binary_dilation(mask == 255, np.ones((3, 3))) & middle])
    is_band = is_mixed & (steps >= _ROUGH * pairs) & np.isin(np.arange(number + 1), beside_white)
    whites = np.count_nonzero(mask == 255)
    is_band &= size <= _SMALL_PART * whites
    is_speck = (size == 1) & (whites > 0)
    is_class = is_far & ~is_speck & ~is_band
    return int(size[1:][is_class[1:]].sum())


def is_two_valued(mask: NDArray[Any]) -> bool:
    """Return whether a mask (H, W) from a lossy file is black and white except for compression noise.

    An all-black mask is, and so is one whose other values lie where black meets white.
    """
    highest = int(mask.max())
    if mask.dtype != np.uint8 or 0 < highest < 128:
        return False
    dark, bright = mask < 32, mask >= 224
    far = ~dark & ~bright & ~(_widened(dark) & _widened(bright))
    return 20 * int(far.sum()) <= int((~dark).sum())


def _widened(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilate an area by a square of `_REACH` in all directions."""
    from scipy import ndimage

    grown: NDArray[np.bool_] = ndimage.maximum_filter(area, size=2 * _REACH + 1, mode="constant", cval=False)
    return grown


def _neighbours(array: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two views of an array, shifted by one along an axis."""
    return (array[1:], array[:-1]) if axis == 0 else (array[:, 1:], array[:, :-1])


def _solid(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a pixel equals its eight neighbours."""
    from scipy import ndimage

    same: NDArray[np.bool_] = ndimage.maximum_filter(mask, size=3) == ndimage.minimum_filter(mask, size=3)
    return same


TABLES = ("labelmap.txt", "label_colors.txt")
# The colour of the unlabelled border of Pascal VOC; its number in palettes is 255.
VOC_VOID = (224, 224, 192)
VOID = 255

_Colour = tuple[int, int, int]
_VOC = re.compile(r"([^:]+):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?")
_CAMVID = re.compile(r"(\d+)\s+(\d+)\s+(\d+)\s+(.+)")


@dataclass(frozen=True)
class ColourTable:
    """The meaning of the colours of masks.

    Attributes:
        path: the file of the table.
        names: the name of each colour, in the order of the file.
    """

    path: Path
    names: dict[_Colour, str]

    @property
    def numbers(self) -> dict[_Colour, int]:
        """The label of each colour: 0 for the background, 255 for VOC's border, others from 1 in the order of the file.

        The background is black, or the colour of that name if the file does not list black.
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
    """Return the colour table of a mask: beside it, or in the parent folder, where CVAT puts it.

    Raises:
        LabelError: a line is not a colour with a name, or a colour has two names.
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
            msg = f"{path}: the line {text[:40]!r} is not a colour with a name. Write lines such as polyp:128,0,0::"
            raise LabelError(msg)
        colour = (int(parts[0]), int(parts[1]), int(parts[2]))
        if max(colour) > 255:
            msg = f"{path}: the colour of {name} reaches beyond 255. Give red, green and blue from 0 to 255."
            raise LabelError(msg)
        if names.setdefault(colour, name) != name:
            msg = f"{path}: {names[colour]} and {name} have the same colour. Give each class a colour of its own."
            raise LabelError(msg)
    return ColourTable(path, names)


Lie = Literal["seen", "stored"]
"""Whether a mask of a picture with EXIF orientation fits the upright picture ("seen") or the stored pixels."""

WHITE = 255
_CUT = 128
# Lossy files store colour coarsely, so equal channels differ by up to this much.
_COLOUR_NOISE = 48
# More values or colours than any set of classes has: a photograph.
_PHOTOGRAPH = 64


@dataclass(frozen=True)
class MaskOptions:
    """How to read masks of pictures where the files are ambiguous.

    Attributes:
        orientation: whether masks without EXIF orientation, of a picture that has one, fit the picture as `seen` or as
            `stored`. A mask whose size fits only one of them is read that way regardless. None follows the other masks
            of the folder, and defaults to "seen".
        ignore: "255": 255 beside other labels is unknown; "none": it is a class. None = unknown in 8-bit masks, a class
            in 16-bit masks.
    """

    orientation: Lie | None = None
    ignore: Literal["255", "none"] | None = None


def name_in(path: Path, root: Path) -> str:
    """Return the name used for matching: relative to `root`, without suffix."""
    return path.relative_to(root).with_suffix("").as_posix()


@dataclass
class MaskFiles:
    """The mask files of a folder by name, and the files skipped there."""

    files: dict[str, Path]
    left_out: LeftOut = field(default_factory=LeftOut)


def mask_files(folder: Path) -> MaskFiles:
    """Return the mask files of a folder by name.

    Subfolders are searched: only mask folders, if there are any and no picture lies beside them. Pictures that lie in
    one folder with their masks are skipped.

    Raises:
        LabelError: the folder is missing or empty, or two files share a name.
    """
    if not folder.exists():
        raise LabelError(not_found(folder))
    left_out = LeftOut()
    try:
        files = list(_walk(folder, left_out, {os.path.realpath(folder)}))
    except CaseError as error:
        raise LabelError(error.message) from error
    if not files:
        others = f" Files of other kinds lie here: {listed([path.name for path in left_out.others])}."
        msg = f"{folder}: there is no mask here. Give masks as PNG, TIFF, BMP or JPEG files."
        raise LabelError(f"{msg}{others if left_out.others else ''}")
    named: dict[str, Path] = {}
    for path in files:
        name = name_in(path, folder)
        if name in named:
            msg = f"{path}: {named[name].name} has the same name. Keep one mask for each picture."
            raise LabelError(msg)
        named[name] = path
    _, masks = split_masks(named)
    return MaskFiles({name: named[name] for name in masks} if masks else named, left_out)


def _walk(folder: Path, left_out: LeftOut, seen: set[str]) -> Iterator[Path]:
    found = look_into(folder)
    left_out.others.extend(path for path in found.others if path.name not in TABLES)
    left_out.broken.extend(found.broken)
    yield from found.pictures
    masks = [path for path in found.folders if is_mask_folder(path.name)]
    superfluous = outdone(path.name for path in masks)
    left_out.mask_folders.extend(path for path in masks if path.name in superfluous)
    chosen = masks if masks and not found.pictures else found.folders
    for path in once((path for path in chosen if path.name not in superfluous), seen):
        yield from _walk(path, left_out, seen)


@dataclass(frozen=True)
class _Read:
    """The label values (H, W) of one mask, uint8 or uint16, and their origin in the file."""

    values: NDArray[Any]
    source: Literal["grey", "lossy", "palette", "colours"]
    from_alpha: bool = False
    hidden: bool = False
    inverted: bool = False


class MaskFolder(Mapping[str, NDArray[np.uint16]]):
    """The label images of mask files by name, decoded on access.

    Args:
        files: the mask files by name.
        options: how to read ambiguous masks.

    Attributes:
        orientations: the EXIF orientation of each mask.
        notices: sentences for the user.
        segments: name and colour of labels, from a colour table beside the masks.
        may_be_unknown: whether labels may hold `UNKNOWN`.

    Raises:
        LabelError: a file cannot be read or holds no labels, or the values contradict each other.
    """

    def __init__(self, files: Mapping[str, Path], options: MaskOptions | None = None) -> None:
        self._files = dict(files)
        self._options = options or MaskOptions()
        self._tables: dict[Path, ColourTable | None] = {}
        self.orientations: dict[str, Orientation] = {}
        self.notices: list[str] = []
        census, facts = Census(), _Facts()
        for name, path in self._files.items():
            picture = _decode(path)
            read = self._read(path, picture)
            self.orientations[name] = picture.orientation
            facts.add(path, picture, read)
            if read.source == "grey" and read.values.dtype == np.uint8:
                census.add(read.values)
        self._interpret(census, facts)

    def _interpret(self, census: Census, facts: _Facts) -> None:
        """Decide the meaning of the values of the folder, and report ambiguities."""
        where = next(iter(self._files.values())).parent if self._files else Path()
        goes_on = max(facts.deep - {UNKNOWN}, default=0) > WHITE
        self._is_cut = census.whites > 0 and not goes_on and census.is_fringe
        if census.whites > 0 and not self._is_cut and census.is_shaded:
            msg = (
                f"{where}: masks hold {len(census.values)} grey values that lie neither along edges nor in areas "
                "of one value, as photographs and probabilities do. Save label numbers 0, 1, 2..., or 0 and 255."
            )
            raise LabelError(msg)
        grey = set() if self._is_cut else set(census.values)
        classes = facts.classes | grey
        self._deep_is_white = facts.deep == {UNKNOWN} and not classes
        deep = set() if self._deep_is_white else facts.deep
        classes |= deep - {WHITE, UNKNOWN}
        white = census.whites > 0 or facts.whites
        if facts.lossy and (classes or UNKNOWN in deep):
            msg = (
                f"{facts.lossy[0]}: JPEG and lossy WebP change values, but other masks here hold label numbers "
                f"({listed([str(n) for n in sorted(classes)])}). Save all masks as PNG."
            )
            raise LabelError(msg)
        if UNKNOWN in deep and self._options.ignore == "none":
            msg = f"{where}: masks hold 65535, and no class can have that number."
            raise LabelError(msg, Hint.RENUMBER_UNKNOWN)
        # In 16-bit masks 255 is an ordinary label: `PictureCase.write_mask` relies on it.
        self._white_is_unknown = bool(classes) and (
            (white or WHITE in deep) if self._options.ignore == "255" else white and not goes_on
        )
        if self._options.ignore == "none":
            self._white_is_unknown = False
        self.may_be_unknown = self._white_is_unknown or UNKNOWN in deep
        self.segments = self._named(facts, classes)
        self._add_notices(census, facts, deep, classes, white=white)

    def _add_notices(self, census: Census, facts: _Facts, deep: set[int], classes: set[int], *, white: bool) -> None:
        cut = f"{counted(census.middle, 'pixel')} of masks with values between 0 and 255, along edges or stray"
        which = f"255 beside other labels ({listed([str(n) for n in sorted(classes)], 5)})"
        values = (
            (self._is_cut and census.middle > 0, f"{cut}, cut at {_CUT}"),
            (
                self._white_is_unknown,
                Message(f"{which} is taken as unknown: nothing is learnt there", Hint.WHITE_AS_CLASS),
            ),
            (
                self._white_is_unknown and _are_even_steps(classes),
                "these values are even steps of grey, so white may be a class as well",
            ),
            (
                (white or WHITE in deep) and bool(classes) and not self._white_is_unknown,
                f"{which} is taken as a class, as asked"
                if self._options.ignore
                else Message(f"{which} is taken as a class in 16-bit masks", Hint.WHITE_AS_UNKNOWN),
            ),
            (UNKNOWN in deep, "65535 beside other labels is taken as unknown: nothing is learnt there"),
            (self._deep_is_white, "0 and 65535 in 16-bit masks are taken as background and the one class, 255"),
        )
        self.notices.extend(sentence for holds, sentence in values if holds)
        for paths, what in (
            (facts.lossy, f"packed with loss (as JPEG), cut at {_CUT}"),
            (facts.from_alpha, "taken from the opacity, since the colours hold none"),
            (facts.hidden, "with transparent pixels, taken as background"),
            (facts.inverted, "whose palette shows number 0 as white and 1 as black: white is taken as the label 255"),
        ):
            if paths:
                self.notices.append(f"{counted(len(paths), 'mask')} {what}: {listed([path.name for path in paths])}")

    def _named(self, facts: _Facts, classes: set[int]) -> tuple[Segment, ...]:
        """Return the names of the labels, by palette colour, else by the order of the colour table."""
        tables = [table for table in self._tables.values() if table is not None]
        if not tables:
            return ()
        table = tables[0]
        by_number = {segment.number: segment for segment in table.segments()}
        for number, colour in facts.palette.items():
            if colour in table.names and number in classes:
                by_number[number] = Segment(number, table.names[colour], hexadecimal(colour))
        named = tuple(by_number[number] for number in sorted(classes) if number in by_number)
        if named:
            pairs = [f"{segment.number} {segment.name}" for segment in named]
            self.notices.append(f"colours are explained by {table.path.name}: {listed(pairs, 8)}")
        return named

    def _read(self, path: Path, picture: Picture) -> _Read:
        """Return the label values of one mask.

        Raises:
            LabelError: colours without a table, or values that are not labels.
        """
        if picture.palette is not None and picture.numbers is not None:
            return self._read_palette(path, picture.numbers, picture.palette)
        pixels = picture.pixels if picture.numbers is None else picture.numbers
        if pixels.ndim == 3:
            spread = pixels.max(axis=2).astype(np.int32) - pixels.min(axis=2)
            if int(spread.max()) <= (0 if picture.exact else _COLOUR_NOISE):
                pixels = pixels[..., 1]
        from_alpha = hidden = False
        if picture.alpha is not None:
            visible = picture.alpha > 0
            if _is_in_alpha(pixels, visible, explained=pixels.ndim == 3 and self._table(path) is not None):
                pixels, from_alpha = picture.alpha, True
            elif not visible.all() and pixels[~visible].any():
                pixels, hidden = np.where(visible if pixels.ndim == 2 else visible[..., np.newaxis], pixels, 0), True
        if pixels.ndim == 3:
            return _Read(self._explained(path, pixels, picture), "colours", hidden=hidden)
        values = _whole_numbers(path, pixels)
        if picture.exact:
            return _Read(values, "grey", from_alpha, hidden)
        if not is_two_valued(values):
            msg = (
                f"{path}: packing with loss (JPEG) changes values, and these are not black and white only. "
                "Save label numbers as PNG."
            )
            raise LabelError(msg)
        return _Read(values, "lossy", from_alpha, hidden)

    def _read_palette(self, path: Path, numbers: NDArray[Any], palette: NDArray[np.uint8]) -> _Read:
        self._table(path)
        used = np.unique(numbers)
        if used.max(initial=0) < len(palette):
            colours = palette[used]
            black, white = (colours == 0).all(axis=1), (colours == WHITE).all(axis=1)
            if (black | white).all() and 0 in used and white[0]:
                return _Read(np.where(palette[numbers][..., 0] > 0, WHITE, 0).astype(np.uint8), "grey", inverted=True)
        return _Read(numbers.astype(np.uint8), "palette")

    def _explained(self, path: Path, pixels: NDArray[Any], picture: Picture) -> NDArray[np.uint8]:
        table = self._table(path)
        if table is None or not picture.exact:
            why = "no labelmap.txt beside it says what they mean" if picture.exact else "packing with loss changes them"
            msg = (
                f"{path}: this mask is coded in colours, and {why}. Save it as grey with label numbers 0, 1, 2..., "
                f"or {'add the labelmap.txt of the export' if picture.exact else 'as PNG with a labelmap.txt'}."
            )
            raise LabelError(msg)
        return table.read(path, (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels)

    def _table(self, path: Path) -> ColourTable | None:
        if path.parent not in self._tables:
            self._tables[path.parent] = find_table(path)
        return self._tables[path.parent]

    def __getitem__(self, name: str) -> NDArray[np.uint16]:
        """Return the labels (H, W) as stored; binary masks hold 0 and 255, and `UNKNOWN` marks unlabelled pixels."""
        path = self._files[name]
        read = self._read(path, _decode(path))
        labels = read.values.astype(np.uint16)
        is_deep = read.values.dtype != np.uint8
        if read.source == "lossy" or (read.source == "grey" and self._is_cut and not is_deep):
            labels = np.where(labels >= _CUT, WHITE, 0).astype(np.uint16)
        if is_deep and self._deep_is_white:
            labels[labels == UNKNOWN] = WHITE
        if self._white_is_unknown and (not is_deep or self._options.ignore == "255"):
            labels[labels == WHITE] = UNKNOWN
        return labels

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._files)

    def __len__(self) -> int:
        """Return how many masks there are."""
        return len(self._files)

    def path(self, name: str) -> Path:
        """Return the file of a mask."""
        return self._files[name]


@dataclass
class _Facts:
    """Label values and peculiarities of all masks of a folder."""

    classes: set[int] = field(default_factory=set)
    deep: set[int] = field(default_factory=set)
    whites: bool = False
    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    lossy: list[Path] = field(default_factory=list)
    from_alpha: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    inverted: list[Path] = field(default_factory=list)
    _explained_by: dict[int, Path] = field(default_factory=dict)

    def add(self, path: Path, picture: Picture, read: _Read) -> None:
        """Add a mask. Raises `LabelError` if its palette contradicts that of another mask."""
        for flag, paths in (
            (read.source == "lossy", self.lossy),
            (read.from_alpha, self.from_alpha),
            (read.hidden, self.hidden),
            (read.inverted, self.inverted),
        ):
            if flag:
                paths.append(path)
        numbers = {int(number) for number in np.unique(read.values)} - {0}
        if read.values.dtype != np.uint8:
            self.deep |= numbers
        elif read.source in ("palette", "colours"):
            self.classes |= numbers - {WHITE}
            self.whites = self.whites or WHITE in numbers
        if read.source == "palette" and picture.palette is not None:
            self._compare_palettes(path, picture.palette, numbers)

    def _compare_palettes(self, path: Path, palette: NDArray[np.uint8], numbers: Iterable[int]) -> None:
        for number in numbers:
            if number >= len(palette):
                continue
            red, green, blue = (int(part) for part in palette[number])
            first = self._explained_by.setdefault(number, path)
            if self.palette.setdefault(number, (red, green, blue)) != (red, green, blue):
                msg = (
                    f"{path}: its palette gives the label {number} another colour than that of {first.name}, so the "
                    "numbers may mean different things. Save masks with one palette, or as grey with label numbers."
                )
                raise LabelError(msg)


def read_mask_folder(path: Path | Sequence[Path], options: MaskOptions | None = None) -> MaskFolder:
    """Read a folder or list of masks without pictures, for comparing two of them.

    Args:
        path: the folder, a mask, or a list of masks.
        options: how to read ambiguous masks.

    Returns:
        A mapping from name (relative path without suffix) to labels (H, W), decoded one by one.

    Raises:
        LabelError: no mask is found, one cannot be read, or one holds no labels.
    """
    if isinstance(path, str | Path):
        folder = Path(path)
        if folder.is_file():
            return MaskFolder({folder.stem: folder}, options)
        found = mask_files(folder)
        masks = MaskFolder(found.files, options)
        masks.notices.extend(found.left_out.sentences(folder.name))
        return masks
    files: dict[str, Path] = {}
    for file in map(Path, path):
        if file.stem in files:
            msg = f"{file}: {files[file.stem]} has the same name. Keep one mask for each picture."
            raise LabelError(msg)
        files[file.stem] = file
    if not files:
        msg = "The list of masks is empty. Name at least one mask."
        raise LabelError(msg)
    return MaskFolder(files, options)


def _are_even_steps(classes: set[int]) -> bool:
    """Return whether labels together with 0 and 255 are a few steps of grey, such as 0, 85, 170, 255."""
    steps = np.diff(sorted({0, *classes, WHITE}))
    return 2 <= len(steps) <= 8 and int(np.ptp(steps)) <= 1


def _decode(path: Path) -> Picture:
    try:
        return decode(path)
    except CaseError as error:
        raise LabelError(error.message) from error


def _is_in_alpha(pixels: NDArray[Any], visible: NDArray[np.bool_], *, explained: bool) -> bool:
    """Return whether the opacity is the mask: colours are constant, a photograph, or visible black only."""
    flat = pixels.reshape(visible.size, -1)
    if (flat == flat[0]).all():
        return True
    seen = flat[visible.reshape(-1)]
    if explained or len(seen) == 0:
        return False
    if (seen == seen[0]).all():
        return pixels.ndim == 3 or not seen[0].any()
    return pixels.dtype == np.uint8 and len(np.unique(seen, axis=0)) > _PHOTOGRAPH


def _whole_numbers(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return grey pixels as uint8 or uint16. Raises `LabelError` for values that are not labels."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if not np.isfinite(pixels).all() or (pixels != np.rint(pixels)).any() or pixels.min() < 0 or pixels.max() > 65535:
        msg = (
            f"{path}: it holds negative, fractional or too large values. Save labels as whole numbers from 0 to 65535."
        )
        raise LabelError(msg)
    return pixels.astype(np.uint8 if pixels.max() <= WHITE else np.uint16)


def must_be_deep(labels: set[int]) -> bool:
    """Return whether labels that fit into 8 bits need 16-bit masks, since 255 would be read as unknown."""
    return max(labels - {UNKNOWN}, default=0) == WHITE and not labels <= {0, WHITE}
