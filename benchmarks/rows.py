"""Results as JSON lines: one row for each set, number of labels, draw and method, written as soon as it is there.

A run that was stopped goes on where it was, because finished rows are skipped; tables are made of what is there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from napari_dinoaugseg.errors import CaseError

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

_FURTHER = ("preset", "max_slices", "per_round")
"""What does so besides, where a benchmark has it."""


def key_of(row: Row) -> tuple[Any, ...]:
    """What a row measures; two rows with one key are repetitions."""
    return (*(row[name] for name in _IDENTITY), *(row.get(name) for name in _FURTHER))


def identity(
    benchmark: str,
    image_set: str,
    *,
    labels: int,
    draw: int,
    method: str,
    device: str,
    volume: str | None = None,
    encoder: str | None = None,
    input_size: int | None = None,
    seconds_limit: float | None = None,
    **further: Any,
) -> Row:
    """The beginning of a row: what it measures."""
    return {
        "benchmark": benchmark,
        "set": image_set,
        "volume": volume,
        "test": None,
        "labels": labels,
        "draw": draw,
        "method": method,
        "encoder": encoder,
        "input_size": input_size,
        "seconds_limit": seconds_limit,
        "device": device,
        **further,
    }


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
        CaseError: there is no such file, or it holds no result.
    """
    paths = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    if not paths or not all(file.is_file() for file in paths):
        msg = f"{path}: there are no results here. Run one of the benchmarks first, and name what its --out named."
        raise CaseError(msg)
    rows = {key_of(row): row for file in paths for row in _whole(file.read_text(encoding="utf-8").splitlines(), file)}
    return list(rows.values())


def measure_missing(
    jobs: Sequence[Any],
    identity: Callable[[Any], Row],
    measure_one: Callable[[Any], Row],
    describe: Callable[[Row], str],
    out: Path,
    processes: int = 1,
) -> None:
    """Measure all jobs that have no row yet, whatever they are, and append a row for each.

    Args:
        jobs: in the order in which they share the most.
        identity: what a job's row will be known by, see `key_of`.
        measure_one: gives the row; processes have to find it, so that it is a function of a module, or a partial one.
        describe: one line of progress for a row.
        out: folder of the results.
        processes: at once.
    """
    file = out / FILE
    done = {key_of(row) for row in read(file)} if file.exists() else set()
    left = [job for job in jobs if key_of(identity(job)) not in done]
    print(f"{len(left)} of {len(jobs)} jobs to do, into {file}", flush=True)
    started = time.monotonic()
    for number, row in enumerate(_results(left, measure_one, processes), start=1):
        append(file, row)
        hours = (time.monotonic() - started) / number * (len(left) - number) / 3600
        name = " ".join(str(row[key]) for key in ("set", "volume", "labels", "draw", "method") if row[key] is not None)
        print(f"{number}/{len(left)}  {name}: {describe(row)}; {hours:.1f} h left", flush=True)


def _whole(lines: Iterable[str], file: Path) -> Iterable[Row]:
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line at which a run was stopped
            continue
        if not isinstance(row, dict) or any(name not in row for name in _IDENTITY):
            msg = f"{file}: this is no file of benchmark results. Name the file or folder that --out named."
            raise CaseError(msg)
        yield row


def _results(jobs: Iterable[Any], measure_one: Callable[[Any], Row], processes: int) -> Iterable[Row]:
    if processes == 1:
        _one_thread()
        yield from map(measure_one, jobs)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # for the children, whose libraries read it when they are loaded
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        futures = [pool.submit(measure_one, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:  # after an error no further job begins
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    import torch  # tables of the results need none

    torch.set_num_threads(1)
