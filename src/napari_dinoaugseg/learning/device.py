"""Where to compute, and what to do when its memory runs out."""

from __future__ import annotations

import gc

import torch

from napari_dinoaugseg.errors import DeviceError


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: the device is unknown to PyTorch or not in this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"There is no device called '{name}'. Use auto, cpu, cuda, cuda:0 … or mps."
        raise DeviceError(msg) from error
    if device.type == "cpu":
        return device
    if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count():
        return device
    if device.type == "mps" and torch.backends.mps.is_available():
        return device
    found = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    msg = f"The device '{name}' is not in this machine, or PyTorch cannot use it. Found: {', '.join(found)}. Use auto."
    raise DeviceError(msg)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory of the device or the host ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def free_memory(device: torch.device) -> None:
    """Give back what PyTorch holds in reserve."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
