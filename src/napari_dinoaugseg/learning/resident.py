"""Features that stay on the graphics card while a training shows them again and again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_dinoaugseg.learning.features import FeatureStore, SliceView
from napari_dinoaugseg.learning.memory import SHARE


class Resident:
    """The batches of a training: what is shown goes to the device once, as long as there is room for it.

    Args:
        store: features of the study.
        device: where the training goes on.
        room: bytes to take on the device; None = a quarter of what is free there, and nothing where the device works
            in the machine's own memory.
    """

    def __init__(self, store: FeatureStore, device: torch.device, room: int | None = None) -> None:
        self._store, self._device = store, device
        self._room = device_budget(device) if room is None else room
        self._held: dict[SliceView, list[Tensor]] = {}

    def batch(self, wanted: Sequence[SliceView]) -> list[Tensor]:
        """The maps of several slices stacked, (B, C, h, w) float32 on the device."""
        every = [self._held.get(pair) or self._bring(pair) for pair in wanted]
        return [torch.stack(stage).float() for stage in zip(*every, strict=True)]

    def _bring(self, pair: SliceView) -> list[Tensor]:
        maps = [stage.to(self._device) for stage in self._store.features(*pair)]
        size = sum(stage.nbytes for stage in maps)
        if size <= self._room:
            self._held[pair] = maps
            self._room -= size
        return maps


def device_budget(device: torch.device) -> int:
    """Bytes of features that a training may keep on a device; 0 where it works in the machine's own memory."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) // SHARE
