"""(g) The floor: what the arithmetic and the memory of this machine take at the least, and how far we are from it.

Arithmetic is counted operation by operation and divided by what the machine reaches in a large matrix product of the
same type of numbers. Bytes are those that the operations write, each written and read once, divided by what the machine
reaches in a copy. The larger of both times is the floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.alone import Figures, alone
from benchmarks.speed.made import encoder_for_time, store_for
from benchmarks.speed.plain import as_written_first
from napari_dinoaugseg.case import case_from_array
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Step, mixed_precision, new_decoder

_PROCESSOR = torch.device("cpu")
_LITE, _TINY = "efficientnet-lite0", "dinov3-convnext-tiny"
_WORK = (
    ("encode", "", _LITE, 256, 1),
    ("train", "fast", _LITE, 256, 3),
    ("train", "balanced", _LITE, 256, 4),
    ("train", "paper", _TINY, 768, 1),
    ("predict", "fast", _LITE, 256, 1),
    ("predict", "balanced", _LITE, 256, 1),
)


def measure() -> list[Figures]:
    """A row for each kind of work."""
    return [
        {"what": " ".join(filter(None, (kind, preset, f"{size} x {size}, batch {batch}, {encoder}")))}
        | alone(distance, kind, preset, encoder, size, batch)
        for kind, preset, encoder, size, batch in _WORK
    ]


def distance(kind: str, preset: str, encoder: str, size: int, batch: int) -> Figures:
    """The floor of one piece of work and what it takes."""
    changes = {"input_size": size, "batch_size": batch, "augment_probability": 1.0, "precision": "auto"}
    settings = Settings.of_preset(preset or "paper", **changes)
    narrow = kind == "train" and mixed_precision(_PROCESSOR, settings)
    numbers = torch.bfloat16 if narrow else torch.float32
    work = _work(kind, settings, encoder)
    work()
    with FlopCounterMode(display=False) as flops, as_written_first():
        work()
    with _Written() as written:
        work()
    arithmetic = flops.get_total_flops() / _flops_per_second(numbers)
    memory = 2 * written.bytes / _bytes_per_second()
    taken = _seconds(work)
    floor = max(arithmetic, memory)
    return {
        "numbers": str(numbers).removeprefix("torch."),
        "gflop": round(flops.get_total_flops() / 1e9, 2),
        "written_mb": round(written.bytes / 1e6, 1),
        "arithmetic_ms": round(1000 * arithmetic, 2),
        "memory_ms": round(1000 * memory, 2),
        "taken_ms": round(1000 * taken, 2),
        "times_the_floor": round(taken / floor, 1),
    }


def _work(kind: str, settings: Settings, encoder: str) -> Callable[[], Any]:
    trunk, size, batch = encoder_for_time(encoder), settings.input_size, settings.batch_size
    if kind == "encode":
        case = case_from_array(np.random.default_rng(0).normal(size=(1, size, size)).astype(np.float32))
        image = store_for(case, trunk, size, context=0).image(0)[None]
        return lambda: trunk.encode(image)
    decoder = new_decoder(trunk.channels, 2, settings)
    sides = [size // stride for stride in trunk.strides]
    features = [torch.randn(batch, c, side, side) for c, side in zip(trunk.channels, sides, strict=True)]
    if kind == "predict":
        return torch.inference_mode()(lambda: decoder.eval()(features))
    target = torch.randint(0, 2, (batch, size, size))
    step = Step(decoder, torch.optim.AdamW(decoder.parameters(), lr=1e-3, fused=True), settings, None)
    return lambda: step(features, target)


class _Written(TorchDispatchMode):
    """Counts the bytes of what operations make; views of what is there cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for result, declared in zip(
            results if isinstance(results, tuple | list) else (results,), function._schema.returns, strict=False
        ):
            if isinstance(result, Tensor) and declared.alias_info is None:
                self.bytes += result.nbytes
        return results


def _flops_per_second(numbers: torch.dtype, side: int = 2048) -> float:
    matrix = torch.randn(side, side, dtype=numbers)
    return 2 * side**3 / _seconds(lambda: matrix @ matrix)


def _bytes_per_second(size: int = 2**28) -> float:
    source, target = torch.ones(size // 4), torch.empty(size // 4)
    return 2 * size / _seconds(lambda: target.copy_(source))


def _seconds(work: Callable[[], Any], repeats: int = 7) -> float:
    work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
