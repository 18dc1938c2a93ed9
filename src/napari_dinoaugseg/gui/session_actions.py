"""What a person can do with saved sessions of the open study: go on with one, start anew, try for the lock again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import LabelError, OutputError
from napari_dinoaugseg.gui.metadata import study_in_plane
from napari_dinoaugseg.gui.saving import camera_of, sessions_root
from napari_dinoaugseg.session.places import SavedSession, saved_sessions
from napari_dinoaugseg.session.snapshot import Snapshot
from napari_dinoaugseg.session.store import SessionStore
from napari_dinoaugseg.study import Plane, Study

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.study_actions import StudyActions


@dataclass(frozen=True)
class Looked:
    """What is on disk of a study.

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
        study: cut as the session needs it.
        store: where it lies; holds the lock, unless another window does.
        snapshot: what to go on from.
        problems: a sentence for each part that could not be read.
    """

    study: Study
    store: SessionStore
    snapshot: Snapshot
    problems: list[str]


def look_for_sessions(study: Study) -> Looked:
    """What is on disk of a study. Reads every pixel: for the background."""
    try:
        return Looked(saved_sessions(study.fingerprint, sessions_root()))
    except OSError as error:
        return Looked(problem=f"Saved labels of this study could not be looked for ({disk.reason(error)}).")


def load_session(saved: SavedSession, study: Study) -> Loaded:
    """Read a session, and take its lock if it is free. For the background.

    Raises:
        SessionError: of a newer version, or of another study; it is left as it is.
        OutputError: its folder is gone and cannot be made.
    """
    store = SessionStore(saved.folder, study)
    try:
        snapshot, problems = store.load()
        if problems and not store.is_writable:
            snapshot, problems = store.load()  # the other window may have saved in between
    except BaseException:
        store.close()
        raise
    return Loaded(study, store, snapshot, problems)


class SessionActions(QObject):
    """Part of what a controller can do. Errors become sentences (``failed``); ``sessions_changed`` tells of news.

    Attributes:
        offers: saved sessions to go on with, the newest first; empty once the person has chosen.
        current: the saved session that is gone on with, or looked at; None for a new one.
        problems: what of it could not be read, until the person has seen it.
    """

    _found = Signal(object, object)  # from the thread that looks: the study and Looked

    def __init__(self, controller: StudyActions) -> None:
        super().__init__()
        self._controller = controller
        self.offers: list[SavedSession] = []
        self.current: SavedSession | None = None
        self.problems: list[str] = []
        self._found.connect(self._on_found)

    # --- looking ----------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Another study, or none."""
        self.offers, self.problems, self.current = [], [], None
        self._controller.sessions_changed.emit()

    def look(self, study: Study) -> None:
        """Look for saved sessions of a study in the background."""

        def work() -> None:
            self._found.emit(study, look_for_sessions(study))

        threading.Thread(target=work, name="look-for-sessions", daemon=True).start()

    def _on_found(self, study: Study, looked: Looked) -> None:
        controller = self._controller
        if controller.closed or controller.session is None or controller.session.study is not study:
            return
        self.offer(looked)

    def offer(self, looked: Looked) -> None:
        """Offer what was found of the open study."""
        controller = self._controller
        controller.saving.study_is_known()
        folder = controller.saving.folder
        self.offers = [saved for saved in looked.sessions if saved.folder != folder]
        if looked.problem:
            controller.notice.emit(looked.problem)
        controller.sessions_changed.emit()

    # --- choosing ---------------------------------------------------------------------------------------------------

    def start_anew(self) -> None:
        """Leave the saved sessions as they are; they are offered again the next time."""
        controller = self._controller
        if controller.read_only and controller.session is not None and controller.layers is not None:
            study, image = controller.session.study, controller.layers.image
            controller.guarded(controller.set_study, study, image=image)
        self.offers = []
        controller.sessions_changed.emit()

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
        self._controller.sessions_changed.emit()

    def _go_on(self, saved: SavedSession) -> None:
        controller = self._controller
        session = controller.session
        if session is None:
            return
        study = session.study

        def load() -> Loaded:
            plane = _plane(saved, study)
            return load_session(saved, study if plane == study.plane else study_in_plane(study, plane))

        def done(loaded: Loaded) -> None:
            if session is controller.session:
                self._switch(saved, loaded)
            else:
                loaded.store.close()

        controller.run_function("Opening your labels", load, done)

    def _switch(self, saved: SavedSession, loaded: Loaded) -> None:
        controller = self._controller
        if controller.read_only and not loaded.store.is_writable:
            loaded.store.close()
            controller.said.emit(loaded.store.reason)
            return
        if not controller.saving.secure():
            msg = "What you painted just now is not on disk yet, so nothing was changed. See below why, and try again."
            loaded.store.close()
            raise OutputError(msg)
        try:
            controller.resume(loaded)
        except LabelError:
            loaded.store.close()
            raise
        self.offers, self.current, self.problems = [], saved, loaded.problems
        controller.sessions_changed.emit()
        show_view(controller, loaded.snapshot.view)
        if loaded.store.is_writable:
            controller.said.emit(f"Your labels of {when(saved)} are back.")


def when(saved: SavedSession) -> str:
    """The moment of the last save in words: ``24 Nov 2026, 19:40``."""
    return f"{saved.saved.day} {saved.saved:%b %Y, %H:%M}"


def describe(saved: SavedSession, noun: str = "slice") -> str:
    """What a saved session holds, in one sentence.

    Args:
        saved: the session.
        noun: what the study consists of: slice, picture.
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


def show_view(controller: StudyActions, view: Mapping[str, Any]) -> None:
    """Bring back what the person looked at; what a file cannot mean there is left out."""
    session = controller.session
    if session is None:
        return
    number, index = view.get("class"), view.get("slice")
    if isinstance(number, int) and number in {0, *(entry.number for entry in session.labels.classes)}:
        controller.select_class(number)
    if isinstance(index, int) and controller.layers is not None:
        controller.layers.go_to(min(max(index, 0), session.study.n_slices - 1))
    zoom, centre = view.get("zoom", 0), view.get("centre", [])
    if _are_numbers([zoom], 1) and zoom > 0 and _are_numbers(centre, 3):
        camera = camera_of(controller.viewer)
        camera.center, camera.zoom = tuple(centre), zoom


def _are_numbers(values: Any, count: int) -> bool:
    """Whether these can be so many millimetres, or canvas pixels per millimetre."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(value, int | float) and abs(value) < 1e6 for value in values)


def _plane(saved: SavedSession, study: Study) -> Plane:
    return Plane(saved.plane) if saved.plane in {plane.value for plane in Plane} else study.plane


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
