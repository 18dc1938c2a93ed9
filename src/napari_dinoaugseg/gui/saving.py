"""Saves the open session to disk and resumes saved ones.

Snapshots are taken on the GUI thread, which alone changes labels, and written by a separate thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QObject

from napari_dinoaugseg import disk
from napari_dinoaugseg.case import Case, Plane
from napari_dinoaugseg.errors import CheckpointError, DinoAugSegError, LabelError, OutputError
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.display import camera_of, case_in_plane
from napari_dinoaugseg.gui.setup import preferences
from napari_dinoaugseg.gui.widgets import Inbox, in_background, single_shot
from napari_dinoaugseg.gui.words import counted, in_words
from napari_dinoaugseg.session.autosave import Autosave, Save
from napari_dinoaugseg.session.index import Snapshot
from napari_dinoaugseg.session.store import SavedSession, SessionStore, new_session_folder, saved_sessions

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.model.encoder import Encoder
    from napari_dinoaugseg.session.session import Session


_SOON = 400  # ms from a change to its snapshot; further changes do not delay it
_WHILE_BUSY = 1000  # the same during training and prediction, because each save takes interpreter time
_LATER = 2000  # ms for the view, and for masks, which can be predicted again
_LIVE = 10_000  # ms for masks while Live replaces them several times a second; labels take them along
_RETRY = 5000  # ms until the next try if no folder could be created
_PATIENCE = 2.0  # seconds that training, exporting etc. wait for the disk; writing continues meanwhile
_AT_THE_END = 10.0  # seconds that closing waits for the disk

_AT_ONCE = Change.LABELS | Change.CLASSES | Change.SETTINGS
_IN_A_WHILE = Change.PREDICTIONS | Change.SLICE | Change.SELECTION | Change.WINDOW | Change.MEASURES

T = TypeVar("T")


def sessions_root() -> Path | None:
    """The folder for sessions chosen in the preferences; None = the user's data folder."""
    chosen = preferences().sessions.strip()
    return Path(chosen).expanduser() if chosen else None


