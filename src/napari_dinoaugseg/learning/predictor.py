"""Prediction: masks with their confidence, nearest to the person's slice first, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from napari_dinoaugseg.learning.device import free_memory, is_out_of_memory
from napari_dinoaugseg.learning.events import Cancel, Event, Notice, Progress
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.prediction import Prediction
from napari_dinoaugseg.model.network import Decoder


def predict(
    store: FeatureStore,
    decoder: Decoder,
    order: Sequence[int],
    *,
    device: torch.device | None = None,
    batch_size: int = 4,
    cancel: Cancel | None = None,
) -> Iterator[Event | Prediction]:
    """Predict slices in the given order, encoding those that are not in the store.

    Yields events and one :class:`Prediction` a slice. The logits are enlarged to the slice's own size before the class
    is chosen, so that contours are smooth at full resolution. When memory runs out, the batch is halved, then the CPU
    takes over; a notice says so.
    """
    device = device or store.encoder.device
    decoder = decoder.to(device).eval()
    started = time.monotonic()
    done = 0
    while done < len(order) and not cancel:
        chunk = list(order[done : done + batch_size])
        yield from (
            event for event in store.prepare([(index, None) for index in chunk], cancel) if isinstance(event, Notice)
        )
        if cancel:
            return
        try:
            results = list(_predict_batch(store, decoder, chunk, device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or (batch_size == 1 and device.type == "cpu"):
                raise
            if batch_size > 1:
                batch_size //= 2
                notice = Notice(f"Memory ran out in prediction; going on with {batch_size} slices at a time.")
            else:
                device = torch.device("cpu")
                decoder = decoder.to(device)
                notice = Notice("Memory ran out in prediction; going on with the CPU.")
            free_memory(device)
            yield notice
            continue
        for result in results:
            done += 1
            yield result
        yield Progress("predict", done, len(order), time.monotonic() - started)


def _predict_batch(
    store: FeatureStore, decoder: Decoder, chunk: list[int], device: torch.device
) -> Iterator[Prediction]:
    with torch.inference_mode():
        logits = decoder(store.batch([(index, None) for index in chunk], device), None).float()
        for position, index in enumerate(chunk):
            shape = store.study.slice_shape(index)
            full = F.interpolate(logits[position : position + 1], size=shape, mode="bilinear", align_corners=False)[0]
            probability = full.softmax(dim=0)
            confidence, chosen = probability.max(dim=0)
            yield Prediction(
                index,
                chosen.to(torch.int32).cpu().numpy().astype(np.uint16),
                confidence.cpu().numpy(),
                _expected_dice(probability, chosen),
            )


def _expected_dice(probability: Tensor, chosen: Tensor) -> float:
    """The Dice to expect if the probabilities (K, H, W) are right: the mean over the classes in sight.

    A class is in sight when it is chosen somewhere or expected to cover a pixel; with none in sight the answer is how
    sure the model is of the background.
    """
    scores = []
    for number in range(1, probability.shape[0]):
        mask = chosen == number
        expected = probability[number].sum()
        size = mask.sum()
        if size == 0 and expected < 1:
            continue
        scores.append(float(2 * probability[number][mask].sum() / (expected + size)))
    if scores:
        return float(np.mean(scores))
    return float(probability[0].min())
