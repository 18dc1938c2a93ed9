from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from napari_dinoaugseg.errors import CheckpointError, Hint, OutputError
from napari_dinoaugseg.model.checkpoint import SCHEMA, Checkpoint, build_decoder, load_checkpoint, save_checkpoint
from napari_dinoaugseg.model.decoder import Decoder

CHANNELS = (8, 12, 16, 24)
ENTRY = "napari-dinoaugseg"


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CHANNELS, 3, width=16, rope="2d", norm="batch", add_query=True).eval()


@pytest.fixture
def checkpoint(decoder: Decoder) -> Checkpoint:
    return Checkpoint(
        state=decoder.state_dict(),
        decoder=decoder.arguments,
        settings={"preset": "fast", "input_size": 256, "width": None},
        classes=[{"number": 3, "name": "Lebervene", "colour": "#c03030"}, {"number": 7, "name": "κ", "colour": "#0f0"}],
        encoder={"name": "efficientnet-lite0", "fingerprint": "efficientnet-lite0:00"},
        versions={"napari-dinoaugseg": "0.1.0", "torch": "2.4"},
        single=(2,),
        redraws=True,
    )


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "liver.model"
    save_checkpoint(path, checkpoint)
    return path


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(1, c, 64 // s, 64 // s, generator=generator) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]


def refused(path: Path, reason: str, hint: Hint | None = None) -> None:
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert hint is None or caught.value.hint is hint


def rewritten(path: Path, **changes: Any) -> Path:
    """The file with other values in its description."""
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    description = {**json.loads(header["__metadata__"][ENTRY]), **changes}
    state = load_checkpoint(path).state
    path.write_bytes(save(state, {ENTRY: json.dumps(description)}))
    return path


def test_everything_comes_back(saved: Path, checkpoint: Checkpoint, decoder: Decoder) -> None:
    loaded = load_checkpoint(saved)
    for field in dataclasses.fields(Checkpoint):
        if field.name != "state":
            assert getattr(loaded, field.name) == getattr(checkpoint, field.name)
    again = build_decoder(loaded)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(maps(), (64, 64)), decoder(maps(), (64, 64)))


def test_weights_of_an_adapted_encoder_come_back_beside_the_decoders(checkpoint: Checkpoint, tmp_path: Path) -> None:
    changes = {"blocks.0.conv.weight": torch.rand(4, 3, 3, 3), "classify.weight": torch.rand(2)}
    path = tmp_path / "adapted.model"
    save_checkpoint(path, dataclasses.replace(checkpoint, encoder_changes=changes))
    loaded = load_checkpoint(path)
    assert loaded.encoder_changes.keys() == changes.keys()
    assert all(torch.equal(loaded.encoder_changes[name], value) for name, value in changes.items())
    assert loaded.state.keys() == checkpoint.state.keys()
    assert loaded.sequences == checkpoint.sequences
    build_decoder(loaded)


@pytest.mark.parametrize(
    ("changes", "schema"),
    [
        ({}, 1),
        ({"sequences": ("T1", "T2")}, 2),
        ({"encoder_changes": {"a": torch.zeros(1)}}, 3),
        ({"sequences": ("T1", "T2"), "encoder_changes": {"a": torch.zeros(1)}}, 3),
    ],
)
def test_earlier_versions_read_what_they_can_and_refuse_the_rest(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any], schema: int
) -> None:
    path = tmp_path / "x.model"
    save_checkpoint(path, dataclasses.replace(checkpoint, **changes))
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"][ENTRY])["schema"] == schema


def test_a_loaded_decoder_can_be_trained_on_without_changing_the_checkpoint(saved: Path) -> None:
    loaded = load_checkpoint(saved)
    before = {name: value.clone() for name, value in loaded.state.items()}
    decoder = build_decoder(loaded).train()
    decoder(maps()).square().mean().backward()
    torch.optim.SGD(decoder.parameters(), lr=0.1).step()
    assert not torch.equal(decoder.classify.weight, before["classify.weight"])
    assert all(torch.equal(loaded.state[name], value) for name, value in before.items())


