"""Labels on the grid of their image: nearly the same grid, a part of it, or another one."""

from __future__ import annotations

import itertools
import re

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case import Grid
from napari_dinoaugseg.case.geometry import NEAR_GRID, SAME_GRID, place, place_by
from napari_dinoaugseg.errors import LabelError
from tests.case.builders import OBLIQUE, numbers

AFFINE = nib.affines.from_matvec(OBLIQUE @ np.diag([0.8, 0.7, 2.5]), [20.0, -15.0, 30.0])


def moved(grid: Grid, *voxels: float) -> Grid:
    """The same grid, off by so many voxels."""
    return Grid(grid.shape, grid.affine @ nib.affines.from_matvec(np.eye(3), voxels))


def turned(mask: np.ndarray, grid: Grid, orientation: tuple) -> tuple[np.ndarray, Grid]:
    """The same voxels with other axis order and flips."""
    ornt = np.array(list(zip(*orientation, strict=True)), dtype=float)
    array = nib.orientations.apply_orientation(mask, ornt)
    return array, Grid(array.shape, grid.affine @ nib.orientations.inv_ornt_aff(ornt, mask.shape))


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    shift=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
def test_labels_are_taken_up_to_a_quarter_of_a_voxel_and_said_beyond_a_hundredth(
    shape: tuple[int, int, int], shift: tuple[float, float, float], orientation: tuple
) -> None:
    image = Grid(shape, AFFINE)
    mask = numbers(shape, np.uint8)
    labels, grid = turned(mask, moved(image, *shift), orientation)
    share = max(abs(part) for part in shift)
    if share > NEAR_GRID + 1e-6:
        with pytest.raises(LabelError, match=r"mm apart \(.* of a voxel\); at the corner \(") as caught:
            place(labels, grid, image)
        told = re.search(r"\((\S+) of a voxel\)", str(caught.value))
        assert told is not None
        assert float(told[1]) == pytest.approx(share, rel=0.06)
    elif share < NEAR_GRID - 1e-6:
        placed = place(labels, grid, image)
        assert np.array_equal(placed.mask, mask)
        if abs(share - SAME_GRID) > 1e-6:
            assert (share > SAME_GRID) == ("voxel by voxel" in placed.notice)
    assert np.array_equal(labels, turned(mask, image, orientation)[0])  # never written to


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    ends=st.tuples(*[st.tuples(st.integers(-2, 5), st.integers(-2, 5))] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
def test_labels_of_another_size_lie_whole_voxels_away_and_nothing_painted_is_lost(
    shape: tuple[int, int, int], ends: tuple[tuple[int, int], ...], orientation: tuple
) -> None:
    image = Grid(shape, AFFINE)
    begin = [min(pair) for pair in ends]
    size = tuple(max(pair) - min(pair) + 1 for pair in ends)
    if size == shape or sorted(size) == sorted(shape):
        return
    mask = numbers(size, np.uint8) + 1  # all of it is painted
    labels, grid = turned(mask, Grid(size, moved(image, *begin).affine), orientation)
    inside = all(first >= 0 and first + n <= whole for first, n, whole in zip(begin, size, shape, strict=True))
    if not inside:
        with pytest.raises(LabelError, match=r"\d+ painted voxels? lies? outside the image"):
            place(labels, grid, image)
        return
    placed = place(labels, grid, image)
    expected = np.zeros(shape, np.uint8)
    expected[tuple(slice(first, first + n) for first, n in zip(begin, size, strict=True))] = mask
    assert np.array_equal(placed.mask, expected)
    assert f"begins at voxel ({', '.join(map(str, begin))})" in placed.notice


def test_background_may_lie_outside_the_image() -> None:
    image = Grid((4, 5, 6), AFFINE)
    larger = Grid((8, 9, 10), moved(image, -2, -2, -2).affine)
    mask = np.zeros(larger.shape, np.uint8)
    mask[2:6, 2:7, 2:8] = numbers((4, 5, 6), np.uint8)
    assert np.array_equal(place(mask, larger, image).mask, numbers((4, 5, 6), np.uint8))


def test_a_part_that_lies_between_voxels_was_resampled() -> None:
    image = Grid((8, 9, 10), AFFINE)
    with pytest.raises(LabelError, match=r"3 x 3 x 3 voxels, the image 8 x 9 x 10, and it is not a part .* \(0\.2 of"):
        place(np.ones((3, 3, 3), np.uint8), Grid((3, 3, 3), moved(image, 2, 2, 2.2).affine), image)


def test_labels_of_the_same_size_that_are_moved_by_whole_voxels_belong_to_another_image() -> None:
    image = Grid((8, 9, 10), AFFINE)
    with pytest.raises(LabelError, match=r"up to 2\.5 mm apart \(1 of a voxel\)"):
        place(np.zeros(image.shape, np.uint8), moved(image, 0, 0, 1), image)


def test_other_voxels_are_told_with_both_sizes() -> None:
    image = Grid((8, 9, 10), np.diag([-0.8, -0.7, 2.5, 1]))
    with pytest.raises(LabelError, match=r"voxels of 2 x 2 x 2 mm \(axes to RAS\), not 0\.8 x 0\.7 x 2\.5 mm \(LPS\)"):
        place(np.zeros((8, 9, 10), np.uint8), Grid((8, 9, 10), np.diag([2.0, 2, 2, 1])), image)


def test_the_thickness_of_a_single_slice_says_nothing() -> None:
    image = Grid((8, 9, 1), np.diag([-0.8, -0.7, 2.5, 1]))
    mask = numbers((8, 9, 1), np.uint8)
    assert np.array_equal(place(mask, Grid((8, 9, 1), np.diag([-0.8, -0.7, 1.0, 1])), image).mask, mask)


def test_the_way_to_read_a_header_that_needs_no_turning_is_taken() -> None:
    """A qform that runs the other way than the sform: labels that a program wrote by the qform keep their voxels."""
    image = Grid((4, 5, 6), np.diag([-1.0, -1.0, 1.0, 1.0]))
    mirrored = Grid((4, 5, 6), np.array([[1.0, 0, 0, -3], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    mask = numbers((4, 5, 6), np.uint8)
    assert np.array_equal(place(mask, mirrored, image).mask, mask[::-1])
    placed, grid = place_by(mask, [("sform", mirrored)], [("sform", image), ("qform", mirrored)])
    assert np.array_equal(placed.mask, mask)
    assert grid is mirrored
    assert placed.notice == "The labels fit the image by their sform and its qform, voxel by voxel."
    with pytest.raises(LabelError, match="the image 4 x 5 x 6"):
        place_by(np.ones((3, 3, 3), np.uint8), [("sform", Grid((3, 3, 3), image.affine * 1.5))], [("sform", image)])
