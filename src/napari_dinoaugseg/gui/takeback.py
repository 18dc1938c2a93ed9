"""What Ctrl+Z brings back besides labels: predictions that were thrown away, classes that were removed."""

from __future__ import annotations

from napari_dinoaugseg.session.labels import LabelBook, LabelClass, Labels


class Rejection:
    """A prediction that is thrown away. One that came since stays when it would be brought back."""

    def __init__(self, book: LabelBook, index: int) -> None:
        self._book, self._index = book, index
        self._labels: Labels | None = None
        self._confidence = 0.0
        self._seen = False

    def again(self) -> None:
        """Throw the prediction away, and its acceptance."""
        self._labels = self._book.predicted(self._index)
        self._confidence = self._book.confidence.get(self._index, 0.0)
        self._seen = self._book.is_seen("predicted", self._index)
        self._book.reject(self._index)

    def back(self) -> None:
        """Bring it back."""
        if self._labels is not None and self._book.predicted(self._index) is None:
            self._book.set_prediction(self._index, self._labels, self._confidence, seen=self._seen)


class ClassRemoval:
    """A class that is removed, from predictions too."""

    def __init__(self, book: LabelBook, entry: LabelClass) -> None:
        self._book, self._entry = book, entry
        self._later: LabelClass | None = None  # a class that got the number since; nothing is painted with it now
        self._erased: dict[int, tuple[Labels, Labels | None]] = {}

    def again(self, *, erase: bool = True) -> None:
        """Remove it. Raises LabelError when it holds paint and `erase` was not said; nothing is changed then."""
        book, number = self._book, self._entry.number
        holding = {index: book.predicted(index) for index in book.confidence}
        book.remove_class(number, erase=erase)
        self._erased = {
            index: (labels, book.predicted(index))
            for index, labels in holding.items()
            if labels is not None and (labels == number).any()
        }
        if self._later is not None:
            put_class(book, self._later)

    def back(self) -> None:
        """Bring it back, in predictions as well where no newer one came."""
        book = self._book
        self._later = next((entry for entry in book.classes if entry.number == self._entry.number), None)
        put_class(book, self._entry)
        for index, (labels, left) in self._erased.items():
            if book.predicted(index) is left:
                seen = book.is_seen("predicted", index)
                book.set_prediction(index, labels, book.confidence[index], seen=seen)


def put_class(book: LabelBook, entry: LabelClass) -> None:
    """Let a class have this number, name and colour, whether it is there or not."""
    if all(present.number != entry.number for present in book.classes):
        book.add_class(entry.name, entry.number)
    book.rename_class(entry.number, entry.name)
    book.recolour_class(entry.number, entry.colour)
