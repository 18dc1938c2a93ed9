"""The engine of a session on a worker of a scheduler: an actor on the worker, and its counterpart on this machine.

Only pixels, labels and settings are sent to the worker: no names, paths or headers. It writes nothing to disk, and
drops everything when the session closes or its machine is unresponsive. Masks, events and the trained decoder are sent
back. The worker uses its own encoder weights. A lost worker or scheduler is an error; the last model is kept here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.case.joint import JointSlices
from napari_dinoaugseg.case.sequences import unnamed
from napari_dinoaugseg.cluster.connection import (
    connect,
    losing,
    lost,
    needs_of,
    require_installed,
    require_version,
    respect_limit,
    workers_of,
)
from napari_dinoaugseg.errors import (
    CheckpointError,
    ClusterError,
    DinoAugSegError,
    Hint,
    LostSchedulerError,
    TrainingError,
    one_line,
)
from napari_dinoaugseg.learning.events import Cancel, Event, Notice, Prediction, Progress, Report
from napari_dinoaugseg.learning.memory import available_memory
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.compute import ComputeConfig, Learned, LiveFeed, LiveState, Notify, TrainingResult
from napari_dinoaugseg.session.labels import LabelClass, Labels, classes_of, to_plain
from napari_dinoaugseg.session.local import engine_class

if TYPE_CHECKING:
    from distributed import Client, Future

    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.session.engine import Engine


_TURN = 0.25  # seconds of work between two answers
_CHECK_EVERY = 1.0  # seconds between checks of worker and scheduler
_PARCEL = 8 * 2**20  # bytes of slices that are sent at once

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class SliceInfo:
    """The attributes of `Slices`, without the pixels and without the names of sequences."""

    kind: Literal["volume", "pictures"]
    n_slices: int
    is_colour: bool
    is_byte: bool
    modality: str | None
    intensity_range: tuple[float, float]
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, slices: Slices) -> SliceInfo:
        """The attributes of a case."""
        return cls(
            kind=slices.kind,
            n_slices=slices.n_slices,
            is_colour=slices.is_colour,
            is_byte=slices.is_byte,
            modality=slices.modality,
            intensity_range=(0.0, 255.0) if slices.is_colour else slices.intensity_range(),
            shapes=tuple(slices.slice_shape(i) for i in range(slices.n_slices)),
        )


@dataclass(frozen=True)
class SentSlice:
    """A slice in transit: its number, fingerprint, and pixels as `pack` makes them; and the number of its sequence."""

    index: int
    fingerprint: str
    pixels: NDArray[Any]
    sequence: int = 0

    @classmethod
    def of(cls, slices: Slices, index: int, sequence: int = 0) -> SentSlice:
        """A slice of a sequence, whose number among those of its case is given."""
        return cls(index, slices.slice_fingerprint(index), pack(slices.slice(index)), sequence)


def pack(image: NDArray[Any]) -> NDArray[Any]:
    """Integers stored as float32 in half the bytes, without loss; other images unchanged."""
    if image.dtype == np.float32:
        with np.errstate(invalid="ignore"):
            whole = image.astype(np.int16)
        if np.array_equal(whole, image):
            return whole
    return image


def unpack(pixels: NDArray[Any]) -> NDArray[Any]:
    """Undo `pack`."""
    return pixels.astype(np.float32) if pixels.dtype == np.int16 else pixels


class ReceivedSlices(Slices):
    """The slices of a case on the worker.

    Args:
        infos: of each of its sequences, whose names stay on the person's machine.
    """

    def __init__(self, infos: Sequence[SliceInfo]) -> None:
        info = infos[0]
        self.kind, self.n_slices = info.kind, info.n_slices
        self.is_colour, self.modality = info.is_colour, info.modality
        self._info = info
        self._each: list[ReceivedSlices] = [self] if len(infos) == 1 else [ReceivedSlices([one]) for one in infos]
        self._sent: dict[int, SentSlice] = {}

    def take(self, sent: Sequence[SentSlice]) -> None:
        """Add slices."""
        for one in sent:
            self._each[one.sequence]._sent[one.index] = one

    @property
    def sequences(self) -> Mapping[str, Slices]:
        """Its sequences, without their names."""
        return dict(zip(unnamed(len(self._each)), self._each, strict=True))

    def slice(self, i: int) -> NDArray[Any]:
        """Return slice `i` of the first sequence."""
        return unpack(self._each[0]._sent[i].pixels)

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width."""
        return self._info.shapes[i]

    def slice_fingerprint(self, i: int) -> str:
        """Return its hash."""
        return self._each[0]._sent[i].fingerprint

    @property
    def is_byte(self) -> bool:
        """Whether they are stored as 8-bit values."""
        return self._info.is_byte

    def intensity_range(self) -> tuple[float, float]:
        """Return the percentiles of the whole case."""
        return self._info.intensity_range


