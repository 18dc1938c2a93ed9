from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.case.case import UNKNOWN
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.learning.completion import complete, complete_scribbles, geodesic_distances, redraw
from napari_dinoaugseg.learning.metrics import dice

Strokes = NDArray[np.uint16]


def blank(shape: tuple[int, int]) -> Strokes:
    return np.full(shape, UNKNOWN, np.uint16)


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def ring(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    return disc(shape, centre, radius + 0.5) & ~disc(shape, centre, radius - 1.5)


def noisy(truth: NDArray[Any], contrast: float = 0.3, seed: int = 0) -> NDArray[np.float32]:
    """A blurred image of labels with noise, 0 to 1."""
    clean = ndimage.gaussian_filter(contrast * truth.astype(float), 1.0)
    return np.clip(0.3 + clean + np.random.default_rng(seed).normal(0, 0.05, truth.shape), 0, 1).astype(np.float32)


def colourful(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (255 * np.stack([grey, 1 - grey, grey**2], axis=-1)).astype(np.uint8)


@pytest.fixture
def structure() -> tuple[NDArray[np.bool_], Strokes]:
    """A disc off the middle; a stroke inside and a loop around, nowhere near its border."""
    truth = disc((90, 110), (40, 50), 20)
    strokes = blank(truth.shape)
    strokes[ring(truth.shape, (40, 50), 29)] = 0
    strokes[40, 42:58] = 7
    return truth, strokes


@st.composite
def scribbles(draw: st.DrawFn) -> tuple[NDArray[np.float32], Strokes]:
    """Any small image, and points and lines of some classes anywhere on it, the border included."""
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    image = np.random.default_rng(draw(st.integers(0, 99))).random(shape, dtype=np.float32)
    if draw(st.booleans()):
        image = ndimage.gaussian_filter(image, 2.0)
    strokes = blank(shape)
    for number in draw(st.lists(st.sampled_from([0, 1, 2, 9, 65534]), min_size=1, max_size=5)):
        row, column = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        strokes[row, column : column + draw(st.integers(1, 8))] = number
    return image, strokes


@settings(max_examples=40, deadline=None)
@given(scribbles())
def test_strokes_keep_their_class_and_no_other_class_appears(given_: tuple[NDArray[np.float32], Strokes]) -> None:
    image, strokes = given_
    before = strokes.copy()
    labels = complete(image, strokes)
    painted = strokes != UNKNOWN
    numbers = np.unique(strokes[painted])
    assert labels.shape == strokes.shape
    assert labels.dtype == np.uint16
    assert np.array_equal(labels[painted], strokes[painted])
    assert np.array_equal(strokes, before)
    if numbers.size > 1:
        assert np.array_equal(np.unique(labels), numbers)
    else:
        assert np.array_equal(labels, strokes)


@settings(max_examples=40, deadline=None)
@given(scribbles())
def test_every_region_holds_a_stroke_of_its_class(given_: tuple[NDArray[np.float32], Strokes]) -> None:
    image, strokes = given_
    labels = complete(image, strokes)
    for number in np.unique(labels[labels != UNKNOWN]):
        parts, count = ndimage.label(labels == number)
        assert set(np.unique(parts[strokes == number])) >= set(range(1, count + 1))


@pytest.mark.parametrize("of", [np.asarray, colourful], ids=["grey", "colour"])
def test_two_strokes_find_a_disc(
    structure: tuple[NDArray[np.bool_], Strokes], of: Callable[[NDArray[np.float32]], NDArray[Any]]
) -> None:
    truth, strokes = structure
    labels = complete(of(noisy(truth)), strokes)
    assert set(np.unique(labels)) == {0, 7}
    assert dice(labels == 7, truth) > 0.95


def test_the_image_decides_not_the_middle_between_the_strokes(structure: tuple[NDArray[np.bool_], Strokes]) -> None:
    _, strokes = structure
    for radius in (14, 24):
        truth = disc(strokes.shape, (40, 50), radius)
        assert dice(complete(noisy(truth), strokes) == 7, truth) > 0.95


@pytest.mark.parametrize(
    "move",
    [np.flipud, np.fliplr, np.rot90, lambda a: np.rot90(a, 2), lambda a: np.swapaxes(a, 0, 1)],
    ids=["up", "left", "quarter", "half", "transposed"],
)
@pytest.mark.parametrize("size", [1, 3], ids=["fine", "coarser grid"])
def test_a_mirrored_or_turned_slice_has_the_mirrored_or_turned_proposal(
    structure: tuple[NDArray[np.bool_], Strokes], move: Callable[[NDArray[Any]], NDArray[Any]], size: int
) -> None:
    truth, strokes = (np.kron(array, np.ones((size, size), array.dtype)) for array in structure)
    image = noisy(truth)
    moved = complete(np.ascontiguousarray(move(image)), np.ascontiguousarray(move(strokes)))
    assert np.mean(moved != move(complete(image, strokes))) < 2e-3  # paths of one cost may part


def test_a_flat_slice_goes_to_the_nearest_stroke() -> None:
    strokes = blank((40, 60))
    strokes[5:35, 10] = 3
    strokes[5:35, 40] = 0
    labels = complete(np.full((40, 60), 0.5, np.float32), strokes)
    assert (labels[:, :25] == 3).all()
    assert (labels[:, 26:] == 0).all()


def test_a_loop_around_is_closer_to_the_border_than_a_stroke_inside() -> None:
    shape = (101, 101)
    strokes = blank(shape)
    strokes[ring(shape, (50, 50), 40)] = 0
    strokes[50, 50] = 1
    area = np.count_nonzero(complete(np.full(shape, 0.5, np.float32), strokes) == 1)
    assert np.pi * 20**2 < area < np.pi * 38**2


def test_several_classes_are_completed_at_once() -> None:
    shape = (100, 100)
    truth = disc(shape, (50, 50), 30).astype(np.uint16) + disc(shape, (50, 50), 15)
    strokes = blank(shape)
    strokes[ring(shape, (50, 50), 38)] = 0
    strokes[ring(shape, (50, 50), 22)] = 1
    strokes[50, 45:56] = 2
    labels = complete(noisy(truth), strokes)
    assert min(dice(labels == number, truth == number) for number in (1, 2)) > 0.95


def test_strokes_at_the_edge_of_the_slice_complete_what_the_edge_cuts() -> None:
    shape = (80, 80)
    truth = disc(shape, (40, 0), 25)
    strokes = blank(shape)
    strokes[ring(shape, (40, 0), 34)] = 0
    strokes[30:50, 0] = 1
    assert dice(complete(noisy(truth), strokes) == 1, truth) > 0.95


def test_a_region_that_leaves_the_box_of_the_strokes_is_completed_to_its_end() -> None:
    shape = (100, 200)
    truth = disc(shape, (50, 60), 30) | disc(shape, (50, 110), 30)
    strokes = blank(shape)
    strokes[45:55, 55] = 1
    strokes[45:55, 5] = 0
    labels = complete(noisy(truth, contrast=0.6), strokes)
    assert dice(labels == 1, truth) > 0.9


def test_a_stroke_narrower_than_the_grid_still_counts() -> None:
    shape = (1000, 1000)
    truth = disc(shape, (500, 500), 300)
    strokes = blank(shape)
    strokes[ring(shape, (500, 500), 400)] = 0
    strokes[500, 500] = 1
    strokes[500, 501:504] = 0  # more of the same grid pixel
    labels = complete(noisy(truth), strokes)
    assert labels[500, 500] == 1
    assert set(np.unique(labels)) == {0, 1}


def test_two_dots_in_one_pixel_of_the_grid_both_count() -> None:
    shape = (1000, 1000)
    strokes = blank(shape)
    strokes[ring(shape, (500, 500), 400)] = 0
    strokes[500, 500], strokes[500, 501] = 1, 2
    labels = complete(noisy(disc(shape, (500, 500), 300)), strokes)
    assert labels[500, 500] == 1
    assert labels[500, 501] == 2
    assert labels[250, 500] in (1, 2)


def test_a_stroke_on_the_wrong_side_moves_the_border(structure: tuple[NDArray[np.bool_], Strokes]) -> None:
    truth, strokes = structure
    more = strokes.copy()
    more[25:30, 48:53] = 0
    before, after = complete(noisy(truth), strokes), complete(noisy(truth), more)
    assert np.count_nonzero(after == 7) < np.count_nonzero(before == 7)


@pytest.mark.parametrize("numbers", [[], [0], [4]])
def test_strokes_of_one_class_propose_nothing(numbers: list[int]) -> None:
    strokes = blank((20, 20))
    for number in numbers:
        strokes[5, 5:10] = number
    labels = complete(np.zeros((20, 20), np.float32), strokes)
    assert np.array_equal(labels, strokes)


def test_the_proposal_agrees_with_a_model_where_the_strokes_do_not_decide() -> None:
    shape = (80, 80)
    flat = np.full(shape, 0.5, np.float32)
    truth = disc(shape, (40, 50), 20)
    strokes = blank(shape)
    strokes[40, 48:52] = 5
    strokes[35:45, 5] = 0
    sure = np.where(truth, 0.95, 0.05)
    alone = complete(flat, strokes)
    both = complete(flat, strokes, probability={0: 1 - sure, 5: sure})
    assert dice(both == 5, truth) > 0.95 > dice(alone == 5, truth)
    assert np.array_equal(both, complete(flat, strokes, probability={5: sure}))


def test_a_stroke_against_a_model_wins_around_it() -> None:
    shape = (80, 80)
    missed = disc(shape, (40, 55), 8)
    truth = disc(shape, (40, 30), 12) | missed
    strokes = blank(shape)
    strokes[40, 25:35] = 1
    strokes[40, 51:60] = 1
    strokes[75, 10:70] = 0
    wrong = np.where(truth & ~missed, 0.95, 0.05)
    labels = complete(noisy(truth), strokes, probability={1: wrong})
    assert dice(labels == 1, truth) > 0.9


def test_the_same_strokes_give_the_same_proposal(structure: tuple[NDArray[np.bool_], Strokes]) -> None:
    truth, strokes = structure
    image = noisy(truth)
    assert np.array_equal(complete(image, strokes), complete(image.copy(), strokes.copy()))


@pytest.mark.parametrize("kind", ["strokes", "probability"])
def test_another_size_than_the_slice_is_refused(kind: str) -> None:
    image, right, wrong = np.zeros((20, 30), np.float32), blank((20, 30)), (30, 20)
    strokes = blank(wrong) if kind == "strokes" else right
    with pytest.raises(LabelError, match=r"30 × 20 pixels and the slice 20 × 30"):
        complete(image, strokes, {1: np.zeros(wrong)})


@pytest.mark.parametrize("number", [-1, 70000])
def test_a_number_that_no_class_can_have_is_refused(number: int) -> None:
    with pytest.raises(LabelError, match="class numbers 0 to 65534"):
        complete(np.zeros((5, 5), np.float32), np.full((5, 5), number))


def test_a_class_that_leaves_the_strokes_on_all_sides_does_not_fill_the_slice_beyond_its_border() -> None:
    shape = (120, 120)
    truth = disc(shape, (60, 60), 40) & ~disc(shape, (60, 60), 8)
    strokes = blank(shape)
    strokes[ring(shape, (60, 60), 20)] = 1
    strokes[58:62, 58:62] = 0
    strokes[5, 5:100] = 0
    labels = complete(noisy(truth, contrast=0.6), strokes)
    assert dice(labels == 1, truth) > 0.9


def test_pixels_without_a_value_do_no_harm(structure: tuple[NDArray[np.bool_], Strokes]) -> None:
    truth, strokes = structure
    image = noisy(truth)
    image[:3] = np.nan
    assert dice(complete(image, strokes) == 7, truth) > 0.95


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(2, 20), st.integers(2, 20))
def test_swept_distances_are_those_of_the_cheapest_paths(seed: int, height: int, width: int) -> None:
    graph = pytest.importorskip("skimage.graph")
    random = np.random.default_rng(seed)
    costs = (0.2 + ndimage.gaussian_filter(random.random((height, width)), 1.5)).astype(np.float32)
    seeds = np.zeros((1, height, width), bool)
    seeds[0, random.integers(height), random.integers(width)] = True
    found = geodesic_distances(costs[np.newaxis, np.newaxis], seeds)[0, 0]
    exact, _ = graph.MCP_Geometric(costs.astype(float)).find_costs(np.argwhere(seeds[0]))
    assert np.allclose(found, exact, rtol=1e-4, atol=1e-4)


def test_completion_needs_neither_pytorch_nor_napari() -> None:
    code = "import sys, napari_dinoaugseg.learning.completion; print({'torch', 'napari'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- what is learned from scribbles -----------------------------------------------------------------------------------


def test_strokes_are_completed_to_learn_from(structure):
    truth, strokes = structure
    image = noisy(truth)
    labels = complete_scribbles(strokes, lambda: image)
    assert np.array_equal(labels, complete(image, strokes))
    assert dice(labels == 7, truth) > 0.9


@pytest.mark.parametrize("missing", [0, 7])
def test_strokes_that_do_not_say_where_a_class_ends_stay_strokes(structure, missing):
    _, strokes = structure
    strokes[strokes == missing] = UNKNOWN
    assert complete_scribbles(strokes, lambda: pytest.fail("the slice was read")) is strokes
    strokes[5, 5] = 9  # another class, and no background
    if missing == 0:
        assert complete_scribbles(strokes, lambda: pytest.fail("the slice was read")) is strokes


def test_what_is_left_open_on_a_labelled_slice_stays_open(structure):
    truth, _ = structure
    labels = truth.astype(np.uint16)
    labels[60:80] = UNKNOWN
    assert complete_scribbles(labels, lambda: pytest.fail("the slice was read")) is labels


def test_a_mask_is_redrawn_where_the_model_is_not_sure():
    truth = disc((64, 64), (30, 34), 14)
    sure, said = disc((64, 64), (30, 34), 8) | ~disc((64, 64), (30, 34), 24), disc((64, 64), (30, 34), 20)
    image = noisy(truth, contrast=0.5)
    inside = np.where(said, np.where(sure, 0.97, 0.7), np.where(sure, 0.03, 0.3)).astype(np.float32)
    given = np.stack([1 - inside, inside])
    found = redraw(lambda: image, given)
    assert dice(said, truth) < 0.7
    assert dice(found[1] > 0.5, truth) > 0.9
    assert np.array_equal(found[:, sure], given[:, sure])
    assert found.dtype == np.float32
    assert np.allclose(found.sum(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("most", [0.1, 0.6, 0.85], ids=["empty", "unsure of the class", "unsure of it"])
def test_a_mask_with_a_class_of_which_nothing_is_sure_stays_as_it_is(most):
    """Completion proposes only what has strokes: it would drop the class."""
    places = [np.s_[4:12, 4:12], np.s_[20:28, 20:28]]
    given = np.zeros((3, 32, 32), np.float32)
    given[1][places[0]], given[2][places[1]] = most, 0.97 if most > 0.5 else most
    given[0] = 1 - given.sum(axis=0)
    assert redraw(lambda: pytest.fail("the picture is not needed"), given) is given
