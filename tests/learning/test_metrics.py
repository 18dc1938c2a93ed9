import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from napari_dinoaugseg.learning.metrics import dice, mean_of, score


def ball(shape, centre, radius):
    grid = np.indices(shape)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def reference(prediction, truth, spacing):
    """Surface distances written plainly: eroded borders and Euclidean distance transforms of the whole volume."""
    a, b = (mask & ~binary_erosion(mask) for mask in (prediction, truth))
    forth = distance_transform_edt(~b, sampling=spacing)[a]
    back = distance_transform_edt(~a, sampling=spacing)[b]
    return max(np.percentile(forth, 95), np.percentile(back, 95)), np.concatenate([forth, back]).mean()


def test_distances_are_in_millimetres_and_equal_a_plain_implementation():
    truth = ball((30, 32, 12), (14, 15, 6), 5)
    prediction = ball((30, 32, 12), (16, 15, 6), 6)
    spacing = (0.8, 1.1, 4.0)
    result = score(prediction, truth, spacing)
    hd95, asd = reference(prediction, truth, spacing)
    assert result.hd95 == pytest.approx(hd95, abs=1e-5)
    assert result.asd == pytest.approx(asd, abs=1e-5)


def test_a_shifted_slab_is_off_by_its_shift():
    truth = np.zeros((20, 20, 20), bool)
    truth[5:10] = True
    result = score(np.roll(truth, 2, axis=0), truth, (3.0, 1.0, 1.0))
    assert result.hd95 == pytest.approx(6.0)
    assert result.dice == pytest.approx(0.6)


def test_equal_masks_are_perfect():
    mask = ball((20, 20), (10, 10), 4)
    result = score(mask, mask, (1, 1))
    assert (result.dice, result.hd95, result.asd) == (1.0, 0.0, 0.0)
    assert result.voxels == result.truth_voxels == mask.sum()


def test_both_empty_is_right_and_one_empty_has_no_distance():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    both, one = score(empty, empty, (1, 1)), score(full, empty, (1, 1))
    assert (both.dice, both.hd95, both.asd) == (1.0, 0.0, 0.0)
    assert (one.dice, one.hd95, one.asd) == (0.0, None, None)


def test_leaving_slices_out_makes_no_surface_of_its_own():
    truth = ball((24, 24, 24), (12, 12, 12), 8)
    prediction = truth.copy()
    prediction[:, :, 12] = False
    counted = np.ones_like(truth)
    counted[:, :, 12] = False
    result = score(prediction, truth, (1, 1, 1), counted)
    assert result.dice == 1.0
    assert result.voxels == np.count_nonzero(truth & counted)
    assert score(truth, truth, (1, 1, 1), counted).hd95 == 0.0


def test_a_surface_that_lies_in_what_is_left_out_has_no_distance():
    truth = np.ones((6, 6), bool)
    counted = np.zeros_like(truth)
    counted[2:4, 2:4] = True  # none of it is at the border
    result = score(truth, truth, (1, 1), counted)
    assert (result.dice, result.hd95, result.asd) == (1.0, None, None)


def test_dice_is_symmetric_and_means_skip_what_is_unknown():
    a, b = ball((16, 16), (8, 8), 4), ball((16, 16), (8, 10), 5)
    assert dice(a, b) == dice(b, a)
    assert mean_of([1.0, None, 3.0]) == 2.0
    assert mean_of([None]) is None
