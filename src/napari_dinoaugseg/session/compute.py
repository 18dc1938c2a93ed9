"""PyTorch and what is built on it take seconds to import: once, and before a person waits where there is time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.learning.events import Cancel, Event, Prediction
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.labels import LabelClass, Labels

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder
    from napari_dinoaugseg.session.engine import Engine


def engine_class() -> type[Engine]:
    """The engine, with PyTorch."""
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


# Where a session computes: in this process, or on a worker of a scheduler; both can do the same.


Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where to compute, and with what.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        weights: a file with encoder weights; None = the hub's cache, an installed package, or the hub.
        cache: keep features on disk; workers of a scheduler never do.
        scheduler: the address of a scheduler of dask.distributed; None = this process.
    """

    device: str = "auto"
    weights: Path | None = None
    cache: bool = True
    scheduler: str | None = None


@dataclass(frozen=True)
class Learnt:
    """What a training came to.

    Attributes:
        steps: how many were made.
        final_loss: the smoothed loss at its end; None when no step was made.
        seconds: without encoding.
    """

    steps: int
    final_loss: float | None
    seconds: float


class Computing(Protocol):
    """The part of a session that computes. Errors as of `engine.Engine`; of `remote.RemoteEngine` ClusterError too."""

    @property
    def is_ready(self) -> bool:
        """Whether the encoder is loaded."""

    @property
    def encoder_name(self) -> str:
        """The encoder in use, as what it is."""

    @property
    def device_name(self) -> str:
        """Where it computes."""

    @property
    def encoded(self) -> int:
        """How many slices and views passed the encoder so far."""

    @property
    def encode_seconds(self) -> float:
        """The time that took."""

    def train(
        self, labels: dict[int, Labels], classes: Sequence[LabelClass], settings: Settings, cancel: Cancel | None
    ) -> Generator[Event, None, Learnt]:
        """Train on labelled slices; goes on from what was learnt before when it has the same classes."""

    def predict(
        self, order: Sequence[int], labels: dict[int, Labels], settings: Settings, cancel: Cancel | None
    ) -> Iterator[Event | Prediction]:
        """Predict slices beside labelled ones."""

    def checkpoint(self, classes: Sequence[LabelClass], settings: Settings) -> Checkpoint:
        """What was learnt, with all that is needed to use it."""

    def restore(self, checkpoint: Checkpoint, numbers: Sequence[int], source: Path) -> None:
        """Use what was learnt before, with these class numbers; ``source`` is its file, for messages."""

    def forget_decoder(self) -> None:
        """Start the next training anew."""

    def close(self) -> None:
        """Let go of what is held elsewhere."""


def computing(case: Case, settings: Settings, place: Place, *, encoder: Encoder | None, say: Say) -> Computing:
    """What computes for a case at a place. PyTorch is loaded here, not before.

    Args:
        case: whose slices.
        settings: decide encoder, window and input size.
        place: where.
        encoder: one that is loaded already, for use in this process.
        say: gets sentences for the person.

    Raises:
        DeviceError, WeightsError, SettingsError: what it needs cannot be had.
        ClusterError: dask.distributed is not installed.
    """
    if place.scheduler is not None:
        from napari_dinoaugseg.cluster.remote import RemoteEngine

        return RemoteEngine(case, settings, place, say=say)
    return engine_class()(
        case, settings, device=place.device, weights=place.weights, cache=place.cache, encoder=encoder, say=say
    )
