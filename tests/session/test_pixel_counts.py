import numpy as np

from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, Status, new_class
from napari_dinoaugseg.session.pixel_counts import PixelCounts


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint16)


def test_the_labels_of_a_slice_count_before_its_prediction():
    book = LabelBook([(1, 4)] * 5, 5)
    book.replace_classes([new_class(number) for number in (1, 2, 3)])
    book.set_prediction(0, mask(1, 1, 1, 0), 0.5)
    book.set_prediction(1, mask(2, 0, 0, 0), 0.5)
    book.set_manual(0, mask(1, UNKNOWN, 0, 0))
    counts = PixelCounts()
    assert counts.foreground(book) == {0: 1, 1: 1}
    book.accept(1)
    book.set_manual(3, mask(1, 2, 0, 3))
    assert counts.foreground(book) == {0: 1, 1: 1, 3: 3}
    book.undo()
    assert counts.foreground(book) == {0: 1, 1: 1}


def test_every_class_of_the_exported_mask_is_counted_and_only_what_changed_is_counted_again(monkeypatch):
    book = LabelBook([(1, 4)] * 3, 3)
    book.replace_classes([new_class(number) for number in (1, 2, 3)])
    book.set_manual(0, mask(1, UNKNOWN, UNKNOWN, 0))
    book.set_prediction(1, mask(2, 2, 0, 0), 0.5)
    counts, asked, result = PixelCounts(), [], book.result
    monkeypatch.setattr(book, "result", lambda index, *rest: asked.append(index) or result(index, *rest))
    assert counts.total(book) == {1: 1, 2: 2}
    assert counts.labelled_slices(book) == {1: 1}
    assert asked == [0, 1]
    book.set_prediction(0, mask(3, 3, 0, 3), 0.5)  # fills what was left open
    assert counts.total(book) == {1: 1, 2: 2, 3: 1}
    assert counts.labelled_slices(book) == {1: 1, 3: 1}
    assert asked == [0, 1, 0]
    assert counts.total(book, [Status.MANUAL]) == {1: 1}
    book.clear(0)
    assert counts.total(book) == {2: 2, 3: 3}
