"""What can be undone in the cases that were left last, for when the person comes back to one of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from napari_dinoaugseg.session.labels import History, LabelBook, continue_history, history_of

_BYTES = 128 * 2**20
"""How many bytes of labels are kept for all of them."""


class Histories:
    """The histories of the cases that were left last."""

    def __init__(self) -> None:
        self._left: OrderedDict[Hashable, History] = OrderedDict()

    def keep(self, case: Hashable, book: LabelBook) -> None:
        """Keep the history of a case that is closed, in place of an earlier one."""
        self._left.pop(case, None)
        self._left[case] = history_of(book)
        while sum(history.size for history in self._left.values()) > _BYTES:
            self._left.popitem(last=False)

    def resume(self, case: Hashable, book: LabelBook) -> bool:
        """Give a case that is opened again its history.

        Returns:
            Whether it has one. It is dropped where the labels or classes are no longer those that the case was left
            with, because another window or another case changed them.
        """
        history = self._left.pop(case, None)
        return history is not None and continue_history(book, history)
