"""The engine of this computer. PyTorch and what is built on it take seconds to import: here, on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.errors import ClusterError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.compute import Compute, ComputeConfig, Notify

if TYPE_CHECKING:
    from napari_dinoaugseg.model.encoder import Encoder
    from napari_dinoaugseg.session.engine import Engine


def engine_class() -> type[Engine]:
    """The class of the engine, with PyTorch imported."""
    with importing_torch():
        from napari_dinoaugseg.session.engine import Engine

        return Engine


def load_libraries(encoder: str) -> None:
    """Import all that the first training needs; reads neither weights nor cases.

    Args:
        encoder: name of the one that will be used.
    """
    engine_class()
    with importing_torch():
        from napari_dinoaugseg.model.specs import trunk_shapes
        from napari_dinoaugseg.model.wtaug import WTAug

        trunk_shapes(encoder)
        WTAug()


def local_engine(
    case: Case, settings: Settings, config: ComputeConfig, *, encoder: Encoder | None, notify: Notify
) -> Compute:
    """The engine of this computer for a case; a :class:`~napari_dinoaugseg.session.compute.MakeCompute`.

    Raises:
        DeviceError, WeightsError, SettingsError: something that it needs is not available.
        ClusterError: the configuration names a scheduler, which `cluster.compute_for` can use and this cannot.
    """
    if config.scheduler is not None:
        msg = f"This session computes on this computer only, not on the workers of {config.scheduler}."
        raise ClusterError(msg)
    return engine_class()(case, settings, config, encoder=encoder, notify=notify)
