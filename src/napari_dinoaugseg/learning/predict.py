"""Prediction of masks with their confidence, slice by slice in the given order, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_dinoaugseg.learning.augmentation import Mirror, symmetry_of, tta_views
from napari_dinoaugseg.learning.confidence import (
    LOOKS,
    Looks,
    agreement,
    completed_again,
    confidence_of_picture,
    confidence_of_slice,
)
from napari_dinoaugseg.learning.events import Cancel, Notice, Prediction, Progress, Report, ignore
from napari_dinoaugseg.learning.fallback import CPU, Failure, Fallback, fewer_features, free_memory, usable
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.postprocessing import (
    ComponentFilter,
    Finish,
    Smoothing,
    component_filter,
    mask_of,
    single_classes,
)
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import copy_of
from napari_dinoaugseg.model.decoder import Decoder

_KEPT = 64 * 2**20  # most bytes of logits that are kept for a second prediction
Resize = Literal["bilinear", "nearest"]
NOTHING: Mapping[int, NDArray[np.int16]] = MappingProxyType({})
AS_THEY_ARE = Finish()


def predict(
    store: FeatureStore,
    decoder: Decoder,
    order: Sequence[int],
    *,
    labelled: Mapping[int, NDArray[np.int16]] = NOTHING,
    tta: Sequence[Mirror] = (),
    finish: Finish = AS_THEY_ARE,
    resize: Resize = "bilinear",
    device: torch.device | None = None,
    batch_size: int = 4,
    judge: bool = True,
    report: Report = ignore,
    cancel: Cancel | None = None,
) -> Iterator[Prediction]:
    """Predict slices in the given order, encoding those that are not in the store.

    Logits are enlarged to the slice's own size before the class is chosen, which gives smooth contours, unless
    ``resize`` is "nearest". In 2.5D the probabilities of a slice are averaged with those of its neighbours, and slices
    with components that are not connected to a label (see `postprocessing.ComponentFilter`) come a second time at the
    end, without them. When memory runs out, the batch is halved, then the work moves to the CPU, as it does when the
    device fails; a notice reports it.

    Args:
        store: features of one case.
        decoder: a trained decoder; a copy of it works on the device.
        order: slice numbers.
        labelled: labels of slices of this volume: (H, W) class indices, or `UNKNOWN_TARGET`.
        tta: mirrored views for test-time augmentation, encoded as well; their predictions are averaged with that of the
            slice.
        finish: what is done to the masks of pictures; volumes are left as they are.
        resize: "nearest" chooses the class at the store's input size, and resizes the mask by nearest neighbour.
        device: default: that of the encoder.
        batch_size: slices at once.
        judge: look again at each slice, to know how good its mask is (see `learning.confidence`). False takes less time
            and makes the confidence the Dice expected from the probabilities.
        report: receives progress and notices, in the thread that runs the generator.
        cancel: stops the prediction, from any thread.

    Yields:
        A prediction for each slice.

    Raises:
        NoRoomError: memory runs out with one slice at a time on the CPU.
        DeviceError: the device's failure also affects the CPU.
    """
    components = _component_filter(store, order, labelled)
    keeps = 0 if components is None else _KEPT
    square = store.input_size if resize == "nearest" else None
    work = _Work(store, decoder, device or store.encoder.device, batch_size, tta, square, keeps, finish, judge=judge)
    started, done = time.monotonic(), 0
    for prediction in _masks(work, order, report, cancel):
        done += 1
        if components is not None:
            components.add(prediction)
        report(Progress("predict", done, len(order), time.monotonic() - started))
        yield prediction
    if components is not None and done == len(order):
        wrong = components.find()
        for prediction in _once_more(work, list(wrong), report, cancel):
            yield components.remove(prediction, wrong[prediction.index])


def choose_tta(store: FeatureStore, settings: Settings, n_classes: int) -> tuple[Mirror, ...]:
    """The views for test-time augmentation by the settings and the symmetry of the case."""
    if not settings.mirrors:
        return ()
    images = (store.image(index) for index in range(store.case.n_slices))
    return tta_views(symmetry_of(store.case.kind, images, n_classes))


def choose_finish(store: FeatureStore, settings: Settings, targets: Iterable[NDArray[np.int16]]) -> Finish:
    """What is done to predicted pictures; nothing to volumes and the paper's masks.

    Args:
        store: of the labelled slices.
        settings: of the training.
        targets: of the labelled slices, (H, W) class indices or `UNKNOWN_TARGET`.
    """
    if store.case.kind != "pictures" or settings.resize == "nearest":
        return AS_THEY_ARE
    return Finish(single_classes(targets), redraws=True)


def _component_filter(
    store: FeatureStore, order: Sequence[int], labelled: Mapping[int, NDArray[np.int16]]
) -> ComponentFilter | None:
    case = store.case
    if not (store.context and labelled):
        return None
    return component_filter((case.n_slices, *case.slice_shape(0)), order, labelled)


def _masks(work: _Work, order: Sequence[int], report: Report, cancel: Cancel | None) -> Iterator[Prediction]:
    """Predict slices in the given order."""
    store = work.store
    smoothing = Smoothing(order, store.case.neighbours if store.context else lambda _: ())
    left = smoothing.schedule
    fallback = Fallback(
        "in prediction",
        lambda: work.device,
        [work.smaller_batch, fewer_features(store.release)],
        work.use_cpu,
        lambda: "Not enough memory to predict one slice. Close other programs and predict again.",
    )

    def attempt() -> tuple[int, list[Prediction]]:
        chunk = left[: work.batch_size]
        for event in store.prepare([(i, view) for i in chunk for view in (None, *work.tta)], cancel):
            if isinstance(event, Notice):
                report(event)
        return (0, []) if cancel else (len(chunk), work.predict(chunk, smoothing))

    while left and not cancel:
        done, found = fallback.run(attempt, report)
        left = left[done:]
        for notice in store.notices():
            report(notice)
        yield from found


def _once_more(work: _Work, order: Sequence[int], report: Report, cancel: Cancel | None) -> Iterator[Prediction]:
    """The masks of predicted slices again, from kept logits or by a new prediction."""
    for index in order:
        if cancel:
            return
        if index in work.kept:
            yield work.mask(work.kept[index], index)
    yield from _masks(work, [index for index in order if index not in work.kept], report, cancel)


class _Work:
    """A running prediction and its resources.

    Attributes:
        kept: logits of slices on the CPU, up to a number of bytes.
    """

    def __init__(
        self,
        store: FeatureStore,
        decoder: Decoder,
        device: torch.device,
        batch_size: int,
        tta: Sequence[Mirror],
        square: int | None,
        keeps: int,
        finish: Finish,
        *,
        judge: bool,
    ) -> None:
        self.store, self.decoder, self.device, self.batch_size = store, decoder, usable(device), batch_size
        self.tta = tta
        self.kept: dict[int, Tensor] = {}
        self._square = square
        self._room = keeps
        self._copy: Decoder | None = None
        self._finish, self._judge = finish, judge
        self._looks: Looks | None = None  # created where memory may run out
        self._agreed: dict[int, float] = {}  # agreement of the mask of a slice with what other looks make of it

    def mask(self, logits: Tensor, index: int) -> Prediction:
        """The mask of a slice, at its own size."""
        found = mask_of(logits, index, self.store.case.slice_shape(index), square=self._square)
        if not self._judge:
            return found
        if self._is_picture:
            is_empty = not logits.argmax(dim=0).any()
            sure = confidence_of_picture(found.confidence, self._agreed[index], is_empty=is_empty)
        else:
            sure = confidence_of_slice(found.confidence, self._agreed[index])
        return replace(found, confidence=sure)

    def predict(self, chunk: Sequence[int], smoothing: Smoothing) -> list[Prediction]:
        """The masks that are complete once these slices are predicted."""
        if usable(self.device) != self.device:  # it failed while encoding, as reported
            self._leave_device()
        if self._copy is None:
            self._copy = copy_of(self.decoder).to(self.device).eval()
        if self._judge and self._looks is None:
            self._looks = Looks()
        with torch.inference_mode():
            logits = self._logits(self._copy, chunk)
            for position, index in enumerate(chunk):
                smoothing.add(index, logits[position])
            ready = smoothing.ready()
            mixed = {index: smoothing.logits(index) for index in ready}
            masks = [self.mask(values.to(self.device), index) for index, values in mixed.items()]
        for index, values in mixed.items():  # last, so that the whole chunk can be repeated if memory runs out
            smoothing.release(index)
            self._keep(index, values)
        return masks

    def smaller_batch(self, _: Failure) -> str | None:
        """A rung: halve the batch."""
        if self.batch_size == 1:
            return None
        self.batch_size //= 2
        return f"with {self.batch_size} slices at a time"

    def use_cpu(self) -> None:
        """Continue on the CPU; if the device has failed, encode there as well."""
        if usable(self.device) != self.device:
            self.store.leave_device()
        self._leave_device()

    def _leave_device(self) -> None:
        before, self.device, self._copy, self._looks = self.device, CPU, None, None
        free_memory(before)

    def _logits(self, decoder: Decoder, chunk: Sequence[int]) -> Tensor:
        """Logits (B, K, h, w); with test-time augmentation the logarithm of the mean probability."""
        features = self.store.batch([(index, None) for index in chunk], self.device)
        logits: Tensor = decoder(features, None).float()
        again: list[Tensor] = []
        if self.tta:
            probability = logits.softmax(dim=1)
            for mirror in self.tta:
                seen = decoder(self.store.batch([(index, mirror) for index in chunk], self.device), None).float()
                again.append(mirror.of_image(seen.softmax(dim=1)))
                probability += again[-1]
            probability /= 1 + len(self.tta)
            logits = probability.clamp_min_(torch.finfo(probability.dtype).tiny).log_()
        elif self._looks is not None:
            again = [decoder(self._looks.at(features, chunk, number), None) for number in range(LOOKS)]
        if self._judge:
            self._compare(chunk, logits, again)
        if self._is_picture and self._finish != AS_THEY_ARE:
            images = [partial(self.store.image, index) for index in chunk]
            return torch.stack([self._finish(*each) for each in zip(logits, images, strict=True)])
        return logits

    @property
    def _is_picture(self) -> bool:
        return self.store.case.kind == "pictures"

    def _compare(self, chunk: Sequence[int], logits: Tensor, again: Sequence[Tensor]) -> None:
        """Keep how far the decoder's masks agree with others: of other views, and of pictures with a completed one.

        Masks of pictures are judged before they are finished: that something was left out is a reason for doubt.

        Args:
            chunk: slice numbers.
            logits: (B, K, h, w) of the decoder.
            again: (B, K, h, w) of each other view.
        """
        masks, *others = (values.argmax(dim=1).cpu().numpy() for values in (logits, *again))
        for position, index in enumerate(chunk):
            agreed = float(np.mean([agreement(other[position], masks[position]) for other in others]))
            if self._is_picture:
                agreed = (agreed + completed_again(self.store.image(index), logits[position])) / 2
            self._agreed[index] = agreed

    def _keep(self, index: int, logits: Tensor) -> None:
        if logits.nbytes <= self._room:
            self.kept[index] = logits
            self._room -= logits.nbytes
