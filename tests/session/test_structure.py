import numpy as np

from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, Structure, new_class


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint16)


def test_what_was_said_of_a_slice_counts_before_its_prediction():
    book = LabelBook([(1, 4)] * 5, 5)
    book.classes = [new_class(number) for number in (1, 2, 3)]
    book.set_prediction(0, mask(1, 1, 1, 0), 0.5)
    book.set_prediction(1, mask(2, 0, 0, 0), 0.5)
    book.set_manual(0, mask(1, UNKNOWN, 0, 0))
    structure = Structure()
    assert structure.amounts(book) == {0: 1, 1: 1}
    book.accept(1)
    book.set_manual(3, mask(1, 2, 0, 3))
    assert structure.amounts(book) == {0: 1, 1: 1, 3: 3}
    book.undo()
    assert structure.amounts(book) == {0: 1, 1: 1}
