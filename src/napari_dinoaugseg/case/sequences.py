"""Several sequences of one case (T1 + T2 + FLAIR, PET + CT, DWI + ADC): their names, and one grid for all.

The first sequence gives the grid, on which slices, labels and masks lie. A sequence with the same voxels in another
order is reordered; one with other voxels is resampled, because its pixels are only looked at and never written back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.dicom.frames import DicomSource
from napari_dinoaugseg.case.files import folded, name_of, times
from napari_dinoaugseg.case.geometry import Grid, Voxels, place
from napari_dinoaugseg.errors import CaseError, LabelError

ONE = ("",)
"""The sequences of a case of one: it needs no name."""

_BETWEEN = re.compile(r"[_\-\s.]+")
_ALL = 0.999  # of the voxels: so many are covered where two grids end in the same place but for rounding


# --- names ----------------------------------------------------------------------------------------------------------


def sequence_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the sequences of one case: what differs in the names of their files.

    `anna_t1.nii.gz` and `anna_t2.nii.gz` are `t1` and `t2`. Where the files are called alike, their folders count. The
    rest of a name may be a patient's, and is left out.
    """
    for level in (name_of, lambda path: path.parent.name):
        names = _differences([str(level(path)) for path in paths])
        if names is not None:
            return names
    return unnamed(len(paths))


