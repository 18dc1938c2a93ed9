"""What a stroke may change, as laws; and the smart brush on images whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_dinoaugseg.session.labels import BACKGROUND
from napari_dinoaugseg.session.paint_rules import PaintOver, SmartBrush, brush_extent, kept, reached, size_of_extent

CODES = (0, 1, 2, 3, BACKGROUND)
SHAPES = st.sampled_from([(6, 7), (1, 5), (3, 4, 5)])
RULES = st.sampled_from([PaintOver(), PaintOver("free"), *(PaintOver("class", number) for number in (1, 2, 3))])

# Time is no law: a busy machine takes a second for what takes a millisecond.
law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def painting(draw):
    """A canvas before and after a tool wrote one label, the label, and the selected class."""
    before = draw(arrays.arrays(np.uint16, draw(SHAPES), elements=st.sampled_from(CODES)))
    touched = draw(arrays.arrays(bool, before.shape))
    label, selected = draw(st.sampled_from(CODES)), draw(st.sampled_from([1, 2, 3]))
    return before, np.where(touched, np.uint16(label), before), label, selected


# --- paint over ---


@law
@given(painting(), RULES)
def test_a_tool_changes_only_what_it_touched_and_only_to_its_label(drawn, over):
    before, after, label, selected = drawn
    left = kept(before, after, over.allows(before, label, selected))
    changed = left != before
    assert not (changed & (after == before)).any()
    assert (left[changed] == label).all()


@law
@given(painting())
def test_over_everything_paint_is_what_the_tool_made_it(drawn):
    before, after, label, selected = drawn
    assert np.array_equal(kept(before, after, PaintOver().allows(before, label, selected)), after)


@law
@given(painting())
def test_only_over_what_is_free_no_other_class_ever_changes(drawn):
    before, after, label, selected = drawn
    left = kept(before, after, PaintOver("free").allows(before, label, selected))
    changed = left != before
    if label == 0:
        assert np.isin(before[changed], [selected, BACKGROUND]).all()
        assert np.array_equal(left[before == selected], after[before == selected])
    else:
        assert np.isin(before[changed], [0, BACKGROUND]).all()
        free = np.isin(before, [0, BACKGROUND])
        assert np.array_equal(left[free], after[free])


@law
@given(painting(), st.sampled_from([1, 2, 3]))
def test_only_over_a_class_nothing_else_ever_changes(drawn, number):
    before, after, label, selected = drawn
    left = kept(before, after, PaintOver("class", number).allows(before, label, selected))
    inside = before == number
    assert np.array_equal(left[~inside], before[~inside])
    assert np.array_equal(left[inside], after[inside])


@law
@given(painting(), RULES)
def test_the_same_tool_again_changes_nothing_more(drawn, over):
    before, after, label, selected = drawn
    left = kept(before, after, over.allows(before, label, selected))
    again = np.where(after != before, np.uint16(label), left)
    assert np.array_equal(kept(left, again, over.allows(left, label, selected)), left)


# --- the smart brush ---


IMAGES = arrays.arrays(np.float32, (7, 9), elements=st.floats(-1000, 1000, width=32))
PLACES = st.tuples(st.integers(0, 6), st.integers(0, 8))


@law
@given(IMAGES, PLACES, st.floats(0.25, 10))
def test_the_pixel_where_a_stroke_begins_is_like_itself(image, at, factor):
    brush = SmartBrush.begin(image, at, factor)
    # The reference is the mean of what is alike around it, so a tolerance may just miss the start, never by more.
    assert abs(brush.reference[0] - image[at]) <= brush.tolerance * (1 + 1e-9)


@law
@given(IMAGES, PLACES, st.floats(0.25, 5))
def test_more_tolerance_never_paints_less_of_the_range_that_it_allows(image, at, factor):
    small, large = (SmartBrush.begin(image, at, one) for one in (factor, 2 * factor))
    assert small.tolerance <= large.tolerance
    wider = SmartBrush(small.reference, large.tolerance)
    assert not (small.like(image) & ~wider.like(image)).any()


@law
@given(IMAGES, PLACES, st.floats(-500, 500), st.floats(-500, 500))
def test_nothing_is_painted_outside_the_intensity_range(image, at, low, high):
    like = SmartBrush.begin(image, at, 10, low, high).like(image)
    assert not (like & ((image < low) | (image > high))).any()


@law
@given(arrays.arrays(bool, (6, 7)), arrays.arrays(bool, (6, 7)), PLACES)
def test_a_stroke_reaches_only_pixels_that_it_may_paint(may, painted, start):
    found = reached(may, start, painted)
    assert not (found & ~may).any()
    if all(place < size for place, size in zip(start, may.shape, strict=True)) and may[start]:
        assert found[start]


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("noise", [0.0, 8.0])
def test_a_structure_stands_out_from_its_surroundings_grey_and_coloured(channels, noise):
    rng = np.random.default_rng(3)
    structure = disc((60, 60), (30, 30), 14)
    image = np.where(structure, 140.0, 60.0)
    image = image + rng.normal(0, noise, image.shape)
    if channels:
        image = np.stack([image, 200.0 - image, np.full_like(image, 90.0)], axis=-1)
    like = SmartBrush.begin(image, (32, 27)).like(image)
    found = reached(like, (32, 27), np.zeros_like(like))
    dice = 2 * (found & structure).sum() / (found.sum() + structure.sum())
    assert dice > 0.97


def test_the_brush_does_not_jump_to_what_looks_alike_behind_an_edge():
    image = np.full((20, 40), 100.0)
    image[:, 19:21] = 0.0  # a fat plane between two organs
    like = SmartBrush.begin(image, (10, 10)).like(image)
    found = reached(like, (10, 10), np.zeros_like(like))
    assert found[:, :19].all()
    assert not found[:, 19:].any()


def test_small_holes_of_noise_are_filled_but_not_wider_ones_nor_those_out_of_range():
    image = np.full((15, 15), 100.0)
    image[7, 7:10] = 0.0
    image[3:6, 3:6] = 0.0
    image[:2, 12] = 0.0  # may go on beyond the border
    like = SmartBrush.begin(image, (12, 12)).like(image)
    assert like[7, 7:10].all()
    assert not like[3:6, 3:6].any()
    assert not like[:2, 12].any()
    assert not SmartBrush.begin(image, (12, 12), low=50.0).like(image)[7, 7:10].any()


def test_a_vessel_one_pixel_wide_is_painted_and_its_surroundings_are_not():
    image = np.random.default_rng(0).normal(50, 3, (30, 30))
    image[15, :] = 120.0
    like = SmartBrush.begin(image, (15, 12)).like(image)
    assert like[15].all()
    assert like.sum() == 30


def test_a_flat_image_is_alike_everywhere():
    assert SmartBrush.begin(np.full((9, 9), 7, np.uint8), (4, 4)).like(np.full((9, 9), 7, np.uint8)).all()


# --- the size of the brush ---


@law
@given(st.integers(1, 200), st.floats(0.05, 5), st.floats(0.05, 5))
def test_a_brush_covers_an_odd_number_of_pixels_and_is_round_in_mm(size, rows, columns):
    pixels = brush_extent(size, (rows, columns))
    finest = int(np.argmin([rows, columns]))
    assert all(count % 2 == 1 for count in pixels)
    assert pixels[finest] in (size, size + 1)
    lengths = [count * spacing for count, spacing in zip(pixels, (rows, columns), strict=True)]
    assert abs(lengths[0] - lengths[1]) <= 2 * max(rows, columns)


@law
@given(st.integers(0, 300))
def test_the_size_for_an_odd_number_of_pixels_covers_just_so_many(half):
    wanted = 2 * half + 1
    assert brush_extent(size_of_extent(wanted), (1.0, 1.0)) == (wanted, wanted)
