"""Keeps the open session on disk, and resumes saved ones.

Snapshots are taken on the thread of the interface, which alone changes labels; a thread of its own writes them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import Case, Plane
from napari_dinoaugseg.errors import CheckpointError, DinoAugSegError, LabelError, OutputError
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.display import case_in_plane
from napari_dinoaugseg.gui.setup import preferences
from napari_dinoaugseg.gui.widgets import camera_of
from napari_dinoaugseg.gui.words import in_words
from napari_dinoaugseg.session.autosave import Autosave
from napari_dinoaugseg.session.index import Snapshot
from napari_dinoaugseg.session.store import SavedSession, SessionStore, new_session_folder, saved_sessions

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session


_SOON = 400  # ms from a change to its snapshot; further changes do not put it off
_WHILE_BUSY = 1000  # ms of the same while the machine trains or predicts: each save takes a share of the interpreter
_LATER = 2000  # ms for what is looked at, and for masks, which can be predicted again
_RETRY = 5000  # ms after no folder could be made
_PATIENCE = 2.0  # seconds that training, exporting... wait for the disk; it goes on writing meanwhile
_AT_THE_END = 10.0  # seconds that closing waits

_AT_ONCE = Change.LABELS | Change.CLASSES | Change.SETTINGS
_IN_A_WHILE = Change.PREDICTIONS | Change.SLICE | Change.SELECTION | Change.WINDOW

T = TypeVar("T")


def sessions_root() -> Path | None:
    """The folder of all sessions that the person chose; None = the user's data folder."""
    chosen = preferences().sessions.strip()
    return Path(chosen).expanduser() if chosen else None


