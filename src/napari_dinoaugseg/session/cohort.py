"""A cohort: the cases in a folder or a list, and the files of their results."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_dinoaugseg.case.dicom.frames import ImageFile, read_image_file
from napari_dinoaugseg.case.dicom.pictures import is_picture
from napari_dinoaugseg.case.files import (
    DICOM_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    check_parent,
    check_writable,
    files_below,
    is_hidden,
    is_same,
    listed,
    may_be_dicom,
    name_of,
    natural_key,
    suffix_of,
)
from napari_dinoaugseg.case.matching import is_mask_folder, label_studio, match_masks, split_masks
from napari_dinoaugseg.case.pictures import survey_pictures
from napari_dinoaugseg.case.sequences import in_words, without_sequence
from napari_dinoaugseg.case.tiff import is_stack
from napari_dinoaugseg.errors import CaseError, Hint, LabelError, OutputError

_PICTURES_AT_LEAST = 2
_VOLUMES = NIFTI_SUFFIXES | NRRD_SUFFIXES
_LIST = ".txt"
_LARGEST_LIST = 16 * 2**20  # bytes


@dataclass(frozen=True)
class Cohort:
    """The cases of a cohort.

    Attributes:
        cases: files and folders for `open_case`, in natural order (a list keeps its own); of several sequences the
            first one.
        notices: sentences about files that are not cases.
        files: all sequences of each case that has several, the first one included.
        names: of these cases, without that of a sequence.
    """

    cases: list[Path]
    notices: list[str] = field(default_factory=list)
    files: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)
    names: Mapping[Path, str] = field(default_factory=dict)

    def __add__(self, other: Cohort) -> Cohort:
        """The cases of both."""
        return Cohort(
            [*self.cases, *other.cases],
            [*self.notices, *other.notices],
            {**self.files, **other.files},
            {**self.names, **other.names},
        )

    def absolute(self) -> Cohort:
        """The same with absolute paths, for other processes and machines."""
        return Cohort(
            [path.absolute() for path in self.cases],
            self.notices,
            {path.absolute(): tuple(file.absolute() for file in files) for path, files in self.files.items()},
            {path.absolute(): name for path, name in self.names.items()},
        )


@dataclass(frozen=True)
class CohortCase:
    """A case of a cohort and the files of its results.

    Attributes:
        path: the case; of several sequences the first one.
        mask: a file, or a folder for pictures.
        report: a JSON file beside the mask.
        further: the other sequences.
        title: of a case of several sequences.
    """

    path: Path
    mask: Path
    report: Path
    further: tuple[Path, ...] = ()
    title: str = ""

    @property
    def name(self) -> str:
        """The name of its folder, or of its file without suffix."""
        return self.title or name_of(self.path)

    @property
    def source(self) -> Path | list[Path]:
        """What `open_case` opens."""
        return [self.path, *self.further] if self.further else self.path


def find_cohort(path: Path, *, wanted: bool | None = None, series: str | None = None, out: Path) -> Cohort | None:
    """The cases of a folder or a text file; None if ``path`` is one case.

    A text file holds one path per line, relative to its own folder; empty lines and those that begin with # are
    ignored. In a folder the cases are its volume files (NIfTI, NRRD, multi-page TIFF, multi-frame DICOM) and its
    subfolders with DICOM slices or pictures.

    Args:
        path: file or folder.
        wanted: True = it is a cohort, False = it is one case. None = a text file is a cohort, and so is a folder that
            cannot be one case: with NIfTI or NRRD files, or with DICOM of several examinations.
        series: the chosen DICOM series; a folder with several is then one case.
        out: of the results; never a case, even inside the folder. A file name means one case.

    Raises:
        CaseError: ambiguous, no case, or a list that cannot be read.
    """
    if wanted is False:
        return None
    if path.suffix.lower() == _LIST and path.is_file():
        return Cohort(_read_list(path))
    if wanted and path.is_file():
        msg = f"{path}: a cohort is a folder with several cases, or a text file (.txt) with a path a line. Name one."
        raise CaseError(msg)
    if not path.is_dir() or (wanted is None and is_file_name(out) and not out.is_dir()):
        return None
    inside = _Inside(path)
    if not (wanted or inside.is_cohort(series)):
        return None
    return inside.cohort(out)


def find_sequences(folder: Path, names: Sequence[str], out: Path) -> Cohort:
    """The cases of several sequences in a folder, with the same sequences for all.

    The name of a volume, or of a folder with a DICOM series, ends in that of its sequence: `anna_t1.nii.gz` and
    `anna_t2.nii.gz` beside each other, nnU-Net's `anna_0000.nii.gz` and `anna_0001.nii.gz`, or in a folder for each
    patient `t1.nii.gz` and `t2.nii.gz`.

    Args:
        folder: with the files, or with a folder for each patient.
        names: of the sequences in order; the first gives the grid.
        out: of the results; never a case, even inside the folder.

    Raises:
        CaseError: no such folder, no case in it, a case without one of the sequences, or two files of one.
    """
    if not folder.is_dir():
        msg = f"{folder}: cases of {in_words(names)} are looked for in a folder. Name a folder that holds them."
        raise CaseError(msg)
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    left: list[str] = []
    for path in _volumes_below(folder, names, out):
        parts = ((name, without_sequence(name_of(path), name)) for name in names)
        sequence, name = next(((name, rest) for name, rest in parts if rest is not None), ("", ""))
        if not sequence:
            left.append(path.name)
            continue
        others = found.setdefault((path.parent, name), {})
        if sequence in others:
            msg = f"{path}: {others[sequence].name} is {sequence} of the same case. Keep one of them here."
            raise CaseError(msg)
        others[sequence] = path
    if not found:
        msg = f"{folder}: no file here ends in {' or '.join(names)}. Name the sequences as the files do."
        raise CaseError(msg)
    lacking = [
        f"{name or parent.name} has no {' and no '.join(missing)}"
        for (parent, name), there in found.items()
        if (missing := [each for each in names if each not in there])
    ]
    if lacking:
        msg = f"{folder}: {listed(lacking)}. Every case needs {in_words(names)}; add what is missing, or move it away."
        raise CaseError(msg)
    files = {there[names[0]]: tuple(there[name] for name in names) for there in found.values()}
    titles = {there[names[0]]: name or parent.name for (parent, name), there in found.items()}
    notices = [f"Left out, for their names end in none of {', '.join(names)}: {listed(left)}."] if left else []
    return Cohort(sorted(files, key=lambda path: natural_key(titles[path])), notices, files, titles)


def _volumes_below(folder: Path, names: Sequence[str], out: Path) -> Iterator[Path]:
    """The volumes in a folder and its subfolders, and the folders of DICOM that are named as sequences."""
    for path in sorted(folder.iterdir(), key=lambda entry: natural_key(entry.name)):
        if is_hidden(path, folder) or is_same(path, out):
            continue
        if path.is_file() and suffix_of(path) in _VOLUMES:
            yield path
        elif path.is_dir():
            is_named = any(without_sequence(path.name, name) is not None for name in names)
            if is_named and any(may_be_dicom(file) for file in files_below(path)):
                yield path
            else:
                yield from _volumes_below(path, names, out)


def match_labels(folder: Path, cases: Sequence[Path], names: Mapping[Path, str] | None = None) -> dict[Path, Path]:
    """The label file of each case that has one, found by name.

    The labels of `NAME.nii.gz` are `NAME.nii.gz`, `NAME_seg.nii.gz`, … in the folder; those of a folder of pictures are
    a folder with its name. Of nnU-Net's images, `NAME_0000.nii.gz`, they are `NAME.nii.gz`.

    Args:
        folder: of the labels.
        cases: files and folders; labels of other names are refused.
        names: of cases that are not called like their files.

    Raises:
        LabelError: no such folder, two label files of one case, or labels that belong to no case.
    """
    if not folder.is_dir():
        msg = f"{folder}: this is not a folder. The labels of several cases lie in one, named like their cases."
        raise LabelError(msg)
    entries = [path for path in folder.iterdir() if not is_hidden(path, folder)]
    files = [
        path for path in entries if path.is_dir() or suffix_of(path) in _VOLUMES | PICTURE_SUFFIXES | DICOM_SUFFIXES
    ]
    named = {(names or {}).get(path) or name_of(path): path for path in cases}
    labels: dict[str, Path] = {}
    for path in sorted(files, key=lambda file: natural_key(file.name)):
        other = labels.setdefault(name_of(path), path)
        if other is not path:
            msg = f"{folder}: {other.name} and {path.name} are labels of the same name. Keep one of them here."
            raise LabelError(msg)
    # Label Studio numbers its tasks: they could only be counted off, which is not a match.
    found = match_masks([name for name in labels if label_studio(name) is None], named)
    lost = sorted(set(labels) - set(found), key=natural_key)
    if lost:
        msg = f"{folder}: {listed(lost)} belong to no case. Name labels like their cases, or move these away."
        raise LabelError(msg)
    taken: dict[Path, Path] = {}
    for mask, name in found.items():
        other = taken.setdefault(named[name], labels[mask])
        if other is not labels[mask]:
            msg = f"{folder}: {other.name} and {labels[mask].name} are both labels of {name}. Keep one of them here."
            raise LabelError(msg)
    if not taken:
        msg = f"{folder}: there is no label file. Name a folder with the labels of at least one case."
        raise LabelError(msg)
    return taken


def place_results(cases: Cohort | Iterable[Path], out: Path) -> list[CohortCase]:
    """The mask and report of each case: ``NAME.nii.gz`` (``.tif`` for a TIFF stack, a folder for pictures) and
    ``NAME.json``.

    Raises:
        OutputError: two cases have the same name.
    """
    cohort = cases if isinstance(cases, Cohort) else Cohort(list(cases))
    placed: list[CohortCase] = []
    taken: dict[str, Path] = {}
    for path in cohort.cases:
        name = cohort.names.get(path, "")
        mask = out / (f"{name}.nii.gz" if name else _mask_name(path))
        case = CohortCase(path, mask, out / f"{name or name_of(path)}.json", cohort.files.get(path, ())[1:], name)
        for target in {case.name, mask.name, case.report.name}:
            # Some file systems ignore case, or normalise accents.
            other = taken.setdefault(unicodedata.normalize("NFC", target).casefold(), path)
            if other is not path:
                msg = (
                    f"{path}: its mask would have the same name as that of {other} ({case.name}). "
                    "Rename one of them, or predict them into folders of their own."
                )
                raise OutputError(msg)
        placed.append(case)
    return placed


def prepare_folder(out: Path, cohort: Path, cases: Iterable[Path]) -> None:
    """Create the folder of the results. Raises OutputError: it is a file, holds cases, or cannot be created."""
    if out.is_file() or (not out.exists() and is_file_name(out)):
        msg = f"{out}: the masks of a cohort go to a folder, but this is the name of a file. Name a folder."
        raise OutputError(msg)
    folders = [case if case.is_dir() else case.parent for case in cases]
    if any(is_same(out, folder) for folder in {cohort, *folders}):
        msg = f"{out}: the cases lie here, and masks must not be taken for cases. Choose another folder."
        raise OutputError(msg)
    check_parent(out)
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        msg = f"{out}: the folder cannot be made ({error.strerror}). Choose another place."
        raise OutputError(msg) from error
    check_writable(out, out)


def is_file_name(path: Path) -> bool:
    """Whether a name has the suffix of a mask file."""
    return suffix_of(path) in _VOLUMES | PICTURE_SUFFIXES | DICOM_SUFFIXES


def _read_list(path: Path) -> list[Path]:
    try:
        if path.stat().st_size > _LARGEST_LIST:
            msg = f"{path}: this is too large for a list of cases. Give a text file with a path a line."
            raise CaseError(msg)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as a list of cases. Save it as plain text (UTF-8) with a path a line."
        raise CaseError(msg) from error
    named = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not named:
        msg = f"{path}: the list names no case. Write a path a line."
        raise CaseError(msg)
    return [path.parent / name for name in named]


class _Inside:
    """The direct contents of a folder, sorted by kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        visible = sorted((p for p in folder.iterdir() if not is_hidden(p, folder)), key=lambda p: natural_key(p.name))
        files = [path for path in visible if path.is_file()]
        self.folders = [path for path in visible if path.is_dir()]
        self.volumes = [path for path in files if suffix_of(path) in _VOLUMES]
        pictures = [path for path in files if suffix_of(path) in PICTURE_SUFFIXES]
        self.stacks = [path for path in pictures if _is_stack(path)]
        self.pictures = [path for path in pictures if path not in set(self.stacks)]
        known = {*self.volumes, *pictures}
        dicom = [path for path in files if path not in known and may_be_dicom(path)]
        headers = _multi_frame(dicom)
        # One file with a single slice makes the files of this folder a series.
        self.loops = headers if headers is not None else {}
        self.slices = dicom if headers is None else []
        self.others = [path for path in files if path not in {*known, *self.loops, *self.slices}]

    def is_cohort(self, series: str | None) -> bool:
        """Whether this cannot be one case. Raises CaseError when it is ambiguous."""
        loose = [path.name for path in (*self.pictures, *self.slices)]
        if self.volumes and loose:
            volumes = listed([path.name for path in self.volumes], 1)
            msg = (
                f"{self.folder}: volumes ({volumes}) lie beside pictures or DICOM slices ({listed(loose, 1)}), so "
                "this is neither one case nor a cohort. Move the ones or the others to a folder of their own."
            )
            raise CaseError(msg, Hint.ONE_CASE)
        if self.volumes:
            return True
        if self.stacks and not loose and not self.loops:
            msg = f"{self.folder}: the TIFF files have several pages."
            raise CaseError(msg, Hint.COHORT_OR_CASE)
        if loose or series is not None:
            return False
        if self.loops:
            found = [image for image in self.loops.values() if image is not None]
        else:
            found = [image for sub in self.folders for image in _first_image(sub)]
        return len({str(image.facts.get("StudyInstanceUID")) for image in found}) > 1

    def cohort(self, out: Path) -> Cohort:
        """The cases. Raises CaseError if there are none, or for files that belong to no case."""
        loose = [path.name for path in (*self.pictures, *self.slices)]
        if loose:
            msg = (
                f"{self.folder}: pictures or DICOM slices ({listed(loose, 1)}) lie right in the folder of the cohort. "
                "Move those of each case to a folder of their own."
            )
            raise CaseError(msg)
        files = [*self.volumes, *self.stacks, *self.loops]
        named_as_masks = set(split_masks(name_of(path) for path in files)[1])
        masks = [path for path in files if name_of(path) in named_as_masks]
        subfolders = [path for path in self.folders if not is_same(path, out)]
        folders = [path for path in subfolders if not is_mask_folder(path.name) and _holds_case(path)]
        cases = [path for path in files if path not in set(masks)] + folders
        if not cases:
            msg = f"{self.folder}: no case found. Name a folder with volumes or with a subfolder for each case."
            raise CaseError(msg)
        left = [*masks, *(path for path in subfolders if path not in set(folders)), *self.others]
        notices = (
            [f"Left out, because they are masks or not images: {listed([path.name for path in left])}."] if left else []
        )
        return Cohort(sorted(cases, key=lambda path: natural_key(path.name)), notices)


