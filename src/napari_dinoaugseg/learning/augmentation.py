"""What the encoder sees of a slice: augmented views, mirrored views at test time, and neighbouring slices (2.5D).

WT-Aug changes features and is drawn at every step; a view changes the image and is encoded once. A view is determined
by its number and seed, so that its features can be cached.
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
"""Which transformed images are as likely as the original: none, if left and right are different organs; left and right
exchanged, as in ultrasound, where the probe is always above; any rotation or reflection, as for a polyp."""


@dataclass(frozen=True)
class _Range:
    """The ranges of random augmentation.

    Attributes:
        angle: degrees to either side.
        scale: logarithm of the enlargement, up or down.
        stretch: logarithm of the enlargement of one axis over the other.
        shift: as a share of half the image.
        elastic: standard deviation of the smooth displacement, in the same unit.
        mirrored: which of (columns, rows) may be reversed.
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
"""Pictures count as coloured above this mean difference of largest and smallest channel; a few coloured marks on an
ultrasound picture stay below."""
_ENOUGH = 8  # pictures to look at

_FARTHEST = 2
"""Slices. In trials the left atrium, with the most similar slices, gained more by 2 than by 1 or 3."""

_ALIKE = 0.8
"""Correlation above which a neighbour helps. In trials on public volumes thick slices of the heart (0.6 to 0.75) lost a
little; the spleen at 5 mm (0.89) and everything thinner gained."""
_PAIRS = 16  # to compare, evenly over the volume


@dataclass(frozen=True)
class View:
    """One augmented view.

    Attributes:
        number: 1, 2, …; number and seed determine every random choice.
        seed: of the training.
        symmetry: of the images.
    """

    number: int
    seed: int = 0
    symmetry: Symmetry = "upright"

    @property
    def key(self) -> str:
        """Name of the view in caches."""
        return f"view-{self.number}-{self.seed}-{self.symmetry}"

    def of_image(self, image: Tensor) -> Tensor:
        """The view of an image (3, S, S) in 0 to 1: warped, with other brightness, contrast and tint.

        The image is reflected at its border.
        """
        random = self._random()
        grid = self._grid(random, image.shape[-1])
        warped = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
        return _change_brightness(warped, random)

    def of_labels(self, labels: Tensor) -> Tensor:
        """The view of a label image (S, S) of integers: warped like the image, by nearest neighbour."""
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
        # A coarse random field, smoothly enlarged: displacements of a few percent of the image, without folds.
        coarse = torch.from_numpy(random.normal(0, limits.elastic, size=(1, 2, 6, 6)).astype(np.float32))
        return grid + F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Mirror:
    """A mirrored slice, for test-time augmentation.

    Attributes:
        axes: the reversed axes: -2 for rows, -1 for columns.
    """

    axes: tuple[int, ...]

    @property
    def key(self) -> str:
        """Name of the view in caches."""
        return f"mirror{self.axes}"

    def of_image(self, image: Tensor) -> Tensor:
        """Mirror an image, or map its logits back: (..., S, S)."""
        return image.flip(self.axes)


_MIRRORS: dict[Symmetry, tuple[Mirror, ...]] = {
    "upright": (),
    "sides": (Mirror((-1,)),),
    "any": (Mirror((-1,)), Mirror((-2,)), Mirror((-2, -1))),
}


def tta_views(symmetry: Symmetry) -> tuple[Mirror, ...]:
    """The views for test-time augmentation: as likely as the slice, and part of training as well."""
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
    """The slice itself (None) and ``count`` augmented views."""
    return (None, *(View(number, seed, symmetry) for number in range(1, count + 1)))


def symmetry_of(kind: str, images: Iterable[Tensor], n_classes: int) -> Symmetry:
    """The symmetry of slices.

    Args:
        kind: of the case, "volume" or "pictures".
        images: of the slices, (3, S, S) in 0 to 1; only a few are read.
        n_classes: with the background. Several structures may be a left and a right one.
    """
    if kind != "pictures" or n_classes > 2:
        return "upright"
    saturation = [float((image.amax(0) - image.amin(0)).mean()) for image in islice(images, _ENOUGH)]
    return "any" if np.mean(saturation) > _COLOURFUL else "sides"


def neighbour_distance(case: Slices, window: Scale, wanted: int | None = None) -> int:
    """The distance in slices of the two neighbours in a slice's input channels (2.5D); 0 = the slice alone.

    Thin neighbouring slices show how a border continues, more clearly at a distance of two; thick ones differ too much.

    Args:
        case: the case. Pictures have no neighbours, and colour images no free channels.
        window: maps grey values to 0 to 1.
        wanted: the setting; None = the farthest neighbours that are similar.
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
    """Median correlation, -1 to 1, of slices at a distance; 0 if all are constant."""
    return case.measured(f"likeness {window!r} {distance}", lambda: _likeness(case, window, distance))


def _likeness(case: Slices, window: Scale, distance: int) -> float:
    found = []
    for i in np.unique(np.linspace(0, case.n_slices - 1 - distance, _PAIRS).round().astype(int)):
        _, after = case.neighbours(int(i), distance)
        here, there = (to_unit_rgb(case.slice(n), window)[0].ravel() for n in (int(i), after))
        if after == i + distance and here.std() and there.std():
            found.append(float(np.corrcoef(here, there)[0, 1]))
    return float(np.median(found)) if found else 0.0
