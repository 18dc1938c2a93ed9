"""The one way by which PyTorch and what is built on it (timm, torchvision, pytorch_wavelets) enter the process.

Three things have to hold before the first of their native libraries is loaded, whoever asks for it and in whatever
thread, so every import of them inside a function stands in a ``with importing_torch():``.

- **Two copies of LLVM stay apart**: Mesa's, which draws napari's window where there is no graphics card, and Triton's,
  which PyTorch brings. Mesa puts its LLVM where every later library finds its symbols; Triton's initialisers then call
  into a copy that does not fit, and the process dies with a segmentation fault when timm is imported (TensorFlow's
  issue 124205 reports the same clash with its own LLVM). Loaded with RTLD_DEEPBIND before that, Triton finds its own
  symbols.
- **Waiting threads spin only briefly**: OpenMP runtimes read from the environment how long, when they are loaded.
- **One thread imports at a time**: two threads that import parts of PyTorch at the same time may each get the other's
  modules half initialised.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_ONE_AT_A_TIME = threading.RLock()  # what is imported may import lazily itself
_WAIT_POLICY = "OMP_WAIT_POLICY"
_BRIEFLY = {
    "GOMP_SPINCOUNT": "10000",  # GNU's runtime (PyTorch's wheels for Linux): about 0.1 ms
    "KMP_BLOCKTIME": "1",  # Intel's and LLVM's (wheels for Windows and macOS): milliseconds, the shortest but 0
}


@contextmanager
def importing_torch() -> Iterator[None]:
    """Hold this while importing PyTorch or anything that imports it."""
    with _ONE_AT_A_TIME:
        limit_spinning()
        keep_llvm_apart()
        yield


def limit_spinning() -> None:
    """Let PyTorch's threads spin briefly while they wait for each other, then sleep. Must run before PyTorch is loaded.

    A training step is hundreds of short parallel loops: threads that sleep at the end of each cost more than the
    sleep saves (``python -m benchmarks.speed.threads``). Threads that spin as long as the runtimes' own defaults (3 ms
    and 200 ms) take the interface's share of a small machine, and slow training down several times as soon as another
    program wants the cores. With more threads than cores GNU's runtime does not spin at all under PASSIVE.

    What the person has set stays: with ``OMP_WAIT_POLICY`` set nothing is changed, and either of the two durations
    counts where it is set.
    """
    if _WAIT_POLICY not in os.environ:
        os.environ[_WAIT_POLICY] = "PASSIVE"
        for name, value in _BRIEFLY.items():
            os.environ.setdefault(name, value)


@cache
def keep_llvm_apart() -> None:
    """Load Triton's library so that it uses its own symbols, in some 40 ms; once in a process.

    Does nothing where there is no Triton, no such loader (other systems than Linux), or where Triton is loaded already.
    """
    mode = getattr(os, "RTLD_DEEPBIND", None)
    if mode is None or "triton" in sys.modules:
        return
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        return
    for library in (Path(found.origin).parent / "_C").glob("libtriton*.so"):
        try:
            # The dynamic loader gives the same library to Python's own import later.
            ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL | mode)
        except OSError:
            return  # it cannot be loaded at all; PyTorch does without, and says so where it matters
