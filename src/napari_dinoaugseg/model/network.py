"""The decoder: from four frozen feature maps to class logits (paper, section 3.3 and its reference code)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from napari_dinoaugseg.model.fusion import CGFuse, Rope

Norm = Literal["batch", "group"]
Blocks = Literal["conv", "lean", "separable"]

STRIDES = (4, 8, 16, 32)
_HEAD_WIDTH = 64
# The encoder map that answers is pooled by so much at each stride.
_POOL = {16: 2, 8: 2, 4: 4}


def _norm(channels: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(channels, 8), channels)


def _block(c_in: int, c_out: int, norm: Norm, blocks: Blocks, size: int = 3) -> nn.Sequential:
    """A convolution (full, or 3x3 depth-wise then point-wise), normalisation, ReLU.

    No bias in front of a normalisation, which would take it out again.
    """
    if blocks != "separable":
        layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False)]
    else:
        layers = [
            nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False),
            nn.Conv2d(c_in, c_out, 1, bias=False),
        ]
    return nn.Sequential(*layers, _norm(c_out, norm), nn.ReLU(inplace=True))


class _Stage(nn.Module):
    """One step up: double the decoder map's size, fuse it with the encoder map there, convolve twice."""

    def __init__(
        self, c_in: int, channels: int, *, attend: CGFuse | None, norm: Norm, add_query: bool, blocks: Blocks
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(c_in, channels, 2, 2)
        self.fuse = attend
        self.add_query = add_query and self.fuse is not None
        n_maps = 3 if self.add_query else 2
        self.blocks = nn.Sequential(
            _block(n_maps * channels, channels, norm, blocks, size=1 if blocks == "lean" else 3),
            _block(channels, channels, norm, blocks),
        )

    def forward(self, decoder_map: Tensor, encoder_map: Tensor) -> Tensor:
        query = self.up(decoder_map)
        joined = [query if self.fuse is None else self.fuse(query, encoder_map), encoder_map]
        if self.add_query:
            joined.append(query)
        output: Tensor = self.blocks(torch.cat(joined, dim=1))
        return output


class Decoder(nn.Module):
    """CG-Fuse decoder and segmentation head, the only part that is trained.

    With the defaults it is the paper's: 7.655 million parameters in front of the last convolution for the channels
    (96, 192, 384, 768). The other options are ours.

    Args:
        channels: of the encoder's maps at strides 4, 8, 16 and 32.
        n_classes: number of output channels, the background included; at least 2.
        width: None = each stage as wide as its encoder map (paper). A number = 1x1 convolutions bring the encoder
            maps to that many channels and the whole decoder runs at it: several times faster on a CPU.
        rope: rotary positions of the flattened tokens ("1d", paper) or of rows and columns in the image ("2d").
        norm: "batch" (paper), or "group", which does not depend on what else is in a small batch.
        fuse: False replaces CG-Fuse by plain skip connections (for ablations).
        add_query: also hand the decoder map itself to the convolutions, beside the fused and the encoder map.
        blocks: "conv" (paper): two 3x3 convolutions a stage. "lean": the first, which has two or three times the
            channels to read, is 1x1. "separable": both depth-wise and point-wise.
        attention_strides: the stages that fuse by attention; the others concatenate.
        head: channels of the head at stride 2, where most of the pixels are; None = 64 (paper), or ``width`` if less.
        heads: of the attention. Heads of 16 channels take half the time of heads of 12 on a CPU.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        n_classes: int,
        width: int | None = None,
        *,
        rope: Rope = "1d",
        norm: Norm = "batch",
        fuse: bool = True,
        add_query: bool = False,
        blocks: Blocks = "conv",
        attention_strides: Sequence[int] = (16, 8, 4),
        head: int | None = None,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "channels": list(channels),
            "n_classes": n_classes,
            "width": width,
            "rope": rope,
            "norm": norm,
            "fuse": fuse,
            "add_query": add_query,
            "blocks": blocks,
            "attention_strides": list(attention_strides),
            "head": head,
            "heads": heads,
        }
        _check(self.arguments)
        widths = list(channels) if width is None else [width] * 4
        self.project = nn.ModuleList(nn.Identity() if width is None else nn.Conv2d(c, width, 1) for c in channels)
        self.stages = nn.ModuleList(
            _Stage(
                widths[level + 1],
                widths[level],
                attend=CGFuse(widths[level], _POOL[STRIDES[level]], heads, rope)
                if fuse and STRIDES[level] in attention_strides
                else None,
                norm=norm,
                add_query=add_query,
                blocks=blocks,
            )
            for level in (2, 1, 0)
        )
        narrow = head or min(_HEAD_WIDTH, width or _HEAD_WIDTH)
        self.head = nn.Sequential(
            nn.ConvTranspose2d(widths[0], narrow, 2, 2),
            _block(narrow, narrow, norm, blocks),
            _block(narrow, narrow, norm, blocks),
        )
        self.classify = nn.Conv2d(narrow, n_classes, 1)

    @property
    def n_classes(self) -> int:
        """Number of output channels, the background included."""
        return self.classify.out_channels

    def forward(self, features: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Logits from the maps of an image whose sides are multiples of 32.

        Args:
            features: four maps (B, C, H / stride, W / stride) at strides 4, 8, 16 and 32.
            size: (rows, columns) of the logits, reached by bilinear interpolation; None = at stride 2.

        Returns:
            (B, n_classes, rows, columns).
        """
        maps = [project(_fastest(stage)) for project, stage in zip(self.project, features, strict=True)]
        current = maps[3]
        for stage, skip in zip(self.stages, reversed(maps[:3]), strict=True):
            current = stage(current, skip)
        logits: Tensor = self.classify(self.head(current))
        if size is None:
            return logits
        return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def _fastest(stage: Tensor) -> Tensor:
    """Channels last, which saves a tenth to a third of the time; PyTorch on Apple's GPUs does not profit from it."""
    return stage if stage.device.type == "mps" else stage.contiguous(memory_format=torch.channels_last)


def _check(arguments: dict[str, Any]) -> None:
    """Refuse arguments out of range with a ValueError: they may come from a file."""
    channels, n_classes = arguments["channels"], arguments["n_classes"]
    if len(channels) != len(STRIDES) or not all(_is_count(c, 1) for c in channels):
        msg = f"channels must be {len(STRIDES)} positive numbers, not {channels}"
        raise ValueError(msg)
    if not _is_count(n_classes, 2):
        msg = f"n_classes must be at least 2 (background and one class), not {n_classes}"
        raise ValueError(msg)
    if not _is_count(arguments["heads"], 1):
        msg = f"heads must be a positive number, not {arguments['heads']}"
        raise ValueError(msg)
    for name in ("width", "head"):
        value = arguments[name]
        if value is not None and not _is_count(value, 1):
            msg = f"{name} must be None or a positive number, not {value}"
            raise ValueError(msg)
    choices: dict[str, tuple[object, ...]] = {
        "rope": ("1d", "2d"),
        "norm": ("batch", "group"),
        "blocks": ("conv", "lean", "separable"),
        "fuse": (True, False),
        "add_query": (True, False),
    }
    for name, allowed in choices.items():
        if arguments[name] not in allowed:
            msg = f"{name} must be one of {allowed}, not {arguments[name]!r}"
            raise ValueError(msg)
    if not set(arguments["attention_strides"]) <= set(_POOL):
        msg = f"attention_strides must be among {tuple(_POOL)}, not {arguments['attention_strides']}"
        raise ValueError(msg)


def _is_count(value: object, smallest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest
