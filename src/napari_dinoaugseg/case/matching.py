"""Match masks with pictures by file name.

A mask has the stem of its picture, or that stem followed by a word such as `_mask`, `_lesion` or ` Annotation`. Some
tools differ: nnU-Net adds the channel to the picture (`pat_000_0000.png` for `pat_000.png`), Supervisely appends the
suffix to the mask (`x.png.png`), and Label Studio numbers tasks (`task-3-annotation-7-by-1-tag-...`). Names are POSIX
paths relative to their folder, without suffix: `benign/benign (1)_mask`. The comparison ignores case and the Unicode
form of accents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from napari_dinoaugseg.case.files import PICTURE_SUFFIXES, counted, folded, listed, natural_key
from napari_dinoaugseg.errors import LabelError

_WORDS = (
    "masks?|lesions?|annotations?|annotated|segmentations?|segmented|seg|labels?|labelmap|gt|groundtruth|ground|truth|"
    "manual|roi|contours?"
)
# One or more such words, each after a separator, and an optional number (several masks of one picture).
_TAIL = re.compile(rf"(?:[_\-\s.]+(?:{_WORDS}))+(?:[_\-\s.]*\d+)?", re.IGNORECASE)
_MASK_FOLDER = re.compile(
    r"(?:.*[_\-\s.])?(?:masks?|labels?|annotations?|seg(?:mentations?)?|ground[_\-\s]?truths?|gt)"
    # nnU-Net; Supervisely; Pascal VOC and CVAT; CamVid.
    r"|labels(?:tr|ts|val)|masks?[_\-](?:human|machine|instances?)|segmentation(?:class|object)(?:aug|png|raw)?"
    r"|\w*annot",
    re.IGNORECASE,
)
# The second folder of each pair is for viewing only, or numbers objects instead of classes.
_RIVALS = (("masks_machine", "masks_human"), ("segmentationclass", "segmentationobject"))


def is_mask_folder(name: str) -> bool:
    """Return whether a name is that of a mask folder: `masks`, `labels`, `2d_masks`, `groundtruth`..."""
    return _MASK_FOLDER.fullmatch(name) is not None


def outdone(names: Iterable[str]) -> set[str]:
    """Return the mask folders superseded by a better one beside them."""
    known = {folded(name): name for name in names}
    return {known[worse] for better, worse in _RIVALS if better in known and worse in known}


def base_stems(stem: str) -> list[str]:
    """Return the possible stems of the picture whose mask is called `stem`, the longest first."""
    # Try a tail at each separator, so that `scan_gt_mask` can be the mask of `scan_gt`.
    return [stem[:n] for n in range(len(stem) - 1, 0, -1) if _TAIL.fullmatch(stem[n:]) and _begins_tail(stem, n)]


def _begins_tail(stem: str, n: int) -> bool:
    """Return whether `n` is the first of the separators before a mask word."""
    return re.match(r"[_\-\s.]", stem[n - 1]) is None or re.match(r"[_\-\s.]", stem[n]) is not None


def split_masks(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the names of one folder into pictures and masks.

    A mask has a mask word in its name and its picture in the same folder. Without masks, everything is a picture.
    """
    ordered = sorted(set(names), key=natural_key)
    known = {folded(name) for name in ordered}
    masks = [name for name in ordered if any(folded(base) in known for base in _bases(name))]
    taken = set(masks)
    return [name for name in ordered if name not in taken], masks


def _bases(name: str) -> list[str]:
    path = PurePosixPath(name)
    return [str(path.with_name(base)) for base in base_stems(path.name) if base.strip()]


@dataclass(frozen=True)
class LabelStudioMask:
    """The parts of the name of a Label Studio mask: `task-3-annotation-7-by-1-tag-polyp-0`.

    Attributes:
        task: the number of the task; one task is one picture.
        annotation: the number of the annotation: one annotator's work on a task.
        tag: the name of the class.
    """

    task: int
    annotation: int
    tag: str


_CHANNEL = re.compile(r"_\d{4}$")
_LABEL_STUDIO = re.compile(r"task-(\d+)-annotation-(\d+)-by-.*?-tag-(.+)-\d+", re.IGNORECASE)


def label_studio(name: str) -> LabelStudioMask | None:
    """Parse the name of a Label Studio mask; None for any other name."""
    found = _LABEL_STUDIO.fullmatch(PurePosixPath(name).name)
    return LabelStudioMask(int(found[1]), int(found[2]), found[3]) if found else None


def match_masks(masks: Iterable[str], pictures: Iterable[str], notices: list[str] | None = None) -> dict[str, str]:
    """Find the picture of each mask.

    Args:
        masks: names of masks.
        pictures: names of pictures (or of the masks of another folder) in order.
        notices: receives a sentence for each special naming scheme that occurs.

    Returns:
        The name of the picture by the name of its mask; unmatched masks are missing. An exact name takes precedence
        over one with a mask word, the longest picture name over shorter ones, the same subfolder over the stem alone,
        and all of these over the schemes of nnU-Net and Supervisely. Tasks of Label Studio are matched by order when
        nothing else matches.

    Raises:
        LabelError: a name fits several pictures, or tasks of Label Studio cannot be counted off.
    """
    pictures = list(pictures)
    lookup = _Lookup(pictures)
    found: dict[str, str] = {}
    ways: dict[str, list[str]] = {}
    left: list[str] = []
    for mask in masks:
        picture, way = lookup.find(mask)
        if picture is None:
            left.append(mask)
            continue
        found[mask] = picture
        if way:
            ways.setdefault(way, []).append(f"{mask} to {picture}")
    tasks = {mask: task for mask in left if (task := label_studio(mask)) is not None}
    if tasks:
        found |= _in_order_of_tasks(tasks, pictures, notices)
    if notices is not None:
        for way, pairs in ways.items():
            notices.append(f"{counted(len(pairs), 'mask')} matched in the way of {way} ({listed(pairs)})")
    return found


