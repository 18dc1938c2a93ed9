"""The feature store: the frozen encoder sees each slice (and view) once, and training works on its features.

The paper augments features, not images, so that nothing is encoded twice. This makes the loop interactive. An encoder
that was adapted (see `adaptation`) has a store of its own.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.case.intensity import Scale, SliceRange, to_unit, to_unit_rgb
from napari_dinoaugseg.learning.augmentation import Mirror, View
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.events import Cancel, Event, Notice, Progress
from napari_dinoaugseg.learning.fallback import Failure, Fallback, fewer_features
from napari_dinoaugseg.learning.memory import SHARE, feature_budget
from napari_dinoaugseg.model.encoder import Encoder

SliceView = tuple[int, View | Mirror | None]
"""A slice number and a view of it; None = the slice itself."""

_Image = tuple[int, View | Mirror | None, int]
"""What the encoder sees at once: a slice, a view of it, and the number of a sequence."""

_FLOAT16_MAX = 65504.0


class FeatureStore:
    """Encoder features of one case at one input size, in memory and on disk.

    Each sequence of a case is encoded and kept by itself, with the keys that it has as a case of its own; the maps of a
    slice are those of its sequences, channel after channel.

    Fallbacks when memory runs out or a device fails are reported by :meth:`notices`.

    Args:
        case: its slices are encoded.
        encoder: its weights do not change meanwhile.
        input_size: side of the square that a slice is resized to.
        window: maps intensities to 0 to 1; None = unchanged. A function gives that of each slice in each sequence, both
            by number, for joined cases and several sequences.
        context: distance of the neighbouring slices in the input channels of a grey slice (2.5D, see
            `augmentation.neighbour_distance`); 0 = the slice alone.
        cache: of features on disk; None = no cache. Those of an adapted encoder are not kept there: the next training
            gives another one.
        memory_budget: bytes of features to keep in memory; None = a share of the available memory.
        batch_size: slices encoded at once; None = by the encoder's device.
        exact: keep features in single precision, twice the size, and compute them without TF32.

    Attributes:
        encoded: how many slices and views were encoded, in each sequence; the rest came from memory or disk.
        encode_seconds: the time that took.
    """

    def __init__(
        self,
        case: Slices,
        encoder: Encoder,
        *,
        input_size: int,
        window: Scale | Callable[[int, int], Scale],
        context: int = 0,
        cache: FeatureCache | None = None,
        memory_budget: int | None = None,
        batch_size: int | None = None,
        exact: bool = False,
    ) -> None:
        self.case = case
        self._sequences = list(case.sequences.values())
        self.encoder = encoder
        self.input_size = input_size
        self.window = window
        self.context = context
        self.exact = exact
        self.encoded = 0
        self.encode_seconds = 0.0
        self._means: dict[tuple[int, int], NDArray[np.float32]] = {}  # by slice and sequence
        self._cache = cache
        self._budget = feature_budget() if memory_budget is None else memory_budget
        # On a CPU one by one: as fast, and the last digits of features do not depend on the rest of the batch.
        self._batch_size = batch_size or (1 if encoder.device.type == "cpu" else 8)
        self._memory: OrderedDict[str, list[Tensor]] = OrderedDict()
        self._bytes = 0
        self._notices: list[Notice] = []
        self._tried = 1  # slices in the last batch
        self._cache_problem_reported = False
        self._fingerprints: dict[tuple[int, int], str] = {}  # by sequence and slice

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four maps of a slice: those of the encoder for each sequence."""
        return tuple(len(self._sequences) * count for count in self.encoder.channels)

    @property
    def descriptors(self) -> dict[int, NDArray[np.float32]]:
        """What the slices show that were encoded or read so far, wherever they show it.

        Of each, by its number, the means of its coarsest map, (C,) with the channels of all sequences.
        """
        means, numbers = dict(self._means), range(len(self._sequences))
        return {
            index: np.concatenate([means[index, number] for number in numbers])
            for index in {index for index, _ in means}
            if all((index, number) in means for number in numbers)
        }

    @property
    def memory_used(self) -> int:
        """Bytes of features kept in memory."""
        return self._bytes

    def resized(self, input_size: int) -> FeatureStore:
        """A store of the same case and encoder at another input size. This one releases its memory."""
        return self._changed(input_size=input_size)

    def with_context(self, context: int) -> FeatureStore:
        """A store of the same case and encoder with other neighbours. This one releases its memory."""
        return self._changed(context=context)

    def with_precision(self, *, exact: bool) -> FeatureStore:
        """A store of the same case and encoder in another precision. This one releases its memory."""
        return self._changed(exact=exact)

    def with_encoder(self, encoder: Encoder) -> FeatureStore:
        """A store of the same case with another adaptation of its encoder. This one releases its memory.

        What the slices show stays as the encoder of the file sees it, so that slices seen by different ones compare.
        """
        store = self._changed(encoder=encoder)
        store._means = self._means
        return store

    def _changed(self, **changes: Any) -> FeatureStore:
        self._keep_within(0)
        options: dict[str, Any] = {
            "encoder": self.encoder,
            "input_size": self.input_size,
            "context": self.context,
            "exact": self.exact,
        }
        store = FeatureStore(
            self.case,
            window=self.window,
            cache=self._cache,
            memory_budget=self._budget,
            batch_size=self._batch_size,
            **{**options, **changes},
        )
        store.encoded, store.encode_seconds = self.encoded, self.encode_seconds
        return store

    def features(self, index: int, view: View | Mirror | None = None) -> list[Tensor]:
        """The four maps of a slice, (C, S/stride, S/stride) on the CPU, finest first; float16 or float32."""
        every = [self._features((index, view, number)) for number in range(len(self._sequences))]
        return every[0] if len(every) == 1 else [torch.cat(stage) for stage in zip(*every, strict=True)]

    def _features(self, image: _Image) -> list[Tensor]:
        maps = self._find(image)
        if maps is None:
            (maps,) = self._encode_next([image])
        return maps

    def notices(self) -> Iterator[Notice]:
        """The notices since the last call, about less memory or another device."""
        while self._notices:
            yield self._notices.pop(0)

    def release(self) -> bool:
        """Release three quarters of the features in memory. False if there are none."""
        if not self._memory:
            return False
        self._budget = self._bytes // 4
        self._keep_within(self._budget)
        return True

    def leave_device(self) -> None:
        """Encode on the CPU from now on, without touching the encoder's old device. Raises WeightsError."""
        if self.encoder.device.type != "cpu":
            self.encoder.restart_on_cpu()
        self._batch_size = 1

    def batch(self, wanted: Sequence[SliceView], device: torch.device) -> list[Tensor]:
        """The maps of several slices stacked, (B, C, h, w) float32 on ``device``."""
        every = [self.features(index, view) for index, view in wanted]
        stacked = [torch.stack(stage) for stage in zip(*every, strict=True)]
        if device.type == "cuda":  # from page-locked memory the copy overlaps with computation
            stacked = [stage.pin_memory() for stage in stacked]
        return [stage.to(device, non_blocking=True).float() for stage in stacked]

    def prepare(self, wanted: Iterable[SliceView], cancel: Cancel | None = None) -> Iterator[Event]:
        """Encode what is neither in memory nor on disk, in batches; yields progress and notices.

        When memory runs out, the batch is halved, then features in memory are released, then the encoder moves to the
        CPU.

        Raises:
            NoRoomError: a single slice cannot be encoded.
            DeviceError: the device's failure also affects the CPU.
        """
        numbers = range(len(self._sequences))
        images = [(index, view, number) for index, view in dict.fromkeys(wanted) for number in numbers]
        missing = [image for image in images if self._find(image) is None]
        views = sum(view is not None for _, view, _ in missing)
        started = time.monotonic()
        done = 0
        if missing:
            yield Progress("encode", 0, len(missing), 0.0, views=views)
        while done < len(missing) and not cancel:
            done += len(self._encode_next(missing[done:]))
            yield from self.notices()
            yield Progress("encode", done, len(missing), time.monotonic() - started, views=views)
        if self._cache is not None and self._cache.problem and not self._cache_problem_reported:
            self._cache_problem_reported = True
            yield Notice(self._cache.problem)

    def image(self, index: int, sequence: int = 0) -> Tensor:
        """The encoder's input for a slice of a sequence: (3, S, S) float32 in 0 to 1, resized to a square.

        Its channels are those of a colour image, three times the grey image, or in 2.5D the slices before, here and
        after.
        """
        scale = self._scale_of(index, sequence)
        channels = [to_unit_rgb(self._sequences[sequence].slice(i), scale) for i in self._slices(index)]
        whole = channels[0] if len(channels) == 1 else np.stack([unit[0] for unit in channels])
        rgb = torch.from_numpy(np.ascontiguousarray(whole))
        if rgb.shape[1:] == (self.input_size, self.input_size):
            return rgb
        size = (self.input_size, self.input_size)
        if isinstance(scale, SliceRange):  # in 8 bits, as the authors resize with Pillow
            levels = (rgb[None] * 255).round().to(torch.uint8)
            return F.interpolate(levels, size=size, mode="bilinear", antialias=True, align_corners=False)[0] / 255
        return F.interpolate(rgb[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)

    def unit(self, index: int) -> NDArray[np.float32]:
        """A slice of the first sequence in its own size, scaled as for the encoder.

        Returns:
            (H, W), or (H, W, 3) in colour, from 0 to 1.
        """
        return to_unit(self.case.slice(index), self._scale_of(index, 0))

    def _encode_next(self, images: Sequence[_Image]) -> list[list[Tensor]]:
        """Encode the first images, as many as one batch holds."""
        # Made for each call: an attribute would be a reference cycle that keeps the features alive.
        fallback = Fallback(
            "while encoding",
            lambda: self.encoder.device,
            [self._smaller_batch, fewer_features(self.release)],
            self.leave_device,
            lambda: (
                f"Not enough memory to encode a slice at {self.input_size} x {self.input_size} pixels. "
                "Close other programs, or choose a smaller encoder or input size."
            ),
            on_cpu="the encoder on the CPU",
        )
        return fallback.run(lambda: self._encode(images[: self._batch_size]), self._notices.append)

    def _encode(self, images: Sequence[_Image]) -> list[list[Tensor]]:
        started, self._tried = time.monotonic(), len(images)
        inputs = []
        for index, view, number in images:
            plain = self.image(index, number)
            inputs.append(view.of_image(plain) if view else plain)
        batch = torch.stack(inputs).to(self.encoder.device)
        if self.exact:
            kept = [stage.cpu() for stage in self.encoder.encode(batch, exact=True)]
        else:
            kept = [_in_half(stage) for stage in self.encoder.encode(batch)]
        result = []
        for position, image in enumerate(images):
            maps = [stage[position].clone(memory_format=torch.contiguous_format) for stage in kept]
            key = self._key(image)
            self._remember(key, maps)
            self._describe(image, maps)
            if self._cache is not None and not self.encoder.changes:
                self._cache.write(key, maps)
            result.append(maps)
        self.encoded += len(images)
        self.encode_seconds += time.monotonic() - started
        return result

    def _find(self, image: _Image) -> list[Tensor] | None:
        key = self._key(image)
        maps = self._memory.get(key)
        if maps is not None:
            self._memory.move_to_end(key)
            return maps
        if self._cache is None or self.encoder.changes:
            return None
        maps = self._cache.read(key)
        if maps is not None and not self._fits(maps):
            maps = None
        if maps is not None:
            self._remember(key, maps)
            self._describe(image, maps)
        return maps

    def _describe(self, image: _Image, maps: list[Tensor]) -> None:
        index, view, number = image
        if view is None and not self.encoder.changes:
            self._means[index, number] = maps[-1].numpy().mean(axis=(1, 2), dtype=np.float32)

    def _fits(self, maps: list[Tensor]) -> bool:
        """Whether cached maps have this encoder's shapes and type."""
        expected = [
            (channels, self.input_size // stride, self.input_size // stride)
            for channels, stride in zip(self.encoder.channels, self.encoder.strides, strict=True)
        ]
        kind = torch.float32 if self.exact else torch.float16
        return [tuple(stage.shape) for stage in maps] == expected and all(m.dtype == kind for m in maps)

    def _remember(self, key: str, maps: list[Tensor]) -> None:
        size = _size(maps)
        if key in self._memory or size > self._budget:
            return
        self._memory[key] = maps
        self._bytes += size
        self._keep_within(self._budget)

    def _keep_within(self, budget: int) -> None:
        while self._bytes > budget:
            _, oldest = self._memory.popitem(last=False)
            self._bytes -= _size(oldest)

    def _smaller_batch(self, _: Failure) -> str | None:
        if self._tried == 1:
            return None
        self._batch_size = self._tried // 2
        return f"with {self._batch_size} slices at a time"

    def _key(self, image: _Image) -> str:
        """A hash (hex) of all that determines the features. Increase the first part when the computation changes."""
        index, view, number = image
        parts = (
            "1",
            self._fingerprint(index, number),
            self.encoder.fingerprint,
            str(self.input_size),
            repr(self._scale_of(index, number)),
            view.key if view else "plain",
            *(["float32"] if self.exact else []),
        )
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:40]

    def _scale_of(self, index: int, sequence: int) -> Scale:
        return self.window(index, sequence) if callable(self.window) else self.window

    def _slices(self, index: int) -> tuple[int, ...]:
        """The slices in the input channels of a slice."""
        if not self.context:
            return (index,)
        before, after = self.case.neighbours(index, self.context)
        return before, index, after

    def _fingerprint(self, index: int, sequence: int) -> str:
        """A hash of the pixels, computed once, because every step needs the keys of its slices."""
        places = [(sequence, i) for i in self._slices(index)]
        for place in places:
            if place not in self._fingerprints:
                self._fingerprints[place] = self._sequences[sequence].slice_fingerprint(place[1])
        return "+".join(self._fingerprints[place] for place in places)


def _in_half(stage: Tensor) -> Tensor:
    return stage.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).to(torch.float16).cpu()


