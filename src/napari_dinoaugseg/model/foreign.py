"""What a file is that holds no weights of an encoder known here: its true name, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from napari_dinoaugseg.model.specs import ENCODERS, EncoderSpec

GET_WEIGHTS = "Give a .safetensors or .pth file with the weights of an encoder, or the folder of its repository"


@dataclass(frozen=True)
class Foreign:
    """Something that was taken for weights of an encoder.

    Attributes:
        name: with its article, such as "a web page".
        advice: what to do about it: a sentence without its full stop.
    """

    name: str
    advice: str


# --- files that hold no tensors -------------------------------------------------------------------------------------

_POINTER = Foreign(
    "a Git LFS pointer, a few lines that stand for the weights",
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
    """What a file is by its first bytes (some hundreds of them), if it is anything known."""
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
    """What a ZIP archive is by the names in it; None for one that PyTorch wrote to hold tensors."""
    if any("/code/" in name for name in names):
        return _SCRIPT
    return None if any(name.endswith("data.pkl") for name in names) else _ZIP


# --- networks -------------------------------------------------------------------------------------------------------

_VIT_WIDTHS = {384: "ViT-S", 768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H+", 4096: "ViT-7B"}
_ADAPTER = ("lora_", "hada_w", "lokr_w")
# Counts of classes in ImageNet-1k, -12k, -21k and -22k.
IMAGENET_CLASSES = (1000, 11821, 21841, 21843)
OWN_MODELS = "napari-dinoaugseg"
"""Under this name the models that this program saves describe themselves."""


def instead(spec: EncoderSpec | None) -> str:
    """Where the weights of an encoder are, or those of the smallest DINOv3 encoder."""
    spec = spec or next(iter(ENCODERS.values()))
    if spec.source != "hub":
        return f"Get its own file, or use --encoder {spec.name} without one"
    places = " or ".join(spec.repositories)
    return f"Use a DINOv3 ConvNeXt (model.safetensors of {places}: --encoder {spec.name})"


def of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], spec: EncoderSpec | None) -> Foreign | None:
    """What network tensors belong to, by their names and shapes, if it is any known.

    Args:
        tensors: by name, in any layout.
        metadata: of the file, where it has any.
        spec: the encoder that was wanted.
    """
    parts = {part for name in tensors for part in name.split(".")}
    if OWN_MODELS in metadata:
        return Foreign(
            "a model that this program saved, which holds a decoder and no encoder",
            "Use it as a model (--model, --warm-start), and give the file of an encoder here",
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
    if not parts & {"pos_embed", "position_embeddings", "pos_embeddings"}:  # DINOv3 turns by position instead
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
    """What the ``config.json`` beside weights says that they are, if that is something else than DINOv3's ConvNeXt.

    Args:
        config: as transformers or timm writes it, or anything else.
        spec: the encoder that was wanted.
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
    """Whether timm's ``config.json`` says that the weights were trained to tell the classes of ImageNet apart."""
    return any(name in _timm_tag(config) for name in ("in1k", "in12k", "in22k", "in21k"))


def _timm_tag(config: Mapping[str, Any]) -> str:
    trained = config.get("pretrained_cfg")
    tag = trained.get("tag") if isinstance(trained, dict) else None
    return tag if isinstance(tag, str) else ""
