"""Predictions of a volume that agree with the slices beside them, while slices come one by one in any order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

_WEIGHT = 0.5
"""Of each neighbour, where the slice itself weighs 1."""


class Smoothing:
    """Mixes the class probabilities of a slice with those of its neighbours, in little memory.

    Args:
        order: slice numbers, in the order in which their masks are wanted.
        neighbours: of a slice; none where slices are independent. They are predicted too if no mask of them is wanted.

    Attributes:
        schedule: slice numbers, in the order in which they have to be predicted.
    """

    def __init__(self, order: Sequence[int], neighbours: Callable[[int], Iterable[int]]) -> None:
        self._beside = {i: set(neighbours(i)) - {i} for i in order}
        self.schedule = list(dict.fromkeys(j for i in order for j in (i, *sorted(self._beside[i]))))
        self._waiting = deque(self._beside)
        self._uses = Counter(j for i, beside in self._beside.items() for j in (i, *beside))
        self._probabilities: dict[int, Tensor] = {}

    def add(self, index: int, logits: Tensor) -> None:
        """Take the prediction of a slice, (K, h, w); it is kept on the CPU, where no failing device takes it along."""
        self._probabilities[index] = logits.softmax(dim=0).cpu()

    def ready(self) -> list[int]:
        """The next slices of the order whose neighbours are all predicted."""
        found = []
        for index in self._waiting:
            if not {index, *self._beside[index]} <= self._probabilities.keys():
                break
            found.append(index)
        return found

    def logits(self, index: int) -> Tensor:
        """Logits (K, h, w) of the mixture, of a slice that is ready."""
        mixed = self._probabilities[index].clone()
        for other in self._beside[index]:
            mixed.add_(self._probabilities[other], alpha=_WEIGHT)
        mixed /= 1 + _WEIGHT * len(self._beside[index])
        return mixed.clamp_min_(torch.finfo(mixed.dtype).tiny).log_()

    def let_go(self, index: int) -> None:
        """Forget what was kept for this slice alone: its mask is made. Only in the order of `ready`."""
        self._waiting.remove(index)
        for used in (index, *self._beside[index]):
            self._uses[used] -= 1
            if not self._uses[used]:
                del self._probabilities[used]
