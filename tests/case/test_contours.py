"""Outlines of masks: the pixels inside them are the mask, for whoever combines polygons in whatever way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from napari_dinoaugseg.case import contours
from napari_dinoaugseg.case.contours import filled, outlines


def counts(polygons: list[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return in how many polygons the centre of each pixel lies."""
    found = np.zeros(shape, dtype=np.int64)
    for points in polygons:
        box, pixels = filled(points, shape)
        found[box] += pixels
    return found


def ring() -> NDArray[np.bool_]:
    """Return a ring with an island that has a hole of its own, two further holes, lines of one pixel, single pixels."""
    rows, columns = np.mgrid[:40, :50]
    far = (rows - 18) ** 2 + (columns - 16) ** 2
    mask = ((far < 14**2) & (far > 9**2)) | ((far < 5**2) & (far > 2**2))
    mask[18, [5, 28]] = False
    mask[37, 2:45] = mask[2:30, 47] = True
    mask[np.arange(10, 25), np.arange(32, 47)] = True
    mask[0, 0] = mask[39, 49] = mask[0, 49] = True
    return mask


@settings(max_examples=300, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_a_pixel_lies_in_one_outline_if_it_is_of_the_mask_and_else_in_none(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(counts(outlines(mask), mask.shape), mask.astype(int))


def test_holes_are_joined_to_their_outline() -> None:
    mask = ring()
    polygons = outlines(mask)
    # Ring, island, the line alone, the diagonal one and the one that it touches at a corner, three single pixels.
    assert len(polygons) == 7
    assert np.array_equal(counts(polygons, mask.shape), mask.astype(int))


def test_another_filler_of_polygons_finds_the_same_pixels() -> None:
    mask = ring()
    together = np.zeros(mask.shape, dtype=int)
    for points in outlines(mask):
        together += polygon2mask(mask.shape, points)
    assert np.array_equal(together, mask.astype(int))


def test_corners_on_straight_edges_are_left_out() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 5:25] = True
    (points,) = outlines(mask)
    assert len(points) == 8
    assert outlines(np.zeros((3, 4), dtype=bool)) == []


def test_no_pixel_centre_lies_near_an_outline() -> None:
    """So a reader that moves contours by a third of a pixel still finds the mask."""
    mask = ring()
    for shift in ((0.3, 0.0), (-0.2, 0.2), (0.0, -0.3)):
        assert np.array_equal(counts([points + shift for points in outlines(mask)], mask.shape), mask.astype(int))


def test_two_polygons_share_no_pixel_on_their_common_edge() -> None:
    left, right = np.array([[0, 0], [0, 4], [6, 4], [6, 0.0]]), np.array([[0, 4], [0, 9], [6, 9], [6, 4.0]])
    assert counts([left, right], (12, 12)).max() == 1
    assert counts([left, right], (12, 12)).sum() == 6 * 9


def test_a_polygon_out_of_the_image_is_cut_off() -> None:
    box, pixels = filled(np.array([[-5, -5], [-5, 3.5], [2.5, 3.5], [2.5, -5]]), (10, 10))
    assert (box, pixels.sum()) == ((slice(0, 3), slice(0, 4)), 12)
    for place in (-100.0, 100.0):
        assert not filled(np.array([[0, 0], [0, 4], [4, 4], [4, 0.0]]) + place, (10, 10))[1].any()


def test_many_crossings_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).uniform(-20, 80, (500, 2))
    _, whole = filled(points, (60, 60))
    monkeypatch.setattr(contours, "_AT_ONCE", 7)
    assert np.array_equal(filled(points, (60, 60))[1], whole)