def _is_stack(path: Path) -> bool:
    try:
        return is_stack(path)
    except CaseError:  # damaged: reported when it is opened
        return False


def _multi_frame(files: Iterable[Path]) -> dict[Path, ImageFile | None] | None:
    """The headers of multi-frame files (None for a damaged one); None as soon as one file has a single slice."""
    found: dict[Path, ImageFile | None] = {}
    for path in files:
        try:
            image = _read(path)
        except CaseError:
            found[path] = None
            continue
        if image is not None and len(image.slices) == 1:
            return None
        if image is not None:  # else a report or a segmentation
            found[path] = image
    return found


def _first_image(folder: Path) -> Iterator[ImageFile]:
    """The first image of a folder of DICOM files, if any."""
    for path in files_below(folder):
        if may_be_dicom(path):
            try:
                image = _read(path)
            except CaseError:
                continue
            if image is not None:
                yield image
                return


def _read(path: Path) -> ImageFile | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydicom warns of every value that is merely unusual
        return read_image_file(path)


def _holds_case(folder: Path) -> bool:
    """Whether a subfolder is a case. Raises CaseError when it holds volumes instead."""
    if any(may_be_dicom(path) for path in files_below(folder)) or survey_pictures(folder)[0]:
        return True
    volume = next((path for path in files_below(folder) if suffix_of(path) in _VOLUMES), None)
    if volume is not None:
        msg = (
            f"{volume}: volumes in subfolders are not taken as cases, because images and labels cannot be "
            "distinguished there. Write the paths of the cases into a text file (.txt), one a line, and name that file."
        )
        raise CaseError(msg)
    return False


