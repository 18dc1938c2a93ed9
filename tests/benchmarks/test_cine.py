"""The simulated beat begins and ends with the diastole, and its middle frame is the systole."""

from __future__ import annotations

import numpy as np
from skimage.draw import disk

from benchmarks.cine import FRAMES, Frame, beat


def ventricle(radius: int) -> Frame:
    mask = np.zeros((64, 64), bool)
    mask[disk((32, 30), radius)] = True
    texture = np.random.default_rng(0).normal(100, 5, mask.shape)
    return texture + 400 * mask, mask


def test_the_outlines_follow_the_beat() -> None:
    diastole, systole = ventricle(16), ventricle(10)
    images, cavities = beat(diastole, systole)
    assert images.shape == cavities.shape == (FRAMES, 64, 64)
    np.testing.assert_array_equal(cavities[0], diastole[1])
    np.testing.assert_array_equal(cavities[FRAMES // 2], systole[1])
    areas = cavities.sum(axis=(1, 2))
    assert (np.diff(areas[: FRAMES // 2 + 1]) <= 0).all()
    assert (np.diff(areas[FRAMES // 2 :]) >= 0).all()
    for image, cavity in zip(images, cavities, strict=True):  # the bright blood lies inside the outline
        both = np.count_nonzero((image > 300) & cavity)
        assert 2 * both / (np.count_nonzero(image > 300) + np.count_nonzero(cavity)) > 0.9
