"""Places that cannot take a result, and settings that make no sense, are refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.case.builders import numbers, write_dicom

SEGMENT = ("segment", "image.nii.gz", "--labels", "labels.nii.gz")


@pytest.mark.parametrize(
    ("option", "name", "says"),
    [
        ("--out", "missing/mask.nii.gz", "folder .*missing does not exist"),
        ("--out", "image.nii.gz/mask.nii.gz", "is a file, not a folder"),
        ("--out", "taken.nii.gz", "is a folder"),
        ("--out", "mask.docx", "must end in"),
        ("--out", "link.nii.gz", "overwrite an input"),
        ("--confidence-out", "missing/sure.nii.gz", "folder .*missing does not exist"),
        ("--confidence-out", "link.nii.gz", "overwrite an input"),
        ("--model-out", "missing/model.safetensors", "folder .*missing does not exist"),
        ("--model-out", "taken.safetensors", "is a folder"),
        ("--model-out", "model.pth", "saved as .safetensors"),
        ("--model-out", "link.safetensors", "overwrite an input"),
    ],
)
def test_a_place_that_cannot_take_a_result(option, name, says, refused, case):
    for suffix in (".safetensors", ".nii.gz"):
        (case / f"taken{suffix}").mkdir()
        (case / f"link{suffix}").symlink_to("labels.nii.gz")
    others = () if option == "--out" else ("--out", "mask.nii.gz")
    refused(*SEGMENT, *others, option, name, says=says, names=name)


def test_a_folder_that_cannot_be_written(refused, case):
    """Rights do not hold an administrator back, but nobody makes files in /proc."""
    folder = Path("/proc")
    if not folder.is_dir():
        folder = case / "locked"
        folder.mkdir(mode=0o500)
    out = folder / "mask.nii.gz"
    refused(*SEGMENT, "--out", out, says="is not writable", names="mask.nii.gz")


@pytest.mark.parametrize(
    "outputs",
    [
        ("--out", "image.nii.gz"),
        ("--out", "labels.nii.gz"),
        ("--out", "model.nii.gz", "--warm-start", "model.nii.gz"),
        ("--out", "weights.nii.gz", "--weights", "weights.nii.gz"),
        ("--out", "mask.nii.gz", "--confidence-out", "inner/../mask.nii.gz"),
        ("--out", "mask.nii.gz", "--warm-start", "old.safetensors", "--model-out", "old.safetensors"),
        ("--out", "mask.nii.gz", "--weights", "old.safetensors", "--model-out", "old.safetensors"),
    ],
)
def test_a_result_never_replaces_an_input_or_another_result(outputs, refused, case):
    for name in ("model.nii.gz", "weights.nii.gz", "old.safetensors"):
        (case / name).write_bytes(b"precious")
    (case / "inner").mkdir()
    refused(*SEGMENT, *outputs, says="overwrite", names=Path(outputs[-1]).name)


def test_a_mask_never_replaces_the_model_it_comes_from(refused, case):
    (case / "model.nii.gz").write_bytes(b"precious")
    rest = ("--model", "model.nii.gz", "--out", "model.nii.gz")
    refused("predict", "image.nii.gz", *rest, says="overwrite", names="model.nii.gz")


def test_a_model_never_replaces_a_file_of_the_folder_with_the_encoders_weights(refused, case):
    (case / "dinov3").mkdir()
    (case / "dinov3" / "model.safetensors").write_bytes(b"precious")
    rest = ("--out", "mask.nii.gz", "--weights", "dinov3", "--model-out", "dinov3/model.safetensors")
    refused(*SEGMENT, *rest, says="overwrite an input", names="dinov3/model.safetensors")


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("scans", "the pictures of the case lie here"),
        ("masks", "overwrite"),
        ("here", "overwrite|the pictures of the case lie here"),
        ("scans/a.png", "this is a file"),
        ("out.png", "go to a folder"),
        ("scans/a.png/out", "is a file, not a folder"),
    ],
)
def test_masks_of_pictures_never_replace_an_input(out, says, refused, tmp_path):
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(numbers((9, 9), np.uint8)).save(tmp_path / folder / "a.png")
    (tmp_path / "here").symlink_to("scans", target_is_directory=True)
    refused("segment", "scans", "--labels", "masks", "--out", out, says=says, names=Path(out).name)


def test_a_mask_never_replaces_a_slice_of_a_series(refused, tmp_path):
    write_dicom(tmp_path / "scan", numbers((3, 8, 9), np.uint16), names=lambda k: f"slice{k}.nii")
    rest = ("--labels", "labels.nii.gz", "--out", "scan/slice1.nii")
    refused("segment", "scan", *rest, says="overwrite an input", names="slice1.nii")


def test_a_demo_in_the_place_of_a_file(refused, tmp_path):
    (tmp_path / "demo").write_bytes(b"precious")
    refused("demo", "--out", "demo", says="cannot be made", names="demo")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--input-size", 250, "input_size.*multiple of 32.*for example 256"),
        ("--seed", -1, "seed.*greater than or equal to 0"),
    ],
)
def test_a_setting_out_of_its_range(option, value, says, refused, case):
    refused(*SEGMENT, "--out", "mask.nii.gz", option, value, says=says, names=None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "image.nii.gz", "--labels", "labels.nii.gz"),
        (*SEGMENT, "--out", "mask.nii.gz", "--preset", "best"),
        (*SEGMENT, "--out", "mask.nii.gz", "--stepz", "5"),
        ("evaluate", "truth.nii.gz"),
        ("evaluate", "truth.nii.gz", "truth.nii.gz", "--slices", "1", "--exclude-slices", "2"),
        ("simulate", "image.nii.gz", "--truth", "truth.nii.gz", "--rounds", "0"),
        ("simulate", "image.nii.gz", "--truth", "truth.nii.gz", "--strategy", "best"),
        ("draw", "image.nii.gz"),
        (),
    ],
)
def test_wrong_usage_exits_with_2(arguments, dinoaugseg, contents, case):
    before = contents(case)
    outcome = dinoaugseg(*arguments)
    assert outcome.code == 2
    assert "Usage" in outcome.output + outcome.errors
    assert "Traceback" not in outcome.errors
    assert contents(case) == before
