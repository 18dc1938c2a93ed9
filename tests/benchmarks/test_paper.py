"""The command: from a folder to the table and the JSON beside it, or to one clear sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.__main__ import main
from benchmarks.paper.runs import protocol_settings
from tests.benchmarks.paper_files import kvasir, write_h5

QUICK = ["--encoder", "efficientnet-lite0", "--device", "cpu", "--set", "input_size=64", "--set", "steps=30"]


def heart(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A volume (3, 40, 40) with a bright disc (label 3) in a ring (2), and a box (1) beside it."""
    y, x = np.mgrid[:40, :40]
    distance = np.hypot(y - 20, x - 24 - seed % 3)
    label = np.select([distance < 6, distance < 10, (abs(y - 20) < 6) & (x < 10)], [3, 2, 1], 0).astype(np.uint8)
    labels = np.stack([label] * 3)
    noise = np.random.default_rng(seed).normal(0, 0.03, labels.shape)
    return (np.array([0.1, 0.9, 0.3, 0.6])[labels] + noise).astype(np.float32), labels


@pytest.fixture(scope="module")
def acdc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("acdc")
    for part, patients in (("train", (2, 3)), ("test", (4, 5))):
        for patient in patients:
            write_h5(root / part / f"patient{patient:03d}_frame01.h5", *heart(patient))
    return root


