"""The time that a person spends on a case, with idle time left out."""

from __future__ import annotations

from collections.abc import Iterable

IDLE = 20.0
"""Seconds between two actions, beyond which the person was not working on the case."""
LONGEST_STROKE = 300.0
"""Seconds for which a mouse button can be held down, beyond which its release was lost."""


class ActiveTime:
    """Adds up the time between the actions on one case, by the rule of RootPainter.

    The time between two actions counts if it is at most 20 s; a longer one is a pause and counts nothing, not even in
    part. While a mouse button is held down it counts however long it is, because the person draws without lifting the
    pen. That is RootPainter's `interaction_time.py` (github.com/Abe404/root_painter), which takes presses and releases
    of the mouse, saving, and going to another image as actions. Two deviations: a stroke of more than five minutes
    counts nothing, since its end was not recorded (the program ended), and neither does a clock that is set back.

    Args:
        seconds: counted before, for example when the project was last open.

    Attributes:
        seconds: counted so far.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._last: float | None = None
        self._held = False

    def act(self, moment: float, *, held: bool = False) -> float:
        """Record an action; returns the seconds that it adds.

        Args:
            moment: seconds of any one clock.
            held: whether a stroke begins, so that the time to the next action is drawing.
        """
        added = 0.0
        if self._last is not None:
            passed = moment - self._last
            added = passed if 0.0 <= passed <= (LONGEST_STROKE if self._held else IDLE) else 0.0
        self._last, self._held = moment, held
        self.seconds += added
        return added

    def pause(self) -> None:
        """Begin again with the next action: the person went to another case."""
        self._last, self._held = None, False


def active_seconds(moments: Iterable[float]) -> float:
    """Return the seconds of work between the moments of actions, in any order, as :class:`ActiveTime` counts them."""
    clock = ActiveTime()
    for moment in sorted(moments):
        clock.act(moment)
    return clock.seconds
