"""Read one DICOM series as a volume: find the files, choose a series, and skip images outside the volume.

A series has one file per slice, or one file with frames (Enhanced CT and MR, nuclear medicine). One file without a
position in the patient (an ultrasound loop, a radiograph, a screenshot) is a stack of its frames.

Besides the slices of one volume, a series may contain a localizer, a screen capture, a dose report or copied files.
Some scanners give each slice its own series.
"""

from __future__ import annotations

import filecmp
import hashlib
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.dicom.frames import (
    FRAME_NUMBER,
    PLACE,
    ImageFile,
    OtherFile,
    are_slices,
    origin_of,
    read_object,
    source_of,
)
from napari_dinoaugseg.case.dicom.geometry import Header, choose_volume, is_even, loop, parse, stack
from napari_dinoaugseg.case.dicom.headers import Slice, advice_on, class_name, number, numbers, text
from napari_dinoaugseg.case.dicom.pixels import as_seen, is_inverted, read_pixels
from napari_dinoaugseg.case.files import (
    DICOM_SUFFIXES,
    counted,
    files_below,
    is_dicom,
    listed,
    may_be_dicom,
    natural_key,
)
from napari_dinoaugseg.case.geometry import Grid, Voxels, check
from napari_dinoaugseg.errors import CaseError, SeriesInfo, SeveralSeriesError

_MOST_NAMES = 5


@dataclass
class Series:
    """Images of one series, or of several series with one slice each of the same volume.

    Attributes:
        uids: the SeriesInstanceUIDs; several if each slice has its own.
        images: its files.
        notices: sentences for the user.
    """

    uids: list[str]
    images: list[ImageFile]
    notices: list[str] = field(default_factory=list)

    @property
    def description(self) -> str:
        """The Series Description; may be empty."""
        return text(self.images[0].facts, "SeriesDescription")


