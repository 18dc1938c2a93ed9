"""Background work: train, predict, read files. One job at a time; a job stops at its next step.

The worker thread only iterates over a generator of events. They are handled on the GUI thread, which alone changes
layers and labels.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import ClusterError, DinoAugSegError, TrainingError
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.words import in_words
from napari_dinoaugseg.learning.events import Cancel, Notice, Prediction, Progress

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.index import Round
    from napari_dinoaugseg.session.labels import Labels
    from napari_dinoaugseg.session.session import PreparedModel, Session

_log = logging.getLogger(__name__)

Handler = Callable[[Any], None]

TRAINING, PREDICTING, OPENING = "Training", "Predicting", "Opening"


class Relay:
    """Passes events that a job reports without yielding them to the GUI thread; events before its start are dropped."""

    def __init__(self) -> None:
        self.emit: Handler = lambda _: None

    def __call__(self, event: object) -> None:
        """Pass an event on."""
        self.emit(event)


class Work:
    """One running job, shown in napari's list of tasks.

    Args:
        name: for napari's list of tasks.
        source: returns the events; called in the worker thread, so that its own errors are caught as well.
        on_event: called with each event.
        on_done: called with the return value of the generator.
        on_error: called with the exception that ended it.
        on_end: called last in any case.
        cancel: the flag that requests the stop.
        relay: receives events that are reported rather than yielded.
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
            except Exception as error:  # returned as a value, because napari would show a traceback
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

    def abandon(self) -> None:
        """Request the stop and disconnect, because the viewer closes."""
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


