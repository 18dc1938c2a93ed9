"""The computing part of a session on a worker of a scheduler: it does what `Engine` does, elsewhere.

Only pixels, labels and settings travel there, masks, events and what was learnt travel back. The worker uses weights of
its own. A worker or a scheduler that is lost ends in an error; what was learnt before is still here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import (
    CheckpointError,
    ClusterError,
    DinoAugSegError,
    LostSchedulerError,
    TrainingError,
    one_line,
)
from napari_dinoaugseg.learning.events import Cancel, Event, Notice, Progress
from napari_dinoaugseg.learning.prediction import Prediction
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.classes import LabelClass, classes_of, to_plain
from napari_dinoaugseg.session.computing import Learnt, Place
from napari_dinoaugseg.session.connection import connect, losing, lost, needs_of, require_installed, workers_of
from napari_dinoaugseg.session.desk import Answer, Desk, Drawn, Facts, SentSlice, State
from napari_dinoaugseg.session.labels import Labels
from napari_dinoaugseg.study import Study

if TYPE_CHECKING:
    from distributed import Client, Future

    from napari_dinoaugseg.model.checkpoint import Checkpoint

_LOOK = 1.0  # seconds between looks at whether worker and scheduler are still there
_PARCEL = 8 * 2**20  # bytes of slices that are sent at once


class RemoteEngine:
    """Encoder, features and decoder of one study on a worker.

    The connection is made when it is first needed; the slices are sent then, which is told as progress.

    Args:
        study: whose slices.
        settings: decide encoder, window and input size.
        place: names the scheduler, and the device of the worker.
        say: gets sentences for the person.

    Raises on construction:
        ClusterError: dask.distributed is not installed.
    """

    def __init__(self, study: Study, settings: Settings, place: Place, *, say: Callable[[str], None]) -> None:
        require_installed()
        if place.weights is not None:
            say(f"The worker uses weights of its own, not {place.weights.name}.")
        self._study, self._settings, self._place, self._say = study, settings, place, say
        self._client: Client | None = None
        self._desk: Any = None
        self._held: Future | None = None  # the scheduler lets go of the desk when nobody holds this
        self._address = ""  # of the worker
        self._state: State | None = None
        self._anew = False

    @property
    def is_ready(self) -> bool:
        """Whether the worker has loaded the encoder."""
        return self._state is not None

    @property
    def encoder_name(self) -> str:
        """The encoder in use, as what it is."""
        return self._state.encoder_name if self._state is not None else self._settings.encoder

    @property
    def device_name(self) -> str:
        """Where it computes, with the word that it is not here."""
        return f"{self._state.device_name if self._state is not None else self._place.device} (dask worker)"

    @property
    def encoded(self) -> int:
        """How many slices and views passed the encoder."""
        return self._state.encoded if self._state is not None else 0

    @property
    def encode_seconds(self) -> float:
        """The time that took."""
        return self._state.encode_seconds if self._state is not None else 0.0

    # --- what it does -----------------------------------------------------------------------------------------------

    def train(
        self, labels: dict[int, Labels], classes: Sequence[LabelClass], settings: Settings, cancel: Cancel | None
    ) -> Generator[Event, None, Learnt]:
        """As of `Computing`."""
        yield from self._set_up(cancel)
        if self._anew:
            self._ask("forget_decoder")
            self._anew = False
        self._ask("train", labels, _nameless(classes), settings)
        learnt: Learnt = yield from self._draw(cancel)
        return learnt

    def predict(
        self, order: Sequence[int], labels: dict[int, Labels], settings: Settings, cancel: Cancel | None
    ) -> Iterator[Event | Prediction]:
        """As of `Computing`."""
        yield from self._set_up(cancel)
        self._ask("predict", list(order), labels, settings)
        yield from self._draw(cancel)

    def checkpoint(self, classes: Sequence[LabelClass], settings: Settings) -> Checkpoint:
        """As of `Computing`."""
        with importing_torch():  # or a thread of dask's would, when it unpickles the answer
            import napari_dinoaugseg.model.checkpoint  # noqa: F401
        found: Checkpoint = self._ask("checkpoint", _nameless(classes), settings)
        numbers = {entry["number"] for entry in found.classes}
        return replace(found, classes=to_plain(entry for entry in classes if entry.number in numbers))

    def restore(self, checkpoint: Checkpoint, numbers: Sequence[int], source: Path) -> None:
        """As of `Computing`. Connects, for only the worker knows whether its encoder is the right one."""
        for event in self._set_up():
            if isinstance(event, Notice):
                self._say(event.text)
        nameless = replace(checkpoint, classes=to_plain(classes_of(numbers)))
        try:
            self._ask("restore", nameless, list(numbers), Path("model"))
        except CheckpointError as error:
            msg = f"{source}: {str(error).removeprefix('model: ')}"
            raise CheckpointError(msg) from error

    def forget_decoder(self) -> None:
        """As of `Computing`. The worker hears it with the next training: settings change where nobody may wait."""
        self._anew = True

    def close(self) -> None:
        """Leave the scheduler; the worker lets go of everything."""
        client, self._client, self._desk, self._held, self._state = self._client, None, None, None, None
        if client is not None:  # a window must not wait for a scheduler that does not answer
            threading.Thread(target=client.close, kwargs={"timeout": _LOOK}, name="leave-scheduler").start()

    # --- the way there ----------------------------------------------------------------------------------------------

    def _set_up(self, cancel: Cancel | None = None) -> Iterator[Event]:
        """Connect, send the slices, have the encoder loaded; nothing where that is done."""
        if self.is_ready:
            return
        self.close()  # what was begun and did not come to its end
        address = str(self._place.scheduler)
        yield Notice(f"Connecting to {address}…")
        self._client = connect(address)
        study, started = self._study, time.monotonic()
        self._take_desk(self._client)
        for parcel in _parcels(study):
            self._ask("take", parcel)
            yield Progress("send", parcel[-1].index + 1, study.n_slices, time.monotonic() - started)
            if cancel:
                self.close()
                msg = "It was stopped before the worker had begun."
                raise TrainingError(msg)
        self._state = self._ask("begin", self._settings, self._place.device)

    def _take_desk(self, client: Client) -> None:
        facts = Facts.of(self._study)
        size = sum(height * width for height, width in facts.shapes) * _bytes_a_pixel(self._study)
        self._held = client.submit(
            Desk, facts, version("napari-dinoaugseg"), size, actor=True, pure=False, resources=needs_of(client)
        )
        try:
            with losing(client):
                self._desk = self._held.result(timeout=60)
        except LostSchedulerError:
            raise
        except DinoAugSegError as error:
            msg = f"The worker cannot be used: {error}"
            raise ClusterError(msg) from error
        except TimeoutError as error:
            msg = "No worker of the scheduler had time within a minute. Try again later, or compute on this computer."
            raise ClusterError(msg) from error
        except Exception as error:
            why = one_line(f"{type(error).__name__}: {error}")
            msg = f"The worker cannot be used ({why}). Install the same napari-dinoaugseg there."
            raise ClusterError(msg) from error
        self._address = self._desk._address

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Have the desk do something. Raises what it raised; LostSchedulerError when nobody answers."""
        client, desk = self._client, self._desk
        if client is None or desk is None:
            msg = "The connection to the scheduler was closed."
            raise LostSchedulerError(msg)
        try:
            with client.as_current():  # where an actor looks for its client
                asked = getattr(desk, name)(*arguments)
            answer: Answer = _wait_for(asked, lambda: self._require_worker(client))
        except DinoAugSegError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # as dask has it when an actor's worker is gone
            self._require_worker(client)
            raise lost(client) from error
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _require_worker(self, client: Client) -> None:
        """Raise LostSchedulerError when the scheduler or the worker is gone."""
        if self._address not in workers_of(client, {}) or self._held is None or self._held.status != "finished":
            msg = "The worker that computed for this study ended. See its log; Train begins on another one."
            raise LostSchedulerError(msg)

    def _draw(self, cancel: Cancel | None) -> Generator[Any, None, Any]:
        """What the work yields, and what it returns."""
        while True:
            drawn: Drawn = self._ask("draw", bool(cancel))
            self._state = drawn.state
            for sentence in drawn.said:
                self._say(sentence)
            yield from drawn.items
            if drawn.error is not None:
                raise drawn.error
            if drawn.done:
                return drawn.result


def _wait_for(asked: Any, look: Callable[[], None]) -> Answer:
    """The answer of an actor; ``look`` raises when none can come any more."""
    while True:
        try:
            answer: Answer = asked.result(timeout=_LOOK)
        except TimeoutError:
            look()
        else:
            return answer


def _nameless(classes: Iterable[LabelClass]) -> list[LabelClass]:
    """The same numbers; what a person calls them stays here."""
    return classes_of(entry.number for entry in classes)


def _parcels(study: Study) -> Iterator[list[SentSlice]]:
    """The slices in the order of their numbers, some megabytes at a time."""
    parcel: list[SentSlice] = []
    for index in range(study.n_slices):
        parcel.append(SentSlice.of(study, index))
        if sum(sent.pixels.nbytes for sent in parcel) >= _PARCEL:
            yield parcel
            parcel = []
    if parcel:
        yield parcel


def _bytes_a_pixel(study: Study) -> int:
    """At most."""
    if study.is_colour:
        return 3
    return 1 if study.is_byte else 4
