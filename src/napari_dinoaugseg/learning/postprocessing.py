"""From the decoder's logits to masks: finishing of pictures, smoothing between slices, resizing, and removal of
unconnected components.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from napari_dinoaugseg.learning.completion import redraw
from napari_dinoaugseg.learning.events import Prediction

UNKNOWN_TARGET = -1
"""Target value of an unlabelled pixel, which the loss ignores."""

_STRIP = 32 * 2**20  # bytes of probabilities at a time

_WEIGHT = 0.5
"""Weight of each neighbour in the smoothing; that of the slice itself is 1."""

_SURE = 0.8
"""Mean probability above which an unconnected component stays, because a second organ may be in no labelled slice. In
trials on the left atrium, the hippocampus and the spleen no less certain component was true."""
_QUITE_SURE = 0.95
"""Mean probability above which a part beyond the outermost labelled slices always stays."""
_LIES_ON = 0.8
"""Share of such a part that must overlap the structure of the slice before, dilated by a coarse pixel."""
_WIDE = 3
"""Coarse pixels: a class of smaller median width in the labelled slices is not filtered."""
_SIDE = 96  # most rows and columns of the coarse volume
_MOSTLY = 0.75
"""Share of the labelled pictures with a class that show it in one piece, above which it is single."""
_FEW = 3  # labelled pictures with a class, from which that can be judged
_DOUBTFUL = 0.9
"""Mean probability of a component, as a share of that of the surest one, below which it is left out."""
_LEFT_OUT = np.float32(0.98)
"""Probability of its class there, as a share of that of the background: it is shown as unsure, and is not a stroke."""
_COLOUR = 1e-3  # least difference of channels
_TOUCHING = np.ones((3, 3, 3), bool)  # with corners, because a coarse volume breaks thin structures
_BESIDE = _TOUCHING[0]


def mask_of(logits: Tensor, index: int, shape: tuple[int, int], *, square: int | None = None) -> Prediction:
    """Enlarge the logits of a slice in strips, which saves memory, and choose the class of each pixel.

    Args:
        logits: (K, h, w) float32.
        index: slice number.
        shape: (rows, columns) of the slice.
        square: choose classes at this side, the encoder's input size, and resize the mask by nearest neighbour, as the
            authors of the paper do. None = enlarge the logits to the slice's own size, which gives smooth contours.
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
    """For each of ``target`` pixels in a row, the nearest of ``source`` pixels.

    Computed by Pillow, with which the authors of the paper resize masks: libraries round differently where the centre
    of a pixel lies on a border, as every third does from 512 to 768.
    """
    row = Image.fromarray(np.arange(source, dtype=np.int32)[np.newaxis])
    pixels: NDArray[np.int32] = np.array(row.resize((target, 1), Image.Resampling.NEAREST))[0]
    return pixels


