"""Training of the decoder on cached features: a generator of events that returns the trained decoder."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from napari_dinoaugseg.errors import TrainingError
from napari_dinoaugseg.learning.device import NoRoomError, free_memory, usable
from napari_dinoaugseg.learning.events import Cancel, Event, Progress
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.held import Held, Trained, on_host, with_weights
from napari_dinoaugseg.learning.ladder import Plan
from napari_dinoaugseg.learning.loss import balanced_weights, resize_target
from napari_dinoaugseg.learning.random_stream import RandomStream
from napari_dinoaugseg.learning.resident import Resident
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.step import RecordedStep, Step, is_recorded
from napari_dinoaugseg.learning.views import View, freedom_of, views_for
from napari_dinoaugseg.model.network import Decoder

_HOLD_EVERY = 20  # steps, after which the weights are copied to the host
TrainingView = tuple[int, View | None]
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
        head=settings.head,
        heads=4 if settings.width is None else max(1, settings.width // 16),
        attention_strides=[stride for stride in (16, 8, 4) if stride >= settings.fuse_from],
    )


def fit(
    store: FeatureStore,
    examples: Sequence[Example],
    settings: Settings,
    *,
    n_classes: int,
    device: torch.device | None = None,
    warm_start: Decoder | None = None,
    cancel: Cancel | None = None,
) -> Generator[Event, None, Trained]:
    """Train a decoder on labelled slices (paper, section 3; loss and optimiser from ``settings``).

    Yields an event for every encoded batch and every step, and returns the result. Stopping by ``cancel`` takes effect
    before the next step and returns what has been learnt so far. When memory runs out, the batch is halved, then the
    input size, then the CPU takes over, as it does when a device fails; a notice says so each time, and the training
    goes on from what was learnt. The caller's random state is left as it was.

    Args:
        store: features of the study.
        examples: at least one labelled slice.
        settings: sizes, steps, seed.
        n_classes: with the background, at least 2.
        device: default: that of the encoder.
        warm_start: go on from this decoder (a copy of it) with ``warm_steps`` of the steps.
        cancel: asks for the stop from another thread.

    Raises:
        TrainingError: no labelled slice, stopped before anything was learnt, or out of memory at the smallest size.
    """
    if not examples:
        msg = "No slice is labelled. Paint at least one slice, then train."
        raise TrainingError(msg)
    plan = Plan(settings.batch_size, store.input_size, device or store.encoder.device)
    held: list[Held] = []  # at most one; outlives the attempt that filled it
    while True:
        plan = replace(plan, device=usable(plan.device))
        try:
            if store.input_size != plan.input_size:
                store = store.resized(plan.input_size)
            # Without a name of its own, the attempt and what it holds are gone when the next one begins.
            return (yield from _Run(store, examples, settings, plan, n_classes, warm_start, held).events(cancel))
        except (RuntimeError, MemoryError, NoRoomError) as error:
            plan, notice = plan.after(error, store)
        free_memory(plan.device)
        yield from store.notices()
        yield notice


class _Run:
    """One attempt at a training, with everything that fits into memory by its plan."""

    def __init__(
        self,
        store: FeatureStore,
        examples: Sequence[Example],
        settings: Settings,
        plan: Plan,
        n_classes: int,
        warm_start: Decoder | None,
        held: list[Held],
    ) -> None:
        self.store, self.examples, self.settings, self.plan = store, examples, settings, plan
        self.random = RandomStream(settings.seed, plan.device)
        self.choose = np.random.default_rng(settings.seed)
        images = (store.image(example.index) for example in examples)
        self.views = views_for(settings.views, settings.seed, freedom_of(store.study.kind, images, n_classes))
        self.n_classes = n_classes
        self.steps = settings.planned_steps(n_classes, len(examples), warm=warm_start is not None)
        self.held = held
        # At another input size the steps are made anew, from the weights that were learnt.
        self.done = held[0].steps if held and held[0].input_size == plan.input_size else 0
        self.smooth = held[0].loss if self.done else None
        with self.random.use():
            decoder = self._start_from(warm_start)
        self.decoder = decoder.to(plan.device).train()
        self.averaged = self._averaged()
        self.features = Resident(store, plan.device)

    def events(self, cancel: Cancel | None) -> Generator[Event, None, Trained]:
        batches = list(self._batches())
        # Of many labelled slices a short training shows a part of the views only: the others need not be encoded.
        shown = sorted({pair for batch in batches for pair in batch}, key=self._rank)
        yield from self.store.prepare(shown, cancel)
        plain = self._plain_targets()
        targets = {(index, view): view.of_labels(plain[index]) if view else plain[index] for index, view in shown}
        optimiser, schedule = self._optimiser()
        kind = RecordedStep if is_recorded(self.plan.device) else Step
        step = kind(self.decoder, optimiser, self.settings, self._class_weights(list(plain.values())))
        self.started = time.monotonic() - (self.held[0].seconds if self.held else 0.0)
        for batch in batches:
            if cancel:
                break
            with self.random.use():
                loss = self._step(batch, targets, step)
            rate = float(optimiser.param_groups[0]["lr"])
            schedule.step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.decoder)
            self.smooth = loss if self.smooth is None else 0.9 * self.smooth + 0.1 * loss
            self.done += 1
            if self.done % _HOLD_EVERY == 0:
                self._hold()
            yield from self.store.notices()
            yield Progress("train", self.done, self.steps, time.monotonic() - self.started, self.smooth, rate)
        if self.done:
            self._hold()
        if not self.held:
            msg = "Training was stopped before it had begun."
            raise TrainingError(msg)
        return self.held[0].trained(self.plan.device)

    def _start_from(self, warm_start: Decoder | None) -> Decoder:
        if self.held:
            return self.held[0].decoder()
        if warm_start is not None:
            return with_weights(warm_start.arguments, on_host(warm_start.state_dict()))
        return new_decoder(self.store.encoder.channels, self.n_classes, self.settings)

    def _hold(self) -> None:
        """Copy what was learnt to the host. Only a whole copy replaces the last one: a device may fail meanwhile."""
        averaged = None if self.averaged is None else on_host(self.averaged.state_dict())
        weights, seconds = on_host(self.decoder.state_dict()), time.monotonic() - self.started
        self.held[:] = [
            Held(self.decoder.arguments, weights, averaged, self.store.input_size, self.done, self.smooth, seconds)
        ]

    def _step(self, batch: list[TrainingView], targets: dict[TrainingView, Tensor], step: Step) -> float:
        target = torch.stack([targets[pair] for pair in batch]).to(self.plan.device).long()
        return step(self.features.batch(batch), target)

    def _plain_targets(self) -> dict[int, Tensor]:
        """The labels of each slice at the input size."""
        size, as_pillow = self.store.input_size, self.settings.resize == "nearest"
        return {
            example.index: resize_target(
                torch.from_numpy(np.ascontiguousarray(example.target)), size, as_pillow=as_pillow
            )
            for example in self.examples
        }

    def _class_weights(self, plain: Sequence[Tensor]) -> Tensor | None:
        # With one or two classes the Dice half of the loss balances well, and weights only make the masks too large.
        power = self.settings.class_balance * min(1.0, (self.n_classes - 2) / 8)
        if not power:
            return None
        return balanced_weights(plain, self.n_classes, power).to(self.plan.device)

    def _rank(self, pair: TrainingView) -> tuple[int, int]:
        """Slice by slice, and the slice itself before its views."""
        index, view = pair
        return index, view.number if view else 0

    def _batches(self) -> Iterator[list[TrainingView]]:
        """Slices in a random order, each as often as any other, each time in a random view."""
        queue: list[int] = []
        for _ in range(self.done, self.steps):
            while len(queue) < self.plan.batch_size:
                queue += self.choose.permutation(len(self.examples)).tolist()
            chosen, queue = queue[: self.plan.batch_size], queue[self.plan.batch_size :]
            views = self.choose.integers(len(self.views), size=len(chosen))
            yield [(self.examples[n].index, self.views[v]) for n, v in zip(chosen, views, strict=True)]

    def _optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        settings = self.settings
        kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
        device, recorded = self.plan.device, is_recorded(self.plan.device)
        # A recorded step reads its rate from the card, where the schedule puts it.
        rate = torch.tensor(settings.learning_rate, device=device) if recorded else settings.learning_rate
        optimiser = kind(
            self.decoder.parameters(),
            lr=rate,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
            capturable=recorded,
        )
        _skip_graph_check(optimiser)
        if settings.schedule == "constant":
            return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)
        done = self.done  # by an attempt before this one
        return optimiser, torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: _one_cycle((done + step) / self.steps)
        )

    def _averaged(self) -> AveragedModel | None:
        """The moving average of the weights; a young one forgets faster, so that a short training is not held back."""
        decay = self.settings.average
        if not decay:
            return None

        def blend(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
            keep = min(decay, (1 + int(count)) / (10 + int(count)))
            with torch.no_grad():  # all at once: on a graphics card one by one would take longer than the step
                if averages[0].is_floating_point():
                    torch._foreach_lerp_(list(averages), list(current), 1 - keep)
                else:  # BatchNorm's counters
                    torch._foreach_copy_(list(averages), list(current))

        averaged = AveragedModel(self.decoder, multi_avg_fn=blend, use_buffers=True)
        if self.done and self.held[0].averaged is not None:
            averaged.load_state_dict(self.held[0].averaged)
        return averaged


def _skip_graph_check(optimiser: torch.optim.Optimizer) -> None:
    """Keep an optimiser from asking the graphics card, at each step, whether the step is being recorded.

    A card that failed answers with its error, also where the optimiser works on the CPU; and those that are recorded
    are made for it.
    """
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(optimiser, name):
            setattr(optimiser, name, lambda: None)


def _one_cycle(progress: float) -> float:
    """Factor on the peak learning rate at a share of the training: a short rise, then a cosine down to zero."""
    if progress < _WARM_UP:
        return 0.1 + 0.9 * progress / _WARM_UP
    return 0.5 * (1 + float(np.cos(np.pi * (progress - _WARM_UP) / (1 - _WARM_UP))))
