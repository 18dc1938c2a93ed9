"""WT-Aug: augment frozen features, not images, by dropping wavelet coefficients (paper, section 3.2)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_dinoaugseg.native import importing_torch


def _haar() -> tuple[Any, Any]:
    """One level of the Haar transform and its inverse, as modules of pytorch_wavelets."""
    with importing_torch(), warnings.catch_warnings():
        # pytorch_wavelets 1.3.0 finds its tables through pkg_resources.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated as an API", category=UserWarning)
        from pytorch_wavelets import DWTForward, DWTInverse
    return DWTForward(J=1, wave="haar", mode="zero"), DWTInverse(wave="haar", mode="zero")


class WTAug(nn.Module):
    """Drop wavelet coefficients of feature maps, in training only.

    With probability ``p`` for a whole batch and all its maps, each map goes through a one-level Haar transform, each
    coefficient of the low band and of the three detail bands is zeroed with probability ``drop``, independently and
    without rescaling, and the map is transformed back. In evaluation the maps are unchanged.

    Random numbers come from PyTorch's state: on the CPU for ``p``, on the device of the maps for the coefficients.
    """

    def __init__(self, p: float = 0.7, drop: float = 0.3) -> None:
        super().__init__()
        for name, value in (("p", p), ("drop", drop)):
            if not 0 <= value <= 1:
                msg = f"{name} must lie between 0 and 1, not {value}"
                raise ValueError(msg)
        self.p, self.drop = p, drop
        self.analysis, self.synthesis = _haar()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Augment maps (B, C, H, W) of any height and width; shapes and types stay."""
        return self.alter(features) if self.fires() else list(features)

    def fires(self) -> bool:
        """Draw whether a batch is augmented."""
        return self.training and self.drop > 0 and torch.rand(()).item() < self.p

    def alter(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Drop coefficients of all maps."""
        self.to(features[0].device)
        with torch.autocast(features[0].device.type, enabled=False):
            return [self._augment(stage) for stage in features]

    def _augment(self, stage: Tensor) -> Tensor:
        height, width = stage.shape[2:]
        low, (details,) = self.analysis(stage.float())
        restored: Tensor = self.synthesis((self._mask(low), [self._mask(details)]))
        # The transform pads odd sizes to even ones.
        return restored[:, :, :height, :width].to(stage.dtype)

    def _mask(self, coefficients: Tensor) -> Tensor:
        return coefficients * (torch.rand_like(coefficients) >= self.drop)
