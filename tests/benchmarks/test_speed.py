"""The speed benchmark measures what it says."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed import __main__ as speed
from benchmarks.speed import clicks, floor, plain, quality, startup
from benchmarks.speed.alone import alone
from benchmarks.speed.made import encoder_for_time, made_example, made_volume, store_for
from napari_dinoaugseg.case import case_from_array
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, new_decoder
from napari_dinoaugseg.model import decoder
from tests.benchmarks.sets import its_process


def test_attention_with_its_scores_in_memory_gives_the_same():
    query, key, value = (torch.randn(2, 3, n, 8) for n in (20, 12, 12))
    expected = decoder.attend(query, key, value)
    with plain.as_written_first():
        assert decoder.attend is plain.scores_in_memory
        torch.testing.assert_close(decoder.attend(query, key, value), expected)
    assert decoder.attend is not plain.scores_in_memory


@pytest.mark.parametrize("as_first", [True, False])
def test_the_plain_loop_leaves_maps_in_the_layout_that_pytorch_chooses(as_first: bool):
    decoder = new_decoder([8, 8, 8, 8], 2, Settings.of_preset("paper", input_size=64))
    joined = []
    decoder.stages[-1].blocks.register_forward_hook(lambda _, maps, __: joined.append(maps[0]))
    with plain.as_written_first() if as_first else nullcontext():
        decoder([torch.randn(1, 8, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)])
    assert joined[0].is_contiguous() == as_first


def test_each_figure_comes_from_a_process_of_its_own_with_its_memory():
    first, second = alone(its_process), alone(its_process)
    assert len({first["pid"], second["pid"], os.getpid()}) == 3
    assert 0.06 < first["peak_gb"] < 8


def test_the_plain_loop_encodes_in_every_step_and_predicts_at_the_slices_own_size(monkeypatch):
    case = case_from_array(np.random.default_rng(0).normal(size=(3, 70, 80)).astype(np.float32))
    store = store_for(case, encoder_for_time("efficientnet-lite0"), 64, context=0)
    calls, encode = [], store.encoder.encode
    monkeypatch.setattr(store.encoder, "encode", lambda images: calls.append(len(images)) or encode(images))
    examples = [Example(i, np.eye(70, 80, dtype=np.int16)) for i in range(2)]
    settings = Settings.of_preset("paper", input_size=64, steps=3)
    steps = list(plain.train(store, examples, settings, 2))
    assert calls == [2, 2, 2]
    assert all(seconds > 0 for _, seconds in steps)
    masks = dict(plain.predict(store, steps[-1][0], [0, 2]))
    assert {index: mask.shape for index, mask in masks.items()} == {0: (70, 80), 2: (70, 80)}


def test_dice_is_taken_over_all_slices_together():
    truth = {0: np.array([[1, 0]]), 1: np.array([[1, 2]])}
    found = {0: np.array([[1, 0]]), 1: np.array([[0, 2]])}
    assert plain.dice_of(found, truth, 3) == pytest.approx((2 / 3 + 1) / 2)


def test_the_labels_of_a_made_volume_are_where_its_column_is():
    case = made_volume(3)
    label = made_example(1).target
    image = case.slice(1)
    assert image[label == 1].mean() > image[label == 0].mean() + 200


def test_the_brain_is_scored_without_what_was_labelled(monkeypatch):
    settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, steps=1, views=0)
    monkeypatch.setattr(clicks.Settings, "of_preset", lambda *_, **__: settings)
    found = clicks.on_brain("fast")
    assert 0 < found["trained_s"] < found["first_mask_s"] < found["last_mask_s"]
    assert all(0 <= value <= 100 for value in (*found["dice"], *found["dice_again"]))


def test_the_shortest_training_that_reaches_the_recipe_counts(monkeypatch):
    dices = {0.25: 70.0, 0.5: 81.0, 0.75: 83.0, 1.0: 85.0}

    def measured(measure, name, data, *arguments):
        if measure is quality.the_recipe:
            return {"seconds": 400.0, "dice": 80.0}
        preset, share, _ = arguments
        return {"seconds": 10 * share, "steps": int(100 * share), "dice": dices[share] - 20 * (preset == "balanced")}

    monkeypatch.setattr(quality, "alone", measured)
    fast, balanced = quality.measure(None)
    assert (fast["dice"], fast["share_of_time"]) == (85.0, 0.025)
    assert (fast["reached_steps"], fast["reached_dice"], fast["reached_share"]) == (50, 81.0, 0.0125)
    assert balanced["reached_s"] is None  # never reached


def test_the_floor_counts_arithmetic_and_written_bytes():
    left, right = torch.randn(64, 32), torch.randn(32, 16)
    with floor.FlopCounterMode(display=False) as flops, floor._Written() as written:
        product = left @ right
        product.view(-1)  # nothing is written
    assert flops.get_total_flops() == 2 * 64 * 32 * 16
    assert written.bytes == product.nbytes


def test_the_floor_of_a_training_step_is_that_of_the_numbers_it_computes_with(monkeypatch):
    rates = {torch.float32: 1e9, torch.bfloat16: 4e9}
    monkeypatch.setattr(floor, "_flops_per_second", rates.get)
    monkeypatch.setattr(floor, "_bytes_per_second", lambda: 1e15)
    figures = {}
    for able in (True, False):
        monkeypatch.setattr(floor, "mixed_precision", lambda *_, able=able: able)
        figures[able] = floor.distance("train", "fast", "efficientnet-lite0", 64, 2)
    assert figures[True]["numbers"] == "bfloat16"
    assert figures[True]["gflop"] == figures[False]["gflop"] > 0
    assert figures[True]["arithmetic_ms"] == pytest.approx(figures[False]["arithmetic_ms"] / 4, abs=0.02)


def test_the_command_keeps_other_parts_and_writes_a_table(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(startup, "measure", lambda: [{"what": "import", "seconds": 0.5}])
    monkeypatch.setattr(
        speed.clicks, "measure", lambda slices, device: [{"what": f"{slices} slices", "dice": [90.0, 91.5]}]
    )
    for part in ("startup", "clicks", "startup"):
        speed.command(["--out", str(tmp_path), "--parts", part, "--slices", "7"])
    rows = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == ["clicks", "startup"]
    text = (tmp_path / "speed.md").read_text()
    assert "| 7 slices | 90.0 / 91.5 |" in text
    assert "| import | 0.5 |" in text
    assert "speed.md" in capsys.readouterr().out
