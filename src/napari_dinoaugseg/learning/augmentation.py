"""Augmentation of images before the encoder, for training and at test time; and the neighbouring slices of 2.5D.

WT-Aug perturbs features and is redrawn at every step; a view perturbs the image, and is encoded once. A view is
determined by its number and the seed alone, so that its features can be kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.case.intensity import Scale, to_unit_rgb

Symmetry = Literal["upright", "sides", "any"]
"""Which transformed images are as likely as the original: none, where left and right are different organs; left and
right exchanged, as in ultrasound, where the probe is always above; any rotation or reflection, as for a polyp."""


@dataclass(frozen=True)
class _Range:
    """How far augmented views go.

    Attributes:
        angle: degrees to either side.
        scale: logarithm of the enlargement, up or down.
        stretch: logarithm of the enlargement of one axis over the other.
        shift: share of half the image.
        elastic: standard deviation of the smooth displacement, in the same unit.
        mirrored: which of (columns, rows) may be exchanged.
    """

    angle: float
    scale: float
    stretch: float
    shift: float
    elastic: float
    mirrored: tuple[bool, bool]


# Pictures are taken from any distance and show their structure anywhere; slices of one volume are alike in both.
_RANGES: dict[Symmetry, _Range] = {
    "upright": _Range(20, 0.25, 0.1, 0.1, 0.025, (False, False)),
    "sides": _Range(20, 0.5, 0.15, 0.25, 0.025, (True, False)),
    "any": _Range(180, 0.5, 0.15, 0.25, 0.03, (True, True)),
}
_COLOURFUL = 0.05
"""Mean difference of the largest and the smallest channel from which on pictures count as coloured; a few coloured
marks on an ultrasound picture stay below."""
_ENOUGH = 8  # pictures to look at


@dataclass(frozen=True)
class View:
    """One augmented view.

    Attributes:
        number: 1, 2, …; together with ``seed`` it fixes every random choice.
        seed: of the training that asked for it.
        symmetry: of the images.
    """

    number: int
    seed: int = 0
    symmetry: Symmetry = "upright"

    @property
    def key(self) -> str:
        """Text that names the view in caches."""
        return f"view-{self.number}-{self.seed}-{self.symmetry}"

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
        limits = _RANGES[self.symmetry]
        angle = np.deg2rad(random.uniform(-limits.angle, limits.angle))
        scale = np.exp(random.uniform(-limits.scale, limits.scale))
        stretch = np.exp(random.uniform(-limits.stretch, limits.stretch))
        shift = random.uniform(-limits.shift, limits.shift, size=2)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = rotation @ np.diag([scale * stretch, scale / stretch])
        for axis, mirrored in enumerate(limits.mirrored):
            if mirrored and random.random() < 0.5:
                matrix[:, axis] *= -1
        theta = torch.from_numpy(np.column_stack([matrix, shift]).astype(np.float32))[None]
        grid = F.affine_grid(theta, [1, 1, size, size], align_corners=False)
        # A coarse random field, enlarged smoothly: displacements of a few percent of the image, with no folds.
        coarse = torch.from_numpy(random.normal(0, limits.elastic, size=(1, 2, 6, 6)).astype(np.float32))
        return grid + F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Mirror:
    """A mirrored slice, for test-time augmentation.

    Attributes:
        axes: which of (rows, columns) run backwards, of the last two axes.
    """

    axes: tuple[int, ...]

    @property
    def key(self) -> str:
        """Text that names the view in caches."""
        return f"mirror{self.axes}"

    def of_image(self, image: Tensor) -> Tensor:
        """The image (..., S, S) mirrored; again mirrored, logits of it are those of the slice."""
        return image.flip(self.axes)


_MIRRORS: dict[Symmetry, tuple[Mirror, ...]] = {
    "upright": (),
    "sides": (Mirror((-1,)),),
    "any": (Mirror((-1,)), Mirror((-2,)), Mirror((-2, -1))),
}


def tta_views(symmetry: Symmetry) -> tuple[Mirror, ...]:
    """The views for test-time augmentation: as likely as the slice itself, and shown in training too."""
    return _MIRRORS[symmetry]


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


def views_for(count: int, seed: int, symmetry: Symmetry) -> tuple[View | None, ...]:
    """The plain slice (None) and ``count`` augmented views of it."""
    return (None, *(View(number, seed, symmetry) for number in range(1, count + 1)))


def symmetry_of(kind: str, images: Iterable[Tensor], n_classes: int) -> Symmetry:
    """The symmetry of slices.

    Args:
        kind: of the case, "volume" or "pictures".
        images: of the slices, (3, S, S) in 0 to 1; a few are looked at.
        n_classes: with the background. Several structures may be the left and the right one.
    """
    if kind != "pictures" or n_classes > 2:
        return "upright"
    saturation = [float((image.amax(0) - image.amin(0)).mean()) for image in islice(images, _ENOUGH)]
    return "any" if np.mean(saturation) > _COLOURFUL else "sides"


# 2.5D: neighbouring slices as the three input channels of the encoder.
#
# Where slices are thin, the next ones show where a border goes on, and those a little farther off show it more clearly;
# where slices are thick, the next one is another picture.


_FARTHEST = 2
"""In slices. In trials the left atrium, whose slices are most alike, gained more by this than by 1 and by 3."""

_ALIKE = 0.8
"""Correlation from which on a neighbour helps. In trials on public volumes thick slices of the heart (0.6 to 0.75) lost
a little by it; the spleen at 5 mm (0.89) and everything thinner gained."""
_PAIRS = 16  # to look at, evenly over the volume


def neighbour_distance(case: Slices, window: Scale, wanted: int | None = None) -> int:
    """The distance of the neighbours that a slice is encoded with in 2.5D, in slices; 0 = it is encoded alone.

    Args:
        case: the case. Pictures have no neighbours, and colour has no channels left.
        window: how its grey values become 0 to 1.
        wanted: the setting; None takes the farthest neighbours that are alike.
    """
    if case.kind != "volume" or case.is_colour:
        return 0
    if wanted is not None:
        return min(wanted, case.n_slices - 1)
    distance = 0
    while distance < min(_FARTHEST, case.n_slices - 1) and likeness(case, window, distance + 1) >= _ALIKE:
        distance += 1
    return distance


def likeness(case: Slices, window: Scale, distance: int = 1) -> float:
    """Median correlation, -1 to 1, of slices of a volume that are so far apart; 0 where no two show anything."""
    found = []
    for i in np.unique(np.linspace(0, case.n_slices - 1 - distance, _PAIRS).round().astype(int)):
        _, after = case.neighbours(int(i), distance)
        here, there = (to_unit_rgb(case.slice(n), window)[0].ravel() for n in (int(i), after))
        if after == i + distance and here.std() and there.std():
            found.append(float(np.corrcoef(here, there)[0, 1]))
    return float(np.median(found)) if found else 0.0
