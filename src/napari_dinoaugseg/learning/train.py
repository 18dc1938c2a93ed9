"""Training of the decoder on cached features: loop, step, loss, the state of a training, and its random stream.

Where the settings ask for it, the encoder learns in the last steps; see `adaptation`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from napari_dinoaugseg.errors import TrainingError
from napari_dinoaugseg.learning.adaptation import Images, Trainee, encoding
from napari_dinoaugseg.learning.augmentation import View, symmetry_of, views_for
from napari_dinoaugseg.learning.events import Cancel, Event, Progress
from napari_dinoaugseg.learning.fallback import CPU, Failure, Fallback, fewer_features, usable
from napari_dinoaugseg.learning.features import FeatureStore, GpuFeatureCache
from napari_dinoaugseg.learning.postprocessing import UNKNOWN_TARGET, nearest_pixels
from napari_dinoaugseg.learning.settings import Settings, frozen_steps
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.encoder import Encoder
from napari_dinoaugseg.model.wtaug import WTAug

_SAVE_EVERY = 20  # steps between copies of the weights to the host
_SMALLEST_INPUT = 128  # pixels
TrainingView = tuple[int, View | None]
Denominator = Literal["squares", "sums"]
_SMOOTH = 1e-5  # of the Dice loss
_USUAL = 2
"""Steps of a kind before one is recorded: libraries choose their kernels in them, which a recording forbids."""
_WARM_UP = 0.1  # share of a one-cycle schedule in which the learning rate rises


@dataclass(frozen=True)
class Example:
    """A labelled slice.

    Attributes:
        index: slice number.
        target: (H, W) int16 class indices, 0 = background, 1 … K; ``UNKNOWN_TARGET`` = not labelled.
    """

    index: int
    target: np.ndarray[tuple[int, int], np.dtype[np.int16]]


def new_decoder(channels: Sequence[int], n_classes: int, settings: Settings) -> Decoder:
    """An untrained decoder for encoder maps of these channels, initialised from PyTorch's random state."""
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
    newest: Collection[int] = (),
    cancel: Cancel | None = None,
) -> Generator[Event, None, Trained]:
    """Train a decoder on labelled slices (paper, section 3; loss and optimiser from ``settings``).

    Where the settings ask for it, a second stage, with a learning rate cycle of its own, trains the encoder, too. That
    of the store does not change; its new weights are part of the result.

    Yields an event for every encoded batch and every step, and returns the result. ``cancel`` takes effect before the
    next step, and returns what was trained so far. When memory runs out, the batch is halved, then the input size,
    then the work moves to the CPU, as it does when a device fails; a notice reports it, and the training continues from
    the last saved state. The caller's random state does not change.

    Args:
        store: features of the case.
        examples: at least one labelled slice.
        settings: sizes, steps, seed.
        n_classes: with the background, at least 2.
        device: default: that of the encoder.
        warm_start: continue a copy of this decoder, with the share ``warm_steps`` of the steps.
        newest: numbers of the labelled slices that it has not learned from: they are shown as often as all others
            together, as in `learning.live`. Unused without a decoder to continue.
        cancel: stops the training, from any thread.

    Raises:
        TrainingError: no labelled slice, stopped before the first step, or out of memory at the smallest size.
        DeviceError: the device's failure also affects the CPU.
    """
    if not examples:
        msg = "No slice is labelled. Paint at least one slice, then train."
        raise TrainingError(msg)
    size = _Size(settings.batch_size, store.input_size, device or store.encoder.device)
    saved: list[TrainingState] = []  # at most one; outlives the attempt that filled it
    planned = settings.planned_steps(n_classes, len(examples), warm=warm_start is not None)
    frozen = frozen_steps(settings, planned, warm=warm_start is not None)
    stage = _Stage("train", frozen)

    def attempt() -> Generator[Event, None, Trained]:
        nonlocal store
        yield from store.notices()
        size.device = usable(size.device)
        if store.input_size != size.input_size:
            store = store.resized(size.input_size)
        run = _Run(store, examples, settings, size, n_classes, stage, warm_start, newest, saved)
        return (yield from run.events(cancel))

    def use_cpu() -> None:
        if stage.learns or usable(size.device) != size.device:
            store.leave_device()
        size.device = CPU

    fallback = Fallback(
        "in training",
        lambda: size.device,
        [size.smaller_batch, fewer_features(lambda: store.release()), size.smaller_input],
        use_cpu,
        lambda: "Not enough memory to train even at the smallest size. Close other programs and try again.",
    )
    before = 0.0  # seconds
    if frozen:
        trained = yield from fallback.stream(attempt)
        if frozen == planned or cancel:
            return trained
        before = trained.seconds
        saved[:] = [saved[0].restarted()]
    stage = _Stage("adapt", planned - frozen)
    trained = yield from fallback.stream(attempt)
    return replace(trained, steps=frozen + trained.steps, seconds=before + trained.seconds)


