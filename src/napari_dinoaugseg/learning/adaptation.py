"""An encoder that learns together with the decoder: what a training changes, and the images that it shows.

A decoder that knows roughly what is wanted can teach the encoder; one that has converged on frozen features holds it
where it is. Nothing can be encoded ahead meanwhile, so every step shows new views. Figures:
docs/decisions/adapted-encoder.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from napari_dinoaugseg.learning.augmentation import View
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.memory import feature_budget
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.encoder import Encoder


class Trainee(nn.Module):
    """What a training changes: a decoder, and weights of an encoder that learns.

    Args:
        decoder: on the device of the training.
        encoder: whose learnable weights; None = it is frozen.
    """

    def __init__(self, decoder: Decoder, encoder: Encoder | None) -> None:
        super().__init__()
        self.decoder = decoder
        weights = {} if encoder is None else encoder.learnable
        # Names of parameters hold no dots.
        self.encoder = nn.ParameterDict({name.replace(".", "/"): value for name, value in weights.items()})
        self.requires_grad_(True)

    @staticmethod
    def parts(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights of the decoder and of the encoder, by their own names, from the state of a trainee."""
        decoder = {n.removeprefix("decoder."): value for n, value in state.items() if n.startswith("decoder.")}
        encoder = {n.removeprefix("encoder."): value for n, value in state.items() if n.startswith("encoder.")}
        return decoder, {name.replace("/", "."): value for name, value in encoder.items()}


class Images:
    """Makes the batches of a training whose encoder learns.

    Args:
        store: of the case; only its images are used.
    """

    def __init__(self, store: FeatureStore) -> None:
        sequences = range(len(store.case.sequences))
        size = 4 * 3 * store.input_size**2 * len(sequences)  # bytes

        def read(index: int) -> Tensor:  # a method would be a reference cycle that keeps the images alive
            return torch.stack([store.image(index, number) for number in sequences])

        self._plain = lru_cache(maxsize=max(1, feature_budget() // size))(read)

    def batch(self, wanted: Sequence[tuple[int, View | None]]) -> list[Tensor]:
        """The views of several slices stacked: one tensor (B, N, 3, S, S) in 0 to 1, with N sequences."""
        return [
            torch.stack([self._plain(index) if view is None else self._seen(index, view) for index, view in wanted])
        ]

    def _seen(self, index: int, view: View) -> Tensor:
        return torch.stack([view.of_image(image) for image in self._plain(index)])


def encoding(encoder: Encoder, device: torch.device, *, exact: bool) -> Callable[[list[Tensor]], list[Tensor]]:
    """A function from a batch of `Images` to four maps (B, C, h, w) on the device, with gradients for the encoder."""

    def encode(batch: list[Tensor]) -> list[Tensor]:
        (images,) = batch
        maps = encoder.maps(images.flatten(0, 1), exact=exact)
        count, sequences = images.shape[:2]
        return [
            stage.to(device).reshape(count, sequences * stage.shape[1], *stage.shape[2:]).contiguous() for stage in maps
        ]

    return encode