def test_building_a_decoder_leaves_the_random_state_alone(saved: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_decoder(load_checkpoint(saved))
    assert torch.equal(torch.rand(3), expected)


def test_the_same_content_gives_the_same_bytes(saved: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    shuffled = dataclasses.replace(
        checkpoint,
        state=dict(reversed(checkpoint.state.items())),
        settings=dict(reversed(checkpoint.settings.items())),
    )
    for number in range(3):
        save_checkpoint(tmp_path / f"{number}", shuffled)
        assert (tmp_path / f"{number}").read_bytes() == saved.read_bytes()


def test_saving_replaces_the_old_file_whole_or_not_at_all(
    saved: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        save_checkpoint(saved, dataclasses.replace(checkpoint, settings={}))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_is_not_there_is_an_output_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_checkpoint(tmp_path / "nowhere" / "x.model", checkpoint)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.model", "No such file")
    refused(tmp_path, "cannot be opened")


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "gift.model", tmp_path / "was_here"
    path.write_bytes(pickle.dumps(_Hostile(marker)))
    refused(path, "not a model saved by napari-dinoaugseg")
    torch.save({"state": _Hostile(marker)}, path)
    refused(path, "not a model saved by napari-dinoaugseg")
    assert not marker.exists()


def test_safetensors_of_somebody_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file({"stem.0.weight": torch.zeros(3)}, path)
    refused(path, "not a model saved by napari-dinoaugseg", Hint.GIVE_MODEL)
    save_file({"stem.0.weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    refused(path, "not a model saved by napari-dinoaugseg")


def test_a_newer_schema_says_that_the_program_is_too_old(saved: Path) -> None:
    refused(rewritten(saved, schema=SCHEMA + 1), "newer version of napari-dinoaugseg")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": None},
        {"schema": "1"},
        {"decoder": None},
        {"settings": []},
        {"classes": ["liver"]},
        {"encoder": {"name": "x"}},
        {"versions": 3},
        {"single": 1},
        {"single": [0]},
        {"single": [True]},
        {"redraws": 1},
    ],
    ids=str,
)
def test_an_incomplete_description_is_refused(changes: dict[str, Any], saved: Path) -> None:
    refused(rewritten(saved, **changes), "description is not complete")


def test_a_model_of_an_earlier_version_says_nothing_of_how_masks_are_finished(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "earlier.model"
    save_checkpoint(path, dataclasses.replace(checkpoint, single=(), redraws=False))
    content = path.read_bytes().replace(b"\\", b"")
    assert b'"single' not in content  # it is written as they wrote it
    assert b'"redraws' not in content
    found = load_checkpoint(path)
    assert (found.single, found.redraws) == ((), False)


def test_weights_that_are_not_numbers_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.state["classify.bias"][0] = torch.nan
    save_checkpoint(tmp_path / "x", checkpoint)
    refused(tmp_path / "x", "not numbers")


@pytest.mark.parametrize(
    "change",
    [
        {"width": 10**12},
        {"n_classes": 2**40},
        {"width": "wide"},
        {"rope": "spiral"},
        {"channels": None},
        {"attention_strides": [[16]]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_description_of_an_impossible_decoder_allocates_nothing(
    change: dict[str, Any], checkpoint: Checkpoint
) -> None:
    forged = dataclasses.replace(checkpoint, decoder={**checkpoint.decoder, **change})
    with pytest.raises(CheckpointError):
        build_decoder(forged)


def test_weights_must_be_exactly_the_decoders(checkpoint: Checkpoint) -> None:
    bias = checkpoint.state["classify.bias"]
    for wrong in ({"extra": bias}, {"classify.bias": bias[:2]}, {"classify.bias": bias.half()}):
        with pytest.raises(CheckpointError, match="do not fit"):
            build_decoder(dataclasses.replace(checkpoint, state={**checkpoint.state, **wrong}))
    less = {name: value for name, value in checkpoint.state.items() if name != "classify.bias"}
    with pytest.raises(CheckpointError, match="do not fit"):
        build_decoder(dataclasses.replace(checkpoint, state=less))


@pytest.mark.parametrize("odd", [torch.ones([1] * 65), torch.ones(2).to(torch.float8_e8m0fnu)])
def test_weights_that_pytorch_cannot_work_on_are_refused(odd: Tensor, saved: Path, checkpoint: Checkpoint) -> None:
    saved.write_bytes(save({**checkpoint.state, "odd": odd}, {ENTRY: json.dumps(header_of(saved))}))
    with pytest.raises(CheckpointError):
        build_decoder(load_checkpoint(saved))


def header_of(path: Path) -> Any:
    length = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"][ENTRY])
