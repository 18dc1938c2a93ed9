"""Imports of PyTorch and packages on top of it (timm, torchvision, pytorch_wavelets), in ``with importing_torch():``.

Four conditions must hold before the first of their native libraries is loaded, in whatever thread:

- **Two copies of LLVM stay apart**: Mesa's, which draws napari's window on a machine without a GPU, and Triton's, which
  comes with PyTorch. Mesa loads its LLVM with global symbols; Triton's initialisers then call into the wrong copy, and
  the import of timm ends in a segmentation fault (TensorFlow's issue 124205 reports the same clash with its own LLVM).
  Loaded earlier with RTLD_DEEPBIND, Triton finds its own symbols.
- **Waiting threads spin only briefly**: OpenMP runtimes read the duration from the environment when they are loaded.
- **One thread imports at a time**: two threads that import parts of PyTorch at the same time may see modules of the
  other half initialised.
- **Other threads go on**: Python holds its lock while it loads an extension with all the libraries below it. Those of
  PyTorch take half a second, in which the window stood still, so that they are loaded before, without the lock.

Python does not look for garbage meanwhile: it did so six times in an import and once after it, for up to 0.3 s each,
in which the window stood still, and what an import makes stays.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_ONE_AT_A_TIME = threading.RLock()  # imports may nest
_MANY = 100  # modules, whose import is worth it
_RARELY = 100  # how many of Python's shorter searches for garbage go before a search among all objects, else 10
_WAIT_POLICY = "OMP_WAIT_POLICY"
_BRIEFLY = {
    "GOMP_SPINCOUNT": "10000",  # GNU's runtime (PyTorch's wheels for Linux): about 0.1 ms
    "KMP_BLOCKTIME": "1",  # Intel's and LLVM's (wheels for Windows and macOS): milliseconds
}


@contextmanager
def importing_torch() -> Iterator[None]:
    """Import PyTorch, or anything that imports it, inside this block."""
    with _ONE_AT_A_TIME:
        limit_spinning()
        keep_llvm_apart()
        load_beside_others()
        collects = gc.isenabled()  # not in a block inside another one, nor where the person has switched it off
        modules = len(sys.modules)
        gc.disable()
        try:
            yield
        finally:
            if len(sys.modules) > modules + _MANY:
                collect_rarely()
            if collects:
                gc.enable()


def collect_rarely() -> None:
    """Let Python look at all objects for garbage a tenth as often, and take those that exist by now for old.

    A look takes 0.2 s with napari loaded, and half a second with PyTorch, in which all threads wait, and finds next to
    nothing.
    """
    if gc.get_freeze_count() == 0:
        gc.freeze()  # both together make everything old without a look at it
        gc.unfreeze()
    few, several, many = gc.get_threshold()
    gc.set_threshold(few, several, max(many, _RARELY) if many else 0)


def limit_spinning() -> None:
    """Let PyTorch's waiting threads spin briefly, then sleep. Must run before PyTorch is loaded.

    A training step is hundreds of short parallel loops: threads that sleep after each cost more than they save
    (``python -m benchmarks.speed.threads``). Threads that spin as long as by default (3 ms and 200 ms) starve the
    interface on a small machine, and slow training down several times when another program uses the cores. With more
    threads than cores GNU's runtime does not spin at all under PASSIVE.

    Variables that the person has set are not changed; with ``OMP_WAIT_POLICY`` set, none is.
    """
    if _WAIT_POLICY not in os.environ:
        os.environ[_WAIT_POLICY] = "PASSIVE"
        for name, value in _BRIEFLY.items():
            os.environ.setdefault(name, value)


@cache
def keep_llvm_apart() -> None:
    """Load Triton's library so that it uses its own symbols; takes 40 ms, once in a process.

    No-op without Triton, without RTLD_DEEPBIND (not Linux), or if Triton is already loaded.
    """
    mode = getattr(os, "RTLD_DEEPBIND", None)
    if mode is None or "triton" in sys.modules:
        return
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        return
    for library in (Path(found.origin).parent / "_C").glob("libtriton*.so"):
        # Python's own import later gets the same library from the dynamic loader.
        _load(library, os.RTLD_NOW | os.RTLD_LOCAL | mode)


@cache
def load_beside_others() -> None:
    """Load the libraries of PyTorch's extension without Python's lock, when it is imported.

    No-op on Windows, where PyTorch does so by itself, and once PyTorch is imported.
    """
    if os.name == "posix" and "torch" not in sys.modules:
        sys.meta_path.insert(0, _Libraries())


class _Libraries(MetaPathFinder):
    """Finds no module, but loads the libraries of PyTorch's extension when Python looks for that.

    Not sooner: by then PyTorch has loaded what has to come before them.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torch._C":
            suffix = "dylib" if sys.platform == "darwin" else "so"
            for folder in path or ():
                _load(Path(folder) / "lib" / f"libtorch_python.{suffix}", os.RTLD_NOW | os.RTLD_LOCAL)
        return None


def _load(library: Path, mode: int) -> None:
    """Load a native library, if it can be; Python's own import, which follows, says why it cannot.

    By a call of a function, for which Python releases its lock; ``ctypes.CDLL`` holds it.
    """
    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    load(os.fsencode(library), mode)