@dataclass(frozen=True)
class _Stage:
    """A part of a training: its name in progress, and its steps."""

    name: Literal["train", "adapt"]
    steps: int

    @property
    def learns(self) -> bool:
        """Whether the encoder learns, too."""
        return self.name == "adapt"


@dataclass
class _Size:
    """The size and device of a training.

    Attributes:
        batch_size: slices per step.
        input_size: side of the square that a slice is resized to.
        device: where the decoder is.
    """

    batch_size: int
    input_size: int
    device: torch.device

    def smaller_batch(self, failure: Failure) -> str | None:
        """A rung: halve the batch; useless if a single slice could not be encoded."""
        if failure.is_smallest or self.batch_size == 1:
            return None
        self.batch_size //= 2
        return f"with {self.batch_size} slices a step"

    def smaller_input(self, _: Failure) -> str | None:
        """A rung: halve the input size."""
        if self.input_size <= _SMALLEST_INPUT:
            return None
        self.input_size = max(_SMALLEST_INPUT, self.input_size // 2 // 32 * 32)
        return f"at {self.input_size} x {self.input_size} pixels"


class _Run:
    """One attempt at a stage of a training, at one size."""

    def __init__(
        self,
        store: FeatureStore,
        examples: Sequence[Example],
        settings: Settings,
        size: _Size,
        n_classes: int,
        stage: _Stage,
        warm_start: Decoder | None,
        newest: Collection[int],
        saved: list[TrainingState],
    ) -> None:
        self.store, self.examples, self.settings, self.size, self.stage = store, examples, settings, size, stage
        self.random = RandomStream(settings.seed, size.device)
        self.choose = np.random.default_rng(settings.seed)
        images = (store.image(example.index) for example in examples)
        self.symmetry = symmetry_of(store.case.kind, images, n_classes)
        self.n_classes = n_classes
        new = [n for n, example in enumerate(examples) if example.index in newest and warm_start is not None]
        repeats = round(len(examples) / len(new)) - 2 if new else 0
        self.round = [*range(len(examples)), *new * repeats]  # what each round shows, by place among the examples
        self.saved = saved
        # At another input size all steps are repeated, from the saved weights.
        self.done = saved[0].steps if saved and saved[0].input_size == size.input_size else 0
        self.smooth = saved[0].loss if self.done else None
        with self.random.use():
            decoder = self._start_from(warm_start)
        self.decoder = decoder.to(size.device).train()
        self.encoder = self._encoder_that_learns() if stage.learns else None
        self.trainee = Trainee(self.decoder, self.encoder)
        self.averaged = self._averaged()
        self.inputs = Images(store) if stage.learns else GpuFeatureCache(store, size.device)
        self.targets: dict[TrainingView, Tensor] = {}

    def events(self, cancel: Cancel | None) -> Generator[Event, None, Trained]:
        batches = list(self._batches())
        if self.encoder is None:
            # With many labelled slices a short training shows only some of the views: the others are not encoded.
            shown = sorted({pair for batch in batches for pair in batch}, key=self._rank)
            yield from self.store.prepare(shown, cancel)
        self.plain = self._plain_targets()
        optimiser, schedule = self._optimiser()
        step = self._new_step(optimiser)
        self.started = time.monotonic() - (self.saved[0].seconds if self.saved else 0.0)
        for batch in batches:
            if cancel:
                break
            with self.random.use():
                loss = self._step(batch, step)
            rate = float(optimiser.param_groups[0]["lr"])
            schedule.step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.trainee)
            self.smooth = loss if self.smooth is None else 0.9 * self.smooth + 0.1 * loss
            self.done += 1
            if self.done % _SAVE_EVERY == 0:
                self._save()
            yield from self.store.notices()
            elapsed = time.monotonic() - self.started
            yield Progress(self.stage.name, self.done, self.stage.steps, elapsed, self.smooth, rate)
        if self.done:
            self._save()
        if not self.saved:
            msg = "Training was stopped before the first step."
            raise TrainingError(msg)
        trained = self.saved[0].trained(self.size.device)
        changes = trained.encoder_changes or self.store.encoder.changes
        return replace(trained, encoder_changes=changes)

    def _start_from(self, warm_start: Decoder | None) -> Decoder:
        if self.saved:
            return self.saved[0].decoder()
        if warm_start is not None:
            return copy_of(warm_start)
        return new_decoder(self.store.channels, self.n_classes, self.settings)

    def _encoder_that_learns(self) -> Encoder:
        """A copy of the store's encoder, or what was learned of it so far."""
        encoder = self.store.encoder
        learned = self.saved[0].encoder_changes() if self.saved else {}
        return encoder.adapted(learned or encoder.learnable)

    def _new_step(self, optimiser: torch.optim.Optimizer) -> Step:
        device, settings = self.size.device, self.settings
        weights = class_weights(list(self.plain.values()), self.n_classes, settings)
        if self.encoder is None:
            return step_for(device)(self.decoder, optimiser, settings, weights)
        return Step(
            self.decoder, optimiser, settings, weights, encode=encoding(self.encoder, device, exact=self.store.exact)
        )

    def _save(self) -> None:
        """Copy the state to the host. Only a complete copy replaces the last, because the device may fail meanwhile."""
        averaged = None if self.averaged is None else on_host(self.averaged.state_dict())
        weights, seconds = on_host(self.trainee.state_dict()), time.monotonic() - self.started
        self.saved[:] = [
            TrainingState(
                self.decoder.arguments, weights, averaged, self.store.input_size, self.done, self.smooth, seconds
            )
        ]

    def _step(self, batch: list[TrainingView], step: Step) -> float:
        target = torch.stack([self._target(pair) for pair in batch]).to(self.size.device).long()
        return step(self.inputs.batch(batch), target)

    def _target(self, pair: TrainingView) -> Tensor:
        """The labels of a view at the input size."""
        index, view = pair
        if view is None:
            return self.plain[index]
        if self.encoder is not None:  # it is shown once
            return view.of_labels(self.plain[index])
        if pair not in self.targets:
            self.targets[pair] = view.of_labels(self.plain[index])
        return self.targets[pair]

    def _plain_targets(self) -> dict[int, Tensor]:
        """The labels of each slice at the input size."""
        size, as_pillow = self.store.input_size, self.settings.resize == "nearest"
        return {
            example.index: resize_target(
                torch.from_numpy(np.ascontiguousarray(example.target)), size, as_pillow=as_pillow
            )
            for example in self.examples
        }

    def _rank(self, pair: TrainingView) -> tuple[int, int]:
        """Sort key: by slice, with the slice itself before its views."""
        index, view = pair
        return index, view.number if view else 0

    def _batches(self) -> Iterator[list[TrainingView]]:
        """Batches of slices in random order, round after round, each time in a random view.

        Of those that are encoded ahead; or a new one where the encoder learns.
        """
        settings, queue = self.settings, list[int]()
        views = views_for(settings.views, settings.seed, self.symmetry)
        for number in range(self.done, self.stage.steps):
            while len(queue) < self.size.batch_size:
                queue += self.choose.permutation(self.round).tolist()
            chosen, queue = queue[: self.size.batch_size], queue[self.size.batch_size :]
            if self.stage.learns:
                first = len(views) + number * settings.batch_size
                shown = [View(first + n, settings.seed, self.symmetry) for n in range(len(chosen))]
            else:
                shown = [views[v] for v in self.choose.integers(len(views), size=len(chosen))]
            yield [(self.examples[n].index, view) for n, view in zip(chosen, shown, strict=True)]

    def _optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        weights = list(self.trainee.encoder.values())
        optimiser = new_optimiser(self.decoder, self.settings, self.size.device, weights)
        if self.settings.schedule == "constant":
            return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)
        done = self.done  # by an earlier attempt
        return optimiser, torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: one_cycle((done + step) / self.stage.steps)
        )

    def _averaged(self) -> AveragedModel | None:
        averaged = moving_average(self.trainee, self.settings.average)
        if averaged is not None and self.done and self.saved[0].averaged is not None:
            averaged.load_state_dict(self.saved[0].averaged)
        return averaged


def moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """The moving average of the weights, with faster decay in the first steps for short ones; None for no decay."""
    if not decay:
        return None

    def blend(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        with torch.no_grad():  # all at once: on a GPU one by one would take longer than the step
            if averages[0].is_floating_point():
                torch._foreach_lerp_(list(averages), list(current), 1 - keep)
            else:  # BatchNorm's counters
                torch._foreach_copy_(list(averages), list(current))

    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)


def new_optimiser(
    decoder: Decoder, settings: Settings, device: torch.device, encoder: Sequence[Tensor] = ()
) -> torch.optim.Optimizer:
    """The optimiser of a training on a device, at the peak learning rates.

    Args:
        decoder: that is trained.
        settings: rates and weight decay; the weights of the encoder do not decay.
        device: of the decoder.
        encoder: its weights that learn.
    """
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    recorded = is_recorded(device) and not encoder
    # A recorded step reads the learning rate from the GPU, where the schedule writes it.
    rate = torch.tensor(settings.learning_rate, device=device) if recorded else settings.learning_rate
    groups: list[dict[str, Any]] = [{"params": list(decoder.parameters())}]
    if encoder and settings.adaptation is not None:
        groups.append({"params": list(encoder), "lr": settings.adaptation.rate, "weight_decay": 0.0})
    optimiser = kind(
        groups,
        lr=rate,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
        capturable=recorded,
    )
    _skip_graph_check(optimiser)
    return optimiser


