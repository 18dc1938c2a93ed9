"""Which sequence of the open case is in view: one image layer shows them in turn, each in a window of its own.

All sequences lie on one grid, so that labels, predictions, planes and measures stay where they are. The smart brush and
Smart scribble read the sequence in view; the model reads all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.case.intensity import opening_window
from napari_dinoaugseg.gui.core import Change, guarded

if TYPE_CHECKING:
    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session


class Sequences:
    """The sequences of the open case.

    Attributes:
        number: of the one in view, from 0.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.number = 0
        self._session: Session | None = None
        self._windows: dict[int, str] = {}  # of those that were in view and are not now

    def follow(self, what: Change) -> None:
        """Begin with the first sequence of another case."""
        if what & Change.SESSION and self.controller.session is not self._session:
            self._session, self.number, self._windows = self.controller.session, 0, {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sequences; one without a name for a case of one, none without a case."""
        return tuple(self._session.case.sequences) if self._session is not None else ()

    @property
    def name(self) -> str:
        """The name of the sequence in view; empty for a case of one."""
        return self.names[self.number] if self.names else ""

    def in_view(self, case: Case) -> Case:
        """The sequence in view of the open case, as a case of one."""
        return list(case.sequences.values())[self.number]

    @property
    def first_window(self) -> str:
        """The window of the first sequence, with which a session is saved and resumed."""
        return self._windows.get(0, self.controller.view.window) if self.number else self.controller.view.window

    @guarded
    def show(self, number: int) -> None:
        """Show a sequence, in the window in which it was seen last."""
        controller, layers = self.controller, self.controller.layers
        if self._session is None or layers is None or number == self.number or not 0 <= number < len(self.names):
            return
        self._windows[self.number] = controller.view.window
        self.number = number
        shown = self.in_view(self._session.case)
        window = self._windows.get(number) or opening_window(shown)
        layers.show_window(window, shown)
        controller.view.window = window
        controller.touch(Change.WINDOW | Change.VIEW)

    def step(self, by: int = 1) -> None:
        """Show the next sequence, after the last one the first."""
        if len(self.names) > 1:
            self.show((self.number + by) % len(self.names))
        elif self._session is not None:
            self.controller.notify("This case has one sequence. 'Add a sequence…' in the Case section adds one.")