def _size(maps: list[Tensor]) -> int:
    return sum(stage.nbytes for stage in maps)


class GpuFeatureCache:
    """Makes the batches of a training, and keeps features on the GPU while there is room.

    Args:
        store: features of the case.
        device: of the training.
        room: bytes to use on the device; None = a quarter of its free memory, and none on devices that share the
            machine's memory.
    """

    def __init__(self, store: FeatureStore, device: torch.device, room: int | None = None) -> None:
        self._store, self._device = store, device
        self._room = device_budget(device) if room is None else room
        self._kept: dict[SliceView, list[Tensor]] = {}

    def batch(self, wanted: Sequence[SliceView]) -> list[Tensor]:
        """The maps of several slices stacked, (B, C, h, w) float32 on the device."""
        every = [self._kept.get(pair) or self._load(pair) for pair in wanted]
        return [torch.stack(stage).float() for stage in zip(*every, strict=True)]

    def _load(self, pair: SliceView) -> list[Tensor]:
        maps = [stage.to(self._device) for stage in self._store.features(*pair)]
        size = _size(maps)
        if size <= self._room:
            self._kept[pair] = maps
            self._room -= size
        return maps


def device_budget(device: torch.device) -> int:
    """Bytes of features that a training may keep on a device; 0 if it shares the machine's memory."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) // SHARE
