"""A few labelled slices in each of many volumes and one model, beside the same labels in other places.

    python -m benchmarks.many_cases --data FOLDER --out RESULTS [--sets msd_hippocampus,acdc] [--draws 3] [--methods …]

All methods go through the product's own project, as a person does. `project` labels the slices that the project asks
for, and learns from all volumes at once; `one_volume` labels as many slices of one volume, from end to end;
`after_each_other` labels what `project` does, and trains volume after volume, each time from the last model, in as many
steps altogether. Scored are the volumes of `test`. A draw is an order of the volumes of `train`, and a seed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import rows
from benchmarks.cases import write_sample
from benchmarks.harness import command_of, machine, main, names
from benchmarks.samples import Sample, load_set
from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.model.checkpoint import Checkpoint
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.project import Project, ProjectCase
from napari_dinoaugseg.session.session import Session

NAME = "many_cases"
METHODS = ("project", "one_volume", "after_each_other")
SLICES = {"msd_hippocampus": 1, "acdc": 2}
"""Labelled slices in each volume of `train`, by default."""

Slice = tuple[ProjectCase, int]


@dataclass(frozen=True)
class Job:
    """One row to be measured: an image set, labelled slices a volume, a draw, a method."""

    image_set: str
    slices: int
    draw: int
    method: str


@dataclass(frozen=True)
class Options:
    """What all jobs have in common; as in the other benchmarks."""

    data: Path
    encoder: str
    preset: str
    input_size: int
    device: str
    command: str


def measure(options: Options, job: Job) -> rows.Row:
    """Label, train, predict and score."""
    samples = {
        sample.name: sample for split in ("train", "test") for sample in load_set(options.data, job.image_set, split)
    }
    train = [sample.name for sample in load_set(options.data, job.image_set, "train")]
    order = [train[i] for i in np.random.default_rng(job.draw).permutation(len(train))]
    settings = Settings.of_preset(options.preset, encoder=options.encoder, input_size=options.input_size, seed=job.draw)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: write_sample(sample, Path(folder)) for name, sample in samples.items()}
        with Project(Path(folder) / "project", settings=settings, config=ComputeConfig(options.device)) as project:
            cases = {name: project.add(paths[name], plane="native")[0] for name in order}
            wanted = _asked_for(project, job.slices * len(order))
            if job.method == "one_volume":
                wanted = _of_one_volume(cases[order[0]], len(wanted))
            started = time.monotonic()
            learn = _after_each_other if job.method == "after_each_other" else _together
            model, steps = learn(project, wanted, samples)
            seconds = time.monotonic() - started
            scores = [
                _score(model, paths[sample.name], sample, project.config)
                for sample in load_set(options.data, job.image_set, "test")
            ]
    return {
        **_identity(job, options),
        "mean_dice": round(float(np.mean(scores)), 6),
        "dice": [round(value, 6) for value in scores],
        "labelled_slices": len(wanted),
        "steps": steps,
        "seconds": round(seconds, 1),
        "command": options.command,
        **machine(),
    }


def _asked_for(project: Project, count: int) -> list[Slice]:
    """The slices that the project asks for before there is a model."""
    by_number = {case.number: case for case in project.cases}
    return [(by_number[entry.case], entry.index) for entry in project.suggest(count)]


def _of_one_volume(case: ProjectCase, count: int) -> list[Slice]:
    chosen = np.unique(np.linspace(0, case.record.n_slices - 1, count).round().astype(int))
    return [(case, int(index)) for index in chosen]


def _together(project: Project, wanted: Sequence[Slice], samples: Mapping[str, Sample]) -> tuple[Checkpoint, int]:
    """Label all slices, then train once."""
    for case, index in wanted:
        session, store, _ = project.session(case)
        _label(session, samples[case.name], [index])
        project.keep(case, session, store)
        store.close()
    for _ in project.train():
        pass
    model = project.model
    assert model is not None  # it was trained
    return model, project.trainings[-1].steps


def _after_each_other(
    project: Project, wanted: Sequence[Slice], samples: Mapping[str, Sample]
) -> tuple[Checkpoint, int]:
    """Train on the slices of one volume after the other, each time from the last model; as many steps altogether."""
    groups: dict[str, list[int]] = {}
    for case, index in wanted:
        groups.setdefault(case.name, []).append(index)
    n_classes = len(_classes(samples.values())) + 1
    whole = project.settings.planned_steps(n_classes, len(wanted), warm=False)
    factor = project.settings.planned_steps(n_classes, 1, warm=False) / project.settings.steps
    # Warm or not, every training has the same share of the steps, however many slices it has.
    settings = project.settings.with_changes(steps=max(1, round(whole / len(groups) / factor)), warm_steps=1.0, shows=0)
    model, steps = None, 0
    for name, indices in groups.items():
        path = next(case.path for case in project.cases if case.name == name)
        session = Session(open_case(path, plane="native"), settings, project.config)
        _label(session, samples[name], indices)
        if model is not None:
            session.use_model(model, path)
        for _ in session.train():
            pass
        model, steps = session.model, steps + session.history[-1].steps
    assert model is not None  # there is at least one volume
    return model, steps


def _classes(samples: Iterable[Sample]) -> list[int]:
    return sorted({int(value) for sample in samples for truth in sample.truth for value in np.unique(truth)} - {0})


def _label(session: Session, sample: Sample, indices: Sequence[int]) -> None:
    """Label slices with their truth; every class is known, even if no slice so far holds it."""
    for number in range(1, 1 + max(int(truth.max()) for truth in sample.truth)):
        if number not in [entry.number for entry in session.labels.classes]:
            session.labels.add_class(number=number)
    for index in indices:
        session.paint(index, sample.truth[index].astype(np.uint16))


def _score(model: Checkpoint, path: Path, sample: Sample, config: ComputeConfig) -> float:
    """Mean Dice over the classes of a predicted volume."""
    session = Session(open_case(path, plane="native"), config=config)
    session.use_model(model, path)
    for _ in session.predict():
        pass
    found = np.stack([session.labels.result(i) for i in range(sample.n_slices)])
    truth = np.stack(sample.truth)
    return float(np.mean([dice(found == entry["number"], truth == entry["number"]) for entry in model.classes]))


def _identity(job: Job, options: Options) -> rows.Row:
    return rows.identity(
        NAME,
        job.image_set,
        labels=job.slices,
        draw=job.draw,
        method=job.method,
        encoder=options.encoder,
        input_size=options.input_size,
        device=options.device,
        preset=options.preset,
    )


def _describe(row: rows.Row) -> str:
    return f"Dice {100 * row['mean_dice']:.1f}, {row['steps']} steps in {row['seconds']:.0f} s"


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--sets", type=names(SLICES), default=list(SLICES), help=f"default: {','.join(SLICES)}")
    parser.add_argument("--slices", type=int, default=None, help="labelled in each volume; default: by the set")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS), help=f"among {','.join(METHODS)}")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {rows.FILE}; finished rows are skipped")
    parser.add_argument("--jobs", type=int, default=1, help="processes, with one thread each")
    parsed = parser.parse_args(arguments)
    shown = ("sets", "draws", "methods", "preset", "encoder", "input_size", "device")
    options = Options(
        parsed.data, parsed.encoder, parsed.preset, parsed.input_size, parsed.device, command_of(parsed, NAME, shown)
    )
    os.environ["DINOAUGSEG_CACHE"] = str(parsed.out / "cache")
    jobs = [
        Job(name, parsed.slices or SLICES[name], draw, method)
        for name in parsed.sets
        for draw in range(parsed.draws)
        for method in parsed.methods
    ]
    rows.measure_missing(
        jobs, partial(_identity, options=options), partial(measure, options), _describe, parsed.out, parsed.jobs
    )


if __name__ == "__main__":
    sys.exit(main(command))
