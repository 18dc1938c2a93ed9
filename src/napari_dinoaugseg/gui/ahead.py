"""Work ahead: one task at a time in a thread of its own, while nothing else runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from napari_dinoaugseg.errors import DinoAugSegError
from napari_dinoaugseg.gui.widgets import Inbox, in_background, single_shot, stop
from napari_dinoaugseg.learning.events import Cancel

_log = logging.getLogger(__name__)

_PAUSE = 500  # ms between the end of other work and the first task
_BETWEEN = 50  # ms between two tasks


@dataclass(frozen=True)
class Task:
    """Something to do ahead.

    Attributes:
        number: of the case.
        do: called in the thread; returns the result. It has to stop soon after the flag is set.
    """

    number: int
    do: Callable[[Cancel], object]


class Ahead:
    """Runs tasks in the background until it is stopped. Used on the GUI thread, except for `wait`.

    Args:
        following: the next task; None if there is nothing to do.
        done: called on the GUI thread with the number of the case and the result, or the error that ended the task.

    Attributes:
        failed: numbers of the cases whose task failed, which are not tried again.
    """

    def __init__(self, following: Callable[[], Task | None], done: Callable[[int, object], None]) -> None:
        self._following = following
        self._done = done
        self._cancel: Cancel | None = None
        self._awake = False
        self._turn = threading.Lock()  # held by the running task
        self.failed: set[int] = set()
        self._timer = single_shot(self._begin)
        self._results = Inbox(self._on_ended)

    @property
    def busy(self) -> bool:
        """Whether a task runs or is about to."""
        return self._cancel is not None

    def wake(self) -> None:
        """Go on with the next task in a moment."""
        self._awake = True
        if self._cancel is None:
            self._timer.start(_PAUSE)

    def stop(self) -> None:
        """Ask the running task to stop, and begin no other."""
        self._awake = False
        stop(self._timer)
        if self._cancel is not None:
            self._cancel.set()

    def wait(self, seconds: float = -1) -> bool:
        """Wait until the running task has ended; False on timeout."""
        if self._turn.acquire(timeout=seconds):
            self._turn.release()
            return True
        return False

    def forget(self, number: int) -> None:
        """Try the case of this number again."""
        self.failed.discard(number)

    def _begin(self) -> None:
        task = self._following() if self._cancel is None else None
        if task is None:
            return
        cancel = self._cancel = Cancel()
        self._turn.acquire()

        def work() -> None:
            result: object
            try:
                result = task.do(cancel)
            except Exception as error:
                if not (cancel or isinstance(error, DinoAugSegError)):
                    _log.exception("work ahead failed")
                result = error
            finally:
                self._turn.release()
            self._results.send(task.number, result, cancel)

        in_background(work, "work-ahead", cancel)

    def _on_ended(self, number: int, result: object, cancel: Cancel) -> None:
        self._cancel = None
        if isinstance(result, Exception):
            if not cancel:
                self.failed.add(number)
                self._done(number, result)
        else:
            self._done(number, result)
        if self._awake:
            self._timer.start(_BETWEEN)
