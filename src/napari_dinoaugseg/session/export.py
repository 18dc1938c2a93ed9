"""Export of a session: its masks, all classes together or one by one, and a JSON report of how they were made."""

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
from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.files import atomic_file, check_parent, stem_of, suffix_of
from napari_dinoaugseg.case.itksnap import write_descriptions
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.labels import EVERYTHING, LabelClass, Labels, Status, is_by_hand, to_plain
from napari_dinoaugseg.session.measures import described
from napari_dinoaugseg.session.pixel_counts import volumes_ml
from napari_dinoaugseg.session.session import Session, write_mask

MANUAL_ONLY = (Status.MANUAL,)
MANUAL_AND_ACCEPTED = (Status.MANUAL, Status.ACCEPTED)

_PACKAGES = ("napari-dinoaugseg", "napari", "torch", "timm", "numpy", "nibabel")


def make_report(session: Session, include: Iterable[Status] = EVERYTHING) -> dict[str, Any]:
    """Describe a session as plain JSON values.

    No file or folder is named, because names of medical images often hold the name of a patient: the case is identified
    by its fingerprint, slices by their numbers.

    Args:
        session: the session.
        include: the layers in the mask, as for the export.

    Returns:
        ``case`` (fingerprint, kind, plane, sizes), ``classes`` (number, name, colour, pixels, volume_ml; the volume is
        None if the voxel size is unknown), ``slices`` (numbers of the manual, accepted and predicted ones; ``unseen``:
        those with computed labels in the mask that nobody has looked at; ``in_mask``: the layers in the mask;
        ``counted_from``: the number of the first slice, 0), ``confidence`` of predicted slices by number, ``encoder``
        and ``device`` (None without a model), ``settings``, ``rounds``, ``measures`` (see
        :func:`~napari_dinoaugseg.session.measures.described`), ``versions``, ``created`` (ISO 8601).
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
        "case": case_facts(case),
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
            "counted_from": 0,  # the window counts from 1
        },
        "confidence": {str(i): round(value, 4) for i, value in sorted(book.confidence.items())},
        "encoder": None if session.model is None else dict(session.model.encoder),
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
        "measures": described(session),
        "versions": package_versions(),
    }


def write_report(
    path: Path, session: Session, include: Iterable[Status] = EVERYTHING, *, more: Mapping[str, Any] | None = None
) -> None:
    """Write :func:`make_report` as JSON, with ``more`` entries; an existing file is replaced. Raises OutputError."""
    path = Path(path)
    check_parent(path)
    report = {**make_report(session, include), **(more or {})}
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def case_facts(case: Case) -> dict[str, Any]:
    """Describe a case as plain JSON values that name neither file nor patient."""
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
        # Their names may come from file names.
        **({"sequences": len(case.sequences)} if len(case.sequences) > 1 else {}),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a mask depends on."""
    versions = {"python": python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def export_masks(
    session: Session,
    path: Path,
    include: Iterable[Status] = EVERYTHING,
    *,
    per_class: bool = False,
    reviewed_only: bool = False,
) -> list[Path]:
    """Write the mask in exactly the case's geometry. Existing files are replaced: ask before.

    Args:
        session: the session.
        path: a file for a volume, a folder for pictures, as for `Case.write_mask`.
        include: the layers to write: manual, accepted, predicted; other slices are background.
        per_class: write one binary mask for each class: `mask_NAME.nii.gz` (1 inside) beside `path`, or for pictures a
            subfolder `NAME` of `path` (255 inside, visible in any viewer). A DICOM SEG needs none: its one file holds
            each class as a segment.
        reviewed_only: background on slices that nobody has looked at, see :meth:`LabelBook.unseen`.

    Returns:
        The files or folders that were written.

    Raises:
        OutputError: it cannot be written, or the session has no class to write.
    """
    targets = _targets(session, path, per_class)
    _check(session, path, targets)
    wanted = tuple(include)
    if not per_class:
        session.export(path, wanted, reviewed_only=reviewed_only)
        return [path]
    by_hand = is_by_hand(session.labels, wanted, reviewed_only=reviewed_only)
    for target, entry in targets:
        target.parent.mkdir(exist_ok=True)
        inside = np.uint16(255 if suffix_of(target) == ".png" or session.case.kind == "pictures" else 1)
        alone = replace(entry, number=int(inside))

        def mask(i: int, number: int = entry.number, inside: np.uint16 = inside) -> Labels:
            labels = session.labels.result(i, wanted, reviewed_only=reviewed_only)
            return np.where(labels == number, inside, 0).astype(np.uint16)

        write_mask(session.case, target, mask, [alone], by_hand=by_hand)
    return [target for target, _ in targets]


def write_label_table(path: Path, session: Session) -> None:
    """Write number, colour and name of the classes as label descriptions of ITK-SNAP; an existing file is replaced.

    Args:
        path: a text file; beside a mask of the same name its names are read back with the mask.
        session: the session.

    Raises:
        OutputError: no class, or it cannot be written.
    """
    path = Path(path)
    check_parent(path)
    classes = session.labels.classes
    if not classes:
        msg = f"{path}: no class to write yet. Add one, or load labels."
        raise OutputError(msg)
    write_descriptions(path, [Segment(entry.number, entry.name, entry.colour) for entry in classes])


def planned_files(session: Session, path: Path, *, per_class: bool = False) -> list[Path]:
    """Every file that `export_masks` would write. Raises OutputError as it does."""
    targets = _targets(session, path, per_class)
    _check(session, path, targets)
    places = [target for target, _ in targets] if per_class else [path]
    if isinstance(session.case, PictureCase):
        return [file for place in places for file in session.case.outputs(place)]
    return places


def _targets(session: Session, path: Path, per_class: bool) -> list[tuple[Path, LabelClass]]:
    """The file or folder of each class; empty if all classes go to one."""
    if not per_class:
        return []
    classes = session.labels.classes
    if not classes:
        msg = f"{path}: no class to write yet. Add one, or load labels."
        raise OutputError(msg)
    names = _file_names(classes)
    if session.case.kind == "pictures":
        return [(path / names[entry.number], entry) for entry in classes]
    stem, suffix = stem_of(path), path.name[len(stem_of(path)) :]
    return [(path.with_name(f"{stem}_{names[entry.number]}{suffix}"), entry) for entry in classes]


def _file_names(classes: Iterable[LabelClass]) -> dict[int, str]:
    """A unique file name for each class: its name in lower case, with its number if two are equal."""
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
