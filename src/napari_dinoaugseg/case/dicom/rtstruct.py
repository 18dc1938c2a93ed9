"""Read a DICOM RT Structure Set (RTSTRUCT) as labels: the pixels whose centres lie inside the contours of a structure.

Attributes are those of DICOM PS3.3 C.8.8.5 and C.8.8.6. A structure set has no pixels and no grid: its contours are
placed on the slices of an image by projection on the axis of the grid in which they are flat. Contours of a structure
on one slice are combined by even-odd, whether their type is CLOSED_PLANAR or CLOSEDPLANAR_XOR: planning systems also
write holes as contours inside contours. docs/decisions/rtstruct.md has the reasons.

Structures may overlap (a body holds its organs), but a voxel has one label: the smaller structure keeps it.

Whatever of the contours makes no label, or another one than planning systems would show, is named in a notice.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.contours import Box, Points, box_of, filled
from napari_dinoaugseg.case.dicom.frames import DicomSource
from napari_dinoaugseg.case.dicom.headers import number, numbers, read_dataset, read_header, text, value_of
from napari_dinoaugseg.case.dicom.seg import Labels, between, empty_mask, is_seg
from napari_dinoaugseg.case.files import counted, listed, reading, require_file
from napari_dinoaugseg.case.geometry import Grid
from napari_dinoaugseg.errors import LabelError

EXPECTED = "a DICOM structure set"
_HIGHEST = int(np.iinfo(np.uint16).max)
_TO_RAS = np.array([-1.0, -1.0, 1.0])
_AREAS = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_CONTOUR_DATA = 0x30060050

# Shares of a step between slices. Contours this near to a slice are on it; beyond, a notice says that they were moved
# to the nearest one, and from `_BETWEEN` on they belong to no slice.
_ON = 0.1
_BETWEEN = 0.3
# Contours are flat along an axis if their corners differ by less.
_FLAT = 0.2
_FARTHEST = 1e6  # mm
# A contour reaches out of an image if a corner lies farther from the outer pixel centres: at their edge, and a bit.
_OUTSIDE = 0.51


@dataclass(frozen=True)
class Structure:
    """One structure of a set.

    Attributes:
        segment: number, name and colour.
        contours: corners (n, 3) of each closed contour, in RAS mm.
        frame_of_reference: its FrameOfReferenceUID; may be empty.
        others: how many contours enclose no area: points and open lines.
    """

    segment: Segment
    contours: tuple[Points, ...]
    frame_of_reference: str
    others: int = 0


@dataclass(frozen=True)
class StructureSet:
    """The contours of an RTSTRUCT.

    Attributes:
        path: the file.
        structures: in the order of the file.
        series: the referenced SeriesInstanceUIDs; may be empty.
        notices: sentences for the user.
    """

    path: Path
    structures: tuple[Structure, ...]
    series: frozenset[str]
    notices: tuple[str, ...] = ()


def is_rtstruct(path: Path) -> bool:
    """Return whether a file is a structure set by its SOP class; False if it cannot be read, or is not DICOM."""
    if not is_seg(path) or not path.is_file():
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            header = read_header(path, ("SOPClassUID",))
    except Exception:  # damage raises almost anything; whoever reads it as something else says what is wrong
        return False
    return str(value_of(header, "SOPClassUID") or "") == RTStructureSetStorage


def read_rtstruct(path: Path) -> StructureSet:
    """Read an RTSTRUCT.

    Raises:
        CaseError: the file is damaged or not DICOM.
        LabelError: no structure, or none with a closed contour; coordinates that are not numbers.
    """
    require_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with reading(path, EXPECTED):
            return _structures(path, read_dataset(path))


def _structures(path: Path, dataset: Dataset) -> StructureSet:
    drawn: dict[int, Dataset] = {}
    for item in value_of(dataset, "ROIContourSequence") or ():
        own = number({"n": value_of(item, "ReferencedROINumber")}, "n")
        if own is not None:
            drawn.setdefault(int(own), item)
    described = list(value_of(dataset, "StructureSetROISequence") or ())
    if not described:
        msg = f"{path}: it describes no structure. Export it again from the planning system."
        raise LabelError(msg)
    owns = [number({"n": value_of(item, "ROINumber")}, "n") for item in described]
    if None in owns or len(set(owns)) < len(owns):
        msg = f"{path}: structures without a number of their own. Export it again from the planning system."
        raise LabelError(msg)
    roi_numbers = [int(own) for own in owns if own is not None]
    keeps = all(0 < own <= _HIGHEST for own in roi_numbers)
    structures = []
    for n, (own, item) in enumerate(zip(roi_numbers, described, strict=True), start=1):
        name = text({"name": value_of(item, "ROIName")}, "name") or f"structure {own}"
        contours, others = _contours(path, name, drawn.get(own))
        segment = Segment(own if keeps else n, name, _colour(drawn.get(own)))
        reference = text({"uid": value_of(item, "ReferencedFrameOfReferenceUID")}, "uid")
        structures.append(Structure(segment, contours, reference, others))
    if len(structures) > _HIGHEST or not any(structure.contours for structure in structures):
        names = listed([structure.segment.name for structure in structures])
        msg = f"{path}: no structure has a closed contour ({names}), so it holds no labels. Give one with contours."
        raise LabelError(msg)
    return StructureSet(path, tuple(structures), _series(dataset), tuple(_numbering(structures, keeps=keeps)))


def _numbering(structures: Sequence[Structure], *, keeps: bool) -> Iterator[str]:
    if not keeps:
        names = [f"{structure.segment.number} {structure.segment.name}" for structure in structures]
        yield f"Structures have numbers that no label can have: they are numbered in their order ({listed(names)})."
    others = [structure for structure in structures if structure.others]
    if others:
        named = [f"{structure.segment.name} ({structure.others})" for structure in others]
        yield f"Points and open contours enclose no voxel and are left out: {listed(named)}."


def _series(dataset: Dataset) -> frozenset[str]:
    """Return the referenced SeriesInstanceUIDs."""
    found = {
        str(value_of(series, "SeriesInstanceUID") or "")
        for frame in value_of(dataset, "ReferencedFrameOfReferenceSequence") or ()
        for study in value_of(frame, "RTReferencedStudySequence") or ()
        for series in value_of(study, "RTReferencedSeriesSequence") or ()
    }
    return frozenset(found - {""})


def _colour(item: Dataset | None) -> str | None:
    found = None if item is None else numbers({"rgb": value_of(item, "ROIDisplayColor")}, "rgb", 3)
    if found is None or found.min() < 0 or found.max() > 255:
        return None
    return "#" + "".join(f"{round(float(part)):02x}" for part in found)


def _contours(path: Path, name: str, item: Dataset | None) -> tuple[tuple[Points, ...], int]:
    """Return the closed contours (RAS) of a structure, and how many others it has."""
    found: list[Points] = []
    others = 0
    for n, contour in enumerate((None if item is None else value_of(item, "ContourSequence")) or (), start=1):
        places = _coordinates(path, f"contour {n} of {name!r}", contour)
        if text({"kind": value_of(contour, "ContourGeometricType")}, "kind").upper() not in _AREAS or len(places) < 3:
            others += 1
        else:
            found.append(places)
    return tuple(found), others


def _coordinates(path: Path, which: str, contour: Dataset) -> Points:
    """Return the corners (n, 3) of a contour in RAS mm."""
    announced = number({"n": value_of(contour, "NumberOfContourPoints")}, "n")
    try:
        values = _decimals(contour)
    except (TypeError, ValueError):
        problem = "its coordinates are not numbers"
    else:
        if len(values) % 3 or (announced is not None and len(values) != 3 * announced):
            points = "points" if announced is None else f"{announced:g} points"
            problem = f"it announces {points} but has {len(values)} coordinates"
        elif not all(abs(value) < _FARTHEST for value in values):
            problem = "its coordinates are not numbers, or lie kilometres away"
        else:
            places: Points = np.array(values, dtype=np.float64).reshape(-1, 3) * _TO_RAS
            return places
    msg = f"{path}: {which} is damaged: {problem}. Export it again from the planning system."
    raise LabelError(msg)


def _decimals(contour: Dataset) -> list[float]:
    """Return the numbers of Contour Data; pydicom's own conversion takes ten times as long."""
    if _CONTOUR_DATA not in contour:
        return []
    value = contour.get_item(_CONTOUR_DATA).value
    if not value:
        return []
    parts = value.rstrip(b" \0").split(b"\\") if isinstance(value, bytes) else value
    return [float(part) for part in (parts if isinstance(parts, Iterable) else (parts,))]


