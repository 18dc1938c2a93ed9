"""Training of the decoder on cached features: a generator of events that returns the trained decoder."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from napari_dinoaugseg.errors import TrainingError
from napari_dinoaugseg.learning.device import free_memory, is_out_of_memory
from napari_dinoaugseg.learning.events import Cancel, Event, Notice, Progress
from napari_dinoaugseg.learning.features import FeatureStore, SliceView
from napari_dinoaugseg.learning.loss import balanced_weights, resize_target, segmentation_loss
from napari_dinoaugseg.learning.random_stream import RandomStream
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.views import views_for
from napari_dinoaugseg.model.network import Decoder
from napari_dinoaugseg.model.wavelet import WTAug

_SMALLEST_INPUT = 128
_WARM_UP = 0.1  # share of a one-cycle schedule in which the learning rate rises


@dataclass(frozen=True)
class Example:
    """A labelled slice.

    Attributes:
        index: its number in the study.
        target: (H, W) int16 class indices, 0 = background, 1 … K; ``UNKNOWN_TARGET`` where the person left it open.
    """

    index: int
    target: np.ndarray[tuple[int, int], np.dtype[np.int16]]


@dataclass(frozen=True)
class Trained:
    """A trained decoder and how it came about.

    Attributes:
        decoder: in evaluation mode, on the device it was trained on.
        input_size: the input size it was trained at; smaller than asked for when memory ran out.
        steps: optimisation steps done; fewer than asked for when the training was stopped.
        final_loss: smoothed training loss at the end; None when no step was done.
        seconds: of the optimisation alone, without the encoding.
    """

    decoder: Decoder
    input_size: int
    steps: int
    final_loss: float | None
    seconds: float


@dataclass(frozen=True)
class _Plan:
    """What fits into memory."""

    batch_size: int
    input_size: int
    device: torch.device

    def smaller(self, error: BaseException) -> tuple[_Plan, Notice]:
        """The next rung of the out-of-memory ladder: half the batch, half the input, the CPU."""
        if self.batch_size > 1:
            plan = replace(self, batch_size=self.batch_size // 2)
            return plan, Notice(f"Memory ran out in training; going on with {plan.batch_size} slices a step.")
        if self.input_size > _SMALLEST_INPUT:
            size = max(_SMALLEST_INPUT, self.input_size // 2 // 32 * 32)
            return replace(self, input_size=size), Notice(
                f"Memory ran out in training; going on at {size} x {size} pixels."
            )
        if self.device.type != "cpu":
            return replace(self, device=torch.device("cpu")), Notice(
                "Memory ran out in training; going on with the CPU."
            )
        msg = "There is not enough memory to train even at the smallest size. Close other programs and try again."
        raise TrainingError(msg) from error


def new_decoder(channels: Sequence[int], n_classes: int, settings: Settings) -> Decoder:
    """An untrained decoder for encoder maps of these channels. Its weights come from PyTorch's random state."""
    return Decoder(
        channels,
        n_classes,
        width=settings.width,
        rope=settings.rotary,
        norm=settings.norm,
        fuse=settings.fuse,
        add_query=settings.add_query,
        blocks=settings.blocks,
    )


def planned_steps(settings: Settings, n_classes: int, *, warm: bool) -> int:
    """How many steps a training takes: more for many classes (at most threefold), fewer when it goes on from another.

    Args:
        settings: with ``steps``, ``class_steps`` and ``warm_steps``.
        n_classes: with the background.
        warm: whether a trained decoder is continued.
    """
    factor = min(3.0, 1 + settings.class_steps * max(0, n_classes - 2))
    return max(1, round(settings.steps * factor * (settings.warm_steps if warm else 1)))


def fit(
    store: FeatureStore,
    examples: Sequence[Example],
    settings: Settings,
    *,
    n_classes: int,
    flips: bool = False,
    device: torch.device | None = None,
    warm_start: Decoder | None = None,
    cancel: Cancel | None = None,
) -> Generator[Event, None, Trained]:
    """Train a decoder on labelled slices (paper, section 3; loss and optimiser from ``settings``).

    Yields an event for every encoded batch and every step, and returns the result. Stopping by ``cancel`` takes effect
    before the next step and returns what has been learnt so far. When memory runs out, the batch is halved, then the
    input size, then the CPU takes over; a notice says so each time. The caller's random state is left as it was.

    Args:
        store: features of the study.
        examples: at least one labelled slice.
        settings: sizes, steps, seed.
        n_classes: with the background, at least 2.
        flips: views may be mirrored; see :class:`~napari_dinoaugseg.learning.views.View`.
        device: default: that of the encoder.
        warm_start: go on from this decoder (a copy of it) with ``warm_steps`` of the steps.
        cancel: asks for the stop from another thread.

    Raises:
        TrainingError: no labelled slice, stopped before anything was learnt, or out of memory at the smallest size.
    """
    if not examples:
        msg = "No slice is labelled. Paint at least one slice, then train."
        raise TrainingError(msg)
    plan = _Plan(settings.batch_size, store.input_size, device or store.encoder.device)
    while True:
        fitting = store if store.input_size == plan.input_size else store.resized(plan.input_size)
        run = _Run(fitting, examples, settings, plan, n_classes, flips, warm_start)
        try:
            return (yield from run.events(cancel))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            plan, notice = plan.smaller(error)
        del run
        free_memory(plan.device)
        yield notice


