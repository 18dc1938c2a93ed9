"""Reproducible randomness beside other code that draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomStream:
    """A random state of PyTorch's own for one piece of work.

    What others draw meanwhile changes nothing here, and what is drawn here changes nothing for them.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=self._devices):
            # Not torch.manual_seed, which asks every device, also one that failed.
            torch.default_generator.manual_seed(seed)
            for device in self._devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            self._state = self._get()

    @contextmanager
    def use(self) -> Iterator[None]:
        """PyTorch draws from this stream inside the block."""
        with torch.random.fork_rng(devices=self._devices):
            torch.set_rng_state(self._state[0])
            for device, value in zip(self._devices, self._state[1:], strict=True):
                torch.cuda.set_rng_state(value, device)
            yield
            self._state = self._get()

    def _get(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]