# --- onto a grid ------------------------------------------------------------------------------------------------------


def require_same_patient(found: StructureSet, source: DicomSource) -> tuple[StructureSet, list[str]]:
    """Return the structures in the frame of reference of an image, and notices about the others.

    Raises:
        LabelError: all structures have another frame of reference, or another series where it is unknown.
    """
    notices = []
    here = source.frame_of_reference
    fits = [not here or structure.frame_of_reference in ("", here) for structure in found.structures]
    kept = tuple(structure for structure, is_here in zip(found.structures, fits, strict=True) if is_here)
    if not any(structure.contours for structure in kept):
        msg = f"{found.path}: its contours belong to another frame of reference. Give those drawn on these images."
        raise LabelError(msg)
    if not all(fits):
        names = listed([s.segment.name for s, is_here in zip(found.structures, fits, strict=True) if not is_here])
        notices.append(f"Structures of another frame of reference are left out: {names}.")
    if found.series and source.series and source.series.isdisjoint(found.series):
        if not here or any(not structure.frame_of_reference for structure in kept):
            msg = f"{found.path}: its contours belong to another series. Give those drawn on these images."
            raise LabelError(msg)
        notices.append(
            "The contours were drawn on another series in the same frame of reference: they lie where they lie in the "
            "patient."
        )
    return StructureSet(found.path, kept, found.series, found.notices), notices


