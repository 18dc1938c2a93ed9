"""Where to compute, and what to do when its memory runs out or it fails."""

from __future__ import annotations

import gc
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from napari_dinoaugseg.errors import DeviceError, TrainingError
from napari_dinoaugseg.learning.events import Notice

if TYPE_CHECKING:
    from napari_dinoaugseg.learning.features import FeatureStore


CPU = torch.device("cpu")

Trouble = Literal["memory", "device"]
"""What keeps a computation from going on where it is: too little memory, or a device that answers no more."""

# oneDNN, which computes convolutions on a CPU, has no other words for a lack of memory than those of its last line.
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


_WAIT, _WAITS = 1.0, 3  # seconds, and how often


class Patience:
    """Waiting for memory when nothing smaller is left to try: another program may give some back."""

    def __init__(self) -> None:
        self._waits = 0

    def once_more(self) -> bool:
        """Wait a moment; False when that was done often enough."""
        if self._waits == _WAITS:
            return False
        self._waits += 1
        time.sleep(_WAIT)
        return True

    def renew(self) -> None:
        """Things go on: be ready to wait again."""
        self._waits = 0


class NoRoomError(TrainingError):
    """Memory ran out at the smallest that a part of the work can be made."""


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


def trouble_of(error: BaseException) -> Trouble | None:
    """What an exception says about where it was computed; None when it tells of something else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "memory"
    if not isinstance(error, RuntimeError):
        return None
    text = str(error).lower()
    if _MEMORY.search(text):
        return "memory"
    return "device" if _DEVICE.search(text) else None


def is_hosts(error: BaseException, device: torch.device) -> bool:
    """Whether memory that ran out while computing on ``device`` was the machine's, not that of its graphics card."""
    return device.type == "cpu" or isinstance(error, MemoryError) or bool(_HOST_MEMORY.search(str(error).lower()))


class Diagnosis(NamedTuple):
    """What stopped a computation; holds nothing of the exception, and so nothing of what its frames hold.

    Attributes:
        trouble: with memory, or with the device.
        hosts: whether memory that ran out was the machine's.
        why: the first line of the error.
    """

    trouble: Trouble
    hosts: bool
    why: str


def diagnose(error: Exception, device: torch.device) -> Diagnosis:
    """What stopped a computation on ``device``, when it can go on with less or elsewhere.

    Raises:
        the error itself: it tells neither of memory nor of a device.
        DeviceError: a device's failure reaches the CPU as well.
    """
    trouble = trouble_of(error)
    if trouble is None:
        raise error
    if trouble == "device" and device.type == "cpu":
        raise cpu_failed(error) from error
    return Diagnosis(trouble, is_hosts(error, device), reason(error))


def reason(error: BaseException) -> str:
    """The first line of an error, for a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def cpu_failed(error: BaseException) -> DeviceError:
    """What to tell when a device's error comes while the CPU computes: PyTorch answers nothing else in this process."""
    return DeviceError(
        f"A device failed ({reason(error)}), and the CPU cannot go on in this program either. "
        "Save your work, start the program again, and choose the device cpu."
    )


def free_memory(device: torch.device) -> None:
    """Give back what PyTorch holds in reserve."""
    gc.collect()
    if device.type in _failed:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


# What a training makes of the machine, and what it gives up when memory runs out or a device fails.


_SMALLEST_INPUT = 128


@dataclass(frozen=True)
class Plan:
    """What fits into memory.

    Attributes:
        batch_size: slices a step.
        input_size: side of the square that a slice is resized to.
        device: where the decoder is.
        patience: of this training.
    """

    batch_size: int
    input_size: int
    device: torch.device
    patience: Patience = field(default_factory=Patience, compare=False)

    def after(self, error: Exception, store: FeatureStore) -> tuple[Plan, Notice]:
        """The next rung of the ladder: half the batch, fewer features in memory, half the input, the CPU, waiting.

        Args:
            error: what stopped the work.
            store: lets go of features, or of its device.

        Raises:
            the error itself: it tells neither of memory nor of a device.
            NoRoomError: there is no further rung.
            DeviceError: the device's failure reaches the CPU as well.
        """
        if isinstance(error, NoRoomError):  # a single slice could not be encoded: a smaller batch is no help
            return self._smaller_input(error)
        found = diagnose(error, self.device)
        if found.trouble == "device":
            return self._without_device(found.why, store)
        if self.batch_size > 1:
            plan = replace(self, batch_size=self.batch_size // 2)
            return plan, Notice(f"Memory ran out in training; going on with {plan.batch_size} slices a step.")
        if found.hosts and store.let_go():
            return self, Notice("Memory ran out in training; going on with fewer features in memory.")
        return self._smaller_input(error)

    def _smaller_input(self, error: Exception) -> tuple[Plan, Notice]:
        if self.input_size > _SMALLEST_INPUT:
            size = max(_SMALLEST_INPUT, self.input_size // 2 // 32 * 32)
            return replace(self, input_size=size), Notice(
                f"Memory ran out in training; going on at {size} x {size} pixels."
            )
        if self.device.type != "cpu":
            return replace(self, device=CPU), Notice("Memory ran out in training; going on with the CPU.")
        if not isinstance(error, NoRoomError) and self.patience.once_more():
            return self, Notice("Memory ran out in training; trying once more.")
        msg = "There is not enough memory to train even at the smallest size. Close other programs and try again."
        raise NoRoomError(msg) from error

    def _without_device(self, why: str, store: FeatureStore) -> tuple[Plan, Notice]:
        give_up(self.device)
        store.leave_device()
        return replace(self, device=CPU), Notice(f"The device '{self.device}' failed ({why}); going on with the CPU.")
