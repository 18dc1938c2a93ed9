"""A project: many cases, one model.

A folder holds all of it except the images:

```
project.json                  classes, settings, the trainings, the name of the model; replaced in one step
model_<hash>.safetensors      the model
lock                          held by the program that may write
cases/001/case.json           where a case lies, how it is opened, and what is known of its pixels
cases/001/session.json, …     its labels, as `session.store` keeps those of a session
removed/                      cases that were removed, with their labels
```

The cases are the folders below `cases`: a second list could differ from them. Nothing here but
`case.json` holds the path of an image, and no pixels are copied. A program that is killed at any moment leaves the last
state of each file or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import Case, MaskOptions, Plane, open_case
from napari_dinoaugseg.case.recorded import CaseRecord, RecordedCase, require_same
from napari_dinoaugseg.case.sequences import ONE, in_words, mismatch, same_sequences
from napari_dinoaugseg.errors import (
    CaseError,
    Hint,
    LabelError,
    OutputError,
    ProjectError,
    SettingsError,
    TrainingError,
)
from napari_dinoaugseg.learning.events import Cancel, Event, Report, ignore
from napari_dinoaugseg.learning.metrics import mean_of
from napari_dinoaugseg.learning.query import CaseFacts, ProjectSuggestion, Suggestion, suggest_in_project
from napari_dinoaugseg.learning.settings import Settings, unknown_settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.compute import ComputeConfig, MakeCompute, Notify
from napari_dinoaugseg.session.index import LAYERS, DamagedIndexError, Index, Round, Snapshot, model_name, read_index
from napari_dinoaugseg.session.labels import BookContent, LabelBook, LabelClass, digest_of, from_plain, to_plain
from napari_dinoaugseg.session.local import local_engine
from napari_dinoaugseg.session.session import LabelledCase, Recipe, Session
from napari_dinoaugseg.session.store import SessionStore

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder

PROJECT_NAME = "project.json"
CASE_NAME = "case.json"
SCHEMA = 1
"""Increase it when the format changes, and keep reading older ones."""
_SEQUENCES_SCHEMA = 2
"""Of a case of several sequences, which earlier versions would take for pictures."""

_LARGEST = 256 * 2**20  # bytes of a JSON file
_DIGITS = 3  # of the number of a case


@dataclass
class ProjectCase:
    """A case of a project.

    Attributes:
        number: from 1; it is never given to another case, and names the case where its own name must not stand.
        name: of its file or folder, for the person.
        path: of its file or folder.
        files: the files of its sequences, or of a list of pictures or DICOM files; empty for a file or folder.
        plane, series, component, masks, every: how it is opened, as for `open_case`.
        record: what is known of its pixels.
        is_done: whether the person has finished it.
        seconds: of work on it, idle time left out.
        predicted_by: name of the model file that predicted all its open slices; None = not predicted.
        labels_from: hash of the label file that was loaded last; None = its labels were painted.
        exported: hashes of the masks that were written of it, the newest last: a mask without one of these is another
            person's work.
    """

    number: int
    name: str
    path: Path
    record: CaseRecord
    files: tuple[Path, ...] = ()
    series: str | tuple[str | None, ...] | None = None
    component: int | None = None
    masks: MaskOptions = field(default_factory=MaskOptions)
    every: int | None = None
    is_done: bool = False
    seconds: float = 0.0
    predicted_by: str | None = None
    labels_from: str | None = None
    exported: tuple[str, ...] = ()

    @property
    def identifier(self) -> str:
        """A name without the patient's: ``case_001``."""
        return f"case_{self.number:0{_DIGITS}d}"

    def to_plain(self, folder: Path) -> dict[str, Any]:
        """As JSON values; ``folder`` is the project's, from which paths are also kept relative."""
        return {
            "schema": _SEQUENCES_SCHEMA if self.record.sequences else SCHEMA,
            "name": self.name,
            "path": str(self.path),
            "relative": _relative(self.path, folder),
            "files": [str(file) for file in self.files],
            "series": self.series,
            "component": self.component,
            "masks": asdict(self.masks),
            "every": self.every,
            "done": self.is_done,
            "seconds": round(self.seconds, 1),
            "predicted_by": self.predicted_by,
            "labels_from": self.labels_from,
            "exported": list(self.exported),
            "record": self.record.to_plain(),
        }

    @classmethod
    def from_plain(cls, number: int, values: Mapping[str, Any], folder: Path) -> ProjectCase:
        """Read what :meth:`to_plain` wrote. Raises KeyError, TypeError, ValueError if it is damaged."""
        path, relative = Path(values["path"]), values["relative"]
        if not path.exists() and relative is not None and (folder / relative).exists():
            path = Path(os.path.normpath(folder / relative))  # project and images were moved together
        return cls(
            number=number,
            name=str(values["name"]),
            path=path,
            record=CaseRecord.from_plain(values["record"]),
            files=_files_from_plain(values["files"], Path(values["path"]), path),
            series=_series_from_plain(values["series"]),
            component=None if values["component"] is None else int(values["component"]),
            masks=MaskOptions(**values["masks"]),
            every=None if values.get("every") is None else int(values["every"]),  # older projects have none
            is_done=bool(values["done"]),
            seconds=float(values["seconds"]),
            predicted_by=None if values["predicted_by"] is None else str(values["predicted_by"]),
            labels_from=None if values["labels_from"] is None else str(values["labels_from"]),
            exported=tuple(map(str, values.get("exported", ()))),  # projects of the first days have none
        )