@dataclass(frozen=True)
class PlacedStructures:
    """Structures on a grid.

    Attributes:
        mask: labels (i, j, k) in the stored order of the grid.
        segments: all structures, those without a voxel too.
        notices: sentences for the user.
    """

    mask: Labels
    segments: tuple[Segment, ...]
    notices: tuple[str, ...]


@dataclass
class _Found:
    """What notices are made of: structures by name, with a number each."""

    between: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)
    tilted: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)
    thin: Counter[str] = field(default_factory=Counter)
    twice: Counter[str] = field(default_factory=Counter)
    nested: Counter[str] = field(default_factory=Counter)
    crossing: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    moved: float = 0.0

    def sentences(self) -> Iterator[str]:
        kinds = (
            (self.between, "contour", "between slices: left out, since no slice is theirs"),
            (self.beyond, "contour", "above or below the image: left out"),
            (self.tilted, "contour", "not parallel to the slices: left out"),
            (self.outside, "contour", "reaching out of the image: cut off at its border"),
            (self.thin, "contour", "so small or thin that no voxel centre lies inside: they leave no label"),
            (self.twice, "contour", "given twice: taken once"),
            (self.nested, "contour", "inside another one: read as holes, as planning systems write them"),
            (self.crossing, "contour", "crossing another one: where both lie is outside, by even-odd"),
        )
        for counts, noun, what in kinds:
            if counts:
                named = [f"{name} ({count})" for name, count in counts.items()]
                yield f"{counted(sum(counts.values()), noun)} {what}: {listed(named)}."
        if self.gaps:
            named = [f"{name} ({count})" for name, count in self.gaps.items()]
            yield f"Slices without a contour lie between others with one, and nothing is filled in: {listed(named)}."
        if self.moved:
            yield f"Contours lie up to {self.moved:.2g} mm off the slices: they are taken as on the nearest one."


@dataclass(frozen=True)
class _OnSlice:
    """A contour near a slice: how far off, in steps, and its corners (n, 2) along the two other axes."""

    off: float
    points: Points


def covering_contours(grid: Grid, found: StructureSet) -> Grid:
    """Extend a grid along its slices to include all contours, as far as they are flat there.

    Raises:
        LabelError: they lie far away; the message has no path.
    """
    inverse = np.linalg.inv(grid.affine)[:3].T
    contours = [_indices(points, grid, inverse) for structure in found.structures for points in structure.contours]
    axis = _axis(contours, grid)
    heights = [points[:, axis].mean() for points in contours]
    before = max(0, -round(float(min(heights))))
    after = max(0, round(float(max(heights))) - grid.shape[axis] + 1)
    shape = list(grid.shape)
    shape[axis] += before + after
    if shape[axis] > _HIGHEST:
        msg = "its contours lie far away from the other mask"
        raise LabelError(msg)
    affine = grid.affine.copy()
    affine[:3, 3] -= before * affine[:3, axis]
    return Grid((shape[0], shape[1], shape[2]), affine)


