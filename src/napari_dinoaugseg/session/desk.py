"""What a worker does for the session of a person at another machine: it has the pixels, and learns as a session does.

Nothing but pixels, labels and settings comes here; no name, no path, no header. Nothing is written to disk, and all of
it is let go of when the session closes, or its machine does not answer any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import ClusterError, DinoAugSegError, one_line
from napari_dinoaugseg.learning.events import Cancel, Event
from napari_dinoaugseg.learning.memory import available_memory
from napari_dinoaugseg.learning.prediction import Prediction
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.classes import LabelClass
from napari_dinoaugseg.session.computing import Learnt
from napari_dinoaugseg.session.connection import require_version, respect_limit
from napari_dinoaugseg.session.labels import Labels
from napari_dinoaugseg.session.libraries import engine_class
from napari_dinoaugseg.study import Slices

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.session.engine import Engine

_TURN = 0.25  # seconds of work between two answers

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Facts:
    """What there is to know of the slices beside their pixels; attributes as of `Slices`."""

    kind: Literal["volume", "pictures"]
    n_slices: int
    is_colour: bool
    is_byte: bool
    modality: str | None
    intensity_range: tuple[float, float]
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, slices: Slices) -> Facts:
        """Those of a study."""
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
    """A slice on its way: its number, fingerprint, and pixels as `pack` makes them."""

    index: int
    fingerprint: str
    pixels: NDArray[Any]

    @classmethod
    def of(cls, slices: Slices, index: int) -> SentSlice:
        """A slice of a study."""
        return cls(index, slices.slice_fingerprint(index), pack(slices.slice(index)))


def pack(image: NDArray[Any]) -> NDArray[Any]:
    """The same values in half the bytes, where whole numbers were made float32."""
    if image.dtype == np.float32:
        with np.errstate(invalid="ignore"):
            whole = image.astype(np.int16)
        if np.array_equal(whole, image):
            return whole
    return image


def unpack(pixels: NDArray[Any]) -> NDArray[Any]:
    """What `pack` was given."""
    return pixels.astype(np.float32) if pixels.dtype == np.int16 else pixels


class SentSlices(Slices):
    """Slices that were sent."""

    def __init__(self, facts: Facts) -> None:
        self.kind, self.n_slices = facts.kind, facts.n_slices
        self.is_colour, self.modality = facts.is_colour, facts.modality
        self._facts = facts
        self._sent: dict[int, SentSlice] = {}

    def take(self, sent: Sequence[SentSlice]) -> None:
        """Add slices."""
        self._sent.update({one.index: one for one in sent})

    def slice(self, i: int) -> NDArray[Any]:
        """Return slice `i` as it was before it was sent."""
        return unpack(self._sent[i].pixels)

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width."""
        return self._facts.shapes[i]

    def slice_fingerprint(self, i: int) -> str:
        """Return its hash."""
        return self._sent[i].fingerprint

    @property
    def is_byte(self) -> bool:
        """Whether they are stored as 8-bit values."""
        return self._facts.is_byte

    def intensity_range(self) -> tuple[float, float]:
        """Return the percentiles of the whole study."""
        return self._facts.intensity_range


@dataclass(frozen=True)
class State:
    """How it stands with the work; attributes as of `Computing`."""

    encoder_name: str
    device_name: str
    encoded: int
    encode_seconds: float


@dataclass(frozen=True)
class Drawn:
    """What came of a turn of work.

    Attributes:
        items: events and predictions, in their order.
        done: whether that was all.
        result: of the whole work, once it is done.
        error: what ended it.
        state: afterwards.
        said: sentences for the person.
    """

    items: list[Event | Prediction]
    done: bool
    result: Learnt | None
    error: DinoAugSegError | None
    state: State
    said: list[str]


@dataclass(frozen=True)
class Answer:
    """What a call came to: a value or an error. An exception that travels bare would look like a lost worker."""

    value: Any = None
    error: DinoAugSegError | None = None


