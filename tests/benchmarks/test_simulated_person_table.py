from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import person_table, rows


def point(slices: int, strokes: int, dice: float, **seconds: float) -> rows.Row:
    return {
        "slices": slices,
        "painted": slices - 1,
        "strokes": strokes,
        "dice": [dice],
        "mean_dice": dice,
        "seconds": seconds,
    }


def row(method: str, *curve: rows.Row, **more: Any) -> rows.Row:
    return {
        "benchmark": "simulated_person",
        "set": "la2018",
        "volume": "one",
        "test": None,
        "labels": 1,
        "draw": 0,
        "method": method,
        "encoder": "efficientnet-lite0",
        "input_size": 256,
        "seconds_limit": None,
        "device": "cpu",
        "preset": "balanced",
        "max_slices": 20,
        "mean_dice": curve[-1]["mean_dice"],
        "curve": list(curve),
        "touched": [],
        "n_slices": 88,
        "holding": 60,
        "classes": ["left atrium"],
        "about": "cardiac MRI",
        "command": "python -m benchmarks.simulated_person --data DATA --out OUT",
        "versions": {"python": "3.11"},
        "code": "abc1234",
        "hardware": {"cpu": "a processor", "cores": 2, "threads": 1, "gpu": None},
        "when": "2026-01-01",
        **more,
    }


SUGGESTED = row("suggested", point(1, 5, 0.8, all=30.0), point(3, 20, 0.91, all=20.0), point(4, 24, 0.9, all=20.0))
BY_HAND = row("by_hand", point(39, 390, 0.89), point(40, 400, 0.90), point(50, 500, 0.95))
LARGEST = row("by_hand_largest", point(30, 300, 0.92), point(48, 480, 0.95))


def cells(text: str, heading: str, strategy: str) -> list[str]:
    part = text.split(f"### {heading}\n")[1].split("###")[0]
    line = next(line for line in part.splitlines() if f"| {strategy} |" in line)
    return [cell.strip() for cell in line.strip("|").split("|")][2:]


def test_the_table_tells_the_first_point_with_a_dice_and_its_share_of_painting_by_hand(tmp_path: Path) -> None:
    text = person_table.write([SUGGESTED, BY_HAND, LARGEST], tmp_path).read_text(encoding="utf-8")
    assert cells(text, "Slices", "suggested") == ["3.0", "8", "10", "–", "–", "–"]
    assert cells(text, "Strokes", "suggested") == ["20.0", "5", "7", "–", "–", "–"]
    assert cells(text, "Slices", "by_hand") == ["40.0", "100", "133", "50.0", "100", "104"]
    assert cells(text, "Seconds", "suggested")[:2] == ["83.0", "13"]  # 20 strokes, 3 slices, 50 s of waiting; of 640 s
    assert cells(text, "Rounds", "suggested") == ["4.0", "1.0", "24", "90.0", "90.0", "23.3"]
    assert cells(text, "Rounds", "by_hand")[-1] == "–"


def test_volumes_that_did_not_get_there_are_counted_and_miss_the_goal(tmp_path: Path) -> None:
    other = [row("suggested", point(20, 99, 0.8), volume="two"), row("by_hand", point(9, 90, 0.97), volume="two")]
    slow = [row("suggested", point(5, 50, 0.95), volume="three"), row("by_hand", point(40, 90, 0.97), volume="three")]
    text = person_table.write([SUGGESTED, BY_HAND, *other, *slow], tmp_path).read_text(encoding="utf-8")
    assert cells(text, "Slices", "suggested")[:2] == ["4.0 (2 of 3)", "10 (2 of 3)"]
    assert "at most 10 % of the slices that painting by hand takes: suggested 1 of 3." in text


def test_without_painting_by_hand_there_is_no_share(tmp_path: Path) -> None:
    text = person_table.write([SUGGESTED], tmp_path).read_text(encoding="utf-8")
    assert cells(text, "Slices", "suggested")[:3] == ["3.0", "–", "–"]
    assert "painting by hand takes" not in text


def test_the_command_reads_what_a_run_wrote(tmp_path: Path) -> None:
    for entry in (SUGGESTED, BY_HAND):
        rows.append(tmp_path / "out" / rows.FILE, entry)
    person_table.command([str(tmp_path / "out"), "--out", str(tmp_path / "docs")])
    assert "# A simulated person" in (tmp_path / "docs" / "simulated_person.md").read_text(encoding="utf-8")
