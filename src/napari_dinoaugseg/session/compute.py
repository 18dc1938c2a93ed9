"""The compute configuration, and the protocol of the engine that a session works with.

A session knows only this protocol. `session.local` makes the engine of this computer, `cluster.compute_for` also one on
a worker of a scheduler; command and panel pass one of the two to the session.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.learning.events import Cancel, Event, Prediction, Report
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.labels import LabelClass, Labels

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder

Notify = Callable[[str], None]
"""Receives a sentence for the person."""


@dataclass(frozen=True)
class ComputeConfig:
    """Where to compute, and with which files.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        weights: a file with encoder weights; None = the hub's cache, an installed package, or the hub.
        cache: keep features on disk for the next session; workers of a scheduler never do.
        scheduler: address of a dask.distributed scheduler whose worker computes; None = this process.
    """

    device: str = "auto"
    weights: Path | None = None
    cache: bool = True
    scheduler: str | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        steps: optimisation steps.
        final_loss: the smoothed loss at the end; None without a step.
        seconds: without encoding.
    """

    steps: int
    final_loss: float | None
    seconds: float


class Compute(Protocol):
    """Encoder, features and decoder of one case.

    Implementations raise DeviceError, WeightsError and SettingsError if device, weights or window are not usable;
    `cluster.remote.RemoteEngine` also raises ClusterError.
    """

    @property
    def is_ready(self) -> bool:
        """Whether the encoder is loaded."""

    @property
    def encoder(self) -> Encoder | None:
        """The loaded encoder, for the engines of other cases; None on another machine."""

    @property
    def encoder_name(self) -> str:
        """The encoder in use, never ``auto``."""

    @property
    def device_name(self) -> str:
        """The device in use, for example ``cpu`` or ``cuda``."""

    @property
    def encoded(self) -> int:
        """How many slices and views were encoded so far."""

    @property
    def encode_seconds(self) -> float:
        """Seconds of encoding so far."""

    def train(
        self, labels: dict[int, Labels], classes: Sequence[LabelClass], settings: Settings, cancel: Cancel | None
    ) -> Generator[Event, None, TrainingResult]:
        """Train on labelled slices; continues the present decoder if it has the same classes."""

    def predict(
        self,
        order: Sequence[int],
        labels: dict[int, Labels],
        settings: Settings,
        report: Report,
        cancel: Cancel | None,
    ) -> Iterator[Prediction]:
        """Predict slices in the given order; ``report`` receives progress and notices."""

    def checkpoint(self, classes: Sequence[LabelClass], settings: Settings) -> Checkpoint:
        """The trained decoder with all that is needed to use it."""

    def restore(self, checkpoint: Checkpoint, numbers: Sequence[int], source: Path) -> None:
        """Use a saved decoder with these class numbers; ``source`` is its file, for messages."""

    def forget_decoder(self) -> None:
        """Start the next training from scratch."""

    def close(self) -> None:
        """Release other machines."""


class MakeCompute(Protocol):
    """Makes the engine of a case; PyTorch is imported here, not before."""

    def __call__(
        self, case: Slices, settings: Settings, config: ComputeConfig, *, encoder: Encoder | None, notify: Notify
    ) -> Compute:
        """Make the engine.

        Args:
            case: its slices are encoded.
            settings: determine encoder, window and input size.
            config: where to compute, and with which files.
            encoder: a loaded encoder, for use in this process.
            notify: receives sentences for the person.

        Raises:
            DeviceError, WeightsError, SettingsError: device, weights or window are not usable.
            ClusterError: dask.distributed is not installed.
        """
