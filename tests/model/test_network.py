from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from napari_dinoaugseg.model.decoder import CGFuse, CrossAttention, Decoder
from napari_dinoaugseg.model.encoder import ENCODERS

TINY = (96, 192, 384, 768)
LITE0 = (24, 40, 112, 320)


def features(channels: tuple[int, ...], height: int = 64, width: int = 96, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, height // s, width // s, generator=generator)
        for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_papers_decoder_has_7_655_million_parameters_before_the_last_convolution() -> None:
    decoder = Decoder(TINY, 4)
    assert isinstance(decoder.classify, nn.Conv2d)
    assert decoder.classify.kernel_size == (1, 1)
    assert decoder.classify.in_channels == 64
    assert round((count(decoder) - count(decoder.classify)) / 1e6, 3) == 7.655


def test_the_papers_decoder_for_the_large_encoder_has_about_30_million_parameters() -> None:
    with torch.device("meta"):
        assert round(count(Decoder(ENCODERS["dinov3-convnext-large"].channels, 4)) / 1e6) == 30


OPTIONS: list[dict[str, Any]] = [
    {},
    {"width": 32},
    {"width": 48, "rope": "2d", "norm": "group", "add_query": True},
    {"width": 32, "blocks": "separable"},
    {"width": 48, "blocks": "lean", "head": 16, "heads": 3, "add_query": True},
    {"fuse": False, "add_query": True},
    {"attention_strides": (16,), "rope": "2d"},
    {"attention_strides": ()},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("channels", [LITE0, (16, 24, 30, 64)], ids=str)
def test_every_option_gives_logits_of_the_asked_size_and_learns(
    channels: tuple[int, ...], options: dict[str, Any]
) -> None:
    decoder = Decoder(channels, 3, **options)
    maps = features(channels)
    assert decoder(maps).shape == (2, 3, 32, 48)
    logits = decoder(maps, (50, 70))
    assert logits.shape == (2, 3, 50, 70)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


def test_channels_last_maps_give_the_same_logits() -> None:
    decoder = Decoder(LITE0, 3, width=32, rope="2d", norm="group").eval()
    maps = features(LITE0)
    with torch.no_grad():
        expected = decoder(maps)
        given = decoder([stage.contiguous(memory_format=torch.channels_last) for stage in maps])
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)


def test_mixed_precision_gives_nearly_the_same_logits() -> None:
    torch.manual_seed(0)
    decoder = Decoder(LITE0, 3, norm="group").eval()
    maps = features(LITE0)
    with torch.no_grad():
        expected = decoder(maps, (64, 96))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = decoder(maps, (64, 96))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected, atol=0.1, rtol=0.1)


def test_options_change_what_they_name() -> None:
    assert not any(isinstance(m, CGFuse) for m in Decoder(LITE0, 2, fuse=False).modules())
    assert sum(isinstance(m, CGFuse) for m in Decoder(LITE0, 2, attention_strides=(16, 8)).modules()) == 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in Decoder(LITE0, 2, norm="group").modules())
    full, separable = Decoder(LITE0, 2, width=32), Decoder(LITE0, 2, width=32, blocks="separable")
    assert count(separable) < count(full) / 2
    assert Decoder(LITE0, 2, width=32).classify.in_channels == 32
    assert Decoder(LITE0, 2, width=128).classify.in_channels == 64
    assert Decoder(LITE0, 2, width=48, head=16).classify.in_channels == 16
    assert count(Decoder(LITE0, 2, width=32, blocks="lean")) < count(full)
    assert {m.heads for m in Decoder(LITE0, 2, heads=2).modules() if isinstance(m, CrossAttention)} == {2}


def test_the_arguments_build_the_same_decoder_again() -> None:
    decoder = Decoder(LITE0, 5, 32, rope="2d", add_query=True, attention_strides=(16, 8), head=16, heads=2)
    again = Decoder(**decoder.arguments)
    assert again.arguments == decoder.arguments
    assert again.n_classes == 5
    again.load_state_dict(decoder.state_dict())


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (1, 2, 3)},
        {"channels": (1, 2, 3, -4)},
        {"n_classes": 1},
        {"width": 0},
        {"width": 2.5},
        {"head": 0},
        {"heads": 0},
        {"rope": "3d"},
        {"norm": "layer"},
        {"blocks": "dense"},
        {"fuse": "yes"},
        {"attention_strides": (32,)},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Decoder(**{"channels": LITE0, "n_classes": 2, **wrong})