class Saving(QObject):
    """Saves the session of one viewer. Used on the GUI thread only.

    Attributes:
        state: one short sentence: when the session was saved, or why not; empty if there is nothing to save.
        folder: the folder of the open session; None before there was anything to save.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._session: Session | None = None
        self._autosave: Autosave | None = None
        self._is_of_project = False
        self._known = False  # whether the fingerprint of the case is computed, which reads all pixels
        self._root: Path | None = None
        self.folder: Path | None = None
        self._dirty = False
        self._problem = ""  # the last error that was reported
        self._last: DinoAugSegError | None = None  # of the last attempt; set by the writing thread
        self.state = ""
        self._timer = single_shot(self._save, self)
        self._written = Inbox(self._on_written)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self._quit)

    @property
    def refused(self) -> bool:
        """Whether the last attempt to save failed."""
        return self._last is not None

    # --- one session ------------------------------------------------------------------------------------------------

    def keep(self, session: Session, store: SessionStore | None = None, save: Save | None = None) -> None:
        """Save a session from now on.

        Args:
            session: a new or a loaded session.
            store: where the session was loaded from; None creates a folder when there is something to save.
            save: writes a snapshot to the store, for a case of a project, whose folder is never exchanged for another.
        """
        self._session = session
        self._is_of_project = save is not None
        self._known = store is not None
        self._root = sessions_root()
        self.state = ""
        if store is not None and store.is_writable:
            self.folder = store.folder
            self._autosave = self._write_to(store, save)
            self.state = "Saved."
        elif store is not None:
            self.state = "Only looking: nothing is saved here."
        self._controller.touch(Change.SAVING)

    def case_is_known(self) -> None:
        """Note that the fingerprint of the case is computed, so that naming a folder reads no pixels."""
        self._known = True

    def end(self, seconds: float = _AT_THE_END) -> bool:
        """Write unsaved changes and release the session; failures are reported. Returns whether all is saved."""
        if self._session is None:
            return True
        name = self._session.case.name
        saved = self.secure(seconds)
        self._within(None)
        if self._autosave is not None:
            self._autosave.close(seconds if saved else 0.1)
        if not saved:
            msg = f"{name}: the last labels are not on disk. {self._last or 'The disk did not answer in time.'}"
            self._controller.show_error(OutputError(msg))
        self._session = self._autosave = self.folder = self._last = None
        self._dirty = False
        self._problem = self.state = ""
        self._controller.touch(Change.SAVING)
        return saved

    def secure(self, seconds: float = _PATIENCE) -> bool:
        """Read the last strokes and wait until all is on disk; False on timeout or write error."""
        return self._hand_over()(seconds)

    def before(self, work: Callable[[], T]) -> Callable[[], T]:
        """Read the last strokes now, and let the thread of the work, rather than the GUI thread, wait for the disk."""
        written = self._hand_over()

        def once_written() -> T:
            written(_PATIENCE)
            return work()

        return once_written

    def _hand_over(self) -> Callable[[float], bool]:
        """Request that everything is written; the returned function waits for it, in any thread."""
        self._controller.flush()
        if self._dirty:
            self._known = True  # computes the fingerprint here if it is not there yet
            self._save()
        refused, autosave = self._dirty, self._autosave
        return lambda seconds: not refused and (autosave is None or autosave.wait(seconds))

    # --- when -------------------------------------------------------------------------------------------------------

    def follow(self, what: Change) -> None:
        """Save after a change: the person's work soon, everything else later."""
        busy = self._controller.jobs.busy
        if what & _AT_ONCE or (what & Change.WORK and not busy):
            self._dirty = self._is_kept
            self._within(_WHILE_BUSY if busy else _SOON)
        elif what & _IN_A_WHILE:
            self._dirty = self._is_kept
            only_masks = what & _IN_A_WHILE == Change.PREDICTIONS and self._controller.live.learns
            self._within(_LIVE if only_masks else _LATER)

    def _within(self, milliseconds: int | None) -> None:
        """Save at the latest after this time, so that continuous painting is saved too; None = do not save."""
        if not isalive(self._timer):  # type: ignore[no-untyped-call]
            return  # the program exits; `end` saves the rest
        if milliseconds is None:
            self._timer.stop()
        elif self._is_kept and not (self._timer.isActive() and self._timer.remainingTime() <= milliseconds):
            self._timer.start(milliseconds)

    @property
    def _is_kept(self) -> bool:
        return self._session is not None and not self._controller.read_only

    def _quit(self) -> None:
        """Save when the program exits without closing the panel first."""
        self.end()

    # --- how --------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Pass a snapshot to the writing thread."""
        if self._session is None or not self._is_kept:
            return
        snapshot = self._session.snapshot(self._view())
        if self._autosave is None:
            if snapshot.book.is_empty and not self._session.measures:  # a case without labels leaves no files
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
        """Create the folder of the session; None if this fails, which is reported and retried."""
        self._root = sessions_root()
        try:
            self.folder = self.folder or new_session_folder(case.fingerprint, self._root)
            store = SessionStore(self.folder, case)
            if not store.is_writable:
                raise OutputError(store.reason)
        except DinoAugSegError as error:
            self._last = error
            self._show_refusal(error)
            self._within(_RETRY)
            return None
        return self._write_to(store)

    def _write_to(self, store: SessionStore, save: Save | None = None) -> Autosave:
        def report(error: DinoAugSegError | None) -> None:
            self._last = error
            self._written.send(store, error)

        return Autosave(store, report, save)

    def _view(self) -> dict[str, Any]:
        """The state of the view, which :func:`show_view` restores."""
        controller = self._controller
        camera = camera_of(controller.viewer)
        return {
            "slice": controller.current_slice,
            "class": controller.labels.selected_class,
            "scribbles": controller.labels.scribbles,
            "window": controller.view.sequences.first_window,
            "zoom": float(camera.zoom),
            "centre": [float(value) for value in camera.center],
        }

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _on_written(self, store: SessionStore, error: DinoAugSegError | None) -> None:
        if self._autosave is None or store is not self._autosave.store:
            return  # of a closed session
        if error is not None:
            self._show_refusal(error)
            if sessions_root() != self._root and not self._is_of_project:
                self._move()
            return
        self._show(f"Saved {datetime.now().astimezone():%H:%M}.")
        if self._problem:
            self._problem = ""
            self._controller.notify("Saved again: all labels are on disk.")

    def _show_refusal(self, error: DinoAugSegError) -> None:
        """Show an error in the state, and once for each cause, not at every attempt, as a message."""
        cause = disk.reason(error.__cause__) if isinstance(error.__cause__, OSError) else in_words(error)
        self._show(f"Not saved: {cause}")
        if str(error) != self._problem:
            self._problem = str(error)
            self._controller.show_error(error)

    def _show(self, state: str) -> None:
        """Set the state; an unchanged one, as several times a minute, is not shown again, which takes milliseconds."""
        if state != self.state:
            self.state = state
            self._controller.touch(Change.SAVING)

    def _move(self) -> None:
        """Save everything in another folder that was chosen in the preferences because writing to this one fails."""
        if self._session is None or self._autosave is None:
            return
        self._autosave.close(0.1)
        self._autosave = self.folder = None
        try:
            self._session.model  # noqa: B018 - loads it while the old folder is readable
        except CheckpointError as error:
            self._controller.show_error(error)
        self._save()


@dataclass(frozen=True)
class Looked:
    """The saved sessions of a case.

    Attributes:
        sessions: the newest first.
        problem: why the search failed; empty if it did not.
    """

    sessions: list[SavedSession] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class Loaded:
    """A session read from disk.

    Attributes:
        case: in the plane of the session.
        store: its folder; holds the lock, unless another window does.
        snapshot: the state to resume.
        problems: a sentence for each part that could not be read.
        read_only: why nothing can be changed, besides the reason of the store; empty if it can.
        encoder: a loaded encoder that the cases of a project share.
        save: writes snapshots, for a case of a project.
    """

    case: Case
    store: SessionStore
    snapshot: Snapshot
    problems: list[str]
    read_only: str = ""
    encoder: Encoder | None = None
    save: Save | None = None


