"""Components: what is predicted far from every mark."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.one_volume import even_slices, holding
from benchmarks.samples import load_set
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.learning.postprocessing import (
    UNKNOWN_TARGET,
    ComponentFilter,
    Finish,
    component_filter,
    single_classes,
    without_doubtful,
)

SHAPE = (8, 200, 240)  # coarser than a pixel
NEAR, FAR = np.s_[40:80, 40:90], np.s_[150:190, 180:230]


def mask(*places, number=1):
    classes = np.zeros(SHAPE[1:], np.uint16)
    for place in places:
        classes[place] = number
    return classes


def prediction(index, classes, sure=0.6):
    confidence = np.where(classes > 0, sure, 0.95).astype(np.float32)
    return Prediction(index, classes, confidence, 0.5)


def clean(predictions, labelled):
    """What is left of the masks, by slice number."""
    components = ComponentFilter(SHAPE, labelled)
    for item in predictions:
        components.add(item)
    wrong = components.find()
    return {
        item.index: components.remove(item, wrong[item.index]) if item.index in wrong else item for item in predictions
    }


def said(classes):
    return classes.astype(np.int16)


def test_what_is_joined_with_a_mark_through_the_slices_stays_and_the_rest_goes():
    labelled = {2: said(mask(NEAR))}
    predictions = [prediction(i, mask(NEAR, FAR) if i != 5 else mask(FAR)) for i in (0, 1, 3, 4, 5, 6, 7)]
    found = clean(predictions, labelled)
    for index in (0, 1, 3, 4):
        assert np.array_equal(found[index].classes, mask(NEAR))
    for index in (5, 6, 7):  # slice 5 parts the rest from the mark
        assert not found[index].classes.any()


def test_a_slice_marked_as_empty_parts_what_is_behind_it():
    labelled = {2: said(mask(NEAR)), 4: said(mask())}
    found = clean([prediction(i, mask(NEAR)) for i in (0, 1, 3, 5, 6, 7)], labelled)
    assert [index for index, item in found.items() if item.classes.any()] == [0, 1, 3]


def test_an_island_of_which_the_model_is_sure_stays():
    between = clean([prediction(i, mask(FAR), sure=0.85) for i in (1, 2)], {0: said(mask(NEAR)), 3: said(mask(NEAR))})
    beyond = clean([prediction(i, mask(FAR), sure=0.97) for i in (0, 1, 3)], {2: said(mask(NEAR))})
    assert all(np.array_equal(item.classes, mask(FAR)) for item in [*between.values(), *beyond.values()])


BEYOND = np.s_[60:120, 80:150]  # a third of it lies on NEAR


def test_beyond_the_outermost_marks_what_hardly_lies_on_the_structure_goes_with_all_behind_it():
    labelled = {2: said(mask(NEAR)), 3: said(mask(NEAR))}
    found = clean([prediction(i, mask(BEYOND) if i in (0, 1, 5, 6, 7) else mask(NEAR)) for i in range(8)], labelled)
    assert [index for index, item in found.items() if item.classes.any()] == [2, 3, 4]


def test_between_marks_a_structure_may_leap():
    labelled = {0: said(mask(NEAR)), 7: said(mask(NEAR))}
    found = clean([prediction(i, mask(BEYOND)) for i in range(1, 7)], labelled)
    assert all(np.array_equal(item.classes, mask(BEYOND)) for item in found.values())


def test_beyond_the_marks_a_structure_may_shrink_wander_and_branch():
    wandering = [mask(np.s_[30 + 4 * i : 70, 40 + 6 * i : 90 + 6 * i]) for i in range(5)]
    branches = mask(np.s_[46:54, 66:80], np.s_[60:72, 100:116])
    predictions = [prediction(i, classes) for i, classes in enumerate([*wandering, branches]) if i]
    found = clean(predictions, {0: said(wandering[0])})
    assert all(np.array_equal(found[item.index].classes, item.classes) for item in predictions)


def test_beyond_the_marks_a_part_of_which_the_model_is_quite_sure_stays_with_what_lies_on_it():
    labelled = {2: said(mask(NEAR))}
    sure = {4: 0.97, 5: 0.7, 6: 0.7}
    found = clean(
        [prediction(i, mask(NEAR, BEYOND) if i == 3 else mask(BEYOND), sure.get(i, 0.7)) for i in range(3, 7)], labelled
    )
    assert all(found[index].classes[BEYOND].all() for index in sure)


def test_a_scribble_that_falls_between_coarse_pixels_is_no_mark():
    scribble = np.full(SHAPE[1:], UNKNOWN_TARGET, np.int16)
    scribble[52, 50:80] = 1
    found = clean([prediction(i, mask(NEAR, FAR)) for i in range(8)], {2: scribble})
    assert all(np.array_equal(item.classes, mask(NEAR, FAR)) for item in found.values())


@pytest.mark.parametrize(("width", "stays"), [(6, True), (12, False)])
def test_what_is_too_thin_to_be_followed_in_the_coarse_copy_is_left_alone(width, stays):
    vessel, beside = mask(np.s_[60 : 60 + width, 20:200]), mask(np.s_[120 : 120 + width, 20:200])
    found = clean([prediction(i, beside) for i in (0, 1, 3)], {2: said(vessel)})
    assert all(item.classes.any() == stays for item in found.values())


def test_of_a_class_without_a_mark_nothing_goes():
    found = clean([prediction(i, mask(FAR, number=2)) for i in (0, 1, 3)], {2: said(mask(NEAR))})
    assert all(np.array_equal(item.classes, mask(FAR, number=2)) for item in found.values())


def test_a_scribble_holds_what_the_model_made_of_the_whole_slice():
    scribble = np.full(SHAPE[1:], UNKNOWN_TARGET, np.int16)
    scribble[50:54, 50:80] = 1
    found = clean([prediction(i, mask(NEAR, FAR)) for i in range(8)], {2: scribble})
    assert all(np.array_equal(item.classes, mask(NEAR)) for item in found.values())


def test_a_part_that_is_too_thin_for_the_coarse_copy_keeps_its_island():
    joined = mask(NEAR, FAR)
    joined[79:151, 85] = joined[150, 85:181] = 1
    found = clean([prediction(i, joined) for i in (1, 3)], {2: said(mask(NEAR))})
    assert all(np.array_equal(item.classes, joined) for item in found.values())


def test_the_removed_pixels_count_as_doubtful_and_the_given_mask_is_not_touched():
    given = prediction(3, mask(NEAR, FAR), sure=0.7)
    found = clean([given], {2: said(mask(NEAR))})[3]
    assert np.allclose(found.pixel_confidence[FAR], 0.3)
    assert np.array_equal(found.pixel_confidence[NEAR], given.pixel_confidence[NEAR])
    assert given.classes[FAR].all()


@pytest.mark.parametrize(
    ("order", "labelled"),
    [
        ([0, 1], {2: said(mask(NEAR))}),  # slices between are not known
        ([0, 1, 2, 3, 4, 5, 6, 7], {}),
        ([0, 1, 3, 4, 5, 6, 7], {2: said(mask())}),  # no structure is marked
    ],
)
def test_islands_are_looked_for_only_where_the_whole_volume_is_known_and_something_is_marked(order, labelled):
    assert component_filter(SHAPE, order, labelled) is None
    assert component_filter(SHAPE, range(8), {2: said(mask(NEAR))}) is not None


def test_of_true_atria_and_a_true_spleen_nothing_goes_with_three_marked_slices(shared_data):
    samples = [*load_set(shared_data, "la2018"), *load_set(shared_data, "msd_spleen_sample")]
    assert len(samples) == 7
    for sample in samples:
        truth = [np.asarray(labels, np.uint16) for labels in sample.truth]
        marked = even_slices(holding(sample), 3, draw=0)
        components = ComponentFilter((len(truth), *truth[0].shape), {i: said(truth[i]) for i in marked})
        for i, labels in enumerate(truth):
            if i not in marked:
                components.add(prediction(i, labels, sure=0.7))
        assert not components.find(), sample.name


def picture(*pieces):
    """The probabilities (3, H, W) of a picture with pieces (place, number, probability); the rest is background."""
    sure, mask = np.full(SHAPE[1:], 0.95, np.float32), np.zeros(SHAPE[1:], int)
    for place, number, probability in pieces:
        mask[place], sure[place] = number, probability
    return np.where(np.arange(3)[:, np.newaxis, np.newaxis] == mask, sure, (1 - sure) / 2)


def test_of_a_single_structure_only_what_the_model_is_about_as_sure_of_as_of_the_surest_piece_stays():
    third = np.s_[100:110, 10:20]
    given = picture((NEAR, 1, 0.8), (FAR, 1, 0.9), (third, 1, 0.85))
    found = without_doubtful(given, [1])
    assert np.array_equal(found.argmax(axis=0), mask(FAR, third))  # 0.8 is less than nine tenths of 0.9
    assert (found.max(axis=0)[NEAR] < 0.6).all()  # shown as unsure
    assert np.allclose(found.sum(axis=0), 1)
    assert given[1][NEAR].min() == np.float32(0.8)


def test_two_sure_pieces_one_unsure_piece_and_other_classes_stay():
    for pieces in [
        [(NEAR, 1, 0.9), (FAR, 1, 0.85)],
        [(NEAR, 1, 0.4)],
        [(NEAR, 2, 0.9), (FAR, 2, 0.5)],
        [(NEAR, 1, 0.5), (FAR, 2, 0.9)],
        [],
    ]:
        before = picture(*pieces)
        assert without_doubtful(before, [1]) is before


def test_a_left_out_piece_that_looks_like_the_rest_is_still_shown_as_unsure():
    logits = torch.from_numpy(picture((NEAR, 1, 0.8), (FAR, 1, 0.95))[:, ::4, ::4]).log()
    image = torch.from_numpy(0.2 + 0.6 * mask(NEAR, FAR)[::4, ::4]).float().expand(3, -1, -1)
    found = Finish((1,), redraws=True)(logits, lambda: image).softmax(dim=0).numpy()
    assert np.array_equal(found.argmax(axis=0), mask(FAR)[::4, ::4])
    assert (found.max(axis=0)[mask(NEAR)[::4, ::4] > 0] < 0.6).all()


def test_a_class_is_single_where_most_of_at_least_three_labelled_pictures_show_one_piece_of_it():
    one, two = said(mask(NEAR)), said(mask(NEAR, FAR))
    both = np.where(mask(FAR) > 0, 2, one).astype(np.int16)
    half_labelled = np.where(mask(FAR) > 0, UNKNOWN_TARGET, two).astype(np.int16)
    assert single_classes([one] * 3) == (1,)
    assert single_classes([one] * 3 + [two]) == (1,)
    assert single_classes([one] * 2 + [two]) == ()
    assert single_classes([two] * 3) == ()
    assert single_classes([one] * 2 + [said(mask())]) == ()  # an empty picture shows no piece
    assert single_classes([one] * 2 + [half_labelled]) == ()  # the rest may hold another
    assert single_classes([both] * 3) == (1, 2)
    assert single_classes([both, one, one]) == (1,)