def _differences(names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names without the words that all begin and end with; None if two are alike then."""
    words = [[word for word in _BETWEEN.split(name) if word] for name in names]
    shortest = min(len(each) for each in words)
    before = next((n for n in range(shortest) if len({folded(each[n]) for each in words}) > 1), shortest)
    left = shortest - before
    after = next((n for n in range(left) if len({folded(each[-1 - n]) for each in words}) > 1), left)
    parts = ["_".join(each[before : len(each) - after]) for each in words]
    found = tuple(part or name for part, name in zip(parts, names, strict=True))
    return found if len({folded(name) for name in found}) == len(found) and all(found) else None


def shared_name(paths: Sequence[Path], names: Sequence[str]) -> str:
    """Return the name of a case of several sequences: that of the first file without the name of its sequence."""
    first = name_of(paths[0])
    return without_sequence(first, names[0]) or first


def without_sequence(name: str, sequence: str) -> str | None:
    """Return the name of a file without that of a sequence at its end; None if it does not end with it."""
    if folded(name) == folded(sequence):
        return ""
    tail = re.search(rf"[_\-\s.]+{re.escape(sequence)}$", name, re.IGNORECASE) if sequence else None
    return name[: tail.start()] if tail else None


def check_names(names: Sequence[str], paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of sequences without spaces around them.

    Raises:
        CaseError: not one for each file, an empty one, or one twice.
    """
    clean = tuple(name.strip() for name in names)
    if len(clean) != len(paths):
        msg = f"{paths[0]}: {len(paths)} sequences have {len(clean)} names. Give one for each."
        raise CaseError(msg)
    if not all(clean) or len({folded(name) for name in clean}) < len(clean):
        msg = f"{paths[0]}: sequences need different names, not {_listed(clean)}. Name each of them."
        raise CaseError(msg)
    return clean


def unnamed(count: int) -> tuple[str, ...]:
    """Return names that say nothing, for another machine."""
    return ONE if count == 1 else tuple(f"sequence {number}" for number in range(1, count + 1))


def same_sequences(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two cases, or a model and a case, have the same sequences in the same order."""
    return [folded(name) for name in one] == [folded(name) for name in other]


def in_words(names: Sequence[str]) -> str:
    """Return the sequences in a sentence: `T1, T2 and FLAIR`, or `one sequence`."""
    return _listed(names) if len(names) > 1 else "one sequence"


def mismatch(wanted: Sequence[str], there: Sequence[str], name: str) -> str:
    """Return the end of a sentence on a case whose sequences are not those that are wanted.

    Args:
        wanted: the sequences of a model, or of the other cases of a project.
        there: those of the case.
        name: of the case; the end of the name of a single file may name its sequence.
    """
    if len(there) == 1 and len(wanted) > 1:
        only = next((each for each in wanted if without_sequence(name, each) is not None), None)
        if only is None:
            return f"{name} has one sequence"
        there = (only,)
    has = f"{name} has {_listed(there)}"
    known = {folded(each) for each in there}
    missing = [each for each in wanted if each and folded(each) not in known]
    if missing and len(missing) < len(wanted):
        return f"{has}: {_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    if not missing and len(wanted) == len(there) > 1:
        return f"{has}, in another order"
    return has


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# --- one grid -------------------------------------------------------------------------------------------------------


def onto_grid(voxels: Voxels, to: Voxels, names: tuple[str, str]) -> tuple[Voxels, bool]:
    """Return a sequence on the grid of the first one.

    Args:
        voxels: the sequence.
        to: the first sequence.
        names: of the sequence, and of the first one.

    Returns:
        The sequence, with notices on what was done; and whether it was resampled.

    Raises:
        CaseError: it is in colour, its place is not known, or no part of it lies on the first one.
    """
    name, first = names
    for each, whose in ((voxels, name), (to, first)):
        if each.is_colour:
            msg = f"{each.path}: {whose} is in colour, and a sequence of several has grey values. Leave it out."
            raise CaseError(msg)
    notices = [*(f"{name}: {notice}" for notice in voxels.notices), *_other_frame(voxels, to, names)]
    try:
        placed = place(voxels.stored, voxels.grid, to.grid)
    except LabelError:
        placed = None
    if placed is not None and not placed.notice:  # the same voxels, all of them
        return replace(voxels, stored=placed.mask, grid=to.grid, notices=notices), False
    _require_places(voxels, to, names)
    values, covered = resampled(voxels, to.grid)
    if not covered:
        msg = f"{voxels.path}: no part of {name} lies on {first}. Open sequences of one examination of one patient."
        raise CaseError(msg)
    size = f"{times(round(step, 2) for step in voxels.grid.spacing)} mm"
    notices.append(
        f"the grid of {name} (voxels of {size}) differs from that of {first}: {name} was resampled to it by linear "
        "interpolation"
    )
    if covered < _ALL:
        notices.append(
            f"only {covered:.0%} of {first} is covered by {name}: beyond lies its lowest value. Label where both are"
        )
    return replace(voxels, stored=values, grid=to.grid, slope=1.0, intercept=0.0, notices=notices), True


def _require_places(voxels: Voxels, to: Voxels, names: tuple[str, str]) -> None:
    """Raise CaseError unless the voxels of both grids have a place in space."""
    for each, name in zip((voxels, to), names, strict=True):
        if not each.grid.known:
            sizes = f"{times(voxels.grid.shape)} and {times(to.grid.shape)} voxels"
            msg = (
                f"{voxels.path}: {names[0]} and {names[1]} have different sizes ({sizes}), and the file of {name} does "
                "not hold its position. Save both on one grid."
            )
            raise CaseError(msg)
        if each.grid.offsets is not None:
            why = "are frames in time" if each.grid.in_time else "are not evenly spaced"
            msg = (
                f"{voxels.path}: {names[0]} has another grid than {names[1]}, and cannot be resampled, because the "
                f"slices of {name} {why}. Save both on one grid."
            )
            raise CaseError(msg)


def _other_frame(voxels: Voxels, to: Voxels, names: tuple[str, str]) -> list[str]:
    """Return a notice if two DICOM series do not share a frame of reference."""
    frames = [each.header.frame_of_reference if isinstance(each.header, DicomSource) else "" for each in (voxels, to)]
    if not all(frames) or frames[0] == frames[1]:
        return []
    return [
        f"the series of {names[0]} and {names[1]} have different frames of reference, so that their positions may not "
        "be comparable. Check that they lie on each other"
    ]


def resampled(voxels: Voxels, grid: Grid) -> tuple[NDArray[np.float32], float]:
    """Interpolate a volume at the voxels of another grid.

    Where the other grid is coarser, the volume is smoothed first, with the standard deviation of Cardoso et al. (2015,
    "Scale factor point spread function matching"), so that fine structures do not alias.

    Args:
        voxels: a grey volume with a known grid.
        grid: a known grid.

    Returns:
        Linear interpolation, (i, j, k) float32 in the order of `grid`; the lowest value of the volume beyond its
        voxels. And the share of the voxels of `grid` that lie within it, from 0 to 1.
    """
    from scipy import ndimage

    between = np.linalg.inv(voxels.grid.affine) @ grid.affine  # from indices of the grid to those of the volume
    values = voxels.values(voxels.stored).astype(np.float32, copy=False)
    lowest = float(values.min())
    steps = np.abs(between[:3, :3]).max(axis=1)  # voxels of the volume, along each of its axes, from one to the next
    blur = [_blur(step) if size > 1 else 0.0 for step, size in zip(steps, values.shape, strict=True)]
    if any(blur):
        values = ndimage.gaussian_filter(values, blur)
    result = np.empty(grid.shape, dtype=np.float32, order="F")
    ndimage.affine_transform(
        values, between[:3, :3], between[:3, 3], output=result, output_shape=grid.shape, order=1, mode="nearest"
    )
    within = 0
    i, j = (np.arange(size, dtype=float) for size in grid.shape[:2])
    for k in range(grid.shape[2]):
        inside = np.ones(grid.shape[:2], dtype=bool)
        for axis, size in enumerate(values.shape):
            a, b, c, start = between[axis]
            at = (a * i)[:, np.newaxis] + (b * j)[np.newaxis] + (c * k + start)
            inside &= (at >= -0.5) & (at <= size - 0.5)  # a voxel reaches half its size beyond its centre
        result[:, :, k][~inside] = lowest
        within += int(inside.sum())
    return result, within / result.size


def _blur(step: float) -> float:
    """Return the standard deviation, in voxels, for sampling every `step` voxels."""
    return float(np.sqrt((step**2 - 1) / (8 * np.log(2)))) if step > 1.01 else 0.0


def placed_fingerprint(fingerprint: str, grid: Grid, to: Grid) -> str:
    """Return what identifies a resampled sequence: its own pixels, and where they lie on the grid.

    Not the interpolated pixels, of which the last digits may differ between machines.
    """
    between = np.round(np.linalg.inv(grid.affine) @ to.affine, 3) + 0.0  # no negative zeros
    return hashlib.blake2b(f"{fingerprint} {between.tolist()} {to.shape}".encode(), digest_size=16).hexdigest()
