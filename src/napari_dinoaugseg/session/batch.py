"""Prediction of many cases with one saved model, and the state of their results on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import Case, open_case
from napari_dinoaugseg.case.files import atomic_file, is_hidden, listed
from napari_dinoaugseg.errors import CheckpointError, DinoAugSegError, Hint, OutputError, one_line
from napari_dinoaugseg.learning.events import Event, Notice
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.cohort import CohortCase
from napari_dinoaugseg.session.compute import ComputeConfig, Notify
from napari_dinoaugseg.session.export import write_report
from napari_dinoaugseg.session.session import Session, require_fitting

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder


_LARGEST_REPORT = 64 * 2**20  # bytes
_ENTRY = "prediction"
"""In a report: the hashes of model, options and files that a mask was made from."""


class SavedModel:
    """A saved model with its encoder, loaded once for all cases.

    Args:
        path: of the model.
        config: where to compute, and with which files.
        notify: receives sentences for the person.
    """

    def __init__(self, path: Path, config: ComputeConfig | None = None, *, notify: Notify = lambda _: None) -> None:
        self.path = path
        self._config, self._notify = config or ComputeConfig(), notify
        self._loaded: tuple[Checkpoint, Encoder] | None = None

    def load(self) -> None:
        """Read the model and its encoder on the first call.

        Raises:
            CheckpointError: not a model, damaged, or of an encoder with other weights.
            WeightsError, DeviceError: the encoder's weights or the device are not available.
        """
        self._parts()

    def session(self, case: Case, window: str | None = None) -> Session:
        """A session that is ready to predict the case.

        Args:
            case: the case.
            window: an intensity window in place of the model's; None = the model's.

        Raises:
            CheckpointError, WeightsError, DeviceError: as :meth:`load`.
            SettingsError: the window is not valid for the case.
        """
        checkpoint, encoder = self._parts()
        session = Session(case, config=self._config, encoder=encoder, notify=self._notify)
        session.use_model(checkpoint, self.path, window=window)
        return session

    @property
    def preset(self) -> str:
        """The preset of the model's training. Raises as :meth:`load`."""
        return require_fitting(self._parts()[0], self.path, (), "auto")[1].preset

    def _parts(self) -> tuple[Checkpoint, Encoder]:
        if self._loaded is None:
            with importing_torch():
                from napari_dinoaugseg.learning.fallback import choose_device
                from napari_dinoaugseg.model.checkpoint import load_checkpoint
                from napari_dinoaugseg.session.engine import read_encoder, require_encoder

            checkpoint = load_checkpoint(self.path)
            settings = require_fitting(checkpoint, self.path, (), "auto")[1]
            choose_device(self._config.device)
            encoder = read_encoder(settings.encoder, self._config.weights, self._notify)
            require_encoder(checkpoint, encoder, self.path)
            self._loaded = (checkpoint, encoder)
        return self._loaded


def fingerprint_of(path: Path) -> str:
    """A hash (hex) of the bytes of a model file. Raises CheckpointError if it cannot be read."""
    try:
        return disk.digest(path)
    except OSError as error:
        msg = f"{path}: the model cannot be opened: {disk.reason(error)}. Check the path."
        raise CheckpointError(msg) from error


@dataclass(frozen=True)
class BatchPlan:
    """How to predict every case of a cohort. Plain values, because it is sent to other machines.

    Attributes:
        model: the model file.
        fingerprint: a hash of that file, see `fingerprint_of`.
        plane: slicing plane, by name; None = the one with the finest pixels.
        series: DICOM series.
        component: time point or channel.
        every: take every n-th frame of videos; None = all.
        window: of intensities; None = the model's.
        compute: where to compute, and with which files.
        sequences: their names, where the cases have several.
    """

    model: Path
    fingerprint: str
    plane: str | None = None
    series: str | None = None
    component: int | None = None
    every: int | None = None
    window: str | None = None
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    sequences: tuple[str, ...] = ()

    @property
    def provenance(self) -> Provenance:
        """The provenance of its masks."""
        # Only what is asked for, so that masks of earlier versions count as of this plan.
        further: list[Any] = [list(self.sequences)] if self.sequences else []
        further += [] if self.every is None else [self.every]
        options = json.dumps([self.plane, self.series, self.component, self.window, *further])
        return Provenance(self.fingerprint, hashlib.blake2b(options.encode(), digest_size=16).hexdigest())


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case.

    Attributes:
        reason: why it failed, in one line; None if mask and report are written.
        seconds: of opening, prediction and writing.
        notices: sentences for the person.
    """

    reason: str | None
    seconds: float
    notices: tuple[str, ...] = ()


class Batch:
    """Predicts one case after the other by a plan."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._notices: list[str] = []
        self._model = SavedModel(plan.model, plan.compute, notify=self._notices.append)

    def load(self) -> None:
        """Load model and encoder on the first call.

        Raises:
            CheckpointError: the model cannot be used, or is not that of the plan.
            WeightsError, DeviceError, SettingsError: as for a session.
        """
        if fingerprint_of(self._plan.model) != self._plan.fingerprint:
            msg = f"{self._plan.model}: this is not the model that the prediction began with. Start again."
            raise CheckpointError(msg)
        self._model.load()

    def predict(self, case: CohortCase) -> Outcome:
        """Predict a case and write its mask and report. Never raises: a damaged case must not stop the others."""
        started = time.monotonic()
        reason: str | None = None
        notices: list[str] = []
        try:
            self._predict(case, notices)
        except DinoAugSegError as error:
            reason = error.message
        except Exception as error:  # the other cases do not need this one
            reason = f"{type(error).__name__}: {error}"
        collected = [*self._notices, *notices]
        self._notices.clear()
        return Outcome(one_line(reason) if reason is not None else None, time.monotonic() - started, tuple(collected))

    def _predict(self, place: CohortCase, notices: list[str]) -> None:
        plan = self._plan
        # First, because its errors are the clearest about a file.
        case = open_case(
            place.source,
            plane=plan.plane,
            series=plan.series,
            component=plan.component,
            every=plan.every,
            sequences=plan.sequences,
        )
        notices.extend(case.notices)
        case.check_output(place.mask, [plan.model, *([plan.compute.weights] if plan.compute.weights else [])])
        attempt = ResultWriter(place, plan.provenance)
        session = self._model.session(case, plan.window)

        def report(event: Event) -> None:
            if isinstance(event, Notice):
                notices.append(event.text)

        for _ in session.predict(report=report):
            pass
        attempt.write(session)


