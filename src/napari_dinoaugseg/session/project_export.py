"""What leaves a project as a whole: masks, a table of volumes, a dataset of nnU-Net, a report."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import VolumeCase
from napari_dinoaugseg.case.files import check_parent
from napari_dinoaugseg.errors import DinoAugSegError, OutputError
from napari_dinoaugseg.session.export import export_masks
from napari_dinoaugseg.session.nnunet import NnunetCase, NnunetDataset, export_nnunet, is_nnunet_export
from napari_dinoaugseg.session.pixel_counts import PixelCounts, volumes_ml
from napari_dinoaugseg.session.project import CaseStatus, Project, ProjectCase, content_digest
from napari_dinoaugseg.session.project_report import CaseReport, ModelReport, ProjectReport, TrainingReport


@dataclass(frozen=True)
class MaskResult:
    """The mask of one case.

    Attributes:
        case: the case.
        path: the file, or the folder of pictures; None if it could not be written.
        is_kept: whether the file was left as it is, because it is not what the project wrote there.
        problems: sentences on why not, or on labels that could not be read.
    """

    case: ProjectCase
    path: Path | None
    is_kept: bool = False
    problems: list[str | DinoAugSegError] = field(default_factory=list)


_REMEMBERED = 8  # masks of a case, so that some folders can be written in turn


def masks_of(
    project: Project, cases: Sequence[ProjectCase], folder: Path, *, replace: bool, reviewed_only: bool = False
) -> Iterator[MaskResult]:
    """Write the masks of cases into a folder: ``NAME.nii.gz``, or another format where NIfTI cannot hold it.

    A case that fails does not stop the others.

    Args:
        project: of the cases.
        cases: whose labels on disk are written.
        folder: it exists.
        replace: also masks that are not as the project wrote them, for instance because a person corrected them.
        reviewed_only: background on slices that nobody has looked at.
    """
    names = file_names(cases)
    for case in cases:
        try:
            session, store, problems = project.session(case)
            store.close()
            path = folder / f"{names[case.number]}{_suffix(session.case)}"
            is_kept = not replace and path.exists() and content_digest(path) not in case.exported
            if not is_kept:
                export_masks(session, path, reviewed_only=reviewed_only)
                _remember(project, case, path)
        except DinoAugSegError as error:
            yield MaskResult(case, None, problems=[error])
        else:
            yield MaskResult(case, path, is_kept, [f"{case.name}: {problem}" for problem in problems])


def _remember(project: Project, case: ProjectCase, path: Path) -> None:
    """Note what was written as the mask of a case."""
    digest = content_digest(path)
    others = [known for known in case.exported if known != digest]
    case.exported = (*others, digest)[-_REMEMBERED:]
    if project.is_writable:
        project.save_case(case)


def file_names(cases: Sequence[ProjectCase]) -> dict[int, str]:
    """A unique file name without suffix for each case, by number: its name, with its number if others share it."""
    names = {case.number: re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", case.name).strip(" .") or "case" for case in cases}
    # Some file systems ignore case, or normalise accents.
    folded = [unicodedata.normalize("NFC", name).casefold() for name in names.values()]
    shared = {name for name in folded if folded.count(name) > 1}
    return {
        number: f"{name}_{number:03d}" if key in shared else name
        for (number, name), key in zip(names.items(), folded, strict=True)
    }


def existing_files(cases: Sequence[ProjectCase], folder: Path) -> list[Path]:
    """Files and folders that `masks_of` may replace."""
    names = file_names(cases)
    candidates = (folder / f"{name}{suffix}" for name in names.values() for suffix in ("", ".nii.gz", ".tif", ".dcm"))
    return sorted(path for path in candidates if path.exists())


def _suffix(case: object) -> str:
    if not isinstance(case, VolumeCase):
        return ""  # a folder of pictures
    suffixes = case.mask_suffixes
    return ".nii.gz" if ".nii.gz" in suffixes else suffixes[0]


def write_volumes(project: Project, path: Path) -> list[str]:
    """Write a table (CSV) of the volumes of each class in each case, of the labels on disk.

    A row for each case: its name and number, whether it is done, its slices by status, and for each class pixels and
    millilitres (empty where the size of a voxel is unknown), of everything that a mask would hold.

    Returns:
        A sentence for each part of the labels that could not be read.

    Raises:
        OutputError: it cannot be written.
    """
    check_parent(path)
    rows: list[list[object]] = []
    problems: list[str] = []
    classes = project.classes
    for case in project.cases:
        book, damaged = project.book(case)
        problems += [f"{case.name}: {problem}" for problem in damaged]
        status, pixels = CaseStatus.of(book), PixelCounts().total(book)
        millilitres = volumes_ml(project.recorded(case), pixels)
        left = status.n_slices - status.n_manual - status.n_accepted - status.n_predicted
        line: list[object] = [case.name, case.number, "yes" if case.is_done else "no", status.n_slices]
        line += [status.n_manual, status.n_accepted, status.n_predicted, left]
        for entry in classes:
            volume = None if millilitres is None else round(millilitres.get(entry.number, 0.0), 4)
            line += [pixels.get(entry.number, 0), "" if volume is None else volume]
        rows.append(line)
    head = ["case", "number", "done", "slices", "by hand", "accepted", "predicted", "without labels"]
    head += [f"{entry.name} ({unit})" for entry in classes for unit in ("pixels", "ml")]
    stream = io.StringIO()
    csv.writer(stream).writerows([head, *rows])
    try:
        disk.write(path, stream.getvalue().encode("utf-8-sig"))  # the mark lets Excel read accents
    except OSError as error:
        msg = f"{path}: the table cannot be written ({disk.reason(error)}). Choose another place."
        raise OutputError(msg) from error
    return problems


def write_nnunet(project: Project, folder: Path, *, to_predict: bool = False) -> NnunetDataset:
    """Write the cases that are done as a raw dataset of nnU-Net, see `export_nnunet`.

    Args:
        project: of the cases.
        folder: of the dataset.
        to_predict: also write the images of the other cases, for nnU-Net to predict.

    Raises:
        OutputError: no case is done, or it cannot be written; the folder is unchanged.
        CaseError, SessionError: a case cannot be read.
    """
    done = [case for case in project.cases if case.is_done]
    if not done:
        msg = (
            f"{folder}: no case of {project.folder.name} is done, and only those are exported. Mark the finished ones."
        )
        raise OutputError(msg)
    # A generator, so that the pixels of one case at a time are in memory.
    cases = (
        NnunetCase(project.opened(case), project.book(case)[0] if case.is_done else None, case.identifier)
        for case in (project.cases if to_predict else done)
    )
    return export_nnunet(cases, project.classes, folder, replace=is_nnunet_export(folder), to_predict=to_predict)


def report_on(project: Project) -> ProjectReport:
    """Describe the cases and the model without names, see `write_project_report`."""
    cases = [
        CaseReport.of(
            case.identifier,
            project.recorded(case),
            project.book(case)[0],
            seconds=case.seconds or None,
            done=case.is_done,
        )
        for case in project.cases
    ]
    fingerprints = {case.number: case.record.fingerprint for case in project.cases}
    trainings = tuple(
        TrainingReport(
            # A case that was removed since is not described any more.
            {fingerprints[n]: slices for n, slices in training.slices.items() if n in fingerprints},
            training.steps,
            training.final_loss,
            training.seconds,
            training.agreement,
        )
        for training in project.trainings
    )
    model = project.model
    described = None if model is None else ModelReport(model.encoder, model.settings, trainings)
    return ProjectReport(project.classes, cases, described)
