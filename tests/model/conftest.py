"""Encoder weights for the tests: DINOv3's smallest architecture with random values, in every layout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, Tensor]:
    """Weights as timm names them, all of them random: timm's own start scales each block by a millionth."""
    with torch.device("meta"):
        model = timm.create_model("convnext_tiny.dinov3_lvd1689m", pretrained=False, num_classes=0)
    generator = torch.Generator().manual_seed(0)
    return {name: 0.05 * torch.randn(value.shape, generator=generator) for name, value in model.state_dict().items()}


def to_meta_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names in Meta's own files, which hold the last norm twice."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"^(stages\.\d+)\.blocks\.", r"\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.norm", "norm")
        renamed[name] = value
        if name.startswith("norm."):
            renamed[name.replace("norm.", "norms.3.")] = value
    return renamed


def to_transformers_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names in `facebook/dinov3-convnext-tiny-pretrain-lvd1689m`."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^stem\.", "stages.0.downsample_layers.", name)
        name = name.replace(".downsample.", ".downsample_layers.").replace("head.norm", "layer_norm")
        name = name.replace(".blocks.", ".layers.").replace(".norm.", ".layer_norm.")
        renamed[name.replace("conv_dw", "depthwise_conv").replace("mlp.fc", "pointwise_conv")] = value
    return renamed


@pytest.fixture(scope="session")
def weights_files(tiny_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights in files of all layouts."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    meta = to_meta_layout(tiny_state)
    names = ("timm.safetensors", "timm.pth", "meta.safetensors", "meta.pth", "transformers.safetensors")
    files = {name: folder / name for name in names}
    save_file(tiny_state, files["timm.safetensors"])
    torch.save(tiny_state, files["timm.pth"])
    # safetensors refuses two names for one tensor.
    save_file({name: value.clone() for name, value in meta.items()}, files["meta.safetensors"])
    torch.save({"model": meta}, files["meta.pth"])
    save_file(to_transformers_layout(tiny_state), files["transformers.safetensors"])
    return files
