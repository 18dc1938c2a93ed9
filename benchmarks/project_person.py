"""A simulated person who segments many volumes: as one project, or one volume after the other.

    python -m benchmarks.project_person --data FOLDER --out RESULTS [--sets msd_hippocampus,acdc] [--cases 10]
        [--draws 1] [--methods project,after_each_other,alone] [--preset …] [--per-round 1] [--max-slices 20]

The person of `benchmarks.simulated_person` works until the mask of every volume has a Dice of 0.90, the mean over its
classes. Counted are the slices that the person touches, the brush strokes, and the trainings. The program is the
product's own: its project, its sessions, its suggestions.

`project` opens the volume that the project asks for, corrects the slices that are suggested in it, and trains on the
labels of all volumes after each. A volume with 0.90 is ticked as done, and the others are predicted: those that have
0.90 are ticked as well.

`after_each_other` does the same in sessions: the model of the volume before predicts the next one, and is trained
further with the labels of that one only, as a model file that is loaded. `alone` begins every volume without a model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import rows
from benchmarks.cases import SampleCases, engine_with
from benchmarks.harness import Options, add_common_arguments, command_of, machine, main, names
from benchmarks.methods.problem import raise_on_notice
from benchmarks.samples import SETS, Sample, load_set
from benchmarks.simulated_person import TARGETS, VolumeDice, Work, annotate, class_numbers
from benchmarks.tables import table
from napari_dinoaugseg.case import Case
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.learning.fallback import choose_device
from napari_dinoaugseg.learning.settings import PRESETS, Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.project import Project, ProjectCase
from napari_dinoaugseg.session.session import Session

NAME = "project_person"
TARGET = TARGETS[0]
METHODS = ("project", "after_each_other", "alone")
CASES = {"msd_hippocampus": 10, "acdc": 8}
"""Volumes of `train` in a job, by default."""


@dataclass(frozen=True)
class Job:
    """One row to be measured: volumes of an image set in the order of a draw, and a method."""

    image_set: str
    cases: int
    draw: int
    method: str


@dataclass(frozen=True)
class Person:
    """How the person works.

    Attributes:
        preset: how the program learns.
        per_round: slices corrected before each training but the first.
        max_slices: of a volume; after that many the person goes on to the next one.
    """

    preset: str
    per_round: int
    max_slices: int


@dataclass
class Effort:
    """What the person did on all volumes.

    Attributes:
        works: on each volume, in order.
        trainings: how many.
        curve: a point for each training: slices, strokes, volumes done and Dice of each volume.
    """

    works: list[Work]
    trainings: int = 0
    curve: list[rows.Row] = field(default_factory=list)

    @property
    def slices(self) -> int:
        """Slices touched."""
        return sum(len(work.touched) for work in self.works)

    @property
    def strokes(self) -> int:
        """Brush strokes."""
        return sum(sum(work.touched.values()) for work in self.works)

    @property
    def done(self) -> int:
        """Volumes that have reached the target."""
        return sum(work.is_done for work in self.works)

    def note(self) -> None:
        """Count a training, add a point to the curve, and show it: a job may take an hour."""
        self.trainings += 1
        dice = [round(work.mean_dice, 4) for work in self.works]
        counts = f"{self.trainings} trainings, {self.slices} slices, {self.strokes} strokes"
        print(f"{counts}, {self.done} of {len(self.works)} volumes done", file=sys.stderr, flush=True)
        self.curve.append({"slices": self.slices, "strokes": self.strokes, "done": self.done, "dice": dice})


def work_in_project(project: Project, effort: Effort, cases: Sequence[ProjectCase], person: Person) -> None:
    """Finish the case that the project asks for, then the next one, until every case is done.

    Args:
        project: without labels; its cases are not done.
        effort: on the cases.
        cases: of the project, in the order of the works.
        person: how to work.
    """
    work_of = {case.number: work for case, work in zip(cases, effort.works, strict=True)}
    case_of = {case.number: case for case in cases}
    while wanted := project.suggest():
        case = case_of[wanted[0].case]
        session, store, _ = project.session(case)
        try:
            annotate(
                work_of[case.number],
                session,
                "suggested",
                per_round=person.per_round,
                max_slices=person.max_slices,
                train=partial(project.train, case, session),
                after_training=effort.note,
            )
            project.keep(case, session, store)
        finally:
            store.close()
        case.is_done = True
        for other in (other for other in cases if not other.is_done):
            work = work_of[other.number]
            work.look(project.predict(other, report=raise_on_notice)[0])
            other.is_done = work.is_done


def work_after_each_other(
    cases: Sequence[Case],
    effort: Effort,
    settings: Settings,
    config: ComputeConfig,
    cache: Path,
    person: Person,
    *,
    keeps_model: bool,
) -> None:
    """Finish one case after the other, each in a session of its own.

    Args:
        cases: in the order of the works.
        effort: on the cases.
        settings: of the trainings.
        config: where to compute.
        cache: folder for features.
        person: how to work.
        keeps_model: begin with the model of the case before.
    """
    make, before = engine_with(cache), None
    for case, work in zip(cases, effort.works, strict=True):
        encoder = before.encoder if before is not None else None
        session = Session(case, settings, config, make_compute=make, encoder=encoder)
        model = before.model if before is not None and keeps_model else None
        if model is not None:
            session.use_model(model, case.path)
        annotate(
            work,
            session,
            "suggested",
            per_round=person.per_round,
            max_slices=person.max_slices,
            after_training=effort.note,
        )
        before = session
        session.close()


def measure(options: Options, person: Person, job: Job) -> rows.Row:
    """Let the person work on the volumes of a job; returns the row."""
    samples = _samples(job, options)
    effort = Effort([Work(sample, VolumeDice(sample.truth, class_numbers(sample)), TARGET) for sample in samples])
    settings = Settings.of_preset(person.preset, encoder=options.encoder, input_size=options.input_size, seed=job.draw)
    config = ComputeConfig(options.device, options.weights)
    opened, started, computed = SampleCases(samples), time.monotonic(), time.process_time()
    if job.method == "project":
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
            Project(
                Path(folder) / "project", settings=settings, config=config, make_compute=engine_with(options.cache)
            ) as project,
        ):
            cases = [project.add(path, plane="native")[0] for path in opened.paths]
            work_in_project(project, effort, cases, person)
    else:
        keeps_model = job.method == "after_each_other"
        work_after_each_other(opened.cases, effort, settings, config, options.cache, person, keeps_model=keeps_model)
    dice = {work.sample.name: [round(value, 6) for value in work.dice.values] for work in effort.works}
    return {
        **identity(job, options, person),
        "mean_dice": round(float(np.mean([work.mean_dice for work in effort.works])), 6),
        "dice": dice,
        "target": TARGET,
        "done": effort.done,
        "slices": effort.slices,
        "strokes": effort.strokes,
        "touched": {work.sample.name: list(work.touched.items()) for work in effort.works},
        "trainings": effort.trainings,
        "curve": effort.curve,
        "seconds": {
            "all": round(time.monotonic() - started, 1),
            "processor": round(time.process_time() - computed, 1),
        },
        "classes": list(SETS[job.image_set].classes),
        "about": SETS[job.image_set].about,
        "command": options.command,
        **machine(),
    }


def _samples(job: Job, options: Options) -> list[Sample]:
    every = load_set(options.data, job.image_set, "train")
    return [every[i] for i in np.random.default_rng(job.draw).permutation(len(every))[: job.cases]]


def identity(job: Job, options: Options, person: Person) -> rows.Row:
    """What the row of a job is known by."""
    return rows.identity(
        NAME,
        job.image_set,
        labels=job.cases,
        draw=job.draw,
        method=job.method,
        encoder=options.encoder,
        input_size=options.input_size,
        device=options.device,
        preset=person.preset,
        per_round=person.per_round,
        max_slices=person.max_slices,
    )


def _progress(row: rows.Row) -> str:
    return (
        f"{row['done']} of {row['labels']} volumes done, {row['slices']} slices, {row['strokes']} strokes, "
        f"{row['trainings']} trainings, {row['seconds']['all']:.0f} s"
    )


def summary(measured: Sequence[rows.Row]) -> str:
    """A table of rows: the effort, and the strokes as a share of those for one volume after the other."""
    own = [row for row in measured if row["benchmark"] == NAME]
    others = {_shared(row): row for row in own if row["method"] == METHODS[1]}
    lines = []
    for row in own:
        other = others.get(_shared(row))
        share = "–" if other is None else f"{100 * row['strokes'] / other['strokes']:.0f}"
        done = f"{row['done']} of {row['labels']}"
        counts = (row[name] for name in ("preset", "draw", "per_round", "slices", "strokes"))
        lines.append([row["set"], row["method"], *map(str, counts), share, str(row["trainings"]), done])
    return table(
        ["set", "method", "preset", "draw", "a round", "slices", "strokes", f"of {METHODS[1]}, %", "trainings", "done"],
        lines,
    )


def _shared(row: rows.Row) -> tuple[object, ...]:
    """What rows that are compared have in common."""
    return tuple(row[name] for name in ("set", "labels", "draw", "preset", "per_round"))


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, tuple(CASES))
    parser.set_defaults(draws=1)
    parser.add_argument("--cases", type=int, default=None, help="volumes of each set; default: 10, of acdc 8")
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS), help="default: all")
    parser.add_argument("--per-round", type=int, default=1, help="slices corrected before each training but the first")
    parser.add_argument(
        "--max-slices", type=int, default=20, help="of a volume, then the person goes on to the next one"
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="balanced")
    parsed = parser.parse_args(arguments)
    given = (
        parsed.draws,
        parsed.jobs,
        parsed.per_round,
        parsed.max_slices,
        1 if parsed.cases is None else parsed.cases,
    )
    if min(given) < 1:
        msg = "--draws, --jobs, --cases, --per-round and --max-slices must be at least 1."
        raise SettingsError(msg)
    shown = ("sets", "draws", "methods", "per_round", "max_slices", "preset", "encoder", "input_size", "device")
    options = Options(
        data=parsed.data,
        test=None,
        encoder=parsed.encoder,
        weights=parsed.weights,
        input_size=parsed.input_size,
        seconds=0.0,
        device=str(choose_device(parsed.device)),
        cache=parsed.cache or parsed.out / "cache",
        command=command_of(parsed, NAME, shown),
    )
    person = Person(parsed.preset, parsed.per_round, parsed.max_slices)
    jobs = [
        Job(name, parsed.cases or CASES.get(name, 10), draw, method)
        for name in parsed.sets
        for draw in range(parsed.draws)
        for method in parsed.methods
    ]
    known_by = partial(identity, options=options, person=person)
    rows.measure_missing(jobs, known_by, partial(measure, options, person), _progress, parsed.out, parsed.jobs)
    print(summary(rows.read(parsed.out)))


if __name__ == "__main__":
    sys.exit(main(command))
