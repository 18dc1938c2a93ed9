"""Prediction: masks with their confidence, nearest to the person's slice first, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_dinoaugseg.learning.augmentation import Mirror, freedom_of, mirrors_for
from napari_dinoaugseg.learning.events import Cancel, Event, Notice, Prediction, Progress
from napari_dinoaugseg.learning.fallback import CPU, NoRoomError, Patience, diagnose, free_memory, give_up, usable
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.postprocessing import Islands, Smoothing, islands_of, mask_of
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import on_host, with_weights
from napari_dinoaugseg.model.decoder import Decoder

_KEPT = 64 * 2**20  # bytes of logits at most that are kept for slices that may come a second time
Resize = Literal["bilinear", "nearest"]
NOTHING: Mapping[int, NDArray[np.int16]] = MappingProxyType({})


def predict(
    store: FeatureStore,
    decoder: Decoder,
    order: Sequence[int],
    *,
    labelled: Mapping[int, NDArray[np.int16]] = NOTHING,
    mirrors: Sequence[Mirror] = (),
    resize: Resize = "bilinear",
    device: torch.device | None = None,
    batch_size: int = 4,
    cancel: Cancel | None = None,
) -> Iterator[Event | Prediction]:
    """Predict slices in the given order, encoding those that are not in the store.

    Yields events and a :class:`Prediction` for each slice. The logits are enlarged to the slice's own size before the
    class is chosen, so that contours are smooth at full resolution, unless ``resize`` says otherwise. Where slices are
    seen with their neighbours, they are also mixed with their neighbours' predictions, and in the end those with
    islands (see `learning.islands`) come a second time, without them. When memory runs out, the batch is halved, then
    the CPU takes over, as it does when the device fails; a notice says so.

    Args:
        store: features of the case.
        decoder: what was learnt; stays where it is, a copy works on the device.
        order: slice numbers.
        labelled: what the person said of slices of this volume: (H, W) class indices, or `UNKNOWN_TARGET`.
        mirrors: mirrored views whose predictions are mixed with that of the slice; each is encoded as well.
        resize: "nearest" chooses the class at the store's input size, and resizes the mask to the nearest pixel.
        device: default: that of the encoder.
        batch_size: slices at once.
        cancel: asks for the stop from another thread.

    Raises:
        NoRoomError: memory runs out with one slice at a time on the CPU.
        DeviceError: the device's failure reaches the CPU as well.
    """
    islands = _islands(store, order, labelled)
    keeps = 0 if islands is None else _KEPT
    square = store.input_size if resize == "nearest" else None
    work = _Work(store, decoder, device or store.encoder.device, batch_size, mirrors, square, keeps)
    started, done = time.monotonic(), 0
    for item in _masks(work, order, cancel):
        yield item
        if isinstance(item, Prediction):
            done += 1
            if islands is not None:
                islands.note(item)
            yield Progress("predict", done, len(order), time.monotonic() - started)
    if islands is not None and done == len(order):
        wrong = islands.find()
        for item in _once_more(work, list(wrong), cancel):
            yield islands.without(item, wrong[item.index]) if isinstance(item, Prediction) else item


def mirrors_of(store: FeatureStore, settings: Settings, n_classes: int) -> tuple[Mirror, ...]:
    """The mirrored views with which slices are predicted: where they are as likely, and the settings want them."""
    if not settings.mirrors:
        return ()
    images = (store.image(index) for index in range(store.case.n_slices))
    return mirrors_for(freedom_of(store.case.kind, images, n_classes))


def _islands(store: FeatureStore, order: Sequence[int], labelled: Mapping[int, NDArray[np.int16]]) -> Islands | None:
    case = store.case
    one_volume = all(case.neighbours(i)[1] == i + 1 for i in range(case.n_slices - 1))
    if not (store.context and labelled and one_volume):
        return None
    return islands_of((case.n_slices, *case.slice_shape(0)), order, labelled)


def _masks(work: _Work, order: Sequence[int], cancel: Cancel | None) -> Iterator[Notice | Prediction]:
    """The masks of slices in the given order, and what the person should know."""
    store = work.store
    smoothing = Smoothing(order, store.case.neighbours if store.context else lambda _: ())
    predicted = 0
    while predicted < len(smoothing.schedule) and not cancel:
        chunk = smoothing.schedule[predicted : predicted + work.batch_size]
        seen = [(i, view) for i in chunk for view in (None, *work.mirrors)]
        yield from (event for event in store.prepare(seen, cancel) if isinstance(event, Notice))
        if cancel:
            return
        results = work.try_to_predict(chunk, smoothing)
        yield from store.notices()
        yield from work.notices()
        if results is None:
            continue
        predicted += len(chunk)
        yield from results


def _once_more(work: _Work, order: Sequence[int], cancel: Cancel | None) -> Iterator[Notice | Prediction]:
    """The masks of slices that were predicted before: from the logits that were kept, else anew."""
    for index in order:
        if cancel:
            return
        if index in work.kept:
            yield work.mask(work.kept[index], index)
    yield from _masks(work, [index for index in order if index not in work.kept], cancel)


class _Work:
    """What prediction makes of the machine.

    Attributes:
        kept: logits of slices, on the CPU, as many as there is room for.
    """

    def __init__(
        self,
        store: FeatureStore,
        decoder: Decoder,
        device: torch.device,
        batch_size: int,
        mirrors: Sequence[Mirror],
        square: int | None,
        keeps: int,
    ) -> None:
        self.store, self.decoder, self.device, self.batch_size = store, decoder, usable(device), batch_size
        self.mirrors = mirrors
        self.kept: dict[int, Tensor] = {}
        self._square = square
        self._room = keeps
        self._copy: Decoder | None = None
        self._notices: list[Notice] = []
        self._patience = Patience()

    def notices(self) -> Iterator[Notice]:
        while self._notices:
            yield self._notices.pop(0)

    def mask(self, logits: Tensor, index: int) -> Prediction:
        """The mask of a slice, at its own size."""
        return mask_of(logits, index, self.store.case.slice_shape(index), square=self._square)

    def try_to_predict(self, chunk: list[int], smoothing: Smoothing) -> list[Prediction] | None:
        """The masks that are ready then; None when it has to be tried again, of which a notice tells."""
        if usable(self.device) != self.device:  # it failed while encoding, which was told
            self._go_on_with_cpu()
        try:
            return self._predict(chunk, smoothing)
        except (RuntimeError, MemoryError) as error:
            found = diagnose(error, self.device)
        # Only here the exception is gone, and with it what its frames held.
        failed = found.trouble == "device"
        self._notices.append(self._change_device(found.why) if failed else self._make_room(found.hosts))
        return None

    def _predict(self, chunk: list[int], smoothing: Smoothing) -> list[Prediction]:
        if self._copy is None:
            self._copy = with_weights(self.decoder.arguments, on_host(self.decoder.state_dict())).to(self.device).eval()
        with torch.inference_mode():
            logits = self._logits(self._copy, chunk)
            for position, index in enumerate(chunk):
                smoothing.add(index, logits[position])
            ready = smoothing.ready()
            mixed = {index: smoothing.logits(index) for index in ready}
            masks = [self.mask(values.to(self.device), index) for index, values in mixed.items()]
        for index, values in mixed.items():  # only now: when memory runs out before, all of it is tried again
            smoothing.let_go(index)
            self._keep(index, values)
        return masks

    def _logits(self, decoder: Decoder, chunk: list[int]) -> Tensor:
        """(B, K, h, w) of the slices; with mirrored views the logarithm of the mean probability."""
        logits: Tensor = decoder(self.store.batch([(index, None) for index in chunk], self.device), None).float()
        if not self.mirrors:
            return logits
        probability = logits.softmax(dim=1)
        for mirror in self.mirrors:
            seen = decoder(self.store.batch([(index, mirror) for index in chunk], self.device), None).float()
            probability += mirror.of_image(seen.softmax(dim=1))
        probability /= 1 + len(self.mirrors)
        return probability.clamp_min_(torch.finfo(probability.dtype).tiny).log_()

    def _keep(self, index: int, logits: Tensor) -> None:
        if logits.nbytes <= self._room:
            self.kept[index] = logits
            self._room -= logits.nbytes

    def _make_room(self, hosts: bool) -> Notice:
        free_memory(self.device)
        if self.batch_size > 1:
            self.batch_size //= 2
            return Notice(f"Memory ran out in prediction; going on with {self.batch_size} slices at a time.")
        if hosts and self.store.let_go():
            return Notice("Memory ran out in prediction; going on with fewer features in memory.")
        if self.device.type != "cpu":
            self._go_on_with_cpu()
            return Notice("Memory ran out in prediction; going on with the CPU.")
        if self._patience.once_more():
            return Notice("Memory ran out in prediction; trying once more.")
        msg = "There is not enough memory to predict one slice. Close other programs and predict again."
        raise NoRoomError(msg)

    def _change_device(self, why: str) -> Notice:
        device = self.device
        give_up(device)
        self._go_on_with_cpu()
        self.store.leave_device()
        return Notice(f"The device '{device}' failed ({why}); going on with the CPU.")

    def _go_on_with_cpu(self) -> None:
        before, self.device, self._copy = self.device, CPU, None
        free_memory(before)
