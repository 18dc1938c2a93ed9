"""(a) A training step, and the most memory: the plain loop against ours, with the paper's decoder."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.speed import plain
from benchmarks.speed.alone import Figures, alone
from benchmarks.speed.made import encoder_for_time, store_for
from napari_dinoaugseg.case import case_from_array
from napari_dinoaugseg.learning.events import Progress
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, fit

SIZES = (256, 384, 768)
_COUNTED = 4  # steps, after two that warm up
_COUNTED_ON_CARD = 30  # the first of which are recorded, to be played back


def measure(encoder: str = "dinov3-convnext-tiny", batch: int = 1, device: str = "cpu") -> list[Figures]:
    """A row for each size. Memory is that of the graphics card, where one computes."""
    rows = []
    peak = "peak_gb" if device == "cpu" else "peak_card_gb"
    for size in SIZES:
        theirs, ours = (alone(way, encoder, size, batch, device) for way in (plain_step, our_step))
        rows.append(
            {
                "what": f"step at {size} x {size}, batch {batch}, {encoder}",
                "plain_s": theirs["seconds"],
                "ours_s": ours["seconds"],
                "times_faster": round(theirs["seconds"] / ours["seconds"], 2),
                "plain_gb": theirs[peak],
                "ours_gb": ours[peak],
                "share_of_memory": round(ours[peak] / theirs[peak], 2),
            }
        )
    return rows


def plain_step(encoder: str, size: int, batch: int, device: str = "cpu") -> Figures:
    """Seconds of a step of the plain loop."""
    store, examples, settings = _work(encoder, size, batch, device)
    return _typical([seconds for _, seconds in plain.train(store, examples, settings, 2)])


def our_step(encoder: str, size: int, batch: int, device: str = "cpu") -> Figures:
    """Seconds of a step of ours; features are at hand, as they are from the second step of a slice on."""
    store, examples, settings = _work(encoder, size, batch, device)
    last, seconds = 0.0, []
    for event in fit(store, examples, settings, n_classes=2):
        now = time.perf_counter()
        if isinstance(event, Progress) and event.stage == "train":
            seconds.append(now - last)
        last = now
    return _typical(seconds)


def _work(encoder: str, size: int, batch: int, device: str) -> tuple[Any, list[Example], Settings]:
    random = np.random.default_rng(0)
    case = case_from_array(random.normal(size=(2, size, size)).astype(np.float32), name="noise")
    examples = [Example(i, random.integers(0, 2, (size, size)).astype(np.int16)) for i in range(2)]
    counted = _COUNTED if device == "cpu" else _COUNTED_ON_CARD
    # The paper's decoder as fast as the machine computes it; the preset itself stays in single precision.
    settings = Settings.of_preset("paper", input_size=size, batch_size=batch, steps=2 + counted, precision="auto")
    return store_for(case, encoder_for_time(encoder, device), size, context=0), examples, settings


def _typical(seconds: list[float]) -> Figures:
    return {"seconds": round(float(np.median(seconds[2:])), 4)}
