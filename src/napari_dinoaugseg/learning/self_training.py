"""Self-training: the decoder also learns from its own masks of slices that nobody has labelled.

A training of many cases knows a slice or two of each, and the others differ from those. Masks that a first decoder
makes of them are right in most pixels that it is sure of; a second decoder, trained on the labels and on these pixels,
has seen every case. Labels of people weigh as much as all masks together. Figures: docs/decisions/project.md.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import torch

from napari_dinoaugseg.learning.events import Cancel, Event, Progress
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.postprocessing import UNKNOWN_TARGET
from napari_dinoaugseg.learning.predict import predict
from napari_dinoaugseg.learning.settings import OWN_SLICES, Settings
from napari_dinoaugseg.learning.train import Example, Trained, fit
from napari_dinoaugseg.model.decoder import Decoder

_SURE = 0.7
"""Probability of the chosen class from which a pixel is learned. In trials on the hippocampus 99 % of these pixels were
right; the others are unknown to the loss."""


def fit_with_own_masks(
    store: FeatureStore,
    examples: Sequence[Example],
    settings: Settings,
    *,
    n_classes: int,
    rounds: int,
    device: torch.device | None = None,
    warm_start: Decoder | None = None,
    cancel: Cancel | None = None,
) -> Generator[Event, None, Trained]:
    """Train on labelled slices; then, in rounds, predict others and train again on both.

    Arguments, events and errors are those of `fit`. If a round is stopped, the result is that of the one before.

    Args:
        store: features of all cases.
        examples: labelled slices.
        settings: of the first training.
        n_classes: with the background.
        rounds: trainings after the first.
        device: default: that of the encoder.
        warm_start: the first training continues this decoder, and each other that of the one before.
        cancel: stops it, from any thread.
    """
    labelled = {example.index for example in examples}
    unlabelled = [index for index in range(store.case.n_slices) if index not in labelled]
    rounds = rounds if unlabelled else 0
    is_warm = warm_start is not None
    further = settings.on_own_masks.planned_steps(n_classes, len(examples), warm=is_warm)
    first = fit(store, examples, settings, n_classes=n_classes, device=device, warm_start=warm_start, cancel=cancel)
    best = yield from _counted(first, later=rounds * further)
    random = np.random.default_rng(settings.seed)
    for left in reversed(range(rounds)):
        if cancel:
            break
        if store.input_size != best.input_size:  # memory ran out
            store = store.resized(best.input_size)
        chosen = sorted(random.permutation(unlabelled)[:OWN_SLICES].tolist())  # in order: each case is opened once
        own = yield from _own_masks(store, best, chosen, cancel)
        if cancel:
            break
        repeated = [*examples] * max(1, math.ceil(len(own) / len(examples)))
        training = fit(
            store,
            [*repeated, *own],
            settings.on_own_masks,
            n_classes=n_classes,
            device=best.device,
            warm_start=best.decoder if is_warm else None,
            cancel=cancel,
        )
        trained = yield from _counted(training, before=best, later=left * further)
        if not cancel:
            best = replace(trained, steps=best.steps + trained.steps, seconds=best.seconds + trained.seconds)
    return best


def _counted(
    training: Generator[Event, None, Trained], *, before: Trained | None = None, later: int = 0
) -> Generator[Event, None, Trained]:
    """A training with the steps and seconds of those before and after it in its progress."""
    steps, seconds = (0, 0.0) if before is None else (before.steps, before.seconds)
    while True:
        try:
            event = next(training)
        except StopIteration as end:
            trained: Trained = end.value
            return trained
        if isinstance(event, Progress) and event.stage == "train":
            done, total = steps + event.done, steps + event.total + later
            event = replace(event, done=done, total=total, elapsed=seconds + event.elapsed)
        yield event


def _own_masks(
    store: FeatureStore, trained: Trained, chosen: Sequence[int], cancel: Cancel | None
) -> Generator[Event, None, list[Example]]:
    """The masks of slices, with what the decoder is not sure of unknown."""
    found: list[Example] = []
    events: list[Event] = []
    for prediction in predict(
        store, trained.decoder, chosen, device=trained.device, report=events.append, cancel=cancel
    ):
        yield from _drained(events)
        target = np.where(prediction.pixel_confidence >= _SURE, prediction.classes, UNKNOWN_TARGET)
        found.append(Example(prediction.index, target.astype(np.int16)))
    yield from _drained(events)
    return found


def _drained(events: list[Event]) -> list[Event]:
    """What was reported since the last call."""
    drained = list(events)
    events.clear()
    return drained
