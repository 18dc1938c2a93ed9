from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_dinoaugseg.learning.query import CaseFacts, Suggestion, suggest, suggest_in_project


def test_without_predictions_the_middle_comes_first_then_the_largest_gap():
    first, second = suggest(11, [], {}, count=2)
    assert first.index == 5
    assert second.index in (0, 10)


def test_in_a_volume_without_predictions_the_middle_comes_first_then_slices_amid_the_gaps_not_its_ends():
    chosen = [entry.index for entry in suggest(100, [], {}, count=3, amounts={})]
    assert chosen[0] == 50
    (gap,) = suggest(100, [20, 40, 80], {}, amounts={20: 500, 40: 500, 80: 500})
    assert all(10 <= index < 90 for index in chosen)
    assert gap.index == 60


def test_an_uncertain_slice_far_from_labels_beats_an_uncertain_neighbour():
    confidence = dict.fromkeys(range(20), 0.95) | {6: 0.5, 15: 0.5}
    (best,) = suggest(20, [5], confidence)
    assert best.index == 15
    assert best.reason == "most uncertain, far from labelled slices"
    assert (best.confidence, best.distance) == (0.5, 10)


def test_suggestions_spread_instead_of_crowding_around_one_doubt():
    confidence = dict.fromkeys(range(40), 0.9) | {20: 0.3, 21: 0.31, 19: 0.32}
    chosen = [entry.index for entry in suggest(40, [0], confidence, count=3)]
    assert chosen[0] in (19, 20, 21)
    assert all(abs(index - 20) > 2 for index in chosen[1:])


def test_a_doubt_about_an_empty_end_of_a_volume_counts_little():
    confidence = dict.fromkeys(range(40), 0.9) | {0: 0.3, 39: 0.3, 12: 0.7}
    amounts = {index: 0 if index < 8 or index > 31 else 500 for index in range(40)}
    (in_a_volume,) = suggest(40, [20], confidence, amounts=amounts)
    (of_pictures,) = suggest(40, [20], confidence)
    assert abs(in_a_volume.index - 12) <= 2
    assert of_pictures.index in (0, 39)


def test_a_doubt_behind_the_end_of_a_structure_draws_the_choice_there_for_it_may_hold_more_of_it():
    confidence = dict.fromkeys(range(40), 0.95)
    amounts = {index: 500 if 8 <= index <= 31 else 0 for index in range(40)}
    (without,) = suggest(40, [20], confidence, amounts=amounts)
    (behind,) = suggest(40, [20], confidence | {33: 0.5}, amounts=amounts)
    assert without.index in (10, 30)
    assert behind.index in (31, 32, 33)


def test_in_a_volume_the_slice_comes_next_that_tells_most_of_those_around_it():
    confidence = dict.fromkeys(range(60), 0.9) | dict.fromkeys(range(40, 49), 0.6) | {8: 0.55}
    amounts = dict.fromkeys(range(60), 500)
    (best,) = suggest(60, [20], confidence, amounts=amounts)
    assert 43 <= best.index <= 46  # amid nine doubts, not at the largest one
    assert best.reason == "most uncertain, far from labelled slices"


def test_equal_doubts_in_a_volume_are_spread_over_the_structure():
    confidence = dict.fromkeys(range(100), 0.8)
    amounts = {index: 500 if 20 <= index < 80 else 0 for index in range(100)}
    chosen = sorted([50, *(entry.index for entry in suggest(100, [50], confidence, count=2, amounts=amounts))])
    assert all(15 <= after - before <= 25 for before, after in pairwise(chosen))


@given(
    n=st.integers(1, 30),
    labelled=st.sets(st.integers(0, 29)),
    confidence=st.dictionaries(st.integers(0, 29), st.floats(0, 1)),
    count=st.integers(0, 35),
    amounts=st.none() | st.dictionaries(st.integers(0, 29), st.integers(0, 9)),
)
def test_suggestions_are_distinct_unlabelled_and_as_many_as_there_are(n, labelled, confidence, count, amounts):
    labelled = {index for index in labelled if index < n}
    confidence = {index: value for index, value in confidence.items() if index < n}
    chosen = [entry.index for entry in suggest(n, labelled, confidence, count, amounts)]
    assert len(chosen) == len(set(chosen)) == min(count, n - len(labelled))
    assert not labelled & set(chosen)


def cases_of(*sizes: int, **changes):
    return [CaseFacts(number, size, (), None, **changes) for number, size in enumerate(sizes, 1)]


def of_kinds(*kinds: int) -> dict[int, np.ndarray]:
    """Descriptors of pictures: those of a kind are nearly the same."""
    random = np.random.default_rng(0)
    centres = 3 * random.normal(size=(1 + max(kinds), 32))
    return {i: (centres[kind] + 0.1 * random.normal(size=32)).astype(np.float32) for i, kind in enumerate(kinds)}


