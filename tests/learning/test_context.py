"""Which volumes are seen with neighbouring slices."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinoaugseg.case import case_from_array
from napari_dinoaugseg.case.intensity import choose_window
from napari_dinoaugseg.learning.augmentation import likeness, neighbour_distance


def volume(thickness: float, n_slices: int = 12, size: int = 48):
    """A ball that moves by `thickness` pixels from slice to slice, in noise."""
    rows, columns = np.mgrid[:size, :size]
    noise = np.random.default_rng(0).normal(0, 1, (n_slices, size, size))
    balls = [np.hypot(rows - 8 - i * thickness, columns - size / 2) < 8 for i in range(n_slices)]
    return (100 * np.stack(balls) + noise).astype(np.float32)


def case_of(thickness: float, **options):
    return case_from_array(volume(thickness, **options), name="ball")


def test_the_thinner_the_slices_the_farther_the_neighbours():
    distances = []
    for thickness in (0.25, 1, 2, 3, 8):
        case = case_of(thickness)
        distances.append(neighbour_distance(case, choose_window(case)))
    assert distances == [2, 2, 1, 0, 0]


def test_likeness_falls_with_the_distance():
    case = case_of(1.0)
    values = [likeness(case, choose_window(case), distance) for distance in (1, 2, 3)]
    assert 1 > values[0] > values[1] > values[2] > 0


@pytest.mark.parametrize("thickness", [0.25, 8])
@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_what_the_person_says_counts(thickness, wanted):
    case = case_of(thickness)
    assert neighbour_distance(case, choose_window(case), wanted) == wanted


def test_neighbours_are_no_farther_than_the_volume_is_long():
    assert neighbour_distance(case_of(0.25, n_slices=2), None) == 1
    assert neighbour_distance(case_of(0.25, n_slices=1), None, 3) == 0


def test_colour_has_no_channels_left():
    case = case_from_array(np.zeros((4, 8, 8, 3), np.uint8), is_rgb=True, name="colour")
    assert neighbour_distance(case, None, 1) == 0


def test_an_empty_volume_is_not_alike():
    case = case_from_array(np.zeros((4, 8, 8), np.float32), name="empty")
    assert likeness(case, choose_window(case)) == 0
