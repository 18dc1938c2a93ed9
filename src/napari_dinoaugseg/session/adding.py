"""What can be added to a project: the volumes, DICOM series and pictures among files or in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dinoaugseg.case.dicom.frames import ImageFile
from napari_dinoaugseg.case.dicom.headers import text
from napari_dinoaugseg.case.dicom.pictures import single_pictures
from napari_dinoaugseg.case.dicom.series import Series, find_dicom, find_images, quiet, series_of
from napari_dinoaugseg.case.files import (
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    is_hidden,
    may_be_dicom,
    name_of,
    natural_key,
    suffix_of,
)
from napari_dinoaugseg.case.tiff import is_stack
from napari_dinoaugseg.session.cohort import find_cohort

_VOLUMES = NIFTI_SUFFIXES | NRRD_SUFFIXES


@dataclass(frozen=True)
class Addition:
    """One case that could be added.

    Attributes:
        path: a file or folder, or the files that form the case; as for `Project.add`.
        name: for the person.
        series: the UID of a DICOM series, where its folder holds several.
        component: which volume, where there are several; None if there is one.
        every: take every n-th frame of a video; None = all.
        description: of a DICOM series; may be empty.
        slices: how many; None = known after opening.
        modality: "CT", "MR" …; empty if unknown.
    """

    path: Path | tuple[Path, ...]
    name: str
    series: str | None = None
    component: int | None = None
    every: int | None = None
    description: str = ""
    slices: int | None = None
    modality: str = ""

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return isinstance(self.path, Path) and suffix_of(self.path) in VIDEO_SUFFIXES


def cases_of_files(files: Sequence[Path]) -> list[Addition]:
    """Each volume is a case; pictures together are one case, and so are DICOM files of single slices."""
    additions: list[Addition] = []
    pictures: list[Path] = []
    dicom: list[Path] = []
    for file in sorted(files, key=lambda path: natural_key(path.name)):
        if suffix_of(file) in PICTURE_SUFFIXES and not is_stack(file):
            pictures.append(file)
        elif suffix_of(file) not in _VOLUMES | PICTURE_SUFFIXES | VIDEO_SUFFIXES and may_be_dicom(file):
            dicom.append(file)
        else:
            additions.append(Addition(file, name_of(file)))
    for group in (pictures, dicom):
        if group:
            parent = group[0].parent
            name = name_of(group[0]) if len(group) == 1 else parent.name
            additions.append(Addition(group[0] if len(group) == 1 else tuple(group), name, slices=len(group)))
    return additions


def cases_in_folder(folder: Path) -> tuple[list[Addition], list[str]]:
    """The cases in a folder: its volumes and subfolders of pictures, or all DICOM series below it.

    Returns:
        The cases, and sentences about files that are none.

    Raises:
        CaseError: no case, or a damaged file.
    """
    own = [path for path in folder.iterdir() if path.is_file() and not is_hidden(path, folder)]
    volumes = [path for path in own if suffix_of(path) in _VOLUMES]
    dicom = [] if volumes else find_dicom(folder)
    if dicom:
        return _series_below(folder, dicom)
    if not volumes and any(suffix_of(path) in PICTURE_SUFFIXES and not is_stack(path) for path in own):
        return [Addition(folder, folder.name)], []
    cohort = find_cohort(folder, wanted=True, out=folder / "masks")
    found = cohort.cases if cohort is not None else []
    return [Addition(path, name_of(path)) for path in found], list(cohort.notices) if cohort is not None else []


def _series_below(folder: Path, files: Sequence[Path]) -> tuple[list[Addition], list[str]]:
    found = find_images(folder, files)
    with quiet():
        if single_pictures(found, None):
            return [Addition(folder, folder.name, slices=len(found.images), modality=_modality(found.images))], []
        groups = series_of(found.images)
        homes = [_home(group) for group in groups]
        additions = [
            _addition(group, home, is_shared=homes.count(home) > 1) for group, home in zip(groups, homes, strict=True)
        ]
    return sorted(additions, key=lambda entry: natural_key(f"{entry.path} {entry.description}")), list(found.notices)


def _home(group: Series) -> Path:
    """The smallest folder that holds all files of a series, so that opening it reads few others."""
    return Path(os.path.commonpath([image.path.parent for image in group.images]))


def _addition(group: Series, home: Path, *, is_shared: bool) -> Addition:
    description = group.description
    return Addition(
        home,
        f"{home.name} {description}".strip() if is_shared else home.name,
        series=group.uids[0],
        description=description,
        slices=sum(len(image.slices) for image in group.images),
        modality=_modality(group.images),
    )


def _modality(images: Sequence[ImageFile]) -> str:
    return text(images[0].facts, "Modality")
