"""Work in the background: one piece at a time, stopped at its next step, shown in napari's list of tasks.

The worker's thread only draws events from a generator. They are handled on the thread of the interface.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from napari_dinoaugseg.learning.events import Cancel

Handler = Callable[[Any], None]


class Relay:
    """Takes events in the thread of the work and hands them to the thread of the interface, once the work has begun."""

    def __init__(self) -> None:
        self.emit: Handler = lambda _: None

    def __call__(self, event: object) -> None:
        """Hand over an event; it is lost before the work has begun."""
        self.emit(event)


class Work:
    """One running piece of work.

    Args:
        name: for napari's list of tasks.
        source: makes the events; called in the thread, so that errors while it starts are caught as well.
        on_event: gets each event.
        on_done: gets what the generator returned.
        on_error: gets the exception that ended it.
        on_end: called last, whatever happened.
        cancel: set to ask for the stop.
        relay: where the work reports events that it does not yield.
    """

    def __init__(
        self,
        name: str,
        source: Callable[[], Iterator[Any]],
        *,
        on_event: Handler,
        on_done: Handler,
        on_error: Handler,
        on_end: Callable[[], None],
        cancel: Cancel,
        relay: Relay | None = None,
    ) -> None:
        from napari.qt.threading import create_worker

        self.cancel = cancel
        self._on_end = on_end

        def work() -> Generator[Any, None, Any]:
            try:
                result = yield from _generator(source())
            except Exception as error:  # handed over as a value: napari would show a traceback
                return _Failure(error)
            return result

        def done(result: Any) -> None:
            self._end()
            if isinstance(result, _Failure):
                on_error(result.error)
            else:
                on_done(result)

        work.__name__ = work.__qualname__ = name
        self._worker: Any = create_worker(work, _start_thread=False, _ignore_errors=True)
        self._worker.yielded.connect(on_event)
        self._worker.returned.connect(done)
        self._worker.aborted.connect(self._aborted)
        if relay is not None:
            relay.emit = self._worker.yielded.emit
        self._worker.start()

    def stop(self) -> None:
        """Ask for the stop; the work ends by itself at its next step."""
        self.cancel.set()

    def abandon(self) -> None:
        """Ask for the stop and hear nothing more: the viewer closes."""
        self.cancel.set()
        self._on_end = lambda: None
        for signal in (self._worker.yielded, self._worker.returned, self._worker.aborted):
            signal.disconnect()
        self._worker.quit()

    def _aborted(self) -> None:
        self.cancel.set()
        self._end()

    def _end(self) -> None:
        end, self._on_end = self._on_end, lambda: None
        end()


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error


def _generator(events: Iterator[Any]) -> Generator[Any, None, Any]:
    return (yield from events)
