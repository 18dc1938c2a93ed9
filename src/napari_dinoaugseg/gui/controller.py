"""The state of the plugin in one viewer and the parts that act on it, without widgets."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal, SignalInstance
from qtpy.compat import isalive

from napari_dinoaugseg.errors import DinoAugSegError, LabelError, SessionError
from napari_dinoaugseg.gui.canvas import main_window
from napari_dinoaugseg.gui.cases import Cases
from napari_dinoaugseg.gui.core import Change, Follower, Kind, Message
from napari_dinoaugseg.gui.jobs import Jobs
from napari_dinoaugseg.gui.judging import Judging
from napari_dinoaugseg.gui.labelling import Labelling
from napari_dinoaugseg.gui.live import LiveWork
from napari_dinoaugseg.gui.paint_rules import PaintRules
from napari_dinoaugseg.gui.planes import ThreePlanes
from napari_dinoaugseg.gui.project import ProjectWork
from napari_dinoaugseg.gui.reading import Reading
from napari_dinoaugseg.gui.ruler import Ruler
from napari_dinoaugseg.gui.saving import Saving, SessionActions
from napari_dinoaugseg.gui.setup import Setup
from napari_dinoaugseg.gui.smart import SmartScribble
from napari_dinoaugseg.gui.surfaces import Surfaces
from napari_dinoaugseg.gui.view import CanvasGuard, FillGuard, Looking, Tools, View
from napari_dinoaugseg.gui.widgets import single_shot, stop
from napari_dinoaugseg.gui.windowing import WindowDrag
from napari_dinoaugseg.gui.words import in_words

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.layers import CaseLayers
    from napari_dinoaugseg.gui.view import ViewGuard
    from napari_dinoaugseg.session.session import Session

_log = logging.getLogger(__name__)

_TOGETHER = 60  # ms within which changes are collected into one `changed` signal


class Controller:
    """The state of the plugin in one viewer. Get it with :meth:`of`: all panels of a viewer share one.

    Attributes:
        viewer: napari's viewer.
        session: the open case with its labels; None if no case is open.
        layers: the layers of the case; None if no case is open.
        guard: prevents painting while the view shows something else; None if no case is open.
        setup: settings, encoder weights and device of the training.
        jobs: background work.
        live: learning while the person paints.
        smart: the outline that completes the strokes on the slice in view.
        cases: opening and closing cases.
        project: the project with its cases, if one is open.
        view: the slice in view, its sequence and its intensity window.
        labels: actions on labels and classes.
        tools: the tool in use.
        windowing: the intensity window under the hand.
        surfaces: the classes in three dimensions.
        judging: how predictions are drawn against the image.
        reading: which slice is in view and what lies under the cursor, in words and numbers.
        ruler: takes lengths and angles on the slices, and draws them.
        paint_rules: what the painting tools may change.
        planes: the two other planes of the case, in views beside napari's own.
        saving: saves the session to disk.
        sessions: saved sessions of the case that can be resumed.
        followers: parts that are called immediately at each change.
        users: the number of panels.
        closed: whether the viewer was closed.
        read_only: a sentence on why nothing can be changed (another window writes this session); empty if it can.
    """

    _without_panel: ClassVar[dict[int, Controller]] = {}
    _of_viewer: ClassVar[weakref.WeakValueDictionary[int, Controller]] = weakref.WeakValueDictionary()

    @classmethod
    def of(cls, viewer: napari.Viewer) -> Controller:
        """The controller of a viewer, created on first use. Keep a reference: the class holds only a weak one."""
        # A viewer inside a plugin may be a proxy for the real one.
        viewer = getattr(viewer, "__wrapped__", viewer)
        found = cls._of_viewer.get(id(viewer))
        if found is None or found.closed:
            found = cls(viewer)
            cls._of_viewer[id(viewer)] = found
        cls._without_panel.pop(id(viewer), None)
        return found

    changed = Signal(object)  # Change: everything that changed since the last emission
    progressed = Signal(object)  # learning.events.Progress
    notified = Signal(object)  # Message

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer
        self.session: Session | None = None
        self.layers: CaseLayers | None = None
        self.guard: ViewGuard | None = None
        self.users = 0
        self.closed = False
        self.read_only = ""
        self._canvas_guard = CanvasGuard(viewer)
        self.setup = Setup(self)
        self.view = View(self)
        self.labels = Labelling(self)
        self.tools = Tools(self)
        self.windowing = WindowDrag(self)
        self.surfaces = Surfaces(self)
        self.judging = Judging(self)
        self.reading = Reading(self)
        self.ruler = Ruler(self)
        self.paint_rules = PaintRules(self)
        self.planes = ThreePlanes(self)
        self.jobs = Jobs(self)
        self.saving = Saving(self)
        self.sessions = SessionActions(self)
        self.cases = Cases(self)
        self.project = ProjectWork(self)
        self.live = LiveWork(self)
        self.smart = SmartScribble(self)
        self.followers: list[Follower] = [
            self.view.sequences,  # before those that read the one in view
            self.saving,
            self.cases,
            self.project,
            self.live,
            self.smart,
            self.surfaces,
            self.windowing,
            self.judging,
            self.reading,
            self.ruler,
            Looking(self),
            FillGuard(self),
            self.paint_rules,
            self.tools,
            self.planes,
        ]
        self._pending = Change(0)
        self._timer = single_shot(self._emit_changes)

    @property
    def current_slice(self) -> int:
        """The index of the slice in view; 0 if no case is open."""
        return self.layers.current_slice if self.layers is not None else 0

    # --- changes and messages ---------------------------------------------------------------------------------------

    def touch(self, what: Change) -> None:
        """Report a change: to the followers immediately, to the panel by the debounced signal `changed`."""
        if self.closed:
            return
        self._pending |= what
        for follower in tuple(self.followers):
            follower.follow(what)
        if isalive(self._timer) and not self._timer.isActive():  # type: ignore[no-untyped-call]
            self._timer.start(_TOGETHER)

    def notify(self, text: str, kind: Kind = "done") -> None:
        """Show a sentence to the person."""
        self.notified.emit(Message(text, kind))

    def _emit_changes(self) -> None:
        pending, self._pending = self._pending, Change(0)
        self.changed.emit(pending)

    # --- safety -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Read the last strokes into the label book."""
        if self.layers is not None:
            self.layers.flush()

    def require_writable(self) -> None:
        """Raise SessionError if another window writes the session."""
        if self.read_only:
            raise SessionError(self.read_only)

    def require_view(self, index: int) -> None:
        """Raise LabelError if this slice is the current one, but the view shows something else."""
        if self.guard is not None and self.guard.reason and index == self.current_slice:
            raise LabelError(self.guard.reason)

    def show_error(self, error: BaseException) -> None:
        """Show an error in the panel and as a napari notification; log it too if it is unexpected."""
        if isinstance(error, DinoAugSegError):
            sentence = in_words(error)
        else:
            _log.error("unexpected error", exc_info=error)
            sentence = f"Something unforeseen went wrong ({type(error).__name__}: {error}). Your labels are safe."
        self.notify(sentence, "error")
        from napari.utils.notifications import show_error

        show_error(sentence)

    def guarded(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Run an action and show an error as a message. Returns whether it succeeded."""
        try:
            action(*args, **kwargs)
        except Exception as error:  # a button must never end in a traceback
            self.show_error(error)
            return False
        return True

    # --- the end ----------------------------------------------------------------------------------------------------

    def release(self, widgets: Collection[object]) -> None:
        """Disconnect the widgets of a deleted panel; dispose of everything if the viewer's window is gone too.

        If only the panel was closed, the session stays for the next panel of the viewer.
        """
        self.users -= 1
        window = main_window(self.viewer)
        if self.users <= 0 and (window is None or not window.isVisible()):
            self.dispose()
            return
        gone = {id(widget) for widget in widgets}
        for signal in self._signals():
            for callback in list(signal._slots):
                if id(getattr(callback.dereference(), "__self__", None)) in gone:
                    signal._slots.remove(callback)
        if self.users <= 0 and id(self.viewer) not in self._without_panel:
            self._without_panel[id(self.viewer)] = self
            if window is not None:
                window.destroyed.connect(self.dispose)

    def _signals(self) -> list[SignalInstance]:
        return [self.changed, self.progressed, self.notified, self.cases.choice_needed]

    def dispose(self, *_: object) -> None:
        """End with the viewer: stop the work, save the last strokes, disconnect from the layers."""
        if self.closed:
            return
        self._without_panel.pop(id(self.viewer), None)
        self.planes.dispose()
        self.flush()
        self.smart.dispose()
        self.live.dispose()
        self.windowing.dispose()
        self.surfaces.dispose()
        self.judging.dispose()
        self.reading.dispose()
        self.ruler.dispose()
        self.saving.end()
        self.project.dispose()
        self.closed = True
        stop(self._timer)
        self.cases.dispose()
        self.jobs.abandon()
        if self.session is not None:
            self.session.close()
        if self.guard is not None:
            self.guard.close()
        if self.layers is not None:
            self.layers.detach()
        for signal in self._signals():
            signal.disconnect()
