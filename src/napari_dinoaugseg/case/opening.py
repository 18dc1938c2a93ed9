"""Open a file, folder or list of files as a case; the content determines the kind of case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from napari_dinoaugseg.case.case import Case
from napari_dinoaugseg.case.dicom.pictures import picture_case, single_pictures
from napari_dinoaugseg.case.dicom.series import find_dicom, find_images, read_dicom
from napari_dinoaugseg.case.files import (
    DICOM_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    LeftOut,
    counted,
    each_folder,
    endings_of,
    folded,
    is_dicom,
    is_hidden,
    listed,
    may_be_dicom,
    name_of,
    natural_key,
    not_found,
    require_file,
    suffix_of,
)
from napari_dinoaugseg.case.geometry import Plane
from napari_dinoaugseg.case.masks import MaskOptions
from napari_dinoaugseg.case.pictures import PictureCase, survey_pictures
from napari_dinoaugseg.case.sequences import check_names, sequence_names, shared_name
from napari_dinoaugseg.case.tiff import is_stack
from napari_dinoaugseg.case.video import video_case
from napari_dinoaugseg.case.volume import VolumeCase, join_sequences, series_description
from napari_dinoaugseg.case.volume_files import read_volume_file
from napari_dinoaugseg.errors import CaseError, SettingsError, SeveralVolumesError


def open_case(
    path: str | Path | Sequence[str | Path],
    *,
    plane: Plane | str | None = None,
    series: str | Sequence[str | None] | None = None,
    component: int | None = None,
    masks: MaskOptions | None = None,
    every: int | None = None,
    sequences: Sequence[str] = (),
) -> Case:
    """Open an image or a set of images.

    Args:
        path: a NIfTI, NRRD, DICOM or TIFF file, a picture, a video, a folder with DICOM slices or pictures, or a list
            of picture or DICOM files. Several radiographs, photographs or stills in DICOM are pictures. A list of
            volumes (NIfTI or NRRD files, DICOM folders) is one case of several sequences (T1, T2, FLAIR): the first
            gives the grid, others are resampled to it where theirs differs.
        plane: direction of the slices of a volume; None takes the plane with the smallest pixels.
        series: which series of a DICOM folder, by UID or a part of the description; a list takes several as sequences,
            one for each entry of `path`, or all of one folder.
        component: which volume of a file with time points or channels, or of a DICOM series with several cardiac
            phases, time points or echoes, counted from 0. Of several sequences it is that of the first.
        masks: how to read masks of pictures; ignored for a volume.
        every: take every n-th frame of a video; None takes all, unless there are many.
        sequences: names of the sequences; empty takes what differs in the names of the files.

    Returns:
        A `VolumeCase` or a `PictureCase`.

    Raises:
        CaseError: missing, not an image, damaged, or not one case; the message names the file.
        SettingsError: unknown plane, or `every` for something else than a video.
    """
    wanted = _plane(plane)
    files = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
    video = _one_video(files)
    if every is not None and (video is None or every < 1):
        msg = (
            f"One frame in {every} can be taken of a video only, by a number from 1 up. Leave it out, or open a video."
        )
        raise SettingsError(msg)
    if video is not None:
        require_file(video)
        return video_case(video, every, masks)
    if not (series is None or isinstance(series, str)) or len(sequences) > 1 or _are_volumes(files):
        return _open_sequences(files, series, sequences, wanted, component)
    if len(files) != 1:
        return _open_list(files, wanted, series, component, masks)
    return _open_one(files[0], wanted, series, component, masks)


def _open_one(
    path: Path, wanted: Plane | None, series: str | None, component: int | None, masks: MaskOptions | None
) -> Case:
    if not path.exists():
        raise CaseError(not_found(path))
    if path.is_dir():
        return _open_folder(path, wanted, series, component, masks)
    return _open_file(path, wanted, series, component, masks)


def _one_video(files: Sequence[Path]) -> Path | None:
    """Return the file if the path is one video."""
    found = files[0] if len(files) == 1 else None
    return found if found is not None and suffix_of(found) in VIDEO_SUFFIXES and not found.is_dir() else None


def _are_volumes(files: Sequence[Path]) -> bool:
    """Return whether several files are sequences of one case: volumes, and not slices or pictures of one."""
    return len(files) > 1 and any(file.is_dir() or suffix_of(file) in NIFTI_SUFFIXES | NRRD_SUFFIXES for file in files)


def _open_sequences(
    files: list[Path],
    series: str | Sequence[str | None] | None,
    names: Sequence[str],
    plane: Plane | None,
    component: int | None,
) -> Case:
    """Open volumes, or several series of a DICOM folder, as the sequences of one case."""
    several = [series] * len(files) if series is None or isinstance(series, str) else list(series)
    if len(files) == 1:
        files = files * len(several)
    if len(files) < 2 or len(files) != len(several):
        msg = f"{files[0]}: {counted(len(several), 'series')} cannot be taken from {counted(len(files), 'place')}."
        raise CaseError(msg)
    cases: list[VolumeCase] = []
    for file, chosen in zip(files, several, strict=True):
        name = name_of(file)
        try:
            case = _open_one(file, plane if not cases else None, chosen, component if not cases else None, None)
        except SeveralVolumesError as error:
            if not cases:
                raise
            msg = f"{file}: {name} holds {error.count} volumes, and a further sequence is one. Save one of them alone."
            raise CaseError(msg) from error
        if not isinstance(case, VolumeCase) or case.grid.in_time:
            what = "frames in time" if isinstance(case, VolumeCase) else "pictures"
            msg = f"{file}: {name} consists of {what}, and only volumes are sequences of one case. Open it by itself."
            raise CaseError(msg)
        cases.append(case)
    called = check_names(names or own_names(files, several, cases), files)
    return join_sequences(cases, called, shared_name(files, called))


def own_names(files: Sequence[Path], series: Sequence[str | None], cases: Sequence[VolumeCase]) -> tuple[str, ...]:
    """Return the names of sequences by their DICOM series, or else by their files."""
    chosen = [text if text and re.search(r"[^\d.]", text) else "" for text in series]  # not a UID
    named = tuple(text or series_description(case) for text, case in zip(chosen, cases, strict=True))
    return named if all(named) and len({folded(name) for name in named}) == len(named) else sequence_names(files)


def _plane(plane: Plane | str | None) -> Plane | None:
    if plane is None or isinstance(plane, Plane):
        return plane
    try:
        return Plane(plane.lower())
    except ValueError:
        msg = f"Unknown plane {plane!r}. Choose one of {', '.join(Plane)}."
        raise SettingsError(msg) from None


def _open_file(
    path: Path, plane: Plane | None, series: str | None, component: int | None, masks: MaskOptions | None
) -> Case:
    suffix = suffix_of(path)
    if suffix in DICOM_SUFFIXES or (suffix not in NIFTI_SUFFIXES | NRRD_SUFFIXES | PICTURE_SUFFIXES and is_dicom(path)):
        return _open_dicom(path, [path], plane, series, component, masks)
    if suffix in PICTURE_SUFFIXES and not is_stack(path):
        return PictureCase(path, [path], masks)
    voxels = read_volume_file(path, component)
    # A stack may have a voxel size but no orientation in the body: its pages are the slices.
    return VolumeCase(voxels, plane or Plane.NATIVE if voxels.format == "tiff" else plane)


def _open_dicom(
    path: Path,
    files: Sequence[Path],
    plane: Plane | None,
    series: str | None,
    component: int | None,
    masks: MaskOptions | None,
) -> Case:
    """Open one series as a volume, or several radiographs, photographs or stills as pictures."""
    found = find_images(path, files)
    pictures = single_pictures(found, series)
    if pictures:
        return picture_case(found, pictures, masks)
    return VolumeCase(read_dicom(found, series, component), plane)


def _beside_dicom(folder: Path, dicom: Sequence[Path]) -> list[str]:
    """Return notices about skipped images of other formats and broken links beside DICOM files."""
    taken = set(dicom)
    others = NIFTI_SUFFIXES | NRRD_SUFFIXES
    left: list[str] = []
    broken: list[Path] = []
    for found in each_folder(folder):
        images = [*found.pictures, *(path for path in found.others if suffix_of(path) in others)]
        left.extend(path.name for path in images if path not in taken)
        broken.extend(found.broken)
    notices = LeftOut(broken=broken).sentences(name_of(folder))
    if left:
        notices.insert(0, f"{counted(len(left), 'file')} beside the DICOM images left out: {listed(left)}")
    return notices


def _open_list(
    files: list[Path], plane: Plane | None, series: str | None, component: int | None, masks: MaskOptions | None
) -> Case:
    if not files:
        msg = "The list of files is empty. Name at least one image."
        raise CaseError(msg)
    for file in files:
        require_file(file)
    if all(may_be_dicom(file) for file in files):
        return _open_dicom(files[0].parent, files, plane, series, component, masks)
    return PictureCase(files[0].parent, sorted(files, key=lambda file: natural_key(file.as_posix())), masks)


def _open_folder(
    folder: Path, plane: Plane | None, series: str | None, component: int | None, masks: MaskOptions | None
) -> Case:
    """Open a folder of DICOM files or pictures; its direct files take precedence over subfolders."""
    own = [path for path in folder.iterdir() if path.is_file() and not is_hidden(path, folder)]
    has_dicom = any(may_be_dicom(path) for path in own)
    has_pictures = any(suffix_of(path) in PICTURE_SUFFIXES for path in own)
    if has_dicom or not has_pictures:
        dicom = find_dicom(folder)
        if dicom:
            case = _open_dicom(folder, dicom, plane, series, component, masks)
            case.notices.extend(_beside_dicom(folder, dicom))
            return case
    pictures, left_out = survey_pictures(folder)
    if pictures:
        return PictureCase(folder, pictures, masks, left_out.sentences(name_of(folder)))
    volumes = sorted(path.name for path in own if suffix_of(path) in NIFTI_SUFFIXES | NRRD_SUFFIXES)
    if volumes:
        msg = f"{folder}: a folder of volumes is not one case. Name one file, such as {volumes[0]}."
    else:
        others = f" ({endings_of(own)} lie here)" if own else ""
        msg = f"{folder}: there is no image here{others}. Name a folder with DICOM slices, or pictures as PNG or JPEG."
    raise CaseError(msg)
