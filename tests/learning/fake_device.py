"""A graphics card that is not there, and memory that runs out at a chosen moment.

Tensors "on the card" are of a class of their own whose values lie on the CPU. While :class:`FakeCard` is active, moving
to "mps" makes such tensors and moving to "cpu" plain ones. From a chosen operation on the card on, every further one
fails, whichever it is, as after an error on a real card; so a test can see that no tensor of the card is touched again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CARD = torch.device("mps")  # a device type that PyTorch knows, and of which it asks little


class OnCard(torch.Tensor):
    """A tensor on the card."""

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = self.detach().clone().as_subclass(OnCard)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied


# Asked of tensors all the time, and answered by the host without the card.
_FREE = {"__get__", "__set__", "size", "dim", "is_floating_point", "is_complex", "numel", "stride", "storage_offset"}
_FREE |= {"__len__", "requires_grad_", "data_ptr", "is_contiguous", "nelement", "get_device", "__repr__", "_parse_to"}


class Failing(TorchFunctionMode):
    """While the block runs, some of PyTorch's operations fail.

    Args:
        error: what they fail with.
        at: number of the first operation that fails, from 1; None = none, operations are only counted.
        times: how many fail in a row; None = all from then on.
    """

    def __init__(self, error: Exception | None = None, at: int | None = None, times: int | None = 1) -> None:
        super().__init__()
        self.error, self.at, self.times = error, at, times
        self.operations = self.failures = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") not in _FREE and _tensors(args, kwargs):
            self.count()
        return function(*args, **(kwargs or {}))

    def count(self) -> None:
        self.operations += 1
        if self.at is None or self.operations < self.at:
            return
        if self.times is None or self.failures < self.times:
            self.failures += 1
            raise self.error


class FakeCard(Failing):
    """The card, while the block runs; only what is done on it is counted, and fails."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if name == "_parse_to":  # Module.to reads its arguments
            return function(*args, **kwargs)
        on_card = any(isinstance(value, OnCard) for value in _tensors(args, kwargs))
        if on_card and function == torch.Tensor.device.__get__:
            return CARD
        target = _target(name, args, kwargs)
        if (on_card or target == "card") and name not in _FREE:
            self.count()
        if name != "__deepcopy__":
            args, kwargs = tree_map(_plain_device, args), tree_map(_plain_device, kwargs)
        result = function(*args, **kwargs)
        if target is None:
            return result
        return tree_map(_to_card if target == "card" else _to_host, result)


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    if len(args) == 2 and isinstance(args[1], dict):  # deepcopy and its memory of everything copied before
        args = args[:1]
    return [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]


def _target(name: str, args: Any, kwargs: Any) -> str | None:
    """Whether something is moved or made: to the "card", to the "host", or neither."""
    if name in ("cpu", "numpy", "item", "tolist", "__float__", "__int__", "__bool__"):
        return "host"
    for value in (*args, *kwargs.values()):
        kind = value.type if isinstance(value, torch.device) else value
        if isinstance(kind, str) and kind == CARD.type:
            return "card"
        if isinstance(kind, str) and kind == "cpu" and name == "to":
            return "host"
    return None


def _plain_device(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == CARD.type else value


def _to_card(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad).as_subclass(OnCard)


def _to_host(value: Any) -> Any:
    return value.as_subclass(torch.Tensor).clone() if isinstance(value, OnCard) else value