def _is_volume(dicom: Iterable[Path]) -> bool:
    """Whether DICOM files are a volume and not pictures, judged by the first images."""
    pictures = loops = 0
    for path in dicom:
        try:
            image = _read(path)
        except CaseError:
            return True  # reported on opening
        if image is None:
            continue
        if image.has_place or not (is_picture(image) or len(image.slices) > 1):
            return True
        pictures, loops = pictures + is_picture(image), loops + (len(image.slices) > 1)
        if pictures == _PICTURES_AT_LEAST:
            return False
    return pictures + loops > 0  # a single picture is a volume of one slice, a loop a volume of its frames


def _mask_name(path: Path) -> str:
    name, suffix = name_of(path), suffix_of(path)
    if path.is_dir():
        own = [file for file in path.iterdir() if file.is_file() and not is_hidden(file, path)]
        pictures = any(suffix_of(file) in PICTURE_SUFFIXES for file in own)
        dicom = (file for file in (own if pictures else files_below(path)) if may_be_dicom(file))
        return f"{name}.nii.gz" if _is_volume(dicom) else name
    if suffix in VIDEO_SUFFIXES:
        return name
    if suffix in PICTURE_SUFFIXES:
        return f"{name}.tif" if _is_stack(path) else name
    return f"{name}.nii.gz"