class Saving(QObject):
    """Saves the session of one viewer. Lives on the thread of the interface.

    Attributes:
        state: one short sentence for the person: saved when, or why not; empty when there is nothing to save.
        refused: whether the last try failed.
        folder: where the open session lies; None before there was anything to keep.
    """

    _written = Signal(object, object)  # from the thread that writes: which store, and None or the error

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._session: Session | None = None
        self._autosave: Autosave | None = None
        self._known = False  # whether the case's fingerprint was computed: it reads every pixel
        self._root: Path | None = None
        self._folder: Path | None = None
        self._dirty = False
        self._problem = ""  # the last refusal that was reported
        self._last: DinoAugSegError | None = None  # of the last try; the thread that writes sets it
        self.state = ""
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._save)
        self._written.connect(self._on_written)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self._quit)

    @property
    def refused(self) -> bool:
        """Whether the last try failed."""
        return self._last is not None

    @property
    def folder(self) -> Path | None:
        """Where the open session lies; None before there was anything to keep."""
        return self._folder

    # --- one session ------------------------------------------------------------------------------------------------

    def keep(self, session: Session, store: SessionStore | None = None) -> None:
        """Keep a session on disk from now on.

        Args:
            session: a new one, or one that was loaded.
            store: where the session was loaded from; None makes a folder when there is something to keep.
        """
        self._session = session
        self._known = store is not None
        self._root = sessions_root()
        self.state = ""
        if store is not None and store.is_writable:
            self._folder = store.folder
            self._autosave = self._write_to(store)
            self.state = "Saved."
        elif store is not None:
            self.state = "Only looking: nothing is saved here."
        self._controller.touch(Change.SAVING)

    def case_is_known(self) -> None:
        """The fingerprint of the case is there: folders can be named without reading all pixels."""
        self._known = True

    def end(self, seconds: float = _AT_THE_END) -> bool:
        """Write what is left and let go of the session; failures are reported. Returns whether all is saved."""
        if self._session is None:
            return True
        name = self._session.case.name
        saved = self.secure(seconds)
        self._within(None)
        if self._autosave is not None:
            self._autosave.close(seconds if saved else 0.1)
        if not saved:
            msg = f"{name}: the last labels are not on disk. {self._last or 'The disk did not answer in time.'}"
            self._controller.tell_error(OutputError(msg))
        self._session = self._autosave = self._folder = self._last = None
        self._dirty = False
        self._problem = self.state = ""
        self._controller.touch(Change.SAVING)
        return saved

    def secure(self, seconds: float = _PATIENCE) -> bool:
        """Take over the last strokes and wait until all is on disk; False when it is not (yet)."""
        return self._hand_over()(seconds)

    def before(self, work: Callable[[], T]) -> Callable[[], T]:
        """Take over the last strokes now; the thread that does the work then waits for the disk, not the window."""
        written = self._hand_over()

        def once_written() -> T:
            written(_PATIENCE)
            return work()

        return once_written

    def _hand_over(self) -> Callable[[float], bool]:
        """Have everything written; what is returned waits for that, in any thread."""
        self._controller.flush()
        if self._dirty:
            self._known = True  # no more time to wait for it: it is computed here and now
            self._save()
        refused, autosave = self._dirty, self._autosave
        return lambda seconds: not refused and (autosave is None or autosave.wait(seconds))

    # --- when -------------------------------------------------------------------------------------------------------

    def follow(self, what: Change) -> None:
        """Save what changed: work of the person's hand soon, what can be made again later."""
        busy = self._controller.jobs.busy
        if what & _AT_ONCE or (what & Change.WORK and not busy):
            self._dirty = self._is_kept
            self._within(_WHILE_BUSY if busy else _SOON)
        elif what & _IN_A_WHILE:
            self._dirty = self._is_kept
            self._within(_LATER)

    def _within(self, milliseconds: int | None) -> None:
        """Save at the latest then (a throttle: painting without a pause must be saved too); None = not at all."""
        if not isalive(self._timer):  # type: ignore[no-untyped-call]
            return  # the program ends; what is left is saved by `end`
        if milliseconds is None:
            self._timer.stop()
        elif self._is_kept and not (self._timer.isActive() and self._timer.remainingTime() <= milliseconds):
            self._timer.start(milliseconds)

    @property
    def _is_kept(self) -> bool:
        return self._session is not None and not self._controller.read_only

    def _quit(self) -> None:
        """The program ends without closing the panel first."""
        self.end()

    # --- how --------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Hand what there is now to the thread that writes."""
        if self._session is None or not self._is_kept:
            return
        snapshot = self._session.snapshot(self._view())
        if self._autosave is None:
            if snapshot.book.is_empty:  # what was only looked at leaves nothing behind
                self._dirty = False
                return
            if not self._known:
                self._within(_SOON)
                return
            self._autosave = self._begin(self._session.case)
        if self._autosave is not None:
            self._dirty = False
            self._autosave.request(snapshot)

    def _begin(self, case: Case) -> Autosave | None:
        """Make the session's folder; None when the system refuses, which is reported and tried again."""
        self._root = sessions_root()
        try:
            self._folder = self._folder or new_session_folder(case.fingerprint, self._root)
            store = SessionStore(self._folder, case)
            if not store.is_writable:
                raise OutputError(store.reason)
        except DinoAugSegError as error:
            self._last = error
            self._show_refusal(error)
            self._within(_RETRY)
            return None
        return self._write_to(store)

    def _write_to(self, store: SessionStore) -> Autosave:
        def report(error: DinoAugSegError | None) -> None:
            self._last = error
            with contextlib.suppress(RuntimeError):  # the program ends, and the window is gone
                self._written.emit(store, error)

        return Autosave(store, report)

    def _view(self) -> dict[str, Any]:
        """What the person looks at; :func:`~napari_dinoaugseg.gui.saving.show_view` brings it back."""
        controller = self._controller
        camera = camera_of(controller.viewer)
        return {
            "slice": controller.current_slice,
            "class": controller.labels.selected_class,
            "scribbles": controller.labels.scribbles,
            "window": controller.view.window,
            "zoom": float(camera.zoom),
            "centre": [float(value) for value in camera.center],
        }

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _on_written(self, store: SessionStore, error: DinoAugSegError | None) -> None:
        if self._autosave is None or store is not self._autosave.store:
            return  # of a session that was closed
        if error is not None:
            self._show_refusal(error)
            if sessions_root() != self._root:
                self._move()
            return
        self._show(f"Saved {datetime.now().astimezone():%H:%M}.")
        if self._problem:
            self._problem = ""
            self._controller.notify("Saved again: all labels are on disk.")

    def _show_refusal(self, error: DinoAugSegError) -> None:
        """In the state always; as a message once for each cause, not at every try."""
        cause = disk.reason(error.__cause__) if isinstance(error.__cause__, OSError) else in_words(error)
        self._show(f"Not saved: {cause}")
        if str(error) != self._problem:
            self._problem = str(error)
            self._controller.tell_error(error)

    def _show(self, state: str) -> None:
        """Several times a minute, so only what is new: styling a widget again takes milliseconds."""
        if state != self.state:
            self.state = state
            self._controller.touch(Change.SAVING)

    def _move(self) -> None:
        """The person chose another folder in the preferences because this one refuses: begin there, with everything."""
        if self._session is None or self._autosave is None:
            return
        self._autosave.close(0.1)
        self._autosave = self._folder = None
        try:
            self._session.model  # noqa: B018 - read while the old folder can be
        except CheckpointError as error:
            self._controller.tell_error(error)
        self._save()


