"""How well predictions agree with what a person made of them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.learning.metrics import dice, mean_of
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook


def agreement(book: LabelBook, learnt: Collection[int]) -> float | None:
    """Mean Dice (0 to 1) of predicted slices with their manual labels.

    Args:
        book: the labels.
        learnt: slices that the prediction was learnt from, which say nothing about it.
    """
    manual = {i: book.manual(i) for i in book.labelled if i not in learnt}
    found = [_agreement(book, index, labels) for index, labels in manual.items() if labels is not None]
    return mean_of(value for value in found if value is not None)


def _agreement(book: LabelBook, index: int, labels: NDArray[np.integer]) -> float | None:
    """Mean Dice over the classes of the last prediction of a slice with what the person made of it."""
    predicted = book.predicted(index)
    if predicted is None:
        return None
    known = labels != UNKNOWN
    numbers = {int(value) for value in np.unique(predicted)} | {int(value) for value in np.unique(labels[known])}
    return mean_of(dice((predicted == n) & known, (labels == n) & known) for n in numbers - {0})
