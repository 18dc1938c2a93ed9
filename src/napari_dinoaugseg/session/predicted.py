"""What is predicted already: masks with a report that tells from which model and which files they come."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.cohort import CohortStudy
from napari_dinoaugseg.session.report import write_report
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.study.files import is_hidden, listed
from napari_dinoaugseg.study.output import atomic_file

_LARGEST_REPORT = 64 * 2**20  # bytes
_ENTRY = "prediction"


class Standing(StrEnum):
    """What there is of a study's results."""

    OPEN = "open"  # nothing, or an unfinished attempt
    PRESENT = "present"  # mask and report, of the same model, options and files
    CHANGED = "changed"  # the same, but somebody changed the mask since
    OTHER = "other"  # something else: of another model, other options, other files, or without a report


@dataclass(frozen=True)
class Origin:
    """What a mask comes from, besides its study.

    Attributes:
        model: a hash of the model file.
        options: a hash of what else decides the mask (plane, component, series, window).
    """

    model: str
    options: str


def look(study: CohortStudy, origin: Origin) -> tuple[Standing, str]:
    """What there is of a study's results, and, when it is something else, what is different.

    A study whose files have the sizes and times that the report tells is taken for the same; otherwise their bytes are
    compared, so that a copied cohort counts as the same and a corrected header does not.
    """
    if not study.mask.exists():
        return Standing.OPEN, ""
    entry = _read(study.report)
    if entry is None:
        return Standing.OTHER, "without a report of a prediction"
    if entry.get("mask") is None:
        return Standing.OPEN, ""
    if entry.get("model") != origin.model:
        return Standing.OTHER, "of another model"
    if entry.get("options") != origin.options:
        return Standing.OTHER, "of other options"
    files = _files(study.path)
    if entry.get("stamp") != _stamp(files) and entry.get("content") != _content(files):
        return Standing.OTHER, "of a study that has changed since"
    if entry["mask"] != _content(_files(study.mask)):
        return Standing.CHANGED, "its mask was changed since"
    return Standing.PRESENT, ""


def require_none_else(found: Iterable[tuple[CohortStudy, Standing, str]], out: Path) -> None:
    """Refuse to mix: raise OutputError when ``out`` holds masks that come from something else."""
    others = [(study, why) for study, standing, why in found if standing is Standing.OTHER]
    if others:
        names = listed([study.mask.name for study, _ in others])
        reasons = ", ".join(sorted({why for _, why in others}))
        msg = (
            f"{out}: {names} {'is there' if len(others) == 1 else 'are there'} already, {reasons}. "
            "Choose another folder, or predict these again and replace them with --overwrite."
        )
        raise OutputError(msg)


class Attempt:
    """The results of one study on their way to the disk; begun before the study is opened.

    Args:
        study: the study and its places.
        origin: what its mask comes from.

    Raises:
        OSError: the study's files cannot be read.
    """

    def __init__(self, study: CohortStudy, origin: Origin) -> None:
        self._study = study
        files = _files(study.path)
        self._entry = {
            "model": origin.model,
            "options": origin.options,
            "stamp": _stamp(files),
            "content": _content(files),
        }

    def write(self, session: Session) -> None:
        """Write the mask and its report.

        A mask is never beside a report of something else: before it is written, its report says that it is unfinished.

        Raises:
            OutputError: the system refused to write.
        """
        mask, report = self._study.mask, self._study.report
        with atomic_file(report) as temporary:
            temporary.write_text(json.dumps({_ENTRY: {**self._entry, "mask": None}}) + "\n", encoding="utf-8")
        try:
            session.export(mask)
        except OutputError:
            if not mask.exists():
                with contextlib.suppress(OSError):  # the first error tells more
                    report.unlink()
            raise
        seconds = {stage: round(value, 3) for stage, value in session.seconds.items()}
        entry = {**self._entry, "mask": _content(_files(mask)), "seconds": seconds}
        write_report(report, session, more={_ENTRY: entry})


def _read(report: Path) -> dict[str, Any] | None:
    """What a report tells of a prediction; None when it is none of ours."""
    try:
        if report.stat().st_size > _LARGEST_REPORT:
            return None
        entry = json.loads(report.read_text(encoding="utf-8"))[_ENTRY]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not is_hidden(file, path))


def _stamp(files: Iterable[Path]) -> str:
    """A hash of the sizes and times of files: quick, and different after any usual change."""
    status = [file.stat() for file in files]
    return _hash(f"{entry.st_size} {entry.st_mtime_ns};".encode() for entry in status)


def _content(files: Iterable[Path]) -> str:
    """A hash of the bytes of files. Names are not in it: they may be a patient's."""
    return _hash(bytes.fromhex(disk.digest(file)) for file in files)


def _hash(parts: Iterator[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
