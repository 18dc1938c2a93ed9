from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from benchmarks import project_person, rows
from benchmarks.cases import SampleCases
from benchmarks.one_volume import holding
from benchmarks.project_person import TARGET, Effort, Person, work_after_each_other, work_in_project
from benchmarks.samples import Sample
from benchmarks.simulated_person import VolumeDice, Work
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.settings import PRESETS, Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.project import Project
from napari_dinoaugseg.session.session import Session
from tests.benchmarks.test_simulated_person import N_SLICES, TINY, balls

SETTINGS = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, **TINY)


@pytest.fixture
def samples() -> list[Sample]:
    made = [balls(seed) for seed in range(2)]
    return [Sample(f"balls {n}", tuple(image), tuple(truth), None) for n, (image, truth) in enumerate(made)]


@pytest.fixture
def effort(samples: list[Sample]) -> Effort:
    return Effort([Work(sample, VolumeDice(sample.truth, [1, 2]), TARGET) for sample in samples])


@pytest.fixture
def opened(samples: list[Sample]) -> SampleCases:
    return SampleCases(samples)


@pytest.fixture
def project(opened: SampleCases, tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path / "project", settings=SETTINGS, config=ComputeConfig("cpu", cache=False)) as made:
        for path in opened.paths:
            made.add(path, plane="native")
        yield made


def exported(session: Session) -> np.ndarray:
    return np.stack([session.labels.result(i) for i in range(N_SLICES)])


def mean_dice(masks: np.ndarray, sample: Sample) -> float:
    truth = np.stack(sample.truth)
    return float(np.mean([dice(masks == number, truth == number) for number in (1, 2)]))


def test_the_person_finishes_a_case_trains_on_all_labels_and_goes_on_to_the_next(
    project: Project, effort: Effort
) -> None:
    work_in_project(project, effort, project.cases, Person("fast", per_round=1, max_slices=2))
    assert [sorted(training.slices) for training in project.trainings] == [[1], [1], [1, 2], [1, 2]]
    assert effort.trainings == 4
    assert next(iter(effort.works[0].touched)) in holding(effort.works[0].sample)
    for case, work in zip(project.cases, effort.works, strict=True):
        assert case.is_done  # or given up after two slices
        book, _ = project.book(case)
        assert book.labelled == sorted(work.touched)
        session, store, _ = project.session(case)
        assert work.mean_dice == pytest.approx(mean_dice(exported(session), work.sample))
        store.close()


def test_a_case_whose_masks_are_good_is_ticked_without_a_label(
    project: Project, effort: Effort, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Project.predict

    def oracle(self: Project, case: Any, **options: Any) -> tuple[Session, list[str]]:
        session, problems = predict(self, case, **options)
        for i in session.labels.open_slices:
            session.labels.set_prediction(i, effort.works[case.number - 1].sample.truth[i], 0.5)
        return session, problems

    monkeypatch.setattr(Project, "predict", oracle)
    work_in_project(project, effort, project.cases, Person("fast", per_round=1, max_slices=1))
    assert [len(work.touched) for work in effort.works] == [1, 0]
    assert project.cases[1].is_done
    assert effort.works[1].mean_dice >= TARGET


@pytest.mark.parametrize("keeps_model", [True, False])
def test_one_case_after_the_other_begins_with_the_model_before_or_from_nothing(
    keeps_model: bool, opened: SampleCases, effort: Effort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    annotate = project_person.annotate
    monkeypatch.setattr(
        project_person,
        "annotate",
        lambda work, session, *rest, **more: begun.append(session.is_trained) or annotate(work, session, *rest, **more),
    )
    work_after_each_other(
        opened.cases,
        effort,
        SETTINGS,
        ComputeConfig("cpu"),
        tmp_path / "cache",
        Person("fast", per_round=1, max_slices=2),
        keeps_model=keeps_model,
    )
    assert begun == [False, keeps_model]
    assert effort.trainings == len(effort.curve)
    assert next(iter(effort.works[0].touched)) in holding(effort.works[0].sample)
    if not keeps_model:
        assert next(iter(effort.works[1].touched)) == next(iter(effort.works[0].touched))
    for work in effort.works:
        assert work.is_done or len(work.touched) == 2


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    monkeypatch.setattr("napari_dinoaugseg.learning.settings.PRESETS", {**PRESETS, "fast": TINY})
    folder = tmp_path / "data" / "acdc" / "train"
    folder.mkdir(parents=True)
    for seed in range(2):
        image, truth = balls(seed)
        with h5py.File(folder / f"balls{seed}.h5", "w") as file:
            file["image"], file["label"] = image.astype(np.float32), truth

    def call(*more: str) -> list[dict[str, Any]]:
        folders = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--sets", "acdc"]
        project_person.command([*folders, "--input-size", "64", "--preset", "fast", *more])
        return rows.read(tmp_path / "out")

    return call


def test_a_run_leaves_a_row_for_each_method_and_skips_it_the_next_time(
    run: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--max-slices", "1", "--cases", "2")
    found = run(*asked)
    assert [row["method"] for row in found] == ["project", "after_each_other", "alone"]
    for row in found:
        assert row["slices"] == sum(len(touched) for touched in row["touched"].values())
        assert row["strokes"] == sum(strokes for touched in row["touched"].values() for _, strokes in touched)
        assert row["trainings"] == len(row["curve"])
        assert row["done"] == sum(np.mean(values) >= TARGET for values in row["dice"].values())
        assert "/" not in json.dumps({key: value for key, value in row.items() if key != "hardware"})
    monkeypatch.setattr(project_person, "measure", lambda *_: pytest.fail("measured again"))
    assert run(*asked) == found
    with pytest.raises(pytest.fail.Exception):  # who trains less often is another measurement
        run(*asked, "--per-round", "2")


def test_the_summary_compares_strokes_with_those_for_one_volume_after_the_other() -> None:
    shared = {"benchmark": "project_person", "set": "acdc", "draw": 0, "preset": "fast", "labels": 8, "per_round": 1}
    effort = {"slices": 30, "trainings": 9, "done": 8}
    text = project_person.summary(
        [
            {**shared, **effort, "method": "project", "strokes": 300},
            {**shared, **effort, "method": "after_each_other", "strokes": 400},
            {**shared, **effort, "method": "project", "strokes": 300, "draw": 1},
            {"benchmark": "few_shot"},
        ]
    )
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert [(line[1], line[6], line[7], line[9]) for line in lines] == [
        ("project", "300", "75", "8 of 8"),
        ("after_each_other", "400", "100", "8 of 8"),
        ("project", "300", "–", "8 of 8"),
    ]


def test_nonsense_is_refused_before_anything_is_written(run: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--cases"):
        run("--cases", "0")
    assert not (tmp_path / "out").exists()