def _skip_graph_check(optimiser: torch.optim.Optimizer) -> None:
    """Disable the optimiser's check, at each step, whether a CUDA graph is being captured.

    It fails on a GPU that failed before, even if the optimiser works on the CPU; and optimisers of recorded steps are
    capturable.
    """
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(optimiser, name):
            setattr(optimiser, name, lambda: None)


def one_cycle(progress: float) -> float:
    """Factor on the peak learning rate at a share of the training: a short rise, then a cosine down to zero."""
    if progress < _WARM_UP:
        return 0.1 + 0.9 * progress / _WARM_UP
    return 0.5 * (1 + float(np.cos(np.pi * (progress - _WARM_UP) / (1 - _WARM_UP))))


class Step:
    """One optimisation step: WT-Aug, decoder, loss, optimiser.

    Args:
        decoder: in training mode, on its device.
        optimiser: of all that learns.
        settings: of WT-Aug and the loss.
        class_weights: (K,); None = equal weights.
        encode: makes the features from the inputs of a step, with gradients; None = they are the features.
    """

    def __init__(
        self,
        decoder: Decoder,
        optimiser: torch.optim.Optimizer,
        settings: Settings,
        class_weights: Tensor | None,
        encode: Callable[[list[Tensor]], list[Tensor]] | None = None,
    ) -> None:
        self._decoder, self._optimiser, self._settings, self._encode = decoder, optimiser, settings, encode
        self._class_weights = None if class_weights is None else class_weights.to(next(decoder.parameters()).device)
        self._augment = WTAug(p=settings.augment_probability, drop=settings.augment_drop).train()

    def __call__(self, inputs: list[Tensor], target: Tensor) -> float:
        """Take a step and return its loss.

        Args:
            inputs: four maps (B, C, h, w) float32 on the device, or what ``encode`` makes them of.
            target: (B, H, W) int64 on the device.
        """
        features = inputs if self._encode is None else self._encode(inputs)
        return float(self._compute(features, target, self._augment.fires()))

    def _compute(self, features: list[Tensor], target: Tensor, fires: bool) -> Tensor:
        device = target.device
        self._optimiser.zero_grad(set_to_none=True)
        if fires:
            features = self._augment.alter(features)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed_precision(device, self._settings)):
            logits = self._decoder(features, tuple(target.shape[1:]))
        loss = segmentation_loss(
            logits,
            target,
            absent_in_dice=self._settings.absent_in_dice,
            dice=self._settings.dice,
            class_weights=self._class_weights,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        if self._settings.clip_gradient is not None:
            learning = [value for group in self._optimiser.param_groups for value in group["params"]]
            nn.utils.clip_grad_norm_(learning, self._settings.clip_gradient)
        self._optimiser.step()
        return loss.detach()


class RecordedStep(Step):
    """A step recorded as a CUDA graph: one recording with WT-Aug, one without.

    A step is some eight hundred small kernels, and launching them one by one takes ten times as long as running them.
    The optimiser is capturable and its learning rate a tensor on the GPU, which the schedule writes and a recording
    reads. Nothing in a step may depend on values that the CPU would have to wait for. If recording fails, for lack of
    memory or driver support, steps run unrecorded.
    """

    def __init__(
        self, decoder: Decoder, optimiser: torch.optim.Optimizer, settings: Settings, class_weights: Tensor | None
    ) -> None:
        super().__init__(decoder, optimiser, settings, class_weights)
        self._device = next(decoder.parameters()).device
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._taken: Counter[bool] = Counter()
        self._recordings: dict[bool, _Recording] = {}
        self._fails = False

    def __call__(self, features: list[Tensor], target: Tensor) -> float:
        """As in :class:`Step`; every batch has the shape of the first."""
        fires = self._augment.fires()
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                # Reading the loss waits for the whole step, after which others may read the weights.
                return float(self._loss(features, target, fires))

    def _loss(self, features: list[Tensor], target: Tensor, fires: bool) -> Tensor:
        self._taken[fires] += 1
        if fires not in self._recordings and self._taken[fires] > _USUAL and not self._fails:
            self._record(features, target, fires)
        if fires in self._recordings:
            return self._recordings[fires].play(features, target)
        return self._compute(features, target, fires)

    def _record(self, features: list[Tensor], target: Tensor, fires: bool) -> None:
        inputs, labels = [stage.clone() for stage in features], target.clone()
        # Recordings never run at the same time, so they may share their memory.
        pool = next((recording.graph.pool() for recording in self._recordings.values()), None)
        try:
            graph = torch.cuda.CUDAGraph()
            # Other threads keep using the GPU; only this one may disturb the recording.
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                loss = self._compute(inputs, labels, fires)
        except RuntimeError:
            self._fails = True
            return
        self._recordings[fires] = _Recording(graph, inputs, labels, loss)


class _Recording:
    """A recorded step with its input and output memory."""

    def __init__(self, graph: torch.cuda.CUDAGraph, features: list[Tensor], target: Tensor, loss: Tensor) -> None:
        self.graph, self._features, self._target, self._result = graph, features, target, loss

    def play(self, features: list[Tensor], target: Tensor) -> Tensor:
        """Run the step with these inputs; the next step overwrites the returned loss."""
        for held, stage in zip(self._features, features, strict=True):
            held.copy_(stage)
        self._target.copy_(target)
        self.graph.replay()
        return self._result


def step_for(device: torch.device) -> type[Step]:
    """The kind of step on a device."""
    return RecordedStep if is_recorded(device) else Step


def is_recorded(device: torch.device) -> bool:
    """Whether steps on the device are recorded."""
    return device.type == "cuda" and torch.cuda.is_available()


def mixed_precision(device: torch.device, settings: Settings) -> bool:
    """Whether the decoder computes in bfloat16: by the settings, or if it is faster.

    On a CPU with bfloat16 instructions it halves the time of the paper's decoder; narrow decoders would gain a seventh
    and lose a little quality.
    """
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if device.type == "cpu":
        return settings.width is None and _bfloat16_is_fast()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


@cache
def _bfloat16_is_fast() -> bool:
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch of 2026 and newer
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    *,
    absent_in_dice: bool,
    dice: Denominator = "squares",
    class_weights: Tensor | None = None,
) -> Tensor:
    """The loss of the paper: 0.5 cross-entropy + 0.5 soft Dice over the known pixels, background included.

    With probabilities p, truth t and ε = 1e-5, the Dice of a class over the batch is (2 Σpt + ε) / (Σp² + Σt + ε), or
    with ``dice="sums"``, as the authors of the paper compute it, (2 Σpt + ε) / (Σp + Σt + ε).

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) integers, 0 to K - 1, or :data:`UNKNOWN_TARGET`.
        absent_in_dice: include classes that are absent from the batch, as the authors do. With many classes and few
            slices most are absent, and their term is noise: cross-entropy suffices for them.
        dice: denominator of the Dice.
        class_weights: (K,) for the cross-entropy, see :func:`balanced_weights`; None = equal weights.

    Returns:
        A scalar, at least 0; 0 if every pixel is unknown.
    """
    # No branch depends on a value, because the CPU would wait for the GPU, and the step could not be recorded.
    logits = logits.float()
    truth = (target[..., None] == torch.arange(logits.shape[1], device=target.device)).movedim(-1, 1).float()
    counts = truth.sum(dim=(0, 2, 3))
    weight = counts if class_weights is None else counts * class_weights
    cross_entropy = F.cross_entropy(
        logits, target, weight=class_weights, ignore_index=UNKNOWN_TARGET, reduction="sum"
    ) / weight.sum().clamp(min=_SMOOTH)
    probability = logits.softmax(dim=1) * (target != UNKNOWN_TARGET)[:, None]
    scores = _soft_dice(probability, truth, counts, dice)
    if absent_in_dice:
        return 0.5 * cross_entropy + 0.5 * (1 - scores.mean())
    present = counts > 0
    return 0.5 * cross_entropy + 0.5 * ((1 - scores) * present).sum() / present.sum().clamp(min=1)


