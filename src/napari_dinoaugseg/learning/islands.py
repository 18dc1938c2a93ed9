"""Finds what a model sees of a structure far from all that the person marked of it.

Where a few slices of a volume are labelled, each of them with the structure, a model has seen no slice without it, and
finds something in those as well. What is not connected with a mark, through all slices, and not quite sure, is wrong.
So is what comes up beyond the outermost marks, where no mark holds the model, and does not lie on the structure of the
slice before: there a structure ends, and the model goes on with what lies beside its end. Thin structures are left
alone: the copy of the volume on which all this is done is too coarse to follow them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dinoaugseg.learning.loss import UNKNOWN_TARGET
from napari_dinoaugseg.learning.prediction import Prediction

_SURE = 0.8
"""Mean probability from which on an island stays: a second organ may be in no labelled slice. In trials on the left
atrium, the hippocampus and the spleen nothing of a less certain island was true."""
_QUITE_SURE = 0.95
"""Mean probability from which on a part beyond the outermost marks stays, whatever it lies on."""
_LIES_ON = 0.8
"""Share of such a part that has to lie on the structure of the slice before, or beside it by a coarse pixel."""
_WIDE = 3
"""Coarse pixels that a class is at least across, at its widest place in half of the marked slices, to be followed."""
_SIDE = 96  # rows and columns at most of the coarse volume in which islands are looked for
_TOUCHING = np.ones((3, 3, 3), bool)  # corners count: a coarse volume breaks what is thin
_BESIDE = _TOUCHING[0]


class Islands:
    """A coarse copy of a volume's masks.

    Args:
        shape: (slices, rows, columns) of the volume.
        labelled: what the person said, (H, W) class indices or `UNKNOWN_TARGET` by slice number.
    """

    def __init__(self, shape: tuple[int, int, int], labelled: Mapping[int, NDArray[np.int16]]) -> None:
        self._step = max(1, -(-max(shape[1:]) // _SIDE))
        coarse = (shape[0], -(-shape[1] // self._step), -(-shape[2] // self._step))
        self._classes = np.zeros(coarse, np.uint16)
        self._sure = np.ones(coarse, np.float16)
        self._said = np.full(coarse, UNKNOWN_TARGET, np.int16)
        self._scribbled: dict[int, NDArray[np.int16]] = {}
        self._widths: dict[int, list[float]] = defaultdict(list)
        for index, labels in labelled.items():
            self._said[index] = self._coarse(labels)
            if (labels == UNKNOWN_TARGET).any():
                self._scribbled[index] = labels
            else:
                self._measure(labels)
        known = self._said != UNKNOWN_TARGET
        self._classes[known] = self._said[known]

    def note(self, prediction: Prediction) -> None:
        """Take over the mask of a slice, where the person did not say what is there."""
        i = prediction.index
        if i in self._scribbled:
            said = self._scribbled[i]
            self._measure(np.where(said == UNKNOWN_TARGET, prediction.classes, said))
        left_open = self._said[i] == UNKNOWN_TARGET
        self._classes[i][left_open] = self._coarse(prediction.classes)[left_open]
        self._sure[i][left_open] = self._coarse(prediction.pixel_confidence)[left_open]

    def find(self) -> Mapping[int, NDArray[np.bool_]]:
        """The slices with islands, and where they are, as :meth:`without` takes it."""
        wrong = np.zeros(self._classes.shape, bool)
        for number in np.unique(self._said[self._said > 0]):  # of a class without a mark nothing is known
            if np.median(self._widths.get(int(number), [0.0])) < _WIDE * self._step:
                continue
            parts, count = ndimage.label(self._classes == number, _TOUCHING)
            sure = ndimage.mean(self._sure.astype(np.float32), parts, np.arange(count + 1))
            stays = sure >= _SURE
            stays[parts[self._said == number]] = True
            stays[0] = True
            wrong |= ~stays[parts] | self._loose(int(number))
        return {int(i): wrong[i] for i in np.flatnonzero(wrong.any(axis=(1, 2)))}

    def _measure(self, labels: NDArray[np.integer]) -> None:
        """Note how many pixels each class is across, at its widest place in a marked slice."""
        for number, place in enumerate(ndimage.find_objects(np.maximum(labels, 0)), start=1):
            if place is not None:
                depths = ndimage.distance_transform_edt(np.pad(labels[place] == number, 1))
                self._widths[number].append(2 * depths.max() - 1)

    def _loose(self, number: int) -> NDArray[np.bool_]:
        """Where a class goes on beyond its outermost marks without lying on itself."""
        holds, loose = self._classes == number, np.zeros(self._classes.shape, bool)
        marked = np.flatnonzero((self._said == number).any(axis=(1, 2)))
        for way in (range(marked[0], -1, -1), range(marked[-1], len(holds))):
            before = holds[way[0]]
            for i in way[1:]:
                parts, count = ndimage.label(holds[i], _BESIDE)
                each = np.arange(count + 1)
                on = ndimage.mean(ndimage.binary_dilation(before, _BESIDE), parts, each)
                sure = ndimage.mean(self._sure[i].astype(np.float32), parts, each)
                before = holds[i] & ((on >= _LIES_ON) | (sure >= _QUITE_SURE))[parts]
                loose[i] = holds[i] & ~before
        return loose

    def without(self, prediction: Prediction, wrong: NDArray[np.bool_]) -> Prediction:
        """The prediction of a slice with background in the place of its islands; what is joined with other parts stays.

        Args:
            prediction: of a slice that `find` named.
            wrong: where its islands are.
        """
        classes, sure = prediction.classes.copy(), prediction.pixel_confidence.copy()
        for number in np.unique(self._coarse(classes)[wrong]):
            parts, _ = ndimage.label(prediction.classes == number)
            coarse = self._coarse(parts)
            gone = np.setdiff1d(coarse[wrong], coarse[~wrong])
            island = np.isin(parts, gone[gone > 0])
            classes[island], sure[island] = 0, 1 - sure[island]
        return replace(prediction, classes=classes, pixel_confidence=sure)

    def _coarse(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        return image[:: self._step, :: self._step]


def islands_of(
    shape: tuple[int, int, int], order: Sequence[int], labelled: Mapping[int, NDArray[np.int16]]
) -> Islands | None:
    """To look for islands with; None when nothing is marked, or some slice is neither labelled nor predicted."""
    if not any((labels > 0).any() for labels in labelled.values()) or {*order, *labelled} != {*range(shape[0])}:
        return None
    return Islands(shape, labelled)