@dataclass(frozen=True)
class CaseStatus:
    """How far a case is.

    Attributes:
        n_slices: of the case.
        n_manual: slices labelled by hand.
        n_accepted: slices with accepted predictions.
        n_predicted: slices with predictions that nobody accepted yet.
        confidence: mean of the predictions, 0 to 1; None without one.
        labelled: numbers of the labelled slices.
        problems: a sentence for each part of its labels that could not be read.
    """

    n_slices: int
    n_manual: int
    n_accepted: int
    n_predicted: int
    confidence: float | None
    labelled: tuple[int, ...]
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, book: LabelBook, problems: Sequence[str] = ()) -> CaseStatus:
        """The status of a label book."""
        content = book.content()
        layers = {name: set(content.layers.get(name, ())) for name in LAYERS}
        return cls._counted(book.n_slices, layers, content.confidence, problems)

    @classmethod
    def of_index(cls, index: Index, n_slices: int) -> CaseStatus:
        """The status by the index of a saved session, which names the file of each slice."""
        names = index.slices or {}
        layers = {layer: {i for i, files in names.items() if layer in files} for layer in LAYERS}
        return cls._counted(n_slices, layers, index.confidence, ())

    @classmethod
    def _counted(
        cls, n_slices: int, layers: Mapping[str, set[int]], confidence: Mapping[int, float], problems: Sequence[str]
    ) -> CaseStatus:
        manual = layers["manual"]
        accepted = layers["accepted"] - manual
        predicted = layers["predicted"] - manual - accepted
        sure = mean_of(confidence[i] for i in sorted(predicted) if i in confidence)
        labelled = tuple(sorted(manual | accepted))
        return cls(n_slices, len(manual), len(accepted), len(predicted), sure, labelled, tuple(problems))


@dataclass(frozen=True)
class Training:
    """A training of the project.

    Attributes:
        when: it ended, with the time zone.
        labels: hash of the labels that it learned from.
        slices: numbers of the labelled slices, by number of the case.
        steps: optimisation steps.
        final_loss: smoothed training loss at the end.
        seconds: by stage.
        agreement: Dice of the predictions before it with the person's corrections in the case that was open.
    """

    when: datetime
    labels: str
    slices: Mapping[int, tuple[int, ...]]
    steps: int
    final_loss: float | None
    seconds: Mapping[str, float]
    agreement: float | None = None


