from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from benchmarks import few_shot, harness, one_volume, rows
from benchmarks.methods import METHODS, Method, Problem
from benchmarks.methods.ours import learn
from benchmarks.methods.problem import raise_on_notice
from napari_dinoaugseg.errors import CaseError, SettingsError, TrainingError
from napari_dinoaugseg.learning.events import Notice, Progress
from napari_dinoaugseg.learning.settings import Settings
from tests.benchmarks.sets import write_acdc, write_clinicdb

TINY = Settings.of_preset("fast", steps=40, views=1, width=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed in range(1, 9):
        write_clinicdb(root / "cvc_clinicdb" / ("train" if seed < 5 else "test"), seed, (48, 64))
    for seed in (1, 2):
        write_acdc(root / "acdc" / ("train" if seed < 2 else "test"), seed)
    return root


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our method in seconds."""
    ours = Method("balanced", "tiny", partial(learn, settings=TINY))
    monkeypatch.setattr(harness, "METHODS", MappingProxyType({**METHODS, "balanced": ours}))


@pytest.fixture
def run(data: Path, tmp_path: Path, tiny: None) -> Callable[..., list[dict[str, Any]]]:
    def call(command: Callable[[list[str]], None], *more: str, out: str = "out") -> list[dict[str, Any]]:
        shared = ["--data", str(data), "--out", str(tmp_path / out), "--input-size", "64", *more]
        command(shared)
        return rows.read(tmp_path / out)

    return call


FEW = ("--sets", "cvc_clinicdb", "--shots", "2", "--draws", "1")
QUICK = ("--methods", "unet", "--seconds", "1e-6")  # one step, and nothing to encode for it


@pytest.mark.slow
def test_methods_learn_from_few_pictures(run) -> None:
    found = {
        row["method"]: row
        for row in run(few_shot.command, *FEW, "--methods", "balanced,forest,linear", "--seconds", "1.5")
    }
    assert found.keys() == {"balanced", "forest", "linear"}
    for row in found.values():
        assert row["mean_dice"] > 0.6
        assert row["dice"].keys() == {"5", "6", "7", "8"}
        assert row["mean_dice"] == pytest.approx(
            np.mean([sample["polyp"] for sample in row["dice"].values()]), abs=1e-5
        )
        assert set(row["labelled"]) < {"1", "2", "3", "4"}
        assert sum(row["calibration"]["pixels"]) == 4 * 48 * 64
        assert row["seconds"]["train"] > 0
        assert row["hd95_unit"] == "px"
    assert len({tuple(row["labelled"]) for row in found.values()}) == 1
    assert {name: row["encoded"] for name, row in found.items()} == {"balanced": 4, "forest": 16, "linear": 16}


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(few_shot.command, *FEW, "--methods", "forest", "--seconds", "1e-6")
    file = tmp_path / "out" / rows.FILE
    file.write_text(file.read_text() + '{"benchmark": "few_sh')  # killed while it wrote
    both = run(few_shot.command, *FEW, "--methods", "forest,linear", "--seconds", "1e-6")
    assert both[0] == first[0]
    assert [row["method"] for row in both] == ["forest", "linear"]
    monkeypatch.setattr(harness, "measure", lambda *_: pytest.fail("measured again"))
    assert run(few_shot.command, *FEW, "--methods", "forest,linear", "--seconds", "1e-6") == both
    with pytest.raises(pytest.fail.Exception):  # another limit of time is another measurement
        run(few_shot.command, *FEW, "--methods", "forest,linear", "--seconds", "0.02")


@pytest.mark.parametrize("method", METHODS)
def test_a_method_stops_at_the_limit_of_time_and_says_so(method: str, run) -> None:
    (row,) = run(few_shot.command, *FEW, "--methods", method, "--seconds", "1e-6")
    assert row["steps"] == (10 if method == "forest" else 1)
    assert not row["finished"]
    assert row["notes"] == [f"stopped by the limit of time at step {row['steps']}"]


def test_more_shots_hold_those_of_the_same_draw(data: Path) -> None:
    options = harness.Options(data, None, "efficientnet-lite0", None, 64, 1.0, "cpu", data / "cache", "")
    jobs = few_shot.jobs_of(["cvc_clinicdb"], [1, 3], 2, ["forest"], options)
    names = {(job.draw, job.labels): few_shot.prepare(job, options).names for job in jobs}
    for draw in (0, 1):
        assert names[draw, 3][:1] == names[draw, 1]
    assert names[0, 3] != names[1, 3]


def test_a_shot_of_a_volume_is_the_whole_volume(run, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = run(few_shot.command, "--sets", "acdc", "--shots", "1,2", "--draws", "1", *QUICK)
    assert (row["labelled"], row["labelled_slices"], row["predicted"]) == (["patient001_frame01"], 5, 5)
    assert row["dice"]["patient002_frame01"].keys() == {"right ventricle", "myocardium", "left ventricle"}
    assert "acdc: 2 shots are left out, for there are 1 cases" in capsys.readouterr().err


def test_other_cases_can_be_scored(run, data: Path, tmp_path: Path) -> None:
    write_clinicdb(tmp_path / "held_out" / "cvc_clinicdb" / "anywhere", 9, (48, 64))
    (row,) = run(few_shot.command, *FEW, *QUICK, "--test", str(tmp_path / "held_out"))
    assert list(row["dice"]) == ["9"]
    assert len(run(few_shot.command, *FEW, *QUICK)) == 2  # another measurement


def test_labelled_slices_of_a_volume_are_not_scored(run) -> None:
    which = ("--sets", "acdc", "--volumes", "1", "--slices", "2", "--draws", "1")
    (row,) = run(one_volume.command, *which, *QUICK)
    labelled = {int(name.removeprefix("slice ")) for name in row["labelled"]}
    assert len(labelled) == 2
    assert {position for _, position, _, _ in row["slices"]} == set(range(5)) - labelled
    assert sum(row["calibration"]["pixels"]) == 3 * 24 * 20
    assert row["volume"] == "patient001_frame01"


def test_labelled_slices_lie_evenly_and_move_with_the_draw() -> None:
    holding = list(range(10, 40))
    assert one_volume.even_slices(holding, 3, draw=0) == [15, 25, 35]
    for draw in range(1, 20):
        chosen = one_volume.even_slices(holding, 3, draw)
        assert set(chosen) < set(holding)
        assert np.diff(chosen).tolist() == [10, 10]
    assert len({tuple(one_volume.even_slices(holding, 3, draw)) for draw in range(20)}) > 5


def test_the_published_command_names_no_folder_of_this_machine(run, tmp_path: Path) -> None:
    (row,) = run(few_shot.command, *FEW, *QUICK)
    assert row["command"].startswith(
        "python -m benchmarks.few_shot --data DATA --out OUT --sets cvc_clinicdb --shots 2"
    )
    assert "/" not in json.dumps({key: value for key, value in row.items() if key != "hardware"})


@pytest.mark.slow
def test_two_processes_measure_what_one_does(run) -> None:
    jobs = ("--sets", "cvc_clinicdb", "--shots", "1", "--draws", "2", *QUICK)
    one, two = run(few_shot.command, *jobs, out="one"), run(few_shot.command, *jobs, "--jobs", "2", out="two")
    assert {row["draw"]: row["dice"] for row in one} == {row["draw"]: row["dice"] for row in two}


def test_nonsense_is_refused_before_anything_is_written(run, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--draws"):
        run(few_shot.command, *FEW, "--seconds", "0")
    with pytest.raises(SystemExit):
        run(few_shot.command, *FEW, "--methods", "best")
    assert not (tmp_path / "out").exists()


def test_errors_for_a_person_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert harness.main(lambda: few_shot.command(arguments)) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_files_that_hold_no_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="no results here"):
        rows.read(tmp_path)
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(CaseError, match="no file of benchmark results"):
        rows.read(tmp_path)


def test_less_memory_than_planned_ends_a_benchmark() -> None:
    raise_on_notice(Progress("train", 1, 2, 0.1))
    with pytest.raises(TrainingError, match="compares only what ran as planned"):
        raise_on_notice(Notice("Memory ran out."))


def test_a_problem_gives_its_labelled_slices(data: Path) -> None:
    options = harness.Options(data, None, "efficientnet-lite0", None, 64, 1.0, "cpu", data / "cache", "")
    setting = few_shot.prepare(harness.Job("few_shot", "cvc_clinicdb", None, 2, 0, "forest"), options)
    problem = Problem(setting.cases, None, setting.labelled, 2, 0, 1.0)  # type: ignore[arg-type]
    for example in problem.examples:
        assert set(np.unique(example.target)) == {0, 1}
        np.testing.assert_array_equal(example.target, setting.cases.truth(example.index))


def test_an_ablation_differs_from_balanced_in_what_its_name_says() -> None:
    def differs(name: str) -> dict[str, Any]:
        both = (name, METHODS[name].against)
        ours, reference = (METHODS[n].learn.keywords["settings"].model_dump() for n in both)
        return {key: value for key, value in ours.items() if value != reference[key]}

    assert differs("balanced-one-side") == {"mirrors": False}
    assert METHODS["balanced-no-wtaug"].against == "balanced-one-side"
    assert differs("balanced-no-wtaug") == {"augment_probability": 0.0}
    assert differs("balanced-no-cgfuse") == {"fuse": False}
    assert differs("balanced-neither") == {"augment_probability": 0.0, "fuse": False}
