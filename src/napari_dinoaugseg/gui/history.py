"""What can be taken back, and what the person had said of every slice at each point of it.

Taking a stroke back gives pixels, and pixels alone do not tell what they meant: a slice may have been accepted, or
begun with scribbles. So the meaning of a slice is marked down at the position in the history at which it was read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from napari_dinoaugseg.gui.display import same_labels
from napari_dinoaugseg.session.labels import SliceLabels

LIMIT = 100
"""Steps that can be taken back: as many as napari keeps, so that its history always holds the pixels of ours."""


@dataclass(frozen=True)
class Step:
    """One thing that was done.

    Attributes:
        back: takes it back, as far as that is more than what was said of slices.
        again: does it again.
    """

    back: tuple[Callable[[], None], ...] = ()
    again: tuple[Callable[[], None], ...] = ()


@dataclass(frozen=True, eq=False)
class Mark:
    """What a person has said of a slice.

    Attributes:
        said: the label book's entry.
        scribbled: whether unpainted pixels are unknown, for a slice that is labelled by hand.
    """

    said: SliceLabels = field(default_factory=SliceLabels)
    scribbled: bool = False

    def says_as(self, other: Mark) -> bool:
        """Whether both say the same of the slice."""
        mine, theirs = self.said, other.said
        return same_labels(mine.manual, theirs.manual) and same_labels(mine.accepted, theirs.accepted)


_NOTHING = Mark()


class History:
    """Steps, the position among them, and marks: for each slice those at the positions where it was read."""

    def __init__(self) -> None:
        self._undo: list[Step] = []
        self._redo: list[Step] = []
        self._position = 0
        self._marks: dict[int, list[tuple[int, Mark]]] = {}

    def clear(self) -> None:
        """Nothing can be taken back any more; what slices mean now stays known."""
        self._forget(self._position, self._position)
        self._undo.clear()
        self._redo.clear()

    def push(self, step: Step) -> None:
        """Something was done; what was taken back before cannot be done again."""
        self._undo.append(step)
        del self._undo[:-LIMIT]
        self._redo.clear()
        self._forget(self._position + 1 - len(self._undo), self._position)
        self._position += 1

    def back(self) -> tuple[Step, dict[int, Mark]] | None:
        """Go back a step; returns it with what the slices meant until now that it may have changed. None at the end."""
        if not self._undo:
            return None
        touched = {index: self.marked(index) for index in self._touched()}
        self._redo.append(self._undo.pop())
        self._position -= 1
        return self._redo[-1], touched

    def forth(self) -> tuple[Step, dict[int, Mark]] | None:
        """Go forth again, like :meth:`back`."""
        if not self._redo:
            return None
        before = {index: self.marked(index) for index in self._marks}
        self._undo.append(self._redo.pop())
        self._position += 1
        return self._undo[-1], {index: before[index] for index in self._touched()}

    def give_up_again(self) -> None:
        """What :meth:`forth` just returned cannot be done again, and nothing after it."""
        self._undo.pop()
        self._redo.clear()
        self._position -= 1
        self._forget(self._position - len(self._undo), self._position)

    def mark(self, index: int, mark: Mark) -> None:
        """What a slice means at this position."""
        marks = self._marks.setdefault(index, [])
        after = self._after(marks, self._position)
        if after and marks[after - 1][0] == self._position:
            marks[after - 1] = (self._position, mark)
        else:
            marks.insert(after, (self._position, mark))

    def marked(self, index: int) -> Mark:
        """What a slice meant when it was last read at this position or before."""
        marks = self._marks.get(index, [])
        after = self._after(marks, self._position)
        return marks[after - 1][1] if after else _NOTHING

    def marked_later(self, index: int) -> Mark:
        """What a slice meant when it was next read after this position."""
        marks = self._marks.get(index, [])
        after = self._after(marks, self._position)
        return marks[after][1] if after < len(marks) else _NOTHING

    def slices(self) -> Iterable[int]:
        """Slices of which something is or was known."""
        return list(self._marks)

    def _touched(self) -> list[int]:
        return [index for index, marks in self._marks.items() if any(at == self._position for at, _ in marks)]

    @staticmethod
    def _after(marks: list[tuple[int, Mark]], position: int) -> int:
        return bisect_right(marks, position, key=lambda entry: entry[0])

    def _forget(self, oldest: int, newest: int) -> None:
        """Keep the marks that count at the positions from `oldest` to `newest`."""
        for marks in self._marks.values():
            del marks[self._after(marks, newest) :]
            del marks[: max(0, self._after(marks, oldest) - 1)]