class Project:
    """A project in its folder.

    One thread at a time opens cases, trains and predicts; another one may meanwhile save labels and settings.

    Args:
        folder: of the project; it is created if it does not exist.
        settings: of a new project; None = the defaults, or those of the project on disk.
        config: where to compute, and with which files.
        make_compute: makes the engines, as for a session.
        notify: receives sentences for the person.

    Attributes:
        cases: in the order in which they were added.
        plane: in which volumes are added in the panel; None = the plane with the smallest pixels, for each.
        classes: shared by all cases.
        settings: of the next training.
        trainings: oldest first.
        learned: digests of the labels that the model has learned from, see `digest_of`.
        reason: why it cannot be changed, a sentence; empty if it can.

    Raises:
        ProjectError: the folder holds something else, or a project that this version cannot read.
        OutputError: the folder cannot be created.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Settings | None = None,
        config: ComputeConfig | None = None,
        make_compute: MakeCompute = local_engine,
        notify: Notify = lambda _: None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.config = config or ComputeConfig()
        self._make_compute = make_compute
        self.encoder: Encoder | None = None
        self._notify = notify
        self._writing = threading.RLock()
        self._opened: tuple[int, Case] | None = None  # the pixels of one case at a time
        self._written: dict[int, dict[str, Any]] = {}  # what `case.json` of each case holds
        self._labels: dict[int, tuple[int, LabelledCase]] = {}  # labels of a case, by the time of its index
        _require_project(self.folder)
        self._was_there = self.folder.exists()
        self._is_new = not ((self.folder / "cases").exists() or (self.folder / PROJECT_NAME).exists())
        try:
            (self.folder / "cases").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{self.folder}: the project's folder cannot be created ({disk.reason(error)}). Choose another place."
            raise OutputError(msg) from error
        self._lock = FileLock(self.folder / "lock", blocking=False, thread_local=False)
        self.reason = self._acquire()
        self.classes: list[LabelClass] = []
        self.settings = settings or Settings()
        self.trainings: list[Training] = []
        self.learned: frozenset[str] = frozenset()
        self.plane: str | None = None
        self._model: Path | None = None
        self._model_recipe: Recipe | None = None
        self.cases: list[ProjectCase] = []
        try:
            self._load(settings)
            self.cases = list(self._found_cases())
            if self.is_writable:
                self._sweep()
                if not (self.folder / PROJECT_NAME).exists():
                    self.save()
        except BaseException:
            self.discard()
            raise

    # --- the folder -------------------------------------------------------------------------------------------------

    def _acquire(self) -> str:
        try:
            self._lock.acquire()
        except Timeout:
            return "This project is open in another window or command. Here it can only be looked at."
        except OSError as error:
            return f"The project's folder cannot be written ({disk.reason(error)}): it can only be looked at."
        return ""

    def _sweep(self) -> None:
        """Delete unfinished files of a program that was killed; whoever holds the lock is the only one that writes."""
        for pattern in (f".{PROJECT_NAME}.*", ".model_*", f"cases/*/.{CASE_NAME}.*"):
            for path in self.folder.glob(pattern):
                if disk.PART in path.name:
                    with contextlib.suppress(OSError):  # the next program that opens the project tries again
                        path.unlink()

    @property
    def is_writable(self) -> bool:
        """Whether this is the program that may change it."""
        return self._lock.is_locked

    def close(self) -> None:
        """Write what was learned about the cases, and release the lock."""
        if self.is_writable:
            for case in self.cases:
                self.save_case(case)
        self._lock.release()
        self._opened = None

    def discard(self) -> None:
        """Release the lock, and delete what this object created if the project is new: what it was made for failed."""
        is_ours = self._is_new and self.is_writable
        self._lock.release()
        self._opened = None
        if not is_ours:
            return
        shutil.rmtree(self.folder / "cases", ignore_errors=True)
        for path in (self.folder / PROJECT_NAME, self.folder / "lock", *self.folder.glob("model_*.safetensors")):
            with contextlib.suppress(OSError):
                path.unlink()
        if not self._was_there:
            with contextlib.suppress(OSError):  # somebody has put something into it
                self.folder.rmdir()

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_writable(self) -> None:
        if not self.is_writable:
            msg = f"{self.folder}: {self.reason or 'The project is closed.'}"
            raise ProjectError(msg)

    def save(self) -> None:
        """Write `project.json`. Raises OutputError, ProjectError."""
        with self._writing:
            self._save()

    def _save(self) -> None:
        self._require_writable()
        content = {
            "schema": SCHEMA,
            "classes": to_plain(self.classes),
            "plane": self.plane,
            "settings": self.settings.model_dump(mode="json"),
            "model": self.model_file,
            "model_settings": None
            if self._model_recipe is None
            else self._model_recipe.settings.model_dump(mode="json"),
            "learned": sorted(self.learned),
            "trainings": [_training_to_plain(training) for training in self.trainings],
        }
        self._write(self.folder / PROJECT_NAME, content)

    def save_case(self, case: ProjectCase) -> None:
        """Write `case.json` of a case if it has changed. Raises OutputError, ProjectError."""
        with self._writing:
            content = json.loads(json.dumps(case.to_plain(self.folder)))  # tuples become lists, as in the file
            if self._written.get(case.number) != content:
                self._require_writable()
                self._write(self.case_folder(case) / CASE_NAME, content)
                self._written[case.number] = content

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        try:
            disk.write(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode())
        except OSError as error:
            msg = f"{path}: the project could not be saved ({disk.reason(error)}). Free some space and try again."
            raise OutputError(msg) from error

    def case_folder(self, case: ProjectCase) -> Path:
        """The folder with the labels of a case."""
        return self.folder / "cases" / f"{case.number:0{_DIGITS}d}"

    def _load(self, settings: Settings | None) -> None:
        path = self.folder / PROJECT_NAME
        if not path.exists():
            return
        values = _read_json(path)
        _require_known_settings(path, values)
        try:
            self.classes = from_plain(values["classes"])
            self.trainings = [_training_from_plain(entry) for entry in values["trainings"]]
            self.learned = frozenset(str(digest) for digest in values.get("learned", ()))  # earlier versions have none
            plane = values.get("plane")  # projects of earlier versions have none
            self.plane = None if plane is None else Plane(plane).value
            if settings is None:
                self.settings = Settings.checked(values["settings"])
            if values["model"] is not None:
                model = self.folder / Path(values["model"]).name
                if not model.is_file():
                    msg = f"{model}: the model of this project is missing; train again. The labels are complete."
                    self._notify(msg)
                else:
                    self._model = model
                    self._model_recipe = Recipe(Settings.checked(values["model_settings"]), self.config.weights)
        except (KeyError, TypeError, ValueError, AttributeError, LabelError, SettingsError) as error:
            msg = (
                f"{path}: this file is damaged ({error}). The labels of the cases are still there: delete the file, "
                "open the project again, and train."
            )
            raise ProjectError(msg) from error

    def _found_cases(self) -> Iterator[ProjectCase]:
        for folder in sorted((self.folder / "cases").iterdir()):
            if not (folder.name.isdigit() and (folder / CASE_NAME).exists()):
                continue  # a case whose adding was interrupted
            values = _read_json(folder / CASE_NAME)
            try:
                case = ProjectCase.from_plain(int(folder.name), values, self.folder)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                msg = f"{folder / CASE_NAME}: this file is damaged ({error}). Restore it from a copy of the project."
                raise ProjectError(msg) from error
            self._written[case.number] = values
            yield case

    # --- cases ------------------------------------------------------------------------------------------------------

    def add(
        self,
        path: Path | Sequence[Path],
        *,
        plane: str | None = None,
        series: str | Sequence[str | None] | None = None,
        component: int | None = None,
        masks: MaskOptions | None = None,
        every: int | None = None,
        sequences: Sequence[str] = (),
        name: str = "",
    ) -> tuple[ProjectCase, bool]:
        """Add a case; arguments as for `open_case`. Volumes and pictures cannot be mixed, nor other sequences.

        ``name`` is for the person, in place of that of its file or folder, which several series may share.

        Returns:
            The case, and whether it is new: the same pixels in the same plane are one case.

        Raises:
            CaseError, SettingsError: it cannot be opened, or is of another kind or has other sequences than the cases
                of the project.
            OutputError, ProjectError: it cannot be saved.
        """
        self._require_writable()
        opened = open_case(
            path,
            plane=plane,
            series=series,
            component=component,
            masks=masks,
            every=every,
            sequences=sequences,
        )
        self._require_sequences(opened)
        for notice in opened.notices:
            self._notify(f"{opened.name}: {notice}")
        record = CaseRecord.of(opened)
        for case in self.cases:
            if (case.record.fingerprint, case.record.plane) == (record.fingerprint, record.plane):
                return case, False
            if case.record.kind != record.kind:
                msg = f"{opened.path}: volumes and pictures cannot be learned together. Keep them in two projects."
                raise CaseError(msg)
        files = () if isinstance(path, str | Path) else tuple(Path(file).absolute() for file in path)
        case = ProjectCase(
            number=self._next_number(),
            name=name or opened.name,
            path=opened.path.absolute(),
            record=record,
            files=files if len(files) > 1 else (),
            series=series if series is None or isinstance(series, str) else tuple(series),
            component=component,
            masks=masks or MaskOptions(),
            every=every,
        )
        try:
            self.case_folder(case).mkdir(parents=True)
        except OSError as error:
            msg = f"{self.case_folder(case)}: the case cannot be added ({disk.reason(error)}). Free some space."
            raise OutputError(msg) from error
        self.save_case(case)
        self.cases.append(case)
        self._opened = (case.number, opened)
        return case, True

    def _require_sequences(self, opened: Case) -> None:
        """Raise CaseError unless a case has the sequences of the cases of the project, in the same order."""
        if not self.cases:
            return
        wanted, there = tuple(self.cases[0].record.sequences) or ONE, tuple(opened.sequences)
        if not same_sequences(there, wanted):
            has = mismatch(wanted, there, opened.name)
            msg = f"{opened.path}: the cases of {self.folder.name} have {in_words(wanted)}; {has}."
            raise CaseError(msg, Hint.SEQUENCES_OF_PROJECT)

    def _next_number(self) -> int:
        """A number that no case of the project ever had."""
        used = [folder.name for name in ("cases", "removed") for folder in (self.folder / name).glob("*")]
        return 1 + max((int(name.split("_")[0]) for name in used if name.split("_")[0].isdigit()), default=0)

    def remove(self, case: ProjectCase) -> Path:
        """Remove a case; its labels are kept in the folder that is returned. Raises OutputError, ProjectError."""
        self._require_writable()
        source = self.case_folder(case)
        target = self.folder / "removed" / f"{source.name}_{datetime.now(UTC):%Y%m%d-%H%M%S}"
        try:
            target.parent.mkdir(exist_ok=True)
            source.replace(target)
        except OSError as error:
            msg = f"{source}: the case cannot be removed ({disk.reason(error)}). Close it in other windows."
            raise OutputError(msg) from error
        self.cases.remove(case)
        return target

    def opened(self, case: ProjectCase) -> Case:
        """Open a case; the pixels of the last one are kept until another is opened.

        Raises:
            MissingCaseError: its file is missing, and is not found below the project either.
            CaseError: it cannot be read, or has other pixels than those that were labelled.
        """
        known = self._opened  # read once: another thread may exchange it
        if known is not None and known[0] == case.number:
            return known[1]
        self._opened = None  # before the next one is read
        path, files = self._located(case)
        opened = self._open(case, path, files)
        self._opened = (case.number, opened)
        if path != case.path:
            self._notify(f"{case.name} was found at {path}.")
        if (path, files) != (case.path, case.files):
            case.path, case.files = path, files
            if self.is_writable:
                self.save_case(case)
        return opened

    @staticmethod
    def _open(case: ProjectCase, path: Path, files: Sequence[Path]) -> Case:
        """Open a case at a place. Raises CaseError unless it has the same pixels."""
        record = case.record
        opened = open_case(
            list(files) or path,
            plane=record.plane,
            series=case.series,
            component=case.component,
            masks=case.masks,
            every=case.every,
            sequences=tuple(record.sequences),
        )
        require_same(opened, record, path)
        return opened

    def _located(self, case: ProjectCase) -> tuple[Path, tuple[Path, ...]]:
        """Where a case and its files lie; each sequence is looked for by its own name."""
        if case.path.exists() and all(file.exists() for file in case.files):
            return case.path, case.files
        if case.record.sequences and case.files:
            found = tuple(file if file.exists() else self._below(file, case) for file in case.files)
            return found[0], found
        return self._below(case.path, case), ()

    def _below(self, path: Path, case: ProjectCase) -> Path:
        """A file or folder of this name below the project. Raises MissingCaseError."""
        for folder, folders, files in os.walk(self.folder):
            if path.name in (*folders, *files):
                return Path(folder) / path.name
        msg = f"{path}: the image of {case.name} is missing. Its labels are safe."
        raise MissingCaseError(msg, case.name)

    def relocate(self, case: ProjectCase, path: Path) -> None:
        """Take the file of a case from another place. Raises CaseError unless it has the same pixels.

        Args:
            case: of the project.
            path: its file or folder. Of several sequences that of the first one, beside which the others lie under
                their names, or the folder that holds them all.
        """
        self._require_writable()
        path = path.absolute()
        files: tuple[Path, ...] = ()
        if case.record.sequences and case.files:
            first, *others = case.files
            path = path / first.name if (path / first.name).exists() else path
            files = (path, *(path.parent / other.name for other in others))
        opened = self._open(case, path, files)
        case.path, case.files = path, files
        self._opened = (case.number, opened)
        self.save_case(case)

    def recorded(self, case: ProjectCase) -> RecordedCase:
        """The case without its pixels, which are read when they are needed."""
        return RecordedCase(case.record, case.name, case.path, lambda: self.opened(case))

    def find(self, name: str) -> ProjectCase:
        """The case with a name, number or identifier. Raises ProjectError: none or several."""
        found = [case for case in self.cases if name in (case.name, str(case.number), case.identifier)]
        if len(found) != 1:
            why = "has no case" if not found else "has several cases"
            msg = f"{self.folder.name} {why} '{name}'. Name it by its number, see the list of cases."
            raise ProjectError(msg)
        return found[0]

    # --- labels -----------------------------------------------------------------------------------------------------

    def store(self, case: ProjectCase) -> SessionStore:
        """The labels of a case on disk; close it. Raises OutputError, SessionError.

        Whoever may not write the project only reads them, and keeps nobody from writing.
        """
        return self._store(case, locks=self.is_writable)

    def _store(self, case: ProjectCase, *, locks: bool) -> SessionStore:
        return SessionStore(self.case_folder(case), self.recorded(case), keeps_model=False, locks=locks)

    def _saved(self, case: ProjectCase) -> tuple[Snapshot, list[str]]:
        """As :meth:`SessionStore.load`, while another thread may open the case."""
        return self._store(case, locks=False).load()

    def session(self, case: ProjectCase) -> tuple[Session, SessionStore, list[str]]:
        """Open a case with its labels and the project's model.

        Returns:
            The session; its store, to save to and to close; and a sentence for each part that could not be read.

        Raises:
            MissingCaseError, CaseError: as :meth:`opened`.
            OutputError, SessionError: as for a `SessionStore`.
        """
        session, store, _, problems = self._session(case)
        return session, store, problems

    def _session(self, case: ProjectCase) -> tuple[Session, SessionStore, Snapshot, list[str]]:
        session = self._new_session(self.opened(case))
        store = self.store(case)
        try:
            snapshot, problems = store.load()
            session.resume(self.with_model(case, snapshot))
        except BaseException:
            store.close()
            raise
        return session, store, snapshot, problems

    def _new_session(self, case: Case) -> Session:
        """A session with the project's settings and encoder, and without labels."""
        return Session(
            case,
            self.settings,
            self.config,
            make_compute=self._make_compute,
            encoder=self.encoder,
            notify=self._notify,
        )

    def with_model(self, case: ProjectCase, snapshot: Snapshot) -> Snapshot:
        """The saved state of a case with classes, settings and model of the project."""
        classes = {entry.number: entry for entry in (*snapshot.book.classes, *self.classes)}
        book = replace(snapshot.book, classes=tuple(classes[number] for number in sorted(classes)))
        if self.classes:  # empty if its file was lost: then the classes come back from the cases
            book = self._without(classes.keys() - {entry.number for entry in self.classes}, case, book)
        recipe = self._model_recipe
        return replace(
            snapshot,
            book=book,
            settings=self.settings,
            model=self._model,
            model_settings=None if recipe is None else recipe.settings,
        )

    def _without(self, gone: Collection[int], case: ProjectCase, content: BookContent) -> BookContent:
        """Labels without classes that were removed from the project, unless slices are labelled with them here."""
        if not gone:
            return content
        recorded = self.recorded(case)
        book = LabelBook(recorded.slice_shape, recorded.n_slices)
        book.take_content(content)
        for number in gone:
            if not any((book.truth(index) == number).any() for index in book.labelled):
                book.remove_class(number)
        return book.content()

    def keep(
        self, case: ProjectCase, session: Session, store: SessionStore, view: Mapping[str, Any] | None = None
    ) -> None:
        """Save the labels of a session; its classes become those of the project. Raises OutputError, SessionError."""
        self.keep_snapshot(case, session.snapshot(view), store)

    def keep_snapshot(
        self,
        case: ProjectCase,
        snapshot: Snapshot,
        store: SessionStore,
        before: Collection[LabelClass] | None = None,
    ) -> dict[int, str]:
        """As :meth:`keep`, in any thread.

        Args:
            case: of the snapshot.
            snapshot: the state of its session.
            store: of the case.
            before: the classes of the session when it was opened, or last saved. What was changed since then is changed
                in the project too, and nothing else, which another case may have changed meanwhile. A class that was
                removed since then stays if labels of another case hold it. None = only add and change classes.

        Returns:
            The numbers of the classes that were removed and that the project keeps for the sake of another case, with
            the name of that case.
        """
        store.save(snapshot)
        now = {entry.number: entry for entry in snapshot.book.classes}
        news = {number: entry for number, entry in now.items() if entry not in (before or ())}
        removed = {entry.number for entry in before or ()} - set(now)
        elsewhere = self._classes_elsewhere(case) if removed else {}
        with self._writing:
            merged = {entry.number: entry for entry in self.classes if entry.number not in removed - set(elsewhere)}
            merged.update(news)
            classes = [merged[number] for number in sorted(merged)]
            if classes != self.classes:
                self.classes = classes
                self.save()
            self.save_case(case)
        return {number: elsewhere[number] for number in sorted(removed & set(elsewhere))}

    def _classes_elsewhere(self, case: ProjectCase) -> dict[int, str]:
        """The numbers of classes in the labels of the other cases, each with the name of one of them."""
        found: dict[int, str] = {}
        names = {other.number: other.name for other in self.cases}
        for number, other in self.labelled(but=case).items():
            for labels in other.labels.values():
                found.update({int(value): names[number] for value in np.unique(labels) if value not in found})
        return found

    def load_labels(self, case: ProjectCase, path: Path, slices: Sequence[int] | None = None) -> bool:
        """Load the labels of a case from a file; see :meth:`Session.load_labels`.

        A file that was loaded before is not loaded again: what was corrected since then stays.

        Returns:
            Whether it was loaded.

        Raises:
            LabelError, CaseError, SessionError, OutputError: nothing is changed.
        """
        self._require_writable()
        digest = content_digest(path)
        if case.labels_from == digest:
            return False
        session, store, problems = self.session(case)
        try:
            for problem in problems:
                self._notify(f"{case.name}: {problem}")
            session.load_labels(path, slices)
            case.labels_from = digest
            self.keep(case, session, store)
        finally:
            store.close()
        return True

    def status(self, case: ProjectCase, *, quick: bool = False) -> CaseStatus:
        """How far a case is, from its labels on disk.

        Args:
            case: of the project.
            quick: read only the index of its labels: in a millisecond, but blind to damaged label files.
        """
        found = self._indexed_status(case) if quick else None
        if found is None:
            book, problems = self.book(case)
            found = CaseStatus.of(book, problems)
        return found

    def _indexed_status(self, case: ProjectCase) -> CaseStatus | None:
        """The status by the index of the labels; None if that is missing or damaged."""
        try:
            index, problems = read_index(self.case_folder(case))
        except DamagedIndexError:
            return None
        if problems or index.slices is None:
            return None
        return CaseStatus.of_index(index, case.record.n_slices)

    def book(self, case: ProjectCase) -> tuple[LabelBook, list[str]]:
        """The labels of a case on disk, and a sentence for each part that could not be read."""
        snapshot, problems = self._saved(case)
        recorded = self.recorded(case)
        book = LabelBook(recorded.slice_shape, recorded.n_slices)
        book.take_content(snapshot.book)
        return book, problems

    def labelled(self, but: ProjectCase | None = None) -> dict[int, LabelledCase]:
        """The labelled slices of the cases on disk, by the number of the case; ``but`` is left out."""
        found = {}
        for case in self.cases:
            if but is None or case.number != but.number:
                entry = self._labelled(case)
                if entry.labels:
                    found[case.number] = entry
        return found

    def _labelled(self, case: ProjectCase) -> LabelledCase:
        """The labels of a case, read again when its index has changed."""
        index = self.case_folder(case) / "session.json"
        changed = index.stat().st_mtime_ns if index.exists() else 0
        known = self._labels.get(case.number)
        if known is None or known[0] != changed:
            book, problems = self.book(case)
            for problem in problems:
                self._notify(f"{case.name}: {problem}")
            labels = {i: book.truth(i) for i in book.labelled}
            known = changed, LabelledCase(self.recorded(case), labels, book.classes)
            self._labels[case.number] = known
        return known[1]

    # --- learning ---------------------------------------------------------------------------------------------------

    @property
    def is_trained(self) -> bool:
        """Whether there is a model."""
        return self._model is not None

    @property
    def model_file(self) -> str | None:
        """The name of the model's file, which differs for every model; None without one."""
        return self._model.name if self._model is not None else None

    @property
    def model(self) -> Checkpoint | None:
        """The model. Raises CheckpointError if its file is damaged."""
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import load_checkpoint

        return None if self._model is None else load_checkpoint(self._model)

    def export_model(self, path: Path) -> None:
        """Save the model for other cases. Raises TrainingError without one, OutputError."""
        if self._model is None:
            msg = "No trained model to save. Train first."
            raise TrainingError(msg)
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import load_checkpoint, save_checkpoint

        names = {entry["number"]: entry for entry in to_plain(self.classes)}  # possibly renamed
        model = load_checkpoint(self._model)
        save_checkpoint(path, replace(model, classes=[names.get(entry["number"], entry) for entry in model.classes]))

    def is_current(self) -> bool:
        """Whether the model was trained with the present labels and settings."""
        if not self.trainings or self._model_recipe is None or self._model_recipe != self._next_recipe:
            return False
        return self.trainings[-1].labels == _digest(self.labelled())

    @property
    def _next_recipe(self) -> Recipe:
        return Recipe(self.settings, self.config.weights)

    def train(
        self, case: ProjectCase | None = None, session: Session | None = None, cancel: Cancel | None = None
    ) -> Generator[Event, None, Round]:
        """Train on the labelled slices of all cases, and save the model; continues it, see :meth:`Session.train`.

        The labels of the open session are copied at the call, those of the other cases are read from disk when the
        generator runs, which may be in another thread.

        Args:
            case: that is open, with labels that may not be saved yet; None = all labels are on disk.
            session: of that case.
            cancel: stops the training, and keeps the decoder trained so far.

        Raises:
            TrainingError: nothing is labelled, or only background.
            OutputError, ProjectError: the model cannot be saved.
        """
        self._require_writable()
        if case is None or session is None:
            labelled = self.labelled()
            if not labelled:
                msg = "No slice of any case is labelled. Label at least one slice, then train."
                raise TrainingError(msg)
            case = next(entry for entry in self.cases if entry.number in labelled)
            session = self._unopened_session(case)
        book = session.labels
        own = LabelledCase(self.recorded(case), {i: book.truth(i) for i in book.labelled}, book.classes)
        used = {case.number: own} if own.labels else {}

        def others() -> list[LabelledCase]:
            found = self.labelled(but=case)
            used.update(found)
            return list(found.values())

        return self._train(session, session.train(cancel, others, self.learned), used)

    def _train(
        self, session: Session, training: Generator[Event, None, Round], used: Mapping[int, LabelledCase]
    ) -> Generator[Event, None, Round]:
        done = yield from training
        self._take_model(session, used, done)
        return done

    def _unopened_session(self, case: ProjectCase) -> Session:
        """A session whose pixels are read only if features are missing."""
        session = self._new_session(self.recorded(case))
        session.resume(self.with_model(case, self._saved(case)[0]))
        return session

    def _take_model(self, session: Session, used: Mapping[int, LabelledCase], done: Round) -> None:
        """Save the model of a training. Raises OutputError."""
        entry = Training(
            datetime.now(UTC).astimezone(),
            _digest(used),
            {number: tuple(sorted(used[number].labels)) for number in sorted(used)},
            done.steps,
            done.final_loss,
            done.seconds,
            done.agreement,
        )
        digests = (digest_of(one.slices, i, labels) for one in used.values() for i, labels in one.labels.items())
        self.use_model_of(session, entry, digests)

    def use_model_of(self, session: Session, training: Training | None = None, learned: Iterable[str] = ()) -> None:
        """Save the model of a session, which may have been loaded from a file. Raises TrainingError, OutputError.

        Args:
            session: with the model.
            training: that made it; None = it was loaded.
            learned: digests of the labels that it learned from.
        """
        model, recipe = session.model, session.model_recipe
        if model is None or recipe is None:
            msg = "No trained model to save. Train first."
            raise TrainingError(msg)
        self.encoder = session.encoder
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import checkpoint_bytes

        content = checkpoint_bytes(model)
        path = self.folder / model_name(content)
        try:
            disk.write(path, content)
        except OSError as error:
            msg = f"{path}: the model could not be saved ({disk.reason(error)}). Free some space and train again."
            raise OutputError(msg) from error
        with self._writing:
            self._model, self._model_recipe, self.learned = path, recipe, frozenset(learned)
            if training is not None:
                self.trainings.append(training)
            self.save()
            for case in self.cases:
                self.save_case(case)
            for old in self.folder.glob("model_*.safetensors"):
                if old != path:
                    old.unlink(missing_ok=True)

    def predict(
        self, case: ProjectCase, *, report: Report = ignore, cancel: Cancel | None = None
    ) -> tuple[Session, list[str]]:
        """Predict the open slices of a case with the project's model, and save the masks.

        Returns:
            The session, for an export; and a sentence for each part of its labels that could not be read.

        Raises:
            TrainingError: no model is trained yet.
            CaseError, SessionError, OutputError: as :meth:`session`.
        """
        session, store, snapshot, problems = self._session(case)
        before = session.labels.classes
        try:
            for _ in session.predict(report=report, cancel=cancel):
                pass
            self.encoder = session.encoder
            if not cancel:
                case.predicted_by = self.model_file
            self.keep_snapshot(case, session.snapshot(snapshot.view), store, before)
        finally:
            store.close()
        return session, problems

    def suggest(
        self,
        count: int = 1,
        statuses: Mapping[int, CaseStatus] | None = None,
        held: tuple[ProjectCase, Session] | None = None,
    ) -> list[ProjectSuggestion]:
        """The slices worth labelling next, in cases that are not done, best first; see `suggest_in_project`.

        Args:
            count: how many.
            statuses: of the cases by number; None = as they are now.
            held: the case that is open and its session, whose labels may not be saved yet. Once there is a model, it is
                finished before another is suggested.
        """
        by_number = {case.number: case for case in self.cases}
        sessions = {} if held is None else {held[0].number: held[1]}
        known = statuses or {
            number: CaseStatus.of(sessions[number].labels) if number in sessions else self.status(case)
            for number, case in by_number.items()
        }

        def within(facts: CaseFacts, labelled: Collection[int]) -> Suggestion | None:
            if facts.number not in sessions:
                case = by_number[facts.number]
                sessions[facts.number] = self._new_session(self.recorded(case))
                sessions[facts.number].labels, _ = self.book(case)
            session = sessions[facts.number]
            return session.suggest(1, labelled)[0] if session.labels.confidence else None

        facts = [
            CaseFacts(
                case.number,
                case.record.n_slices,
                known[case.number].labelled,
                known[case.number].confidence,
                is_open=not case.is_done,
            )
            for case in by_number.values()
            if case.number in known  # another one may just have been added by another thread
        ]
        first = held[0].number if held is not None and self.is_trained else None
        return suggest_in_project(facts, count, within, first)


