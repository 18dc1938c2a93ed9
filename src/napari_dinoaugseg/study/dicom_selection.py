"""Which images of a series are its volume, and what is left out of it, by name.

Scanners and archives put more into a series than the slices of one volume (a localizer, a screen capture, a dose
report), and people copy files twice. Others give each slice a series of its own.
"""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.dicom_facts import numbers, text
from napari_dinoaugseg.study.dicom_frames import PLACE, ImageFile
from napari_dinoaugseg.study.dicom_geometry import Header, is_even, parse
from napari_dinoaugseg.study.dicom_kinds import class_name
from napari_dinoaugseg.study.dicom_pixels import read_pixels
from napari_dinoaugseg.study.files import listed, natural_key

_MOST_NAMES = 5


@dataclass
class Series:
    """Images that a person would call one series.

    Attributes:
        uids: the SeriesInstanceUIDs; several where each slice has one of its own.
        images: its files.
        notices: what a person should know.
    """

    uids: list[str]
    images: list[ImageFile]
    notices: list[str] = field(default_factory=list)

    @property
    def description(self) -> str:
        """As the scanner's operator wrote it; may be empty."""
        return text(self.images[0].facts, "SeriesDescription")


def series_of(images: Iterable[ImageFile]) -> list[Series]:
    """Group images by their series, and join series of one slice each that are slices of one volume."""
    groups: dict[str, list[ImageFile]] = {}
    for image in images:
        groups.setdefault(text(image.facts, "SeriesInstanceUID"), []).append(image)
    found: list[Series] = []
    joined: dict[Hashable, Series] = {}
    for uid, group in sorted(groups.items()):
        key = _of_one_volume(group)
        if key is None or key not in joined:
            found.append(Series([uid], group))
            if key is not None:
                joined[key] = found[-1]
        else:
            joined[key].uids.append(uid)
            joined[key].images.extend(group)
    for series in found:
        if len(series.uids) > 1:
            series.notices.append(
                f"{len(series.uids)} series of one image each are joined: they share a frame of reference and a series "
                "number"
            )
    return found