def _in_order_of_tasks(
    tasks: Mapping[str, LabelStudioMask], pictures: Sequence[str], notices: list[str] | None
) -> dict[str, str]:
    """Match tasks of Label Studio by order: their names hold only the number of the task.

    Raises:
        LabelError: the numbers neither lie between 1 and the number of pictures, nor are consecutive and as many.
    """
    ordered = sorted(pictures, key=natural_key)
    numbers = sorted({task.task for task in tasks.values()})
    if numbers[0] >= 1 and numbers[-1] <= len(ordered):
        place = {number: number - 1 for number in numbers}
    elif len(numbers) == len(ordered) and numbers[-1] - numbers[0] == len(ordered) - 1:
        place = {number: number - numbers[0] for number in numbers}
    else:
        first = next(iter(tasks))
        msg = (
            f"{first}: Label Studio's names hold only the number of the task, and tasks {numbers[0]} to {numbers[-1]} "
            f"cannot be counted off against {counted(len(ordered), 'picture')}. Rename each mask after its picture."
        )
        raise LabelError(msg)
    if notices is not None:
        pairs = [f"task {number} to {ordered[place[number]]}" for number in numbers]
        notices.append(
            f"Label Studio's names hold only the number of the task: masks were given to the pictures in the order of "
            f"their names ({listed(pairs, 5)}). Check them; if pictures were imported in another order, rename the "
            "masks after their pictures"
        )
    return {mask: ordered[place[task.task]] for mask, task in tasks.items()}


def one_mask_each(matches: Mapping[str, str]) -> dict[str, str]:
    """Invert mask -> picture to picture -> mask.

    Raises:
        LabelError: a picture has several masks.
    """
    turned: dict[str, str] = {}
    for mask, picture in matches.items():
        if picture in turned:
            msg = (
                f"{picture}: it has several masks ({turned[picture]} and {mask}). "
                "Keep one mask file for each picture, with all its labels."
            )
            raise LabelError(msg)
        turned[picture] = mask
    return turned


def pair(predictions: Iterable[str], truths: Iterable[str], notices: list[str] | None = None) -> dict[str, str]:
    """Pair the masks of two folders; mask words may occur in either.

    Args:
        predictions: names of masks.
        truths: names of masks.
        notices: receives a sentence for each special naming scheme that occurs.

    Returns:
        The name of the truth by the name of the prediction.

    Raises:
        LabelError: nothing matches, or one name fits several.
    """
    predictions, truths = sorted(predictions, key=natural_key), sorted(truths, key=natural_key)
    pairs = one_mask_each(match_masks(truths, predictions, notices))
    rest = [name for name in predictions if name not in pairs]
    left = [name for name in truths if name not in set(pairs.values())]
    for prediction, truth in match_masks(rest, left, notices).items() if rest and left else ():
        pairs[prediction] = truth
    one_mask_each(pairs)
    if not pairs:
        msg = f"No mask matches by name: {listed(list(predictions))} and {listed(list(truths))}. Name both alike."
        raise LabelError(msg)
    return {name: pairs[name] for name in predictions if name in pairs}


class _Lookup:
    """Look up pictures by relative path first, then by stem where that is unique."""

    def __init__(self, pictures: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._folded: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._cases: dict[str, list[str]] = {}
        for name in pictures:
            self._exact.add(name)
            stem = PurePosixPath(name).name
            self._folded.setdefault(folded(name), []).append(name)
            self._stems.setdefault(folded(stem), []).append(name)
            if _CHANNEL.search(stem):
                self._cases.setdefault(folded(_CHANNEL.sub("", stem)), []).append(name)

    def find(self, mask: str) -> tuple[str | None, str]:
        """Return the picture of a mask and the special naming scheme; "" for a plain name."""
        picture = self._plainly(mask)
        if picture is not None:
            return picture, ""
        path = PurePosixPath(mask)
        if path.suffix.lower() in PICTURE_SUFFIXES:
            picture = self._plainly(str(path.with_suffix("")))
            if picture is not None:
                return picture, "Supervisely, which adds a suffix to the picture's whole name"
        cases = self._cases.get(folded(path.name), [])
        same_folder = [name for name in cases if PurePosixPath(name).parent == path.parent]
        cases = same_folder or cases
        if len(cases) > 1:
            msg = (
                f"{mask}: this mask fits several pictures ({listed(cases)}). Keep one channel of each case among the "
                "pictures, or put masks in the same subfolders."
            )
            raise LabelError(msg)
        return (cases[0], "nnU-Net, which adds the channel to the picture's name") if cases else (None, "")

    def _plainly(self, mask: str) -> str | None:
        for name in (mask, *_bases(mask)):
            if name in self._exact:
                return name
            same = self._folded.get(folded(name), [])
            if len(same) == 1:
                return same[0]
            stems = self._stems.get(folded(PurePosixPath(name).name), [])
            if len(stems) == 1:
                return stems[0]
            if len(stems) > 1:
                msg = f"{mask}: this mask fits several pictures ({listed(stems)}). Put masks in the same subfolders."
                raise LabelError(msg)
        return None
