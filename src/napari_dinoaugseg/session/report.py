"""What was done, for the records: a JSON file that says how a mask came about.

It names neither files nor folders: file names of medical images often hold the name of a patient. The study is known by
its fingerprint, the slices by their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from napari_dinoaugseg.session.classes import to_plain
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.session import EVERYTHING, Session
from napari_dinoaugseg.study import Study
from napari_dinoaugseg.study.output import atomic_file, check_parent

_PACKAGES = ("napari-dinoaugseg", "napari", "torch", "timm", "numpy", "nibabel")


def make_report(session: Session, include: Iterable[Status] = EVERYTHING) -> dict[str, Any]:
    """Describe a session as plain JSON values.

    Args:
        session: what to describe.
        include: which slices the mask takes its labels from, as for the export.

    Returns:
        ``study`` (fingerprint, kind, plane, sizes), ``classes`` (number, name, colour, pixels, volume_ml; the volume is
        None where the voxel size is unknown), ``slices`` (numbers of the manual, accepted and predicted ones;
        ``unseen``: those of the mask with something computed that nobody has looked at; ``in_mask``: which statuses the
        mask holds), ``confidence`` of predicted slices by number, ``encoder`` and ``device``
        (None when nothing was learnt), ``settings``, ``rounds``, ``versions``, ``created`` (ISO 8601).
    """
    wanted = tuple(include)
    pixels, millilitres = _amounts(session, wanted)
    book, study = session.labels, session.study
    by_status = {status: [i for i in range(study.n_slices) if book.status(i) is status] for status in EVERYTHING}
    return {
        "format": "napari-dinoaugseg report, version 1",
        "purpose": "Research use only; not a medical device.",
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "study": _study(study),
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


def class_volumes(session: Session, include: Iterable[Status] = EVERYTHING) -> dict[int, float] | None:
    """Volume of each class in millilitres, by number; None where the voxel size is unknown (pictures)."""
    return _amounts(session, tuple(include))[1]


def _amounts(session: Session, include: tuple[Status, ...]) -> tuple[dict[int, int], dict[int, float] | None]:
    """Pixels of each class, and millilitres where sizes are known."""
    study, pixels = session.study, dict[int, int]()
    millilitres: dict[int, float] | None = None if study.slice_distance is None else {}
    for index in range(study.n_slices):
        if session.labels.status(index) is Status.EMPTY:
            continue
        counts = np.bincount(session.labels.result(index, include).reshape(-1))
        spacing = study.slice_spacing(index)
        for number in np.flatnonzero(counts).tolist():
            if number == 0:
                continue
            count = int(counts[number])
            pixels[number] = pixels.get(number, 0) + count
            if millilitres is not None and spacing is not None and study.slice_distance is not None:
                added = count * spacing[0] * spacing[1] * study.slice_distance / 1000
                millilitres[number] = millilitres.get(number, 0.0) + added
    return pixels, millilitres


def _study(study: Study) -> dict[str, Any]:
    sizes = {study.slice_shape(i) for i in range(study.n_slices)}
    spacing = study.slice_spacing(0)
    known = spacing is not None and study.slice_distance is not None
    return {
        "fingerprint": study.fingerprint,
        "kind": study.kind,
        "plane": str(study.plane),
        "slices": study.n_slices,
        # Pictures may differ in size.
        "size": list(sizes.pop()) if len(sizes) == 1 else None,
        "spacing_mm": [study.slice_distance, *spacing] if known and spacing is not None else None,
        "modality": study.modality,
        "colour": study.is_colour,
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
