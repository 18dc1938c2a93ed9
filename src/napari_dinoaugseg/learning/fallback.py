"""Devices, and the one ladder by which work continues when memory runs out or a device fails.

Encoding, training and prediction each name their rungs, what can be made smaller; the rest is the same for all three:
first the rungs, then the CPU, then waiting for memory that another program may release. Each step is one notice.
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

# oneDNN, which computes convolutions on a CPU, reports a lack of memory only in the words of the last line.
_HOST_MEMORY = re.compile(
    r"defaultcpuallocator|(can't|cannot) allocate memory|bad.?alloc"
    r"|could not (create|execute) a (primitive|memory object)"
)
_MEMORY = re.compile(_HOST_MEMORY.pattern + r"|out of memory|not enough memory|status_alloc_failed")
_DEVICE = re.compile(
    r"cuda (driver |kernel )?error|device-side assert|launch failure|illegal memory access|cublas|cudnn|cusolver"
    r"|cusparse|cufft|nvrtc|hip error|rocblas|miopen|\bmps"
)

# An error on a device leaves its context unusable until the process ends, so this is a fact about the process.
_failed: set[str] = set()

_WAIT, _WAITS = 1.0, 3  # seconds, and how often to wait for memory


class NoRoomError(TrainingError):
    """Memory ran out although a part of the work was as small as it can be."""


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: the device is unknown to PyTorch, not in this machine, or failed before in this process.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return usable(torch.device("cuda"))
        return usable(torch.device("mps" if torch.backends.mps.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"There is no device called '{name}'. Use auto, cpu, cuda, cuda:0 … or mps."
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
    """The device, or the CPU in its place when it failed before in this process."""
    return CPU if device.type in _failed else device


def give_up(device: torch.device) -> None:
    """Remember that a device failed: nothing in this process uses it again."""
    _failed.add(device.type)


@dataclass(frozen=True)
class Failure:
    """Why a computation stopped. Holds nothing of the exception, and so nothing of what its frames hold.

    Attributes:
        kind: too little memory, or an unresponsive device.
        on_host: whether the memory was the machine's, not that of its graphics card.
        is_smallest: whether a part of the work was already as small as it can be (NoRoomError).
        reason: the first line of the error.
    """

    kind: Literal["memory", "device"]
    on_host: bool
    is_smallest: bool
    reason: str


def classify_error(error: BaseException, device: torch.device = CPU) -> Failure | None:
    """Why a computation on ``device`` stopped; None for an error of neither memory nor a device."""
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
    """Give back what PyTorch holds in reserve."""
    gc.collect()
    if device.type in _failed:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


Rung = Callable[[Failure], str | None]
"""Makes the work smaller and returns how it continues ("2 slices at a time"); None when it cannot, or need not."""


class Fallback:
    """The ladder of one piece of work.

    Args:
        stage: for the sentences: "while encoding", "in training".
        device: where the work runs now.
        rungs: what can be made smaller, in the order in which it is given up.
        use_cpu: moves the work to the CPU; nothing on the old device is touched when that has failed.
        too_large: the sentence of the NoRoomError at the end of the ladder.
        on_cpu: what continues on the CPU, for the sentences.
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
        """Call ``attempt`` until it succeeds, a rung further down each time.

        Raises:
            NoRoomError: there is no further rung, or a part of the work found none.
            DeviceError: a device's failure reaches the CPU as well.
        """
        while True:
            try:
                result = attempt()
            except (RuntimeError, MemoryError) as error:
                failure = self._classify(error)
            else:
                self._waits = 0
                return result
            # Only here the exception is gone, and with it what its frames held.
            notify(self._step_down(failure))

    def stream(self, attempt: Callable[[], Generator[Y, None, T]]) -> Generator[Y | Notice, None, T]:
        """As :meth:`run`, for work that yields. When a part of the work finds no room, the whole is made smaller."""
        while True:
            try:
                # Without a name of its own, the attempt and what it holds are gone when the next one begins.
                return (yield from attempt())
            except (RuntimeError, MemoryError, NoRoomError) as error:
                failure = self._classify(error)
            yield self._step_down(failure)

    def _classify(self, error: Exception) -> Failure:
        """As :func:`classify_error`. Raises the error itself where there is nothing to fall back to."""
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


def fewer_features(let_go: Callable[[], bool]) -> Rung:
    """The rung on which features kept in the machine's memory are released, where it is that memory which is short.

    Args:
        let_go: releases some; False when there are none.
    """

    def rung(failure: Failure) -> str | None:
        wanted = failure.on_host and not failure.is_smallest
        return "with fewer features in memory" if wanted and let_go() else None

    return rung
