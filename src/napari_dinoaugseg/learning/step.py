"""One optimisation step: WT-Aug, decoder, loss, optimiser.

On a graphics card a step is some eight hundred small kernels, and telling the card to start them takes ten times as
long as they do. There the step is recorded once as a CUDA graph, and played back.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import torch
from torch import Tensor

from napari_dinoaugseg.learning.loss import segmentation_loss
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.model.network import Decoder
from napari_dinoaugseg.model.wavelet import WTAug

_USUAL = 2  # steps of a kind that go the usual way before one is recorded: libraries choose their kernels in them


class Step:
    """Takes one step after the other.

    Args:
        decoder: in training mode, on its device.
        optimiser: of its parameters.
        settings: of WT-Aug and the loss.
        class_weights: (K,) on the device; None = all classes alike.
    """

    def __init__(
        self, decoder: Decoder, optimiser: torch.optim.Optimizer, settings: Settings, class_weights: Tensor | None
    ) -> None:
        self._decoder, self._optimiser, self._settings = decoder, optimiser, settings
        self._class_weights = class_weights
        self._augment = WTAug(p=settings.augment_probability, drop=settings.augment_drop).train()

    def __call__(self, features: list[Tensor], target: Tensor) -> float:
        """Take a step and return its loss.

        Args:
            features: four maps (B, C, h, w) float32 on the device.
            target: (B, H, W) int64 on the device.
        """
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
            torch.nn.utils.clip_grad_norm_(self._decoder.parameters(), self._settings.clip_gradient)
        self._optimiser.step()
        return loss.detach()


class RecordedStep(Step):
    """A step that the graphics card plays back: one recording with WT-Aug, one without.

    The optimiser is capturable and its rate a tensor on the card: what the schedule puts there, a recording reads.
    Nothing in a step may depend on values that the processor would have to wait for. Where recording fails, for lack
    of memory or on a driver that cannot, steps go on the usual way.
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
        """As of :class:`Step`; every batch has the shape of the first."""
        fires = self._augment.fires()
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                # To read the loss is to wait for all of the step, so that others may read the weights.
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
        # One recording ends before another begins, so they may work in the same memory.
        pool = next((recording.graph.pool() for recording in self._recordings.values()), None)
        try:
            graph = torch.cuda.CUDAGraph()
            # Other threads go on using the card: only what this one does may not disturb the recording.
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                loss = self._compute(inputs, labels, fires)
        except RuntimeError:
            self._fails = True
            return
        self._recordings[fires] = _Recording(graph, inputs, labels, loss)


class _Recording:
    """A recorded step and the memory that it reads from and writes to."""

    def __init__(self, graph: torch.cuda.CUDAGraph, features: list[Tensor], target: Tensor, loss: Tensor) -> None:
        self.graph, self._features, self._target, self._result = graph, features, target, loss

    def play(self, features: list[Tensor], target: Tensor) -> Tensor:
        """Take the step with these inputs; the loss that is returned is overwritten by the next one."""
        for held, stage in zip(self._features, features, strict=True):
            held.copy_(stage)
        self._target.copy_(target)
        self.graph.replay()
        return self._result


def is_recorded(device: torch.device) -> bool:
    """Whether steps on a device are recorded."""
    return device.type == "cuda" and torch.cuda.is_available()


def mixed_precision(device: torch.device, settings: Settings) -> bool:
    """Whether a step goes through the decoder in bfloat16: as the settings say, or where it pays.

    On a processor with instructions for it that halves the time of the paper's decoder. Narrow ones would gain a
    seventh and lose a little in quality.
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
