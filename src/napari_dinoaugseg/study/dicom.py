"""DICOM series: found in a folder, chosen, decoded, and rescaled to values such as Hounsfield units."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from napari_dinoaugseg.errors import SeriesInfo, SeveralSeriesError, StudyError
from napari_dinoaugseg.study.dicom_geometry import Header, affine, parse, sort_slices
from napari_dinoaugseg.study.files import DICOM_SUFFIXES, is_dicom, is_hidden, reading, unreadable
from napari_dinoaugseg.study.grid import Grid
from napari_dinoaugseg.study.voxels import Voxels, check

EXPECTED = "a DICOM file"
# Objects that may have rows and columns but are no acquired images.
_NO_IMAGES = frozenset({"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "DOC"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})


def find_dicom(folder: Path) -> list[Path]:
    """Return the DICOM files in a folder and its subfolders; a damaged file with a DICOM suffix is one too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_hidden(path, folder))
    return [path for path in files if path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path)]


def read_dicom(path: Path, files: Sequence[Path], series: str | None = None) -> Voxels:
    """Read one series as a volume.

    Args:
        path: the folder (or file) that was asked for, for messages and the name.
        files: the DICOM files to choose from.
        series: a SeriesInstanceUID, its end, or a part of the description, where the files hold several series.

    Raises:
        StudyError: no image, several series and none chosen, a damaged file, or slices that form no volume.
    """
    with warnings.catch_warnings():
        # pydicom warns about every value that is merely unusual, at the moment it is looked at.
        warnings.simplefilter("ignore", UserWarning)
        return _read_series(path, files, series)


def _read_series(path: Path, files: Sequence[Path], series: str | None) -> Voxels:
    headers: list[tuple[Path, Dataset]] = []
    skipped = 0
    for file in files:
        dataset = _read_header(file)
        if dataset is None:
            skipped += 1
        else:
            headers.append((file, dataset))
    if not headers:
        msg = f"{path}: there is no DICOM image here. Name the folder that holds the slices of one series."
        raise StudyError(msg)
    chosen = _choose_series(path, headers, series)
    ordered = sort_slices([parse(file, dataset) for file, dataset in chosen])
    matrix, notices = affine(ordered)
    stored, slope, intercept = _read_pixels(ordered)
    if skipped:
        notices.append(f"{skipped} DICOM {'file' if skipped == 1 else 'files'} without an image left out")
    if str(ordered[0].dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        notices.append("the file asks for inverted grey values (MONOCHROME1): they are kept as stored")
    shape = (stored.shape[0], stored.shape[1], stored.shape[2])
    return check(
        Voxels(
            path=path,
            files=[header.path for header in ordered],
            format="dicom",
            stored=stored,
            grid=Grid(shape, matrix),
            file_shape=shape,
            slope=slope,
            intercept=intercept,
            modality=str(ordered[0].dataset.get("Modality") or "") or None,
            notices=notices,
        )
    )


def _read_header(file: Path) -> Dataset | None:
    """Return the header of an image; None for a DICOM object that is no image."""
    with reading(file, EXPECTED):
        # A file from before the preamble was required still names its class.
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=not is_dicom(file))
        kind = dataset.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
        sized = "Rows" in dataset and "Columns" in dataset
        if not kind or (not sized and "Image Storage" in UID(kind).name):
            raise StudyError(unreadable(file, EXPECTED))  # an image class without a size: the header is cut off
        if not sized or dataset.get("Modality") in _NO_IMAGES:
            return None
        frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        msg = f"{file}: it holds {frames} frames in one file. Convert it to NIfTI first, for example with dcm2niix."
        raise StudyError(msg)
    return dataset


def _choose_series(path: Path, headers: list[tuple[Path, Dataset]], series: str | None) -> list[tuple[Path, Dataset]]:
    """Return the files of one series."""
    groups: dict[str, list[tuple[Path, Dataset]]] = {}
    for file, dataset in headers:
        groups.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append((file, dataset))
    matching = groups
    if series is not None:
        matching = {uid: group for uid, group in groups.items() if _matches(uid, group, series)}
        if series in groups:
            matching = {series: groups[series]}
    if len(matching) == 1:
        return next(iter(matching.values()))
    found = "; ".join(
        f"{str(group[0][1].get('SeriesDescription') or 'no description')!r}: {len(group)} "
        f"{'slice' if len(group) == 1 else 'slices'}, UID ...{uid[-12:]}"
        for uid, group in sorted((matching or groups).items())
    )
    if not matching:
        msg = f"{path}: no series matches {series!r}. Choose one of {found}."
    else:
        msg = f"{path}: it holds {len(matching)} series ({found}). Choose one with --series, by UID or description."
        raise SeveralSeriesError(msg, [_describe(uid, group) for uid, group in sorted(matching.items())])
    raise StudyError(msg)


