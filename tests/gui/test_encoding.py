import numpy as np
import pytest

from napari_dinoaugseg.gui.display import BACKGROUND, from_layer, is_shown, to_layer
from napari_dinoaugseg.session.labels import UNKNOWN, SliceLabels

PLAIN = np.array([[0, 1], [2, 0]], np.uint16)
SCRIBBLES = np.array([[0, 1], [UNKNOWN, UNKNOWN]], np.uint16)
EMPTY = np.zeros((2, 2), np.uint16)


@pytest.mark.parametrize(("labels", "scribbles"), [(PLAIN, False), (SCRIBBLES, True), (EMPTY, False), (EMPTY, True)])
def test_labels_come_back_from_the_layer_as_they_went_in(labels, scribbles):
    assert np.array_equal(from_layer(to_layer(SliceLabels(labels), (2, 2)), scribbles=scribbles), labels)


def test_a_whole_slice_stays_whole_among_scribbles():
    values = to_layer(SliceLabels(PLAIN), (2, 2), explicit=True)
    assert np.array_equal(from_layer(values, scribbles=True), PLAIN)


def test_nothing_said_is_zeros_and_zeros_say_nothing():
    assert not to_layer(SliceLabels(), (2, 2)).any()
    assert from_layer(EMPTY, scribbles=False) is None
    assert (to_layer(SliceLabels(EMPTY), (2, 2)) == BACKGROUND).all()


@pytest.mark.parametrize(
    ("labels", "values", "scribbles", "shown"),
    [
        (PLAIN, [[0, 1], [2, BACKGROUND]], False, True),  # both are background on a whole slice
        (PLAIN, [[0, 1], [2, BACKGROUND]], True, False),
        (SCRIBBLES, [[BACKGROUND, 1], [0, 0]], True, True),
        (SCRIBBLES, [[BACKGROUND, 1], [0, 0]], False, False),
        (EMPTY, [[0, 0], [0, 0]], False, False),  # nothing was said there
        (EMPTY, [[BACKGROUND, 0], [0, 0]], False, True),
        (None, [[0, 0], [0, 0]], False, True),
        (None, [[BACKGROUND, 0], [0, 0]], False, False),
    ],
)
def test_whether_the_layer_shows_what_was_said(labels, values, scribbles, shown):
    assert is_shown(SliceLabels(labels), np.array(values, np.uint16), scribbles=scribbles) == shown