def look_for_sessions(case: Case) -> Looked:
    """Find the saved sessions of a case. Reads all pixels: to be called in the background."""
    try:
        return Looked(saved_sessions(case.fingerprint, sessions_root()))
    except OSError as error:
        return Looked(problem=f"Saved labels of this case could not be looked for ({disk.reason(error)}).")


def load_session(saved: SavedSession, case: Case) -> Loaded:
    """Read a session, and acquire its lock if it is free. To be called in the background.

    Raises:
        SessionError: the session is of a newer version or of another case; it is not changed.
        OutputError: its folder is missing and cannot be created.
    """
    store = SessionStore(saved.folder, case)
    try:
        snapshot, problems = store.load()
    except BaseException:
        store.close()
        raise
    return Loaded(case, store, snapshot, problems)


class SessionActions:
    """Actions on the saved sessions of the open case: resume one, start without labels, try for the lock again.

    Attributes:
        offers: saved sessions that can be resumed, the newest first; empty once the person has chosen.
        current: the saved session that was resumed or is only viewed; None for a new one.
        problems: the parts of it that could not be read, until the person has seen them.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.offers: list[SavedSession] = []
        self.current: SavedSession | None = None
        self.problems: list[str] = []
        self._found = Inbox(self._on_found)

    @property
    def unanswered(self) -> bool:
        """Whether the person has yet to choose between resuming saved labels and starting without them."""
        session = self._controller.session
        if session is None or self._controller.read_only:
            return False
        return bool(self.offers) and not session.labels.labelled

    # --- looking ----------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Reset for another case."""
        self.offers, self.problems, self.current = [], [], None
        self._controller.touch(Change.SAVED_SESSIONS)

    def look(self, case: Case) -> None:
        """Look for saved sessions of a case in the background."""

        def work() -> None:
            self._found.send(case, look_for_sessions(case))

        in_background(work, "look-for-sessions")

    def _on_found(self, case: Case, looked: Looked) -> None:
        controller = self._controller
        if controller.closed or controller.session is None or controller.session.case is not case:
            return
        self.offer(looked)

    def offer(self, looked: Looked) -> None:
        """Offer the saved sessions of the open case."""
        controller = self._controller
        controller.saving.case_is_known()
        folder = controller.saving.folder
        self.offers = [saved for saved in looked.sessions if saved.folder != folder]
        if looked.problem:
            controller.notify(looked.problem, "notice")
        controller.touch(Change.SAVED_SESSIONS)

    # --- choosing ---------------------------------------------------------------------------------------------------

    def start_over(self) -> None:
        """Start without labels. The saved sessions are kept, and offered when the case is next opened."""
        controller = self._controller
        if controller.read_only and controller.session is not None and controller.layers is not None:
            case, image = controller.session.case, controller.layers.image
            controller.guarded(controller.cases.begin, case, image=image)
        self.offers = []
        controller.touch(Change.SAVED_SESSIONS)

    def go_on(self, saved: SavedSession) -> None:
        """Resume a saved session. Paint added meanwhile is first saved as a separate session."""
        self._controller.guarded(self._go_on, saved)

    def try_again(self) -> None:
        """Resume the session for writing after the other window has closed it."""
        if self._controller.project.current is not None:
            self._controller.project.try_again()
        elif self.current is not None:
            self.go_on(self.current)

    def show_problems(self, problems: list[str]) -> None:
        """List the parts of the labels that could not be read."""
        self.problems = problems
        self._controller.touch(Change.SAVED_SESSIONS)

    def problems_are_read(self) -> None:
        """Hide the list of problems after the person has read it."""
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
            msg = "Your last strokes are not on disk yet, so nothing was changed. See the reason below, and try again."
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
    """The time of the last save: ``24 Nov 2026, 19:40``."""
    return f"{saved.saved.day} {saved.saved:%b %Y, %H:%M}"


def describe(saved: SavedSession, noun: str = "slice") -> str:
    """The content of a saved session in one sentence; ``noun`` is "slice" or "picture"."""
    counts = (
        (saved.n_manual, f"{counted(saved.n_manual, noun)} by hand"),
        (saved.n_accepted, f"{saved.n_accepted} accepted"),
        (saved.n_predicted, f"{saved.n_predicted} predicted"),
        (saved.rounds, counted(saved.rounds, "training")),
        (saved.n_measures, counted(saved.n_measures, "measure")),
    )
    parts = [words for count, words in counts if count]
    if not parts:
        return f"Labels of {when(saved)}, saved by a newer version of this program."
    plane = f" ({saved.plane})" if saved.plane not in (None, Plane.NATIVE.value) else ""
    return f"Your labels of {when(saved)}{plane}: {', '.join(parts)}."


def show_view(controller: Controller, view: Mapping[str, Any]) -> None:
    """Restore a saved view; values that are not valid for the session are ignored."""
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
    """Whether this is a list of so many plausible coordinates or zoom factors."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, int | float) and abs(value) < 1e6 for value in values)
    )


def _plane(saved: SavedSession, case: Case) -> Plane:
    return Plane(saved.plane) if saved.plane in {plane.value for plane in Plane} else case.plane