@dataclass(frozen=True)
class EngineState:
    """The state of the engine; attributes as in `Compute`, of the descriptors those that are new."""

    encoder_name: str
    device_name: str
    encoded: int
    encode_seconds: float
    descriptors: Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Turn:
    """The result of a turn of work.

    Attributes:
        items: events and predictions in order.
        done: whether the work has ended.
        result: of the whole work, if it is done.
        error: that ended it.
        state: after the turn.
        notices: sentences for the person.
    """

    items: list[Event | Prediction]
    done: bool
    result: TrainingResult | None
    error: DinoAugSegError | None
    state: EngineState
    notices: list[str]


@dataclass(frozen=True)
class Answer:
    """The result of a call: a value or an error. A bare exception would look like a lost worker."""

    value: Any = None
    error: DinoAugSegError | None = None


def _answering(method: Callable[Concatenate[WorkerActor, P], T]) -> Callable[Concatenate[WorkerActor, P], Answer]:
    @wraps(method)
    def answer(actor: WorkerActor, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return Answer(method(actor, *args, **kwargs))
        except Exception as error:  # returned as a value
            return Answer(error=_for_a_person(error))

    return answer


def _for_a_person(error: Exception) -> DinoAugSegError:
    if isinstance(error, DinoAugSegError):
        return error
    return ClusterError(f"The worker failed ({one_line(f'{type(error).__name__}: {error}')}); see its log.")


@dataclass
class _Work:
    """Work in progress, run turn by turn."""

    source: Generator[Event | Prediction, None, Any] | Iterator[Event | Prediction | None]
    cancel: Cancel = field(default_factory=Cancel)


class WorkerActor:
    """The engine of one session on a worker, as an actor of dask.distributed, which runs one call at a time.

    The person's machine requests the work in turns: when that machine is gone, the work stops.

    Args:
        infos: of the sequences of each joined case, or of the only case; the slices are sent later.
        version: of the program on the person's machine.
        size: bytes of all slices.

    Raises:
        ClusterError: the worker has another version of the program, or no room for the slices.
    """

    def __init__(self, infos: Sequence[Sequence[SliceInfo]], version: str, size: int) -> None:
        require_version(version)
        respect_limit()
        room = available_memory() // 2
        if size > room:
            msg = f"it has memory for {room / 2**20:.0f} MB of slices, and the case takes {size / 2**20:.0f} MB."
            raise ClusterError(msg)
        self._received = [ReceivedSlices(each) for each in infos]
        self._slices = self._received[0] if len(infos) == 1 else JointSlices(self._received)
        self._engine: Engine | None = None
        self._notices: list[str] = []
        self._reported: list[Event | Prediction] = []  # by a prediction, since its last item
        self._work: _Work | None = None
        self._feed = LiveFeed()
        self._live_state: LiveState | None = None  # the last one, whole
        self._described: set[int] = set()  # slices whose descriptors were returned

    @_answering
    def take(self, sent: list[SentSlice]) -> None:
        """Receive slices."""
        for (numbers, _), received in zip(self._slices.parts, self._received, strict=True):
            own = [replace(one, index=one.index - numbers.start) for one in sent if one.index in numbers]
            received.take(own)

    @_answering
    def begin(self, settings: Settings, device: str) -> EngineState:
        """Load the encoder, after all slices were received."""
        config = ComputeConfig(device=device, cache=False)
        self._engine = engine_class()(self._slices, settings, config, notify=self._notices.append)
        return self._state()

    @_answering
    def restore(self, checkpoint: Checkpoint, numbers: list[int], source: Path) -> None:
        """As in `Compute`."""
        self._ready().restore(checkpoint, numbers, source)

    @_answering
    def forget_decoder(self) -> None:
        """As in `Compute`."""
        self._ready().forget_decoder()

    @_answering
    def checkpoint(self, classes: list[LabelClass], settings: Settings) -> Checkpoint:
        """As in `Compute`."""
        return self._ready().checkpoint(classes, settings)

    @_answering
    def train(
        self, labels: dict[int, Labels], classes: list[LabelClass], settings: Settings, newest: Collection[int]
    ) -> None:
        """Start to train; see `draw`."""
        cancel = Cancel()
        self._work = _Work(self._ready().train(labels, classes, settings, cancel, newest), cancel)

    @_answering
    def predict(self, order: list[int], labels: dict[int, Labels], settings: Settings) -> None:
        """Start to predict; see `draw`."""
        cancel = Cancel()
        source = self._ready().predict(order, labels, settings, self._reported.append, cancel)
        self._work = _Work(source, cancel)

    @_answering
    def live(self, settings: Settings, continues: bool, digests: frozenset[str]) -> None:
        """Start to learn live; see `draw`."""
        cancel = Cancel()
        self._feed, self._live_state = LiveFeed(), None
        source = self._ready().live(
            self._feed, settings, self._reported.append, cancel, continues=continues, digests=digests
        )
        self._work = _Work(source, cancel)

    @_answering
    def draw(self, stop: bool, state: LiveState | None = None) -> Turn:
        """Run one turn of the work.

        Args:
            stop: end the work at its next step.
            state: what live learning works on from now on, since the state of an earlier turn.
        """
        if self._work is None:
            msg = "The worker has no work to continue."
            raise ClusterError(msg)
        if stop:
            self._work.cancel.set()
        if state is not None:
            self._live_state = state.completed(self._live_state)
            self._feed.put(self._live_state)
        items: list[Event | Prediction] = []
        done, result, problem = False, None, None
        until = time.monotonic() + _TURN
        while not done and time.monotonic() < until:
            found: list[Event | Prediction] = []
            try:
                item = next(self._work.source)
                found += [] if item is None else [item]
            except StopIteration as end:
                done, result = True, end.value
            except Exception as error:  # the items before it are returned too
                done, problem = True, _for_a_person(error)
            items += [*self._reported, *found]
            self._reported.clear()
        if done:
            self._work = None
        notices, self._notices[:] = list(self._notices), []
        return Turn(items, done, result, problem, self._state(), notices)

    def _ready(self) -> Engine:
        if self._engine is None:
            msg = "The worker was called before it had started."
            raise ClusterError(msg)
        return self._engine

    def _state(self) -> EngineState:
        engine = self._ready()
        new = {index: found for index, found in engine.descriptors.items() if index not in self._described}
        self._described |= new.keys()
        return EngineState(engine.encoder_name, engine.device_name, engine.encoded, engine.encode_seconds, new)


class RemoteEngine:
    """Encoder, features and decoder of one case on a worker.

    The connection is made on first use; the slices are sent then, with progress.

    Args:
        case: whose slices.
        settings: decide encoder, window and input size.
        config: names the scheduler, and the device of the worker.
        notify: gets sentences for the person.

    Raises on construction:
        ClusterError: dask.distributed is not installed.
    """

    def __init__(self, case: Slices, settings: Settings, config: ComputeConfig, *, notify: Notify) -> None:
        require_installed()
        if config.weights is not None:
            notify(f"The worker uses weights of its own, not {config.weights.name}.")
        self._case, self._settings, self._config, self._notify = case, settings, config, notify
        self._client: Client | None = None
        self._actor: Any = None
        self._held: Future | None = None  # keeps the actor alive on the scheduler
        self._address = ""  # of the worker
        self._state: EngineState | None = None
        self.descriptors: dict[int, NDArray[np.float32]] = {}
        self._from_scratch = False

    @property
    def is_ready(self) -> bool:
        """Whether the worker has loaded the encoder."""
        return self._state is not None

    @property
    def encoder(self) -> None:
        """The worker has the encoder."""

    @property
    def encoder_name(self) -> str:
        """The encoder in use; that of the settings before the worker has loaded one."""
        return self._state.encoder_name if self._state is not None else self._settings.encoder

    @property
    def device_name(self) -> str:
        """The device in use, marked as a worker's."""
        return f"{self._state.device_name if self._state is not None else self._config.device} (dask worker)"

    @property
    def encoded(self) -> int:
        """How many slices and views were encoded."""
        return self._state.encoded if self._state is not None else 0

    @property
    def encode_seconds(self) -> float:
        """Seconds of encoding."""
        return self._state.encode_seconds if self._state is not None else 0.0

    # --- computing -----------------------------------------------------------------------------------------------

    def train(
        self,
        labels: dict[int, Labels],
        classes: Sequence[LabelClass],
        settings: Settings,
        cancel: Cancel | None,
        newest: Collection[int] = (),
    ) -> Generator[Event, None, TrainingResult]:
        """As in `Compute`."""
        yield from self._set_up(cancel)
        if self._from_scratch:
            self._ask("forget_decoder")
            self._from_scratch = False
        self._ask("train", labels, _nameless(classes), settings, newest)
        result: TrainingResult = yield from self._draw(cancel)
        return result

    def predict(
        self,
        order: Sequence[int],
        labels: dict[int, Labels],
        settings: Settings,
        report: Report,
        cancel: Cancel | None,
    ) -> Iterator[Prediction]:
        """As in `Compute`."""
        for event in self._set_up(cancel):
            report(event)
        self._ask("predict", list(order), labels, settings)
        for item in self._draw(cancel):
            if isinstance(item, Prediction):
                yield item
            else:
                report(item)

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
        """As in `Compute`. The classes of the decoder that it returns have no names."""
        _import_checkpoint()
        for event in self._set_up(cancel):
            report(event)
        self._ask("live", settings, continues, frozenset(digests))
        source = self._draw(cancel, feed)
        while True:
            try:
                item = next(source)
            except StopIteration as end:
                learned: Learned | None = end.value
                if learned is None:
                    return None
                return replace(learned, model=replace(learned.model, sequences=tuple(self._case.sequences)))
            if isinstance(item, Prediction):
                yield item
            else:
                report(item)

    def checkpoint(self, classes: Sequence[LabelClass], settings: Settings) -> Checkpoint:
        """As in `Compute`."""
        _import_checkpoint()
        found: Checkpoint = self._ask("checkpoint", _nameless(classes), settings)
        numbers = {entry["number"] for entry in found.classes}
        named = to_plain(entry for entry in classes if entry.number in numbers)
        return replace(found, classes=named, sequences=tuple(self._case.sequences))

    def restore(self, checkpoint: Checkpoint, numbers: Sequence[int], source: Path) -> None:
        """As in `Compute`. Connects, because only the worker knows whether its encoder is the right one."""
        for event in self._set_up():
            if isinstance(event, Notice):
                self._notify(event.text)
        sequences = unnamed(len(checkpoint.sequences))
        nameless = replace(checkpoint, classes=to_plain(classes_of(numbers)), sequences=sequences)
        try:
            self._ask("restore", nameless, list(numbers), Path("model"))
        except CheckpointError as error:
            msg = f"{source}: {str(error).removeprefix('model: ')}"
            raise CheckpointError(error.message.reworded(msg)) from error

    def forget_decoder(self) -> None:
        """As in `Compute`. The worker drops its decoder at the next training, so that this call does not wait."""
        self._from_scratch = True

    def close(self) -> None:
        """Leave the scheduler; the worker drops everything."""
        client, self._client, self._actor, self._held, self._state = self._client, None, None, None, None
        if client is not None:  # the window must not wait for an unresponsive scheduler
            threading.Thread(target=client.close, kwargs={"timeout": _CHECK_EVERY}, name="leave-scheduler").start()

    # --- connection ----------------------------------------------------------------------------------------------

    def _set_up(self, cancel: Cancel | None = None) -> Iterator[Event]:
        """Connect, send the slices, let the worker load the encoder; no-op if that is done."""
        if self.is_ready:
            return
        self.close()  # an unfinished attempt
        address = str(self._config.scheduler)
        yield Notice(f"Connecting to {address}…")
        self._client = connect(address)
        case, started = self._case, time.monotonic()
        self._start_actor(self._client)
        for parcel in _parcels(case):
            self._ask("take", parcel)
            yield Progress("send", parcel[-1].index + 1, case.n_slices, time.monotonic() - started)
            if cancel:
                self.close()
                msg = "It was stopped before the worker had started."
                raise TrainingError(msg)
        self._state = self._ask("begin", self._settings, self._config.device)

    def _start_actor(self, client: Client) -> None:
        infos = [[SliceInfo.of(sequence) for sequence in part.sequences.values()] for _, part in self._case.parts]
        size = sum(height * width * _bytes_a_pixel(i) for each in infos for i in each for height, width in i.shapes)
        self._held = client.submit(
            WorkerActor, infos, version("napari-dinoaugseg"), size, actor=True, pure=False, resources=needs_of(client)
        )
        try:
            with losing(client):
                self._actor = self._held.result(timeout=60)
        except LostSchedulerError:
            raise
        except DinoAugSegError as error:
            msg = f"The worker cannot be used: {error}"
            raise ClusterError(msg) from error
        except TimeoutError as error:
            msg = "No worker of the scheduler was free within a minute. Try again later, or compute on this computer."
            raise ClusterError(msg) from error
        except Exception as error:
            why = one_line(f"{type(error).__name__}: {error}")
            msg = f"The worker cannot be used ({why}). Install the same napari-dinoaugseg there."
            raise ClusterError(msg) from error
        self._address = self._actor._address

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Call the actor. Raises its error, or LostSchedulerError when it is unresponsive."""
        client, actor = self._client, self._actor
        if client is None or actor is None:
            msg = "The connection to the scheduler was closed."
            raise LostSchedulerError(msg)
        try:
            with client.as_current():  # where an actor looks for its client
                asked = getattr(actor, name)(*arguments)
            answer: Answer = _wait_for(asked, lambda: self._require_worker(client))
        except DinoAugSegError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # dask raises these when an actor's worker is gone
            self._require_worker(client)
            raise lost(client) from error
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _require_worker(self, client: Client) -> None:
        """Raise LostSchedulerError if the scheduler or the worker is gone."""
        if self._address not in workers_of(client, {}) or self._held is None or self._held.status != "finished":
            msg = "The worker of this case has ended. See its log."
            raise LostSchedulerError(msg, Hint.TRAIN_AGAIN)

    def _draw(self, cancel: Cancel | None, feed: LiveFeed | None = None) -> Generator[Any, None, Any]:
        """Yield the items of the work, and return its result; what changes in the feed's states goes to the worker."""
        sent: LiveState | None = None
        while True:
            state = feed.take(0.0) if feed is not None else None
            drawn: Turn = self._ask("draw", bool(cancel), state and state.since(sent).without_names())
            sent = state or sent
            self._state = drawn.state
            self.descriptors.update(drawn.state.descriptors)
            for sentence in drawn.notices:
                self._notify(sentence)
            yield from drawn.items
            if drawn.error is not None:
                raise drawn.error
            if drawn.done:
                return drawn.result


def _wait_for(asked: Any, check: Callable[[], None]) -> Answer:
    """The answer of an actor; ``check`` raises when it can no longer come."""
    while True:
        try:
            answer: Answer = asked.result(timeout=_CHECK_EVERY)
        except TimeoutError:
            check()
        else:
            return answer


def _import_checkpoint() -> None:
    """Import it before a worker answers with one, or a thread of dask does when it unpickles the answer."""
    with importing_torch():
        import napari_dinoaugseg.model.checkpoint  # noqa: F401


def _nameless(classes: Iterable[LabelClass]) -> list[LabelClass]:
    """The same classes without their names, which stay on this machine."""
    return classes_of(entry.number for entry in classes)


def _parcels(case: Slices) -> Iterator[list[SentSlice]]:
    """The slices in order, in all sequences, some megabytes at a time."""
    parcel: list[SentSlice] = []
    sequences = list(case.sequences.values())
    for index in range(case.n_slices):
        parcel += [SentSlice.of(sequence, index, number) for number, sequence in enumerate(sequences)]
        if sum(sent.pixels.nbytes for sent in parcel) >= _PARCEL:
            yield parcel
            parcel = []
    if parcel:
        yield parcel


def _bytes_a_pixel(info: SliceInfo) -> int:
    """Upper limit of the bytes per pixel."""
    if info.is_colour:
        return 3
    return 1 if info.is_byte else 4