def test_the_first_pictures_are_one_of_each_kind_the_most_frequent_kind_first():
    kinds = (0, 1, 1, 1, 1, 2, 0, 1, 2, 0)
    chosen = [kinds[entry.index] for entry in suggest(10, [], {}, count=3, descriptors=of_kinds(*kinds))]
    assert chosen == [1, 0, 2]


def test_a_picture_like_a_labelled_one_waits_wherever_it_lies_in_the_folder():
    kinds = (0, 1, 1, 0, 0, 0, 0, 0, 0, 0)
    (best,) = suggest(10, [0], {}, descriptors=of_kinds(*kinds))
    assert best.index in (1, 2)
    assert best.reason == "unlike the labelled pictures"
    assert suggest(10, [0], {})[0].index == 9  # unless nothing is known of them


def test_among_kinds_as_frequent_the_one_comes_next_that_the_model_doubts():
    kinds = (0, 1, 1, 1, 2, 2, 2)
    confidence = {1: 0.95, 2: 0.95, 3: 0.95, 4: 0.6, 5: 0.6, 6: 0.6}
    (best,) = suggest(7, [0], confidence, descriptors=of_kinds(*kinds))
    assert best.index in (4, 5, 6)
    assert best.reason == "most uncertain, unlike the labelled pictures"


def test_pictures_are_ranked_without_descriptors_until_each_has_one():
    descriptors = of_kinds(0, 1, 1, 0, 0, 0)
    del descriptors[5]
    assert suggest(6, [0], {}, descriptors=descriptors) == suggest(6, [0], {})


def test_of_thousands_of_pictures_another_kind_is_found():
    kinds = [0] * 4100
    kinds[2000:2400] = [1] * 400
    (best,) = suggest(4100, [7], {}, descriptors=of_kinds(*kinds))
    assert kinds[best.index] == 1


def test_pictures_that_show_the_same_are_suggested_one_after_the_other():
    same = dict.fromkeys(range(4), np.ones(8, np.float32))
    assert sorted(entry.index for entry in suggest(4, [], {}, count=9, descriptors=same)) == [0, 1, 2, 3]


def test_positions_in_a_project_spread_from_end_to_end_over_its_cases():
    cases = cases_of(*(30 + number % 8 for number in range(20)))
    chosen = suggest_in_project(cases, 20)
    assert sorted(entry.case for entry in chosen) == list(range(1, 21))
    sizes = {case.number: case.n_slices for case in cases}
    positions = sorted(entry.index / (sizes[entry.case] - 1) for entry in chosen)
    assert positions[0] == 0
    assert positions[-1] == 1
    assert max(after - before for before, after in pairwise(positions)) < 0.12


def test_a_project_begins_with_a_slice_that_holds_structures():
    (first,) = suggest_in_project(cases_of(41, 41))
    assert (first.case, first.index) == (1, 20)


def test_among_cases_with_as_few_labels_the_least_sure_one_comes_next():
    cases = [CaseFacts(1, 9, (4,), 0.2), CaseFacts(2, 9, (), 0.9), CaseFacts(3, 9, (), 0.6), CaseFacts(4, 9, (), 0.7)]
    assert [entry.case for entry in suggest_in_project(cases, 4)] == [3, 4, 2, 1]


def test_a_case_to_be_finished_goes_on_by_its_masks_until_it_is_done():
    begun, other, unsure = CaseFacts(1, 9, (4, 7), 0.9), CaseFacts(2, 9, (3,), 0.5), CaseFacts(3, 9, (), 0.6)

    def asked(*cases, first):
        (entry,) = suggest_in_project(cases, 1, lambda *_: Suggestion(2, "uncertain", 0.4, 1), first)
        return entry.case, entry.index, entry.reason.split(", ")[0]

    assert asked(begun, other, unsure, first=1) == (1, 2, "this case is not done")
    assert asked(begun, other, unsure, first=3) == (3, 2, "this case is not done")
    done = replace(begun, is_open=False)
    assert asked(done, other, unsure, first=1)[0] == 3
    assert asked(done, other, unsure, first=1)[2] == "a case without labels"


def test_a_second_slice_of_a_case_keeps_away_from_its_first():
    (entry,) = suggest_in_project([CaseFacts(1, 21, (0,), None)])
    assert entry.index > 10


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    done=st.sets(st.integers(1, 5)),
    count=st.integers(0, 50),
)
def test_suggestions_of_a_project_are_distinct_and_never_in_a_case_that_is_done(sizes, done, count):
    cases = [CaseFacts(n, size, (), None, is_open=n not in done) for n, size in enumerate(sizes, 1)]
    chosen = [(entry.case, entry.index) for entry in suggest_in_project(cases, count)]
    assert len(chosen) == len(set(chosen)) == min(count, sum(case.n_slices for case in cases if case.is_open))
    assert not done & {case for case, _ in chosen}
