from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_dinoaugseg.model.decoder import CGFuse, CrossAttention, Rope, rotary_table, rotate

CPU = torch.device("cpu")


def plain_attention(
    attention: CrossAttention, query: Tensor, context: Tensor, grid: tuple[int, int], step: int
) -> Tensor:
    """Softmax of scaled scores, head by head, token pair by token pair, with positions as complex numbers."""
    height, width = grid
    dim = attention.head_dim

    def angles(rows: int, columns: int, size: int) -> Tensor:
        if attention.rope == "1d":
            speed = 10_000.0 ** (-torch.arange(dim // 2).double() / (dim // 2))
            return torch.arange(rows * columns).double()[:, None] * speed
        speed = 100.0 ** (-torch.arange(dim // 4).double() / (dim // 4))
        table = [
            torch.cat([((r + 0.5) * size - 0.5) * speed, ((c + 0.5) * size - 0.5) * speed])
            for r in range(rows)
            for c in range(columns)
        ]
        return torch.stack(table)

    def turned(tokens: Tensor, angle: Tensor) -> Tensor:
        number = torch.complex(tokens[..., : dim // 2].double(), tokens[..., dim // 2 :].double())
        number = number * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([number.real, number.imag], dim=-1)

    q, k, v = attention.to_query(query), attention.to_key(context), attention.to_value(context)
    heads = []
    for head in range(attention.heads):
        part = slice(head * dim, (head + 1) * dim)
        turned_q = turned(q[..., part], angles(height, width, 1))
        turned_k = turned(k[..., part], angles(height // step, width // step, step))
        scores = turned_q @ turned_k.transpose(1, 2) / math.sqrt(dim)
        weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        heads.append((weights @ v[..., part].double()).float())
    return attention.to_output(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("rope", ["1d", "2d"])
@pytest.mark.parametrize(("channels", "step"), [(96, 4), (192, 2), (24, 4), (40, 2), (30, 2)])
def test_attention_equals_a_plain_softmax(rope: Rope, channels: int, step: int) -> None:
    torch.manual_seed(0)
    attention = CrossAttention(channels, rope=rope).eval()
    query, context = torch.randn(2, 8 * 12, channels), torch.randn(2, 8 * 12 // step**2, channels)
    with torch.no_grad():
        fused = attention(query, context, (8, 12), step)
        plain = plain_attention(attention, query, context, (8, 12), step)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "head_dim"), [(96, 24), (192, 48), (384, 96), (128, 32), (24, 6), (40, 10)])
def test_heads_of_the_encoders_widths_are_not_rounded(channels: int, head_dim: int) -> None:
    assert CrossAttention(channels).head_dim == head_dim


def test_flattened_positions_count_only_by_their_distance() -> None:
    torch.manual_seed(1)
    table = rotary_table("1d", 5, 8, 1, 16, CPU, torch.float32)
    q, k = rotate(torch.randn(16).expand(40, 16), table), rotate(torch.randn(16).expand(40, 16), table)
    scores = q @ k.T
    for distance in (-7, 0, 3, 21):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=0)
    assert not torch.allclose(scores[0, 0], scores[0, 1], atol=1e-3)


def test_rows_and_columns_count_only_by_their_distance_in_the_image() -> None:
    torch.manual_seed(2)
    fine = rotary_table("2d", 8, 12, 1, 16, CPU, torch.float32)
    coarse = rotary_table("2d", 2, 3, 4, 16, CPU, torch.float32)
    q = rotate(torch.randn(16).expand(96, 16), fine).reshape(8, 12, 16)
    k = rotate(torch.randn(16).expand(6, 16), coarse).reshape(2, 3, 16)
    # One pooled cell down or to the right is four query cells down or to the right.
    torch.testing.assert_close(q[1, 2] @ k[0, 0], q[5, 2] @ k[1, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(q[1, 2] @ k[0, 0], q[1, 10] @ k[0, 2], atol=1e-4, rtol=0)
    # A pooled cell lies in the middle of the four query cells in its centre.
    same = torch.ones(16)
    q, k = rotate(same.expand(96, 16), fine).reshape(8, 12, 16), rotate(same.expand(6, 16), coarse).reshape(2, 3, 16)
    scores = (q * k[1, 1]).sum(-1)
    torch.testing.assert_close(scores[5, 5], scores[6, 6], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores[5:7, 5:7].mean(), scores.max(), atol=1e-4, rtol=0)


def test_position_tables_are_kept_and_fit_for_training_after_prediction() -> None:
    rotary_table.cache_clear()
    fuse = CGFuse(16, pool=2, rope="2d")
    maps = torch.randn(1, 16, 6, 10), torch.randn(1, 16, 6, 10)
    with torch.inference_mode():
        fuse(*maps)
    made = rotary_table.cache_info().misses
    fuse(*maps).sum().backward()
    assert rotary_table.cache_info().misses == made


def test_the_residual_carries_the_normed_query() -> None:
    fuse = CGFuse(12, pool=2)
    torch.nn.init.zeros_(fuse.attention.to_output.weight)
    torch.nn.init.zeros_(fuse.attention.to_output.bias)
    query = torch.randn(2, 12, 4, 6)
    normed = torch.nn.functional.layer_norm(query.permute(0, 2, 3, 1), (12,)).permute(0, 3, 1, 2)
    torch.testing.assert_close(fuse(query, torch.randn(2, 12, 4, 6)), normed)


@pytest.mark.parametrize("batch", [1, 2])
def test_fused_maps_lie_channels_last_as_the_maps_that_come_in_do(batch: int) -> None:
    maps = [torch.randn(batch, 16, 8, 8).contiguous(memory_format=torch.channels_last) for _ in range(2)]
    fused = CGFuse(16, 4)(*maps)
    joined = torch.cat([fused, maps[1]], dim=1)
    assert joined.is_contiguous(memory_format=torch.channels_last)
    assert not joined.is_contiguous()