@pytest.mark.slow
def test_a_run_tells_figures_differences_and_every_sample(
    acdc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "acdc.json"
    code = main(["acdc", "--root", str(acdc), "--shots", "1", "--draws", "2", *QUICK, "--out", str(out)])
    table = capsys.readouterr().out
    assert code == 0
    assert out.with_suffix(".txt").read_text(encoding="utf-8") == table
    told = json.loads(out.read_text(encoding="utf-8"))
    for text in (
        "encoder efficientnet-lite0, not dinov3-convnext-large",
        "slices at 64 x 64, not 768 x 768",
        "settings changed: steps=30",
        "1 shot; the paper's figures are of 7",
        "2 test patients, not 20",
        "the authors' draw cannot be repeated: patient099 is not among the training cases here",
    ):
        assert text in told["differences"]
        assert f"  - {text}\n" in table
    for number, name in enumerate(("right ventricle", "myocardium", "left ventricle")):
        paper = (80.63, 79.58, 85.34)[number]
        values = [100 * np.mean([sample[name]["dice"] for sample in draw["cases"].values()]) for draw in told["draws"]]
        figure = told["figures"]["dice"][name]
        assert figure["mean"] == pytest.approx(np.mean(values))
        assert figure["deviation"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
        assert figure["difference"] == pytest.approx(figure["mean"] - paper)
        assert f"{figure['mean']:.2f} ± {figure['deviation']:.2f}" in table
    assert told["figures"]["hd95"]["mean"]["paper"] == 9.96
    assert [sorted(draw["cases"]) for draw in told["draws"]] == [["patient004_frame01", "patient005_frame01"]] * 2
    assert [draw["labelled_slices"] for draw in told["draws"]] == [3, 3]
    # What is learnt from one volume is found again in others that look alike.
    assert told["figures"]["dice"]["left ventricle"]["mean"] > 50


LEFT = ["steps=3", "learning_rate=0.001"]
"""Only to be quick."""
ELSEWHERE = {
    "encoder efficientnet-lite0, not dinov3-convnext-large",
    "slices at 64 x 64, not 768 x 768",
    "settings changed: steps=3, learning_rate=0.001",
}
"""Differences of a quick run that are not the preset's."""


def head_of(path: Path) -> set[str]:
    return set(json.loads(path.read_text(encoding="utf-8"))["differences"]) - ELSEWHERE


def run_paper(dataset: str, root: Path, out: Path, *more: str) -> set[str]:
    changes = [part for change in LEFT for part in ("--set", change)]
    quick = ["--encoder", "efficientnet-lite0", "--device", "cpu", "--set", "input_size=64", *changes, "--draws", "1"]
    assert main([dataset, "--root", str(root), "--preset", "paper", *quick, *more, "--out", str(out)]) == 0
    return head_of(out)


@pytest.mark.slow
def test_the_head_of_the_preset_paper_lists_what_differs_and_nothing_else(acdc: Path, tmp_path: Path):
    volumes = run_paper("acdc", acdc, tmp_path / "acdc.json", "--shots", "1")
    assert volumes == {
        "1 shot; the paper's figures are of 7",
        "2 test patients, not 20",
        "tested on the folder's own train and test",
        "every slice of a shot is shown equally often, not one random slice of each volume a pass",
        "every batch has 2 slices, not fewer at the end of a pass",
        "the authors' draw cannot be repeated: patient099 is not among the training cases here",
    }
    kvasir(tmp_path / "kvasir", 4)
    pictures = run_paper("kvasir", tmp_path / "kvasir", tmp_path / "kvasir.json", "--shots", "2")
    assert pictures == {
        "2 shots; the paper's figures are of 10",
        "2 test pictures, not 120",
        "the authors' training code is public for ACDC only; its recipe is taken for theirs here",
        "the authors' draw cannot be repeated: cju0qkwl35piu0993l0dewei2 is not among the training cases here",
    }
    changes = ("dice=squares", "scaling=window", "clip_gradient=5", "precision=auto", "resize=bilinear")
    sets = [part for change in changes for part in ("--set", change)]
    changed = run_paper("kvasir", tmp_path / "kvasir", tmp_path / "changed.json", "--shots", "2", *sets)
    assert changed - pictures == {
        "pictures as they are, not each slice from its least to its greatest value",
        "squared probabilities below in the Dice loss, not plain ones",
        "gradients clipped at a norm of 5.0, not left as they are",
        "steps in bfloat16 where the device has it and features kept in half precision, not all in single",
        "classes chosen at the slices' own size, not before the mask is resized",
    }


@pytest.mark.slow
def test_pictures_run_with_one_draw_and_without_a_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kvasir(tmp_path, 4)
    assert main(["kvasir", "--root", str(tmp_path), "--shots", "2", "--draws", "1", *QUICK]) == 0
    table = capsys.readouterr().out
    (row,) = [line for line in table.splitlines() if line.startswith("polyp")]
    assert "±" not in row
    assert row.split()[2] == "73.59"
    assert "  - 2 test pictures, not 120\n" in table


def told_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


def test_missing_data_are_one_clear_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    told = told_error(capsys, "synapse", "--root", str(tmp_path))
    assert told.startswith(
        f"Error: {tmp_path}: no labelled volume of Synapse to learn from lies here. Get the data from "
    )
    assert "test_vol_h5/caseNNNN.npy.h5" in told


def test_a_result_that_cannot_be_written_is_refused_before_anything_is_computed(
    acdc: Path, capsys: pytest.CaptureFixture[str]
):
    told = told_error(capsys, "acdc", "--root", str(acdc), "--out", "/no/such/folder/acdc.json")
    assert "/no/such/folder does not exist" in told


def test_a_damaged_file_is_known_before_anything_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for part, patients in (("train", (2, 3)), ("test", (4,))):
        for patient in patients:
            write_h5(tmp_path / part / f"patient{patient:03d}_frame01.h5", *heart(patient))
    for damaged in (tmp_path / "train" / "patient003_frame01.h5", tmp_path / "test" / "patient004_frame01.h5"):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:100])
        told = told_error(capsys, "acdc", "--root", str(tmp_path), "--shots", "2", *QUICK)
        assert f"{damaged}: it cannot be read" in told
        assert "training" not in told
        damaged.write_bytes(whole)


def test_the_recipe_of_the_paper_is_2000_passes_of_batches_of_two():
    assert [protocol_settings("paper", shots).steps for shots in (1, 7, 40)] == [2000, 8000, 40000]
    assert protocol_settings("paper", 7, steps=10).steps == 10
    assert protocol_settings("balanced", 7).steps == protocol_settings("balanced", 1).steps
