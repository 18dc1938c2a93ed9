"""The preset `balanced` with an encoder that learns, too, once the decoder knows what is wanted.

A lever that is measured, not a part of the program yet: see docs/decisions/adapted-encoder.md. The first third of the
steps trains the decoder on features of the frozen encoder, as the program does. In the others both learn, on views that
are new at each step, and nothing can be encoded ahead.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.methods.problem import Learnt, Limit, Problem, encode, raise_on_notice
from napari_dinoaugseg.learning.augmentation import View, symmetry_of
from napari_dinoaugseg.learning.events import Cancel, Prediction, Progress
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.predict import choose_finish, choose_tta, predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import (
    RandomStream,
    Trained,
    class_weights,
    copy_of,
    fit,
    moving_average,
    one_cycle,
    segmentation_loss,
)
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.encoder import Encoder
from napari_dinoaugseg.model.wtaug import WTAug

_FROZEN = 1 / 3  # of the steps
_RATE = 2e-4  # of the encoder
_FIRST_VIEW = 1000  # numbers of views that the frozen part does not use


def learn_adapted(problem: Problem) -> Learnt:
    """Train the decoder, then both."""
    base = Settings(seed=problem.seed, input_size=problem.store.input_size)
    frozen = base.with_changes(steps=round(_FROZEN * base.steps))
    views = [(index, view) for index in problem.labelled for view in problem.views(base.views)]
    encode(problem, views)
    limit = Limit(problem)
    alone = _train_decoder(problem, frozen, limit)
    planned = base.planned_steps(problem.n_classes, len(problem.labelled), warm=False)
    encoder, decoder, steps = _train_both(problem, base, alone.decoder, planned - alone.steps, limit)
    store = problem.store
    adapted = FeatureStore(
        store.case, encoder, input_size=store.input_size, window=store.window, context=store.context, exact=store.exact
    )
    targets = [example.target for example in problem.examples]
    tta = choose_tta(adapted, base, problem.n_classes)
    finish = choose_finish(adapted, base, targets)

    def masks(order: Sequence[int]) -> Iterator[Prediction]:
        return predict(adapted, decoder, order, tta=tta, finish=finish, judge=False)

    return Learnt(masks, alone.steps + steps, planned, limit.seconds, len(views))


def _train_decoder(problem: Problem, settings: Settings, limit: Limit) -> Trained:
    """Train on features of the frozen encoder."""
    cancel = Cancel()
    options = {"n_classes": problem.n_classes, "device": problem.device, "cancel": cancel}
    events = fit(problem.store, problem.examples, settings, **options)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            found: Trained = end.value
            return found
        raise_on_notice(event)
        if isinstance(event, Progress) and event.stage == "train" and limit.is_reached:
            cancel.set()


class _Both(nn.Module):
    """Encoder and decoder, from images (B, 3, S, S) in 0 to 1 to logits."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        # BatchNorm is part of the encoder's convolutions already, so that no statistics change.
        self.trunk, self.decoder = encoder._model.requires_grad_(True), decoder.train()
        self.register_buffer("mean", encoder._mean)
        self.register_buffer("std", encoder._std)

    def forward(self, images: Tensor, augment: WTAug) -> Tensor:
        batch = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = self.trunk.forward_intermediates(batch, indices=4, stop_early=True, intermediates_only=True)
        if augment.fires():
            maps = augment.alter(maps)
        logits: Tensor = self.decoder([stage.contiguous() for stage in maps], tuple(images.shape[2:]))
        return logits


def _train_both(
    problem: Problem, settings: Settings, start: Decoder, planned: int, limit: Limit
) -> tuple[Encoder, Decoder, int]:
    """Train encoder and decoder together; returns both, averaged, and the steps."""
    encoder = copy.deepcopy(problem.store.encoder)
    encoder.fingerprint += ":adapted"  # no features of the frozen one fit it
    both = _Both(encoder, copy_of(start)).to(problem.device)
    groups = [
        {"params": both.trunk.parameters(), "lr": _RATE, "weight_decay": 0.0},
        {"params": both.decoder.parameters(), "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
    ]
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: one_cycle(step / planned))
    averaged = moving_average(both, settings.average)
    augment = WTAug(p=settings.augment_probability, drop=settings.augment_drop).train()
    random = RandomStream(problem.seed, problem.device)
    plain = {index: problem.target(index, None) for index in problem.labelled}
    weights = class_weights(list(plain.values()), problem.n_classes, settings)
    steps = 0
    for images, target in _batches(problem, settings, plain, planned):
        if limit.is_reached:
            break
        with random.use():
            loss = segmentation_loss(
                both(images.to(problem.device), augment),
                target.to(problem.device),
                absent_in_dice=settings.absent_in_dice,
                class_weights=weights,
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(both.parameters(), settings.clip_gradient or float("inf"))
        optimiser.step()
        schedule.step()
        averaged.update_parameters(both)
        steps += 1
    best: _Both = averaged.module.requires_grad_(False)
    encoder._model = best.trunk
    return encoder, best.decoder.eval(), steps


def _batches(
    problem: Problem, settings: Settings, plain: dict[int, Tensor], count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, S, S) and targets (B, S, S) in views that are shown once."""
    seen = {index: problem.store.image(index) for index in problem.labelled}
    symmetry = symmetry_of(problem.cases.slices.kind, seen.values(), problem.n_classes)
    random = np.random.default_rng(problem.seed)
    queue: list[int] = []
    number = _FIRST_VIEW
    for _ in range(count):
        while len(queue) < settings.batch_size:
            queue += random.permutation(problem.labelled).tolist()
        chosen, queue = queue[: settings.batch_size], queue[settings.batch_size :]
        views = [View(number + position, problem.seed, symmetry) for position in range(len(chosen))]
        number += len(chosen)
        shown = list(zip(chosen, views, strict=True))
        images = torch.stack([view.of_image(seen[index]) for index, view in shown])
        yield images, torch.stack([view.of_labels(plain[index]) for index, view in shown]).long()
