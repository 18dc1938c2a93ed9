from __future__ import annotations

import json
from pathlib import Path

from benchmarks import live, rows
from tests.benchmarks.sets import write_la2018


def test_a_row_says_when_the_first_masks_came_and_how_good_masks_are_beside_the_label(tmp_path: Path) -> None:
    write_la2018(tmp_path / "data" / "la2018" / "test" / "one", 0)
    words = ["--data", str(tmp_path / "data"), "--sets", "la2018", "--out", str(tmp_path / "out")]
    words += ["--input-size", "64", "--seconds", "0.01,8", "--before", "0.5"]
    live.command(words)
    (line,) = (tmp_path / "out" / rows.FILE).read_text().splitlines()
    row = json.loads(line)
    assert row["first_masks"] > 0
    early, late = row["dice"]["0.01"], row["dice"]["8"]
    assert early == [None] * 4
    assert late[0] > 0.5
    assert late[3] is None  # the volume ends before
    live.command(
        [*words, "--input-size", "64", "--seconds", "0.01,8", "--before", "0.5"]
    )  # there is nothing left to do
    assert len((tmp_path / "out" / rows.FILE).read_text().splitlines()) == 1
