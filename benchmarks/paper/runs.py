"""One draw: learn from its shots, predict its test samples slice by slice, score each whole."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper import published
from benchmarks.paper.cases import Collection
from benchmarks.paper.draws import Draw
from benchmarks.paper.protocols import Protocol
from benchmarks.paper.scores import Score, score
from napari_dinoaugseg.cli.output import ProgressLine, tell
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import new_class
from napari_dinoaugseg.session.session import Session

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
    """Train and test. Raises the errors of the session."""
    started = time.monotonic()
    session = Session(
        collection.case,
        settings.with_changes(seed=draw.seed),
        ComputeConfig(machine.device, machine.weights, machine.cache),
        notify=_tell_once,
    )
    session.labels.replace_classes([new_class(number, name) for number, name in protocol.classes.items()])
    for i, labels in collection.labelled():
        session.paint(i, labels.astype(np.uint16))
    labelled = len(session.labels.labelled)
    with ProgressLine().live() as line:
        trained = line.run(session.train())
    with ProgressLine().live() as line:
        scores = _predict(session, collection, list(protocol.classes), line)
    seconds = {**session.seconds, "total": time.monotonic() - started}
    return Result(
        draw,
        scores,
        trained.steps,
        labelled,
        seconds,
        session.encoder_name,
        session.device_name,
        session.engine.store.input_size,
        session.engine.store.context,
    )


def _predict(session: Session, collection: Collection, numbers: list[int], line: ProgressLine) -> Scores:
    """Predict what is not labelled, and score a sample as soon as all of its slices are there."""
    scores: dict[str, dict[int, Score]] = {}
    masks: dict[int, NDArray[np.uint8]] = {}
    samples = collection.tested()
    name, slices, truth = next(samples)

    def take(item: Prediction) -> None:
        nonlocal name, slices, truth
        masks[item.index] = item.classes.astype(np.uint8)
        if len(masks) < len(slices):
            return
        found = np.stack([masks.pop(i) for i in slices])
        scores[name] = score(found.reshape(truth.shape), truth, numbers)
        name, slices, truth = next(samples, ("", range(0), truth))

    # They come in the order of the case, which is that of the samples.
    line.follow(session.predictions(report=line.show), take)
    return scores
