"""Live learning in a thread of its own, as the panel runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from napari_dinoaugseg.learning.events import Cancel, Progress
from napari_dinoaugseg.session.compute import LiveFeed

PATIENT = 120.0


class Live:
    """Live learning of a session, begun at once.

    Attributes:
        found: predictions as they came.
        events: that were reported.
        learned: its model, once it has ended; None before.
    """

    def __init__(self, session, **options) -> None:
        self.session, self.feed, self.cancel = session, LiveFeed(), Cancel()
        self.found, self.events, self.error, self.learned = [], [], None, None
        self.source = session.live(self.feed, report=self.events.append, cancel=self.cancel, **options)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                self.found.append(next(self.source))
        except StopIteration as end:
            self.learned = end.value
        except Exception as error:
            self.error = error

    def show(self, centre: int = 0) -> None:
        self.feed.put(self.session.live_state(centre))

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENT
        while not condition():
            assert self.error is None, self.error
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def masks(self) -> dict[int, np.ndarray]:
        return {prediction.index: prediction.classes for prediction in list(self.found)}

    @property
    def steps(self) -> int:
        """Steps that the last change of labels was worth; 1 for none."""
        return max((event.total for event in self.events[-1:] if isinstance(event, Progress)), default=0)

    @property
    def rests(self) -> bool:
        progress = [event for event in self.events if isinstance(event, Progress)]
        return bool(progress) and 0 < progress[-1].done == progress[-1].total

    def end(self) -> None:
        self.cancel.set()
        self.thread.join(PATIENT)
        assert not self.thread.is_alive()
        assert self.error is None, self.error