@lru_cache(maxsize=1)
def batch_of(plan: BatchPlan) -> Batch:
    """The batch of this process: a worker keeps its model between cases."""
    return Batch(plan)


def predict_here(cases: Iterable[CohortCase], plan: BatchPlan) -> Generator[tuple[CohortCase, Outcome], None, None]:
    """Predict one case after the other in this process.

    Raises:
        CheckpointError, WeightsError, DeviceError, SettingsError: the model cannot be used here.
    """
    batch = Batch(plan)
    batch.load()
    for case in cases:
        yield case, batch.predict(case)


# --- results on disk ------------------------------------------------------------------------------------------------


class ResultState(StrEnum):
    """The state of a case's results on disk."""

    OPEN = "open"  # no result, or an unfinished attempt
    PRESENT = "present"  # mask and report of the same model, options and files
    CHANGED = "changed"  # the same, but the mask was changed since
    OTHER = "other"  # of another model, other options, other files, or without a report


@dataclass(frozen=True)
class Provenance:
    """The source of a mask, besides its case.

    Attributes:
        model: a hash of the model file.
        options: a hash of plane, series, component and window.
    """

    model: str
    options: str


def look(case: CohortCase, provenance: Provenance) -> tuple[ResultState, str]:
    """The state of a case's results and, if they differ, how.

    Files with the sizes and times in the report count as the same; otherwise their bytes are compared, so that a copied
    cohort counts as the same and a corrected header does not.
    """
    if not case.mask.exists():
        return ResultState.OPEN, ""
    entry = _read(case.report)
    if entry is None:
        return ResultState.OTHER, "without a report of a prediction"
    if entry.get("mask") is None:
        return ResultState.OPEN, ""
    if entry.get("model") != provenance.model:
        return ResultState.OTHER, "of another model"
    if entry.get("options") != provenance.options:
        return ResultState.OTHER, "of other options"
    files = _files_of(case)
    if entry.get("stamp") != _stamp(files) and entry.get("content") != _content(files):
        return ResultState.OTHER, "of a case that has changed since"
    if entry["mask"] != _content(_files(case.mask)):
        return ResultState.CHANGED, "its mask was changed since"
    return ResultState.PRESENT, ""


def require_none_else(found: Iterable[tuple[CohortCase, ResultState, str]], out: Path) -> None:
    """Raise OutputError if ``out`` holds masks of another model, other options or files."""
    others = [(case, why) for case, state, why in found if state is ResultState.OTHER]
    if others:
        names = listed([case.mask.name for case, _ in others])
        reasons = ", ".join(sorted({why for _, why in others}))
        msg = f"{out}: {names} {'is there' if len(others) == 1 else 'are there'} already, {reasons}."
        raise OutputError(msg, Hint.REPLACE_MASKS)


class ResultWriter:
    """Writes the results of one case; hashes its files when it is made.

    Args:
        case: the case and the files of its results.
        provenance: of its mask.

    Raises:
        OSError: the case's files cannot be read.
    """

    def __init__(self, case: CohortCase, provenance: Provenance) -> None:
        self._case = case
        files = _files_of(case)
        self._entry = {
            "model": provenance.model,
            "options": provenance.options,
            "stamp": _stamp(files),
            "content": _content(files),
        }

    def write(self, session: Session) -> None:
        """Write the mask and its report. Raises OutputError.

        A mask never stands beside the report of another one: the report is first written as unfinished.
        """
        mask, report = self._case.mask, self._case.report
        with atomic_file(report) as temporary:
            temporary.write_text(json.dumps({_ENTRY: {**self._entry, "mask": None}}) + "\n", encoding="utf-8")
        try:
            session.export(mask)
        except OutputError:
            if not mask.exists():
                with contextlib.suppress(OSError):  # the first error is the useful one
                    report.unlink()
            raise
        seconds = {stage: round(value, 3) for stage, value in session.seconds.items()}
        entry = {**self._entry, "mask": _content(_files(mask)), "seconds": seconds}
        write_report(report, session, more={_ENTRY: entry})


def _read(report: Path) -> dict[str, Any] | None:
    """The entry of the prediction in a report; None if there is none."""
    try:
        if report.stat().st_size > _LARGEST_REPORT:
            return None
        entry = json.loads(report.read_text(encoding="utf-8"))[_ENTRY]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _files_of(case: CohortCase) -> list[Path]:
    """The files of a case, of all its sequences."""
    return [file for path in (case.path, *case.further) for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not is_hidden(file, path))


def _stamp(files: Iterable[Path]) -> str:
    """A hash of the sizes and times of files: quick, and it differs after any usual change."""
    status = [file.stat() for file in files]
    return _hash(f"{entry.st_size} {entry.st_mtime_ns};".encode() for entry in status)


def _content(files: Iterable[Path]) -> str:
    """A hash of the bytes of files, without their names, which may be a patient's."""
    return _hash(bytes.fromhex(disk.digest(file)) for file in files)


def _hash(parts: Iterator[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