class _Run:
    """One attempt at a training, with everything that fits into memory by its plan."""

    def __init__(
        self,
        store: FeatureStore,
        examples: Sequence[Example],
        settings: Settings,
        plan: _Plan,
        n_classes: int,
        flips: bool,
        warm_start: Decoder | None,
    ) -> None:
        self.store, self.examples, self.settings, self.plan = store, examples, settings, plan
        self.random = RandomStream(settings.seed, plan.device)
        self.choose = np.random.default_rng(settings.seed)
        self.views = views_for(settings.views, settings.seed, flips=flips)
        self.n_classes = n_classes
        self.steps = planned_steps(settings, n_classes, warm=warm_start is not None)
        with self.random.use():
            decoder = (
                copy.deepcopy(warm_start) if warm_start else new_decoder(store.encoder.channels, n_classes, settings)
            )
        self.decoder = decoder.to(plan.device).train()
        self.augment = WTAug(p=settings.augment_probability, drop=settings.augment_drop).train()

    def events(self, cancel: Cancel | None) -> Generator[Event, None, Trained]:
        pairs: list[SliceView] = [(example.index, view) for example in self.examples for view in self.views]
        yield from self.store.prepare(pairs, cancel)
        if cancel:
            msg = "Training was stopped before it had begun."
            raise TrainingError(msg)
        targets = self._targets()
        self.class_weights = self._class_weights(targets)
        optimiser, schedule = self._optimiser()
        averaged = self._averaged()
        smooth: float | None = None
        done = 0
        started = time.monotonic()
        for done, batch in enumerate(self._batches(), start=1):
            with self.random.use():
                loss = self._step(batch, targets, optimiser)
            rate = optimiser.param_groups[0]["lr"]
            schedule.step()
            if averaged is not None:
                averaged.update_parameters(self.decoder)
            smooth = loss if smooth is None else 0.9 * smooth + 0.1 * loss
            yield Progress("train", done, self.steps, time.monotonic() - started, smooth, rate)
            if cancel:
                break
        decoder: Decoder = self.decoder if averaged is None else averaged.module  # type: ignore[assignment]
        return Trained(decoder.eval(), self.store.input_size, done, smooth, time.monotonic() - started)

    def _step(
        self, batch: list[SliceView], targets: dict[SliceView, Tensor], optimiser: torch.optim.Optimizer
    ) -> float:
        device = self.plan.device
        features = self.augment(self.store.batch(batch, device))
        target = torch.stack([targets[pair] for pair in batch]).to(device).long()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=_mixed_precision(device)):
            logits = self.decoder(features, tuple(target.shape[1:]))
        loss = segmentation_loss(
            logits, target, absent_in_dice=self.settings.absent_in_dice, class_weights=self.class_weights
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 5.0)
        optimiser.step()
        return float(loss.detach())

    def _targets(self) -> dict[SliceView, Tensor]:
        targets: dict[SliceView, Tensor] = {}
        for example in self.examples:
            plain = resize_target(torch.from_numpy(np.ascontiguousarray(example.target)), self.store.input_size)
            for view in self.views:
                targets[example.index, view] = view.of_labels(plain) if view else plain
        return targets

    def _class_weights(self, targets: dict[SliceView, Tensor]) -> Tensor | None:
        # With one or two classes the Dice half of the loss balances well, and weights only make the masks too large.
        power = self.settings.class_balance * min(1.0, (self.n_classes - 2) / 8)
        if not power:
            return None
        plain = [target for (_, view), target in targets.items() if view is None]
        return balanced_weights(plain, self.n_classes, power).to(self.plan.device)

    def _batches(self) -> Iterator[list[SliceView]]:
        """Slices in a random order, each as often as any other, each time in a random view."""
        queue: list[int] = []
        for _ in range(self.steps):
            while len(queue) < self.plan.batch_size:
                queue += self.choose.permutation(len(self.examples)).tolist()
            chosen, queue = queue[: self.plan.batch_size], queue[self.plan.batch_size :]
            views = self.choose.integers(len(self.views), size=len(chosen))
            yield [(self.examples[n].index, self.views[v]) for n, v in zip(chosen, views, strict=True)]

    def _optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        settings = self.settings
        kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
        optimiser = kind(
            self.decoder.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=self.plan.device.type in ("cpu", "cuda"),
        )
        if settings.schedule == "constant":
            return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)
        return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _one_cycle(step / self.steps))

    def _averaged(self) -> AveragedModel | None:
        """The moving average of the weights; a young one forgets faster, so that a short training is not held back."""
        decay = self.settings.average
        if not decay:
            return None

        def blend(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
            keep = min(decay, (1 + int(count)) / (10 + int(count)))
            with torch.no_grad():
                for average, value in zip(averages, current, strict=True):
                    if average.is_floating_point():
                        average.lerp_(value, 1 - keep)
                    else:  # BatchNorm's counter
                        average.copy_(value)

        return AveragedModel(self.decoder, multi_avg_fn=blend, use_buffers=True)


def _one_cycle(progress: float) -> float:
    """Factor on the peak learning rate at a share of the training: a short rise, then a cosine down to zero."""
    if progress < _WARM_UP:
        return 0.1 + 0.9 * progress / _WARM_UP
    return 0.5 * (1 + float(np.cos(np.pi * (progress - _WARM_UP) / (1 - _WARM_UP))))


def _mixed_precision(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
