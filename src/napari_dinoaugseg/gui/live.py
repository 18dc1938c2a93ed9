"""Live learning in the panel: while the person paints, a decoder learns in the background and masks appear."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.setup import preferences, remember_live
from napari_dinoaugseg.gui.widgets import Inbox, in_background, single_shot, stop
from napari_dinoaugseg.gui.words import noun_of
from napari_dinoaugseg.learning.events import Cancel, Event, Notice, Prediction, Progress, nearest_first
from napari_dinoaugseg.session.compute import Learned, LiveFeed, LiveState

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

T = TypeVar("T")

_SOON = 150  # ms from a change of labels to its learning; further changes do not delay it
_AFTER_WORK = 300  # ms from the end of other work
_PATIENCE = 60.0  # seconds that other work waits for the end of a burst, or until the encoder is loaded
_AT_THE_END = 2.0  # seconds that closing waits for it
_SLOW = 2.0  # steps in a second, below which the person learns what it costs


class _Run:
    """Live learning of one session in a thread of its own."""

    def __init__(self, session: Session, state: LiveState, conditions: object) -> None:
        self.session, self.state, self.conditions = session, state, conditions
        self.feed, self.cancel = LiveFeed(), Cancel()
        self.feed.put(state)

    def put(self, state: LiveState) -> None:
        """Work on this state from now on."""
        self.state = state
        self.feed.put(state)


class LiveWork:
    """Learns from the labels of the open case while they change. Used on the GUI thread, except for `wait`.

    While it is switched on and no job runs, it loads the encoder and encodes the slices in view, if the weights are on
    this machine, and learns once a class is labelled. It downloads nothing and sends no image to a scheduler before
    that. A job stops it and waits for its end; the first change after that starts it again.

    Attributes:
        controller: of the viewer.
        is_on: whether the person wants it: the choice in the preferences, until it is switched.
        progress: of the learning; None before it has begun.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.is_on = preferences().live
        self.progress: Progress | None = None
        self._run: _Run | None = None
        self._turn = threading.Lock()  # held while a run computes
        self._learned: tuple[object, Learned] | None = None  # by the last run that ended, and for which project
        self._has_news = False  # whether labels changed since the last training
        self._timer = single_shot(self._update)
        self._found = Inbox(self._on_found)

    # --- when -------------------------------------------------------------------------------------------------------

    def switch(self, on: bool) -> None:
        """Switch it on or off, for the next viewers too; masks that it has made stay."""
        self.is_on = on
        remember_live(on)
        self._has_news = True
        if on:
            self._timer.start(0)
        else:
            self.stop()
        self.controller.touch(Change.WORK)

    def follow(self, what: Change) -> None:
        """Follow labels and classes, the slice in view, and other work."""
        if what & Change.SESSION:
            self.stop()
            self._has_news = False
        if what & (Change.LABELS | Change.CLASSES) and not what & Change.SESSION:
            self._has_news = True
        if not self.is_on:
            return
        if what & (Change.WORK | Change.SESSION):
            self._wake(_AFTER_WORK)
        elif what & Change.SETTINGS and (self._run is None or self._run.conditions != self._conditions()):
            self.stop()
            self._wake(_AFTER_WORK)  # also once the weights of the encoder are found
        elif what & (Change.LABELS | Change.CLASSES):
            self._wake(_SOON)
        elif what & Change.SLICE and self._run is not None:
            state = self._run.state
            self._run.put(replace(state, order=tuple(nearest_first(state.order, self.controller.current_slice))))

    def before(self, work: Callable[[], T], *, learns: bool) -> Callable[[], T]:
        """Stop, and let the thread of other work wait for the end; ``learns``: that work learns all labels itself."""
        self.stop()
        if learns:
            self._has_news = False

        def once_stopped() -> T:
            self._wait(_PATIENCE)
            return work()

        return once_stopped

    def _wait(self, seconds: float) -> None:
        """Wait until no run computes any more; in any thread."""
        if self._turn.acquire(timeout=seconds):
            self._turn.release()

    def _wake(self, milliseconds: int) -> None:
        if not self._timer.isActive():
            self._timer.start(milliseconds)

    def stop(self) -> None:
        """Ask the run to end, and drop what it still finds."""
        stop(self._timer)
        run, self._run, self.progress = self._run, None, None
        if run is not None:
            run.cancel.set()

    # --- learning ---------------------------------------------------------------------------------------------------

    @property
    def words(self) -> str:
        """What it does, a sentence; empty if it is switched off."""
        session = self.controller.session
        if not self.is_on or session is None:
            return ""
        if self._run is not None and self.progress is None and not session.is_ready:
            return "Live: loading the encoder…"
        if self._run is None and session.labels.labelled and not self.may_load:
            return "Live waits for the weights of the encoder; see Encoder in the Case section."
        if session.case.n_slices == 1 and self.controller.project.held is None:
            return ""  # no other slice, nor a next case to learn for
        noun = noun_of(session.case)
        where = "in the next cases" if session.case.n_slices == 1 else f"on the other {noun}s"
        if not session.labels.labelled and not self.controller.project.labelled_elsewhere:
            return f"Live: paint a {noun}, and masks appear {where}."
        if self._run is None:
            return ""
        if not (self._run.state.is_enough or self.controller.project.labelled_elsewhere):
            return f"Live: label a class and some background, and masks appear {where}."
        if self.progress is None:
            return "Live: looking at your labels…"
        if self.progress.done == self.progress.total:
            return "Live: the masks are up to date with your labels."
        pace = self.progress.rate
        slow = f" ({1 / pace:.1f} s a step on this machine)" if 0 < pace < _SLOW else ""
        return f"Live: {self.progress.words}{slow}."

    def _update(self) -> None:
        """Begin, or pass the labels on as they are now."""
        controller = self.controller
        session = controller.session
        if session is None or controller.closed or controller.jobs.busy or controller.read_only or not self.is_on:
            return
        if self._run is None and not (self._has_news or not session.is_trained):
            return
        if not self.may_load or (self.controller.setup.scheduler and not session.labels.labelled):
            return
        # Strokes are in the label book when they are reported; one that goes on now is reported at its end.
        state = session.live_state(controller.current_slice)
        session.last_round.begin()
        if self._run is not None:
            self._run.put(state)
        else:  # without labels it loads the encoder, and looks at the slices around the one in view
            self._begin(_Run(session, state, self._conditions()))

    @property
    def may_load(self) -> bool:
        """Whether the encoder can be loaded without asking: it is here already, or on a worker."""
        setup = self.controller.setup
        return bool(setup.scheduler) or setup.has_weights

    def _conditions(self) -> object:
        """The settings and the place that a run depends on."""
        setup = self.controller.setup
        return setup.settings, setup.compute_config

    def _begin(self, run: _Run) -> None:
        held = self.controller.project.held
        others = None if held is None else lambda: list(held[0].labelled(but=held[1]).values())
        made_for = None if held is None else (held[0].folder, held[0].model_file, run.conditions)

        def start() -> Learned | None:
            return self._learned[1] if self._learned is not None and self._learned[0] == made_for else None

        self._run = run
        self.controller.touch(Change.LIVE)
        # The label book belongs to this thread: the source copies at the call what it needs.
        source = run.session.live(
            run.feed,
            report=lambda event: self._emit(run, event),
            cancel=run.cancel,
            others=others,
            learned=() if held is None else held[0].learned,
            start=start,
        )

        def watched() -> Generator[Prediction, None, None]:
            learned = yield from source
            if learned is not None:
                self._learned = made_for, learned

        self.controller.project.ahead.stop()

        def work() -> None:
            with self._turn:  # the run before may still compute
                if run.cancel:  # stopped before its turn: a second engine would take the place of the one that trains
                    return
                try:
                    self.controller.project.ahead.wait()
                    for found in watched():
                        self._emit(run, found)
                except Exception as error:
                    self._emit(run, error)

        in_background(work, "live", run.cancel)

    def _emit(self, run: _Run, item: object) -> None:
        if not run.cancel:
            self._found.send(run, item)

    def _on_found(self, run: _Run, item: Event | Prediction | Exception) -> None:
        controller = self.controller
        if run is not self._run or run.cancel or controller.closed:
            return
        if isinstance(item, Prediction):
            if item.index in run.state.order:  # what was labelled meanwhile needs no mask
                controller.jobs.show_event(item, run.session)
        elif isinstance(item, Notice):
            controller.jobs.show_event(item, run.session)
        elif isinstance(item, Exception):
            self.stop()
            self.is_on = False
            controller.show_error(item)
            controller.notify("Live was switched off. Your labels are safe.", "notice")
            controller.touch(Change.WORK)
        elif isinstance(item, Progress) and item.stage == "live":
            self.progress = item if item.total else None
            controller.setup.see_encoder()
            controller.touch(Change.LIVE)
            if not self.learns:
                controller.project.ahead.wake()

    @property
    def learns(self) -> bool:
        """Whether it learns just now, so that other work in the background should wait."""
        if self._run is None or not (self._run.state.is_enough or self.controller.project.labelled_elsewhere):
            return False
        return self.progress is None or self.progress.done < self.progress.total

    def dispose(self) -> None:
        """End with the viewer."""
        self.stop()
        self._wait(_AT_THE_END)
