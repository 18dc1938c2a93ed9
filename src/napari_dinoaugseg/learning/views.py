"""Augmented views of a labelled slice: the same anatomy, seen a little differently.

WT-Aug perturbs features and is redrawn at every step; a view perturbs the image before the encoder, and is encoded
once. A view is determined by its number and the seed alone, so that its features can be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One augmented view.

    Attributes:
        number: 1, 2, …; together with ``seed`` it fixes every random choice.
        seed: of the training that asked for it.
        flips: mirror left-right and up-down at random. Right for pictures without a fixed side (endoscopy, skin), wrong
            where left and right are different organs.
    """

    number: int
    seed: int = 0
    flips: bool = False

    @property
    def key(self) -> str:
        """Text that names the view in caches."""
        return f"view-{self.number}-{self.seed}-{'flips' if self.flips else 'upright'}"

    def of_image(self, image: Tensor) -> Tensor:
        """The view of an image (3, S, S) in 0 to 1: warped, and changed in brightness, contrast and tint.

        What comes from outside the image is its mirror, so that no border is invented.
        """
        random = self._random()
        grid = self._grid(random, image.shape[-1])
        warped = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
        return _change_brightness(warped, random)

    def of_labels(self, labels: Tensor) -> Tensor:
        """The view of a label image (S, S) of whole numbers: warped as the image is, to the nearest pixel."""
        grid = self._grid(self._random(), labels.shape[-1])
        moved = F.grid_sample(
            labels[None, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
        )
        return moved[0, 0].to(labels.dtype)

    def _random(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.number])

    def _grid(self, random: np.random.Generator, size: int) -> Tensor:
        """Sampling positions (1, S, S, 2): rotation, scale, shear, shift, flips, and a smooth elastic displacement."""
        angle = np.deg2rad(random.uniform(-20, 20))
        scale = np.exp(random.uniform(-0.25, 0.25))
        stretch = np.exp(random.uniform(-0.1, 0.1))
        shift = random.uniform(-0.1, 0.1, size=2)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = rotation @ np.diag([scale * stretch, scale / stretch])
        if self.flips:
            matrix = matrix @ np.diag(random.choice([-1.0, 1.0], size=2))
        theta = torch.from_numpy(np.column_stack([matrix, shift]).astype(np.float32))[None]
        grid = F.affine_grid(theta, [1, 1, size, size], align_corners=False)
        # A coarse random field, enlarged smoothly: displacements of a few percent of the image, with no folds.
        coarse = torch.from_numpy(random.normal(0, 0.025, size=(1, 2, 6, 6)).astype(np.float32))
        return grid + F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _change_brightness(image: Tensor, random: np.random.Generator) -> Tensor:
    """Gamma, contrast, brightness and, for colour, a slight tint."""
    gamma = float(np.exp(random.uniform(-0.35, 0.35)))
    contrast = float(random.uniform(0.75, 1.25))
    shift = float(random.uniform(-0.1, 0.1))
    tint = torch.ones(3, 1, 1)
    if not (torch.equal(image[0], image[1]) and torch.equal(image[1], image[2])):
        tint = torch.from_numpy(random.uniform(0.9, 1.1, size=(3, 1, 1)).astype(np.float32))
    changed = image.clamp(0, 1) ** gamma * tint
    return ((changed - changed.mean()) * contrast + changed.mean() + shift).clamp(0, 1)


def views_for(count: int, seed: int, *, flips: bool) -> tuple[View | None, ...]:
    """The plain slice (None) and ``count`` augmented views of it."""
    return (None, *(View(number, seed, flips) for number in range(1, count + 1)))
