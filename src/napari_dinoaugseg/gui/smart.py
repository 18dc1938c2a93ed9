"""Smart scribble: after each stroke an outline completes the strokes on the slice in view; Enter takes it as painted.

The strokes are scribbles of the label book like all others. The outline is computed in a thread from what the book
holds, and is nothing but a picture until it is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari.layers import Layer
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit, QTextEdit

from napari_dinoaugseg.gui.canvas import main_window
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.widgets import Inbox, in_background, single_shot, stop
from napari_dinoaugseg.session.proposal import has_background, has_class, propose, unit_image

if TYPE_CHECKING:
    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers
    from napari_dinoaugseg.session.labels import Labels, Strokes
    from napari_dinoaugseg.session.session import Session

_FIELDS = (QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit, QTextEdit)
_BACKGROUND = -1  # the brush of the background

Asks = Literal["nothing", "strokes", "background", "class", "decision"]
"""What a slice needs next: its first strokes, one of the background, one of a class, or that its outline is taken."""


@dataclass(frozen=True, eq=False)
class _Task:
    """What an outline is computed from.

    Attributes:
        session: of the case.
        index: the slice.
        labels: its manual labels, which the book replaces by another array at each change.
        window: the intensity window.
        strokes: on the slice.
    """

    session: Session
    case: Case
    index: int
    labels: Labels | None
    window: str
    strokes: Strokes

    def is_like(self, other: _Task | None) -> bool:
        """Whether another task has the same result."""
        return (
            other is not None
            and self.session is other.session
            and self.case is other.case
            and self.index == other.index
            and self.labels is other.labels
            and self.window == other.window
        )


class SmartScribble:
    """Proposes an outline for the strokes on the slice in view. Used on the GUI thread.

    Attributes:
        controller: of the viewer.
        is_on: whether the person switched it on.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.is_on = False
        self._class = 1  # that the brush painted last
        self._running: _Task | None = None  # one at a time: the newest strokes wait for its end
        self._shown: tuple[_Task, Labels] | None = None
        self._takes = False  # whether Enter was pressed before the outline was ready
        self._dropped: dict[int, Labels | None] = {}  # by slice, the labels whose outline is not wanted
        self._keys: list[tuple[Layer, str, Any]] = []  # bound keys, with what they did before
        self._layers: CaseLayers | None = None  # whose signals are connected
        self._asked: Asks = "nothing"
        self._timer = single_shot(self._update)
        self._results = Inbox(self._on_ended)

    # --- the person -------------------------------------------------------------------------------------------------

    @guarded
    def switch(self, on: bool) -> None:
        """Switch it on, with the brush in hand, or off. Strokes stay what they are."""
        controller = self.controller
        try:
            if on:
                controller.require_writable()
            controller.flush()
            self.is_on = on and controller.session is not None
            self._dropped.clear()
            self._prepare()
            if self.is_on and controller.layers is not None and controller.layers.manual is not None:
                controller.viewer.layers.selection.active = controller.layers.manual
                controller.layers.manual.mode = "paint"
                controller.labels.select_class(self._brush_class())
            elif controller.labels.selected_class == _BACKGROUND and not controller.labels.scribbles:
                controller.labels.select_class(self._brush_class())
        finally:
            self._timer.start(0)
            controller.touch(Change.SETTINGS | Change.PROPOSAL)

    def swap(self) -> None:
        """Draw the background, or the class again."""
        labels = self.controller.labels
        if self.is_on or labels.scribbles:
            labels.select_class(self._brush_class() if labels.selected_class == _BACKGROUND else _BACKGROUND)

    @guarded
    def take(self) -> None:
        """Take the outline as painted; if the last stroke is still being completed, as soon as that is done."""
        controller = self.controller
        controller.flush()
        wanted, layers = self._wanted(), controller.layers
        if wanted is None or layers is None:
            return
        if self._shown is None or not wanted.is_like(self._shown[0]):
            self._takes = True
            return
        if layers.proposal is not None and not layers.proposal.visible:
            controller.notify("The outline is hidden: show the layer 'proposal' (its eye in the layer list) first.")
            return
        controller.require_writable()
        controller.require_view(wanted.index)
        book = wanted.session.labels
        book.complete(wanted.index, self._shown[1])
        book.lay_out(wanted.index, explicit=False)  # unlike strokes, the rest of the slice needs no colour
        self._hide()
        controller.labels.show([wanted.index])
        if controller.labels.selected_class == _BACKGROUND:
            controller.labels.select_class(self._brush_class())
        controller.notify("Taken as painted; Ctrl+Z undoes it. More strokes change it, or go to the next slice.")

    @guarded
    def drop(self) -> None:
        """Drop the outline; the strokes stay."""
        wanted = self._wanted()
        if wanted is None:
            return
        self._dropped[wanted.index] = wanted.labels
        self._takes = False
        self._update()
        self.controller.notify(
            "Outline dropped. Your strokes stay as scribbles; Ctrl+Z undoes them, and another stroke brings an outline."
        )

    @property
    def asks(self) -> Asks:
        """What the slice in view needs next."""
        controller, session = self.controller, self.controller.session
        if not self.is_on or session is None or controller.read_only or not session.labels.classes:
            return "nothing"
        labels = session.labels.of_slice(controller.current_slice)
        strokes = labels.strokes
        if labels.is_empty and not session.labels.labelled:
            return "strokes"
        if strokes is None or strokes.taken or self._is_dropped(controller.current_slice, labels.manual):
            return "nothing"
        if not has_background(strokes):
            return "background"
        return "decision" if has_class(strokes) else "class"

    # --- when -------------------------------------------------------------------------------------------------------

    def follow(self, what: Change) -> None:
        """Follow the slice in view and its labels."""
        if what & Change.SELECTION and self.controller.labels.selected_class > 0:
            self._class = self.controller.labels.selected_class
        if what & Change.SESSION:
            self._shown = None  # on layers that are gone
            self._dropped.clear()
            self._prepare()
        if what & (Change.SESSION | Change.SLICE):
            self._takes = False
        if self.is_on and what & ~(Change.PROPOSAL | Change.SAVING | Change.LIVE | Change.PROJECT):
            self._timer.start(0)

    def _prepare(self) -> None:
        """Tell the layers of the case whether strokes are completed, and follow their strokes."""
        controller, layers = self.controller, self.controller.layers
        if layers is not None and layers is not self._layers:
            layers.painting.read.connect(self._on_read)
            layers.lost.connect(self._on_lost)
        self._layers = layers
        if layers is None:
            return
        layers.painting.smart = self.is_on
        if self.is_on and not controller.read_only and layers.prepare_proposal():
            controller.touch(Change.LAYERS)

    def _on_read(self) -> None:
        self._takes = False
        if self.is_on:
            self._timer.start(0)

    def _on_lost(self, kind: str) -> None:
        """The person deleted a layer: if it is that of the outline, the outline is not wanted."""
        if kind == "proposal" and self._shown is not None:
            self._dropped[self._shown[0].index] = self._shown[0].labels
            self._shown = None
            self._timer.start(0)
            self.controller.notify("Outline dropped. Your strokes stay; another stroke brings an outline.")

    def _wanted(self) -> _Task | None:
        """The task for the slice in view as it is now; None if it has no outline."""
        controller = self.controller
        session, layers = controller.session, controller.layers
        if not self.is_on or controller.closed or controller.read_only or session is None or layers is None:
            return None
        if layers.manual is None or not layers.shows_slices or (controller.guard and controller.guard.reason):
            return None
        index = controller.current_slice
        labels = session.labels.of_slice(index)
        strokes = labels.strokes
        if strokes is None or strokes.taken or self._is_dropped(index, labels.manual):
            return None
        if not (has_background(strokes) and has_class(strokes)):
            return None
        case = controller.view.sequences.in_view(session.case)
        return _Task(session, case, index, labels.manual, controller.view.window, strokes)

    def _is_dropped(self, index: int, labels: Labels | None) -> bool:
        return index in self._dropped and self._dropped[index] is labels

    def _update(self) -> None:
        """Show the outline for what is in view, or begin to compute it."""
        if self.controller.closed:
            return
        wanted, shown = self._wanted(), self._shown
        if wanted is None or (shown is not None and shown[0].index != wanted.index):
            self._hide()
        if wanted is not None and not (self._shown and wanted.is_like(self._shown[0])) and self._running is None:
            self._begin(wanted)
        self._bind(wanted is not None)
        if self.asks != self._asked:
            self._asked = self.asks
            self.controller.touch(Change.PROPOSAL)

    # --- computing --------------------------------------------------------------------------------------------------

    def _begin(self, task: _Task) -> None:
        self._running = task

        def work() -> None:
            result: Labels | Exception | None
            try:
                result = propose(unit_image(task.case, task.index, task.window), task.strokes)
            except Exception as error:  # shown by the GUI thread
                result = error
            self._results.send(task, result)

        in_background(work, "smart-scribble")

    def _on_ended(self, task: _Task, result: Labels | Exception | None) -> None:
        self._running = None
        controller = self.controller
        if controller.closed:
            return
        if task.is_like(self._wanted()):  # else it is for strokes or a slice of before
            if isinstance(result, Exception):
                self._dropped[task.index] = task.labels
                controller.show_error(result)
            elif result is not None and controller.layers is not None:
                is_new = controller.layers.prepare_proposal()
                controller.layers.show_proposal(task.index, result)
                self._shown = task, result
                if is_new:
                    controller.touch(Change.LAYERS)  # binds the keys of the plugin to it
        self._update()
        if self._takes and self._shown is not None and self._shown[0] is task:
            self._takes = False
            self.take()

    def _hide(self) -> None:
        if self._shown is not None and self.controller.layers is not None:
            self.controller.layers.hide_proposal()
        self._shown = None

    # --- keys -------------------------------------------------------------------------------------------------------

    def _bind(self, on: bool) -> None:
        """Bind Enter and Esc to the layers of the case, as long as there is something to take or drop."""
        layers = self.controller.layers
        manual = layers.manual if layers is not None else None
        # In napari these keys end a polygon.
        wanted = layers.own if on and layers is not None and manual is not None and manual.mode != "polygon" else []
        if {id(layer) for layer in wanted} == {id(layer) for layer, _, _ in self._keys}:
            return
        for layer, key, before in self._keys:
            layer.bind_key(key, before, overwrite=True)
        actions: list[tuple[str, Callable[[Layer], Any]]] = [
            ("Enter", lambda _: self._press(self.take)),
            ("Escape", lambda _: self._press(self.drop)),
        ]
        self._keys = [
            (layer, key, layer.bind_key(key, action, overwrite=True)) for layer in wanted for key, action in actions
        ]

    def _press(self, action: Callable[[], Any]) -> None:
        """Act on a key unless it ended the input of a field: fields pass Enter and Esc on to the viewer."""
        window = main_window(self.controller.viewer)
        if window is None or not isinstance(window.focusWidget(), _FIELDS):
            action()

    def _brush_class(self) -> int:
        """The class that the brush painted last, if it still exists."""
        session = self.controller.session
        numbers = [entry.number for entry in session.labels.classes] if session is not None else []
        return self._class if self._class in numbers or not numbers else numbers[0]

    def dispose(self) -> None:
        """End with the viewer; a completion that still runs is dropped."""
        stop(self._timer)
        self.is_on = False
        self._bind(False)