def placed(found: StructureSet, grid: Grid) -> PlacedStructures:
    """Return structures as labels on a grid.

    Args:
        found: the structures.
        grid: the grid of the image.

    Raises:
        LabelError: the contours are not parallel to slices of the grid, or none lies on one; the message has no path.
    """
    if not grid.known or grid.in_time:
        msg = "the image says nothing about position" if not grid.known else "its frames lie at one place"
        raise LabelError(msg)
    inverse = np.linalg.inv(grid.affine)[:3].T
    inside = [[_indices(points, grid, inverse) for points in structure.contours] for structure in found.structures]
    axis = _axis([points for contours in inside for points in contours], grid)
    notes = _Found()
    names = [structure.segment.name for structure in found.structures]
    drawn = [_on_slices(contours, axis, grid, name, notes) for name, contours in zip(names, inside, strict=True)]
    if not any(drawn):
        raise LabelError(_nowhere(notes))
    across = [n for n in range(3) if n != axis]
    shape = grid.shape[across[0]], grid.shape[across[1]]
    sizes = [_measure(slices, shape, name, notes) for name, slices in zip(names, drawn, strict=True)]
    segments = [structure.segment for structure in found.structures]
    # A point is not a class; a structure without any contour may become one.
    named = tuple(s.segment for s in found.structures if s.contours or not s.others)
    mask = empty_mask(found.path, grid.shape, max(segment.number for segment in segments))
    view = np.moveaxis(mask, axis, 0)
    shared: Counter[tuple[int, int]] = Counter()
    # Smaller structures are drawn later, over larger ones.
    for n in sorted(range(len(drawn)), key=lambda n: (-sizes[n], n)):
        for index, box, area in _areas(drawn[n], shape):
            part = view[(index, *box)]
            for other, count in zip(*np.unique(part[area], return_counts=True), strict=True):
                if other:
                    shared[int(other), segments[n].number] += int(count)
            part[area] = segments[n].number
    return PlacedStructures(mask, named, (*notes.sentences(), *_overlaps(shared, segments)))


def _indices(points: Points, grid: Grid, inverse: NDArray[Any]) -> Points:
    """Return corners (n, 3) in voxels of the grid; for unevenly spaced slices too."""
    places: Points = np.column_stack([points, np.ones(len(points))]) @ inverse
    if grid.offsets is not None:
        places[:, 2] = between(places[:, 2] * grid.spacing[2], np.array(grid.offsets))
    return places


def _axis(contours: Sequence[Points], grid: Grid) -> int:
    """Return the axis of the grid along which most contours are flat; the third one if several are."""
    flat = np.array([np.ptp(points, axis=0) <= _FLAT for points in contours]).sum(axis=0)
    axis = max((2, 1, 0), key=lambda n: (flat[n], grid.shape[n] > 1))
    if not flat[axis]:
        msg = "its contours are not parallel to the slices of the image"
        raise LabelError(msg)
    return axis


def _on_slices(contours: Sequence[Points], axis: int, grid: Grid, name: str, notes: _Found) -> dict[int, list[Points]]:
    """Return the contours of a structure on each slice, and note those that are on none."""
    others = [n for n in range(3) if n != axis]
    on: dict[int, list[_OnSlice]] = {}
    for points in contours:
        height = float(points[:, axis].mean())
        index = round(height)
        if np.ptp(points[:, axis]) > _FLAT:
            notes.tilted[name] += 1
        elif not -0.5 <= height <= grid.shape[axis] - 0.5:
            notes.beyond[name] += 1
        elif abs(height - index) > _BETWEEN and grid.shape[axis] > 1:
            notes.between[name] += 1
        else:
            on.setdefault(index, []).append(_OnSlice(height - index, points[:, others]))
    chosen: dict[int, list[Points]] = {}
    for index, found in sorted(on.items()):
        # Contours of two planes near one slice are not to be combined: those of the nearer plane are taken.
        nearest = min((contour.off for contour in found), key=abs)
        here = [contour for contour in found if abs(contour.off - nearest) <= _ON]
        if len(found) > len(here):
            notes.between[name] += len(found) - len(here)
        if abs(nearest) > _ON:
            notes.moved = max(notes.moved, abs(nearest) * grid.spacing[axis])
        chosen[index] = _once([contour.points for contour in here], name, notes)
    if chosen:
        missing = max(chosen) - min(chosen) + 1 - len(chosen)
        if missing:
            notes.gaps[name] += missing
    return chosen


