"""From the decoder's logits to the mask of a slice at its own size, in strips: a large picture takes little memory."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from napari_dinoaugseg.learning.events import Prediction

UNKNOWN_TARGET = -1
"""Target value of an unlabelled pixel; the loss ignores it."""

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
    """Sums of the probabilities of a slice, class by class."""

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


# Probabilities of a volume averaged with those of neighbouring slices, while slices come one by one in any order.


_WEIGHT = 0.5
"""Of each neighbour, where the slice itself weighs 1."""


class Smoothing:
    """Mixes the class probabilities of a slice with those of its neighbours, in little memory.

    Args:
        order: slice numbers, in the order in which their masks are wanted.
        neighbours: of a slice; none where slices are independent. They are predicted too if no mask of them is wanted.

    Attributes:
        schedule: slice numbers, in the order in which they have to be predicted.
    """

    def __init__(self, order: Sequence[int], neighbours: Callable[[int], Iterable[int]]) -> None:
        self._beside = {i: set(neighbours(i)) - {i} for i in order}
        self.schedule = list(dict.fromkeys(j for i in order for j in (i, *sorted(self._beside[i]))))
        self._waiting = deque(self._beside)
        self._uses = Counter(j for i, beside in self._beside.items() for j in (i, *beside))
        self._probabilities: dict[int, Tensor] = {}

    def add(self, index: int, logits: Tensor) -> None:
        """Take the prediction of a slice, (K, h, w); kept on the CPU, where a failing device does not destroy it."""
        self._probabilities[index] = logits.softmax(dim=0).cpu()

    def ready(self) -> list[int]:
        """The next slices of the order whose neighbours are all predicted."""
        found = []
        for index in self._waiting:
            if not {index, *self._beside[index]} <= self._probabilities.keys():
                break
            found.append(index)
        return found

    def logits(self, index: int) -> Tensor:
        """Logits (K, h, w) of the mixture, of a slice that is ready."""
        mixed = self._probabilities[index].clone()
        for other in self._beside[index]:
            mixed.add_(self._probabilities[other], alpha=_WEIGHT)
        mixed /= 1 + _WEIGHT * len(self._beside[index])
        return mixed.clamp_min_(torch.finfo(mixed.dtype).tiny).log_()

    def let_go(self, index: int) -> None:
        """Drop what was kept for this slice alone: its mask is made. Only in the order of `ready`."""
        self._waiting.remove(index)
        for used in (index, *self._beside[index]):
            self._uses[used] -= 1
            if not self._uses[used]:
                del self._probabilities[used]


# Connected components of a predicted volume that belong to no label.
#
# Where a few slices of a volume are labelled, each of them with the structure, a model has seen no slice without it,
# and finds some of it in those as well. A component that is not connected to a labelled region, through all slices, and
# whose confidence is not high, is wrong. So is what appears beyond the outermost labelled slices, where no label holds
# the model, and does not lie on the structure of the slice before: there a structure ends, and the model goes on with
# the tissue beside its end. Thin structures are left alone: the coarse copy of the volume cannot follow them.


_SURE = 0.8
"""Mean probability from which on a component stays: a second organ may be in no labelled slice. In trials on the left
atrium, the hippocampus and the spleen nothing of a less certain component was true."""
_QUITE_SURE = 0.95
"""Mean probability from which on a part beyond the outermost labelled slices stays, whatever it lies on."""
_LIES_ON = 0.8
"""Share of such a part that has to lie on the structure of the slice before, or beside it by a coarse pixel."""
_WIDE = 3
"""Coarse pixels that a class is at least across, at its widest in half of the labelled slices, to be followed."""
_SIDE = 96  # rows and columns at most of the coarse volume in which components are looked for
_TOUCHING = np.ones((3, 3, 3), bool)  # corners count: a coarse volume breaks what is thin
_BESIDE = _TOUCHING[0]


class ComponentFilter:
    """Removes predicted components that are not connected to any labelled region, on a coarse copy of the masks.

    Args:
        shape: (slices, rows, columns) of the volume.
        labelled: labels by slice number, (H, W) class indices or `UNKNOWN_TARGET`.
    """

    def __init__(self, shape: tuple[int, int, int], labelled: Mapping[int, NDArray[np.int16]]) -> None:
        self._step = max(1, -(-max(shape[1:]) // _SIDE))
        coarse = (shape[0], -(-shape[1] // self._step), -(-shape[2] // self._step))
        self._classes = np.zeros(coarse, np.uint16)
        self._sure = np.ones(coarse, np.float16)
        self._labels = np.full(coarse, UNKNOWN_TARGET, np.int16)
        self._scribbled: dict[int, NDArray[np.int16]] = {}
        self._widths: dict[int, list[float]] = defaultdict(list)
        for index, labels in labelled.items():
            self._labels[index] = self._coarse(labels)
            if (labels == UNKNOWN_TARGET).any():
                self._scribbled[index] = labels
            else:
                self._measure(labels)
        known = self._labels != UNKNOWN_TARGET
        self._classes[known] = self._labels[known]

    def add(self, prediction: Prediction) -> None:
        """Take over the mask of a slice, where it is not labelled."""
        i = prediction.index
        if i in self._scribbled:
            labels = self._scribbled[i]
            self._measure(np.where(labels == UNKNOWN_TARGET, prediction.classes, labels))
        left_open = self._labels[i] == UNKNOWN_TARGET
        self._classes[i][left_open] = self._coarse(prediction.classes)[left_open]
        self._sure[i][left_open] = self._coarse(prediction.pixel_confidence)[left_open]

    def find(self) -> Mapping[int, NDArray[np.bool_]]:
        """The slices with unconnected components, and where they are, as :meth:`remove` takes it."""
        wrong = np.zeros(self._classes.shape, bool)
        for number in np.unique(self._labels[self._labels > 0]):  # a class without a label cannot be judged
            if np.median(self._widths.get(int(number), [0.0])) < _WIDE * self._step:
                continue
            parts, count = ndimage.label(self._classes == number, _TOUCHING)
            sure = ndimage.mean(self._sure.astype(np.float32), parts, np.arange(count + 1))
            stays = sure >= _SURE
            stays[parts[self._labels == number]] = True
            stays[0] = True
            wrong |= ~stays[parts] | self._loose(int(number))
        return {int(i): wrong[i] for i in np.flatnonzero(wrong.any(axis=(1, 2)))}

    def _measure(self, labels: NDArray[np.integer]) -> None:
        """Measure how many pixels each class is across, at its widest place in a labelled slice."""
        for number, place in enumerate(ndimage.find_objects(np.maximum(labels, 0)), start=1):
            if place is not None:
                depths = ndimage.distance_transform_edt(np.pad(labels[place] == number, 1))
                self._widths[number].append(2 * depths.max() - 1)

    def _loose(self, number: int) -> NDArray[np.bool_]:
        """Where a class continues beyond its outermost labelled slices without lying on itself."""
        holds, loose = self._classes == number, np.zeros(self._classes.shape, bool)
        labelled = np.flatnonzero((self._labels == number).any(axis=(1, 2)))
        for way in (range(labelled[0], -1, -1), range(labelled[-1], len(holds))):
            before = holds[way[0]]
            for i in way[1:]:
                parts, count = ndimage.label(holds[i], _BESIDE)
                each = np.arange(count + 1)
                on = ndimage.mean(ndimage.binary_dilation(before, _BESIDE), parts, each)
                sure = ndimage.mean(self._sure[i].astype(np.float32), parts, each)
                before = holds[i] & ((on >= _LIES_ON) | (sure >= _QUITE_SURE))[parts]
                loose[i] = holds[i] & ~before
        return loose

    def remove(self, prediction: Prediction, wrong: NDArray[np.bool_]) -> Prediction:
        """The prediction of a slice with background in place of its unconnected components.

        A component of the slice that is only partly wrong stays.

        Args:
            prediction: of a slice that `find` named.
            wrong: where they are, at the coarse size.
        """
        classes, sure = prediction.classes.copy(), prediction.pixel_confidence.copy()
        for number in np.unique(self._coarse(classes)[wrong]):
            parts, _ = ndimage.label(prediction.classes == number)
            coarse = self._coarse(parts)
            gone = np.setdiff1d(coarse[wrong], coarse[~wrong])
            unconnected = np.isin(parts, gone[gone > 0])
            classes[unconnected], sure[unconnected] = 0, 1 - sure[unconnected]
        return replace(prediction, classes=classes, pixel_confidence=sure)

    def _coarse(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        return image[:: self._step, :: self._step]


def component_filter(
    shape: tuple[int, int, int], order: Sequence[int], labelled: Mapping[int, NDArray[np.int16]]
) -> ComponentFilter | None:
    """A filter for a volume; None when nothing is labelled, or some slice is neither labelled nor predicted."""
    if not any((labels > 0).any() for labels in labelled.values()) or {*order, *labelled} != {*range(shape[0])}:
        return None
    return ComponentFilter(shape, labelled)
