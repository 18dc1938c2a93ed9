"""Two copies of LLVM in one process: Mesa's, which draws napari's window, and Triton's, which PyTorch brings.

Mesa puts its LLVM where every later library finds its symbols, and Triton's initialisers then call into a copy that
does not fit: the process dies with a segmentation fault when timm is imported (TensorFlow's issue 124205 tells of the
same clash with its own LLVM). Loaded with RTLD_DEEPBIND before that, Triton finds its own symbols.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path


def keep_llvm_apart() -> None:
    """Load Triton's library so that it uses its own symbols, in some 40 ms.

    Call it before PyTorch is imported in a process with a window. Does nothing where there is no Triton, no such loader
    (other systems than Linux), or where Triton is loaded already.
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
