"""Encoder weights from files, which may come from anybody: read without running their code, and matched by shape."""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import WeightsError
from napari_dinoaugseg.model.specs import ENCODERS, EncoderSpec, build_trunk, trunk_shapes

_LITE0 = "efficientnet-lite0"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# Names under which training scripts keep the weights beside other things.
_WRAPPERS = ("model", "state_dict")
# Steps of a pickle that fetch or call something.
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of a .pth, .pt or .bin file of PyTorch.

    What the file is decides its content, not its name. Code in a file is never run: pickles go through PyTorch's
    loader for tensors only.

    Raises:
        WeightsError: no such file, cut or damaged, no weights in it, or it holds code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else disk.reason(error)
        msg = f"{path}: the weights cannot be opened: {reason}. Check the path."
        raise WeightsError(msg) from error
    if start.startswith((_ZIP, _PICKLE)):
        content = _read_torch(path)
    elif start[8:] == b"{":
        content = _read_safetensors(path)
    else:
        what = "is empty" if not start else "does not hold weights"
        msg = f"{path}: the file {what}. Give a .safetensors or .pth file with the weights of an encoder."
        raise WeightsError(msg)
    return _named_tensors(content, path)


def fit_weights(path: Path, spec: EncoderSpec | None = None) -> tuple[EncoderSpec, dict[str, Tensor]]:
    """Read a weights file and find the encoder that it belongs to.

    Args:
        path: timm's layout, or the layout of Meta's own DINOv3 files; for efficientnet-lite0 timm's or its package's.
        spec: the encoder that it must belong to; None = any.

    Returns:
        The encoder, and its weights under timm's names in timm's order, float32, in memory of their own.

    Raises:
        WeightsError: see :func:`read_tensors`; or the weights of another encoder, or of none known here.
    """
    tensors = read_tensors(path)
    if spec is None:
        spec, fitting = _recognise(tensors)
        if spec is None:
            msg = f"{path}: these are not the weights of an encoder known here. Use one of {', '.join(ENCODERS)}."
            raise WeightsError(msg)
    else:
        fitting = _match(tensors, spec)
    if fitting is None:
        other, _ = _recognise(tensors)
        msg = f"{path}: these are not the weights of {spec.name}: {_difference(tensors, spec)}. Get its own file."
        if other is not None:
            msg = f"{path}: these are the weights of {other.name}, not of {spec.name}. Choose --encoder {other.name}."
        raise WeightsError(msg)
    state = {
        # The step counters of BatchNorm stay whole numbers; they do not matter for the maps.
        name: value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()
        for name, value in fitting.items()
    }
    if not all(bool(value.isfinite().all()) for value in state.values()):
        msg = f"{path}: the weights hold values that are not numbers. The file is damaged; get it again."
        raise WeightsError(msg)
    return spec, state


def has_classifier(path: Path) -> bool:
    """Whether the file also holds a layer that tells image classes apart, which no DINOv3 file does."""
    return any(name in ("head.fc.weight", "head.weight") for name in read_tensors(path))


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            # Mapped into memory, a file of 800 MB is not held twice; PyTorch maps only its newer, zipped format.
            if zipfile.is_zipfile(path):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            # From memory: a text in the pickle may claim any length, and a read from disk allocates it beforehand.
            return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = f"{path}: the weights file is cut or damaged. Get it again."
        if _holds_code(error, path):
            msg = (
                f"{path}: the file holds code beside weights and was not opened. "
                "Get the weights from a source that you trust, best as .safetensors."
            )
        raise WeightsError(msg) from error
    except Exception as error:  # a damaged file can fail anywhere in the unpickler
        msg = f"{path}: the weights file is cut or damaged. Get it again."
        raise WeightsError(msg) from error


def _holds_code(error: pickle.UnpicklingError, path: Path) -> bool:
    """Whether the loader for tensors stopped at code, and not merely at a step that it does not know."""
    if "Unsupported operand" not in str(error):
        return any(word in str(error) for word in ("GLOBAL", "Can only", "Can not", "Trying to"))
    try:
        return any(step.name in _CALLS for step, _, _ in pickletools.genops(path.read_bytes()))
    except (ValueError, OSError):  # cut in the middle
        return False


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        msg = f"{path}: the weights file is cut or damaged. Get it again."
        raise WeightsError(msg) from error


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors and all(value.layout == torch.strided for value in tensors.values()):
            return tensors
    msg = f"{path}: the file holds no named tensors, so no weights of an encoder. Give another file."
    raise WeightsError(msg)


def _recognise(tensors: dict[str, Tensor]) -> tuple[EncoderSpec | None, dict[str, Tensor] | None]:
    for spec in ENCODERS.values():
        state = _match(tensors, spec)
        if state is not None:
            return spec, state
    return None, None


def _match(tensors: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor] | None:
    """The tensors under timm's names, in timm's order, without the head; None where anything is missing or extra."""
    expected = trunk_shapes(spec.name)
    state = _in_timm_layout(tensors, spec)
    if state is None or any(tuple(state[name].shape) != shape for name, shape in expected.items() if name in state):
        return None
    extra = [name for name in state if name not in expected and not name.startswith(("head.", *_LITE0_HEAD_TIMM))]
    if extra or not state.keys() >= expected.keys():
        return None
    return {name: state[name] for name in expected}


@cache
def _trunk(name: str) -> Any:
    """An encoder's shapes to compare with; building it takes longer than reading most files."""
    return build_trunk(ENCODERS[name])


_LITE0_HEAD_TIMM = ("conv_head.", "bn2.", "classifier.")
_LITE0_HEAD_PACKAGE = ("_conv_head.", "_bn1.", "_fc.")


def _in_timm_layout(tensors: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor] | None:
    if spec.name != _LITE0:
        from timm.models.convnext import checkpoint_filter_fn

        try:
            renamed: dict[str, Tensor] = checkpoint_filter_fn(tensors, _trunk(spec.name))
        except (KeyError, RuntimeError):  # it looks the shapes up in the model: another encoder
            return None
        return renamed
    if "_conv_stem.weight" not in tensors:
        return tensors
    # The package names its layers otherwise, but keeps timm's order.
    trunk = {name: value for name, value in tensors.items() if not name.startswith(_LITE0_HEAD_PACKAGE)}
    names = list(trunk_shapes(spec.name))
    if len(trunk) != len(names) or any(
        ours.rpartition(".")[2] != theirs.rpartition(".")[2] for ours, theirs in zip(names, trunk, strict=True)
    ):
        return None
    return dict(zip(names, trunk.values(), strict=True))


def _difference(tensors: dict[str, Tensor], spec: EncoderSpec) -> str:
    """In a few words, why tensors are not an encoder's."""
    expected = trunk_shapes(spec.name)
    state = _in_timm_layout(tensors, spec) or tensors
    missing = [name for name in expected if name not in state]
    if missing:
        return f"{len(missing)} of {len(expected)} tensors are missing, {missing[0]} for one"
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            return f"{name} has the shape {tuple(state[name].shape)} instead of {shape}"
    return "there are tensors that it does not have"
