"""PyTorch and what is built on it take seconds to import: once, and before a person waits where there is time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.native import importing_torch

if TYPE_CHECKING:
    from napari_dinoaugseg.session.engine import Engine


def engine_class() -> type[Engine]:
    """The engine, with PyTorch."""
    with importing_torch():
        from napari_dinoaugseg.session.engine import Engine

        return Engine


def load_libraries(encoder: str) -> None:
    """Import all that the first training needs; reads neither weights nor studies.

    Args:
        encoder: name of the one that will be used.
    """
    engine_class()
    with importing_torch():
        from napari_dinoaugseg.model.specs import trunk_shapes
        from napari_dinoaugseg.model.wavelet import WTAug

        trunk_shapes(encoder)
        WTAug()
