"""Masks that nnU-Net predicted, taken as predictions of cases: to be reviewed, corrected and accepted.

A folder of masks is read and checked as a whole before anything is changed. The names of masks are those of an export
(`session.nnunet`), or those of the images. The table from labels to classes is read from ``dataset.json``, which
nnU-Net copies beside the masks that it predicts.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import Case
from napari_dinoaugseg.case.case import ReadLabels
from napari_dinoaugseg.case.files import NIFTI_SUFFIXES, NRRD_SUFFIXES, counted, listed, natural_key, suffix_of
from napari_dinoaugseg.case.labels import HIGHEST_LABEL
from napari_dinoaugseg.case.picture_files import decode
from napari_dinoaugseg.errors import CaseError, LabelError, Message, ProjectError
from napari_dinoaugseg.learning.events import Cancel
from napari_dinoaugseg.session.labels import LabelBook, LabelClass, Labels
from napari_dinoaugseg.session.nnunet import CLASS_TABLE, DESCRIPTION, FINGERPRINTS, picture_name
from napari_dinoaugseg.session.project import Project, ProjectCase

_VOLUMES = NIFTI_SUFFIXES | NRRD_SUFFIXES
_PICTURES = frozenset({".png", ".tif", ".tiff", ".bmp"})
_LARGEST_DESCRIPTION = 64 * 2**20  # bytes
_NUMBERED = re.compile(r"(?:.* \(class (\d+)\)|class (\d+))")  # names that `session.nnunet` gives


@dataclass(frozen=True)
class MaskFolder:
    """Masks on disk, not read yet.

    Attributes:
        path: of the folder, or of one file.
        files: by name without suffix.
        class_of: the class number of each label value in them.
        fingerprints: of the exported cases by name; empty if they are not known.
        notices: sentences for the person.
    """

    path: Path
    files: Mapping[str, Path]
    class_of: Mapping[int, int]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def find_masks(path: Path, classes: Sequence[LabelClass]) -> MaskFolder:
    """Find the masks at a path, and the meaning of their values.

    Args:
        path: a folder with the masks of several cases or pictures, or a mask. ``dataset.json`` beside the masks gives
            the classes of their values: by the table of an export, else by the names of its labels. Without that file
            the values are class numbers, which are unambiguous only if the classes are numbered without gaps.
        classes: of the project or session.

    Raises:
        LabelError: no masks, two for one name, or values whose class is not known.
    """
    path = Path(path)
    if not path.exists():
        msg = f"{path}: there is no such file or folder. Name the folder with the masks that nnU-Net wrote."
        raise LabelError(msg)
    if not classes:
        msg = f"{path}: masks need classes, and there is none yet. Add the classes first."
        raise LabelError(msg)
    folder = path if path.is_dir() else path.parent
    files: dict[str, Path] = {}
    for file in _files_in(path):
        name = file.name[: -len(suffix_of(file))]
        if name in files:
            msg = f"{file}: {files[name].name} is a mask of the same name. Keep one of them."
            raise LabelError(msg)
        files[name] = file
    if not files:
        msg = f"{path}: there is no mask here. Name the folder with the .nii.gz or .png files that nnU-Net wrote."
        raise LabelError(msg)
    description = folder / DESCRIPTION
    if not description.exists():
        return MaskFolder(path, files, _numbers_as_labels(path, classes))
    values = _read(description)
    class_of, notices = _table(description, values, classes)
    fingerprints = values.get(FINGERPRINTS, {})
    known = {str(name): str(value) for name, value in fingerprints.items()} if isinstance(fingerprints, dict) else {}
    return MaskFolder(path, files, class_of, known, tuple(notices))


def _files_in(path: Path) -> list[Path]:
    """The mask files at a path; a folder also holds plans, probabilities and more."""
    if path.is_file():
        return [path]
    try:
        found = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    except OSError as error:
        msg = f"{path}: this folder cannot be read ({disk.reason(error)}). Check its permissions."
        raise LabelError(msg) from error
    masks = [file for file in found if suffix_of(file) in _VOLUMES | _PICTURES]
    return sorted(masks, key=lambda file: natural_key(file.name))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(disk.read(path, _LARGEST_DESCRIPTION))
        if not isinstance(values["labels"], dict):
            msg = "its labels are no table"
            raise TypeError(msg)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path}: this does not describe a dataset of nnU-Net ({error}). Copy that of the export here."
        raise LabelError(msg) from error
    return dict(values)


def _numbers_as_labels(path: Path, classes: Sequence[LabelClass]) -> dict[int, int]:
    numbers = sorted(entry.number for entry in classes)
    if numbers != list(range(1, len(numbers) + 1)):
        msg = (
            f"{path}: the classes {', '.join(map(str, numbers))} have other numbers in nnU-Net, and no {DESCRIPTION} "
            "beside the masks says which. Copy that of the export there."
        )
        raise LabelError(msg)
    return {number: number for number in numbers}


def _table(path: Path, values: Mapping[str, Any], classes: Sequence[LabelClass]) -> tuple[dict[int, int], list[str]]:
    """The class number of each label by a description, and notices on names that differ."""
    by_number = {entry.number: entry for entry in classes}
    try:
        names = {
            int(label): " ".join(str(name).split())
            for name, label in values["labels"].items()
            if name not in ("background", "ignore")
        }
        given = values.get(CLASS_TABLE)
        class_of = {int(label): int(number) for label, number in given.items()} if isinstance(given, dict) else None
        if not all(0 < label <= HIGHEST_LABEL for label in names):
            msg = "a label is out of range"
            raise ValueError(msg)
    except (TypeError, ValueError) as error:
        msg = f"{path}: its labels are not one number each (regions are not read). Give masks with label numbers."
        raise LabelError(msg) from error
    if class_of is None:
        by_name = {" ".join(entry.name.split()).casefold(): entry.number for entry in classes}
        found = {label: by_name.get(name.casefold(), _number_in(name)) for label, name in names.items()}
        class_of = {label: number for label, number in found.items() if number is not None}
    for label, name in sorted(names.items()):
        if class_of.get(label) not in by_number:
            there = f"class {class_of[label]}, which is missing here" if label in class_of else "no class here"
            msg = f"{path}: its label {label} ({name}) is {there}. Add a class of that name and number first."
            raise LabelError(msg)
    class_of = {label: class_of[label] for label in sorted(names)}
    notices = []
    for label, name in sorted(names.items()):
        entry = by_number[class_of[label]]
        plain = re.sub(r" \(class \d+\)$", "", name)
        if plain.casefold() != " ".join(entry.name.split()).casefold():
            notices.append(f"Label {label} is called {name!r} there: it is class {entry.number}, {entry.name!r}, here.")
    return class_of, notices


def _number_in(name: str) -> int | None:
    found = _NUMBERED.fullmatch(name)
    return None if found is None else int(found[1] or found[2])


# --- one case -------------------------------------------------------------------------------------------------------


class CaseMasks:
    """The masks of some slices of a case, packed: many cases are read before the first is changed.

    Attributes:
        notices: sentences for the person.
    """

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._packed: dict[int, tuple[tuple[int, int], bytes]] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def put(self, i: int, labels: Labels) -> None:
        """Keep the labels (H, W) of a slice."""
        shape = (int(labels.shape[0]), int(labels.shape[1]))
        self._packed[i] = shape, zlib.compress(np.ascontiguousarray(labels).tobytes(), 1)

    def give_to(self, book: LabelBook) -> list[int]:
        """Store the masks as predictions in one action; slices that are labelled as a whole stay.

        Returns:
            The slices that changed.
        """
        taken = [i for i in sorted(self._packed) if not book.of_slice(i).is_whole]
        book.take_predictions({i: self._unpacked(i) for i in taken})
        return taken

    def _unpacked(self, i: int) -> Labels:
        shape, content = self._packed[i]
        return np.frombuffer(zlib.decompress(content), np.uint16).reshape(shape)


def masks_of_case(case: Case, masks: MaskFolder, identifier: str | None = None) -> dict[int, Path]:
    """The files of a case: of a volume by slice 0, of pictures by their number; empty if it has none.

    Args:
        case: a volume, or pictures.
        masks: found by `find_masks`.
        identifier: the name of the case in an export; None = it has none.
    """
    if case.kind == "volume":
        names = [name for name in (identifier, case.name) if name is not None and name in masks.files]
        return {0: masks.files[names[0]]} if names else {}
    stems = [Path(case.slice_name(i)).stem for i in range(case.n_slices)]
    found = {}
    for i, stem in enumerate(stems):
        exported = None if identifier is None else picture_name(identifier, i)
        name = exported if exported in masks.files else stem
        if name is not None and name in masks.files and (name == exported or stems.count(stem) == 1):
            found[i] = masks.files[name]
    return found


def read_masks(case: Case, files: Mapping[int, Path], masks: MaskFolder) -> CaseMasks:
    """Read the masks of a case, with class numbers as their values; changes nothing.

    Args:
        case: with its pixels at hand.
        files: as `masks_of_case` returns them.
        masks: with the table of the classes.

    Raises:
        LabelError: another geometry or size than the case, other pixels than those that were exported, or a value that
            is not in the table.
    """
    table = np.zeros(2**16, np.uint16)
    table[list(masks.class_of)] = list(masks.class_of.values())
    read = CaseMasks()
    for i, file in files.items():
        name = file.name[: -len(suffix_of(file))]
        own = case.fingerprint if case.kind == "volume" else case.slice_fingerprint(i)
        if masks.fingerprints.get(name, own) != own:
            where = case.name if case.kind == "volume" else case.slice_name(i)
            msg = f"{file}: it is the mask of another image than {where}. Give the masks of this project."
            raise LabelError(msg)
        if case.kind == "volume":
            found = case.read_labels(file, range(case.n_slices))
            read.notices += found.notices if isinstance(found, ReadLabels) else []
        else:
            found = {i: _read_picture(file, case.slice_shape(i), case.slice_name(i))}
        for index, labels in found.items():
            unknown = sorted({int(value) for value in np.unique(labels)} - {0, *masks.class_of})
            if unknown:
                msg = (
                    f"{file}: it holds the value {unknown[0]}, which is none of the labels "
                    f"{', '.join(map(str, sorted(masks.class_of)))}. Give masks of the dataset that was exported."
                )
                raise LabelError(msg)
            read.put(index, table[labels])
    return read


def _read_picture(path: Path, shape: tuple[int, int], name: str) -> NDArray[np.uint16]:
    """Read the label numbers (H, W) of a picture as nnU-Net writes them."""
    if suffix_of(path) not in _PICTURES:
        msg = f"{path}: this is not a mask of a picture. nnU-Net writes them as PNG or TIFF, like the pictures."
        raise LabelError(msg)
    try:
        picture = decode(path)
    except CaseError as error:
        raise LabelError(error.message) from error
    values = picture.pixels if picture.numbers is None else picture.numbers
    if values.ndim != 2 or values.dtype.kind not in "iu" or int(values.min()) < 0:
        msg = f"{path}: it holds colours or fractions, not label numbers. Give the masks that nnU-Net wrote."
        raise LabelError(msg)
    if values.shape != shape:
        msg = (
            f"{path}: the mask is {values.shape[1]} x {values.shape[0]} pixels, but {name} is {shape[1]} x {shape[0]}. "
            "Give the mask of this picture."
        )
        raise LabelError(msg)
    return values.astype(np.uint16)


def read_masks_of(case: Case, path: Path, classes: Sequence[LabelClass], identifier: str | None = None) -> CaseMasks:
    """Read the masks of the case in view: one file for a volume, a folder or a file for pictures.

    The only mask that is given belongs to a volume whatever its name.

    Args:
        case: of the masks.
        path: as for `find_masks`.
        classes: of the session.
        identifier: the name of the case in an export of its project; None = it is in none.

    Raises:
        LabelError: as `find_masks` and `read_masks`, or no mask of this case.
    """
    masks = find_masks(path, classes)
    files = masks_of_case(case, masks, identifier)
    if case.kind == "volume" and len(masks.files) == 1:
        files = {0: next(iter(masks.files.values()))}
    if not files:
        msg = f"{path}: none of the masks is called like {case.name}{_or_pictures(case)}. {_RENAME}"
        raise LabelError(msg)
    read = read_masks(case, files, masks)
    read.notices[:0] = masks.notices
    if case.kind == "pictures" and len(files) < case.n_slices:
        missing = [case.slice_name(i) for i in range(case.n_slices) if i not in files]
        read.notices.append(f"{counted(len(missing), 'picture')} without a mask: {listed(missing)}.")
    return read


_RENAME = "Give each mask the name that its image has in the export, or the name of the image."


def _or_pictures(case: Case) -> str:
    return " or one of its pictures" if case.kind == "pictures" else ""


# --- a project ------------------------------------------------------------------------------------------------------


@dataclass
class ProjectMasks:
    """The masks of several cases of a project, read and checked.

    Attributes:
        masks: by the number of the case.
        missing: names of the cases, not done yet, or of pictures, that have no mask.
        notices: sentences for the person.
    """

    masks: dict[int, CaseMasks] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read_project_masks(project: Project, path: Path, cancel: Cancel | None = None) -> ProjectMasks:
    """Read the masks of the cases of a project, and check all of them; changes nothing.

    Args:
        project: which can be changed.
        path: a folder of masks, or one mask.
        cancel: ends the reading; what was read so far is of no use.

    Raises:
        LabelError: as `find_masks` and `read_masks`, or no mask belongs to a case.
        CaseError: the image of a case is missing, or has changed.
    """
    masks = find_masks(path, project.classes)
    found = ProjectMasks(notices=list(masks.notices))
    names = [case.name for case in project.cases]
    used: set[Path] = set()
    for case in project.cases:
        if cancel:
            break
        # Names that several cases share identify none of them; identifiers always do.
        recorded = project.recorded(case)
        recorded.name = case.name if names.count(case.name) == 1 else case.identifier
        files = masks_of_case(recorded, masks, case.identifier)
        used.update(files.values())
        found.missing += _without_mask(case, files)
        if files:
            read = read_masks(project.opened(case), files, masks)
            found.notices += [f"{case.name}: {notice}" for notice in read.notices]
            found.masks[case.number] = read
    stray = [file.name for file in masks.files.values() if file not in used]
    if not found.masks and not cancel:
        msg = f"{path}: none of the masks ({listed(stray)}) is called like a case of {project.folder.name}. {_RENAME}"
        raise LabelError(msg)
    if stray:
        found.notices.append(f"{counted(len(stray), 'mask')} of no case of the project left out: {listed(stray)}.")
    if found.missing:
        found.notices.append(f"Without a mask: {listed(found.missing)}.")
    return found


def _without_mask(case: ProjectCase, files: Mapping[int, Path]) -> list[str]:
    if not files:
        return [] if case.is_done else [case.name]
    names = case.record.names  # of pictures
    return [f"{case.name}, {name}" for i, name in enumerate(names) if i not in files]


@dataclass(frozen=True)
class TakenMasks:
    """What was taken.

    Attributes:
        slices: how many slices of each case have a new prediction, by its number.
        kept: how many slices kept the labels that they had, by the number of the case.
        problems: a sentence for each part of the labels on disk that could not be read.
    """

    slices: dict[int, int] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """What happened, for the person."""
        slices, kept = sum(self.slices.values()), sum(self.kept.values())
        words = f"Masks on {counted(slices, 'slice')} of {counted(len(self.slices), 'case')} taken as predictions."
        left = "1 slice with labels stays as it is." if kept == 1 else f"{kept} slices with labels stay as they are."
        return f"{words} {left}" if kept else words


def take_project_masks(
    project: Project,
    found: ProjectMasks,
    but: ProjectCase | None = None,
    progress: Callable[[ProjectCase], None] = lambda _: None,
) -> TakenMasks:
    """Store masks as predictions of the cases on disk. Labels that were painted or accepted stay as they are.

    Args:
        project: of the cases.
        found: read from files.
        but: a case that is open in the window, whose session takes its masks itself.
        progress: called after each case.

    Raises:
        OutputError, SessionError, ProjectError: the labels of a case cannot be saved; the cases before it are.
    """
    if not project.is_writable:
        msg = f"{project.folder}: {project.reason or 'The project is closed.'}"
        raise ProjectError(msg)
    done = TakenMasks()
    for case in project.cases:
        masks = found.masks.get(case.number)
        if masks is None or (but is not None and case.number == but.number):
            continue
        taken, problems = _take(project, case, masks)
        done.slices[case.number], done.kept[case.number] = taken, len(masks) - taken
        done.problems.extend(Message(problem).after(f"{case.name}: ") for problem in problems)
        progress(case)
    return done


def _take(project: Project, case: ProjectCase, masks: CaseMasks) -> tuple[int, list[str]]:
    """Store the masks of a case, whose pixels are not needed; returns on how many slices, and what was damaged."""
    recorded, store = project.recorded(case), project.store(case)
    try:
        snapshot, problems = store.load()
        snapshot = project.with_model(case, snapshot)
        book = LabelBook(recorded.slice_shape, recorded.n_slices)
        book.take_content(snapshot.book)
        taken = len(masks.give_to(book))
        project.keep_snapshot(case, replace(snapshot, book=book.content()), store)
    finally:
        store.close()
    return taken, problems