def _answering(method: Callable[Concatenate[Desk, P], T]) -> Callable[Concatenate[Desk, P], Answer]:
    @wraps(method)
    def answer(desk: Desk, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return Answer(method(desk, *args, **kwargs))
        except Exception as error:  # handed over as a value
            return Answer(error=_for_a_person(error))

    return answer


def _for_a_person(error: Exception) -> DinoAugSegError:
    if isinstance(error, DinoAugSegError):
        return error
    return ClusterError(f"The worker failed ({one_line(f'{type(error).__name__}: {error}')}); see its log.")


@dataclass
class _Work:
    """What is going on, to be drawn turn by turn."""

    source: Generator[Event | Prediction, None, Any] | Iterator[Event | Prediction]
    cancel: Cancel = field(default_factory=Cancel)


class Desk:
    """A worker's place for one session, as an actor of dask.distributed: it stays, and does one call at a time.

    Work is drawn in turns, by the machine of the person: when that is gone, nothing goes on unseen.

    Args:
        facts: of the slices, which are sent after it.
        version: of the program that asks.
        size: bytes of all slices together.

    Raises:
        ClusterError: the worker has another version of the program, or no room for the slices.
    """

    def __init__(self, facts: Facts, version: str, size: int) -> None:
        require_version(version)
        respect_limit()
        room = available_memory() // 2
        if size > room:
            msg = f"it has room for {room / 2**20:.0f} MB of slices, and the study takes {size / 2**20:.0f} MB."
            raise ClusterError(msg)
        self._slices = SentSlices(facts)
        self._engine: Engine | None = None
        self._said: list[str] = []
        self._work: _Work | None = None

    @_answering
    def take(self, sent: list[SentSlice]) -> None:
        """Take slices."""
        self._slices.take(sent)

    @_answering
    def begin(self, settings: Settings, device: str) -> State:
        """Load the encoder, once all slices are here."""
        self._engine = engine_class()(
            self._slices, settings, device=device, weights=None, cache=False, say=self._said.append
        )
        return self._state()

    @_answering
    def restore(self, checkpoint: Checkpoint, numbers: list[int], source: Path) -> None:
        """As of `Computing`."""
        self._ready().restore(checkpoint, numbers, source)

    @_answering
    def forget_decoder(self) -> None:
        """As of `Computing`."""
        self._ready().forget_decoder()

    @_answering
    def checkpoint(self, classes: list[LabelClass], settings: Settings) -> Checkpoint:
        """As of `Computing`."""
        return self._ready().checkpoint(classes, settings)

    @_answering
    def train(self, labels: dict[int, Labels], classes: list[LabelClass], settings: Settings) -> None:
        """Begin to train; see `draw`."""
        cancel = Cancel()
        self._work = _Work(self._ready().train(labels, classes, settings, cancel), cancel)

    @_answering
    def predict(self, order: list[int], labels: dict[int, Labels], settings: Settings) -> None:
        """Begin to predict; see `draw`."""
        cancel = Cancel()
        self._work = _Work(self._ready().predict(order, labels, settings, cancel), cancel)

    @_answering
    def draw(self, stop: bool) -> Drawn:
        """Work on for a moment; ``stop`` asks the work to end at its next step."""
        if self._work is None:
            msg = "There is nothing to go on with."
            raise ClusterError(msg)
        if stop:
            self._work.cancel.set()
        items: list[Event | Prediction] = []
        done, result, problem = False, None, None
        until = time.monotonic() + _TURN
        while not done and time.monotonic() < until:
            try:
                items.append(next(self._work.source))
            except StopIteration as end:
                done, result = True, end.value
            except Exception as error:  # what came before it is handed over too
                done, problem = True, _for_a_person(error)
        if done:
            self._work = None
        said, self._said[:] = list(self._said), []
        return Drawn(items, done, result, problem, self._state(), said)

    def _ready(self) -> Engine:
        if self._engine is None:
            msg = "The worker was asked before it had begun."
            raise ClusterError(msg)
        return self._engine

    def _state(self) -> State:
        engine = self._ready()
        return State(engine.encoder_name, engine.device_name, engine.encoded, engine.encode_seconds)
