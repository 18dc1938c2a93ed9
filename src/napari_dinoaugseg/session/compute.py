"""The compute configuration, and the protocol of the engine that a session works with.

A session knows only this protocol. `session.local` makes the engine of this computer, `cluster.compute_for` also one on
a worker of a scheduler; command and panel pass one of the two to the session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.learning.events import Cancel, Event, Prediction, Report
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.labels import UNKNOWN, LabelClass, Labels, classes_of

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


@dataclass(frozen=True)
class LiveState:
    """What live learning works on at a moment.

    Attributes:
        labels: (H, W) labels by slice number, immutable and shared with the label book: an array that is the same
            object as in another state holds the same labels.
        classes: of the labels.
        order: slices whose masks are wanted, the most urgent first.
        kept: slices that are labelled as in the state before, and left out of ``labels``; see :meth:`since`.
    """

    labels: Mapping[int, Labels]
    classes: tuple[LabelClass, ...]
    order: tuple[int, ...]
    kept: frozenset[int] = frozenset()

    @cached_property  # may read every label, and a state may be asked several times
    def is_enough(self) -> bool:
        """Whether a class is labelled and its end: strokes of one class alone would be found everywhere."""
        found: set[int] = set()
        for labels in self.labels.values():
            known = labels[labels != UNKNOWN]
            found |= {int(known.min()), int(known.max())} if known.size else set()
            if len(found) > 1 or (found - {0} and known.size == labels.size):
                return True
        return False

    def since(self, before: LiveState | None) -> LiveState:
        """This state without the labels that another one holds already, to send it to another machine."""
        if before is None:
            return self
        kept = {index for index, labels in self.labels.items() if before.labels.get(index) is labels}
        changed = {index: labels for index, labels in self.labels.items() if index not in kept}
        return replace(self, labels=changed, kept=frozenset(kept))

    def completed(self, before: LiveState | None) -> LiveState:
        """The whole state again, where ``before`` is that which :meth:`since` was called with."""
        if before is None:
            return self
        known = {index: before.labels[index] for index in self.kept}
        return replace(self, labels={**known, **self.labels}, kept=frozenset())

    def without_names(self) -> LiveState:
        """The same state; names of classes stay on this machine."""
        return replace(self, classes=tuple(classes_of(entry.number for entry in self.classes)))


@dataclass(frozen=True)
class Learned:
    """What live learning has learned, to go on from in another case.

    Attributes:
        model: its decoder.
        digests: of the labels that it has learned, see `digest_of`; none while it still learns.
    """

    model: Checkpoint
    digests: frozenset[str]


class LiveFeed:
    """Passes the newest state to live learning in another thread; older ones that wait are dropped."""

    def __init__(self) -> None:
        self._state: LiveState | None = None
        self._beside: tuple[Mapping[int, Labels], tuple[LabelClass, ...]] = ({}, ())
        self._change = threading.Condition()

    def put_beside(self, labels: Mapping[int, Labels], classes: Sequence[LabelClass]) -> None:
        """Add labels to every state: those of other cases, by their slice numbers in the joined cases."""
        self._beside = labels, tuple(classes)

    def put(self, state: LiveState) -> None:
        """Work on this state from now on."""
        with self._change:
            self._state = state
            self._change.notify_all()

    def take(self, seconds: float) -> LiveState | None:
        """The state that was put since the last call; waits for one until the time is over, then None."""
        with self._change:
            self._change.wait_for(lambda: self._state is not None, seconds)
            state, self._state = self._state, None
        if state is None:
            return None
        labels, classes = self._beside
        known = {entry.number: entry for entry in (*classes, *state.classes)}
        return replace(
            state, labels={**labels, **state.labels}, classes=tuple(known[number] for number in sorted(known))
        )


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

    @property
    def descriptors(self) -> Mapping[int, NDArray[np.float32]]:
        """What the slices show that were encoded so far; see `FeatureStore`."""

    def train(
        self,
        labels: dict[int, Labels],
        classes: Sequence[LabelClass],
        settings: Settings,
        cancel: Cancel | None,
        newest: Collection[int] = (),
    ) -> Generator[Event, None, TrainingResult]:
        """Train on labelled slices; continues the present decoder if it has the same classes.

        ``newest``: the slices that it has not learned from, and that are shown as often as all others together.
        """

    def predict(
        self,
        order: Sequence[int],
        labels: dict[int, Labels],
        settings: Settings,
        report: Report,
        cancel: Cancel | None,
    ) -> Iterator[Prediction]:
        """Predict slices in the given order; ``report`` receives progress and notices."""

    def live(
        self,
        feed: LiveFeed,
        settings: Settings,
        report: Report,
        cancel: Cancel,
        *,
        continues: bool,
        digests: Collection[str] = (),
    ) -> Generator[Prediction | None, None, Learned | None]:
        """Learn from the labels in the feed and predict the wanted slices, until it is cancelled.

        It leaves the trained decoder as it is.

        Args:
            feed: of labels and wanted slices.
            settings: of the training.
            report: receives notices, and progress: without steps when it is ready, then after each burst of work.
            cancel: ends it.
            continues: begin with a copy of the trained decoder, if that has the classes of the labels.
            digests: of labels that this decoder has learned: alone they are no reason to learn.

        Yields:
            Predictions; and None after a pause, while there is nothing to do.

        Returns:
            What it has learned; None before its masks are worth a look.
        """

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
