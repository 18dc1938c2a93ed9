"""Trained decoders on disk: safetensors with one JSON entry, safe to open from strangers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import CheckpointError, Hint, Message, OutputError
from napari_dinoaugseg.model.decoder import Decoder

SCHEMA = 3
"""Written: 1 for a model of one sequence, 2 for one of several, so that earlier versions read them; 3 for one whose
encoder was adapted."""

_ENTRY = "napari-dinoaugseg"
_OF_ENCODER = "encoder:"  # begins the names of the encoder's weights; none of the decoder's holds a colon
_ONE = ("",)  # the sequences of a case of one
_LARGEST_HEADER = 16 * 2**20  # bytes; ours take some thousands


@dataclass(frozen=True)
class Checkpoint:
    """A trained decoder and all that is needed to use it. Everything but the weights is JSON values.

    Attributes:
        state: the decoder's weights; not the encoder's.
        decoder: the arguments of :class:`Decoder`.
        settings: of its training.
        classes: number, name and colour of each class.
        encoder: name and fingerprint of the encoder of its features, as it came from its file.
        versions: of this package and of PyTorch.
        sequences: the names of the sequences of its cases, in order; see `Slices.sequences`.
        single: outputs of classes that its pictures show in one piece; see `postprocessing.single_classes`.
        redraws: whether its masks of pictures are redrawn where it is not sure; see `completion.redraw`.
        encoder_changes: the weights of the encoder that its training changed, by name; see `Encoder.adapted`.
    """

    state: dict[str, Tensor]
    decoder: dict[str, Any]
    settings: dict[str, Any]
    classes: list[dict[str, Any]]
    encoder: dict[str, str]
    versions: dict[str, str]
    sequences: tuple[str, ...] = _ONE
    single: tuple[int, ...] = ()
    redraws: bool = False
    encoder_changes: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically. Raises OutputError."""
    content = checkpoint_bytes(checkpoint)
    try:
        disk.write(path, content)
    except OSError as error:
        msg = f"{path}: the model cannot be written there: {disk.reason(error)}."
        raise OutputError(msg) from error


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """The file of a checkpoint: the same bytes for the same content."""
    description: dict[str, Any] = {
        "schema": 1,
        "decoder": checkpoint.decoder,
        "settings": checkpoint.settings,
        "classes": checkpoint.classes,
        "encoder": checkpoint.encoder,
        "versions": checkpoint.versions,
    }
    if len(checkpoint.sequences) > 1:
        description |= {"schema": 2, "sequences": list(checkpoint.sequences)}
    if checkpoint.single:  # earlier versions read past it
        description["single"] = list(checkpoint.single)
    if checkpoint.redraws:
        description["redraws"] = True
    if checkpoint.encoder_changes:
        description |= {"schema": SCHEMA, "sequences": list(checkpoint.sequences)}
    # One entry only, because safetensors writes several in no fixed order.
    entry = json.dumps(description, sort_keys=True, allow_nan=False)
    changes = {_OF_ENCODER + name: value for name, value in checkpoint.encoder_changes.items()}
    state = {name: value.detach().cpu().contiguous() for name, value in (checkpoint.state | changes).items()}
    return save(state, metadata={_ENTRY: entry})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. It runs no code from the file and allocates no more than its size.

    Raises:
        CheckpointError: missing, truncated, damaged, not a model of this package, or of a newer version.
    """
    try:
        description = _description(path)
        state = load(path.read_bytes())
    except OSError as error:
        msg = f"{path}: the model cannot be opened: {disk.reason(error)}. Check the path."
        raise CheckpointError(msg) from error
    except (SafetensorError, KeyError) as error:  # KeyError: an unknown data type
        msg = f"{path}: the model file is cut or damaged. Copy it again, or train a new model."
        raise CheckpointError(msg) from error
    parts = _checked(description, path)
    if not all(_is_finite(value) for value in state.values()):
        msg = f"{path}: the model file is damaged: it holds values that are not numbers. Train a new model."
        raise CheckpointError(msg)
    changes = {name: state.pop(name) for name in list(state) if name.startswith(_OF_ENCODER)}
    encoder_changes = {name.removeprefix(_OF_ENCODER): value for name, value in changes.items()}
    return Checkpoint(state=state, encoder_changes=encoder_changes, **parts)


def _is_finite(value: Tensor) -> bool:
    try:
        return bool(value.isfinite().all())
    except RuntimeError:  # more than 64 axes, or a storage-only type: not weights of a decoder
        return False


def build_decoder(checkpoint: Checkpoint) -> Decoder:
    """The trained decoder, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: weights and architecture do not belong together.
    """
    try:
        # A file may claim any width: build without memory first, then use the weights in the file.
        with torch.device("meta"):
            decoder = Decoder(**checkpoint.decoder)
        expected = {name: (value.shape, value.dtype) for name, value in decoder.state_dict().items()}
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        msg = f"The model describes a decoder that this version does not know ({reason}). Train a new model."
        raise CheckpointError(msg) from error
    if {name: (value.shape, value.dtype) for name, value in checkpoint.state.items()} != expected:
        msg = "The weights in the model file do not fit the decoder that it describes. Train a new model."
        raise CheckpointError(msg)
    # Copies, so that further training does not change the checkpoint.
    decoder.load_state_dict({name: value.clone() for name, value in checkpoint.state.items()}, strict=True, assign=True)
    return decoder.eval()


def _description(path: Path) -> Any:
    """The JSON entry, read from the header, which begins with its length in 8 bytes."""
    foreign = Message(f"{path}: this is not a model saved by napari-dinoaugseg.", Hint.GIVE_MODEL)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > _LARGEST_HEADER:
            raise CheckpointError(foreign)
        if 8 + length > size:
            msg = f"{path}: the model file is cut or damaged. Copy it again, or train a new model."
            raise CheckpointError(msg)
        header = start[8:] + file.read(length - 1)
    try:
        metadata = json.loads(header).get("__metadata__", {})
        return json.loads(metadata[_ENTRY])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(foreign) from error


def _checked(description: Any, path: Path) -> dict[str, Any]:
    """The parts of the JSON entry, with their types checked."""
    schema = description.get("schema") if isinstance(description, Mapping) else None
    if isinstance(schema, int) and schema > SCHEMA:
        msg = f"{path}: the model was saved by a newer version of napari-dinoaugseg. Update it to use this model."
        raise CheckpointError(msg)
    damaged = f"{path}: the model file is damaged: its description is not complete. Copy it again."
    if schema not in range(1, SCHEMA + 1):
        raise CheckpointError(damaged)
    sequences = list(_ONE) if schema == 1 else description.get("sequences")
    if not _are_names(sequences):
        raise CheckpointError(damaged)
    single, redraws = description.get("single", []), description.get("redraws", False)
    parts = {name: description.get(name) for name in ("decoder", "settings", "classes", "encoder", "versions")}
    encoder, classes, versions = parts["encoder"], parts["classes"], parts["versions"]
    sound = (
        isinstance(parts["decoder"], dict)
        and isinstance(parts["settings"], dict)
        and isinstance(classes, list)
        and all(isinstance(entry, dict) for entry in classes)
        and isinstance(encoder, dict)
        and all(isinstance(encoder.get(name), str) for name in ("name", "fingerprint"))
        and isinstance(versions, dict)
        and isinstance(single, list)
        and all(type(output) is int and output > 0 for output in single)
        and isinstance(redraws, bool)
    )
    if not sound:
        raise CheckpointError(damaged)
    return {**parts, "sequences": tuple(sequences), "single": tuple(single), "redraws": redraws}


def _are_names(sequences: Any) -> bool:
    return isinstance(sequences, list) and bool(sequences) and all(isinstance(name, str) for name in sequences)