def enlarged(logits: Tensor, shape: tuple[int, int], strip: int = _STRIP) -> Iterator[tuple[int, Tensor]]:
    """Logits (K, h, w) at another size, bilinear without aligned corners, some rows at a time.

    Yields:
        The number of the first row, and (K, rows, columns).
    """
    n_classes, height, _ = logits.shape
    rows, columns = shape
    at_once = max(1, strip // (4 * n_classes * columns))
    for first in range(0, rows, at_once):
        numbers = torch.arange(first, min(rows, first + at_once), device=logits.device)
        # The position of each row's centre among the source rows.
        position = ((numbers + 0.5) * (height / rows) - 0.5).clamp(0, height - 1)
        above = position.floor().long()
        below = (above + 1).clamp(max=height - 1)
        part = torch.lerp(logits[:, above], logits[:, below], (position - above)[None, :, None].to(logits.dtype))
        size = (len(numbers), columns)
        yield first, F.interpolate(part[None], size=size, mode="bilinear", align_corners=False)[0]


class _Amounts:
    """Sums of the probabilities of a slice by class."""

    def __init__(self, n_classes: int) -> None:
        self.expected = np.zeros(n_classes)  # sum of the probability
        self.chosen = np.zeros(n_classes)  # pixels
        self.agreed = np.zeros(n_classes)  # sum of the probability where the class is chosen
        self.background = 1.0  # smallest probability of the background

    def add(self, probability: Tensor, chosen: Tensor) -> None:
        """Add a strip: probabilities (K, rows, columns) and chosen classes (rows, columns)."""
        self.background = min(self.background, float(probability[0].min()))
        for number in range(1, len(probability)):
            mask = chosen == number
            self.expected[number] += float(probability[number].sum())
            self.chosen[number] += int(mask.sum())
            self.agreed[number] += float(probability[number][mask].sum())

    def expected_dice(self) -> float:
        """The Dice expected from the probabilities: the mean over the classes in the mask.

        For an empty mask it is the smallest probability of the background. Absent classes do not count: over a whole
        slice tiny probabilities add up to some pixels, so that a correctly absent class would count as an error.
        """
        present = self.chosen > 0
        present[0] = False
        if not present.any():
            return self.background
        return float(np.mean(2 * self.agreed[present] / (self.expected + self.chosen)[present]))


class Smoothing:
    """Averages the class probabilities of a slice with those of its neighbours, while slices come one by one.

    Args:
        order: slice numbers, in the order of the masks.
        neighbours: of a slice; none if slices are independent. They are predicted even if they need no mask.

    Attributes:
        schedule: slice numbers, in the order in which they must be predicted.
    """

    def __init__(self, order: Sequence[int], neighbours: Callable[[int], Iterable[int]]) -> None:
        self._beside = {i: set(neighbours(i)) - {i} for i in order}
        self.schedule = list(dict.fromkeys(j for i in order for j in (i, *sorted(self._beside[i]))))
        self._waiting = deque(self._beside)
        self._uses = Counter(j for i, beside in self._beside.items() for j in (i, *beside))
        self._probabilities: dict[int, Tensor] = {}

    def add(self, index: int, logits: Tensor) -> None:
        """Add the logits of a slice, (K, h, w); kept on the CPU, where a failing device does not destroy them."""
        self._probabilities[index] = logits.softmax(dim=0).cpu()

    def ready(self) -> list[int]:
        """The next slices in order whose neighbours are all predicted."""
        found = []
        for index in self._waiting:
            if not {index, *self._beside[index]} <= self._probabilities.keys():
                break
            found.append(index)
        return found

    def logits(self, index: int) -> Tensor:
        """Logits (K, h, w) of the average, of a slice that is ready."""
        mixed = self._probabilities[index].clone()
        for other in self._beside[index]:
            mixed.add_(self._probabilities[other], alpha=_WEIGHT)
        mixed /= 1 + _WEIGHT * len(self._beside[index])
        return mixed.clamp_min_(torch.finfo(mixed.dtype).tiny).log_()

    def release(self, index: int) -> None:
        """Release what was kept for this slice alone, after its mask is made; in the order of `ready`."""
        self._waiting.remove(index)
        for used in (index, *self._beside[index]):
            self._uses[used] -= 1
            if not self._uses[used]:
                del self._probabilities[used]


class ComponentFilter:
    """Removes predicted components that are not connected to any labelled region.

    If every labelled slice holds the structure, the model has seen no slice without it, and predicts some of it there
    as well. A component with low confidence that is not connected through the slices to a labelled region is wrong. So
    is a part beyond the outermost labelled slices that does not overlap the structure of the slice before: the
    structure has ended, and the model continues into adjacent tissue. Components are found on a coarse copy of the
    volume, which cannot follow thin structures: those are not filtered.

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
        """Add the mask of a slice, where it is not labelled."""
        i = prediction.index
        if i in self._scribbled:
            labels = self._scribbled[i]
            self._measure(np.where(labels == UNKNOWN_TARGET, prediction.classes, labels))
        left_open = self._labels[i] == UNKNOWN_TARGET
        self._classes[i][left_open] = self._coarse(prediction.classes)[left_open]
        self._sure[i][left_open] = self._coarse(prediction.pixel_confidence)[left_open]

    def find(self) -> Mapping[int, NDArray[np.bool_]]:
        """The slices with unconnected components, and masks of them for :meth:`remove`."""
        wrong = np.zeros(self._classes.shape, bool)
        for number in np.unique(self._labels[self._labels > 0]):  # only labelled classes can be judged
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
        """Record the greatest width of each class in a labelled slice, in pixels."""
        for number, place in enumerate(ndimage.find_objects(np.maximum(labels, 0)), start=1):
            if place is not None:
                depths = ndimage.distance_transform_edt(np.pad(labels[place] == number, 1))
                self._widths[number].append(2 * depths.max() - 1)

    def _loose(self, number: int) -> NDArray[np.bool_]:
        """Where a class continues beyond its outermost labelled slices without overlap from slice to slice."""
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
        """The prediction without its unconnected components; a component that is only partly wrong stays.

        Args:
            prediction: of a slice from :meth:`find`.
            wrong: the mask from there, at the coarse size.
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


def single_classes(targets: Iterable[NDArray[np.int16]]) -> tuple[int, ...]:
    """Classes that most labelled pictures show in one piece, of those that at least three of them show.

    Args:
        targets: (H, W) class indices each; one with `UNKNOWN_TARGET` says nothing, for a piece may be unlabelled.

    Returns:
        Class indices, in ascending order.
    """
    counts: dict[int, list[int]] = defaultdict(list)
    for target in targets:
        if (target != UNKNOWN_TARGET).all():
            for number in np.unique(target[target > 0]):
                counts[int(number)].append(ndimage.label(target == number, _BESIDE)[1])
    return tuple(
        number
        for number, found in sorted(counts.items())
        if len(found) >= _FEW and np.mean([count == 1 for count in found]) >= _MOSTLY
    )


@dataclass(frozen=True)
class Finish:
    """What is done to the masks of pictures after the decoder.

    Attributes:
        single: outputs of classes of which doubtful components are left out, see :func:`without_doubtful`.
        redraws: draw again what the model is not sure of, see `completion.redraw`.
    """

    single: tuple[int, ...] = ()
    redraws: bool = False

    def __call__(self, logits: Tensor, image: Callable[[], Tensor]) -> Tensor:
        """The finished logits (K, h, w) of a picture.

        Args:
            logits: (K, h, w) float32.
            image: gives the encoder's input, (3, S, S) from 0 to 1; called only where it is needed.
        """
        given = logits.softmax(dim=0).cpu().numpy()
        probability = without_doubtful(given, self.single)
        found = redraw(lambda: picture(image(), given.shape[1:]), probability) if self.redraws else probability
        if found is given:
            return logits
        if found is not probability and probability is not given:  # what is left out and stays so is still unsure
            left_out = (probability.argmax(axis=0) != given.argmax(axis=0)) & (found.argmax(axis=0) == 0)
            found = np.where(left_out, probability, found)
        finished = torch.from_numpy(found).clamp_min_(torch.finfo(torch.float32).tiny).log_()
        return finished.to(logits.device)


def without_doubtful(probability: NDArray[np.float32], single: Iterable[int]) -> NDArray[np.float32]:
    """The probabilities of a picture without the components that the model is less sure of than of another.

    Only classes of :func:`single_classes` are looked at, and the surest component of each always stays. Two components
    of which the model is about as sure both stay: a picture may show two lesions. Where a component is left out, the
    background is just more probable than its class.

    Args:
        probability: (K, H, W) of each class; it is not changed.
        single: class indices.

    Returns:
        (K, H, W); the same array if nothing is left out.
    """
    mask, sure = probability.argmax(axis=0), probability.max(axis=0)
    found = probability
    for number in single:
        parts, count = ndimage.label(mask == number, _BESIDE)
        if count < 2:
            continue
        each = ndimage.mean(sure, parts, np.arange(1, count + 1))
        doubtful = np.concatenate([[False], each < _DOUBTFUL * each.max()])[parts]
        if doubtful.any():
            found = found.copy() if found is probability else found
            found[0, doubtful] = sure[doubtful]
            found[number, doubtful] = _LEFT_OUT * sure[doubtful]
            found[:, doubtful] /= found[:, doubtful].sum(axis=0)
    return found


def picture(image: Tensor, size: tuple[int, ...]) -> NDArray[Any]:
    """An image (3, S, S) from 0 to 1 as `complete` takes it, (h, w) from 0 to 1 or (h, w, 3) in 8 bits."""
    small = F.interpolate(image[None].cpu(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    if (small.amax(dim=0) - small.amin(dim=0)).max() < _COLOUR:
        return small[0].numpy()
    levels = (255 * small.clamp(0, 1)).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()


def component_filter(
    shape: tuple[int, int, int], order: Sequence[int], labelled: Mapping[int, NDArray[np.int16]]
) -> ComponentFilter | None:
    """A filter for a volume; None if nothing is labelled, or some slice is neither labelled nor predicted."""
    if not any((labels > 0).any() for labels in labelled.values()) or {*order, *labelled} != {*range(shape[0])}:
        return None
    return ComponentFilter(shape, labelled)
