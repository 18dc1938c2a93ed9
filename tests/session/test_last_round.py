"""The predictions before the last round, kept in a small part of their memory."""

from __future__ import annotations

import numpy as np

from napari_dinoaugseg.session.last_round import LastRound


def test_it_holds_what_was_predicted_before_the_round_began():
    kept, first, second, third = LastRound(), *(np.full((4, 6), n, np.uint16) for n in (1, 2, 300))
    kept.begin()
    kept.replace(5, None)
    assert kept.labels(5, [1, 2]) is None
    kept.begin()
    kept.replace(5, first)
    kept.replace(5, second)  # a mask that is corrected within the round
    np.testing.assert_array_equal(kept.labels(5, [1, 2]), first)
    assert not kept.labels(5, [2]).any()  # class 1 was removed
    kept.begin()
    np.testing.assert_array_equal(kept.labels(5, [1]), first)  # not predicted again yet
    kept.replace(5, third)
    np.testing.assert_array_equal(kept.labels(5, [300]), third)
    assert kept.labels(6, [1]) is None


def test_a_volume_of_masks_takes_a_hundredth_of_its_memory():
    kept, mask = LastRound(), np.zeros((512, 512), np.uint16)
    rows, columns = np.ogrid[:512, :512]
    mask[(rows - 200) ** 2 + (columns - 250) ** 2 < 90**2] = 3
    for index in range(20):
        kept.replace(index, mask)
    assert kept.nbytes < 20 * mask.nbytes / 100
