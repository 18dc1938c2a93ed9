"""Masks on disk: all classes in one place, or each class in a place of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.classes import LabelClass
from napari_dinoaugseg.session.labels import Labels, Status
from napari_dinoaugseg.session.segments import is_by_hand, write_mask
from napari_dinoaugseg.session.session import EVERYTHING, Session
from napari_dinoaugseg.study import PictureStudy
from napari_dinoaugseg.study.files import stem_of, suffix_of
from napari_dinoaugseg.study.output import check_parent
from napari_dinoaugseg.study.study import MaskOf

MANUAL_ONLY = (Status.MANUAL,)
MANUAL_AND_ACCEPTED = (Status.MANUAL, Status.ACCEPTED)


def export_masks(
    session: Session,
    path: Path,
    include: Iterable[Status] = EVERYTHING,
    *,
    per_class: bool = False,
    reviewed_only: bool = False,
) -> list[Path]:
    """Write the mask in exactly the study's geometry. What is there already is replaced: ask before.

    Args:
        session: whose labels.
        path: a file for a volume, a folder for pictures, as `Study.write_mask` takes it.
        include: which slices count: manual, accepted, predicted; the others come out as background.
        per_class: write one binary mask a class: `mask_NAME.nii.gz` (1 inside) beside `path`, a subfolder `NAME` of
            `path` for pictures (255 inside, as every picture viewer shows it). A DICOM SEG needs no such files: its
            one file keeps each class apart, with its name and number.
        reviewed_only: background on slices that nobody has looked at, see :meth:`LabelBook.unseen`.

    Returns:
        The files or folders that were written.

    Raises:
        OutputError: nothing can be written there, or there is no class to write.
    """
    targets = _targets(session, path, per_class)
    _check(session, path, targets)
    wanted = tuple(include)
    if not per_class:
        session.export(path, wanted, reviewed_only=reviewed_only)
        return [path]
    by_hand = is_by_hand(session.labels, session.study.n_slices, wanted, reviewed_only=reviewed_only)
    for target, entry in targets:
        target.parent.mkdir(exist_ok=True)
        inside = np.uint16(255 if suffix_of(target) == ".png" or session.study.kind == "pictures" else 1)
        alone = replace(entry, number=int(inside))
        masks = _only(session, entry, wanted, inside, reviewed_only=reviewed_only)
        write_mask(session.study, target, masks, [alone], by_hand=by_hand)
    return [target for target, _ in targets]


def planned_files(session: Session, path: Path, *, per_class: bool = False) -> list[Path]:
    """Every file that `export_masks` would write, there already or not. Raises OutputError as it would."""
    targets = _targets(session, path, per_class)
    _check(session, path, targets)
    places = [target for target, _ in targets] if per_class else [path]
    if isinstance(session.study, PictureStudy):
        return [file for place in places for file in session.study.outputs(place)]
    return places


def _targets(session: Session, path: Path, per_class: bool) -> list[tuple[Path, LabelClass]]:
    """Where each class goes; nothing when they go together."""
    if not per_class:
        return []
    classes = session.labels.classes
    if not classes:
        msg = f"{path}: there is no class to write yet. Add one, or load labels."
        raise OutputError(msg)
    names = _file_names(classes)
    if session.study.kind == "pictures":
        return [(path / names[entry.number], entry) for entry in classes]
    stem, suffix = stem_of(path), path.name[len(stem_of(path)) :]
    return [(path.with_name(f"{stem}_{names[entry.number]}{suffix}"), entry) for entry in classes]


def _file_names(classes: Iterable[LabelClass]) -> dict[int, str]:
    """A file name for each class, once each: the class's own in small letters, with its number where two are alike."""
    names: dict[int, str] = {}
    for entry in classes:
        name = re.sub(r"[^\w]+", "-", entry.name.casefold()).strip("-") or "class"
        names[entry.number] = f"{name}-{entry.number}" if name in names.values() else name
    return names


def _check(session: Session, path: Path, targets: list[tuple[Path, LabelClass]]) -> None:
    session.study.check_output(path)
    for target, _ in targets:
        if session.study.kind == "pictures":
            check_parent(target.parent)
        else:
            session.study.check_output(target)


def _only(
    session: Session, entry: LabelClass, include: tuple[Status, ...], inside: np.uint16, *, reviewed_only: bool
) -> MaskOf:
    """The masks of one class."""

    def mask(index: int) -> Labels:
        labels = session.labels.result(index, include, reviewed_only=reviewed_only)
        return np.where(labels == entry.number, inside, 0).astype(np.uint16)

    return mask
