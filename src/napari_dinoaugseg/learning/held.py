"""What was learnt so far, on the host: nothing that happens to a device takes it away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from napari_dinoaugseg.model.network import Decoder


@dataclass(frozen=True)
class Trained:
    """A trained decoder and how it came about.

    Attributes:
        decoder: in evaluation mode, on the CPU: whatever happens to a device later, it is not lost.
        input_size: the input size it was trained at; smaller than asked for when memory ran out.
        device: where it was trained in the end; the CPU when the device failed or was too small.
        steps: optimisation steps done; fewer than asked for when the training was stopped.
        final_loss: smoothed training loss at the end; None when no step was done.
        seconds: of the optimisation alone, without the encoding.
    """

    decoder: Decoder
    input_size: int
    device: torch.device
    steps: int
    final_loss: float | None
    seconds: float


@dataclass(frozen=True)
class Held:
    """What was learnt up to a step.

    Attributes:
        arguments: of the decoder.
        weights: of the decoder, by name.
        averaged: state of their moving average; None without one.
        input_size: at which it was learnt.
        steps: done so far.
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
        """The decoder as it was, to be trained on."""
        return with_weights(self.arguments, on_host(self.weights))

    def trained(self, device: torch.device) -> Trained:
        """As the result of a training that ended on ``device``."""
        best = self.weights
        if self.averaged is not None:
            best = {name.removeprefix("module."): v for name, v in self.averaged.items() if name.startswith("module.")}
        decoder = with_weights(self.arguments, best).eval()
        return Trained(decoder, self.input_size, device, self.steps, self.loss, self.seconds)


def with_weights(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> Decoder:
    """A decoder that takes these weights as they are, drawing no random numbers for its own."""
    with torch.device("meta"):
        decoder = Decoder(**arguments)
    decoder.load_state_dict(state, strict=True, assign=True)
    return decoder


def on_host(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, also of what is there already."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
