"""DINOv3's ConvNeXt as Hugging Face has it: held to the module of transformers, an implementation of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from napari_dinoaugseg.errors import WeightsError
from napari_dinoaugseg.model import weights
from napari_dinoaugseg.model.encoder import load_encoder, resolve_encoder
from napari_dinoaugseg.model.specs import trunk_shapes

TINY = "dinov3-convnext-tiny"
SIZES = {
    "tiny": ([3, 3, 9, 3], [96, 192, 384, 768]),
    "small": ([3, 3, 27, 3], [96, 192, 384, 768]),
    "base": ([3, 3, 27, 3], [128, 256, 512, 1024]),
    "large": ([3, 3, 27, 3], [192, 384, 768, 1536]),
}


@pytest.fixture(scope="module")
def model() -> Any:
    """The smallest one, all of its weights random: its own start scales each block by a millionth."""
    made = DINOv3ConvNextModel(DINOv3ConvNextConfig()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in made.parameters():
            value.copy_(0.05 * torch.randn(value.shape, generator=generator))
    return made


@pytest.fixture(scope="module")
def state(model: Any) -> dict[str, Tensor]:
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def expected(model: Any) -> tuple[Tensor, list[Tensor]]:
    """A picture, and what its four stages put out, ImageNet's normalisation written out."""
    maps: list[Tensor] = []
    stages = [module for module in model.modules() if type(module).__name__ == "DINOv3ConvNextStage"]
    hooks = [stage.register_forward_hook(lambda _, __, output: maps.append(output)) for stage in stages]
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        model(pixel_values=(picture - mean[:, None, None]) / std[:, None, None])
    for hook in hooks:
        hook.remove()
    return picture, maps


def whole(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def in_parts(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder, max_shard_size="30MB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def pickled(model: Any, folder: Path) -> Path:
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("save", [whole, in_parts, pickled])
def test_the_four_maps_are_those_of_transformers(
    save: Callable[[Any, Path], Path], model: Any, expected: tuple[Tensor, list[Tensor]], tmp_path: Path
) -> None:
    path = save(model, tmp_path / "saved")
    for file in (path, *path.glob("*.json")):  # an index of parts may be named as well
        if file.name != "config.json":
            assert resolve_encoder("auto", weights=file) == TINY
    picture, maps = expected
    found = load_encoder(TINY, weights=path, notify=pytest.fail).encode(picture)
    assert min(stage.std().item() for stage in maps) > 0.01
    for ours, theirs in zip(found, maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "named",
    [
        lambda name: name.removeprefix("model."),  # as in `facebook/dinov3-convnext-tiny-pretrain-lvd1689m`
        lambda name: f"module.{name}",
        lambda name: f"backbone.{name}",
        lambda name: f"backbone.{name.removeprefix('model.')}",
    ],
)
def test_the_module_that_weights_were_saved_from_does_not_matter(
    named: Callable[[str], str], state: dict[str, Tensor]
) -> None:
    plain, other = weights.convnext(state), weights.convnext({named(name): value for name, value in state.items()})
    assert plain is not None
    assert other is not None
    assert plain.keys() == other.keys()
    assert all(plain[name] is other[name] for name in plain)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_all_its_tensors_under_timms_names(size: str) -> None:
    depths, widths = SIZES[size]
    with torch.device("meta"):
        made = DINOv3ConvNextModel(DINOv3ConvNextConfig(depths=depths, hidden_sizes=widths))
    renamed = weights.convnext(made.state_dict())
    assert renamed is not None
    last_norm = {"head.norm.weight", "head.norm.bias"}
    assert renamed.keys() == trunk_shapes(f"dinov3-convnext-{size}").keys() | last_norm
    shapes = {name: tuple(value.shape) for name, value in renamed.items() if name not in last_norm}
    assert shapes == dict(trunk_shapes(f"dinov3-convnext-{size}"))


def test_two_networks_in_one_file_are_not_mixed(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    student = {f"student.{name}": value for name, value in state.items()}
    save_file({**student, **{f"teacher.{name}": value + 1 for name, value in state.items()}}, path)
    with pytest.raises(WeightsError, match="not the weights of an encoder known here"):
        resolve_encoder("auto", weights=path)
    other_layout = {name.removeprefix("model.").replace(".layers.", "."): value for name, value in state.items()}
    assert (
        weights.convnext({**{name.removeprefix("model."): value for name, value in state.items()}, **other_layout})
        is None
    )


def damaged_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": [1, 2')


def index_of_nothing(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": ["b"]}}')


def index_of_another_folder(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))


def a_part_is_missing(folder: Path) -> None:
    next(folder.glob("model-00002*")).unlink()


def a_part_is_a_pointer(folder: Path) -> None:
    next(folder.glob("model-00002*")).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def a_part_is_empty_of_its_tensors(folder: Path) -> None:
    part = next(folder.glob("model-00002*"))
    save_file(dict(list(load_file(part).items())[1:]), part)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damaged_index, r"index\.json: the index of the weights is damaged\. Get it again"),
        (index_of_nothing, r"index\.json: the index of the weights is damaged\. Get it again"),
        (index_of_another_folder, "names '../other.safetensors', which is not a weights file beside it"),
        (a_part_is_missing, r"model-00002\S+: the weights cannot be opened: No such file"),
        (a_part_is_a_pointer, r"model-00002\S+: the file does not hold weights: it is a Git LFS pointer"),
        (a_part_is_empty_of_its_tensors, r"1 of \d+ tensors are missing"),
    ],
)
def test_weights_in_parts_that_are_not_whole_are_refused(
    spoil: Callable[[Path], None], says: str, model: Any, tmp_path: Path
) -> None:
    folder = in_parts(model, tmp_path / "saved")
    spoil(folder)
    with pytest.raises(WeightsError, match=says) as caught:
        load_encoder(TINY, weights=folder)
    assert len(str(caught.value).splitlines()) <= 2
