"""Saving in the background: a separate thread writes the newest snapshot, so that nothing waits for the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from napari_dinoaugseg.errors import DinoAugSegError, SessionError
from napari_dinoaugseg.session.index import Snapshot
from napari_dinoaugseg.session.store import SessionStore

_log = logging.getLogger(__name__)

Save = Callable[[SessionStore, Snapshot], None]
"""Writes a snapshot to a store, in the thread of the autosave."""

_RETRY = 5.0  # seconds after an error: disks are freed, shares come back


def _write(store: SessionStore, snapshot: Snapshot) -> None:
    store.save(snapshot)


class Autosave:
    """Writes snapshots of one session.

    Args:
        store: the session on disk; closed together with this.
        notify: called from the thread after each try: with None if all is saved, else with the error.
        save: writes a snapshot to the store; None = `SessionStore.save`. A project also keeps facts of the case.
    """

    def __init__(
        self, store: SessionStore, notify: Callable[[DinoAugSegError | None], None], save: Save | None = None
    ) -> None:
        self.store = store
        self._write = save or _write
        self._notify = notify
        self._wanted: Snapshot | None = None
        self._saving = False
        self._failed = False
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="autosave", daemon=True)
        self._thread.start()

    def request(self, snapshot: Snapshot) -> None:
        """Write this soon, in place of a snapshot that still waits."""
        with self._change:
            self._wanted, self._failed = snapshot, False
            self._change.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all is on disk; False on timeout or write error."""
        with self._change:
            self._failed = False  # try now, not in some seconds
            self._change.notify_all()
            self._change.wait_for(lambda: self._failed or self._is_idle, seconds)
            return self._is_idle

    def close(self, seconds: float = 30.0) -> bool:
        """Write what is left, end the thread, release the folder. Returns whether all is saved."""
        saved = self.wait(seconds)
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(seconds)
        self.store.close()
        return saved

    @property
    def _is_idle(self) -> bool:
        return self._wanted is None and not self._saving

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(self._may_start, _RETRY if self._failed else None)
                if self._closed:
                    return
                snapshot, self._wanted = self._wanted, None
                self._saving, self._failed = snapshot is not None, False
            if snapshot is not None:
                self._save(snapshot)

    def _may_start(self) -> bool:
        return self._closed or (self._wanted is not None and not self._failed)

    def _save(self, snapshot: Snapshot) -> None:
        problem: DinoAugSegError | None = None
        try:
            self._write(self.store, snapshot)
        except DinoAugSegError as error:
            problem = error
        except Exception as error:  # the thread must go on, and the person must know
            _log.exception("saving failed")
            problem = SessionError(f"Your labels could not be saved ({type(error).__name__}: {error}). Export them.")
        with self._change:
            self._saving, self._failed = False, problem is not None
            if problem is not None and self._wanted is None:
                self._wanted = snapshot
            self._change.notify_all()
        self._notify(problem)
