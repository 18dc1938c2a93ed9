"""What is not the weights of an encoder known here is refused by its true name, with what to do instead."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTModel,
)

from napari_dinoaugseg.errors import Hint, Message, WeightsError
from napari_dinoaugseg.model.checkpoint import Checkpoint, save_checkpoint
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.encoder import ENCODERS, load_encoder, resolve_encoder
from napari_dinoaugseg.model.weights import instead

TINY, BASE = "dinov3-convnext-tiny", "dinov3-convnext-base"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 111\n"


def refusal(path: Path, encoder: str = TINY) -> Message:
    """What is said of weights, by name and by `auto` alike: one or two lines that name the file."""
    said = []
    for ask in (lambda: load_encoder(encoder, weights=path), lambda: resolve_encoder("auto", weights=path)):
        with pytest.raises(WeightsError) as caught:
            ask()
        said.append(caught.value.message)
        assert str(path) in said[-1]
        assert len(said[-1].splitlines()) <= 2
    return said[0]


# --- files ----------------------------------------------------------------------------------------------------------


def archive(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name in names:
            opened.writestr(name, "content")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("model.safetensors"))
    return stream.getvalue()


FILES = {
    "pointer": (POINTER, "a Git LFS pointer.*git lfs pull"),
    "page": (b"<!DOCTYPE html><html><body>Log in</body></html>", "a web page.*download button"),
    "page after white space": (b"\xef\xbb\xbf\n  <html>", "a web page"),
    "server's error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "hub's error": (b'{"error":"Access to model x is restricted"}', "a JSON text"),
    "nested JSON": (b'{"err": {"code": 401, "message": "log in"}}', "a JSON text"),
    "text": (b"Weights are in the other folder.\n", "it is a text"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "a gzip archive. Unpack it"),
    "zip": (archive("dinov3/model.safetensors"), "a ZIP archive. Unpack it"),
    "tar": (tarred(), "a tar archive. Unpack it"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(50), "a GGUF file"),
    "NumPy": (b"\x93NUMPY\x01\x00v\x00", "a NumPy array"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["model.safetensors", "dinov3.pth"])
def test_a_file_that_holds_no_tensors_is_named(kind: str, name: str, tmp_path: Path) -> None:
    content, says = FILES[kind]
    path = tmp_path / name
    path.write_bytes(content)
    said = refusal(path)
    assert "does not hold weights" in said
    assert re.search(says, said, re.DOTALL), said


def test_a_torchscript_program_is_named_and_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(archive("model/data.pkl", "model/code/__torch__.py", "model/constants.pkl"))
    assert "a TorchScript program, which holds code and was not opened" in refusal(path)


# --- networks -------------------------------------------------------------------------------------------------------


def shapes_of(make: Callable[[], torch.nn.Module]) -> dict[str, Tensor]:
    """Its first blocks, of zeros: names and shapes are all that is looked at."""
    with torch.device("meta"):
        state = make().state_dict()
    numbered = [name for name in state if any(part.isdigit() and part != "0" for part in name.split("."))]
    return {name: torch.zeros(value.shape) for name, value in state.items() if name not in numbered}


def of_timm(name: str, **arguments: object) -> Callable[[], dict[str, Tensor]]:
    return lambda: shapes_of(lambda: timm.create_model(name, pretrained=False, **arguments))


def meta_dinov3_vit() -> dict[str, Tensor]:
    """Names in Meta's `dinov3_vits16_pretrain_lvd1689m-*.pth`."""
    shapes = {
        "cls_token": (1, 1, 384),
        "storage_tokens": (1, 4, 384),
        "mask_token": (1, 384),
        "patch_embed.proj.weight": (384, 3, 16, 16),
        "patch_embed.proj.bias": (384,),
        "rope_embed.periods": (16,),
        "blocks.0.norm1.weight": (384,),
        "blocks.0.attn.qkv.weight": (1152, 384),
        "blocks.0.ls1.gamma": (384,),
        "norm.weight": (384,),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def transformers_vit() -> dict[str, Tensor]:
    return shapes_of(lambda: DINOv3ViTModel(DINOv3ViTConfig(num_hidden_layers=1, num_register_tokens=4)))


def prefixed(make: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
    return lambda: {f"backbone.{name}": value for name, value in make().items()}


def low_rank() -> dict[str, Tensor]:
    names = ("lora_A.weight", "lora_B.weight")
    return {f"base_model.model.layer.0.attention.q_proj.{name}": torch.zeros(4, 4) for name in names}


NETWORKS = {
    "DINOv3 ViT, timm": (of_timm("vit_small_patch16_dinov3.lvd1689m"), r"a DINOv3 vision transformer \(ViT-S/16\)"),
    "DINOv3 ViT with SwiGLU": (of_timm("vit_small_plus_patch16_dinov3"), r"a DINOv3 vision transformer \(ViT-S\+/16\)"),
    "DINOv3 ViT, Meta": (meta_dinov3_vit, r"a DINOv3 vision transformer \(ViT-S/16\)"),
    "DINOv3 ViT, transformers": (transformers_vit, r"a DINOv3 vision transformer \(ViT-S/16\)"),
    "DINOv3 ViT in another module": (prefixed(transformers_vit), r"a DINOv3 vision transformer \(ViT-S/16\)"),
    "DINOv2, timm": (of_timm("vit_small_patch14_reg4_dinov2"), r"a DINOv2 vision transformer \(ViT-S/14\)"),
    "DINOv2, transformers": (
        lambda: shapes_of(lambda: Dinov2Model(Dinov2Config(num_hidden_layers=1))),
        r"a DINOv2 vision transformer \(ViT-B/14\)",
    ),
    "ViT, timm": (of_timm("vit_small_patch16_224"), r"a vision transformer \(ViT-S/16\), not DINOv3"),
    "ViT, transformers": (
        lambda: shapes_of(lambda: ViTModel(ViTConfig(num_hidden_layers=1))),
        r"a vision transformer \(ViT-B/16\), not DINOv3",
    ),
    "ConvNeXt, transformers": (
        lambda: shapes_of(lambda: ConvNextForImageClassification(ConvNextConfig())),
        "a ConvNeXt as transformers' ConvNextModel has it, not DINOv3",
    ),
    "ConvNeXt V2": (of_timm("convnextv2_atto"), "a ConvNeXt V2, not DINOv3"),
    "ResNet": (of_timm("resnet18"), "a ResNet"),
    "adapter": (low_rank, r"an adapter \(LoRA\)"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_another_network_is_named_and_the_convnext_to_use_instead(kind: str, tmp_path: Path) -> None:
    make, says = NETWORKS[kind]
    path = tmp_path / "weights.safetensors"
    save_file(make(), path)
    said = refusal(path, BASE)
    assert said.startswith(f"{path}: these are not the weights of {BASE}: they are those of ")
    assert re.search(says, said, re.DOTALL), said
    assert "timm/convnext_base.dinov3_lvd1689m or facebook/dinov3-convnext-base-pretrain-lvd1689m" in said


def test_a_model_of_this_program_is_named(tmp_path: Path) -> None:
    decoder = Decoder((8, 8, 16, 16), 2, width=8)
    path = tmp_path / "liver.safetensors"
    told = {"name": TINY, "fingerprint": f"{TINY}:00"}
    save_checkpoint(path, Checkpoint(decoder.state_dict(), decoder.arguments, {}, [], told, {}))
    said = refusal(path)
    assert "a model that this program saved, which holds a decoder and no encoder" in said
    assert said.hint is Hint.MODEL_IS_NO_ENCODER


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "dinov3_vit", "architectures": ["DINOv3ViTModel"]}, "a DINOv3 vision transformer"),
        ({"model_type": "segformer", "architectures": ["SegformerModel"]}, r"SegformerModel \(model_type segformer"),
        ({"model_type": "clip"}, r"clip \(model_type clip in config.json\), not a DINOv3 ConvNeXt"),
        ({"architecture": "resnet18d", "pretrained_cfg": {"tag": "ra2_in1k"}}, r"resnet18d.ra2_in1k \(config.json\)"),
    ],
)
@pytest.mark.parametrize("with_weights", [True, False])
def test_the_folder_of_another_model_is_named_by_its_config(
    config: dict, says: str, with_weights: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if with_weights:
        save_file({"some.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    said = refusal(tmp_path)
    assert re.search(says, said, re.DOTALL), said


def test_the_folder_of_an_adapter_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file(low_rank(), tmp_path / "adapter_model.safetensors")
    assert "an adapter (LoRA)" in refusal(tmp_path)


def test_a_folder_without_weights_and_one_with_several_are_refused(tmp_path: Path) -> None:
    assert "the folder holds no weights (model.safetensors). Give" in refusal(tmp_path)
    for name in ("tiny.pth", "base.pth"):
        torch.save({"a": torch.zeros(1)}, tmp_path / name)
    assert "several files with weights (base.pth, tiny.pth). Name one of them." in refusal(tmp_path)


def test_the_only_weights_of_a_folder_are_taken_whatever_their_name(
    weights_files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth").symlink_to(weights_files["meta.pth"])
    (tmp_path / "LICENSE.md").write_text("text")
    assert resolve_encoder("auto", weights=tmp_path) == TINY


def test_a_config_that_cannot_be_read_is_passed_over(weights_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(weights_files["transformers.safetensors"])
    for content in ("{", "[" * 100_000, "[]", '{"model_type": 3, "pretrained_cfg": []}'):
        (tmp_path / "config.json").write_text(content)
        assert resolve_encoder("auto", weights=tmp_path) == TINY


# --- the right shapes, other weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["timm", "Meta's ConvNeXt"])
@pytest.mark.parametrize("classes", [1000, 21841])
def test_a_convnext_that_tells_the_classes_of_imagenet_apart_is_not_dinov3(
    layout: str, classes: int, tiny_state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "convnext_tiny.pth"
    head = {"head.fc": "timm", "head": "Meta's ConvNeXt"}
    name = next(name for name, which in head.items() if which == layout)
    torch.save({**tiny_state, f"{name}.weight": torch.zeros(classes, 768), f"{name}.bias": torch.zeros(classes)}, path)
    said = refusal(path)
    assert f"a ConvNeXt with a classifier of {classes} classes, so trained on ImageNet, not with DINOv3" in said
    assert "timm/convnext_tiny.dinov3_lvd1689m" in said


def test_a_folder_that_says_imagenet_is_not_dinov3(weights_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(weights_files["timm.safetensors"])
    config = {"architecture": "convnext_tiny", "pretrained_cfg": {"tag": "fb_in22k"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert "those of convnext_tiny.fb_in22k (config.json), not DINOv3" in refusal(path)
    config["pretrained_cfg"] = {"tag": "dinov3_lvd1689m"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert resolve_encoder("auto", weights=tmp_path) == TINY


def test_every_encoder_has_something_to_use_instead() -> None:
    assert all(instead(spec).facts == {"encoder": name} for name, spec in ENCODERS.items())
    assert instead(None).facts == {"encoder": TINY}


def test_random_bytes_are_refused_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\x03" + np.random.default_rng(0).bytes(5000))
    assert "the file does not hold weights. Give" in refusal(path)
