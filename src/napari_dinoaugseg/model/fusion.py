"""CG-Fuse: the decoder's map asks, the frozen encoder's map answers (paper, section 3.3).

Cross-attention from every position of the decoder map to a pooled encoder map, with rotary positions
(Su et al. 2021, arXiv 2104.09864), through PyTorch's fused attention: the score matrix is never held in memory.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from napari_dinoaugseg.model.attention import attend

Rope = Literal["1d", "2d"]
Table = tuple[Tensor, Tensor]

# How fast the slowest rotary pair turns. 10 000 is the usual choice for sequences; along one image axis there are at
# most a few hundred positions, for which 100 is usual.
_BASE = {"1d": 10_000.0, "2d": 100.0}


@cache  # without a limit: a recorded training step reads from them as long as it lives
def rotary_table(
    rope: Rope, height: int, width: int, step: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> Table:
    """Cosines and sines that turn the tokens of a (height, width) grid, each (height * width, head_dim / 2).

    Args:
        rope: "1d" turns by the number of the flattened token, as the paper does; "2d" turns one half of the pairs by
            the row and the other half by the column.
        height: rows of the grid.
        width: columns of the grid.
        step: side of a cell in query cells. With "2d", positions are those of the cells' centres in the image, so that
            a query and the pooled cell that covers it are neighbours. "1d" counts each grid's own tokens.
        head_dim: even for "1d", a multiple of 4 for "2d".
        device: of the tables.
        dtype: of the tables.
    """
    # Cached tables made while predicting must stay usable in training.
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
    """Turn the pairs (i, i + D / 2) of tokens (..., N, D) by the angles of a table."""
    cosine, sine = table
    first, second = tokens.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class CrossAttention(nn.Module):
    """Attention of query tokens to context tokens, with several heads and rotary positions.

    Channels that the heads do not divide into whole rotary pairs (24, 40 of the small encoders) get heads that are
    rounded up; the output projection brings them back. At the paper's widths nothing is rounded.
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
        # By way of (B, H, W, C), so that a batch of one as well is known to lie channels last.
        return fused.reshape(-1, height, width, fused.shape[-1]).permute(0, 3, 1, 2)
