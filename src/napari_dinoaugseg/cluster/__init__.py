"""Computing on workers of dask.distributed: a session on one of them, or a cohort on all. Needs the extra `cluster`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import Compute, ComputeConfig, Notify
from napari_dinoaugseg.session.local import local_engine

if TYPE_CHECKING:
    from napari_dinoaugseg.model.encoder import Encoder


def compute_for(
    case: Slices, settings: Settings, config: ComputeConfig, *, encoder: Encoder | None, notify: Notify
) -> Compute:
    """The engine of this computer, or of a worker if the configuration has a scheduler; a `MakeCompute`."""
    if config.scheduler is None:
        return local_engine(case, settings, config, encoder=encoder, notify=notify)
    from napari_dinoaugseg.cluster.remote import RemoteEngine

    return RemoteEngine(case, settings, config, notify=notify)
