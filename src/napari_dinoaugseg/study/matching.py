"""Which mask belongs to which picture: by name, since nothing inside the files tells.

A mask has the stem of its picture, or that stem followed by a word such as `_mask`, `_lesion` or ` Annotation`.
Names are paths relative to their folder, without suffix, with forward slashes: `benign/benign (1)_mask`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.study.files import listed, natural_key

_WORDS = (
    "masks?|lesions?|annotations?|annotated|segmentations?|segmented|seg|labels?|labelmap|gt|groundtruth|ground|truth|"
    "manual|roi|contours?"
)
# One or more such words, each after a separator, and perhaps a number (several masks for one picture).
_TAIL = re.compile(rf"(?:[_\-\s.]+(?:{_WORDS}))+(?:[_\-\s.]*\d+)?", re.IGNORECASE)
_MASK_FOLDER = re.compile(
    r"(?:.*[_\-\s.])?(?:masks?|labels?|annotations?|seg(?:mentations?)?|ground[_\-\s]?truths?|gt)", re.IGNORECASE
)


def is_mask_folder(name: str) -> bool:
    """Tell whether a folder is named as one that holds masks: `masks`, `labels`, `2d_masks`, `groundtruth`..."""
    return _MASK_FOLDER.fullmatch(name) is not None


def base_stems(stem: str) -> list[str]:
    """Return the stems that a picture may have whose mask is called `stem`, the longest first."""
    # A tail may begin at any separator: try each, so that `scan_gt_mask` can be the mask of `scan_gt`.
    return [stem[:n] for n in range(len(stem) - 1, 0, -1) if _TAIL.fullmatch(stem[n:]) and _begins_tail(stem, n)]


def _begins_tail(stem: str, n: int) -> bool:
    """Tell whether the separators in front of a mask word begin at `n`."""
    return re.match(r"[_\-\s.]", stem[n - 1]) is None or re.match(r"[_\-\s.]", stem[n]) is not None


def split_masks(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the names of one folder into pictures and the masks that lie beside them.

    A mask is a name with a mask word whose picture is there too. Where there is none, everything is a picture.
    """
    ordered = sorted(set(names), key=natural_key)
    known = {_fold(name) for name in ordered}
    masks = [name for name in ordered if any(_fold(base) in known for base in _bases(name))]
    taken = set(masks)
    return [name for name in ordered if name not in taken], masks


def _bases(name: str) -> list[str]:
    path = PurePosixPath(name)
    return [str(path.with_name(base)) for base in base_stems(path.name) if base.strip()]


def _fold(name: str) -> str:
    return name.casefold()


def match_masks(masks: Iterable[str], pictures: Iterable[str]) -> dict[str, str]:
    """Find the picture of each mask.

    Args:
        masks: names of masks.
        pictures: names of pictures (or of the masks of another folder).

    Returns:
        The name of the picture by the name of its mask; masks that match nothing are left out. An exact name wins over
        one with a mask word, the longest picture name over shorter ones, and the same subfolder over the stem alone.

    Raises:
        LabelError: a name fits several pictures in different subfolders.
    """
    lookup = _Lookup(pictures)
    found = {mask: lookup.find(mask) for mask in masks}
    return {mask: picture for mask, picture in found.items() if picture is not None}


def one_mask_each(matches: Mapping[str, str]) -> dict[str, str]:
    """Turn mask -> picture into picture -> mask.

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


def pair(predictions: Iterable[str], truths: Iterable[str]) -> dict[str, str]:
    """Pair the masks of two folders, whichever of them carries the mask words.

    Returns:
        The name of the truth by the name of the prediction.

    Raises:
        LabelError: nothing matches, or one name fits several.
    """
    predictions, truths = sorted(predictions, key=natural_key), sorted(truths, key=natural_key)
    pairs = one_mask_each(match_masks(truths, predictions))
    rest = [name for name in predictions if name not in pairs]
    left = [name for name in truths if name not in set(pairs.values())]
    for prediction, truth in match_masks(rest, left).items():
        pairs[prediction] = truth
    one_mask_each(pairs)
    if not pairs:
        msg = f"No mask matches by name: {listed(list(predictions))} and {listed(list(truths))}. Name both alike."
        raise LabelError(msg)
    return {name: pairs[name] for name in predictions if name in pairs}


class _Lookup:
    """Names of pictures, found by relative path first and by stem alone where that is unique."""

    def __init__(self, pictures: Iterable[str]) -> None:
        self._exact: dict[str, str] = {}
        self._folded: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for name in pictures:
            self._exact[name] = name
            self._folded.setdefault(_fold(name), []).append(name)
            self._stems.setdefault(_fold(PurePosixPath(name).name), []).append(name)

    def find(self, mask: str) -> str | None:
        for name in (mask, *_bases(mask)):
            if name in self._exact:
                return name
            folded = self._folded.get(_fold(name), [])
            if len(folded) == 1:
                return folded[0]
            stems = self._stems.get(_fold(PurePosixPath(name).name), [])
            if len(stems) == 1:
                return stems[0]
            if len(stems) > 1:
                msg = f"{mask}: this mask fits several pictures ({listed(stems)}). Put masks in the same subfolders."
                raise LabelError(msg)
        return None
