"""Few-shot annotation of medical images in napari.

`open_case`, `Session`, `Settings` and `LabelBook` are imported on first use: importing the package loads neither torch
nor napari.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_dinoaugseg.case.opening import open_case
    from napari_dinoaugseg.learning.settings import Settings
    from napari_dinoaugseg.session.labels import LabelBook
    from napari_dinoaugseg.session.session import Session

__all__ = ["LabelBook", "Session", "Settings", "open_case"]
__version__ = "0.2.0"

_HOMES = {
    "LabelBook": "session.labels",
    "Session": "session.session",
    "Settings": "learning.settings",
    "open_case": "case.opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