class Jobs:
    """The background work of a viewer, one job at a time.

    Attributes:
        name: of the running job, as "Training"; empty if none is running.
        count: how many jobs were started.
        interrupted: the name of the job that ended because the scheduler was lost; empty = none.
        last_stage: the stage of the last progress event: "encode", "train", "adapt", "predict"; None before the first.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._work: Work | None = None
        self._notices: list[str] = []
        self.name = ""
        self.count = 0
        self.interrupted = ""
        self.last_stage: str | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._work is not None

    @property
    def is_predicting(self) -> bool:
        """Whether the running job is a prediction, which may be stopped without loss."""
        return self.name == PREDICTING

    @property
    def is_opening(self) -> bool:
        """Whether the running job reads a case or a project."""
        return self.name.startswith(OPENING)

    @property
    def stopping(self) -> bool:
        """Whether the running job was asked to stop."""
        return self._work is not None and bool(self._work.cancel)

    # --- jobs -------------------------------------------------------------------------------------------------------

    @guarded
    def train(self) -> None:
        """Train on the current labels, then predict the other slices, those near the one in view first."""
        controller = self.controller
        session = self._ready()
        if controller.sessions.unanswered:
            msg = "Your saved labels are not in view yet. Press Continue to train on them, or Start over."
            raise TrainingError(msg)
        cancel, held = Cancel(), controller.project.held
        training = session.train(cancel) if held is None else held[0].train(held[1], session, cancel)

        def done(result: Round) -> None:
            controller.setup.encoder_in_use = session.encoder_name
            if cancel:
                controller.notify(
                    f"Stopped after {result.steps} steps; what was learnt is kept. Predict uses it, Train continues it."
                )
            elif session is controller.session:
                self.predict()

        self._start(TRAINING, lambda: training, done, cancel)

    @guarded
    def predict(self) -> None:
        """Predict with the trained model, slices near the one in view first."""
        controller = self.controller
        session = self._ready()
        if not session.is_trained:
            msg = "No model is trained yet. Label a few slices and train, or load a saved model."
            raise TrainingError(msg)
        cancel, relay = Cancel(), Relay()
        predictions = session.predictions(controller.current_slice, report=relay, cancel=cancel)
        started = time.monotonic()

        def done(_: object) -> None:
            count = len(session.labels.confidence)
            if cancel:
                controller.notify(f"Stopped; {count} predicted slices are kept.")
            else:
                controller.project.predicted(session)
                controller.notify(f"{count} slices predicted in {time.monotonic() - started:.0f} s.")
            controller.touch(Change.PREDICTIONS)

        self._start(PREDICTING, lambda: predictions, done, cancel, relay=relay)

    @guarded
    def load_model(self, path: Path) -> None:
        """Load a saved model and predict the open case with it."""
        controller = self.controller
        session = self._ready()
        # Unless labels depend on the session's classes already.
        brings_classes = not (session.labels.labelled or controller.project.labelled_elsewhere)

        def source() -> Generator[Any, None, PreparedModel]:
            yield Notice("Loading the model…")
            return session.prepare_model(path, brings_classes=brings_classes)

        def done(prepared: PreparedModel) -> None:
            if session is not controller.session:
                prepared.engine.close()
                return
            controller.flush()
            session.adopt_model(prepared)
            controller.setup.adopt(session)
            controller.labels.show_classes()
            controller.project.keep_model(session, then=self.predict)

        self._start("Loading the model", source, done, Cancel())

    @guarded
    def load_labels(self, path: Path) -> None:
        """Load labels from a file or a folder of masks for the slices that are not labelled by hand."""
        controller = self.controller
        session = self._ready()

        def done(loaded: dict[int, Labels]) -> None:
            if session is controller.session:
                controller.labels.take(path, loaded)

        self.run("Reading labels", lambda: session.case.read_labels(path), done)

    def stop(self) -> None:
        """Ask the running job to stop; its results so far are kept."""
        if self._work is not None and not self._work.cancel:
            self._work.cancel.set()
            self.controller.notify("Stopping…")

    def abandon(self) -> None:
        """Ask the running job to stop, and ignore its results."""
        if self._work is not None:
            self._work.abandon()
            self._work = None

    # --- running ----------------------------------------------------------------------------------------------------

    @guarded
    def run(
        self,
        name: str,
        function: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run a function in the background, then `done` (or `failed`) on the GUI thread."""

        def source() -> Generator[Any, None, Any]:
            yield from ()
            return function()

        self.start(name, source, done, Cancel(), failed)

    def start(
        self,
        name: str,
        source: Callable[[], Iterator[Any]],
        done: Callable[[Any], None],
        cancel: Cancel,
        failed: Callable[[Exception], None] | None = None,
        relay: Relay | None = None,
    ) -> None:
        """Draw events in the background until the flag is set, then call `done`. Raises TrainingError while busy."""
        self._require_idle()
        self._start(name, source, done, cancel, failed, relay)

    def notify_later(self, sentence: str) -> None:
        """Receive a notice in the worker thread; it is shown with the next event."""
        self._notices.append(in_words(sentence))

    def set_interrupted(self, name: str) -> None:
        """Record the job that ended because the scheduler was lost, if it is a training or a prediction."""
        name = name if name in (TRAINING, PREDICTING) else ""
        if self.interrupted != name:
            self.interrupted = name
            self.controller.touch(Change.WORK)

    def compute_here(self) -> None:
        """Stop using the scheduler, and restart the interrupted job on this computer."""
        begin = self.train if self.interrupted == TRAINING else self.predict
        self.controller.setup.use_scheduler("")
        begin()

    def _ready(self) -> Session:
        """The session, with the last strokes read. Raises TrainingError or SessionError if no job can be started."""
        self._require_idle()
        self.controller.require_writable()
        session = self.controller.session
        if session is None:
            msg = "No case is open. Open one in the Case section first."
            raise TrainingError(msg)
        self.controller.flush()
        return session

    def _require_idle(self) -> None:
        if self.busy:
            msg = f"{self.name} is still running. Wait for it, or press Stop."
            raise TrainingError(msg)

    def _start(
        self,
        name: str,
        source: Callable[[], Iterator[Any]],
        done: Callable[[Any], None],
        cancel: Cancel,
        failed: Callable[[Exception], None] | None = None,
        relay: Relay | None = None,
    ) -> None:
        controller = self.controller
        session = controller.session

        def on_event(event: object) -> None:
            if not controller.closed:
                self.show_event(event, session)

        def on_done(result: Any) -> None:
            if not controller.closed:
                self._show_notices()
                controller.guarded(done, result)

        def on_error(error: Exception) -> None:
            if not controller.closed:
                self._show_notices()
                (failed or report)(error)

        def report(error: Exception) -> None:
            self._report(error, name, session, stopped=bool(cancel))

        def on_end() -> None:
            self._work = None
            self.name = ""
            if not controller.closed:
                controller.touch(Change.WORK)

        source = controller.saving.before(source)  # all paint is on disk before the job begins
        source = controller.project.before(source)
        source = controller.live.before(source, learns=name == TRAINING)
        self.set_interrupted("")
        self.name = name
        self.count += 1
        self._work = Work(
            name,
            source,
            on_event=on_event,
            on_done=on_done,
            on_error=on_error,
            on_end=on_end,
            cancel=cancel,
            relay=relay,
        )
        controller.notify("", "clear")
        controller.touch(Change.WORK)

    def show_event(self, event: object, session: Session | None) -> None:
        """Show progress, a notice or a prediction of a job on a session."""
        controller = self.controller
        self._show_notices()
        if isinstance(event, Progress):
            self.last_stage = event.stage
            controller.progressed.emit(event)
        elif isinstance(event, Notice):
            controller.notify(in_words(event.text), "notice")
        elif isinstance(event, Prediction) and session is controller.session and session is not None:
            session.store_prediction(event)
            if controller.layers is not None:
                controller.layers.keep_confidence(event)
                controller.layers.show_predictions([event.index])
            controller.touch(Change.PREDICTIONS)

    def _show_notices(self) -> None:
        while self._notices:
            self.controller.notify(self._notices.pop(0), "notice")
        self.controller.setup.see_encoder()

    def _report(self, error: Exception, name: str, session: Session | None, *, stopped: bool) -> None:
        controller = self.controller
        if session is not None and session is not controller.session:
            self._report_of_another_case(error, session.case.name, stopped=stopped)
            return
        if isinstance(error, ClusterError):
            self.set_interrupted(name)
        if stopped and isinstance(error, TrainingError):
            controller.notify("Stopped before anything was learnt.")
        else:
            controller.show_error(error)

    def _report_of_another_case(self, error: Exception, name: str, *, stopped: bool) -> None:
        """Report an error in work on a case that was closed meanwhile, outside the panel of the next case."""
        if not stopped or not isinstance(error, TrainingError | ClusterError):
            from napari.utils.notifications import show_error

            _log.error("error in work on a case that was closed", exc_info=error)
            show_error(f"{name}: {in_words(error) if isinstance(error, DinoAugSegError) else error}")