# What a person can do with saved sessions of the open case: resume one, start without labels, try for the lock again.


@dataclass(frozen=True)
class Looked:
    """What is on disk of a case.

    Attributes:
        sessions: the newest first.
        problem: why it could not be looked for; empty when it could.
    """

    sessions: list[SavedSession] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class Loaded:
    """A session as it was read.

    Attributes:
        case: cut as the session needs it.
        store: where it lies; holds the lock, unless another window does.
        snapshot: what to go on from.
        problems: a sentence for each part that could not be read.
    """

    case: Case
    store: SessionStore
    snapshot: Snapshot
    problems: list[str]


def look_for_sessions(case: Case) -> Looked:
    """What is on disk of a case. Reads every pixel: for the background."""
    try:
        return Looked(saved_sessions(case.fingerprint, sessions_root()))
    except OSError as error:
        return Looked(problem=f"Saved labels of this case could not be looked for ({disk.reason(error)}).")


def load_session(saved: SavedSession, case: Case) -> Loaded:
    """Read a session, and take its lock if it is free. For the background.

    Raises:
        SessionError: of a newer version, or of another case; it is left as it is.
        OutputError: its folder is gone and cannot be made.
    """
    store = SessionStore(saved.folder, case)
    try:
        snapshot, problems = store.load()
        if problems and not store.is_writable:
            snapshot, problems = store.load()  # the other window may have saved in between
    except BaseException:
        store.close()
        raise
    return Loaded(case, store, snapshot, problems)


