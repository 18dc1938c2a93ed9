"""Makes the engine of this computer. PyTorch takes seconds to import, so it is imported here, on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.errors import ClusterError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.compute import Compute, ComputeConfig, Notify

if TYPE_CHECKING:
    from napari_dinoaugseg.model.encoder import Encoder
    from napari_dinoaugseg.session.engine import Engine


def engine_class() -> type[Engine]:
    """The class `Engine`; imports PyTorch."""
    with importing_torch():
        from napari_dinoaugseg.session.engine import Engine

        return Engine


def load_libraries(encoder: str) -> None:
    """Import all that the first training with this encoder needs; reads neither weights nor cases."""
    engine_class()
    with importing_torch():
        from napari_dinoaugseg.model.specs import trunk_shapes
        from napari_dinoaugseg.model.wtaug import WTAug

        trunk_shapes(encoder)
        WTAug()


def local_engine(
    case: Slices, settings: Settings, config: ComputeConfig, *, encoder: Encoder | None, notify: Notify
) -> Compute:
    """The engine of this computer for a case; a :class:`~napari_dinoaugseg.session.compute.MakeCompute`.

    Raises:
        DeviceError, WeightsError, SettingsError: device, weights or window are not usable.
        ClusterError: the configuration names a scheduler, which only `cluster.compute_for` can use.
    """
    if config.scheduler is not None:
        msg = f"This session computes on this computer only, not on the workers of {config.scheduler}."
        raise ClusterError(msg)
    return engine_class()(case, settings, config, encoder=encoder, notify=notify)
