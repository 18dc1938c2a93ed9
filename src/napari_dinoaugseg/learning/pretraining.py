"""What a new decoder learns before anything is labelled: to distinguish regions of the case.

The regions are clusters of the encoder's features, as in DeepCluster (Caron et al. 2018, arXiv 1807.05520). A decoder
that finds them has learned to bring the maps together, and learns the person's classes in fewer steps. Figures:
docs/decisions/live.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from napari_dinoaugseg.learning.events import Cancel, Report
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.live import Learner
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example
from napari_dinoaugseg.model.decoder import Decoder

REGIONS = 8
STEPS = 168  # three cycles of the learner

_SLOW = 1.0  # seconds to encode a slice, above which a label that comes meanwhile would wait too long
_SLICES = 5
_POSITIONS = 2000  # of each slice, of which the clusters are made
_LEVELS = 3  # the finest maps; the coarsest, at stride 32, shows where in the image rather than what


class Pretraining:
    """Teaches a new decoder regions of a case, in bursts, as long as nothing is labelled.

    Args:
        store: features of the case.
        settings: of the live learning that follows.
        device: as of :class:`Learner`.
    """

    def __init__(self, store: FeatureStore, settings: Settings, device: torch.device) -> None:
        self._store, self._settings, self._device = store, settings, device
        self._order: Sequence[int] = ()
        self._learner: Learner | None = None

    def focus(self, order: Sequence[int]) -> None:
        """Learn from some of these slices, those that matter most first; what has begun stays with its own."""
        self._order = order

    @property
    def sleeps(self) -> bool:
        """Whether all steps are taken, or there are no slices to learn from, or encoding them takes long."""
        if self._store.encode_seconds > _SLOW * self._store.encoded:
            return True
        return not self._order if self._learner is None else self._learner.sleeps

    @property
    def learned(self) -> Decoder | None:
        """A decoder of :data:`REGIONS` classes, to take the body from; None before it has learned something."""
        return None if self._learner is None else self._learner.learned

    def burst(self, report: Report, cancel: Cancel) -> None:
        """Learn for half a second; nothing if it sleeps.

        Raises:
            NoRoomError, DeviceError: as of :meth:`Learner.burst`.
        """
        if self.sleeps:
            return
        if self._learner is None:
            chosen = self._order[:: max(1, len(self._order) // _SLICES)][:_SLICES]
            examples = regions(self._store, chosen, seed=self._settings.seed)
            self._learner = Learner(self._store, self._settings, n_classes=REGIONS, device=self._device)
            self._learner.update(examples, steps=STEPS)
        for _ in self._learner.burst(report=report, cancel=cancel):
            pass  # it wants no masks


def regions(store: FeatureStore, slices: Sequence[int], *, seed: int = 0) -> list[Example]:
    """The slices, each with the cluster of every pixel's features, 0 to `REGIONS` - 1, or fewer where little is seen.

    Every level of the features weighs the same. The distance to a centre is linear in the features but for a constant,
    so that maps of distances are interpolated, not the features, which may have a thousand channels.
    """
    from scipy.cluster.vq import kmeans

    levels = {index: _normalised(store.features(index)) for index in slices}
    random = np.random.default_rng(seed)
    sampled = np.concatenate([_sample(maps, random) for maps in levels.values()])
    centres, _ = kmeans(sampled, REGIONS, iter=1, seed=random)
    found = {index: _nearest(maps, centres, store.input_size) for index, maps in levels.items()}
    return [Example(index, _resized(at_input, store.case.slice_shape(index))) for index, at_input in found.items()]


def _normalised(maps: Sequence[Tensor]) -> list[Tensor]:
    """The finest maps, (C, h, w) float32 each, with a mean square of 1 over all channels together."""
    found = [stage.float() for stage in maps[:_LEVELS]]
    return [stage / stage.square().sum(0).mean().sqrt().clamp_min(1e-6) for stage in found]


def _sample(maps: Sequence[Tensor], random: np.random.Generator) -> NDArray[np.float32]:
    """Features at random positions of a slice, (N, channels of all levels)."""
    at = torch.from_numpy(random.uniform(-1, 1, (1, 1, _POSITIONS, 2)).astype(np.float32))
    found = [F.grid_sample(stage[None], at, align_corners=False, padding_mode="border")[0, :, 0] for stage in maps]
    return torch.cat(found).T.numpy()


def _nearest(maps: Sequence[Tensor], centres: NDArray[np.float32], side: int) -> NDArray[np.int16]:
    """The centre nearest to the features of each pixel, (side, side)."""
    weights = torch.from_numpy(centres).float()
    score = -0.5 * weights.square().sum(1)[:, None, None]
    parts = torch.split(weights, [len(stage) for stage in maps], dim=1)
    for stage, part in zip(maps, parts, strict=True):
        near = torch.einsum("kc,chw->khw", part, stage)
        score = score + F.interpolate(near[None], (side, side), mode="bilinear", align_corners=False)[0]
    return score.argmax(0).numpy().astype(np.int16)


def _resized(image: NDArray[np.int16], shape: tuple[int, int]) -> NDArray[np.int16]:
    """The nearest pixel of a square image for each one of an image of another shape."""
    rows, columns = (((np.arange(n) + 0.5) * len(image) / n).astype(int) for n in shape)
    return image.take(rows, axis=0).take(columns, axis=1)
