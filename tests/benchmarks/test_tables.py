from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import rows, tables
from benchmarks.comparison import (
    auroc_of_poor_slices,
    by_draw,
    compare,
    expected_calibration_error,
    mean_and_deviation,
    mean_hd95,
    missing_hd95,
    pairs_of,
    seconds_to_masks,
)
from benchmarks.scores import BINS, Calibration


def row(method: str = "balanced", draw: int = 0, dice: float = 0.9, **more: Any) -> rows.Row:
    empty = [0.0] * BINS
    return {
        "benchmark": "few_shot",
        "set": "ph2",
        "volume": None,
        "test": None,
        "labels": 5,
        "draw": draw,
        "method": method,
        "encoder": "efficientnet-lite0",
        "input_size": 256,
        "seconds_limit": 60.0,
        "device": "cpu",
        "mean_dice": dice,
        "dice": {"IMD001": {"lesion": dice}},
        "hd95": {"IMD001": {"lesion": 10.0}},
        "hd95_unit": "px",
        "slices": [("IMD001", 0, 0.9, dice)],
        "calibration": {"pixels": [*empty[1:], 100.0], "confidence": [*empty[1:], 95.0], "right": [*empty[1:], 90.0]},
        "labelled": ["IMD002"],
        "labelled_slices": 1,
        "seconds": {"train": 40.0, "predict": 2.0, "encode_each": 0.5},
        "steps": 200,
        "planned": 200,
        "finished": True,
        "encoded": 8,
        "predicted": 4,
        "notes": [],
        "classes": ["lesion"],
        "about": "dermoscopy",
        "command": "python -m benchmarks.few_shot --data DATA --out OUT",
        "versions": {"python": "3.11"},
        "code": None,
        "hardware": {"cpu": "a processor", "cores": 2, "threads": 1, "gpu": None},
        "when": "2026-01-01",
        **more,
    }


def test_means_are_over_draws_and_a_draw_is_the_mean_of_its_volumes() -> None:
    given = [row(dice=0.5, volume="a"), row(dice=0.7, volume="b"), row(dice=0.8, draw=1, volume="a")]
    values = by_draw(given, lambda entry: entry["mean_dice"])
    assert values == {(("ph2", 5), "balanced"): pytest.approx({0: 0.6, 1: 0.8})}
    mean, deviation = mean_and_deviation([0.6, 0.8])
    assert (mean, deviation) == pytest.approx((0.7, np.sqrt(0.02)))
    assert mean_and_deviation([0.6]) == (0.6, None)


def test_differences_are_paired_by_draw() -> None:
    given = [row(draw=0, dice=0.5), row(draw=1, dice=0.9), row("light", 1, 0.6), row("light", 2, 0.1)]
    values = by_draw(given, lambda entry: entry["mean_dice"])
    assert pairs_of(values, ("ph2", 5), "light", "balanced") == [(0.6, 0.9)]
    assert pairs_of(values, ("ph2", 5), "forest", "balanced") == []


def test_a_comparison_counts_signs_and_draws_an_interval() -> None:
    found = compare([(1.0, 3.0), (2.0, 3.0), (0.0, 3.0), (4.0, 4.0)])
    assert (found.pairs, found.mean, found.better, found.worse) == (4, -1.5, 0, 3)
    assert found.p == pytest.approx(0.25)  # 2 * 0.5 ** 3
    assert found.interval is not None
    assert -3 <= found.interval[0] < -1.5 < found.interval[1] <= 0
    assert compare([(1.0, 2.0), (1.0, 3.0)]).interval is None
    assert compare([(1.0, 1.0)]).p == 1.0
    alike = compare([(2.0, 1.0)] * 5)
    assert alike.interval == (1.0, 1.0)


def test_distances_that_do_not_exist_are_left_out_and_counted() -> None:
    entry = row(hd95={"a": {"x": 2.0, "y": None}, "b": {"x": 4.0, "y": 6.0}})
    assert mean_hd95(entry) == 4.0
    assert missing_hd95([entry]) == 0.25
    assert mean_hd95(row(hd95={"a": {"x": None}})) is None