def _describe(uid: str, group: list[tuple[Path, Dataset]]) -> SeriesInfo:
    first = group[0][1]
    pixels = first.get("PixelSpacing") or (None, None)
    between = first.get("SpacingBetweenSlices") or first.get("SliceThickness")
    sizes = [float(size) if size is not None else None for size in (between, pixels[0], pixels[1])]
    return SeriesInfo(uid, str(first.get("SeriesDescription") or ""), len(group), (sizes[0], sizes[1], sizes[2]))


def _matches(uid: str, group: list[tuple[Path, Dataset]], series: str) -> bool:
    description = str(group[0][1].get("SeriesDescription") or "")
    return uid.endswith(series.strip(".")) or series.casefold() in description.casefold()


def _read_pixels(ordered: list[Header]) -> tuple[NDArray[Any], float, float]:
    """Return the pixels (column, row, slice[, 3]) with slope and intercept.

    Whole-numbered rescaling (Hounsfield units) is applied at once and kept as integers; where slices are rescaled each
    in its own way (PET), values are float32; else the stored numbers are kept with one slope and intercept.
    """
    scales = {_rescale(header.dataset) for header in ordered}
    whole = all(slope.is_integer() and intercept.is_integer() for slope, intercept in scales)
    stored: NDArray[Any] | None = None
    for k, header in enumerate(ordered):
        pixels = _decode(header)
        if len(scales) > 1 or whole:
            pixels = _apply(pixels, *_rescale(header.dataset), as_integers=whole)
        if stored is None:
            extra = pixels.shape[2:]
            # Memory runs as in the files: columns fastest, then rows, then slices.
            memory = np.empty((len(ordered), *pixels.shape), dtype=pixels.dtype)
            stored = memory.transpose(2, 1, 0, *range(3, 3 + len(extra)))
        if not np.can_cast(pixels.dtype, stored.dtype):
            wider = np.promote_types(stored.dtype, pixels.dtype)
            stored = stored.astype(wider, order="K")
        stored[:, :, k] = pixels.swapaxes(0, 1)
    if stored is None:
        msg = "a series has at least one slice"
        raise ValueError(msg)
    slope, intercept = (1.0, 0.0) if len(scales) > 1 or whole else next(iter(scales))
    return stored, slope, intercept


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return float(1.0 if slope is None else slope) or 1.0, float(0.0 if intercept is None else intercept)


def _apply(pixels: NDArray[Any], slope: float, intercept: float, *, as_integers: bool) -> NDArray[Any]:
    if (slope, intercept) == (1.0, 0.0) and as_integers:
        return pixels
    if not as_integers or pixels.dtype.kind == "f":
        return (pixels * np.float64(slope) + np.float64(intercept)).astype(np.float32)
    values = pixels.astype(np.int64) * int(slope) + int(intercept)
    low, high = int(values.min()), int(values.max())
    kinds = (np.int16, np.int32, np.int64)
    return values.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))


def _decode(header: Header) -> NDArray[Any]:
    """Return the pixels of one file: (row, column), or (row, column, 3) in RGB."""
    with reading(header.path, EXPECTED):
        dataset = pydicom.dcmread(header.path, force=not is_dicom(header.path))
        if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            msg = f"{header.path}: the pixels are missing; the file is cut off. Copy or export it again."
            raise StudyError(msg)
        photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
        if photometric == "PALETTE COLOR":
            msg = f"{header.path}: its pixels are numbers of a colour palette. Export the series as grey or RGB."
            raise StudyError(msg)
        pixels = dataset.pixel_array
        expected = header.size if photometric in _GREY else (*header.size, 3)
    if pixels.shape != expected:
        msg = f"{header.path}: its pixels are {pixels.shape}, but {expected} were announced. Export the series again."
        raise StudyError(msg)
    return pixels
