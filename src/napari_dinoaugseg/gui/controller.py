"""What the sections of the panel stand on: the state of one viewer, and one method for each thing a person can do.

No widgets live here. Everything that touches layers or the label book runs on the thread of the interface; the work in
the background only hands out events and masks (``workers.py``).
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal, SignalInstance
from qtpy.compat import isalive

from napari_dinoaugseg.gui.advice import advice
from napari_dinoaugseg.gui.case_actions import CaseActions
from napari_dinoaugseg.learning.query import Suggestion

if TYPE_CHECKING:
    import napari


class Controller(CaseActions):
    """The state of the plugin in one viewer. Get it with :meth:`of`: two panels of a viewer share it.

    Attributes:
        viewer: napari's viewer.
        session: the open case with its labels; None before one is open.
        layers: the layers of the case; None before one is open.
        busy: whether work goes on in the background.
        stopping: whether it was asked to stop.
        settings: how to learn; change it with :meth:`change_settings`.
        device: what computes: ``auto``, ``cpu``, ``cuda``.
        scheduler: the address of a Dask scheduler whose workers compute; empty = this computer.
        interrupted: what a scheduler's loss ended, as `work_name` names it; empty = nothing.
        weights: a file with encoder weights, or None.
        scribbles: whether unpainted pixels of newly labelled slices mean "unknown".
        selected_class: the number that the brush paints; 0 = the eraser.
        encoder_in_use: the encoder that was loaded, as what it is; None before it was needed.
        encoder_expected: the one that would be loaded; None while nobody has looked.
        users: how many panels show it.
        last_stage: what the work in the background did last.
        read_only: why nothing can be changed (another window writes this session), a sentence; empty when it can.
        saving: keeps the session on disk.
        sessions: saved sessions of the case, to go on with.
    """

    _without_panel: ClassVar[dict[int, Controller]] = {}
    _of_viewer: ClassVar[weakref.WeakValueDictionary[int, Controller]] = weakref.WeakValueDictionary()

    @classmethod
    def of(cls, viewer: napari.Viewer) -> Controller:
        """The controller of a viewer, made when first asked for. Keep it: it lives as long as somebody does."""
        # A viewer inside a plugin may be a proxy; what it stands for is one object.
        viewer = getattr(viewer, "__wrapped__", viewer)
        found = cls._of_viewer.get(id(viewer))
        if found is None or found.closed:
            found = cls(viewer)
            cls._of_viewer[id(viewer)] = found
        cls._without_panel.pop(id(viewer), None)
        return found

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def advice(self) -> str:
        """What to do next, in one sentence."""
        return advice(self)

    def suggestion(self) -> Suggestion | None:
        """The slice worth labelling next, with the reason; None when every slice is labelled or no case is open."""
        found = self.session.suggest(1) if self.session is not None else []
        return found[0] if found else None

    # --- moving -----------------------------------------------------------------------------------------------------

    def go_to(self, index: int) -> None:
        """Show a slice."""
        if self.session is not None and self.layers is not None:
            self.layers.go_to(min(max(index, 0), self.session.case.n_slices - 1))

    def next_labelled(self, step: int = 1) -> None:
        """Show the next labelled slice (``step`` = 1), or the one before (-1); goes round at the end."""
        if self.session is None:
            return
        self.flush()
        labelled = self.session.labels.labelled
        if not labelled:
            self.said.emit("No slice is labelled yet.")
            return
        here = self.current_slice
        if step > 0:
            self.go_to(next((i for i in labelled if i > here), labelled[0]))
        else:
            self.go_to(next((i for i in reversed(labelled) if i < here), labelled[-1]))

    def next_suggested(self) -> None:
        """Show the slice worth labelling next, and say why."""
        if self.session is None:
            return
        self.flush()
        found = self.suggestion()
        if found is None:
            self.said.emit("Every slice is labelled.")
            return
        self.go_to(found.index)
        self.suggested.emit(f"{self.session.case.slice_name(found.index).capitalize()}: {found.reason}.")

    def release(self, widgets: Collection[object]) -> None:
        """A panel is gone: its widgets are called no more. With its viewer everything ends.

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
        names = [name for name in dir(type(self)) if isinstance(getattr(type(self), name, None), Signal)]
        return [getattr(self, name) for name in names]

    def dispose(self, *_: object) -> None:
        """The viewer or the last panel closes: stop the work, save the last strokes, let go of the layers."""
        if self.closed:
            return
        self._without_panel.pop(id(self.viewer), None)
        self.flush()
        self.saving.end()
        self.closed = True
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.abandon_work()
        if self.session is not None:
            self.session.close()
        if self.guard is not None:
            self.guard.close()
        if self.layers is not None:
            self.layers.detach()
        for signal in self._signals():
            signal.disconnect()
