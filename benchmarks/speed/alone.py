"""Runs a measurement in a process of its own, so that memory and warm caches of one do not count for the next."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import psutil
import torch

Figures = dict[str, Any]


def alone(measure: Callable[..., Figures], *arguments: Any) -> Figures:
    """What a function of a module returns in a fresh process, and ``peak_gb``: the most memory that it held there.

    Where it used a graphics card, ``peak_card_gb`` is the most that PyTorch held on that.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, measure, arguments).result()


def _measured(measure: Callable[..., Figures], arguments: tuple[Any, ...]) -> Figures:
    figures = measure(*arguments)
    on_card = {"peak_card_gb": round(torch.cuda.max_memory_allocated() / 1e9, 3)} if torch.cuda.is_initialized() else {}
    return {**figures, "peak_gb": round(peak_bytes() / 1e9, 3), **on_card}


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
