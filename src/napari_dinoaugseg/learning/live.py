"""Learning while a person paints: a decoder that takes a few steps after every change, and predicts what is in view."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from napari_dinoaugseg.learning.augmentation import View, symmetry_of, views_for
from napari_dinoaugseg.learning.events import Cancel, Notice, Prediction, Progress, Report, ignore
from napari_dinoaugseg.learning.fallback import CPU, Failure, Fallback, fewer_features, free_memory, usable
from napari_dinoaugseg.learning.features import FeatureStore, GpuFeatureCache
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.postprocessing import UNKNOWN_TARGET
from napari_dinoaugseg.learning.predict import AS_THEY_ARE, choose_finish, predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import (
    Example,
    RandomStream,
    Step,
    class_weights,
    copy_of,
    moving_average,
    new_decoder,
    new_optimiser,
    on_host,
    one_cycle,
    resize_target,
    step_for,
    take_body,
    with_weights,
)
from napari_dinoaugseg.model.decoder import Decoder

BURST = 0.5
"""Seconds that a burst lasts: after that, what was painted meanwhile is learned."""

_FIRST = 24  # steps of the first cycle after a change: masks can be shown after it
_WORTH = 8  # steps of a new decoder before its masks may be worth a look: it floods slices at first
_FOUND = 0.3  # Dice at which it finds again what it learns from
_LEARNS = 0.6  # share of a burst in which the decoder learns, as long as it does; then it predicts
_ENCODES = 0.25  # share of a burst in which views of labelled slices are encoded
_NEAR = 4  # the slice in view and those beside it, which are predicted first and most often while the decoder learns
_CHUNK = 4  # slices of one call, so that a burst ends in time
_FAR = 2  # of them far from the view while the decoder learns
_ROUND = 24  # steps in which another number of threads is tried once
_TRIES = (2, 3)  # of them
_FLAT = 0.02  # relative improvement of the loss in a cycle, below which it ends early

_KEPT = (  # of a training's settings, by a new decoder: what it sees and gives, and what is chosen in the panel
    *("encoder", "window", "input_size", "context", "scaling", "resize", "precision"),
    *("seed", "augment_probability", "augment_drop"),
)

T = TypeVar("T")


def brisk(settings: Settings) -> Settings:
    """The settings of a new decoder: of the preset `fast`, whose first masks come in half the time of `balanced`.

    No more steps and views than ``settings`` have. Figures: docs/decisions/live.md.
    """
    fast = Settings.of_preset("fast", **{name: getattr(settings, name) for name in _KEPT})
    return fast.with_changes(steps=min(fast.steps, settings.steps), views=min(fast.views, settings.views))


class Threads:
    """Chooses how many threads PyTorch computes with, by what steps take.

    All cores are best while they are idle. Where other programs, or drawing without a graphics card, use some of them,
    the threads wait for each other at the end of every short loop, and fewer are several times as fast.

    Args:
        most: the number to begin with; half of it, a quarter … down to one are tried.

    Attributes:
        count: the number that is best now.
    """

    def __init__(self, most: int) -> None:
        self.count = most
        self._choices = [most]
        while self._choices[-1] > 1:
            self._choices.append(self._choices[-1] // 2)
        self._seconds: dict[int, deque[float]] = {choice: deque(maxlen=3) for choice in self._choices}
        self._steps = 0

    def step(self, take: Callable[[], object]) -> None:
        """Take a step, and learn from its time."""
        count = self._tried() if self._steps % _ROUND in _TRIES else self.count
        started = time.monotonic()
        with self._using(count):
            take()
        if self._steps:  # the first one allocates memory
            self._seconds[count].append(time.monotonic() - started)
        self._steps += 1
        measured = [choice for choice in self._choices if self._seconds[choice]]
        self.count = min(measured, key=lambda choice: median(self._seconds[choice]), default=self.count)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Compute the items one by one with the best number of threads."""
        iterator = iter(items)
        while True:
            with self._using(self.count):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _tried(self) -> int:
        """A neighbour of the best number: the next smaller and the next larger one in turn."""
        at, turn = self._choices.index(self.count), self._steps // _ROUND % 2
        near = [at + 1, at - 1] if turn == 0 else [at - 1, at + 1]
        return next((self._choices[i] for i in near if 0 <= i < len(self._choices)), self.count)

    @contextmanager
    def _using(self, count: int) -> Iterator[None]:
        """Compute with so many threads. PyTorch keeps the number for each thread, and passes it on to new ones."""
        before = torch.get_num_threads()
        if count == before:
            yield
            return
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class Learner:
    """A decoder that learns from labelled slices while they change.

    A change of labels grants a number of steps: the share ``warm_steps`` of a training's, or a whole training's if a
    class is labelled that was not learned so far. They are taken in cycles of the learning rate, each twice as long as
    the one before, so that masks are good soon after a change and get better as long as nothing else changes. They are
    taken in bursts, because labels change meanwhile: in each burst first some steps, then the masks of the slices in
    view and, once each of those has one, of a few others, so that somebody who labels slice after slice finds masks
    everywhere. With the grant spent, all slices follow, then the learner sleeps until the next change.

    A batch holds a slice that changed last as often as all the others together. Views of labelled slices are encoded
    one by one as time allows, so that the first steps do not wait for them.

    Not for several threads; cheap methods may be called between two bursts.

    Args:
        store: features of the case, or of several that are joined.
        settings: of the decoder and its training; a new decoder learns by :func:`brisk` ones.
        n_classes: with the background, at least 2.
        device: default: that of the encoder.
        start: continue a copy of this decoder.
        learned: numbers of slices whose present labels that decoder has learned: alone they are no reason to learn.
        body: a decoder whose weights a new one begins with, but for those of the classes, if both are built alike.

    Attributes:
        settings: that it learns by.
        finish: what is done to its masks of pictures.
        steps: taken so far.
        loss: smoothed; None before the first step.
    """

    def __init__(
        self,
        store: FeatureStore,
        settings: Settings,
        *,
        n_classes: int,
        device: torch.device | None = None,
        start: Decoder | None = None,
        learned: Collection[int] = (),
        body: Decoder | None = None,
    ) -> None:
        self.settings = brisk(settings) if start is None else settings
        self._store, self._n_classes = store, n_classes
        self._threads = Threads(torch.get_num_threads())
        self._device = usable(device or store.encoder.device)
        self._batch_size = self.settings.batch_size
        self._random = RandomStream(settings.seed, self._device)
        self._choose = np.random.default_rng(settings.seed)
        self._is_new = start is None
        self._learned_before = set(learned)
        self._finds = False  # whether a new decoder finds again what it learns from
        self._sought: int | None = None  # the slice that is to be found again: one that brought a class never seen
        self._numbers = {UNKNOWN_TARGET, *range(0 if start is None else n_classes)}  # targets that it has seen
        with self._random.use():
            decoder = new_decoder(store.channels, n_classes, self.settings) if start is None else copy_of(start)
        if start is None and body is not None:
            take_body(decoder, body)
        self._step: Step | None = None
        self._place(decoder)
        self._examples: dict[int, Example] = {}
        self.finish = AS_THEY_ARE
        self._newest: set[int] = set()
        self._targets: dict[tuple[int, View | None], Tensor] = {}
        self._views: tuple[View | None, ...] = (None,)
        self._ready: dict[int, int] = {}  # encoded views of each labelled slice
        self._granted = self._left = 0  # steps that the last change granted, and how many are left
        self._seconds = 0.0  # of learning since then
        self._cycle = self._in_cycle = 0  # length of the present cycle, and steps taken in it
        self._loss_before: float | None = None  # at the start of the cycle
        self._order: list[int] = []
        self._shown: dict[int, int] = {}  # steps after which a slice was predicted last
        self._changed = 0  # steps at the last change of labels
        self.steps = 0
        self.loss: float | None = None
        self._fallback = Fallback(
            "while learning",
            lambda: self._device,
            [self._smaller_batch, fewer_features(store.release)],
            self._use_cpu,
            lambda: "Not enough memory to learn from one slice. Close other programs, or switch off Live.",
        )

    # --- what it learns from, and what it predicts ------------------------------------------------------------------

    def update(self, examples: Sequence[Example], *, steps: int | None = None) -> None:
        """Learn from these labelled slices from now on; those that are new or changed weigh more.

        Args:
            examples: one that is the same object as before has not changed; others are compared.
            steps: that a change grants; default: by the settings.
        """
        known = {example.index: example for example in examples}
        changed = {index for index, example in known.items() if not _same(self._examples.get(index), example)}
        gone = self._examples.keys() - known.keys()
        if not (changed or gone):
            return
        self._targets = {pair: t for pair, t in self._targets.items() if pair[0] in known.keys() - changed}
        self._examples = known
        self.finish = choose_finish(self._store, self.settings, [example.target for example in known.values()])
        new = changed - self._learned_before
        self._learned_before -= changed
        self._newest = new or self._newest & known.keys() or set(known)
        self._ready = {index: self._ready.get(index, 0) for index in known}
        if not known:
            self._left = 0
            return
        if len(self._views) == 1 and self.settings.views:
            images = (self._store.image(index) for index in known)
            symmetry = symmetry_of(self._store.case.kind, images, self._n_classes)
            self._views = views_for(self.settings.views, self.settings.seed, symmetry)
        if self._n_classes > 2:
            self._step = None
        if not (new or gone):
            return
        self._seconds, self.loss, self._changed = 0.0, None, self.steps
        unseen = {index: set(np.unique(known[index].target)) - self._numbers for index in sorted(changed)}
        has_unseen = any(unseen.values())
        if has_unseen:  # a class that it has never seen takes as long as the first
            self._numbers.update(*unseen.values())
            self._is_new, self._finds, self._sought = True, False, max(unseen, key=lambda index: len(unseen[index]))
        planned = self.settings.planned_steps(self._n_classes, len(known), warm=not self._is_new)
        self._left = self._granted = planned if steps is None else steps
        # A first cycle goes on, or somebody who paints without a pause would never see its masks.
        if has_unseen or not self._is_new:
            self._begin_cycle(_FIRST)

    def focus(self, order: Sequence[int]) -> None:
        """Predict these slices, the first ones most urgently; those that are not named are not predicted."""
        for index in set(self._shown) - set(order):
            del self._shown[index]  # labelled meanwhile: if it is open again later, its mask may be gone
        self._order = list(order)

    @property
    def learns(self) -> bool:
        """Whether steps of the grant are left."""
        return self._left > 0

    @property
    def sleeps(self) -> bool:
        """Whether nothing is left to do until something changes."""
        return not self._examples or not (self.learns or self._outdated)

    @property
    def progress(self) -> Progress:
        """The steps of the grant, and the loss."""
        total = max(1, self._granted)
        return Progress("live", total - self._left, total, self._seconds, self.loss)

    @property
    def learned(self) -> Decoder | None:
        """A copy of the decoder, on the CPU; None before its masks are worth a look."""
        return copy_of(self._best) if self._finds or not self._is_new else None

    @property
    def _best(self) -> Decoder:
        """The decoder with averaged weights, if the settings ask for an average."""
        return self._decoder if self._averaged is None else cast("Decoder", self._averaged.module)

    @property
    def _outdated(self) -> list[int]:
        """Slices whose masks are older than the last step, the most urgent first."""
        return [index for index in self._order if self._shown.get(index, -1) != self.steps]

    @property
    def _urgent(self) -> list[int]:
        """Outdated slices to predict while it learns: the one in view, then those with the oldest masks.

        Slices far from the view are among them once all near it have a mask from after the last change.
        """

        def age(index: int) -> int:
            return self._shown.get(index, -1)

        outdated = self._outdated
        near = [index for index in self._order[:_NEAR] if index in outdated]
        far = sorted((index for index in outdated if index not in near), key=age)[:_FAR]
        if any(age(index) <= self._changed for index in near):
            far = []
        return [*near[:1], *sorted(near[1:], key=age)[: _CHUNK - 1 - len(far)], *far]

    # --- a burst ----------------------------------------------------------------------------------------------------

    def burst(
        self, seconds: float = BURST, *, report: Report = ignore, cancel: Cancel | None = None
    ) -> Iterator[Prediction]:
        """Learn for a while, then predict; nothing if the learner sleeps.

        Args:
            seconds: that it takes, about; at least one step, and one mask once a new decoder finds its own label.
            report: receives notices.
            cancel: ends it soon.

        Yields:
            The masks of open slices.

        Raises:
            NoRoomError: memory runs out with one slice at a time on the CPU.
            DeviceError: the device's failure also affects the CPU.
        """
        started = time.monotonic()
        if self.sleeps:
            return
        if self.learns:
            self._encode_views(started + _ENCODES * seconds, report, cancel)
            while self.learns and not cancel:
                self._threads.step(lambda: self._fallback.run(self._take_step, report))
                if time.monotonic() >= started + _LEARNS * seconds:
                    break
            self._kept = on_host(self._decoder.state_dict())
            self._seconds += time.monotonic() - started
        if self._finds_its_label(report, cancel):
            yield from self._predict(started + seconds, report, cancel)

    def _finds_its_label(self, report: Report, cancel: Cancel | None) -> bool:
        """Whether masks are worth a look: the label of a new class is found again, or the first cycle is over."""
        if self._finds or not (self.learns and self._is_new):
            return True
        if self.steps < _WORTH or cancel:
            return False
        index = self._sought if self._sought in self._examples else min(self._newest)
        target = self._examples[index].target
        masks = predict(
            self._store,
            self._best,
            [index],
            device=self._device,
            judge=False,
            report=_only_notices(report),
            cancel=cancel,
        )
        for found in self._threads.over(masks):
            known = target != UNKNOWN_TARGET
            numbers = np.unique(target[known & (target > 0)])
            scores = [dice((found.classes == number) & known, target == number) for number in numbers]
            self._finds = not scores or float(np.mean(scores)) >= _FOUND
        return self._finds

    def _predict(self, deadline: float, report: Report, cancel: Cancel | None) -> Iterator[Prediction]:
        """While it learns, the most urgent slices; with the grant spent, all whose masks are outdated."""
        first = True
        while not cancel and (first or time.monotonic() < deadline):
            wanted = self._urgent if self.learns else self._outdated
            if not wanted:
                return
            masks = predict(
                self._store,
                self._best,
                wanted[:_CHUNK],
                finish=replace(self.finish, redraws=False) if self.learns else self.finish,
                device=self._device,
                judge=not self.learns,  # these masks stay; earlier ones are worth less time
                report=_only_notices(report),
                cancel=cancel,
            )
            for found in self._threads.over(masks):
                self._shown[found.index] = self.steps
                yield found
            first = False

    def _encode_views(self, deadline: float, report: Report, cancel: Cancel | None) -> None:
        """Encode the labelled slices, then views of those that have the fewest, the newest first."""
        while not cancel:
            index = min(self._ready, key=lambda i: (self._ready[i], i not in self._newest, i))
            number = self._ready[index]
            if number == len(self._views) or (number and time.monotonic() >= deadline):
                return
            for event in self._threads.over(self._store.prepare([(index, self._views[number])], cancel)):
                if isinstance(event, Notice):
                    report(event)
            self._ready[index] += not cancel

    def _take_step(self) -> None:
        batch = self._batch()
        target = torch.stack([self._target(*pair) for pair in batch]).to(self._device).long()
        rate = self.settings.learning_rate * one_cycle(self._in_cycle / self._cycle)
        for group in self._optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self._step is None:
            weights = class_weights(
                [self._target(index, None) for index in self._examples], self._n_classes, self.settings
            )
            self._step = step_for(self._device)(self._decoder, self._optimiser, self.settings, weights)
        with self._random.use():
            loss = self._step(self._features.batch(batch), target)
        if self._averaged is not None:
            self._averaged.update_parameters(self._decoder)
        self.loss = loss if self.loss is None else 0.9 * self.loss + 0.1 * loss
        self.steps += 1
        self._left -= 1
        self._in_cycle += 1
        if self._in_cycle == self._cycle:
            self._end_cycle()

    def _batch(self) -> list[tuple[int, View | None]]:
        """Different slices and views, half of them of the slices that changed last."""
        pairs = [(index, view) for index, count in self._ready.items() for view in self._views[:count]]
        newest = np.array([index in self._newest for index, _ in pairs])
        weights = np.where(newest, 1 / max(1, newest.sum()), 1 / max(1, (~newest).sum()))
        count = min(self._batch_size, len(pairs))
        chosen = self._choose.choice(len(pairs), count, replace=False, p=weights / weights.sum())
        return [pairs[number] for number in chosen]

    def _target(self, index: int, view: View | None) -> Tensor:
        """The labels of a view at the input size."""
        found = self._targets.get((index, view))
        if found is None:
            labels = torch.from_numpy(np.ascontiguousarray(self._examples[index].target))
            as_pillow = self.settings.resize == "nearest"
            plain = resize_target(labels, self._store.input_size, as_pillow=as_pillow)
            found = self._targets[index, view] = view.of_labels(plain) if view else plain
        return found

    # --- cycles of the learning rate --------------------------------------------------------------------------------

    def _begin_cycle(self, length: int) -> None:
        self._cycle, self._in_cycle = max(1, min(length, self._left)), 0
        self._loss_before = self.loss

    def _end_cycle(self) -> None:
        self._is_new = False
        if self.loss is not None and self._loss_before is not None and self.loss > (1 - _FLAT) * self._loss_before:
            self._left = 0
        if self._left:
            self._begin_cycle(2 * self._cycle)

    # --- device and memory ------------------------------------------------------------------------------------------

    def _place(self, decoder: Decoder) -> None:
        """Learn with this decoder on the present device."""
        self._decoder = decoder.to(self._device).train()
        self._kept = on_host(self._decoder.state_dict())
        self._averaged = moving_average(self._decoder, self.settings.average)
        self._optimiser = new_optimiser(self._decoder, self.settings, self._device)
        self._step = None
        self._features = GpuFeatureCache(self._store, self._device)

    def _smaller_batch(self, failure: Failure) -> str | None:
        """A rung: halve the batch; useless if a single slice could not be encoded."""
        if failure.is_smallest or self._batch_size == 1:
            return None
        self._batch_size //= 2
        return f"with {self._batch_size} slices a step"

    def _use_cpu(self) -> None:
        before, self._device = self._device, CPU
        if usable(self._store.encoder.device) != self._store.encoder.device:
            self._store.leave_device()
        self._random = RandomStream(self.settings.seed + self.steps, CPU)
        self._place(with_weights(self._decoder.arguments, self._kept))
        free_memory(before)


def _same(one: Example | None, other: Example) -> bool:
    return one is other or (one is not None and np.array_equal(one.target, other.target))


def _only_notices(report: Report) -> Report:
    """Masks of a burst come too fast for a progress of their own."""

    def pass_on(event: object) -> None:
        if isinstance(event, Notice):
            report(event)

    return pass_on
