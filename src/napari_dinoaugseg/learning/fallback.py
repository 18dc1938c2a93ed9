"""Devices, and the one ladder of fallbacks when memory runs out or a device fails.

Encoding, training and prediction each define their rungs: the ways to need less memory. The rest is the same for all:
the rungs in turn, then the CPU, then waiting for memory that another program may release. Each step gives one notice.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from napari_dinoaugseg.errors import DeviceError, TrainingError
from napari_dinoaugseg.learning.events import Notice

T = TypeVar("T")
Y = TypeVar("Y")
CPU = torch.device("cpu")

# The last line is how oneDNN, which computes convolutions on a CPU, reports a lack of memory.
_HOST_MEMORY = re.compile(
    r"defaultcpuallocator|(can't|cannot) allocate memory|bad.?alloc"
    r"|could not (create|execute) a (primitive|memory object)"
)
_MEMORY = re.compile(_HOST_MEMORY.pattern + r"|out of memory|not enough memory|status_alloc_failed")
_DEVICE = re.compile(
    r"cuda (driver |kernel )?error|device-side assert|launch failure|illegal memory access|cublas|cudnn|cusolver"
    r"|cusparse|cufft|nvrtc|hip error|rocblas|miopen|\bmps"
)

# A failed device stays unusable until the process ends, so this is state of the process.
_failed: set[str] = set()

_WAIT, _WAITS = 1.0, 3  # seconds to wait for memory, and how often


class NoRoomError(TrainingError):
    """Memory ran out although the work was as small as possible."""


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: the device is unknown, not in this machine, or failed before in this process.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return usable(torch.device("cuda"))
        return usable(torch.device("mps" if torch.backends.mps.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"Unknown device '{name}'. Use auto, cpu, cuda, cuda:0 … or mps."
        raise DeviceError(msg) from error
    if device.type in _failed:
        msg = f"The device '{name}' failed before. Use cpu, or start the program again to use the device."
        raise DeviceError(msg)
    if device.type == "cpu":
        return device
    if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count():
        return device
    if device.type == "mps" and torch.backends.mps.is_available():
        return device
    found = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    msg = f"The device '{name}' is not in this machine, or PyTorch cannot use it. Found: {', '.join(found)}. Use auto."
    raise DeviceError(msg)


def usable(device: torch.device) -> torch.device:
    """The device, or the CPU if the device failed before in this process."""
    return CPU if device.type in _failed else device


def give_up(device: torch.device) -> None:
    """Record that a device failed: this process does not use it again."""
    _failed.add(device.type)


@dataclass(frozen=True)
class Failure:
    """Why a computation stopped. It does not reference the exception, whose frames hold memory.

    Attributes:
        kind: too little memory, or a failed device.
        on_host: whether the memory was the machine's, not that of its GPU.
        is_smallest: whether the work was already as small as possible (NoRoomError).
        reason: the first line of the error.
    """

    kind: Literal["memory", "device"]
    on_host: bool
    is_smallest: bool
    reason: str


def classify_error(error: BaseException, device: torch.device = CPU) -> Failure | None:
    """Classify an error of a computation on ``device``; None if neither memory nor the device is the cause."""
    text = str(error).lower()
    is_smallest = isinstance(error, NoRoomError)
    kind: Literal["memory", "device"]
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or is_smallest:
        kind = "memory"
    elif not isinstance(error, RuntimeError):
        return None
    elif _MEMORY.search(text):
        kind = "memory"
    elif _DEVICE.search(text):
        kind = "device"
    else:
        return None
    on_host = device.type == "cpu" or isinstance(error, MemoryError) or bool(_HOST_MEMORY.search(text))
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Failure(kind, on_host, is_smallest, reason)


def free_memory(device: torch.device) -> None:
    """Release the memory that PyTorch caches."""
    gc.collect()
    if device.type in _failed:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


Rung = Callable[[Failure], str | None]
"""Reduces the memory of the work and returns how it continues ("2 slices at a time"); None if it cannot or need not."""


class Fallback:
    """The ladder of one piece of work.

    Args:
        stage: for the notices: "while encoding", "in training".
        device: returns the present device.
        rungs: in the order in which they are tried.
        use_cpu: moves the work to the CPU, without touching a failed device.
        too_large: the message of the NoRoomError at the end of the ladder.
        on_cpu: what continues on the CPU, for the notices.
    """

    def __init__(
        self,
        stage: str,
        device: Callable[[], torch.device],
        rungs: Sequence[Rung],
        use_cpu: Callable[[], None],
        too_large: Callable[[], str],
        on_cpu: str = "the CPU",
    ) -> None:
        self._stage, self._device, self._rungs = stage, device, rungs
        self._use_cpu, self._too_large, self._on_cpu = use_cpu, too_large, on_cpu
        self._waits = 0

    def run(self, attempt: Callable[[], T], notify: Callable[[Notice], None]) -> T:
        """Call ``attempt`` until it succeeds, one rung further down each time.

        Raises:
            NoRoomError: no rung is left, or none was left for a part of the work.
            DeviceError: the device's failure also affects the CPU.
        """
        while True:
            try:
                result = attempt()
            except (RuntimeError, MemoryError) as error:
                failure = self._classify(error)
            else:
                self._waits = 0
                return result
            # Only here is the exception released, and the memory of its frames.
            notify(self._step_down(failure))

    def stream(self, attempt: Callable[[], Generator[Y, None, T]]) -> Generator[Y | Notice, None, T]:
        """As :meth:`run`, for a generator. If a part of the work raises NoRoomError, the whole is reduced."""
        while True:
            try:
                # Not bound to a name, the attempt and its memory are released before the next one starts.
                return (yield from attempt())
            except (RuntimeError, MemoryError, NoRoomError) as error:
                failure = self._classify(error)
            yield self._step_down(failure)

    def _classify(self, error: Exception) -> Failure:
        """As :func:`classify_error`. Raises the error if no fallback applies."""
        failure = classify_error(error, self._device())
        if failure is None:
            raise error
        if failure.kind == "device" and self._device().type == "cpu":
            msg = (
                f"A device failed ({failure.reason}), and the CPU cannot go on in this program either. "
                "Save your work, start the program again, and choose the device cpu."
            )
            raise DeviceError(msg) from error
        return failure

    def _step_down(self, failure: Failure) -> Notice:
        device = self._device()
        if failure.kind == "device":
            give_up(device)
            self._use_cpu()
            free_memory(device)
            return Notice(f"The device '{device}' failed ({failure.reason}); going on with {self._on_cpu}.")
        free_memory(device)
        for rung in self._rungs:
            smaller = rung(failure)
            if smaller is not None:
                return Notice(f"Memory ran out {self._stage}; going on {smaller}.")
        if device.type != "cpu":
            self._use_cpu()
            free_memory(device)
            return Notice(f"Memory ran out {self._stage}; going on with {self._on_cpu}.")
        if failure.is_smallest or self._waits == _WAITS:
            raise NoRoomError(self._too_large())
        self._waits += 1
        time.sleep(_WAIT)
        return Notice(f"Memory ran out {self._stage}; trying once more.")


def fewer_features(release: Callable[[], bool]) -> Rung:
    """A rung that releases features in the machine's memory, if that is short.

    Args:
        release: releases some features; False if there are none.
    """

    def rung(failure: Failure) -> str | None:
        wanted = failure.on_host and not failure.is_smallest
        return "with fewer features in memory" if wanted and release() else None

    return rung
