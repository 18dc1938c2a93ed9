"""Shots are drawn patient by patient; the authors' draw is theirs, or it is told why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.paper.draws import MOST_TESTED, authors_draw, random_draws
from benchmarks.paper.protocols import PROTOCOLS
from benchmarks.paper.published import authors_draw as authors_list
from benchmarks.paper.published import authors_test
from benchmarks.paper.sources import DataSet, PictureSource, VolumeSource, groups_of
from napari_dinoaugseg.errors import SettingsError


def volume(patient: int, frame: int) -> VolumeSource:
    def read() -> None:
        pytest.fail("a draw reads no volume")

    return VolumeSource(f"patient{patient:03d}_frame{frame:02d}", f"patient{patient:03d}", read)


def acdc(patients: list[int]) -> DataSet:
    pool = [volume(patient, frame) for patient in patients for frame in (1, 14)]
    return DataSet(pool, [volume(1, 1)], "made up", "", True)


def pictures(count: int) -> DataSet:
    return DataSet(
        [PictureSource(Path(f"cju{n:04d}.jpg"), Path("mask.jpg")) for n in range(count)], [], "made up", "", True
    )


def test_seven_shots_of_acdc_are_seven_volumes_of_four_patients():
    for draw in random_draws(PROTOCOLS["acdc"], acdc(list(range(2, 60))), 7, 3):
        assert len({shot.name for shot in draw.shots}) == 7
        assert len(groups_of(draw.shots)) == 4


def test_draws_differ_and_are_the_same_in_every_run():
    data = acdc(list(range(2, 60)))
    first, second, third = random_draws(PROTOCOLS["acdc"], data, 7, 3)
    assert len({tuple(shot.name for shot in draw.shots) for draw in (first, second, third)}) == 3
    again = random_draws(PROTOCOLS["acdc"], data, 7, 1)[0]
    assert [shot.name for shot in again.shots] == [shot.name for shot in first.shots]


def test_the_authors_draw_of_acdc_is_in_their_order_whatever_the_folder_is():
    draw, why = authors_draw(PROTOCOLS["acdc"], acdc([100, 2, 38, 50, 99]), 7)
    assert why == ""
    assert draw is not None
    assert [shot.name for shot in draw.shots] == [
        *("patient099_frame01", "patient099_frame14", "patient038_frame01", "patient038_frame14"),
        *("patient050_frame01", "patient050_frame14", "patient100_frame01"),
    ]


@pytest.mark.parametrize(
    ("patients", "shots", "why"),
    [
        ([2, 38, 50, 100], 7, "patient099 is not among the training cases here"),
        ([2, 38, 50, 99, 100], 9, "known for up to 8 volumes only"),
    ],
)
def test_it_is_told_why_the_authors_draw_is_not_repeated(patients: list[int], shots: int, why: str):
    draw, told = authors_draw(PROTOCOLS["acdc"], acdc(patients), shots)
    assert draw is None
    assert why in told


def test_fewer_shots_of_the_authors_need_fewer_of_their_patients():
    draw, _ = authors_draw(PROTOCOLS["acdc"], acdc([99, 38]), 3)
    assert draw is not None
    assert groups_of(draw.shots) == ["patient099", "patient038"]


def test_the_lists_of_isic2018_are_not_public():
    assert authors_draw(PROTOCOLS["isic2018"], pictures(30), 5) == (None, "the authors' draw is not public")


@pytest.mark.parametrize("dataset", ["acdc", "la2018", "synapse", "tn3k", "kvasir"])
def test_the_authors_lists_reach_for_every_experiment_and_test_nobody_they_label(dataset: str):
    names = authors_list(dataset)
    per_group = 2 if dataset == "acdc" else 1
    assert len(set(names)) == len(names)
    assert len(names) * per_group >= max(PROTOCOLS[dataset].figures)
    assert not authors_test(dataset) & set(names)


def test_the_test_list_of_kvasir_has_the_120_names_of_the_official_split():
    tested = authors_test("kvasir")
    assert len(tested) == 120 == PROTOCOLS["kvasir"].test_groups
    assert all(re.fullmatch(r"c[jk][0-9a-z]{23}", name) for name in tested)
    # Those that the authors show in their figures, of which all are test pictures.
    shown = "cju16ach3m1da0993r1dq3sn2 cju8d4jgatgpj0871q2ophhkm cjz14qsk2wci60794un9ozwmw cju334jzo261t0835yqudnfs1"
    assert {*shown.split(), "cju87r56lnkyp0755hz30leew"} <= tested


def test_too_many_shots_are_refused_with_the_number_there_is():
    with pytest.raises(SettingsError, match=r"7 volumes .* 4 of ACDC lie here\. Give --shots 4 or fewer"):
        random_draws(PROTOCOLS["acdc"], acdc([2, 3]), 7, 3)
    with pytest.raises(SettingsError, match=r"5 of Kvasir-SEG lie here, and one is needed .* --shots 4 or fewer"):
        random_draws(PROTOCOLS["kvasir"], pictures(5), 5, 3)


def test_without_a_test_list_pictures_are_tested_that_the_draw_left():
    for draw in random_draws(PROTOCOLS["kvasir"], pictures(300), 40, 2):
        assert not {source.name for source in draw.test} & {source.name for source in draw.shots}
        assert len(draw.test) == MOST_TESTED
    (few,) = random_draws(PROTOCOLS["kvasir"], pictures(5), 3, 1)
    assert len(few.test) == 2
