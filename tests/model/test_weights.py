from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_dinoaugseg.errors import WeightsError
from napari_dinoaugseg.model.encoder import ENCODERS, Encoder, load_encoder, resolve_encoder
from napari_dinoaugseg.model.weights import fit_weights, read_tensors

TINY = "dinov3-convnext-tiny"


@pytest.fixture(scope="module")
def reference_maps(tiny_state: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """A picture and the four maps that timm's own module makes of it, ImageNet's normalisation written out."""
    model = timm.create_model("convnext_tiny.dinov3_lvd1689m", pretrained=False, num_classes=0).eval()
    model.load_state_dict(tiny_state)
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(5))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        maps = model.forward_intermediates(
            (picture - mean[:, None, None]) / std[:, None, None], intermediates_only=True
        )
    return picture, maps


@pytest.mark.parametrize(
    "name", ["timm.safetensors", "timm.pth", "meta.safetensors", "meta.pth", "transformers.safetensors"]
)
def test_all_layouts_and_both_formats_give_the_same_four_maps(
    name: str, weights_files: dict[str, Path], reference_maps: tuple[Tensor, list[Tensor]]
) -> None:
    picture, expected = reference_maps
    maps = load_encoder(TINY, weights=weights_files[name]).encode(picture)
    assert [stage.shape[1] for stage in maps] == [96, 192, 384, 768]
    assert min(stage.std().item() for stage in expected) > 0.01
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_fingerprint_is_of_the_weights_and_not_of_their_file(
    weights_files: dict[str, Path], tiny_state: dict[str, Tensor]
) -> None:
    spec = ENCODERS[TINY]
    prints = [Encoder(spec, fit_weights(path, spec)[1]).fingerprint for path in weights_files.values()]
    assert len(set(prints)) == 1
    assert prints[0].startswith(f"{TINY}:")
    _, state = fit_weights(weights_files["timm.pth"])
    state["stages.3.blocks.2.gamma"][7] += 1e-3
    assert Encoder(spec, state).fingerprint != prints[0]


@pytest.mark.parametrize("name", ["timm.safetensors", "meta.pth", "transformers.safetensors"])
def test_auto_recognises_the_encoder_of_a_file(name: str, weights_files: dict[str, Path]) -> None:
    assert resolve_encoder("auto", weights=weights_files[name]) == TINY


def test_auto_recognises_efficientnet_in_timms_layout(tmp_path: Path) -> None:
    path = tmp_path / "lite0.safetensors"
    save_file(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict(), path)
    assert resolve_encoder("auto", weights=path) == "efficientnet-lite0"
    assert load_encoder("efficientnet-lite0", weights=path).fingerprint.startswith("efficientnet-lite0:")


def test_half_precision_files_are_used_in_single_precision(tiny_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({name: value.half() for name, value in tiny_state.items()}, path)
    spec, state = fit_weights(path)
    assert spec.name == TINY
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_a_file_with_a_classifier_is_used_and_doubted(tiny_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "classifier.pth"
    torch.save({**tiny_state, "head.fc.weight": torch.zeros(9, 768), "head.fc.bias": torch.zeros(9)}, path)
    said: list[str] = []
    load_encoder(TINY, weights=path, notify=said.append)
    assert len(said) == 1
    assert "classifier" in said[0]


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    path, marker = tmp_path / "gift.pth", tmp_path / "was_here"
    content = {"stem.0.weight": _Hostile(marker)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match="holds code beside weights and was not opened") as caught:
        load_encoder(TINY, weights=path)
    assert_short(caught.value, path)
    assert not marker.exists()


def assert_short(error: BaseException, path: Path) -> None:
    assert str(path) in str(error)
    assert len(str(error).splitlines()) <= 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "does not hold weights"),
        (b"\x89PNG\r\n\x1a\n0000", "does not hold weights"),
        (b"PK\x03\x04 not really a zip", "cut or damaged"),
        (pickle.dumps([1, 2, 3]), "cut or damaged"),
        # The end of an archive that claims to be the second of two disks.
        (b"PK\x03\x04" + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2) + b"PK\x05\x06" + bytes(18), "cut or damaged"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason) as caught:
        resolve_encoder("auto", weights=path)
    assert_short(caught.value, path)


@pytest.mark.parametrize("content", [[1, 2], {"model": {"epoch": 3}}, {"a": 1.5}])
def test_a_torch_file_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="no named tensors"):
        load_encoder(TINY, weights=path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        load_encoder(TINY, weights=tmp_path / "nothing.pth")


@pytest.mark.parametrize("wanted", ["dinov3-convnext-small", "dinov3-convnext-large", "efficientnet-lite0"])
@pytest.mark.parametrize("layout", ["timm.safetensors", "meta.safetensors", "transformers.safetensors"])
def test_weights_of_another_encoder_are_named_as_what_they_are(
    wanted: str, layout: str, weights_files: dict[str, Path]
) -> None:
    with pytest.raises(WeightsError, match=f"these are the weights of {TINY}, not of {wanted}") as caught:
        load_encoder(wanted, weights=weights_files[layout])
    assert_short(caught.value, weights_files[layout])


def test_weights_of_no_known_encoder_are_refused_with_a_difference(
    tiny_state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(WeightsError, match=r"not the weights of an encoder known here\. Use one of dinov3"):
        resolve_encoder("auto", weights=path)
    with pytest.raises(WeightsError, match=f"not the weights of {TINY}: none of its tensors are in the file"):
        load_encoder(TINY, weights=path)
    less = {name: value for name, value in tiny_state.items() if name != "stages.2.blocks.4.gamma"}
    save_file(less, path)
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors are missing, stages.2.blocks.4.gamma for one"):
        load_encoder(TINY, weights=path)
    with pytest.raises(WeightsError, match=rf"nearest is {TINY}, but 1 of \d+ tensors are missing"):
        resolve_encoder("auto", weights=path)
    save_file({**tiny_state, "stem.0.bias": torch.zeros(97)}, path)
    with pytest.raises(WeightsError, match=r"stem.0.bias has the shape \(97,\) instead of \(96,\)"):
        load_encoder(TINY, weights=path)
    save_file({**tiny_state, "stages.2.blocks.9.gamma": torch.zeros(384)}, path)
    with pytest.raises(WeightsError, match="there are tensors that it does not have"):
        load_encoder(TINY, weights=path)


def test_weights_that_are_not_numbers_are_refused(tiny_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    save_file({**tiny_state, "stem.0.bias": torch.full((96,), torch.nan)}, path)
    with pytest.raises(WeightsError, match="not numbers"):
        load_encoder(TINY, weights=path)


@pytest.mark.parametrize("step", [b"X", b"B"])  # a text, and bytes, which the loader for tensors does not know
def test_a_text_that_claims_gigabytes_costs_no_memory(step: bytes, tmp_path: Path) -> None:
    """In the older torch format, whose pickles lie plainly in the file."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02" + step + (2**31).to_bytes(4, "little") + b"few.")
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=r"weights\.pth: the weights file is cut or damaged"):
            read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
