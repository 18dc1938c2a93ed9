"""The presets of the program, and the preset `balanced` without one or both ideas of the paper.

They learn and predict through the program's own project, as a person does: the labelled samples are cases with saved
labels, one training learns from all of them, and every other case is opened and predicted with the model.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks.cases import engine_with
from benchmarks.methods.problem import Learnt, Limit, Problem, raise_on_notice
from napari_dinoaugseg.learning.events import Cancel, Prediction, Progress
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import classes_of
from napari_dinoaugseg.session.project import Project, ProjectCase


def learn(problem: Problem, settings: Settings) -> Learnt:
    """Train as the program does, and stop at the limit of time as a person would with "Stop"."""
    encoder = problem.store.encoder
    settings = settings.with_changes(seed=problem.seed, input_size=problem.store.input_size, encoder=encoder.spec.name)
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    project = Project(
        folder / "project",
        settings=settings,
        config=ComputeConfig(str(problem.device)),
        make_compute=engine_with(problem.cache),
    )
    weakref.finalize(project, shutil.rmtree, folder, ignore_errors=True)  # it is needed until all is predicted
    project.encoder = encoder
    _label(project, problem)
    steps, seconds = _train(project, problem)

    def masks(order: Sequence[int]) -> Iterator[Prediction]:
        for sample, indices in groupby(order, lambda index: problem.cases.place(index)[0]):
            yield from _predict(project, problem, sample, set(indices))

    planned = settings.planned_steps(problem.n_classes, len(problem.labelled), warm=False)
    encoded = min(len(problem.labelled) * (1 + settings.views), planned * settings.batch_size)
    return Learnt(masks, steps, planned, seconds, encoded)


def _case(project: Project, problem: Problem, sample: int) -> ProjectCase:
    """The case of a sample, added if it is not there yet."""
    case, _ = project.add(problem.cases.paths[sample], plane="native")
    return case


def _label(project: Project, problem: Problem) -> None:
    """Label the slices of the problem with their truth, and save the labels; the order of the cases is theirs."""
    for sample, indices in groupby(problem.labelled, lambda index: problem.cases.place(index)[0]):
        case = _case(project, problem, sample)
        session, store, _ = project.session(case)
        try:
            if not session.labels.classes:
                session.labels.replace_classes(classes_of(range(1, problem.n_classes)))
            for index in indices:
                session.paint(problem.cases.place(index)[1], problem.cases.truth(index).astype(np.uint16))
            project.keep(case, session, store)
        finally:
            store.close()


def _train(project: Project, problem: Problem) -> tuple[int, float]:
    """Train; returns the steps, and the seconds without encoding."""
    cancel, limit = Cancel(), Limit(problem)
    events = project.train(cancel=cancel)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value.steps, limit.seconds
        raise_on_notice(event)
        if isinstance(event, Progress) and event.stage == "encode":
            limit = Limit(problem)  # training begins after the last of these
        if isinstance(event, Progress) and event.stage in ("train", "adapt") and limit.is_reached:
            cancel.set()


def _predict(project: Project, problem: Problem, sample: int, wanted: set[int]) -> Iterator[Prediction]:
    """The masks of a sample, under the slice numbers of the problem."""
    first = problem.cases.indices(problem.cases.samples[sample]).start
    session, store, _ = project.session(_case(project, problem, sample))
    try:
        for found in session.predictions(report=raise_on_notice):
            if first + found.index in wanted:
                yield replace(found, index=first + found.index)
    finally:
        store.close()