def class_weights(targets: Sequence[Tensor], n_classes: int, settings: Settings) -> Tensor | None:
    """Class weights (K,) for the cross-entropy of targets of integers; None = equal weights."""
    # With one or two classes the Dice loss balances well, and weights only make the masks too large.
    power = settings.class_balance * min(1.0, (n_classes - 2) / 8)
    return balanced_weights(targets, n_classes, power) if power else None


def balanced_weights(targets: Iterable[Tensor], n_classes: int, power: float) -> Tensor:
    """Class weights (K,) that favour rare classes: frequency ** -power, with mean 1 over the pixels.

    With two dozen organs in a few slices the small ones are a fraction of a percent of the pixels, and a short training
    without weights never finds them. Absent classes have weight 1.
    """
    counts = torch.zeros(n_classes)
    for target in targets:
        counts += torch.bincount(target[target != UNKNOWN_TARGET].long(), minlength=n_classes)
    share = counts / counts.sum().clamp(min=1)
    weights = torch.where(counts > 0, share.clamp(min=1e-9) ** -power, torch.ones(n_classes))
    return weights / (weights * share).sum().clamp(min=1e-9)


def _soft_dice(probability: Tensor, truth: Tensor, counts: Tensor, denominator: Denominator) -> Tensor:
    """Dice (K,) of maps (B, K, H, W) that are 0 at unknown pixels; ``counts``: pixels of each class."""
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    amount = probability.square() if denominator == "squares" else probability
    size = amount.sum(dim=(0, 2, 3)) + counts
    return (2 * overlap + _SMOOTH) / (size + _SMOOTH)


