from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from napari_dinoaugseg.model.wtaug import WTAug


def maps(size: int = 64, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, channels, size // scale, size // scale, generator=generator)
        for channels, scale in ((6, 1), (8, 2), (10, 4), (12, 8))
    ]


def test_evaluation_changes_nothing() -> None:
    features = maps()
    for before, after in zip(features, WTAug(p=1.0).eval()(features), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (3, 8), (24, 15)])
def test_odd_sizes_keep_their_shape(shape: tuple[int, int]) -> None:
    (after,) = WTAug(p=1.0).train()([torch.randn(2, 3, *shape)])
    assert after.shape == (2, 3, *shape)


@pytest.mark.parametrize("shape", [(8, 8), (7, 5)])
def test_the_transform_alone_is_exact(shape: tuple[int, int]) -> None:
    before = torch.randn(2, 3, *shape)
    (after,) = WTAug(p=1.0, drop=1e-9).train()([before])
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("drop", [0.3, 0.6])
def test_the_stated_share_of_coefficients_is_zeroed_in_each_band(drop: float) -> None:
    torch.manual_seed(2)
    augment = WTAug(p=1.0, drop=drop).train()
    before = torch.randn(4, 16, 64, 64)
    (after,) = augment([before])
    low, (details,) = augment.analysis(after)
    low_before, (details_before,) = augment.analysis(before)
    bands = [(low, low_before), *((details[:, :, n], details_before[:, :, n]) for n in range(3))]
    for band, band_before in bands:
        zeroed = band.abs() < 1e-5
        count = band.numel()
        assert abs(zeroed.float().mean().item() - drop) < 5 * math.sqrt(drop * (1 - drop) / count)
        # What is left is not rescaled.
        torch.testing.assert_close(band[~zeroed], band_before[~zeroed], atol=1e-5, rtol=0)
    # The bands lose different coefficients.
    both = ((low.abs() < 1e-5) & (details[:, :, 0].abs() < 1e-5)).float().mean().item()
    assert abs(both - drop**2) < 0.01


def test_it_fires_with_the_stated_probability_and_for_all_maps_at_once() -> None:
    torch.manual_seed(3)
    augment = WTAug(p=0.7).train()
    features = maps(size=16, batch=1)
    fired = 0
    for _ in range(600):
        changed = [not torch.equal(a, b) for a, b in zip(features, augment(features), strict=True)]
        assert all(changed) or not any(changed)
        fired += changed[0]
    assert abs(fired / 600 - 0.7) < 5 * math.sqrt(0.7 * 0.3 / 600)


def test_a_seed_fixes_the_outcome() -> None:
    augment, features = WTAug(p=1.0).train(), maps()
    torch.manual_seed(4)
    first = augment(features)
    torch.manual_seed(4)
    second = augment(features)
    third = augment(features)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], third[0])


def test_half_precision_maps_stay_half_precision_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (after,) = WTAug(p=1.0).train()([torch.randn(1, 2, 8, 8).half()])
    assert after.dtype == torch.float16


def test_probabilities_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="drop must lie between 0 and 1"):
        WTAug(drop=1.5)


def test_importing_the_module_does_not_load_the_library_and_using_it_does_not_warn() -> None:
    code = (
        "import sys, napari_dinoaugseg.model.wtaug as w; assert 'pytorch_wavelets' not in sys.modules; "
        "w.WTAug(); assert 'pytorch_wavelets' in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
