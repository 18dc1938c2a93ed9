"""The state of the plugin in one viewer, and the parts that act on it. No widgets live here."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal, SignalInstance
from qtpy.compat import isalive
from qtpy.QtCore import QTimer

from napari_dinoaugseg.errors import DinoAugSegError, LabelError, SessionError
from napari_dinoaugseg.gui.cases import Cases
from napari_dinoaugseg.gui.core import Change, Follower, Kind, Message
from napari_dinoaugseg.gui.jobs import Jobs
from napari_dinoaugseg.gui.labelling import Labelling
from napari_dinoaugseg.gui.saving import Saving, SessionActions
from napari_dinoaugseg.gui.setup import Setup
from napari_dinoaugseg.gui.view import CanvasGuard, FillGuard, Looking, Tools, View
from napari_dinoaugseg.gui.widgets import stop
from napari_dinoaugseg.gui.words import in_words

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.layers import CaseLayers
    from napari_dinoaugseg.gui.view import ViewGuard
    from napari_dinoaugseg.session.session import Session

_log = logging.getLogger(__name__)

_TOGETHER = 60  # ms: many things change at once, and the sections of the panel show them once


class Controller:
    """The state of the plugin in one viewer. Get it with :meth:`of`: two panels of a viewer share it.

    Attributes:
        viewer: napari's viewer.
        session: the open case with its labels; None before one is open.
        layers: the layers of the case; None before one is open.
        guard: refuses paint while the view shows something else; None before a case is open.
        setup: how to learn, with what, and where.
        jobs: work in the background.
        cases: opening and leaving a case.
        view: the slice in view, and the window it is looked through.
        labels: what a person does with labels and classes.
        tools: the tool in the person's hand.
        saving: keeps the session on disk.
        sessions: saved sessions of the case, to resume.
        followers: what follows changes at once.
        users: how many panels show it.
        closed: whether the viewer is gone.
        read_only: why nothing can be changed (another window writes this session), a sentence; empty when it can.
    """

    _without_panel: ClassVar[dict[int, Controller]] = {}
    _of_viewer: ClassVar[weakref.WeakValueDictionary[int, Controller]] = weakref.WeakValueDictionary()

    @classmethod
    def of(cls, viewer: napari.Viewer) -> Controller:
        """The controller of a viewer, made when first asked for. Keep it: it lives as long as somebody does."""
        # A viewer inside a plugin may be a proxy for the real one.
        viewer = getattr(viewer, "__wrapped__", viewer)
        found = cls._of_viewer.get(id(viewer))
        if found is None or found.closed:
            found = cls(viewer)
            cls._of_viewer[id(viewer)] = found
        cls._without_panel.pop(id(viewer), None)
        return found

    changed = Signal(object)  # Change: all that changed in the last moments
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
        self.jobs = Jobs(self)
        self.saving = Saving(self)
        self.sessions = SessionActions(self)
        self.cases = Cases(self)
        self.followers: list[Follower] = [self.saving, Looking(self), FillGuard(self), self.tools]
        self._pending = Change(0)
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_TOGETHER)
        self._timer.timeout.connect(self._emit_changes)

    @property
    def current_slice(self) -> int:
        """The slice in view, by the case's numbering; 0 before a case is open."""
        return self.layers.current_slice if self.layers is not None else 0

    # --- what happens -----------------------------------------------------------------------------------------------

    def touch(self, what: Change) -> None:
        """Something changed: the parts follow at once, the sections of the panel in a moment (`changed`)."""
        if self.closed:
            return
        self._pending |= what
        for follower in tuple(self.followers):
            follower.follow(what)
        if not self._timer.isActive():
            self._timer.start()

    def notify(self, text: str, kind: Kind = "done") -> None:
        """Show a sentence to the person."""
        self.notified.emit(Message(text, kind))

    def _emit_changes(self) -> None:
        pending, self._pending = self._pending, Change(0)
        self.changed.emit(pending)

    # --- safety -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Take over at once what was painted in the last moments."""
        if self.layers is not None:
            self.layers.flush()

    def require_writable(self) -> None:
        """Refuse what would change a session that another window writes. Raises SessionError."""
        if self.read_only:
            raise SessionError(self.read_only)

    def require_view(self, index: int) -> None:
        """Refuse a change of the slice in view while the view shows something else. Raises LabelError."""
        if self.guard is not None and self.guard.reason and index == self.current_slice:
            raise LabelError(self.guard.reason)

    def tell_error(self, error: BaseException) -> None:
        """Show an error in the panel and as a napari notification; an unforeseen one goes to the log as well."""
        if isinstance(error, DinoAugSegError):
            sentence = in_words(error)
        else:
            _log.error("unforeseen error", exc_info=error)
            sentence = f"Something unforeseen went wrong ({type(error).__name__}: {error}). Your labels are safe."
        self.notify(sentence, "error")
        from napari.utils.notifications import show_error

        show_error(sentence)

    def guarded(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Do something; an error becomes a message. Returns whether it succeeded."""
        try:
            action(*args, **kwargs)
        except Exception as error:  # a button must never end in a traceback
            self.tell_error(error)
            return False
        return True

    # --- the end ----------------------------------------------------------------------------------------------------

    def release(self, widgets: Collection[object]) -> None:
        """A panel is gone: its widgets are no longer called. With its viewer everything ends.

        A panel that was only closed leaves the session as it is; the next panel of the viewer shows it again.
        """
        self.users -= 1
        window: Any = getattr(self.viewer.window, "_qt_window", None)
        if self.users <= 0 and (window is None or not isalive(window) or not window.isVisible()):  # type: ignore[no-untyped-call]
            self.dispose()
            return
        gone = {id(widget) for widget in widgets}
        for signal in self._signals():
            for callback in list(signal._slots):
                if id(getattr(callback.dereference(), "__self__", None)) in gone:
                    signal._slots.remove(callback)
        if self.users <= 0 and id(self.viewer) not in self._without_panel:
            self._without_panel[id(self.viewer)] = self
            window.destroyed.connect(self.dispose)

    def _signals(self) -> list[SignalInstance]:
        return [self.changed, self.progressed, self.notified, self.cases.choice_needed]

    def dispose(self, *_: object) -> None:
        """The viewer or the last panel closes: stop the work, save the last strokes, let go of the layers."""
        if self.closed:
            return
        self._without_panel.pop(id(self.viewer), None)
        self.flush()
        self.saving.end()
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