class MissingCaseError(CaseError):
    """The image of a case is not where it was.

    Attributes:
        name: of the case.
    """

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message, Hint.FIND_CASE, case=name)
        self.name = name


def is_project(folder: Path) -> bool:
    """Whether a folder is a project."""
    return (folder / PROJECT_NAME).is_file()


def _require_project(folder: Path) -> None:
    """Raise ProjectError for a folder with other contents."""
    if folder.is_file() or folder.is_symlink():
        msg = f"{folder}: a project is a folder, but this is a file or a link. Name a folder."
        raise ProjectError(msg)
    if folder.is_dir() and not is_project(folder) and not (folder / "cases").is_dir() and any(folder.iterdir()):
        msg = f"{folder}: this folder holds other files and is not a project. Name a new folder."
        raise ProjectError(msg)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(disk.read(path, _LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: this file is damaged or cannot be read ({error}). Restore it from a copy of the project."
        raise ProjectError(msg) from error
    if not isinstance(values, dict):
        msg = f"{path}: this is not a file of a project. Restore it from a copy of the project."
        raise ProjectError(msg)
    newest = _SEQUENCES_SCHEMA if path.name == CASE_NAME else SCHEMA
    if isinstance(values.get("schema"), int) and values["schema"] > newest:
        msg = (
            f"{path}: a newer version of napari-dinoaugseg saved this project. Update the program; nothing was changed."
        )
        raise ProjectError(msg)
    return values


def _require_known_settings(path: Path, values: Mapping[str, Any]) -> None:
    """Raise ProjectError for settings of a newer version."""
    for saved in (values.get("settings"), values.get("model_settings")):
        unknown = unknown_settings(saved) if isinstance(saved, dict) else []
        if unknown:
            msg = (
                f"{path}: this version of napari-dinoaugseg does not know the setting '{unknown[0]}', which a newer "
                "one saved. Update the program; nothing was changed."
            )
            raise ProjectError(msg)


def _digest(labelled: Mapping[int, LabelledCase]) -> str:
    """A hash of labels, their slices and their cases."""
    digest = hashlib.blake2b(digest_size=16)
    for number in sorted(labelled):
        for index, labels in sorted(labelled[number].labels.items()):
            digest.update(f"{number} {index} {labels.shape}".encode())
            digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """A hash of the bytes of a label file, or of all files of a folder. Raises LabelError."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    try:
        return hashlib.blake2b("".join(disk.digest(file) for file in files).encode(), digest_size=16).hexdigest()
    except OSError as error:
        msg = f"{path}: the labels cannot be read ({disk.reason(error)}). Check the path."
        raise LabelError(msg) from error


def _series_from_plain(value: Any) -> str | tuple[str | None, ...] | None:
    if isinstance(value, list):
        return tuple(None if entry is None else str(entry) for entry in value)
    return None if value is None else str(value)


def _files_from_plain(values: Sequence[str], before: Path, now: Path) -> tuple[Path, ...]:
    """The files of a case; those that lay beside its path have moved with it."""
    files = [Path(value) for value in values]
    if before == now:
        return tuple(files)
    moved = [
        now.parent / file.relative_to(before.parent) if file.is_relative_to(before.parent) else file for file in files
    ]
    return tuple(there if there.exists() else file for there, file in zip(moved, files, strict=True))


def _relative(path: Path, folder: Path) -> str | None:
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return None


def _training_to_plain(training: Training) -> dict[str, Any]:
    return {
        "when": training.when.isoformat(timespec="seconds"),
        "labels": training.labels,
        "slices": {str(number): list(slices) for number, slices in training.slices.items()},
        "steps": training.steps,
        "final_loss": training.final_loss,
        "seconds": dict(training.seconds),
        "agreement": training.agreement,
    }


def _training_from_plain(values: Mapping[str, Any]) -> Training:
    return Training(
        datetime.fromisoformat(values["when"]),
        str(values["labels"]),
        {int(number): tuple(int(i) for i in slices) for number, slices in values["slices"].items()},
        int(values["steps"]),
        None if values["final_loss"] is None else float(values["final_loss"]),
        {str(stage): float(seconds) for stage, seconds in values["seconds"].items()},
        None if values["agreement"] is None else float(values["agreement"]),
    )
