"""One draw: learn from its shots, predict its test samples slice by slice, score each whole."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper import published
from benchmarks.paper.cases import Collection, ScoredSample
from benchmarks.paper.draws import Draw
from benchmarks.paper.protocols import Protocol
from benchmarks.paper.scores import Score, score
from napari_dinoaugseg.case import Case
from napari_dinoaugseg.cli.output import ProgressLine, tell
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import new_class
from napari_dinoaugseg.session.session import LabelledCase, Session

Scores = Mapping[str, Mapping[int, Score]]
"""By test sample and class number."""


_tell_once = functools.cache(tell)  # each draw has its own session, and all report the same


@dataclass(frozen=True)
class Machine:
    """Where and with what a draw is computed.

    Attributes:
        device: as on the command line.
        weights: a file with encoder weights; None = found by itself.
        cache: keep features on disk, so that test samples are encoded once for all draws.
    """

    device: str = "auto"
    weights: Path | None = None
    cache: bool = True


@dataclass(frozen=True)
class Result:
    """The result of one draw.

    Attributes:
        draw: what was labelled and tested.
        scores: of every test sample.
        steps: of the training.
        labelled: how many slices were labelled.
        seconds: ``encode``, ``train``, ``predict``, and ``total`` with reading and scoring.
        encoder: that was used.
        device: where.
        input_size: that was used in the end: less than asked for, where memory ran out.
        context: how far the neighbours were that slices were seen with; 0 = each slice by itself.
    """

    draw: Draw
    scores: Scores
    steps: int
    labelled: int
    seconds: Mapping[str, float]
    encoder: str
    device: str
    input_size: int
    context: int

    def mean(self, number: int, name: str) -> float:
        """Mean of ``dice`` (0 to 1) or ``hd95`` (voxels) of a class over the test samples."""
        return float(np.mean([getattr(of_case[number], name) for of_case in self.scores.values()]))


def protocol_settings(preset: str, shots: int, **changes: object) -> Settings:
    """Settings of a preset; those of ``paper`` train as long as the authors do.

    Their 2000 passes show each sample once, two samples a step; what the preset calls steps are those passes.
    """
    settings = Settings.of_preset(preset, **changes)
    if preset == "paper" and "steps" not in changes:
        settings = settings.with_changes(steps=settings.steps * -(-shots // published.BATCH))
    return settings


def run_draw(protocol: Protocol, collection: Collection, draw: Draw, settings: Settings, machine: Machine) -> Result:
    """Train on the shots, and predict the test samples. Raises the errors of the session."""
    started = time.monotonic()
    settings = settings.with_changes(seed=draw.seed)
    config = ComputeConfig(machine.device, machine.weights, machine.cache)
    classes = [new_class(number, name) for number, name in protocol.classes.items()]
    (case, own), *others = collection.labelled()
    session = Session(case, settings, config, notify=_tell_once)
    session.labels.replace_classes(classes)
    for i, labels in own.items():
        session.paint(i, labels.astype(np.uint16))
    more = [LabelledCase(other, {i: t.astype(np.uint16) for i, t in truth.items()}, classes) for other, truth in others]
    with ProgressLine().live() as line:
        trained = line.run(session.train(others=more))
    seconds, scores = dict(session.seconds), {}
    for case, samples in collection.tested():
        testing = session if case is session.case else _opened(case, session, settings, config)
        with ProgressLine().live() as line:
            scores.update(_predict(testing, samples, list(protocol.classes), line))
        if testing is session:
            seconds = dict(session.seconds)
        else:
            seconds = {stage: value + testing.seconds[stage] for stage, value in seconds.items()}
            testing.close()
    return Result(
        draw,
        scores,
        trained.steps,
        len(own) + sum(len(other.labels) for other in more),
        {**seconds, "total": time.monotonic() - started},
        session.encoder_name,
        session.device_name,
        session.engine.store.input_size,
        session.engine.store.context,
    )


def _opened(case: Case, trained: Session, settings: Settings, config: ComputeConfig) -> Session:
    """A session of another case with the trained model."""
    session = Session(case, settings, config, encoder=trained.encoder, notify=_tell_once)
    model = trained.model
    assert model is not None  # it was trained
    session.use_model(model, case.path)
    return session


def _predict(session: Session, samples: Iterator[ScoredSample], numbers: list[int], line: ProgressLine) -> Scores:
    """Predict what is not labelled, and score a sample as soon as all of its slices are there."""
    scores: dict[str, dict[int, Score]] = {}
    masks: dict[int, NDArray[np.uint8]] = {}
    sample = next(samples)

    def take(item: Prediction) -> None:
        nonlocal sample
        masks[item.index] = item.classes.astype(np.uint8)
        if len(masks) < len(sample.slices):
            return
        found = np.stack([masks.pop(i) for i in sample.slices])
        scores[sample.name] = score(found.reshape(sample.truth.shape), sample.truth, numbers)
        sample = next(samples, ScoredSample("", range(0), sample.truth))

    # They come in the order of the case, which is that of the samples.
    line.follow(session.predictions(report=line.show), take)
    return scores
