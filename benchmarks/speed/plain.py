"""The paper's training and prediction as one would write them first.

No feature is kept, no score is spared, and maps lie in memory as PyTorch lays them by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, new_decoder, resize_target, segmentation_loss
from napari_dinoaugseg.model import decoder
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.wtaug import WTAug

Masks = Mapping[int, NDArray[np.integer]]
"""Class indices (H, W) by slice number."""


def train(
    store: FeatureStore, examples: Sequence[Example], settings: Settings, n_classes: int
) -> Iterator[tuple[Decoder, float]]:
    """Train as the paper does; after each step, the decoder and the seconds of the step.

    Args:
        store: gives the images and the encoder; its features are not used.
        examples: labelled slices.
        settings: of the preset `paper`.
        n_classes: with the background.
    """
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    device = store.encoder.device
    decoder = new_decoder(store.encoder.channels, n_classes, settings).to(device).train()
    augment = WTAug(p=settings.augment_probability, drop=settings.augment_drop).train()
    optimiser = torch.optim.Adam(decoder.parameters(), lr=settings.learning_rate)
    images = torch.stack([store.image(example.index) for example in examples])
    targets = torch.stack([resize_target(torch.from_numpy(e.target.copy()), store.input_size) for e in examples])
    targets = targets.to(device)
    for _ in range(settings.steps):
        started = time.perf_counter()
        chosen = torch.from_numpy(random.permutation(len(examples))[: settings.batch_size])
        with torch.no_grad():
            features = store.encoder.encode(images[chosen])
        with as_written_first():
            logits = decoder(augment(features), (store.input_size, store.input_size))
            loss = segmentation_loss(
                logits, targets[chosen].long(), absent_in_dice=settings.absent_in_dice, dice=settings.dice
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        float(loss.detach())  # on a graphics card, wait until it is done
        yield decoder, time.perf_counter() - started


def predict(store: FeatureStore, decoder: Decoder, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    """The mask of each slice at its own size, slice by slice."""
    decoder.eval()
    for index in indices:
        with torch.no_grad(), as_written_first():
            logits = decoder(store.encoder.encode(store.image(index)[None]), None)
            whole = F.interpolate(logits, size=store.case.slice_shape(index), mode="bilinear", align_corners=False)
        yield index, whole[0].argmax(dim=0).cpu().numpy().astype(np.uint16)


def scores_in_memory(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with its matrix of scores written out; equal to the decoder's own."""
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ value


@contextmanager
def as_written_first() -> Iterator[None]:
    """Let attention write out its scores, and leave the decoder's maps in PyTorch's own layout."""
    with (
        mock.patch.object(decoder, "attend", scores_in_memory),
        mock.patch.object(decoder, "_fastest", lambda stage: stage),
    ):
        yield


def dice_of(found: Masks, truth: Masks, n_classes: int) -> float:
    """Mean over the classes of the Dice, 0 to 1, over all slices together."""
    values = []
    for number in range(1, n_classes):
        ours = np.concatenate([(found[i] == number).ravel() for i in truth])
        theirs = np.concatenate([(labels == number).ravel() for labels in truth.values()])
        values.append(2 * np.count_nonzero(ours & theirs) / max(1, np.count_nonzero(ours) + np.count_nonzero(theirs)))
    return float(np.mean(values))