def series_of(images: Iterable[ImageFile]) -> list[Series]:
    """Group images by series, and join series of one slice each that form one volume."""
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
    """Return a key shared by single-slice series of one volume; None for any other series."""
    facts = group[0].facts
    shared = [text(facts, name) for name in ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber")]
    orientation = numbers(facts, PLACE[1], 6)
    if len(group) > 1 or len(group[0].slices) > 1 or not all(shared) or orientation is None or PLACE[0] not in facts:
        return None
    return (*shared, tuple(np.round(orientation, 2) + 0.0), group[0].slices[0].size, text(facts, "Modality"))


def without_copies(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[str]]:
    """Return each image once, and a notice that names the copies.

    Raises:
        CaseError: two files have one SOPInstanceUID and differ.
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
                raise CaseError(msg)
        kept.append(first)
        copies.extend(others)
    return kept, _copies(copies)


def _copies(images: Sequence[ImageFile | Header]) -> list[str]:
    return _left_out("copy of an image that is there", "copies of images that are there", images)


def _same(first: ImageFile, other: ImageFile) -> bool:
    """Return whether two files hold the same image: identical bytes, or the same pixels at the same position."""
    if filecmp.cmp(first.path, other.path, shallow=False):
        return True
    if any(first.facts.get(name) != other.facts.get(name) for name in (*PLACE, "PixelSpacing", "Rows", "Columns")):
        return False
    return np.array_equal(*(_values(image.slices) for image in (first, other)))


def _values(slices: Sequence[Any]) -> Any:
    stored, slope, intercept = read_pixels(slices)
    return stored * slope + intercept


def without_resent(headers: Sequence[Header]) -> tuple[list[Header], list[str]]:
    """Drop copies of slices, which were sent twice with different identifiers, and return a notice about them."""
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


def of_one_volume(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[str]]:
    """Return the images of a series that are slices of its volume, and notices that name the others.

    Localizers, and images of another kind without a position in the patient, are skipped. Images that only differ from
    the majority (direction, size, pixel spacing) are skipped if the others form a complete volume; otherwise they may
    be damaged slices, which `stack` refuses by name.
    """
    placed = [image for image in images if image.has_place]
    if not placed:
        return list(images), []
    scouts = [image for image in placed if _is_localizer(image)]
    if len(scouts) == len(placed):
        scouts = []  # a series of localizers only
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
    """Return a key shared by all slices of a volume."""
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
    except CaseError:
        return []


def _is_other_kind(page: ImageFile, slice_: ImageFile) -> bool:
    """Return whether an image without a position is not like the slices: a screen capture, a report."""
    return any(
        text(page.facts, name) != text(slice_.facts, name)
        for name in ("SOPClassUID", "PhotometricInterpretation", "Rows", "Columns")
    )


def _left_out(one: str, several: str, images: Sequence[ImageFile | Header]) -> list[str]:
    """Return the notice that names skipped files and their classes; empty without any."""
    if not images:
        return []
    files = sorted(images, key=lambda image: natural_key(image.path.name))
    names = listed([image.path.name for image in files], _MOST_NAMES)
    kinds = dict.fromkeys(class_name(text(image.facts, "SOPClassUID")).removesuffix(" Storage") for image in files)
    return [f"{len(files)} {one if len(files) == 1 else several} left out: {names} ({', '.join(kinds)})"]


@dataclass
class Found:
    """The DICOM images found at the path given by the user.

    Attributes:
        path: the folder or file given by the user, for messages and the name.
        images: the files with images.
        notices: sentences about skipped files.
    """

    path: Path
    images: list[ImageFile]
    notices: list[str] = field(default_factory=list)


def find_dicom(folder: Path) -> list[Path]:
    """Return the DICOM files in a folder and its subfolders; a damaged file with a DICOM suffix is one too."""
    return [path for path in files_below(folder) if may_be_dicom(path)]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings about unusual values, which occur on first access."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def find_images(path: Path, files: Sequence[Path]) -> Found:
    """Read the headers of DICOM files.

    Args:
        path: the folder or file given by the user.
        files: the DICOM files.

    Raises:
        CaseError: no image among them, or a damaged file.
    """
    others: list[OtherFile] = []
    images: list[ImageFile] = []
    for file in files:
        found = _read(file, alone=len(files) == 1)
        if isinstance(found, ImageFile):
            images.append(found)
        else:
            others.append(found)
    if not images:
        raise CaseError(_no_image(path, others))
    return Found(path, images, [_files_left_out(others)] if others else [])


def _read(file: Path, *, alone: bool) -> ImageFile | OtherFile:
    """Read a header; among others, an unreadable file without DICOM magic and suffix is skipped."""
    try:
        with quiet():
            return read_object(file)
    except CaseError:
        if alone or is_dicom(file) or file.suffix.lower() in DICOM_SUFFIXES:
            raise
        return OtherFile(file, "it cannot be read as DICOM")


def _no_image(path: Path, others: Sequence[OtherFile]) -> str:
    kinds = list(dict.fromkeys(found.kind for found in others))
    if len(others) == 1 and others[0].path == path:
        return f"{path}: this is {kinds[0]}, not an image. {advice_on(kinds[0])}"
    held = listed([f"{found.path.name} is {found.kind}" for found in others], 2)
    here = f"there is no DICOM image here{f': {held}' if held else ''}"
    return f"{path}: {here}. Name the folder that holds the slices of one series."


def _files_left_out(others: Sequence[OtherFile]) -> str:
    names = listed([f"{found.path.name} ({found.kind})" for found in others])
    return f"{counted(len(others), 'DICOM file')} without an image left out: {names}"


def read_dicom(found: Found, series: str | None = None, component: int | None = None) -> Voxels:
    """Read one series as a volume.

    Args:
        found: the images to choose from.
        series: a SeriesInstanceUID, its end, or a part of the description, if there are several series.
        component: which volume of a series with several (cardiac phases, time points, echoes), from 0.

    Raises:
        CaseError: several series or volumes and none chosen, damaged pixels, or slices that do not form a volume.
    """
    with quiet():
        return _read_series(found, series, component)


def _read_series(found: Found, series: str | None, component: int | None) -> Voxels:
    path = found.path
    chosen = choose_series(found, series)
    images, copied = without_copies(chosen.images)
    images, left_out = of_one_volume(images)
    volume = _arrange(path, images, component)
    first = volume.slices[0]
    stored, slope, intercept = read_pixels(volume.slices)
    notices = [*chosen.notices, *copied, *left_out, *volume.notices, *found.notices]
    if is_inverted(first) and volume.grid.known:
        notices.append("the file asks for inverted grey values (MONOCHROME1): they are kept as stored")
    elif is_inverted(first):
        stored = as_seen(first, stored)
        notices.append("the file asks for inverted grey values (MONOCHROME1): it is shown so, bright where it is dense")
    return check(
        Voxels(
            path=path,
            files=list(dict.fromkeys(slice_.path for slice_ in volume.slices)),
            format="dicom",
            stored=stored,
            grid=volume.grid,
            file_shape=volume.grid.shape,
            slope=slope,
            intercept=intercept,
            modality=text(first.facts, "Modality") or None,
            description=chosen.description,
            header=source_of(volume.slices, placed=volume.grid.known, at_one_place=volume.at_one_place),
            notices=list(dict.fromkeys(notices)),
        )
    )


@dataclass(frozen=True)
class _Volume:
    """The ordered slices of one volume, their grid, and notices."""

    slices: Sequence[Slice]
    grid: Grid
    notices: list[str]
    at_one_place: bool = False


def _arrange(path: Path, chosen: list[ImageFile], component: int | None) -> _Volume:
    slices = [slice_ for image in chosen for slice_ in image.slices]
    notices = [notice for image in chosen for notice in image.notices]
    if not any(image.has_place for image in chosen):
        _require_one_file(path, chosen)
        return _without_place(chosen[0], notices)
    for image in chosen:
        if not image.has_place and len(image.slices) > 1:
            msg = (
                f"{image.path}: it holds {len(image.slices)} frames without a place in the patient. Open it alone, "
                "or convert it to NIfTI, for example with dcm2niix."
            )
            raise CaseError(msg)
    volume = choose_volume(path, [parse(slice_) for slice_ in slices], component)
    notices += volume.notices
    if volume.loop:
        placed = loop(volume.headers)
        order = "the file" if volume.loop == FRAME_NUMBER else volume.loop
        notices.append(
            f"the {len(volume.headers)} images lie at one position: they are taken as frames of a loop, in the order "
            f"of {order}, and follow one another along the third axis of a mask, 1 mm "
            "apart"
        )
    else:
        headers, copied = without_resent(volume.headers)
        placed = stack(headers)
        notices += [*copied, *placed.notices]
    rows, columns = placed.ordered[0].size
    grid = Grid((columns, rows, len(placed.ordered)), placed.affine, offsets=placed.offsets)
    return _Volume(placed.ordered, grid, notices, at_one_place=bool(volume.loop))


def _without_place(image: ImageFile, notices: list[str]) -> _Volume:
    """Return the frames of a file without positions, with their pixel size if the file gives it."""
    facts, count = image.slices[0].facts, len(image.slices)
    rows, columns = image.slices[0].size
    size = numbers(facts, "PixelSpacing", 2)
    is_sized = size is not None and float(size.min()) > 0
    between = number(facts, "SpacingBetweenSlices") if count > 1 and is_sized and are_slices(facts) else None
    grid = Grid(
        (columns, rows, count),
        _standing_in(image, size if is_sized else np.ones(2), abs(between or 1.0)),
        known=False,
        sized=is_sized,
        offsets=None if between else (0.0,) * count,
    )
    if not is_sized:
        # Earlier notices explain why a pixel size is not used.
        missing = "its position either" if notices else "pixel size and position"
        notice = f"the file says nothing about {missing}: its frames are taken as they are"
        return _Volume(image.slices, grid, [*notices, notice])
    noun = "the image lies" if count == 1 else "its frames lie"
    notice = f"the file says how large a pixel is, but not where {noun} in the patient"
    if count > 1 and not between:
        notice += ": in a mask they follow one another along the third axis, 1 mm apart"
    return _Volume(image.slices, grid, [*notices, notice])


def _standing_in(image: ImageFile, size: Any, step: float) -> NDArray[np.float64]:
    """Return a placeholder affine with the pixel size, at the position of the detector as in other programs."""
    lps = np.diag([size[1], size[0], step, 1.0])
    origin = origin_of(image.facts)
    if origin is not None:
        position, orientation = origin
        axes = np.column_stack([orientation[:3], orientation[3:], np.cross(orientation[:3], orientation[3:])])
        if abs(abs(np.linalg.det(axes)) - 1) < 0.01:
            lps[:3, :3] = axes * [size[1], size[0], step]
            lps[:3, 3] = position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _require_one_file(path: Path, chosen: list[ImageFile]) -> None:
    if len(chosen) > 1:
        first, second = chosen[0].path, chosen[1].path.name
        msg = (
            f"{path}: {len(chosen)} files of this series, such as {first.name} and {second}, have no usable "
            "ImagePositionPatient, so they form no volume. Open one of them alone."
        )
        raise CaseError(msg)


def choose_series(found: Found, series: str | None) -> Series:
    """Return the only series, or the requested one.

    Raises:
        SeveralSeriesError: several series exist or match.
        CaseError: none matches.
    """
    groups = series_of(found.images)
    matching = matching_series(groups, series)
    if len(matching) == 1:
        return matching[0]
    names = "; ".join(
        f"{group.description or 'no description'!r}: {len(group.images)} "
        f"{'slice' if len(group.images) == 1 else 'slices'}, UID ...{group.uids[0][-12:]}"
        for group in matching or groups
    )
    if not matching:
        msg = f"{found.path}: no series matches {series!r}. Choose one of {names}."
        raise CaseError(msg)
    msg = f"{found.path}: it holds {len(matching)} series ({names})."
    raise SeveralSeriesError(msg, [_describe(group) for group in matching])


def matching_series(groups: list[Series], series: str | None) -> list[Series]:
    """Return the series that match a UID, its end, or a part of the description; all for None."""
    if series is None:
        return groups
    exact = [group for group in groups if series in group.uids]
    return exact or [group for group in groups if _matches(group, series)]


def _describe(group: Series) -> SeriesInfo:
    first = group.images[0].slices[0].facts
    between = number(first, "SpacingBetweenSlices") or number(first, "SliceThickness")
    pixels = numbers(first, "PixelSpacing", 2)
    rows, columns = (None, None) if pixels is None else (float(pixels[0]), float(pixels[1]))
    count = sum(len(image.slices) for image in group.images)
    return SeriesInfo(group.uids[0], group.description, count, (between, rows, columns))


def _matches(group: Series, series: str) -> bool:
    ends = any(uid.endswith(series.strip(".")) for uid in group.uids)
    return ends or series.casefold() in group.description.casefold()
