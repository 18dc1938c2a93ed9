"""Damaged and hostile files of weights: our checkpoints, and encoder weights in safetensors and PyTorch's formats."""

from __future__ import annotations

import contextlib
import copyreg
import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from napari_dinoaugseg.model.checkpoint import build_decoder, load_checkpoint
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.specs import ENCODERS, trunk_shapes
from napari_dinoaugseg.model.weights import fit_weights, has_classifier
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.mutators import INTEGERS, Mutator, confused, damaged, pick

ENTRY = "napari-dinoaugseg"
MARKER = "DINOAUGSEG_FUZZ_MARKER"
_DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "C64", "XX"]


# --- safetensors: a length, JSON, and tensors ---


def _parts(data: bytes) -> tuple[Any, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _joined(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def header_length(data: bytes, rng: np.random.Generator) -> bytes:
    length = int.from_bytes(data[:8], "little")
    changed = pick(rng, (length - 1, length + 1, length + 8, 0, 1, len(data), *INTEGERS)) % 2**64
    return changed.to_bytes(8, "little") + data[8:]


def header_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Another type, shape or place of one tensor, or any change of the JSON."""
    try:
        header, body = _parts(data)
        names = [name for name in header if name != "__metadata__"]
        entry = header[pick(rng, names)]
        choice = rng.random()
        if choice < 0.25:
            entry["dtype"] = pick(rng, _DTYPES)
        elif choice < 0.5:
            entry["shape"] = pick(rng, ([], [0], [1] * 70, entry["shape"][::-1], [pick(rng, INTEGERS)], [2**32, 2**32]))
        elif choice < 0.75:
            entry["data_offsets"] = [value + pick(rng, (0, 4, -4, 2**40, -(2**40))) for value in entry["data_offsets"]]
        else:
            header = confused(header, rng)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return data
    return _joined(header, body)


def description(data: bytes, rng: np.random.Generator) -> bytes:
    """Any change of what a checkpoint says of itself; of its decoder most often."""
    try:
        header, body = _parts(data)
        told = json.loads(header["__metadata__"][ENTRY])
        if rng.random() < 0.6:
            told["decoder"] = confused(told["decoder"], rng)
        else:
            told = confused(told, rng)
        text = "[" * 10**5 if rng.random() < 0.02 else json.dumps(told)
    except (ValueError, KeyError, TypeError, RecursionError):
        return data
    return _joined({**header, "__metadata__": {ENTRY: text}}, body)


def values(data: bytes, rng: np.random.Generator) -> bytes:
    """Numbers that are none among the weights."""
    try:
        header, body = _parts(data)
    except (ValueError, RecursionError):
        return data
    if len(body) < 4:
        return data
    place = 4 * int(rng.integers(len(body) // 4))
    return _joined(
        header, body[:place] + np.float32(pick(rng, (np.nan, np.inf, 1e38, 0))).tobytes() + body[place + 4 :]
    )


SAFE: tuple[Mutator, ...] = (header_length, header_json, header_json, values)


def checkpoints() -> Sequence[Files]:
    made: list[Files] = []
    for options in ({"width": 8, "rope": "2d"}, {"norm": "group"}, {"width": 8, "fuse": False, "blocks": "separable"}):
        decoder = Decoder((8, 8, 16, 16), 3, **options)  # type: ignore[arg-type]
        told = {
            "schema": 1,
            "decoder": decoder.arguments,
            "settings": {"preset": "fast", "input_size": 256},
            "classes": [{"number": 3, "name": "liver", "colour": "#c03030"}],
            "encoder": {"name": "efficientnet-lite0", "fingerprint": "efficientnet-lite0:00"},
            "versions": {"napari-dinoaugseg": "0.1.0", "torch": "2.4"},
        }
        made.append({"liver.model": save(decoder.state_dict(), {ENTRY: json.dumps(told)})})
    adapted = {**told, "schema": 3, "sequences": [""]}
    weights = {**decoder.state_dict(), "encoder:conv_stem.weight": torch.zeros(4, 3, 3, 3)}
    made.append({"liver.model": save(weights, {ENTRY: json.dumps(adapted)})})
    return made


def damage_checkpoint(files: Files, rng: np.random.Generator) -> Files:
    return {name: damaged(data, rng, (*SAFE, description, description), share=0.85) for name, data in files.items()}


def check_checkpoint(folder: Path) -> None:
    build_decoder(load_checkpoint(folder / "liver.model"))


# --- PyTorch: a pickle, in a ZIP archive or not ---


class Call:
    """Pickles as a call, in one of the ways that unpicklers know."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def hostile(rng: np.random.Generator) -> bytes:
    """A pickle that would make the file that `MARKER` names, at any protocol, alone or among weights."""
    made = f"open(__import__('os').environ[{MARKER!r}], 'w').close()"
    call = pick(
        rng,
        (
            Call(os.system, f'touch "${MARKER}"'),
            Call(exec, made),
            Call(eval, made),
            Call(pickle.loads, pickle.dumps(Call(exec, made))),
            Call(copyreg._reconstructor, Call(exec, made), object, None),  # type: ignore[attr-defined]
            Call(torch.load, Call(exec, made)),
        ),
    )
    content = pick(rng, (call, {"a": call}, {"state_dict": {"a": torch.zeros(2), "b": call}}, [call]))
    protocol = int(rng.integers(6))
    if rng.random() < 0.5:
        return pickle.dumps(content, protocol)
    stream = io.BytesIO()
    torch.save(
        content, stream, pickle_protocol=max(protocol, 1), _use_new_zipfile_serialization=bool(rng.random() < 0.6)
    )
    return stream.getvalue()


@cache
def weights() -> tuple[Files, ...]:
    """Weights of the smallest encoder, a few tensors of the others, in all formats."""
    generator = torch.Generator().manual_seed(0)
    few = {name: torch.randn(3, 2, generator=generator) for name in ("stem.0.weight", "head.fc.weight", "norm.bias")}
    made: list[Files] = [{"weights.safetensors": save(few)}]
    for content in (few, {"model": few}, {"state_dict": {"a": few}}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=zipped)
            made.append({"weights.pth": stream.getvalue()})
    return tuple(made)


@cache
def _whole() -> bytes:
    """A file that is taken: so that also what follows on reading is seen."""
    shapes = trunk_shapes("efficientnet-lite0")
    counters = ("num_batches_tracked",)
    state = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith(counters) else torch.float16)
        for name, shape in shapes.items()
    }
    return save(state)


