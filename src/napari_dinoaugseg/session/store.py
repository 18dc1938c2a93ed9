"""Saved sessions: a folder for each, which is always whole, below a folder for each case.

```
FINGERPRINT/001/                      a case is named by its pixels: its name or path may name the patient
    session.json                      the index; replaced last, in one step
    slices/00012_manual_<hash>.png    the labels of a slice
    model_<hash>.safetensors          the trained decoder
    lock                              held by the window that may write
```

Files are named by their content and never overwritten. A save adds the slices that changed, replaces the index, and
only then deletes what the index no longer needs: a program killed at any moment leaves the last session or the new one.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import Case
from napari_dinoaugseg.case.measure import measures_from
from napari_dinoaugseg.errors import Hint, Message, OutputError, SessionError, naming_slices
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.index import (
    INDEX_NAME,
    LAYERS,
    CaseKey,
    DamagedIndexError,
    DamagedSliceError,
    Index,
    Snapshot,
    model_name,
    parse,
    read_index,
    read_slice,
    slice_files,
    to_bytes,
    write_slice,
)
from napari_dinoaugseg.session.labels import UNKNOWN, BookContent, Entry, LabelClass, Labels, new_class

logging.getLogger("filelock").setLevel(logging.WARNING)  # below that it logs paths

_DAMAGED = ".damaged"
_LARGEST_MODEL = 2**30  # bytes; the paper's decoder for the large encoder has 120 million
_Layers = dict[str, dict[int, Labels]]


def case_key(case: Case) -> CaseKey:
    """The key of a case's sessions. Reads every pixel the first time."""
    return CaseKey(case.fingerprint, case.plane.value, case.n_slices)


class SessionStore:
    """One session in its folder, for one thread at a time.

    Args:
        folder: of the session; created if it does not exist.
        case: of the session.
        keeps_model: save the trained model with the labels; a project has one model for all its cases.
        locks: be the one that may save. Without, the session is only read, and nobody is kept from opening it.

    Attributes:
        folder: of the session.
        reason: why it cannot be saved, a sentence; empty if it can.

    Raises:
        OutputError: the folder cannot be created.
        SessionError: the folder is a link, or holds links.
    """

    def __init__(self, folder: Path, case: Case, *, keeps_model: bool = True, locks: bool = True) -> None:
        self.folder = folder
        self._keeps_model = keeps_model
        self._case = case
        self._key = case_key(case)
        self._slices = folder / "slices"
        # The arrays on disk and their files; arrays of a label book are immutable.
        self._written: dict[tuple[str, int], tuple[Labels, str]] = {}
        self._model: tuple[Any, str] | None = None
        self._locked: tuple[int, int] | None = None
        self._swept = False
        for path in (folder, self._slices, folder / "lock"):
            if path.is_symlink():
                msg = f"{path}: this is a link, and a session is not written through a link. Remove the link."
                raise SessionError(msg)
        if locks:
            with _refusals(folder):
                self._slices.mkdir(parents=True, exist_ok=True)
        # The lock belongs to the window, not to the thread: another thread saves.
        self._lock = FileLock(folder / "lock", blocking=False, thread_local=False)
        self.reason = self._acquire() if locks else "The session was opened to be read."

    def _acquire(self) -> str:
        try:
            self._lock.acquire()
        except Timeout:
            return (
                "This case is being annotated in another window. Here it can only be looked at; close it there first."
            )
        except OSError as error:
            return f"The session's folder cannot be written ({disk.reason(error)}): it can only be looked at."
        self._locked = self._lock_file()
        return ""

    def _lock_file(self) -> tuple[int, int] | None:
        """Identity of the lock file; it changes when somebody deletes the folder."""
        try:
            found = (self.folder / "lock").stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _lock_again(self) -> None:
        """Lock again after somebody deleted the folder: a lock on a deleted file locks nobody out."""
        self._lock.release()
        self.reason = self._acquire()
        if not self.is_writable:
            msg = f"{self.folder}: {self.reason}"
            raise SessionError(msg)

    @property
    def is_writable(self) -> bool:
        """Whether this is the window that may save."""
        return self._lock.is_locked

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    # --- writing ----------------------------------------------------------------------------------------------------

    def save(self, snapshot: Snapshot) -> None:
        """Write what changed since the last save or load.

        Raises:
            OutputError: disk full or no permission; the session on disk is still the last one.
            SessionError: another window writes this session.
        """
        if not self.is_writable:
            msg = f"{self.folder}: {self.reason or 'the session is closed.'}"
            raise SessionError(msg)
        with _refusals(self.folder):
            self._slices.mkdir(parents=True, exist_ok=True)
            if self._lock_file() != self._locked:
                self._lock_again()
            there = {path.name for path in self._slices.iterdir()}
            index = Index(
                case=self._key,
                saved=datetime.now(UTC).astimezone(),
                classes=list(snapshot.book.classes),
                confidence=dict(snapshot.book.confidence),
                unseen=_by_layer(snapshot.book.unseen),
                settings=snapshot.settings,
                rounds=list(snapshot.history),
                view=dict(snapshot.view),
                model_settings=snapshot.model_settings if self._keeps_model else None,
                taken=sorted(snapshot.book.taken),
            )
            if not (self.folder / INDEX_NAME).exists():  # if killed in the first save, all whole files count
                disk.write(self.folder / INDEX_NAME, to_bytes(index))
            index.slices = self._save_slices(snapshot.book, there)
            index.model = self._save_model(snapshot.model) if self._keeps_model else None
            disk.write(self.folder / INDEX_NAME, to_bytes(index))
        self._sweep(index, there)

    def _save_slices(self, book: BookContent, there: set[str]) -> dict[int, dict[str, str]]:
        names: dict[int, dict[str, str]] = {}
        kept: dict[tuple[str, int], tuple[Labels, str]] = {}
        for layer in LAYERS:
            for index, labels in book.layers.get(layer, {}).items():
                known = self._written.get((layer, index))
                if known is None or known[0] is not labels or known[1] not in there:
                    known = labels, write_slice(self._slices, layer, index, labels)
                    self._written[layer, index] = known
                kept[layer, index] = known
                names.setdefault(index, {})[layer] = known[1]
        self._written = kept
        return names

    def _save_model(self, model: Any) -> str | None:
        if model is None:
            self._model = None
            return None
        if isinstance(model, Path):
            return model.name
        if self._model is None or self._model[0] is not model or not (self.folder / self._model[1]).exists():
            with importing_torch():
                from napari_dinoaugseg.model.checkpoint import checkpoint_bytes

            content = checkpoint_bytes(model)
            name = model_name(content)
            disk.write(self.folder / name, content)
            self._model = model, name
        return self._model[1]

    def _sweep(self, index: Index, there: set[str]) -> None:
        """Delete what the new index does not need; damaged files stay, for an expert.

        Args:
            index: on disk.
            there: file names in the folder of slices before the save.
        """
        needed = {name for names in (index.slices or {}).values() for name in names.values()}
        stale = [self._slices / name for name in there if parse(name) is not None and name not in needed]
        stale += [path for path in self.folder.glob("model_*.safetensors") if path.name != index.model]
        if not self._swept:  # left by a program that was killed while writing
            # Only files of a session: another thread may be writing the facts of a project's case into this folder.
            left = (*self.folder.glob(f".{INDEX_NAME}.*"), *self.folder.glob(".model_*"))
            left = (*left, *(self._slices / name for name in there))
            stale += [path for path in left if disk.PART in path.name]
            self._swept = True
        for path in stale:
            with contextlib.suppress(OSError):  # the next save tries again
                path.unlink()

    # --- reading ----------------------------------------------------------------------------------------------------

    def load(self) -> tuple[Snapshot, list[str]]:
        """Read the session; a damaged part does not affect the others.

        Returns:
            The session, and a sentence for each part that could not be read.

        Raises:
            SessionError: it is of a newer version, or of another case.
        """
        snapshot, problems = self._load()
        if problems and not self.is_writable:
            snapshot, problems = self._load()  # whoever writes it may have saved meanwhile
        return snapshot, problems

    def _load(self) -> tuple[Snapshot, list[str]]:
        try:
            index, problems = read_index(self.folder)
        except DamagedIndexError as error:
            if not (self.folder / INDEX_NAME).exists() and not any(slice_files(self._slices)):
                return Snapshot(BookContent(), Settings()), []  # nothing is saved here yet
            index, problems = Index(self._key, datetime.now(UTC)), [f"the table of contents is lost ({error})"]
        if index.case != self._key:
            msg = f"{self.folder}: this session belongs to another case, or to other slices of it."
            raise SessionError(msg)
        layers = self._load_slices(index, problems)
        unseen = (
            None
            if index.unseen is None
            else frozenset((layer, i) for layer in index.unseen for i in index.unseen[layer])
        )
        taken = frozenset(index.taken)
        book = BookContent(tuple(_with_found(index.classes, layers)), layers, index.confidence, unseen, taken)
        model = None if index.model is None else self.folder / index.model
        if model is not None and not self._is_sound(model):
            problems.append("the trained model is damaged; train again")
            model = None
        view, rounds = index.view, tuple(index.rounds)
        snapshot = Snapshot(book, index.settings, rounds, model, view, index.model_settings)
        return snapshot, [_sentence(problem) for problem in problems]

    def _load_slices(self, index: Index, problems: list[str]) -> _Layers:
        if index.slices is None and problems:
            problems.append("the last labels of each slice were chosen by the dates of the files")
        layers: _Layers = {layer: {} for layer in LAYERS}
        for number, layer, path in self._files_of(index):
            try:
                labels = read_slice(path, self._case.slice_shape(number))
            except DamagedSliceError as error:
                named = self._case.slice_parts(number)
                problems.append(naming_slices(*named, f": the {layer} labels are {error}"))
                self._set_aside(path)
                continue
            labels.setflags(write=False)
            layers[layer][number] = labels
            self._written[layer, number] = labels, path.name
        return layers

    def _files_of(self, index: Index) -> Iterator[tuple[int, str, Path]]:
        if index.slices is not None:
            entries = [
                (number, layer, self._slices / name)
                for number, names in index.slices.items()
                for layer, name in names.items()
            ]
        else:
            newest: dict[tuple[int, str], Path] = {}
            for path in slice_files(self._slices):
                found = parse(path.name)
                if found is not None:
                    newest[found[:2]] = path
            entries = [(number, layer, path) for (number, layer), path in newest.items()]
        yield from (entry for entry in entries if entry[0] < self._case.n_slices)

    def _set_aside(self, path: Path) -> None:
        """Rename a damaged file so that it is not deleted: somebody may still rescue something from it."""
        if self.is_writable and path.exists():
            with contextlib.suppress(OSError):  # then it keeps its name, and a later save deletes it
                path.replace(path.with_name(path.name + _DAMAGED))

    def _is_sound(self, model: Path) -> bool:
        try:
            return model_name(disk.read(model, _LARGEST_MODEL)) == model.name
        except OSError:
            return False


