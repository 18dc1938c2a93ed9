"""Attention of many queries to fewer keys in bfloat16 on a CPU, for training.

PyTorch's fused attention multiplies small tiles, and with heads of 24 to 48 channels reaches a third of the CPU's peak.
Products of a few hundred queries with all keys reach most of it, and their scores stay in the CPU's cache. The full
score matrix is never in memory, forward or backward (as in Dao et al. 2022, arXiv 2205.14135).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor
from torch.autograd.function import once_differentiable

_PIECE = 1 << 22  # scores at a time: 8 MB of bfloat16
_LOG2_E = math.log2(math.e)
# Largest absolute score, as an exponent of 2: powers, their sums and quotients stay within 2 ** -126 to 2 ** 127.
_LARGEST = 60.0


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention without a mask.

    Args:
        query: (B, heads, N, D).
        key: (B, heads, M, D).
        value: (B, heads, M, D).

    Returns:
        (B, heads, N, D), as from :func:`torch.nn.functional.scaled_dot_product_attention`, within rounding.
    """
    in_pieces = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if in_pieces and _largest(query, key) < _LARGEST:
        attended: Tensor = _InPieces.apply(query, key, value)
        return attended
    return F.scaled_dot_product_attention(query, key, value)


def _largest(query: Tensor, key: Tensor) -> float:
    """An upper bound of the absolute scores."""
    with torch.no_grad():
        longest = [float(tokens.float().square().sum(dim=-1).amax().sqrt()) for tokens in (query, key)]
    return math.prod(longest) * _scale(query)


def _scale(query: Tensor) -> float:
    """Factor from the product of a query and a key to an exponent of 2."""
    return _LOG2_E / math.sqrt(query.shape[-1])


class _InPieces(torch.autograd.Function):
    """Scores are stored as (keys, queries), so that no product transposes its large factor."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (tokens.flatten(0, 1).contiguous() for tokens in (query, key, value))
        scaled = k * _scale(q)
        # A row of ones gives the sum of the weights with the weighted sum of the values.
        v_and_one = _with_ones(v, 1).mT.contiguous()
        weights = _room(q, k)
        output, sums = torch.empty_like(q), torch.empty(q.shape[:-1])
        for piece in _pieces(q, weights):
            torch.bmm(scaled, q[:, piece].mT, out=weights).exp2_()
            weighted = torch.bmm(v_and_one, weights).mT.float()
            sums[:, piece] = weighted[..., -1]
            output[:, piece] = weighted[..., :-1] / weighted[..., -1:]
        ctx.save_for_backward(q, k, v, output, sums)
        ctx.shapes = query.shape, key.shape
        return output.view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, output, sums = ctx.saved_tensors
        gradient = gradient.flatten(0, 1)
        # The gradient through the sum of the weights enters through the columns of ones.
        taken = (gradient.float() * output.float()).sum(dim=-1)
        gradient = (gradient.float() / sums[..., None]).to(q.dtype)  # so that the weights need not be divided
        gradient_taken = torch.cat([gradient, _in_two(-taken / sums)], dim=-1)
        scaled, v_and_ones, k_turned = k * _scale(q), _with_ones(v, 2), k.mT.contiguous()
        weights, to_scores = _room(q, k), _room(q, k)
        to_q, to_k, to_v = torch.empty_like(q), torch.zeros(k.shape), torch.zeros(v.shape)
        for piece in _pieces(q, weights):
            torch.bmm(scaled, q[:, piece].mT, out=weights).exp2_()
            to_v += torch.bmm(weights, gradient[:, piece])
            torch.bmm(v_and_ones, gradient_taken[:, piece].mT, out=to_scores).mul_(weights)
            to_k += torch.bmm(to_scores, q[:, piece])
            to_q[:, piece] = torch.bmm(k_turned, to_scores).mT
        scale = 1 / math.sqrt(q.shape[-1])
        queries, keys = ctx.shapes
        return (
            to_q.mul_(scale).view(queries),
            to_k.mul_(scale).to(k.dtype).view(keys),
            to_v.to(v.dtype).view(keys),
        )


def _room(q: Tensor, k: Tensor) -> Tensor:
    """Memory for the scores of one piece, (B * heads, M, rows)."""
    return q.new_empty(*k.shape[:2], _rows(q.shape[1], k.shape[0] * k.shape[1]))


def _pieces(q: Tensor, room: Tensor) -> Iterator[slice]:
    """Ranges of queries, as many at a time as their scores fit."""
    rows = room.shape[-1]
    return (slice(start, start + rows) for start in range(0, q.shape[1], rows))


@cache
def _rows(n_queries: int, n_keys: int) -> int:
    """Queries per piece: all pieces have one size, because they share their memory."""
    most = min(n_queries, max(1, _PIECE // n_keys))
    return max(rows for rows in range(1, most + 1) if n_queries % rows == 0)


def _with_ones(tokens: Tensor, n: int) -> Tensor:
    """Append n columns of ones: (B, M, D) to (B, M, D + n)."""
    return torch.cat([tokens, tokens.new_ones(*tokens.shape[:2], n)], dim=-1)


def _in_two(numbers: Tensor) -> Tensor:
    """Each number as two bfloat16 numbers, the second with the remainder of the first; (...) to (..., 2)."""
    first = numbers.to(torch.bfloat16)
    return torch.stack([first, (numbers - first.float()).to(torch.bfloat16)], dim=-1)
