"""The labels of one slice as a file of a saved session: a 16-bit grey PNG, so that any program can rescue them.

The name holds the slice, the kind of labels and a hash of the bytes, so that a changed file is noticed, and files of
two moments lie side by side: a session that is being saved never overwrites what the last one needs.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import LabelError, SessionError, SettingsError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.labels import BookContent, LabelClass, Labels, from_plain, to_plain

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint


LAYERS = ("manual", "accepted", "predicted")
_NAME = re.compile(r"(\d{5,9})_(manual|accepted|predicted)_([0-9a-f]{16})\.png")
_LARGEST_FILE = 2**28  # bytes of one file; labels take far less


class DamagedSliceError(Exception):
    """A slice file is missing or not what was written. What the person reads is put together by the store."""


def write_slice(folder: Path, layer: str, index: int, labels: Labels) -> str:
    """Write labels (H, W); returns the file's name. Raises OSError.

    Predictions can be made again, so they need not survive a power cut; what a person said must.
    """
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, format="PNG", compress_level=1)
    content = stream.getvalue()
    name = f"{index:05d}_{layer}_{_hash(content)}.png"
    if not (folder / name).exists():
        disk.write(folder / name, content, durable=layer != "predicted")
    return name


def read_slice(path: Path, shape: tuple[int, int]) -> Labels:
    """Read labels of a slice of ``shape`` (H, W). Raises DamagedSliceError; allocates nothing larger than the slice."""
    try:
        content = disk.read(path, _LARGEST_FILE)
    except FileNotFoundError as error:
        msg = "missing"
        raise DamagedSliceError(msg) from error
    except OSError as error:
        msg = f"cannot be read ({disk.reason(error)})"
        raise DamagedSliceError(msg) from error
    found = parse(path.name)
    if found is None or found[2] != _hash(content):
        msg = "damaged"
        raise DamagedSliceError(msg)
    return _decode(content, shape)


def parse(name: str) -> tuple[int, str, str] | None:
    """Slice, kind of labels and hash from a file's name; None when it is no name of ours."""
    found = _NAME.fullmatch(name)
    return None if found is None else (int(found[1]), found[2], found[3])


