"""Encoder weights from files, which may come from anybody: read without running their code, and matched by shape."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import WeightsError
from napari_dinoaugseg.model import foreign, layouts
from napari_dinoaugseg.model.specs import ENCODERS, EncoderSpec, trunk_shapes

_LITE0 = "efficientnet-lite0"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# Names under which training scripts keep the weights beside other things.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "teacher")
# Steps of a pickle that fetch or call something.
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX")
# What a repository of the hub calls its weights; the safer format first. An index names several files.
_INDEX = ".index.json"
_IN_REPOSITORY = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_LARGEST_JSON = 16 * 2**20  # bytes
_LARGEST_HEADER = 2**40  # bytes, which a text read as a number exceeds by far
_HEADS = ("head.", "conv_head.", "bn2.", "classifier.")
_CLASSIFIERS = ("head.fc.weight", "head.weight", "classifier.weight")


@dataclass(frozen=True)
class _Content:
    """What a weights file holds, and what is said about it.

    Attributes:
        path: the file.
        tensors: by the names that it has there.
        metadata: of a .safetensors file.
        config: the ``config.json`` beside it, where it lies in a folder made for it.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of a .pth, .pt or .bin file of PyTorch.

    What the file is decides its content, not its name. Code in a file is never run: pickles go through PyTorch's
    loader for tensors only.

    Args:
        path: a file; or a folder, see :func:`weights_in`; or the index of weights that are split over several files.

    Raises:
        WeightsError: no such file, cut or damaged, no weights in it, or it holds code.
    """
    return _read(path).tensors


def weights_in(folder: Path) -> Path | None:
    """The weights in a folder as the hub keeps them, or as transformers and timm save them; None where there are none.

    Raises:
        OSError: the folder cannot be looked into.
    """
    for name in _IN_REPOSITORY:
        if (folder / name).is_file():
            return folder / name
    return None


def snapshots(repository: Path) -> list[Path]:
    """Folders with the files of a repository in the hub's cache (``models--OWNER--NAME``): the current one first.

    A cache that was copied by hand may know no current one; then the newest comes first.
    """
    try:
        found = [folder for folder in (repository / "snapshots").iterdir() if folder.is_dir()]
        found.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        current = repository / "refs" / "main"
        commit = current.read_text("utf-8").strip() if current.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return []
    return sorted(found, key=lambda folder: folder.name != commit)


def fit_weights(path: Path, spec: EncoderSpec | None = None) -> tuple[EncoderSpec, dict[str, Tensor]]:
    """Read a weights file and find the encoder that it belongs to.

    Args:
        path: a file or folder (see :func:`read_tensors`) in timm's, Meta's or transformers' layout; for
            efficientnet-lite0 timm's or its package's.
        spec: the encoder that it must belong to; None = any.

    Returns:
        The encoder, and its weights under timm's names in timm's order, float32, in memory of their own.

    Raises:
        WeightsError: see :func:`read_tensors`; or the weights of another encoder, or of none known here.
    """
    content = _read(path)
    wanted = [spec] if spec is not None else list(ENCODERS.values())
    found, fitting = _recognise(content.tensors, wanted)
    if found is None or fitting is None:
        raise WeightsError(_refusal(content, spec))
    _refuse_imagenet(content, found)
    state = {
        # The step counters of BatchNorm stay whole numbers; they do not matter for the maps.
        name: value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()
        for name, value in fitting.items()
    }
    if not all(bool(value.isfinite().all()) for value in state.values()):
        msg = f"{path}: the weights hold values that are not numbers. The file is damaged; get it again."
        raise WeightsError(msg)
    return found, state


def has_classifier(path: Path) -> bool:
    """Whether the file also holds a layer that tells image classes apart, which no DINOv3 file does."""
    return _classifier(read_tensors(path)) is not None


def _classifier(tensors: Mapping[str, Tensor]) -> Tensor | None:
    return next((tensors[name] for name in _CLASSIFIERS if name in tensors and tensors[name].ndim), None)


# --- reading --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> _Content:
    given, path = path, _file_in(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else disk.reason(error)
        msg = f"{path}: the weights cannot be opened: {reason}. Check the path."
        raise WeightsError(msg) from error
    config = _config(path.parent) if given != path or path.name in _IN_REPOSITORY else {}
    if path.name.endswith(_INDEX):
        return _Content(path, _read_parts(path), config=config)
    if start.startswith((_ZIP, _PICKLE)):
        return _Content(path, _named_tensors(_read_torch(path), path), config=config)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LARGEST_HEADER:
        tensors, metadata = _read_safetensors(path)
        return _Content(path, _named_tensors(tensors, path), metadata, config)
    if not start:
        msg = f"{path}: the file is empty. {foreign.GET_WEIGHTS}."
        raise WeightsError(msg)
    found = foreign.of_bytes(start)
    msg = f"{path}: the file does not hold weights. {foreign.GET_WEIGHTS}."
    if found is not None:
        msg = f"{path}: the file does not hold weights: it is {found.name}. {found.advice}."
    raise WeightsError(msg)


def _file_in(path: Path) -> Path:
    """The file that is meant: of a folder the weights in it, or in the snapshot of the hub's cache that it is."""
    try:
        if not path.is_dir():
            return path
        for folder in (path, *snapshots(path)):
            found = weights_in(folder)
            if found is not None:
                return found
        others = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    except OSError as error:
        msg = f"{path}: the folder cannot be opened: {disk.reason(error)}. Check the path."
        raise WeightsError(msg) from error
    if len(others) == 1:
        return others[0]
    if others:
        msg = f"{path}: the folder holds several files with weights ({_listing(others)}). Name one of them."
        raise WeightsError(msg)
    found_config = foreign.of_config(_config(path), None)
    what = f"; it belongs to {found_config.name}" if found_config is not None else ""
    msg = f"{path}: the folder holds no weights (model.safetensors){what}. {foreign.GET_WEIGHTS}."
    raise WeightsError(msg)