def resize_target(target: Tensor, size: int, *, as_pillow: bool = False) -> Tensor:
    """Resize a target (H, W) of integers to (size, size) by nearest neighbour; ``as_pillow`` rounds as Pillow does."""
    if target.shape == (size, size):
        return target
    if as_pillow:
        rows, columns = (torch.from_numpy(nearest_pixels(length, size)).long() for length in target.shape)
        return target[rows[:, None], columns]
    resized = F.interpolate(target[None, None].to(torch.float32), size=(size, size), mode="nearest-exact")
    return resized[0, 0].to(target.dtype)


@dataclass(frozen=True)
class Trained:
    """A trained decoder and its training.

    Attributes:
        decoder: in evaluation mode, on the CPU.
        encoder_changes: weights of the encoder that it works with, see `Encoder.adapted`; empty = those of the file.
        input_size: of the training; smaller than that of the settings if memory ran out.
        device: of the last steps; the CPU after a fallback.
        steps: optimisation steps; fewer than planned if the training was stopped.
        final_loss: smoothed training loss at the end; None without a step.
        seconds: of the optimisation, without encoding.
    """

    decoder: Decoder
    encoder_changes: Mapping[str, Tensor]
    input_size: int
    device: torch.device
    steps: int
    final_loss: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingState:
    """The state of a training at a step, on the host, where a failing device does not destroy it.

    Attributes:
        arguments: of the decoder.
        weights: of the trainee, by name.
        averaged: state of their moving average; None without one.
        input_size: of the training.
        steps: of the stage, done so far.
        loss: smoothed.
        seconds: so far.
    """

    arguments: Mapping[str, Any]
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    input_size: int
    steps: int
    loss: float | None
    seconds: float

    def decoder(self) -> Decoder:
        """A decoder with these weights, for further training."""
        return with_weights(self.arguments, on_host(Trainee.parts(self.weights)[0]))

    def encoder_changes(self) -> dict[str, Tensor]:
        """The weights of the encoder, for further training; empty if it has not learned."""
        return Trainee.parts(self.weights)[1]

    def restarted(self) -> TrainingState:
        """The start of another stage: with the weights of the result."""
        return replace(self, weights=self._best, averaged=None, steps=0, seconds=0.0)

    def trained(self, device: torch.device) -> Trained:
        """The result of a training that ended on ``device``."""
        decoder, encoder = Trainee.parts(self._best)
        found = with_weights(self.arguments, decoder).eval()
        return Trained(found, encoder, self.input_size, device, self.steps, self.loss, self.seconds)

    @property
    def _best(self) -> dict[str, Tensor]:
        if self.averaged is None:
            return self.weights
        return {name.removeprefix("module."): v for name, v in self.averaged.items() if name.startswith("module.")}


