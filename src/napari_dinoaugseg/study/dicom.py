"""DICOM series: found in a folder, chosen, and read as one volume.

A series is a file for each slice, or frames of one file (Enhanced CT and MR). One file without a place in the patient
(an ultrasound loop, a screen shot) is a stack of its frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_dinoaugseg.errors import SeriesInfo, SeveralSeriesError, StudyError
from napari_dinoaugseg.study.dicom_facts import ImageFile, Slice, number, read_image_file, text
from napari_dinoaugseg.study.dicom_geometry import affine, parse, sort_slices
from napari_dinoaugseg.study.dicom_phases import choose_volume
from napari_dinoaugseg.study.dicom_pixels import read_pixels
from napari_dinoaugseg.study.dicom_source import source_of
from napari_dinoaugseg.study.files import is_hidden, may_be_dicom
from napari_dinoaugseg.study.grid import Grid
from napari_dinoaugseg.study.voxels import Voxels, check


def find_dicom(folder: Path) -> list[Path]:
    """Return the DICOM files in a folder and its subfolders; a damaged file with a DICOM suffix is one too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_hidden(path, folder))
    return [path for path in files if may_be_dicom(path)]


def read_dicom(path: Path, files: Sequence[Path], series: str | None = None, component: int | None = None) -> Voxels:
    """Read one series as a volume.

    Args:
        path: the folder (or file) that was asked for, for messages and the name.
        files: the DICOM files to choose from.
        series: a SeriesInstanceUID, its end, or a part of the description, where the files hold several series.
        component: which volume of a series with several (cardiac phases, time points, echoes), from 0.

    Raises:
        StudyError: no image, several series or volumes and none chosen, a damaged file, or slices that form no volume.
    """
    with warnings.catch_warnings():
        # pydicom warns about every value that is merely unusual, at the moment it is looked at.
        warnings.simplefilter("ignore", UserWarning)
        return _read_series(path, files, series, component)


def _read_series(path: Path, files: Sequence[Path], series: str | None, component: int | None) -> Voxels:
    read = [read_image_file(file) for file in files]
    images = [image for image in read if image is not None]
    skipped = len(read) - len(images)
    if not images:
        msg = (
            f"{path}: there is no DICOM image here; reports and segmentations are none. "
            "Name the folder that holds the slices of one series."
        )
        raise StudyError(msg)
    chosen = _choose_series(path, images, series)
    ordered, grid, notices = _arrange(path, chosen, component)
    stored, slope, intercept = read_pixels(ordered)
    if skipped:
        notices.append(f"{skipped} DICOM {'file' if skipped == 1 else 'files'} without an image left out")
    if text(ordered[0].facts, "PhotometricInterpretation") == "MONOCHROME1":
        notices.append("the file asks for inverted grey values (MONOCHROME1): they are kept as stored")
    return check(
        Voxels(
            path=path,
            files=list(dict.fromkeys(slice_.path for slice_ in ordered)),
            format="dicom",
            stored=stored,
            grid=grid,
            file_shape=grid.shape,
            slope=slope,
            intercept=intercept,
            modality=text(ordered[0].facts, "Modality") or None,
            header=source_of(ordered, placed=grid.known),
            notices=notices,
        )
    )


def _arrange(path: Path, chosen: list[ImageFile], component: int | None) -> tuple[Sequence[Slice], Grid, list[str]]:
    """Return the slices of one volume in order, their grid, and notices."""
    slices = [slice_ for image in chosen for slice_ in image.slices]
    if not any(image.has_place for image in chosen):
        _require_one_file(path, chosen)
        rows, columns = slices[0].size
        grid = Grid((columns, rows, len(slices)), np.diag([-1.0, -1.0, 1.0, 1.0]), known=False)
        return slices, grid, ["the file says nothing about pixel size and position: its frames are taken as they are"]
    for image in chosen:
        if not image.has_place and len(image.slices) > 1:
            msg = (
                f"{image.path}: it holds {len(image.slices)} frames without a place in the patient. Open it alone, "
                "or convert it to NIfTI, for example with dcm2niix."
            )
            raise StudyError(msg)
    headers, notices = choose_volume(path, [parse(slice_) for slice_ in slices], component)
    ordered = sort_slices(headers)
    matrix, more = affine(ordered)
    rows, columns = ordered[0].size
    return ordered, Grid((columns, rows, len(ordered)), matrix), [*notices, *more]


def _require_one_file(path: Path, chosen: list[ImageFile]) -> None:
    if len(chosen) > 1:
        first, second = chosen[0].path, chosen[1].path.name
        msg = (
            f"{path}: {len(chosen)} files of this series, such as {first.name} and {second}, have no usable "
            "ImagePositionPatient, so they form no volume. Open one of them alone."
        )
        raise StudyError(msg)


def _choose_series(path: Path, images: list[ImageFile], series: str | None) -> list[ImageFile]:
    """Return the files of one series."""
    groups: dict[str, list[ImageFile]] = {}
    for image in images:
        groups.setdefault(text(image.facts, "SeriesInstanceUID"), []).append(image)
    matching = groups
    if series is not None:
        matching = {uid: group for uid, group in groups.items() if _matches(uid, group, series)}
        if series in groups:
            matching = {series: groups[series]}
    if len(matching) == 1:
        return next(iter(matching.values()))
    found = "; ".join(
        f"{text(group[0].facts, 'SeriesDescription') or 'no description'!r}: {len(group)} "
        f"{'slice' if len(group) == 1 else 'slices'}, UID ...{uid[-12:]}"
        for uid, group in sorted((matching or groups).items())
    )
    if not matching:
        msg = f"{path}: no series matches {series!r}. Choose one of {found}."
    else:
        msg = f"{path}: it holds {len(matching)} series ({found}). Choose one with --series, by UID or description."
        raise SeveralSeriesError(msg, [_describe(uid, group) for uid, group in sorted(matching.items())])
    raise StudyError(msg)


def _describe(uid: str, group: list[ImageFile]) -> SeriesInfo:
    first = group[0].slices[0].facts
    between = number(first, "SpacingBetweenSlices") or number(first, "SliceThickness")
    pixels = first.get("PixelSpacing")
    rows, columns = pixels if isinstance(pixels, tuple) and len(pixels) == 2 else (None, None)
    spacing = (between, number({"row": rows}, "row"), number({"column": columns}, "column"))
    return SeriesInfo(uid, text(first, "SeriesDescription"), sum(len(image.slices) for image in group), spacing)


def _matches(uid: str, group: list[ImageFile], series: str) -> bool:
    description = text(group[0].facts, "SeriesDescription")
    return uid.endswith(series.strip(".")) or series.casefold() in description.casefold()