def _of_one_volume(group: Sequence[ImageFile]) -> Hashable | None:
    """Return what the only slice of a series shares with the others of its volume; None where it has no such."""
    facts = group[0].facts
    shared = [text(facts, name) for name in ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber")]
    orientation = numbers(facts, PLACE[1], 6)
    if len(group) > 1 or len(group[0].slices) > 1 or not all(shared) or orientation is None or PLACE[0] not in facts:
        return None
    return (*shared, tuple(np.round(orientation, 2) + 0.0), group[0].slices[0].size, text(facts, "Modality"))


# --- copies --------------------------------------------------------------------------------------------------------


def without_copies(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[str]]:
    """Return each image once, and a notice that names the copies.

    Raises:
        StudyError: two files have one SOPInstanceUID and differ.
    """
    groups: dict[str, list[ImageFile]] = {}
    for image in images:
        key = text(image.facts, "SOPInstanceUID") or hashlib.sha256(image.path.read_bytes()).hexdigest()
        groups.setdefault(key, []).append(image)
    kept: list[ImageFile] = []
    copies: list[ImageFile] = []
    for group in groups.values():
        first, *others = sorted(group, key=lambda image: (len(image.path.name), image.path))
        for other in others:
            if not _same(first, other):
                msg = (
                    f"{first.path} and {other.path} call themselves the same image (SOPInstanceUID) but differ. "
                    "Keep the right one of them."
                )
                raise StudyError(msg)
        kept.append(first)
        copies.extend(others)
    return kept, _copies(copies)


def _copies(images: Sequence[ImageFile | Header]) -> list[str]:
    return _left_out("copy of an image that is there", "copies of images that are there", images)


def _same(first: ImageFile, other: ImageFile) -> bool:
    """Tell whether two files hold the same image: byte for byte, or with the same pixels in the same place."""
    if filecmp.cmp(first.path, other.path, shallow=False):
        return True
    if any(first.facts.get(name) != other.facts.get(name) for name in (*PLACE, "PixelSpacing", "Rows", "Columns")):
        return False
    return np.array_equal(*(_values(image.slices) for image in (first, other)))


def _values(slices: Sequence[Any]) -> Any:
    stored, slope, intercept = read_pixels(slices)
    return stored * slope + intercept


def without_resent(headers: Sequence[Header]) -> tuple[list[Header], list[str]]:
    """Return each slice once where several files show the same one: sent twice, with identifiers of their own."""
    ordered = sorted(headers, key=lambda header: (len(header.path.name), header.path, header.frame or 0))
    kept: dict[Hashable, list[Header]] = {}
    copies: list[Header] = []
    for header in ordered:
        here = kept.setdefault(tuple(np.round(header.position, 3) + 0.0), [])
        if header.frame is None and any(np.array_equal(_values([other]), _values([header])) for other in here):
            copies.append(header)
        else:
            here.append(header)
    left = [header for here in kept.values() for header in here]
    return left, _copies(copies)


# --- what is no slice of the volume --------------------------------------------------------------------------------


def of_one_volume(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[str]]:
    """Return the images of a series without those that are no slices of its volume, and notices that name these.

    A localizer, and an image of another kind without a place in the patient, are left out. What only lies otherwise
    than the most (direction, size, pixel spacing) is left out where the others are a whole volume without it; else it
    may be a slice that is damaged, and sorting refuses it by name.
    """
    placed = [image for image in images if image.has_place]
    if not placed:
        return list(images), []
    scouts = [image for image in placed if _is_localizer(image)]
    if len(scouts) == len(placed):
        scouts = []  # they are what the person wants to see
    slices = _others(placed, scouts)
    main = _most(slices, _shape)
    odd, pages = _others(slices, main), _others(images, placed)
    is_whole = 2 * len(main) > len(slices) and is_even([header for image in main for header in _headers(image)])
    odd = odd if is_whole else []
    pages = [page for page in pages if is_whole or _is_other_kind(page, main[0])]
    notices = [
        *_left_out("localizer", "localizers", scouts),
        *_left_out("image of another kind or direction", "images of another kind or direction", odd),
        *_left_out("image without a place in the patient", "images without a place in the patient", pages),
    ]
    return _others(images, [*scouts, *odd, *pages]), notices


def _others(images: Sequence[ImageFile], some: Sequence[ImageFile]) -> list[ImageFile]:
    paths = {image.path for image in some}
    return [image for image in images if image.path not in paths]


def _is_localizer(image: ImageFile) -> bool:
    kinds = image.facts.get("ImageType")
    return isinstance(kinds, tuple) and any(str(kind).upper() in ("LOCALIZER", "SCOUT") for kind in kinds)


def _shape(image: ImageFile) -> Hashable:
    """Return what all slices of a volume share."""
    facts = image.slices[0].facts
    orientation, spacing = numbers(facts, PLACE[1], 6), numbers(facts, "PixelSpacing", 2)
    return (
        None if orientation is None else tuple(np.round(orientation, 2) + 0.0),
        None if spacing is None else tuple(np.round(spacing, 3)),
        image.slices[0].size,
        "MONOCHROME" in text(facts, "PhotometricInterpretation"),
    )


def _most(images: Sequence[ImageFile], key: Callable[[ImageFile], Hashable]) -> list[ImageFile]:
    groups: dict[Hashable, list[ImageFile]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    return max(groups.values(), key=lambda group: sum(len(image.slices) for image in group))


def _headers(image: ImageFile) -> list[Header]:
    try:
        return [parse(slice_) for slice_ in image.slices]
    except StudyError:
        return []


def _is_other_kind(page: ImageFile, slice_: ImageFile) -> bool:
    """Tell whether an image without a place is of another kind than the slices: a screen capture, a report."""
    return any(
        text(page.facts, name) != text(slice_.facts, name)
        for name in ("SOPClassUID", "PhotometricInterpretation", "Rows", "Columns")
    )


def _left_out(one: str, several: str, images: Sequence[ImageFile | Header]) -> list[str]:
    """Return the notice that names the files that are left out, and their class; nothing where there are none."""
    if not images:
        return []
    files = sorted(images, key=lambda image: natural_key(image.path.name))
    names = listed([image.path.name for image in files], _MOST_NAMES)
    kinds = dict.fromkeys(class_name(text(image.facts, "SOPClassUID")).removesuffix(" Storage") for image in files)
    return [f"{len(files)} {one if len(files) == 1 else several} left out: {names} ({', '.join(kinds)})"]