def _once(contours: Sequence[Points], name: str, notes: _Found) -> list[Points]:
    """Return contours without repeated ones, which would cancel each other."""
    known: dict[bytes, Points] = {}
    for points in contours:
        known.setdefault((np.round(points, 3) + 0.0).tobytes(), points)
    if len(known) < len(contours):
        notes.twice[name] += len(contours) - len(known)
    return list(known.values())


def _nowhere(notes: _Found) -> str:
    reasons = (
        (notes.beyond, "above or below the image"),
        (notes.between, "between its slices"),
        (notes.tilted, "at an angle to its slices"),
    )
    where = " and ".join(f"{sum(counts.values())} lie {what}" for counts, what in reasons if counts)
    return f"none of its contours lies on a slice of the image ({where})"


def _areas(slices: dict[int, list[Points]], shape: tuple[int, int]) -> Iterator[tuple[int, Box, NDArray[np.bool_]]]:
    """Yield the area of a structure on each slice by even-odd: the slice, a part of it, and the pixels there."""
    for index, contours in slices.items():
        yield index, *_even_odd(contours, shape)


def _even_odd(contours: Sequence[Points], shape: tuple[int, int]) -> tuple[Box, NDArray[np.bool_]]:
    """Combine contours one by one: many large ones must not be in memory at once."""
    box, area = _empty(contours, shape)
    for points in contours:
        part, pixels = filled(points, shape)
        area[_within(part, box)] ^= pixels
    return box, area


def _empty(contours: Sequence[Points], shape: tuple[int, int]) -> tuple[Box, NDArray[np.bool_]]:
    """Return the part of a slice around contours, and an empty area of its size."""
    boxes = [box_of(points, shape) for points in contours]
    low = [min(box[n].start for box in boxes) for n in (0, 1)]
    high = [max(box[n].stop for box in boxes) for n in (0, 1)]
    return (slice(low[0], high[0]), slice(low[1], high[1])), np.zeros((high[0] - low[0], high[1] - low[1]), dtype=bool)


def _within(part: Box, box: Box) -> Box:
    first, second = (slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
    return first, second


def _measure(slices: dict[int, list[Points]], shape: tuple[int, int], name: str, notes: _Found) -> int:
    """Return how many voxels a structure has, and note contours that lose something or meet others."""
    limits = np.array(shape) - 1 + _OUTSIDE
    total = 0
    for contours in slices.values():
        sizes = [int(filled(points, shape)[1].sum()) for points in contours]
        for points, size in zip(contours, sizes, strict=True):
            if (points < -_OUTSIDE).any() or (points > limits).any():
                notes.outside[name] += 1
            elif not size:
                notes.thin[name] += 1
        if len(contours) == 1:
            total += sizes[0]
            continue
        largest_first = sorted(range(len(contours)), key=lambda n: -sizes[n])
        _note_meetings([contours[n] for n in largest_first], shape, name, notes)
        total += int(_even_odd(contours, shape)[1].sum())
    return total


def _note_meetings(contours: Sequence[Points], shape: tuple[int, int], name: str, notes: _Found) -> None:
    """Note contours whose pixels lie inside those of larger contours, or partly."""
    box, before = _empty(contours, shape)
    for points in contours:
        part, pixels = filled(points, shape)
        there = before[_within(part, box)]
        common = int((there & pixels).sum())
        if common:
            (notes.nested if common == pixels.sum() else notes.crossing)[name] += 1
        there |= pixels


def _overlaps(shared: Counter[tuple[int, int]], segments: Sequence[Segment]) -> Iterator[str]:
    if shared:
        names = {segment.number: segment.name for segment in segments}
        pairs = [f"{names[inner]} in {names[outer]} ({count})" for (outer, inner), count in shared.most_common()]
        yield (
            f"Structures overlap, but a voxel has one label here: the smaller one keeps it ({listed(pairs, 6)}, in "
            "voxels)."
        )
