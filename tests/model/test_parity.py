"""The decoder against the reference code of the method: one state, four maps, and the logits that they made there.

`data/decoder_parity.safetensors` holds random numbers only: `state.…` in our names, `features.0` to `.3` of a picture
of 128 x 128 pixels, and `logits`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import new_decoder
from napari_dinoaugseg.model.decoder import Decoder

PARITY = Path(__file__).with_name("data") / "decoder_parity.safetensors"


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return load_file(PARITY)


def features_of(numbers: dict[str, Tensor]) -> list[Tensor]:
    return [numbers[f"features.{stage}"] for stage in range(4)]


def with_state(decoder: Decoder, numbers: dict[str, Tensor]) -> Decoder:
    state = {name.removeprefix("state."): v for name, v in numbers.items() if name.startswith("state.")}
    decoder.load_state_dict(state, strict=True)
    return decoder.eval()


def test_the_decoder_of_the_preset_paper_gives_the_references_logits(numbers: dict[str, Tensor]) -> None:
    features = features_of(numbers)
    channels = [stage.shape[1] for stage in features]
    decoder = with_state(new_decoder(channels, numbers["logits"].shape[1], Settings.of_preset("paper")), numbers)
    with torch.no_grad():
        logits = decoder(features, tuple(numbers["logits"].shape[-2:]))
    assert numbers["logits"].std() > 0.1  # they tell something
    torch.testing.assert_close(logits, numbers["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("changed", [{"rope": "2d"}, {"heads": 2}])
def test_another_decoder_with_the_same_weights_does_not(numbers: dict[str, Tensor], changed: dict[str, object]) -> None:
    features = features_of(numbers)
    decoder = with_state(Decoder([stage.shape[1] for stage in features], 3, **changed), numbers)
    with torch.no_grad():
        logits = decoder(features, (128, 128))
    assert (logits - numbers["logits"]).abs().max() > 1e-3
