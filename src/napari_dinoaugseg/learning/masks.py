"""From the decoder's logits to the mask of a slice at its own size, in strips: a large picture takes little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_dinoaugseg.learning.prediction import Prediction

_STRIP = 32 * 2**20  # bytes of probabilities at a time


def mask_of(logits: Tensor, index: int, shape: tuple[int, int], *, square: int | None = None) -> Prediction:
    """Enlarge the logits of a slice, and choose the class of each pixel.

    Args:
        logits: (K, h, w) float32.
        index: slice number.
        shape: (rows, columns) of the slice.
        square: choose the class at this side, the input size of the encoder, and take the nearest of these pixels for
            each pixel of the slice, as the authors of the paper do. None = enlarge the logits to the slice's own size
            first, so that contours are smooth there.
    """
    if square is not None:
        mask = mask_of(logits, index, (square, square))
        pixels = np.ix_(*(nearest_pixels(square, length) for length in shape))
        return replace(mask, classes=mask.classes[pixels], pixel_confidence=mask.pixel_confidence[pixels])
    classes, confidence = np.empty(shape, np.uint16), np.empty(shape, np.float32)
    amounts = _Amounts(len(logits))
    for first, strip in enlarged(logits, shape):
        probability = strip.softmax(dim=0)
        sure, chosen = probability.max(dim=0)
        rows = slice(first, first + len(sure))
        classes[rows] = chosen.to(torch.int32).cpu().numpy()
        confidence[rows] = sure.cpu().numpy()
        amounts.add(probability, chosen)
    return Prediction(index, classes, confidence, amounts.expected_dice())


def nearest_pixels(source: int, target: int) -> NDArray[np.int32]:
    """For each of ``target`` pixels in a row the one of ``source`` in which its middle lies.

    Asked of Pillow, with which the authors of the paper resize masks: where a middle lies on a border, as every third
    does from 512 to 768, its rounding decides, and others round otherwise.
    """
    row = Image.fromarray(np.arange(source, dtype=np.int32)[np.newaxis])
    pixels: NDArray[np.int32] = np.array(row.resize((target, 1), Image.Resampling.NEAREST))[0]
    return pixels


def enlarged(logits: Tensor, shape: tuple[int, int], strip: int = _STRIP) -> Iterator[tuple[int, Tensor]]:
    """Logits (K, h, w) at another size, bilinear with the corners' pixels as areas, some rows at a time.

    Yields:
        The number of the first row, and (K, rows, columns).
    """
    n_classes, height, _ = logits.shape
    rows, columns = shape
    at_once = max(1, strip // (4 * n_classes * columns))
    for first in range(0, rows, at_once):
        numbers = torch.arange(first, min(rows, first + at_once), device=logits.device)
        # Where the middle of each row lies among the rows that there are.
        position = ((numbers + 0.5) * (height / rows) - 0.5).clamp(0, height - 1)
        above = position.floor().long()
        below = (above + 1).clamp(max=height - 1)
        part = torch.lerp(logits[:, above], logits[:, below], (position - above)[None, :, None].to(logits.dtype))
        size = (len(numbers), columns)
        yield first, F.interpolate(part[None], size=size, mode="bilinear", align_corners=False)[0]


class _Amounts:
    """What the probabilities of a slice add up to, class by class."""

    def __init__(self, n_classes: int) -> None:
        self.expected = np.zeros(n_classes)  # pixels, by the probabilities
        self.chosen = np.zeros(n_classes)  # pixels
        self.agreed = np.zeros(n_classes)  # probability of a class where it was chosen
        self.background = 1.0  # the least of its probability

    def add(self, probability: Tensor, chosen: Tensor) -> None:
        """Count a strip: probabilities (K, rows, columns), and the chosen classes (rows, columns)."""
        self.background = min(self.background, float(probability[0].min()))
        for number in range(1, len(probability)):
            mask = chosen == number
            self.expected[number] += float(probability[number].sum())
            self.chosen[number] += int(mask.sum())
            self.agreed[number] += float(probability[number][mask].sum())

    def expected_dice(self) -> float:
        """The Dice to expect if the probabilities are right: the mean over the classes that are chosen somewhere.

        In an empty slice it is how sure the model is of the background where it is least so. Classes that are chosen
        nowhere do not count beside others: over a whole slice the smallest probabilities add up to some pixels, and
        a rightly missing class would be taken for a wrong one.
        """
        in_sight = self.chosen > 0
        in_sight[0] = False
        if not in_sight.any():
            return self.background
        return float(np.mean(2 * self.agreed[in_sight] / (self.expected + self.chosen)[in_sight]))
