"""Masks on disk, and the report beside them: a JSON file that records how a mask was made.

It names neither files nor folders: file names of medical images often hold the name of a patient. The case is known by
its fingerprint, the slices by their numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from napari_dinoaugseg.case import Case, PictureCase
from napari_dinoaugseg.case.case import MaskOf
from napari_dinoaugseg.case.files import atomic_file, check_parent, stem_of, suffix_of
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.labels import LabelClass, Labels, Status, is_by_hand, to_plain, write_mask
from napari_dinoaugseg.session.pixel_counts import volumes_ml
from napari_dinoaugseg.session.session import EVERYTHING, Session

_PACKAGES = ("napari-dinoaugseg", "napari", "torch", "timm", "numpy", "nibabel")


def make_report(session: Session, include: Iterable[Status] = EVERYTHING) -> dict[str, Any]:
    """Describe a session as plain JSON values.

    Args:
        session: what to describe.
        include: which slices the mask takes its labels from, as for the export.

    Returns:
        ``case`` (fingerprint, kind, plane, sizes), ``classes`` (number, name, colour, pixels, volume_ml; the volume is
        None where the voxel size is unknown), ``slices`` (numbers of the manual, accepted and predicted ones;
        ``unseen``: those of the mask with something computed that nobody has looked at; ``in_mask``: which statuses the
        mask holds), ``confidence`` of predicted slices by number, ``encoder`` and ``device``
        (None when nothing was learnt), ``settings``, ``rounds``, ``versions``, ``created`` (ISO 8601).
    """
    wanted = tuple(include)
    book, case = session.labels, session.case
    pixels = session.pixel_counts.total(book, wanted)
    millilitres = volumes_ml(case, pixels)
    by_status = {status: [i for i in range(case.n_slices) if book.status(i) is status] for status in EVERYTHING}
    return {
        "format": "napari-dinoaugseg report, version 1",
        "purpose": "Research use only; not a medical device.",
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "case": _case(case),
        "classes": [
            {
                **plain,
                "pixels": pixels.get(plain["number"], 0),
                "volume_ml": None if millilitres is None else round(millilitres.get(plain["number"], 0.0), 4),
            }
            for plain in to_plain(book.classes)
        ],
        "slices": {
            **{str(status): slices for status, slices in by_status.items()},
            "unseen": book.unseen(wanted),
            "in_mask": [str(s) for s in wanted],
        },
        "confidence": {str(i): round(value, 4) for i, value in sorted(book.confidence.items())},
        "encoder": _encoder(session),
        "device": session.device_name if session.is_ready else None,
        "settings": session.settings.model_dump(mode="json"),
        "rounds": [
            {
                "labelled": done.labelled,
                "steps": done.steps,
                "final_loss": done.final_loss,
                "agreement": done.agreement,
                "seconds": {stage: round(value, 3) for stage, value in done.seconds.items()},
            }
            for done in session.history
        ],
        "versions": _versions(),
    }


def write_report(
    path: Path, session: Session, include: Iterable[Status] = EVERYTHING, *, more: Mapping[str, Any] | None = None
) -> None:
    """Write the report as JSON; a file that is there already is replaced.

    Args:
        path: where to write.
        session: what to describe.
        include: as for :func:`make_report`.
        more: further entries.

    Raises:
        OutputError: nothing can be written there.
    """
    path = Path(path)
    check_parent(path)
    report = {**make_report(session, include), **(more or {})}
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _case(case: Case) -> dict[str, Any]:
    sizes = {case.slice_shape(i) for i in range(case.n_slices)}
    spacing = case.slice_spacing(0)
    known = spacing is not None and case.slice_distance is not None
    return {
        "fingerprint": case.fingerprint,
        "kind": case.kind,
        "plane": str(case.plane),
        "slices": case.n_slices,
        # Pictures may differ in size.
        "size": list(sizes.pop()) if len(sizes) == 1 else None,
        "spacing_mm": [case.slice_distance, *spacing] if known and spacing is not None else None,
        "modality": case.modality,
        "colour": case.is_colour,
    }


def _encoder(session: Session) -> dict[str, Any] | None:
    model = session.model
    return None if model is None else dict(model.encoder)


def _versions() -> dict[str, str]:
    versions = {"python": python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


# Masks on disk: all classes in one place, or each class in a place of its own.


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
    """Write the mask in exactly the case's geometry. What is there already is replaced: ask before.

    Args:
        session: whose labels.
        path: a file for a volume, a folder for pictures, as `Case.write_mask` takes it.
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
    by_hand = is_by_hand(session.labels, session.case.n_slices, wanted, reviewed_only=reviewed_only)
    for target, entry in targets:
        target.parent.mkdir(exist_ok=True)
        inside = np.uint16(255 if suffix_of(target) == ".png" or session.case.kind == "pictures" else 1)
        alone = replace(entry, number=int(inside))
        masks = _only(session, entry, wanted, inside, reviewed_only=reviewed_only)
        write_mask(session.case, target, masks, [alone], by_hand=by_hand)
    return [target for target, _ in targets]


def planned_files(session: Session, path: Path, *, per_class: bool = False) -> list[Path]:
    """Every file that `export_masks` would write, there already or not. Raises OutputError as it would."""
    targets = _targets(session, path, per_class)
    _check(session, path, targets)
    places = [target for target, _ in targets] if per_class else [path]
    if isinstance(session.case, PictureCase):
        return [file for place in places for file in session.case.outputs(place)]
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
    if session.case.kind == "pictures":
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
    session.case.check_output(path)
    for target, _ in targets:
        if session.case.kind == "pictures":
            check_parent(target.parent)
        else:
            session.case.check_output(target)


def _only(
    session: Session, entry: LabelClass, include: tuple[Status, ...], inside: np.uint16, *, reviewed_only: bool
) -> MaskOf:
    """The masks of one class."""

    def mask(index: int) -> Labels:
        labels = session.labels.result(index, include, reviewed_only=reviewed_only)
        return np.where(labels == entry.number, inside, 0).astype(np.uint16)

    return mask
