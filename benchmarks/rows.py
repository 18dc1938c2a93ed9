"""Results as JSON lines: one row for each set, number of labels, draw and method, written as soon as it is there.

A run that was stopped goes on where it was, because finished rows are skipped; tables are made of what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari_dinoaugseg.errors import StudyError

Row = dict[str, Any]

FILE = "results.jsonl"

_IDENTITY = (
    "benchmark",
    "set",
    "volume",
    "test",
    "labels",
    "draw",
    "method",
    "encoder",
    "input_size",
    "seconds_limit",
    "device",
)
"""What makes two rows measurements of the same thing."""


def key_of(row: Row) -> tuple[Any, ...]:
    """What a row measures; two rows with one key are repetitions."""
    return tuple(row[name] for name in _IDENTITY)


def append(path: Path, row: Row) -> None:
    """Write a row behind the others, on a line of its own even where a run was stopped in the middle of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(row, allow_nan=False) + "\n")


def read(path: Path) -> list[Row]:
    """The rows of a file, or of all files below a folder; what a stopped run left unfinished is skipped.

    Of rows with one key the last counts.

    Raises:
        StudyError: there is no such file, or it holds no result.
    """
    paths = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    if not paths or not all(file.is_file() for file in paths):
        msg = f"{path}: there are no results here. Run benchmarks.few_shot or benchmarks.one_volume first."
        raise StudyError(msg)
    rows = {key_of(row): row for file in paths for row in _whole(file.read_text(encoding="utf-8").splitlines(), file)}
    return list(rows.values())


def _whole(lines: Iterable[str], file: Path) -> Iterable[Row]:
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line at which a run was stopped
            continue
        if not isinstance(row, dict) or any(name not in row for name in _IDENTITY):
            msg = f"{file}: this is no file of benchmark results. Name the file or folder that --out named."
            raise StudyError(msg)
        yield row