def with_weights(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> Decoder:
    """A decoder with these weights; draws no random numbers."""
    with torch.device("meta"):
        decoder = Decoder(**arguments)
    decoder.load_state_dict(state, strict=True, assign=True)
    return decoder


def copy_of(decoder: Decoder) -> Decoder:
    """A copy of a decoder on the CPU; draws no random numbers."""
    return with_weights(decoder.arguments, on_host(decoder.state_dict()))


def take_body(decoder: Decoder, other: Decoder) -> None:
    """Copy the weights of another decoder, but for those of its classes; nothing if they are not built alike."""
    if {**other.arguments, "n_classes": decoder.n_classes} != decoder.arguments:
        return
    own = decoder.state_dict()
    decoder.load_state_dict({**other.state_dict(), **{name: own[name] for name in own if name.startswith("classify.")}})


def on_host(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, also of tensors that are there already."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


class RandomStream:
    """A separate random state of PyTorch for one piece of work, independent of other code that draws."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=self._devices):
            # Not torch.manual_seed, which accesses every device, even a failed one.
            torch.default_generator.manual_seed(seed)
            for device in self._devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            self._state = self._get()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Let PyTorch draw from this stream inside the block."""
        with torch.random.fork_rng(devices=self._devices):
            torch.set_rng_state(self._state[0])
            for device, value in zip(self._devices, self._state[1:], strict=True):
                torch.cuda.set_rng_state(value, device)
            yield
            self._state = self._get()

    def _get(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]
