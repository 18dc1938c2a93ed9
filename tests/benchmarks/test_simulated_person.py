from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import rows, simulated_person
from benchmarks.cases import SampleCases
from benchmarks.one_volume import holding
from benchmarks.person_brush import correct, wrong_classes
from benchmarks.samples import Sample
from benchmarks.simulated_person import (
    VolumeDice,
    Work,
    annotate,
    annotate_live,
    hand_with_completion,
    paint_by_hand,
    seconds_until,
)
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.settings import PRESETS, Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.session import Session

TINY = {"width": 16, "steps": 12, "views": 0}
N_SLICES, SIDE = 12, 64


def balls(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and truth, (12, 64, 64) each: a ball of class 1 with a core of class 2, in slices 2 to 9."""
    z, y, x = np.indices((N_SLICES, SIDE, SIDE))
    distance = ((z - 5.5) / 4.2) ** 2 + ((y - 30) / 18) ** 2 + ((x - 34) / 15) ** 2
    truth = (distance < 1).astype(np.uint8) + (distance < 0.3)
    image = 100 * truth + np.random.default_rng(seed).integers(0, 50, truth.shape)
    return image.astype(np.uint8), truth.astype(np.uint8)


@pytest.fixture
def sample() -> Sample:
    image, truth = balls()
    return Sample("balls", tuple(image), tuple(truth), None)


@pytest.fixture
def work(sample: Sample) -> Work:
    return Work(sample, VolumeDice(sample.truth, [1, 2]))


@pytest.fixture
def opened(sample: Sample) -> SampleCases:
    return SampleCases([sample])


@pytest.fixture
def session(opened: SampleCases) -> Session:
    settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, **TINY)
    return Session(opened.cases[0], settings, ComputeConfig("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "acdc").mkdir()
    image, truth = balls()
    with h5py.File(folder / "acdc" / "balls.h5", "w") as file:
        file["image"], file["label"] = image.astype(np.float32), truth
    return folder


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    monkeypatch.setattr("napari_dinoaugseg.learning.settings.PRESETS", {**PRESETS, "fast": TINY})

    def call(*more: str) -> list[dict[str, Any]]:
        folders = ["--data", str(data), "--out", str(tmp_path / "out"), "--sets", "acdc"]
        simulated_person.command([*folders, "--input-size", "64", "--preset", "fast", *more])
        return rows.read(tmp_path / "out")

    return call


# --- the volume -----------------------------------------------------------------------------------------------------


def test_dice_of_the_volume_is_that_of_all_its_slices_together(sample: Sample) -> None:
    found = np.random.default_rng(0).integers(0, 3, (N_SLICES, SIDE, SIDE))
    kept = VolumeDice(sample.truth, [1, 2])
    assert kept.values == [0, 0]
    for index, labels in enumerate(found):
        kept.set(index, 0 * labels)
        kept.set(index, labels)
    truth = np.stack(sample.truth)
    assert kept.values == pytest.approx([dice(found == n, truth == n) for n in (1, 2)])


def test_painting_by_hand_takes_the_slices_in_order_until_the_highest_target(work: Work) -> None:
    paint_by_hand(work, largest_first=False)
    assert list(work.touched) == holding(work.sample)[: len(work.touched)]
    assert work.curve[-1]["mean_dice"] >= 0.95 > work.curve[-2]["mean_dice"]
    assert [point["slices"] for point in work.curve] == list(range(1, len(work.touched) + 1))
    assert work.curve[-1]["strokes"] == sum(work.touched.values())


def test_the_largest_slices_first_need_no_more_slices(sample: Sample, work: Work) -> None:
    paint_by_hand(work, largest_first=False)
    other = Work(sample, VolumeDice(sample.truth, [1, 2]))
    paint_by_hand(other, largest_first=True)
    sizes = [np.count_nonzero(sample.truth[index]) for index in other.touched]
    assert sizes == sorted(sizes, reverse=True)
    assert len(other.touched) <= len(work.touched)


def test_the_person_begins_in_the_middle_and_corrects_slices_until_enough(work: Work, session: Session) -> None:
    annotate(work, session, "suggested", per_round=2, max_slices=4)
    assert next(iter(work.touched)) == 6
    assert [point["slices"] for point in work.curve] == [1, 3, 4]  # one to begin with, and no more than allowed
    assert session.labels.labelled == sorted(work.touched)
    assert len(session.history) == 3
    for index, strokes in work.touched.items():
        assert session.labels.status(index) is (Status.MANUAL if strokes else Status.ACCEPTED)
        assert wrong_classes(session.labels.result(index), work.sample.truth[index]) == []
    exported = np.stack([session.labels.result(index) for index in range(N_SLICES)])
    truth = np.stack(work.sample.truth)
    assert work.dice.values == pytest.approx([dice(exported == n, truth == n) for n in (1, 2)])


def test_a_right_prediction_is_touched_and_accepted_without_a_stroke(
    work: Work, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def oracle(work: Work, session: Session, centre: int, *_: object) -> dict[str, float]:
        for index in session.labels.open_slices:
            session.labels.set_prediction(index, work.sample.truth[index], 0.5)
        return {}

    monkeypatch.setattr(simulated_person, "_learn", oracle)
    annotate(work, session, "even", per_round=1, max_slices=3)
    (_, first), *others = work.touched.items()
    assert first > 0
    assert [strokes for _, strokes in others] == [0, 0]
    assert work.curve[-1]["slices"] == 3
    assert work.curve[-1]["painted"] == 1
    assert session.labels.status(others[0][0]) is Status.ACCEPTED


def test_the_person_stops_at_the_highest_target(work: Work, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def perfect(work: Work, session: Session, centre: int, *_: object) -> dict[str, float]:
        for index in session.labels.open_slices:
            work.dice.set(index, work.sample.truth[index])
        return {}

    monkeypatch.setattr(simulated_person, "_learn", perfect)
    annotate(work, session, "random", per_round=1, max_slices=9)
    assert len(work.touched) == 1


# --- tools ------------------------------------------------------------------------------------------------------------


def test_strokes_that_are_completed_label_a_slice_with_fewer_strokes_than_the_brush(
    work: Work, opened: SampleCases
) -> None:
    truth = work.sample.truth[5]
    nothing = np.zeros(truth.shape, np.uint16)
    brushed = correct(nothing, truth)
    drawn = hand_with_completion(opened.shown)(5, nothing, truth)
    assert 3 <= drawn.strokes < brushed.strokes  # inside two structures, and a loop
    assert wrong_classes(drawn.labels, truth) == []


def test_a_mask_that_is_almost_right_is_mended_with_the_brush(work: Work, opened: SampleCases) -> None:
    truth = work.sample.truth[5]
    found = truth.copy()
    found[28:36, 20:28] = 0
    assert hand_with_completion(opened.shown)(5, found, truth).strokes == correct(found, truth).strokes < 3
    empty = np.zeros(truth.shape, np.uint16)
    assert hand_with_completion(opened.shown)(0, empty, empty).strokes == 0


def test_with_live_the_person_goes_on_to_slices_that_show_a_mask_without_a_training(
    work: Work, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated_person, "STROKE_SECONDS", 0.05)
    annotate_live(work, session, max_slices=3)
    assert session.history == []  # no training
    assert session.labels.labelled == sorted(work.touched)
    assert len(work.touched) == 3
    for point in work.curve[:-1]:
        assert 0 < point["seconds"]["all"] < 25
    exported = np.stack([session.labels.result(index) for index in range(N_SLICES)])
    truth = np.stack(work.sample.truth)
    assert work.dice.values == pytest.approx([dice(exported == n, truth == n) for n in (1, 2)])


def test_seconds_are_those_of_the_hand_and_of_waiting(work: Work) -> None:
    curve = [
        {"slices": 1, "strokes": 4, "seconds": {"all": 10.0}},
        {"slices": 3, "strokes": 10, "seconds": {"all": 5.0}},
    ]
    assert seconds_until({"curve": curve}, curve[0]) == 1.5 * 4 + 1 + 10
    assert seconds_until({"curve": curve}, curve[1]) == 1.5 * 10 + 3 + 15


# --- the command ----------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_row_for_each_strategy_and_skips_it_the_next_time(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("--strategies", "suggested,by_hand", "--max-slices", "2", "--draws", "2")
    found = run(*asked)
    assert [(row["method"], row["draw"]) for row in found] == [("suggested", 0), ("by_hand", 0), ("suggested", 1)]
    for row in found:
        assert row["mean_dice"] == row["curve"][-1]["mean_dice"]
        assert len(row["curve"][0]["dice"]) == len(row["classes"]) == 2
        assert len(row["touched"]) == row["curve"][-1]["slices"]
        assert (row["holding"], row["n_slices"]) == (8, N_SLICES)
    assert found[0]["curve"][0]["seconds"]["train"] > 0
    assert "/" not in json.dumps({key: value for key, value in found[0].items() if key != "hardware"})
    assert (tmp_path / "out" / "cache" / "features").is_dir()
    monkeypatch.setattr(simulated_person, "measure", lambda *_: pytest.fail("measured again"))
    assert run(*asked) == found
    with pytest.raises(pytest.fail.Exception):  # who gives up later may get further
        run(*asked, "--max-slices", "3")


def test_nonsense_is_refused_before_anything_is_written(run, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--per-round"):
        run("--per-round", "0")
    with pytest.raises(SystemExit):
        run("--strategies", "best")
    assert not (tmp_path / "out").exists()
