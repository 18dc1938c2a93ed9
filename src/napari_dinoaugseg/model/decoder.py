"""The decoder: from four frozen feature maps to class logits (paper, section 3.3, and its reference code).

CG-Fuse is cross-attention from every position of the decoder map to a pooled encoder map, with rotary positions
(Su et al. 2021, arXiv 2104.09864). Attention is fused: the score matrix is never in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from napari_dinoaugseg.model.attention import attend

Rope = Literal["1d", "2d"]
Norm = Literal["batch", "group"]
Blocks = Literal["conv", "lean", "separable"]
Table = tuple[Tensor, Tensor]

# Base of the rotary frequencies: 10 000 is usual for sequences, 100 for the few hundred positions along an image axis.
_BASE = {"1d": 10_000.0, "2d": 100.0}

STRIDES = (4, 8, 16, 32)
_HEAD_WIDTH = 64
_POOL = {16: 2, 8: 2, 4: 4}  # pooling of the encoder map in CG-Fuse, by stride


@cache  # unlimited, because recorded training steps keep reading the tables
def rotary_table(
    rope: Rope, height: int, width: int, step: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> Table:
    """Cosines and sines that rotate the tokens of a (height, width) grid, each (height * width, head_dim / 2).

    Args:
        rope: "1d" rotates by the number of the flattened token, as the paper does; "2d" rotates half of the pairs by
            the row and half by the column.
        height: rows of the grid.
        width: columns of the grid.
        step: side of a cell in query cells. With "2d", positions are those of the cells' centres in the image, so that
            a query and the pooled cell that covers it are neighbours. "1d" counts each grid's own tokens.
        head_dim: even for "1d", a multiple of 4 for "2d".
        device: of the tables.
        dtype: of the tables.
    """
    # Cached tables made in prediction must be usable in training.
    with torch.inference_mode(False), torch.no_grad():
        n_pairs = head_dim // 2 if rope == "1d" else head_dim // 4
        speed = _BASE[rope] ** (-torch.arange(n_pairs, dtype=torch.float64) / n_pairs)
        if rope == "1d":
            angle = torch.arange(height * width, dtype=torch.float64)[:, None] * speed
        else:
            row = ((torch.arange(height, dtype=torch.float64) + 0.5) * step - 0.5)[:, None] * speed
            column = ((torch.arange(width, dtype=torch.float64) + 0.5) * step - 0.5)[:, None] * speed
            angle = torch.cat([row.repeat_interleave(width, 0), column.repeat(height, 1)], dim=1)
        return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def rotate(tokens: Tensor, table: Table) -> Tensor:
    """Rotate the pairs (i, i + D / 2) of tokens (..., N, D) by the angles of a table."""
    cosine, sine = table
    first, second = tokens.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class CrossAttention(nn.Module):
    """Attention of query tokens to context tokens, with several heads and rotary positions.

    If the heads do not divide the channels into whole rotary pairs (24, 40 of small encoders), the head size is rounded
    up, and the output projection restores the channels. At the paper's widths nothing is rounded.
    """

    def __init__(self, channels: int, heads: int = 4, rope: Rope = "1d") -> None:
        super().__init__()
        multiple = 2 if rope == "1d" else 4
        self.heads, self.rope = heads, rope
        self.head_dim = -(-channels // (heads * multiple)) * multiple
        inner = heads * self.head_dim
        self.to_query = nn.Linear(channels, inner)
        self.to_key = nn.Linear(channels, inner)
        self.to_value = nn.Linear(channels, inner)
        self.to_output = nn.Linear(inner, channels)

    def forward(self, query: Tensor, context: Tensor, query_grid: tuple[int, int], step: int) -> Tensor:
        """Attend.

        Args:
            query: (B, H * W, C) tokens of a grid of H rows and W columns.
            context: (B, (H / step) * (W / step), C) tokens of the same image on a coarser grid.
            query_grid: (H, W).
            step: side of a context cell in query cells.

        Returns:
            (B, H * W, C).
        """
        height, width = query_grid
        q, k, v = (
            self._split(self.to_query(query)),
            self._split(self.to_key(context)),
            self._split(self.to_value(context)),
        )
        q = rotate(q, rotary_table(self.rope, height, width, 1, self.head_dim, q.device, q.dtype))
        k = rotate(k, rotary_table(self.rope, height // step, width // step, step, self.head_dim, k.device, k.dtype))
        attended = attend(q, k, v)
        output: Tensor = self.to_output(attended.transpose(1, 2).flatten(2))
        return output

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, heads * D) to (B, heads, N, D)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, self.head_dim).transpose(1, 2)


class CGFuse(nn.Module):
    """Cross-attention from a decoder map to the encoder map of the same stride, pooled by ``pool``."""

    def __init__(self, channels: int, pool: int, heads: int = 4, rope: Rope = "1d") -> None:
        super().__init__()
        self.pool = pool
        self.query_norm = nn.LayerNorm(channels)
        self.context_norm = nn.LayerNorm(channels)
        self.attention = CrossAttention(channels, heads, rope)

    def forward(self, decoder_map: Tensor, encoder_map: Tensor) -> Tensor:
        """Fuse two maps (B, C, H, W), H and W divisible by ``pool``; the result has the same shape.

        The residual carries the *normed* query, as in the authors' code.
        """
        height, width = decoder_map.shape[2:]
        query = self.query_norm(decoder_map.flatten(2).transpose(1, 2))
        context = self.context_norm(F.avg_pool2d(encoder_map, self.pool).flatten(2).transpose(1, 2))
        fused: Tensor = query + self.attention(query, context, (height, width), self.pool)
        # Through (B, H, W, C), so that a batch of one is also recognised as channels last.
        return fused.reshape(-1, height, width, fused.shape[-1]).permute(0, 3, 1, 2)


def _norm(channels: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(channels, 8), channels)


def _block(c_in: int, c_out: int, norm: Norm, blocks: Blocks, size: int = 3) -> nn.Sequential:
    """A convolution (full, or 3x3 depth-wise then point-wise) without bias, normalisation, ReLU."""
    if blocks != "separable":
        layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False)]
    else:
        layers = [
            nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False),
            nn.Conv2d(c_in, c_out, 1, bias=False),
        ]
    return nn.Sequential(*layers, _norm(c_out, norm), nn.ReLU(inplace=True))


class _Stage(nn.Module):
    """One stage: upsample the decoder map by 2, fuse it with the encoder map of that stride, convolve twice."""

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
    """CG-Fuse decoder and segmentation head, the only trained part.

    The defaults are those of the paper: 7.655 million parameters before the last convolution for the channels (96, 192,
    384, 768). The other options are ours.

    Args:
        channels: of the encoder's maps at strides 4, 8, 16 and 32.
        n_classes: number of output channels, the background included; at least 2.
        width: None = each stage is as wide as its encoder map (paper). A number = 1x1 convolutions project the encoder
            maps to that many channels, the width of the whole decoder: several times faster on a CPU.
        rope: rotary positions of the flattened tokens ("1d", paper) or of rows and columns in the image ("2d").
        norm: "batch" (paper), or "group", which is independent of the rest of a small batch.
        fuse: False replaces CG-Fuse by plain skip connections (for ablations).
        add_query: concatenate the decoder map itself to the fused and the encoder map.
        blocks: "conv" (paper): two 3x3 convolutions per stage. "lean": the first, with two or three times the input
            channels, is 1x1. "separable": both depth-wise and point-wise.
        attention_strides: the stages that fuse by attention; the others concatenate.
        head: channels of the head at stride 2, with most of the pixels; None = 64 (paper), or ``width`` if less.
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
    """Channels last saves a tenth to a third of the time, but nothing on Apple's GPUs."""
    return stage if stage.device.type == "mps" else stage.contiguous(memory_format=torch.channels_last)


def _check(arguments: dict[str, Any]) -> None:
    """Raise ValueError for arguments out of range, which may come from a file."""
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