class SessionActions(QObject):
    """The saved sessions of the open case.

    Attributes:
        offers: saved sessions to go on with, the newest first; empty once the person has chosen.
        current: the saved session that is gone on with, or looked at; None for a new one.
        problems: what of it could not be read, until the person has seen it.
    """

    _found = Signal(object, object)  # from the thread that looks: the case and Looked

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.offers: list[SavedSession] = []
        self.current: SavedSession | None = None
        self.problems: list[str] = []
        self._found.connect(self._on_found)

    @property
    def unanswered(self) -> bool:
        """Whether the person is still asked to resume saved labels or to start without them."""
        session = self._controller.session
        if session is None or self._controller.read_only:
            return False
        return bool(self.offers) and not session.labels.labelled

    # --- looking ----------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Another case, or none."""
        self.offers, self.problems, self.current = [], [], None
        self._controller.touch(Change.SAVED_SESSIONS)

    def look(self, case: Case) -> None:
        """Look for saved sessions of a case in the background."""

        def work() -> None:
            self._found.emit(case, look_for_sessions(case))

        threading.Thread(target=work, name="look-for-sessions", daemon=True).start()

    def _on_found(self, case: Case, looked: Looked) -> None:
        controller = self._controller
        if controller.closed or controller.session is None or controller.session.case is not case:
            return
        self.offer(looked)

    def offer(self, looked: Looked) -> None:
        """Offer what was found of the open case."""
        controller = self._controller
        controller.saving.case_is_known()
        folder = controller.saving.folder
        self.offers = [saved for saved in looked.sessions if saved.folder != folder]
        if looked.problem:
            controller.notify(looked.problem, "notice")
        controller.touch(Change.SAVED_SESSIONS)

    # --- choosing ---------------------------------------------------------------------------------------------------

    def start_anew(self) -> None:
        """Leave the saved sessions as they are; they are offered again the next time."""
        controller = self._controller
        if controller.read_only and controller.session is not None and controller.layers is not None:
            case, image = controller.session.case, controller.layers.image
            controller.guarded(controller.cases.begin, case, image=image)
        self.offers = []
        controller.touch(Change.SAVED_SESSIONS)

    def go_on(self, saved: SavedSession) -> None:
        """Go on with a saved session. What was painted meanwhile is saved first, as a session of its own."""
        self._controller.guarded(self._go_on, saved)

    def try_again(self) -> None:
        """Take the session over when the other window has closed it, with what was saved there."""
        if self.current is not None:
            self.go_on(self.current)

    def problems_are_read(self) -> None:
        """The person has seen what could not be read."""
        self.problems = []
        self._controller.touch(Change.SAVED_SESSIONS)

    def _go_on(self, saved: SavedSession) -> None:
        controller = self._controller
        session = controller.session
        if session is None:
            return
        case = session.case

        def load() -> Loaded:
            plane = _plane(saved, case)
            return load_session(saved, case if plane == case.plane else case_in_plane(case, plane))

        def done(loaded: Loaded) -> None:
            if session is controller.session:
                self._switch(saved, loaded)
            else:
                loaded.store.close()

        controller.jobs.run("Opening your labels", load, done)

    def _switch(self, saved: SavedSession, loaded: Loaded) -> None:
        controller = self._controller
        if controller.read_only and not loaded.store.is_writable:
            loaded.store.close()
            controller.notify(loaded.store.reason)
            return
        if not controller.saving.secure():
            msg = "What you painted just now is not on disk yet, so nothing was changed. See below why, and try again."
            loaded.store.close()
            raise OutputError(msg)
        try:
            controller.cases.resume(loaded)
        except LabelError:
            loaded.store.close()
            raise
        self.offers, self.current, self.problems = [], saved, loaded.problems
        controller.touch(Change.SAVED_SESSIONS)
        show_view(controller, loaded.snapshot.view)
        if loaded.store.is_writable:
            controller.notify(f"Your labels of {when(saved)} are back.")


def when(saved: SavedSession) -> str:
    """The moment of the last save in words: ``24 Nov 2026, 19:40``."""
    return f"{saved.saved.day} {saved.saved:%b %Y, %H:%M}"


def describe(saved: SavedSession, noun: str = "slice") -> str:
    """What a saved session holds, in one sentence.

    Args:
        saved: the session.
        noun: what the case consists of: slice, picture.
    """
    counts = (
        (saved.n_manual, f"{_several(saved.n_manual, noun)} by hand"),
        (saved.n_accepted, f"{saved.n_accepted} accepted"),
        (saved.n_predicted, f"{saved.n_predicted} predicted"),
        (saved.rounds, _several(saved.rounds, "training")),
    )
    parts = [words for count, words in counts if count]
    if not parts:
        return f"Labels of {when(saved)}, saved by a newer version of this program."
    plane = f" ({saved.plane})" if saved.plane not in (None, Plane.NATIVE.value) else ""
    return f"Your labels of {when(saved)}{plane}: {', '.join(parts)}."


def show_view(controller: Controller, view: Mapping[str, Any]) -> None:
    """Bring back what the person looked at; what a file cannot mean there is left out."""
    session = controller.session
    if session is None:
        return
    number, index = view.get("class"), view.get("slice")
    if isinstance(number, int) and number in {0, *(entry.number for entry in session.labels.classes)}:
        controller.labels.select_class(number)
    if isinstance(index, int) and controller.layers is not None:
        controller.layers.go_to(min(max(index, 0), session.case.n_slices - 1))
    zoom, centre = view.get("zoom", 0), view.get("centre", [])
    if _are_numbers([zoom], 1) and zoom > 0 and _are_numbers(centre, 3):
        camera = camera_of(controller.viewer)
        camera.center, camera.zoom = tuple(centre), zoom


def _are_numbers(values: Any, count: int) -> bool:
    """Whether these can be so many millimetres, or canvas pixels per millimetre."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(value, int | float) and abs(value) < 1e6 for value in values)


def _plane(saved: SavedSession, case: Case) -> Plane:
    return Plane(saved.plane) if saved.plane in {plane.value for plane in Plane} else case.plane


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
