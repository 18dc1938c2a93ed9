"""A session on disk, as values and as bytes: the snapshot, the index file, and the label files of slices.

The index is one JSON file, each part of which is checked by itself. Its only references are file names of the session's
own patterns, so that the index of a stranger cannot point outside its folder. The labels of a slice are a 16-bit grey
PNG, which any program can open. Its name holds slice, layer and a hash of its bytes: a changed file is detected, and
saving never overwrites a file that the last index needs.
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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import LabelError, SessionError, SettingsError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.labels import BookContent, LabelClass, Labels, from_plain, to_plain

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint


INDEX_NAME = "session.json"
SCHEMA = 1
"""Increase it when the format changes, and keep reading older ones (tests/session/saved holds one of each)."""

LAYERS = ("manual", "accepted", "predicted")
_SLICE_NAME = re.compile(r"(\d{5,9})_(manual|accepted|predicted)_([0-9a-f]{16})\.png")
_MODEL_NAME = re.compile(r"model_[0-9a-f]{16}\.safetensors")
_LARGEST_INDEX = 64 * 2**20  # bytes; 10,000 slices take 4 million
_LARGEST_SLICE = 2**28  # bytes; labels take far less


@dataclass(frozen=True)
class Round:
    """One training and its time. Immutable, ``seconds`` included.

    Attributes:
        labelled: slices that it was trained on.
        steps: optimisation steps.
        final_loss: smoothed training loss at the end.
        seconds: by stage: ``encode``, ``train``, ``predict``.
        agreement: Dice (0 to 1) of the predictions before it with the corrections of the person; None in a first round,
            or if no predicted slice was corrected.
    """

    labelled: tuple[int, ...]
    steps: int
    final_loss: float | None
    seconds: Mapping[str, float]
    agreement: float | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", MappingProxyType(dict(self.seconds)))


@dataclass(frozen=True)
class Snapshot:
    """The state of a session. Its arrays are read-only and shared with the session, so that it is cheap to take.

    Attributes:
        book: labels, predictions and classes.
        settings: of the next training.
        history: one entry for each training.
        model: the trained decoder, or the file that holds it; None without one.
        view: the view of the panel as JSON values, which only the panel interprets.
        model_settings: of the model's training; None = those of the session.
    """

    book: BookContent
    settings: Settings
    history: tuple[Round, ...] = ()
    model: Checkpoint | Path | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    model_settings: Settings | None = None


@dataclass(frozen=True)
class CaseKey:
    """The case of a session: a hash of its pixels, and its slices."""

    fingerprint: str
    plane: str
    n_slices: int


@dataclass
class Index:
    """The content of the index file; see `Snapshot` and `BookContent`.

    Attributes:
        case: of the session.
        saved: time of saving, with the time zone.
        classes: ascending by number.
        slices: file names by slice and layer; None = unknown, take the newest files.
        confidence: of predicted slices, 0 to 1.
        unseen: by layer, the slices that nobody has looked at; None = not recorded.
        settings: of the next training.
        rounds: one entry for each training.
        model: file name of the trained decoder.
        view: of the panel.
        model_settings: of the model's training; None = those of the session.
        taken: the predicted slices whose prediction another program made.
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
    taken: list[int] = field(default_factory=list)


class DamagedIndexError(Exception):
    """The index file is missing, or nothing of it can be read."""


def to_bytes(index: Index) -> bytes:
    """The index file: the same bytes for the same content."""
    slices = None if index.slices is None else {str(number): index.slices[number] for number in sorted(index.slices)}
    content: dict[str, Any] = {
        "study": asdict(index.case),
        "saved": index.saved.isoformat(),
        "classes": to_plain(index.classes),
        "slices": slices,
        "confidence": {str(number): value for number, value in sorted(index.confidence.items())},
        "unseen": index.unseen,
        "settings": index.settings.model_dump(mode="json"),
        "rounds": [{**vars(entry), "seconds": dict(entry.seconds)} for entry in index.rounds],
        "model": index.model,
        "view": index.view,
    }
    if index.model_settings is not None:
        content["model_settings"] = index.model_settings.model_dump(mode="json")
    if index.taken:
        content["taken"] = sorted(index.taken)
    return json.dumps({"schema": SCHEMA, "checksum": _checksum(content), **content}).encode()


def read_index(folder: Path) -> tuple[Index, list[str]]:
    """Read the index of a session.

    Returns:
        The index, and a clause for each part that could not be used and has its default.

    Raises:
        DamagedIndexError: it is missing, or not an index.
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
            "Update the program to continue it; it was not changed."
        )
        raise SessionError(msg)
    checksum = content.pop("checksum", None)
    problems = [] if checksum == _checksum(content) else ["the table of contents was altered; check names of classes"]
    case, saved = _part(content, "study", _case), _part(content, "saved", _time)
    if case is None or saved is None:
        msg = "it does not name its case"
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
    """A part of the index, checked; None if it is damaged."""
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


def _numbers(value: Any) -> list[int]:
    return [int(number) for number in value]


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
    # The loss of a diverged training is not finite.
    return None if value is None or not math.isfinite(value) else float(value)


def _finite(value: Any) -> float:
    """The number; Python's JSON also accepts infinities and NaN, which raise a ValueError here."""
    if not math.isfinite(number := float(value)):
        msg = f"{number} is not finite"
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
    ("unseen", _unseen, "the entries of unseen labels"),
    ("settings", Settings.checked, "the settings"),
    ("rounds", _rounds, "the records of past trainings"),
    ("model", _model, "the entry of the trained model"),
    ("view", dict, "the entries of the view"),
    ("model_settings", Settings.checked, "the settings of the trained model"),
    ("taken", _numbers, "the entries of masks of other programs"),
)


def model_name(content: bytes) -> str:
    """The file name of a model with these bytes."""
    return f"model_{hashlib.blake2b(content, digest_size=8).hexdigest()}.safetensors"


def _checksum(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()


# --- slice files ----------------------------------------------------------------------------------------------------


class DamagedSliceError(Exception):
    """A slice file is missing or damaged; the text completes a sentence of the store."""


def write_slice(folder: Path, layer: str, index: int, labels: Labels) -> str:
    """Write labels (H, W); returns the file name. Raises OSError.

    Predictions can be repeated, so they need not survive a power cut; the work of a person must.
    """
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, format="PNG", compress_level=1)
    content = stream.getvalue()
    name = f"{index:05d}_{layer}_{_hash(content)}.png"
    if not (folder / name).exists():
        disk.write(folder / name, content, durable=layer != "predicted")
    return name


def read_slice(path: Path, shape: tuple[int, int]) -> Labels:
    """Read the labels of a slice of ``shape`` (H, W), allocating no more than that. Raises DamagedSliceError."""
    try:
        content = disk.read(path, _LARGEST_SLICE)
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
    """Slice, layer and hash in a file name; None if it does not match the pattern."""
    found = _SLICE_NAME.fullmatch(name)
    return None if found is None else (int(found[1]), found[2], found[3])


def slice_files(folder: Path) -> Iterator[Path]:
    """The slice files in a folder, oldest first; nothing if it does not exist."""
    if folder.is_dir():
        files = [path for path in folder.iterdir() if parse(path.name) is not None]
        yield from sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _decode(content: bytes, shape: tuple[int, int]) -> Labels:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # The size comes from the header: nothing is decoded unless it fits.
            if image.size != (shape[1], shape[0]) or image.mode not in ("I;16", "I"):
                msg = "labels of another size"
                raise DamagedSliceError(msg)
            return np.array(image).astype(np.uint16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        msg = "damaged"
        raise DamagedSliceError(msg) from error


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
