from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dinoaugseg.model import attention
from napari_dinoaugseg.model.attention import attend

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def tokens(n_queries: int, n_keys: int, channels: int, batch: int = 2, heads: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, heads, n, channels).bfloat16() for n in (n_queries, n_keys, n_keys)]


def with_gradients(way: Attention, inputs: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of queries, keys and values for a given gradient of the result."""
    inputs = [each.detach().requires_grad_() for each in inputs]
    result = way(*inputs)
    wanted = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return [result, *torch.autograd.grad(result, inputs, wanted.to(result.dtype))]


def distance(found: Tensor, exact: Tensor) -> float:
    """Relative to the size of the exact tensor."""
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.fixture
def fused_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Tensor) -> Tensor:
        pytest.fail("the fused attention was used")

    monkeypatch.setattr(F, "scaled_dot_product_attention", refuse)


@pytest.mark.usefixtures("fused_is_forbidden")
@pytest.mark.parametrize(("n_queries", "n_keys", "channels"), [(576, 36, 24), (144, 36, 48), (64, 1, 8), (7, 5, 2)])
def test_attention_in_pieces_and_its_gradients_are_exact_to_the_rounding_of_bfloat16(
    n_queries: int, n_keys: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_PIECE", 6 * n_keys * 100)
    attention._rows.cache_clear()
    inputs = tokens(n_queries, n_keys, channels)
    exact = with_gradients(lambda q, k, v: (q @ k.mT / channels**0.5).softmax(dim=-1) @ v, [t.double() for t in inputs])
    found = with_gradients(attend, inputs)
    attention._rows.cache_clear()
    assert [each.dtype for each in found] == [torch.bfloat16] * 4
    for one, other in zip(found, exact, strict=True):
        if n_keys == 1 and other is not exact[0] and other is not exact[3]:  # nothing to choose: no gradient
            assert float(one.abs().max()) < 0.05
        else:
            assert distance(one, other) < 0.02


@pytest.mark.usefixtures("fused_is_forbidden")
def test_nothing_depends_on_how_large_the_pieces_are(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tokens(240, 30, 16)
    whole = with_gradients(attend, inputs)
    monkeypatch.setattr(attention, "_PIECE", 1)
    attention._rows.cache_clear()
    by_rows = with_gradients(attend, inputs)
    attention._rows.cache_clear()
    for one, other in zip(by_rows, whole, strict=True):
        assert distance(one, other.double()) < 0.01


def test_pieces_are_as_large_as_memory_allows_and_all_of_one_size() -> None:
    assert attention._rows(36864, 4 * 2304) == 384
    assert attention._rows(1444, 8 * 361) == 1444
    assert attention._rows(13, 1 << 30) == 1


@pytest.mark.parametrize("size", [30.0, 300.0, 3e4])
def test_scores_too_large_for_a_power_of_two_give_numbers_all_the_same(size: float) -> None:
    query, key, value = tokens(64, 16, 8)
    inputs = [query * size, key, value]
    exact = with_gradients(F.scaled_dot_product_attention, [each.double() for each in inputs])
    found = with_gradients(attend, inputs)
    assert all(bool(each.isfinite().all()) for each in found)
    assert distance(found[0], exact[0]) < 0.05


def test_where_nothing_is_learnt_the_fused_attention_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tokens(64, 16, 8)
    called = []
    fused = F.scaled_dot_product_attention

    def spy(*arguments: Tensor) -> Tensor:
        called.append(arguments[0].dtype)
        return fused(*arguments)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        attend(*inputs)
    attend(*[each.float() for each in inputs])
    assert called == [torch.bfloat16, torch.float32]