def test_the_time_counts_encoding_that_the_cache_saved() -> None:
    assert seconds_to_masks(row()) == 40 + 8 * 0.5


def test_calibration_error_is_the_gap_weighted_by_pixels() -> None:
    counted = Calibration()
    counted.add(np.full((1, 100), 0.95, np.float32), np.arange(100)[None] < 80)  # sure, and wrong in a fifth
    counted.add(np.full((1, 300), 0.5, np.float32), np.arange(300)[None] % 2 == 0)  # as sure as right
    assert counted.pixels[14] == 100
    assert counted.pixels[7] == 300
    entry = row(calibration=counted.as_plain())
    assert expected_calibration_error([entry]) == pytest.approx(0.25 * 0.15, abs=1e-6)
    assert expected_calibration_error([entry, entry]) == pytest.approx(0.25 * 0.15, abs=1e-6)


def test_poor_slices_are_found_by_low_confidence() -> None:
    slices = [("a", 0, 0.9, 0.95), ("a", 1, 0.8, 0.9), ("a", 2, 0.85, 0.5), ("a", 3, 0.3, 0.1)]
    area, poor, total = auroc_of_poor_slices([row(slices=slices)])
    assert (area, poor, total) == (0.75, 2, 4)  # of four pairs one stands the wrong way round
    assert auroc_of_poor_slices([row(slices=slices[:2])]) == (None, 0, 2)


def test_tables_say_what_was_measured_and_how(tmp_path: Path) -> None:
    given = [row(draw=draw, dice=0.5 + 0.1 * draw) for draw in range(3)]
    given += [row("forest", draw, 0.3 + 0.1 * draw, finished=draw > 0) for draw in range(3)]
    given += [row(draw=0, dice=0.2, seconds_limit=10.0)]
    (file,) = tables.write(given, tmp_path / "docs")
    text = file.read_text(encoding="utf-8")
    assert "| ph2 | 5 | 60.0 ± 10.0 | 40.0 ± 10.0 |" in text
    assert "| ph2 | 5 | -20.0 (-20.0 to -20.0) |" in text
    assert "| forest | balanced | -20.0 (-20.0 to -20.0) | 3 | 0 | 3 | 0.25 |" in text
    assert "| ph2 | balanced | 5.0 | – | 3 | 3 |" in text  # all slices are poor: nothing to tell apart
    assert "| forest | 4.0 | 40.0 | 44.0 | 0.500 | 200 | 200 | 33 |" in text
    assert "## efficientnet-lite0, 256 pixels, 10 s on cpu" in text
    for said in ("ph2 (dermoscopy: lesion; 1 scored)", "a processor, 1 of 2 threads", "`python -m benchmarks.few_shot"):
        assert said in text
    pictures = sorted(path.name for path in (tmp_path / "docs").glob("*.png"))
    assert len(pictures) == 4
    assert all(f"]({name})" in text for name in pictures)
    assert str(tmp_path) not in text


def test_a_section_scored_on_another_folder_keeps_the_names_of_older_tables(tmp_path: Path) -> None:
    (file,) = tables.write([row(test="test-2")], tmp_path)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# A few labelled cases\n")
    assert "## efficientnet-lite0, 256 pixels, 60 s on cpu, scored on other cases\n" in text
    pictures = list(tmp_path.glob("*.png"))
    assert pictures
    assert all("few_shot-efficientnet-lite0-256-60s-cpu-other-cases" in path.name for path in pictures)


def test_tables_are_made_of_files_below_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.append(tmp_path / "a" / rows.FILE, row(dice=0.1))
    rows.append(tmp_path / "b" / rows.FILE, row(dice=0.7))  # the same, measured again
    tables.command([str(tmp_path), "--out", str(tmp_path / "docs")])
    assert capsys.readouterr().out.split() == [str(tmp_path / "docs" / "few_shot.md")]
    assert "| ph2 | 5 | 70.0 |" in (tmp_path / "docs" / "few_shot.md").read_text(encoding="utf-8")
