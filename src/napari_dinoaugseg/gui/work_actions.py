"""What a person can have done in the background: train, predict, load a model; and what comes out of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.case.case import ReadLabels
from napari_dinoaugseg.errors import CaseError, ClusterError, TrainingError
from napari_dinoaugseg.gui.core import in_the_panels_words
from napari_dinoaugseg.gui.jobs import Relay, Work
from napari_dinoaugseg.gui.label_actions import LabelActions
from napari_dinoaugseg.learning.events import Cancel, Notice, Prediction, Progress
from napari_dinoaugseg.session.index import Round
from napari_dinoaugseg.session.labels import LabelBook, Labels, Status, names_kept
from napari_dinoaugseg.session.session import EVERYTHING, PreparedModel

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.session.session import Session

_log = logging.getLogger(__name__)

TRAINING, PREDICTING = "Training", "Predicting"


class WorkActions(LabelActions):
    """Part of the controller."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self._work: Work | None = None
        self._sentences: list[str] = []
        self.work_name = ""
        self.interrupted = ""
        self.last_stage: str | None = None

    @property
    def busy(self) -> bool:
        """Whether work goes on in the background."""
        return self._work is not None

    @property
    def stopping(self) -> bool:
        """Whether the work was asked to stop and has not ended yet."""
        return self._work is not None and bool(self._work.cancel)

    # --- learning ---------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Learn from what is labelled now, then predict the other slices, those near the one in view first."""
        self.guarded(self._train)

    def predict(self) -> None:
        """Predict with what was learnt, nearest to the slice in view first."""
        self.guarded(self._predict)

    def stop(self) -> None:
        """Ask the work in the background to stop; what is there stays."""
        if self._work is not None and not self._work.cancel:
            self._work.stop()
            self.said.emit("Stopping…")

    def abandon_work(self) -> None:
        """Ask the work to stop and hear nothing more of it."""
        if self._work is not None:
            self._work.abandon()
            self._work = None

    def _train(self) -> None:
        self._require_idle()
        self.require_writable()
        session = self.session
        if session is None:
            msg = "There is no case yet. Open one in the Case section first."
            raise TrainingError(msg)
        self.flush()
        cancel = Cancel()
        training = session.train(cancel)

        def done(result: Round) -> None:
            self.encoder_in_use = session.encoder_name
            if cancel:
                self.said.emit(
                    f"Stopped after {result.steps} steps; what was learnt is kept. Predict uses it, Train goes on."
                )
            elif session is self.session:
                self._predict()

        self._start(TRAINING, lambda: training, done, cancel)

    def _predict(self) -> None:
        self._require_idle()
        self.require_writable()
        session = self.session
        if session is None:
            msg = "There is no case yet. Open one in the Case section first."
            raise TrainingError(msg)
        if not session.is_trained:
            msg = "There is no trained model yet. Label a few slices and train, or load a saved model."
            raise TrainingError(msg)
        self.flush()
        cancel, relay = Cancel(), Relay()
        predictions = session.predictions(self.current_slice, report=relay, cancel=cancel)
        started = time.monotonic()

        def done(_: object) -> None:
            count = len(session.labels.confidence)
            if cancel:
                self.said.emit(f"Stopped; {count} predicted slices are kept.")
            else:
                self.said.emit(f"{count} slices predicted in {time.monotonic() - started:.0f} s.")
            self.predictions_changed.emit(-1)

        self._start(PREDICTING, lambda: predictions, done, cancel, relay=relay)

    # --- in the background ------------------------------------------------------------------------------------------

    def run_function(
        self,
        name: str,
        function: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run a function in the background, then `done` (or `failed`) on the thread of the interface."""

        def source() -> Generator[Any, None, Any]:
            yield from ()  # what goes on, the panel says by its name
            return function()

        def start() -> None:
            self._require_idle()
            self._start(name, source, done, Cancel(), failed)

        self.guarded(start)

    def say_from_work(self, sentence: str) -> None:
        """Take a sentence from the thread of the work; it is shown with the next event."""
        self._sentences.append(in_the_panels_words(sentence))

    def _require_idle(self) -> None:
        if self.busy:
            msg = f"{self.work_name} is still going on. Wait for it, or press Stop."
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
        session = self.session

        def on_event(event: object) -> None:
            if not self.closed:
                self._on_event(event, session)

        def on_done(result: Any) -> None:
            if not self.closed:
                self._tell_sentences()
                self.guarded(done, result)

        def on_error(error: Exception) -> None:
            if not self.closed:
                self._tell_sentences()
                (failed or tell)(error)

        def tell(error: Exception) -> None:
            self._on_error(error, name, session, stopped=bool(cancel))

        def on_end() -> None:
            self._work = None
            self.work_name = ""
            if not self.closed:
                self.work_finished.emit()

        source = self.saving.before(source)  # whatever happens from here on, what was painted is on disk
        self.set_interrupted("")
        self.work_name = name
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
        self.work_started.emit(name)

    def _on_error(self, error: Exception, name: str, session: Session | None, *, stopped: bool) -> None:
        if session is not None and session is not self.session:
            self._tell_of_case_before(error, session.case.name, stopped=stopped)
            return
        if isinstance(error, ClusterError):
            self.set_interrupted(name)
        if stopped and isinstance(error, TrainingError):
            self.said.emit("Stopped before anything was learnt.")
        else:
            self.tell_error(error)

    def _tell_of_case_before(self, error: Exception, name: str, *, stopped: bool) -> None:
        """An error of a case that was left since: its words must not stand in the panel of the next one."""
        if not stopped or not isinstance(error, TrainingError | ClusterError):
            from napari.utils.notifications import show_error

            _log.error("error in work on a case that was left", exc_info=error)
            show_error(f"{name}: {error}")

    def set_interrupted(self, name: str) -> None:
        """Remember what a scheduler's loss ended, by its name; empty = nothing, or nothing that matters any more."""
        name = name if name in (TRAINING, PREDICTING) else ""
        if self.interrupted != name:
            self.interrupted = name
            self.interrupted_changed.emit()

    def _on_event(self, event: object, session: Any) -> None:
        self._tell_sentences()
        if isinstance(event, Progress):
            self.last_stage = event.stage
            self.progressed.emit(event)
        elif isinstance(event, Notice):
            self.notice.emit(event.text)
        elif isinstance(event, Prediction) and session is self.session and session is not None:
            session.store_prediction(event)
            if self.layers is not None:
                self.layers.keep_confidence(event)
                self.layers.show_predictions([event.index])
            self.predictions_changed.emit(event.index)

    def _tell_sentences(self) -> None:
        while self._sentences:
            self.notice.emit(self._sentences.pop(0))
        if self.session is not None and self.encoder_in_use is None and self.session.is_ready:
            self.encoder_in_use = self.session.encoder_name
            self.settings_changed.emit()

    # --- another window writes ---------------------------------------------------------------------------------------

    def _book_now(self) -> LabelBook | None:
        """The label book with the last strokes in it, to be changed; a sentence where it may not be."""
        return super()._book_now() if self.guarded(self.require_writable) else None

    def class_holds_paint(self, number: int) -> list[int]:
        """The slices on which a class is painted; none where nothing can be erased."""
        return [] if self.read_only else super().class_holds_paint(number)

    # --- results ----------------------------------------------------------------------------------------------------

    def export(self, path: Path, include: Iterable[Status] = EVERYTHING, *, per_class: bool = False) -> list[Path]:
        """Write the mask; returns the files. What is there is replaced: ask before. Raises DinoAugSegError."""
        from napari_dinoaugseg.session.export import export_masks

        written = export_masks(self._session_now(), path, include, per_class=per_class)
        self.said.emit(f"Exported to {path}.")
        return written

    def load_labels(self, path: Path) -> None:
        """Take labels from a file, or a folder of masks, for the slices that are not labelled by hand yet."""
        session = self.session

        def done(loaded: dict[int, Labels]) -> None:
            if session is self.session:
                self._take_labels(path, loaded)

        self.guarded(self.require_writable)
        if session is not None and not self.read_only:
            self.run_function("Reading labels", lambda: session.case.read_labels(path), done)

    def _take_labels(self, path: Path, loaded: dict[int, Labels]) -> None:
        session = self._session_now()
        read = loaded if isinstance(loaded, ReadLabels) else ReadLabels(loaded)
        free = {index: labels for index, labels in read.items() if session.labels.manual(index) is None}
        taken = session.take_labels(
            ReadLabels(free, segments=read.segments, may_be_unknown=read.may_be_unknown),
            path,
        )
        self._classes_were_changed()
        self._show_labels(taken)
        kept = len(loaded) - len(taken)
        words = f"{len(taken)} labelled slices taken from {path.name}. Ctrl+Z takes it back."
        words = f"{words} {kept} that you labelled by hand stay as they are." if kept else words
        sentences = [*read.notices, *names_kept(session.labels.classes, read.segments)]
        self.said.emit(" ".join([words, *(f"{in_the_panels_words(sentence).rstrip('.')}." for sentence in sentences)]))

    def write_report(self, path: Path, include: Iterable[Status] = EVERYTHING) -> None:
        """Write the JSON report. Raises DinoAugSegError."""
        from napari_dinoaugseg.session.export import write_report

        write_report(path, self._session_now(), include)
        self.said.emit(f"Report written to {path}.")

    def save_model(self, path: Path) -> None:
        """Write the trained model for the next case. Raises DinoAugSegError."""
        session = self._session_now()
        if not session.is_trained:
            msg = "There is no trained model to save. Train first."
            raise TrainingError(msg)
        session.save_model(path)
        self.said.emit(f"Model saved to {path}.")

    def load_model(self, path: Path, *, predict: bool = True) -> None:
        """Take over a saved model in the background, and predict the open case with it."""

        def start() -> None:
            session: Session = self._session_now()
            self._require_idle()
            self.require_writable()
            brings_classes = not session.labels.labelled  # nothing depends on the session's own yet

            def source() -> Generator[Any, None, PreparedModel]:
                yield Notice("Loading the model…")
                return session.prepare_model(path, brings_classes=brings_classes)

            def done(prepared: PreparedModel) -> None:
                if session is not self.session:
                    prepared.engine.close()
                    return
                self.flush()
                session.adopt_model(prepared)
                self.encoder_in_use = session.encoder_name
                self.settings = session.settings
                self.settings_changed.emit()
                self._classes_were_changed()
                if predict:
                    self._predict()

            self._start("Loading the model", source, done, Cancel())

        self.guarded(start)

    def _session_now(self) -> Any:
        if self.session is None:
            msg = "There is no case yet. Open one in the Case section first."
            raise CaseError(msg)
        self.saving.secure()
        return self.session
