"""Lengths, angles and the long axis on a slice, against shapes whose measures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case.measure import Measure, angle, distance, long_axis, measures_from, measures_to_plain

NEAR = st.floats(-50, 50)
POINT = st.tuples(NEAR, NEAR)
FINE = st.floats(0.2, 2)
SPACING = st.tuples(st.floats(0.1, 9), st.floats(0.1, 9))


def test_a_distance_is_in_mm_where_the_pixels_have_a_size():
    assert distance([(0, 0), (3, 4)], None) == 5
    assert distance([(0, 0), (3, 4)], (2.0, 0.5)) == pytest.approx(math.hypot(6, 2))


@pytest.mark.parametrize(
    ("points", "spacing", "degrees"),
    [
        ([(0, 5), (0, 0), (5, 0)], None, 90),
        ([(0, 5), (0, 0), (5, 5)], None, 45),
        ([(0, 5), (0, 0), (5, 5)], (2.0, 1.0), 63.434949),
        ([(0, 5), (0, 0), (0, -5)], (3.0, 0.7), 180),
        ([(2, 2), (0, 0), (4, 4)], None, 0),
    ],
)
def test_an_angle_is_that_of_the_tissue_not_of_the_pixels(points, spacing, degrees):
    assert angle(points, spacing) == pytest.approx(degrees)


def test_coinciding_points_have_no_angle():
    assert math.isnan(angle([(1, 1), (1, 1), (4, 4)], None))


@given(POINT, POINT, POINT, SPACING)
def test_the_angles_of_a_triangle_are_180_degrees_together(a, b, c, spacing):
    corners = [angle(order, spacing) for order in ((a, b, c), (b, c, a), (c, a, b))]
    if not any(math.isnan(one) for one in corners):
        assert sum(corners) == pytest.approx(180, abs=1e-3) or sum(corners) == pytest.approx(0, abs=1e-3)


def test_a_row_of_pixels_is_as_long_as_its_pixels():
    mask = np.zeros((9, 20), bool)
    mask[4, 3:10] = True
    ends = long_axis(mask, (0.8, 0.8))
    assert ends is not None
    assert distance(ends, (0.8, 0.8)) == pytest.approx(7 * 0.8)
    assert sorted(ends) == [(4.0, 2.5), (4.0, 9.5)]
    mask[:] = False
    mask[2:4, 5] = True
    assert distance(long_axis(mask, None), None) == pytest.approx(2)
    assert long_axis(np.zeros((4, 4), bool), None) is None


@settings(max_examples=25, deadline=None)
@given(st.floats(0, math.pi), st.floats(20, 45), st.floats(0.3, 0.9), st.tuples(FINE, FINE))
def test_the_long_axis_of_an_ellipse_is_its_larger_diameter(turn, radius, ratio, spacing):
    """In mm, whatever the shape of the pixels; with a second, smaller part that does not count."""
    rows, columns = (int(2.6 * radius / one) + 3 for one in spacing)
    y = (np.arange(rows) - rows / 2)[:, None] * spacing[0]
    x = (np.arange(columns) - columns / 2)[None, :] * spacing[1]
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    mask = (along / radius) ** 2 + (across / (ratio * radius)) ** 2 <= 1
    mask[0, 0] = True
    ends = long_axis(mask, spacing)
    assert ends is not None
    assert distance(ends, spacing) == pytest.approx(2 * radius, abs=2 * max(spacing))


def test_measures_survive_json_and_what_is_damaged_is_left_out():
    measures = [
        Measure("distance", 3, ((1.5, 2.0), (3.0, 4.0))),
        Measure("angle", 0, ((1.0, 2.0), (3.0, 4.0), (0.0, 9.0))),
        Measure("long axis", 2, ((1.0, 2.0), (3.0, 4.0)), 7),
    ]
    plain = measures_to_plain(measures)
    assert measures_from(plain, 4) == measures
    assert measures_from(plain, 3) == measures[1:]  # of a slice that does not exist
    damaged = [
        {**plain[0], **change} for change in ({"kind": "area"}, {"points": [[1, 2]]}, {"points": [[1, "a"], [2]]})
    ]
    damaged += [{**plain[0], "points": [[1, float("nan")], [2, 3]]}, {"kind": "distance"}, 5, None]
    assert measures_from(damaged, 9) == []
    assert measures_from({"a": 1}, 9) == []