def _listing(files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:3])
    return f"{names}, …" if len(files) > 3 else names


def _json(path: Path) -> Any:
    """The content of a JSON file of sensible size. Raises OSError, ValueError, RecursionError."""
    if path.stat().st_size > _LARGEST_JSON:
        msg = "too large"
        raise ValueError(msg)
    return json.loads(path.read_bytes())


def _config(folder: Path) -> Mapping[str, Any]:
    """What the folder says of the network in it; nothing where it says nothing that can be read."""
    for name in ("config.json", "adapter_config.json"):
        try:
            content = _json(folder / name)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            return content
    return {}


def _read_parts(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names: ``{"weight_map": {tensor: file}}``, files beside it."""
    try:
        content = _json(index)
        names = sorted(set(content["weight_map"].values()))
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        msg = f"{index}: the index of the weights is damaged. Get it again."
        raise WeightsError(msg) from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not (isinstance(name, str) and name.isprintable() and name.endswith(_SUFFIXES) and Path(name).name == name):
            msg = f"{index}: the index names '{name}', which is no file of weights beside it. Get it again."
            raise WeightsError(msg)
        tensors.update(_read(index.parent / name).tensors)
    return tensors


def _read_torch(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _require_tensors_in(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            # Mapped into memory, a file of 800 MB is not held twice; PyTorch maps only its newer, zipped format.
            if zipped:
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


def _require_tensors_in(archive: Path) -> None:
    """Refuse a ZIP archive that is no file of tensors, by what it is."""
    try:
        with zipfile.ZipFile(archive) as opened:
            found = foreign.of_archive(opened.namelist())
    except Exception:  # damaged: PyTorch's loader refuses it next
        return
    if found is not None:
        msg = f"{archive}: the file does not hold weights: it is {found.name}. {found.advice}."
        raise WeightsError(msg)


def _holds_code(error: pickle.UnpicklingError, path: Path) -> bool:
    """Whether the loader for tensors stopped at code, and not merely at a step that it does not know."""
    if "Unsupported operand" not in str(error):
        return any(word in str(error) for word in ("GLOBAL", "Can only", "Can not", "Trying to"))
    try:
        return any(step.name in _CALLS for step, _, _ in pickletools.genops(path.read_bytes()))
    except (ValueError, OSError):  # cut in the middle
        return False


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
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


# --- matching -------------------------------------------------------------------------------------------------------


def _recognise(
    tensors: dict[str, Tensor], specs: list[EncoderSpec]
) -> tuple[EncoderSpec | None, dict[str, Tensor] | None]:
    for spec in specs:
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
    extra = [name for name in state if name not in expected and not name.startswith(_HEADS)]
    if extra or not state.keys() >= expected.keys():
        return None
    return {name: state[name] for name in expected}


def _in_timm_layout(tensors: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor] | None:
    if spec.name == _LITE0:
        return layouts.efficientnet_lite0(tensors, list(trunk_shapes(spec.name)))
    return layouts.convnext(tensors)


def _refuse_imagenet(content: _Content, spec: EncoderSpec) -> None:
    """Refuse a ConvNeXt that was trained to classify ImageNet: it has the shapes of DINOv3's, not its weights."""
    if spec.source != "hub":
        return
    layer = _classifier(content.tensors)
    if layer is not None and layer.shape[0] in foreign.IMAGENET_CLASSES:
        what = f"a ConvNeXt with a classifier of {layer.shape[0]} classes, so trained on ImageNet, not with DINOv3"
    elif foreign.is_imagenet(content.config) and (found := foreign.of_config(content.config, spec)):
        what = found.name
    else:
        return
    msg = (
        f"{content.path}: these are not the weights of {spec.name}: they are those of {what}.\n{foreign.instead(spec)}."
    )
    raise WeightsError(msg)


def _refusal(content: _Content, spec: EncoderSpec | None) -> str:
    """Why weights are not taken: whose they are, else what is missing."""
    other = _recognise(content.tensors, list(ENCODERS.values()))[0] if spec is not None else None
    if spec is not None and other is not None:
        return (
            f"{content.path}: these are the weights of {other.name}, not of {spec.name}. Choose --encoder {other.name}."
        )
    wanted = spec.name if spec is not None else "an encoder known here"
    start = f"{content.path}: these are not the weights of {wanted}"
    found = foreign.of_tensors(content.tensors, content.metadata, spec) or foreign.of_config(content.config, spec)
    if found is not None:
        return f"{start}: they are those of {found.name}.\n{found.advice}."
    if spec is not None:
        return f"{start}: {_difference(content.tensors, spec)}. Get its own file."
    near = _nearest(content.tensors)
    if near is not None:
        start = f"{start}; nearest is {near.name}, but {_difference(content.tensors, near)}"
    return f"{start}. Use one of {', '.join(ENCODERS)}."


def _nearest(tensors: dict[str, Tensor]) -> EncoderSpec | None:
    """The encoder that has most of its tensors here, in number and shape; None where none has half of them."""
    shares = {}
    for spec in ENCODERS.values():
        expected, state = trunk_shapes(spec.name), _in_timm_layout(tensors, spec) or {}
        fitting = sum(name in state and tuple(state[name].shape) == shape for name, shape in expected.items())
        shares[spec] = fitting / len(expected)
    best = max(shares, key=lambda spec: shares[spec])
    return best if shares[best] >= 0.5 else None


def _difference(tensors: dict[str, Tensor], spec: EncoderSpec) -> str:
    """In a few words, why tensors are not an encoder's."""
    expected = trunk_shapes(spec.name)
    state = _in_timm_layout(tensors, spec) or tensors
    missing = [name for name in expected if name not in state]
    if len(missing) == len(expected):
        return "none of its tensors are in the file"
    if missing:
        return f"{len(missing)} of {len(expected)} tensors are missing, {missing[0]} for one"
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            return f"{name} has the shape {tuple(state[name].shape)} instead of {shape}"
    return "there are tensors that it does not have"
