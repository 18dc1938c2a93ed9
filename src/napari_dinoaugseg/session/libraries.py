"""PyTorch and what is built on it take seconds to import: once, and before a person waits where there is time.

Two threads that import parts of PyTorch at the same time may each get the other's modules half made: so one at a time.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_dinoaugseg.session.engine import Engine

_ONE_AT_A_TIME = threading.Lock()


def let_threads_sleep() -> None:
    """Have PyTorch's threads sleep while they wait, if it is not loaded yet and nobody said otherwise.

    Spinning, they take the interface's share of a small machine, and slow training down several times as soon as
    another program wants the cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def engine_class() -> type[Engine]:
    """The engine, with PyTorch."""
    let_threads_sleep()
    with _ONE_AT_A_TIME:
        from napari_dinoaugseg.session.engine import Engine

        return Engine


def load_libraries(encoder: str) -> None:
    """Import all that the first training needs; reads neither weights nor studies.

    Args:
        encoder: name of the one that will be used.
    """
    engine_class()
    with _ONE_AT_A_TIME:
        from napari_dinoaugseg.model.specs import trunk_shapes
        from napari_dinoaugseg.model.wavelet import WTAug

        trunk_shapes(encoder)
        WTAug()