def _by_layer(unseen: Collection[Entry] | None) -> dict[str, list[int]] | None:
    return None if unseen is None else {name: sorted(i for layer, i in unseen if layer == name) for name in LAYERS}


def _with_found(classes: list[LabelClass], layers: Mapping[str, Mapping[int, Labels]]) -> list[LabelClass]:
    """The classes, and those that labels hold although their entry is lost."""
    found = {int(n) for slices in layers.values() for labels in slices.values() for n in np.unique(labels)}
    lost = found - {0, UNKNOWN} - {entry.number for entry in classes}
    return sorted([*classes, *(new_class(number) for number in lost)], key=lambda entry: entry.number)


def _sentence(problem: str) -> Message:
    message = Message(problem)
    text, in_window = (f"{words[0].upper()}{words[1:]}." for words in (message, message.in_window))
    return message.reworded(text, in_window)


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = (
            f"{folder}: your labels could not be saved ({disk.reason(error)}). "
            "Free some space or choose another folder; they are kept in memory meanwhile."
        )
        raise OutputError(msg) from error


# --- the folders of all sessions ------------------------------------------------------------------------------------


def default_sessions_folder() -> Path:
    """The environment variable DINOAUGSEG_SESSIONS, else a folder in the user's data folder."""
    named = os.environ.get("DINOAUGSEG_SESSIONS")
    if named:
        return Path(named)
    return Path(platformdirs.user_data_dir("napari-dinoaugseg", appauthor=False)) / "sessions"


@dataclass(frozen=True)
class SavedSession:
    """A session on disk, described by its index.

    Attributes:
        folder: of the session.
        saved: time of saving.
        plane: of the slices; None if the index is damaged.
        n_manual: slices labelled by hand.
        n_accepted: slices with accepted predictions.
        n_predicted: slices with predictions.
        rounds: number of trainings.
        n_measures: measures on its slices.
    """

    folder: Path
    saved: datetime
    plane: str | None
    n_manual: int
    n_accepted: int
    n_predicted: int
    rounds: int
    n_measures: int = 0


def saved_sessions(fingerprint: str, root: Path | None = None) -> list[SavedSession]:
    """The sessions of a case that are not empty, newest first; also those of a newer version of the program.

    Args:
        fingerprint: of the case.
        root: the folder of all sessions; None = the default.
    """
    folder = _case_folder(fingerprint, root)
    found = [_describe(path) for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.saved, reverse=True)


def new_session_folder(fingerprint: str, root: Path | None = None) -> Path:
    """Create an empty folder for a session of a case. Raises OutputError."""
    folder = _case_folder(fingerprint, root)
    number = 1
    while True:
        path = folder / f"{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            msg = f"{path}: no session can be saved there ({disk.reason(error)})."
            raise OutputError(msg, Hint.SESSION_FOLDER) from error
        else:
            return path


def _case_folder(fingerprint: str, root: Path | None) -> Path:
    return (root or default_sessions_folder()) / fingerprint


def _describe(folder: Path) -> SavedSession | None:
    """Describe a session by its index, or by its files if that is damaged; None if it is empty."""
    layers = [found[1] for path in slice_files(folder / "slices") if (found := parse(path.name)) is not None]
    try:
        index, _ = read_index(folder)
    except SessionError:  # of a newer version: listed, so that the person sees it
        return SavedSession(folder, _changed(folder), None, 0, 0, 0, 0)
    except DamagedIndexError:
        saved, plane, rounds, measures = _changed(folder), None, 0, 0
    else:
        if index.slices is not None:
            layers = [layer for names in index.slices.values() for layer in names]
        saved, plane, rounds = index.saved, index.case.plane, len(index.rounds)
        measures = len(measures_from(index.view.get("measures"), index.case.n_slices))
    if not layers and not measures:
        return None
    count = layers.count
    counts = (count("manual"), count("accepted"), count("predicted"))
    return SavedSession(folder, saved, plane, *counts, rounds, measures)


def _changed(folder: Path) -> datetime:
    path = folder / INDEX_NAME
    return datetime.fromtimestamp((path if path.exists() else folder).stat().st_mtime, UTC).astimezone()
