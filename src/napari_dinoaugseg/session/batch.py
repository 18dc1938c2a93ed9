"""A saved model, loaded once and used on one case after the other; and the state of its results on disk."""

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
from napari_dinoaugseg.session.saved_model import require_fitting
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder


class SavedModel:
    """A model file with the encoder that it needs.

    Args:
        path: what ``segment --model-out`` or the panel wrote.
        config: where to compute, and with which files.
        notify: gets sentences for the person.
    """

    def __init__(self, path: Path, config: ComputeConfig | None = None, *, notify: Notify = lambda _: None) -> None:
        self.path = path
        self._config, self._notify = config or ComputeConfig(), notify
        self._loaded: tuple[Checkpoint, Encoder] | None = None

    def load(self) -> None:
        """Read the model and its encoder on the first call.

        Raises:
            CheckpointError: no model file, damaged, or of another encoder than the weights are.
            WeightsError, DeviceError: the encoder's weights or the device are not available.
        """
        self._parts()

    def session(self, case: Case, window: str | None = None) -> Session:
        """A session that is ready to predict the case.

        Args:
            case: what is predicted.
            window: another intensity window than the model was trained with; None = the model's.

        Raises:
            CheckpointError, WeightsError, DeviceError: as :meth:`load`.
            SettingsError: the window does not suit the case.
        """
        checkpoint, encoder = self._parts()
        session = Session(case, config=self._config, encoder=encoder, notify=self._notify)
        session.use_model(checkpoint, self.path, window=window)
        return session

    @property
    def preset(self) -> str:
        """The preset with which the model was trained. Raises as :meth:`load`."""
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
    """A hash (hex) of the bytes of a model file. Raises CheckpointError when it cannot be read."""
    try:
        return disk.digest(path)
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else disk.reason(error)
        msg = f"{path}: the model cannot be opened: {reason}. Check the path."
        raise CheckpointError(msg) from error


# Results on disk: masks with a report that names the model and the files they come from.


_LARGEST_REPORT = 64 * 2**20  # bytes
_ENTRY = "prediction"


class ResultState(StrEnum):
    """The state of a case's results on disk."""

    OPEN = "open"  # nothing, or an unfinished attempt
    PRESENT = "present"  # mask and report, of the same model, options and files
    CHANGED = "changed"  # the same, but somebody changed the mask since
    OTHER = "other"  # of another model, other options, other files, or without a report


@dataclass(frozen=True)
class Provenance:
    """The source of a mask, besides its case.

    Attributes:
        model: a hash of the model file.
        options: a hash of what else decides the mask (plane, component, series, window).
    """

    model: str
    options: str


def look(case: CohortCase, provenance: Provenance) -> tuple[ResultState, str]:
    """The state of a case's results and, when they come from something else, the difference.

    A case whose files have the sizes and times of the report counts as the same; otherwise their bytes are
    compared, so that a copied cohort counts as the same and a corrected header does not.
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
    files = _files(case.path)
    if entry.get("stamp") != _stamp(files) and entry.get("content") != _content(files):
        return ResultState.OTHER, "of a case that has changed since"
    if entry["mask"] != _content(_files(case.mask)):
        return ResultState.CHANGED, "its mask was changed since"
    return ResultState.PRESENT, ""


def require_none_else(found: Iterable[tuple[CohortCase, ResultState, str]], out: Path) -> None:
    """Refuse to mix: raise OutputError when ``out`` holds masks that come from something else."""
    others = [(case, why) for case, state, why in found if state is ResultState.OTHER]
    if others:
        names = listed([case.mask.name for case, _ in others])
        reasons = ", ".join(sorted({why for _, why in others}))
        msg = f"{out}: {names} {'is there' if len(others) == 1 else 'are there'} already, {reasons}."
        raise OutputError(msg, Hint.REPLACE_MASKS)


class ResultWriter:
    """Writes the results of one case; made before the case is opened.

    Args:
        case: the case and its places.
        provenance: what its mask comes from.

    Raises:
        OSError: the case's files cannot be read.
    """

    def __init__(self, case: CohortCase, provenance: Provenance) -> None:
        self._case = case
        files = _files(case.path)
        self._entry = {
            "model": provenance.model,
            "options": provenance.options,
            "stamp": _stamp(files),
            "content": _content(files),
        }

    def write(self, session: Session) -> None:
        """Write the mask and its report.

        A mask never lies beside a report of something else: before it is written, its report marks it as unfinished.

        Raises:
            OutputError: the system refused to write.
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
    """The prediction's entry of a report; None if the file is not one of ours."""
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


# One case after the other with one model, in every process that predicts a cohort.


@dataclass(frozen=True)
class BatchPlan:
    """How every case of a cohort is predicted; plain values, for it travels to other machines.

    Attributes:
        model: the model file.
        fingerprint: a hash of that file, see `fingerprint_of`.
        plane: slicing plane, by name; None = the one with the finest pixels.
        series: which DICOM series.
        component: which time point or channel.
        window: of intensities; None = the one that the model was trained with.
        compute: where to compute, and with which files.
    """

    model: Path
    fingerprint: str
    plane: str | None = None
    series: str | None = None
    component: int | None = None
    window: str | None = None
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    @property
    def provenance(self) -> Provenance:
        """The source of the masks."""
        options = json.dumps([self.plane, self.series, self.component, self.window])
        return Provenance(self.fingerprint, hashlib.blake2b(options.encode(), digest_size=16).hexdigest())


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case.

    Attributes:
        reason: why it failed, in one line; None when mask and report are written.
        seconds: that it took.
        notices: sentences that a person should read.
    """

    reason: str | None
    seconds: float
    notices: tuple[str, ...] = ()


class Batch:
    """A model, loaded once, and the cases that it is used on."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._notices: list[str] = []
        self._model = SavedModel(plan.model, plan.compute, notify=self._notices.append)

    def load(self) -> None:
        """Load model and encoder on the first call.

        Raises:
            CheckpointError: the model cannot be used, or is not the one that was planned with.
            WeightsError, DeviceError, SettingsError: as for a session.
        """
        if fingerprint_of(self._plan.model) != self._plan.fingerprint:
            msg = f"{self._plan.model}: this is not the model that the prediction began with. Start again."
            raise CheckpointError(msg)
        self._model.load()

    def predict(self, case: CohortCase) -> Outcome:
        """Predict a case and write its mask and report. Never raises: a broken case must not stop the others."""
        started = time.monotonic()
        reason: str | None = None
        notices: list[str] = []
        try:
            self._predict(case, notices)
        except DinoAugSegError as error:
            reason = error.message
        except Exception as error:  # whatever it is, the other cases can do without this one
            reason = f"{type(error).__name__}: {error}"
        collected = [*self._notices, *notices]
        self._notices.clear()
        return Outcome(one_line(reason) if reason is not None else None, time.monotonic() - started, tuple(collected))

    def _predict(self, place: CohortCase, notices: list[str]) -> None:
        plan = self._plan
        # Opened first: its errors are the clearest about a file.
        case = open_case(place.path, plane=plan.plane, series=plan.series, component=plan.component)
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
    """The batch of this process: a worker keeps its model from one case to the next."""
    return Batch(plan)


def predict_here(cases: Iterable[CohortCase], plan: BatchPlan) -> Generator[tuple[CohortCase, Outcome], None, None]:
    """Predict one case after the other in this process.

    Raises:
        CheckpointError, WeightsError, DeviceError, SettingsError: nothing can be predicted with this model here.
    """
    batch = Batch(plan)
    batch.load()
    for case in cases:
        yield case, batch.predict(case)