def slice_files(folder: Path) -> Iterator[Path]:
    """The slice files in a folder, the oldest first; nothing when it is not there."""
    if folder.is_dir():
        files = [path for path in folder.iterdir() if parse(path.name) is not None]
        yield from sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _decode(content: bytes, shape: tuple[int, int]) -> Labels:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # The size stands in the header: nothing is decoded before it fits.
            if image.size != (shape[1], shape[0]) or image.mode not in ("I;16", "I"):
                msg = "labels of another size"
                raise DamagedSliceError(msg)
            return np.array(image).astype(np.uint16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        msg = "damaged"
        raise DamagedSliceError(msg) from error


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


# What a session is at one moment: what is written to disk, and what a session goes on from.


@dataclass(frozen=True)
class Round:
    """One training and what it cost.

    Attributes:
        labelled: slices that were learnt from.
        steps: optimisation steps.
        final_loss: smoothed training loss at the end.
        seconds: by stage: ``encode``, ``train``, ``predict``.
        agreement: Dice (0 to 1) of the round before with what the person made of it; None in a first round, or when no
            predicted slice was corrected.
    """

    labelled: tuple[int, ...]
    steps: int
    final_loss: float | None
    seconds: Mapping[str, float]
    agreement: float | None


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment. Arrays are shared with the session and read-only, so taking one costs nothing.

    Attributes:
        book: labels, predictions and classes.
        settings: how to learn.
        history: one entry a training.
        model: the trained decoder, or the file that holds it; None without one.
        view: what the person looked at, plain JSON values; the panel knows what they mean.
        model_settings: the settings with which the model was trained; None = those of the session.
    """

    book: BookContent
    settings: Settings
    history: tuple[Round, ...] = ()
    model: Checkpoint | Path | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    model_settings: Settings | None = None


# The table of contents of a saved session: one JSON file, each part of which is checked on its own.
#
# The file names are the only thing in it that leads anywhere, and only names of the session's own pattern are taken:
# an index from a stranger cannot point out of its folder.


INDEX_NAME = "session.json"
SCHEMA = 1
"""Bump it when the format changes, and keep reading the older ones (tests/session/saved holds one of each)."""

_LARGEST_INDEX = 64 * 2**20  # bytes; 10,000 slices take 4 million
_MODEL_NAME = re.compile(r"model_[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True)
class CaseKey:
    """Which case a session belongs to: its pixels, and how they are cut."""

    fingerprint: str
    plane: str
    n_slices: int


@dataclass
class Index:
    """What a session consists of.

    Attributes:
        case: what it belongs to.
        saved: when, with the time zone.
        classes: ascending by number.
        slices: file names by slice and kind of labels; None = not known (yet), the files themselves tell.
        confidence: of predicted slices, 0 to 1.
        unseen: by layer, the slices on which nobody has looked at it; None = not recorded.
        settings: how to learn.
        rounds: one entry a training.
        model: the file of the trained decoder.
        view: what the person looked at.
        model_settings: those with which the model was trained; None = those of the session.
    """

    case: CaseKey
    saved: datetime
    classes: list[LabelClass] = field(default_factory=list)
    slices: dict[int, dict[str, str]] | None = None
    confidence: dict[int, float] = field(default_factory=dict)
    unseen: dict[str, list[int]] | None = None
    settings: Settings = field(default_factory=Settings)
    rounds: list[Round] = field(default_factory=list)
    model: str | None = None
    view: dict[str, Any] = field(default_factory=dict)
    model_settings: Settings | None = None


class DamagedIndexError(Exception):
    """The index is missing or cannot be read as one at all."""


def to_bytes(index: Index) -> bytes:
    """The index as it is written: the same bytes for the same content."""
    slices = None if index.slices is None else {str(number): index.slices[number] for number in sorted(index.slices)}
    content = {
        "study": asdict(index.case),
        "saved": index.saved.isoformat(),
        "classes": to_plain(index.classes),
        "slices": slices,
        "confidence": {str(number): value for number, value in sorted(index.confidence.items())},
        "unseen": index.unseen,
        "settings": index.settings.model_dump(mode="json"),
        "rounds": [asdict(entry) for entry in index.rounds],
        "model": index.model,
        "view": index.view,
    }
    if index.model_settings is not None:
        content["model_settings"] = index.model_settings.model_dump(mode="json")
    return json.dumps({"schema": SCHEMA, "checksum": _checksum(content), **content}).encode()


def read_index(folder: Path) -> tuple[Index, list[str]]:
    """Read the index of a session.

    Returns:
        The index, and what of it could not be used, each as a part of a sentence; such parts are as in a new session.

    Raises:
        DamagedIndexError: it is missing or no index.
        SessionError: a newer version of the package wrote it.
    """
    try:
        content = json.loads(disk.read(folder / INDEX_NAME, _LARGEST_INDEX))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{getattr(error, 'strerror', None) or error}"
        raise DamagedIndexError(msg) from error
    if not isinstance(content, dict):
        msg = "it holds no session"
        raise DamagedIndexError(msg)
    schema = content.pop("schema", None)
    if isinstance(schema, int) and schema > SCHEMA:
        msg = (
            f"{folder}: this session was saved by a newer version of napari-dinoaugseg. "
            "Update the program to go on with it; it was left as it is."
        )
        raise SessionError(msg)
    checksum = content.pop("checksum", None)
    problems = [] if checksum == _checksum(content) else ["the table of contents was altered; check names of classes"]
    case, saved = _part(content, "study", _case), _part(content, "saved", _time)
    if case is None or saved is None:
        msg = "it does not say which case it belongs to"
        raise DamagedIndexError(msg)
    index = Index(case, saved)
    for name, reader, words in _PARTS:
        value = _part(content, name, reader)
        if value is None and content.get(name) is not None:
            problems.append(f"{words} are damaged")
        elif value is not None:
            setattr(index, name, value)
    return index, problems


def _part(content: Mapping[str, Any], name: str, reader: Callable[[Any], Any]) -> Any:
    """A part as its reader understands it; None when it does not."""
    try:
        return reader(content[name])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, LabelError, SettingsError):
        return None


def _case(value: Any) -> CaseKey:
    return CaseKey(str(value["fingerprint"]), str(value["plane"]), int(value["n_slices"]))


def _time(value: Any) -> datetime:
    return datetime.fromisoformat(value).astimezone()


def _classes(value: Any) -> list[LabelClass]:
    classes = from_plain(value)
    if [entry.number for entry in classes] != sorted({entry.number for entry in classes}):
        msg = "class numbers twice or out of order"
        raise ValueError(msg)
    return classes


def _slices(value: Any) -> dict[int, dict[str, str]]:
    slices = {}
    for number, names in value.items():
        for layer, name in names.items():
            found = parse(name)
            if layer not in LAYERS or found is None or found[:2] != (int(number), layer):
                msg = f"no file of slice {number}"
                raise ValueError(msg)
        slices[int(number)] = dict(names)
    return slices


def _confidence(value: Any) -> dict[int, float]:
    return {int(number): min(max(_finite(entry), 0.0), 1.0) for number, entry in value.items()}


def _unseen(value: Any) -> dict[str, list[int]]:
    if not set(value) <= set(LAYERS):
        msg = "no layer of labels"
        raise ValueError(msg)
    return {str(layer): [int(number) for number in numbers] for layer, numbers in value.items()}


def _rounds(value: Any) -> list[Round]:
    return [
        Round(
            labelled=tuple(int(number) for number in entry["labelled"]),
            steps=int(entry["steps"]),
            final_loss=_optional(entry["final_loss"]),
            seconds={str(stage): _finite(seconds) for stage, seconds in entry["seconds"].items()},
            agreement=_optional(entry["agreement"]),
        )
        for entry in value
    ]


def _optional(value: Any) -> float | None:
    # The loss of a training that diverged is no number.
    return None if value is None or not math.isfinite(value) else float(value)


def _finite(value: Any) -> float:
    """JSON as Python reads it has infinities, and a value that does not equal itself."""
    if not math.isfinite(number := float(value)):
        msg = f"{number} is no number to compute with"
        raise ValueError(msg)
    return number


def _model(value: Any) -> str:
    if _MODEL_NAME.fullmatch(value) is None:
        msg = "no file of a model"
        raise ValueError(msg)
    return str(value)


_PARTS: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    ("classes", _classes, "names and colours of the classes"),
    ("slices", _slices, "the entries of the slices"),
    ("confidence", _confidence, "the confidences of predictions"),
    ("unseen", _unseen, "the entries of what was looked at"),
    ("settings", Settings.checked, "the settings"),
    ("rounds", _rounds, "the facts about past trainings"),
    ("model", _model, "the facts about the trained model"),
    ("view", dict, "the facts about what was in view"),
    ("model_settings", Settings.checked, "the settings of the trained model"),
)


def model_name(content: bytes) -> str:
    """The name of the file that holds a model of these bytes."""
    return f"model_{hashlib.blake2b(content, digest_size=8).hexdigest()}.safetensors"


def _checksum(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()