def seeds() -> Sequence[Files]:
    return [*weights(), {"weights.safetensors": _whole()}]


def zip_entry(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage, drop, double or repack one file of the archive; or let one pretend to be huge."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 2**26:
                return data
            entries = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, ValueError):
        return data
    if not entries:
        return data
    place = int(rng.integers(len(entries)))
    name, content = entries[place]
    choice = int(rng.integers(4))
    if choice == 0:
        del entries[place]
    elif choice == 1:
        entries[place] = (pick(rng, (f"../{name}", name.upper(), name * 9, "data.pkl", "archive/data.pkl")), content)
    elif choice == 2:
        entries[place] = (name, bytes(2**24))
    else:
        entries[place] = (name, damaged(content, rng))
    stream = io.BytesIO()
    kind = pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def damage_weights(files: Files, rng: np.random.Generator) -> Files:
    if rng.random() < 0.1:
        data = hostile(rng)
        return {"weights.pth": damaged(data, rng, (zip_entry,), share=0.5) if rng.random() < 0.3 else data}
    ((name, data),) = files.items()
    return {name: damaged(data, rng, SAFE if name.endswith("safetensors") else (zip_entry,), share=0.5)}


def check_weights(folder: Path) -> None:
    (path,) = folder.iterdir()
    marker = folder / "marker"
    os.environ[MARKER] = str(marker)
    try:
        fit_weights(path)
        fit_weights(path, ENCODERS["efficientnet-lite0"])
        has_classifier(path)
    finally:
        assert not marker.exists(), "code of the file was run"


CHECKPOINTS = Target("checkpoint", checkpoints, damage_checkpoint, check_checkpoint, cases=150)
WEIGHTS = Target("encoder weights", seeds, damage_weights, check_weights, cases=120)


@pytest.mark.parametrize("kind", ["CHECKPOINTS", "WEIGHTS"])
def test_damaged_weights_are_read_or_refused(kind: str, record_property: Callable[[str, object], None]) -> None:
    fuzz(f"{__name__}:{kind}", record_property)


@pytest.mark.parametrize("number", range(12))
def test_the_pickles_of_this_test_are_dangerous(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened as no one should, each makes its file: without this the test above would show nothing."""
    monkeypatch.setenv(MARKER, str(tmp_path / "marker"))
    (tmp_path / "weights.pth").write_bytes(hostile(np.random.default_rng(number)))
    with contextlib.suppress(Exception):  # some calls fail once they have done their harm
        torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / "marker").exists()
