"""Peers that are networks: a linear probe, a light head, and a U-Net that never saw another image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.methods.problem import Learnt, Limit, Problem, encode
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.learning.features import SliceView
from napari_dinoaugseg.learning.postprocessing import mask_of
from napari_dinoaugseg.learning.train import RandomStream, segmentation_loss

_AT_ONCE = 4  # slices a step and in prediction, as in the preset `balanced`

Inputs = Callable[[Sequence[SliceView]], object]
"""What a network takes for some slices and views of them."""


@dataclass(frozen=True)
class Recipe:
    """How a peer is trained: the loss, optimiser, schedule and average of the preset `balanced`, with its own sizes.

    Attributes:
        steps: planned.
        learning_rate: at the peak of the one-cycle schedule.
        views: augmented views of each labelled slice.
    """

    steps: int
    learning_rate: float
    views: int


class LinearProbe(nn.Module):
    """One linear layer on all maps, standardised, enlarged to stride 4 and laid on one another.

    A 1x1 convolution may be done before the enlarging and the parts added: the result is the same, at less cost.
    """

    def __init__(self, channels: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c, affine=False), nn.Conv2d(c, n_classes, 1)) for c in channels
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, S/4, S/4) from four maps."""
        return torch.stack(_enlarged(self.parts, features)).sum(dim=0)


class LightHead(nn.Module):
    """1x1 projections of the four maps to one small width, laid on one another, and two 1x1 layers (as SegDINO)."""

    def __init__(self, channels: Sequence[int], n_classes: int, width: int = 64) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(c), nn.Conv2d(c, width, 1)) for c in channels)
        self.head = nn.Sequential(
            nn.Conv2d(width * len(channels), width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, n_classes, 1),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, S/4, S/4) from four maps."""
        logits: Tensor = self.head(torch.cat(_enlarged(self.project, features), dim=1))
        return logits


def _enlarged(layers: nn.ModuleList, features: Sequence[Tensor]) -> list[Tensor]:
    """Each map through its layer, at the size of the finest."""
    size = features[0].shape[-2:]
    maps = [layer(stage) for layer, stage in zip(layers, features, strict=True)]
    return [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]


def learn_linear(problem: Problem) -> Learnt:
    """Linear probe on frozen features."""
    return _learn_on_features(problem, LinearProbe, Recipe(steps=400, learning_rate=3e-3, views=7))


def learn_light(problem: Problem) -> Learnt:
    """Light head on frozen features."""
    return _learn_on_features(problem, LightHead, Recipe(steps=400, learning_rate=2e-3, views=7))


def learn_unet(problem: Problem) -> Learnt:
    """MONAI's U-Net from scratch on the images, with many more views than the others, since none has to be encoded."""
    from monai.networks.nets import UNet

    def network() -> nn.Module:
        return UNet(2, 3, problem.n_classes, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)

    image = lru_cache(maxsize=len(problem.labelled))(problem.store.image)  # decoded once, not at every step

    def images(pairs: Sequence[SliceView]) -> Tensor:
        plain = [(image(index), view) for index, view in pairs]
        return torch.stack([view.of_image(image) if view else image for image, view in plain]).to(problem.device)

    return _learn(problem, network, images, Recipe(steps=600, learning_rate=2e-3, views=63), encoded=0)


def _learn_on_features(problem: Problem, kind: Callable[[Sequence[int], int], nn.Module], recipe: Recipe) -> Learnt:
    pairs = [(i, view) for i in problem.labelled for view in problem.views(recipe.views)]
    encode(problem, pairs)
    return _learn(
        problem,
        lambda: kind(problem.store.encoder.channels, problem.n_classes),
        lambda wanted: problem.store.batch(wanted, problem.device),
        recipe,
        encoded=len(pairs),
    )


def _learn(problem: Problem, network: Callable[[], nn.Module], inputs: Inputs, recipe: Recipe, encoded: int) -> Learnt:
    limit = Limit(problem)
    trained, steps = _train(problem, network, inputs, recipe, limit)
    seconds = limit.seconds

    def masks(order: Sequence[int]) -> Iterator[Prediction]:
        for first in range(0, len(order), _AT_ONCE):
            chunk = order[first : first + _AT_ONCE]
            with torch.inference_mode():
                logits = trained(inputs([(index, None) for index in chunk])).float().cpu()
            for position, index in enumerate(chunk):
                yield mask_of(logits[position], index, problem.cases.slices.slice_shape(index))

    return Learnt(masks, steps, recipe.steps, seconds, encoded)


def _train(
    problem: Problem, network: Callable[[], nn.Module], inputs: Inputs, recipe: Recipe, limit: Limit
) -> tuple[nn.Module, int]:
    """The averaged network in evaluation mode, and the steps done."""
    with RandomStream(problem.seed, problem.device).use():
        model = network().to(problem.device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1, cycle_momentum=False
    )
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.97), use_buffers=True)
    steps = 0
    for pairs in _batches(problem, recipe):
        logits = model(inputs(pairs))
        target = torch.stack([problem.target(*pair) for pair in pairs]).to(problem.device).long()
        logits = F.interpolate(logits.float(), target.shape[1:], mode="bilinear", align_corners=False)
        optimiser.zero_grad(set_to_none=True)
        loss = segmentation_loss(logits, target, absent_in_dice=False)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        averaged.update_parameters(model)
        steps += 1
        if limit.is_reached:
            break
    trained: nn.Module = averaged.module.eval()
    return trained, steps


def _batches(problem: Problem, recipe: Recipe) -> Iterator[list[SliceView]]:
    """Labelled slices in a random order, each as often as any other, each time in a random view."""
    views = problem.views(recipe.views)
    random = np.random.default_rng(problem.seed)
    queue: list[int] = []
    for _ in range(recipe.steps):
        while len(queue) < _AT_ONCE:
            queue += random.permutation(problem.labelled).tolist()
        chosen, queue = queue[:_AT_ONCE], queue[_AT_ONCE:]
        yield [(index, views[int(random.integers(len(views)))]) for index in chosen]
