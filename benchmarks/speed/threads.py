"""How the threads of a training should wait for each other: asleep, or spinning briefly first.

    python -m benchmarks.speed.threads [--data DATA] [--pairs 3] [--steps 110] [--json FILE]

Trains with the preset `fast` on five slices of a hippocampus (of the public set in DATA, or a made-up volume of that
size), in a fresh process for each figure. The ways take turns, so that a pair of figures comes from the same minutes:

- `sleep`: waiting threads sleep at once (OMP_WAIT_POLICY=PASSIVE, no spinning), as the program had it before;
- `brief spin`: as the program has it now (`napari_dinoaugseg.native.limit_spinning`);
- `one thread`: nobody waits for anybody.

Each runs alone and beside a process that keeps one core busy. Nothing else may run meanwhile. A ratio is the median of
the ratios in pairs; above 1 the brief spin is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case, case_from_array, open_case

OURS = "brief spin"
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAYS: dict[str, dict[str, str]] = {
    "sleep": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"},
    OURS: {},
    "one thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}
BESIDE = ("nothing", "a busy core")
_BUSY = "import sys; sys.stdout.write('go'); sys.stdout.flush()\nwhile True: pass"
_LABELLED = 5


def train_seconds(data: Path | None, steps: int) -> float:
    """Seconds of a training without encoding, in this process, whose environment says how threads wait."""
    from napari_dinoaugseg.learning.settings import Settings
    from napari_dinoaugseg.session.compute import ComputeConfig
    from napari_dinoaugseg.session.local import load_libraries
    from napari_dinoaugseg.session.session import Session

    case, truth = made_hippocampus() if data is None else first_hippocampus(data)
    settings = Settings.of_preset("fast", encoder="efficientnet-lite0", steps=steps)
    load_libraries(settings.encoder)
    session = Session(case, settings, ComputeConfig("cpu", cache=False))
    for number in sorted({int(value) for value in np.unique(truth)} - {0}):
        session.labels.add_class(f"part {number}")
    holding = np.flatnonzero(truth.any(axis=(1, 2)))
    for part in range(_LABELLED):
        index = int(holding[int((part + 0.5) * len(holding) / _LABELLED)])
        session.paint(index, truth[index])
    for _ in session.train():
        pass
    return session.seconds["train"]


def made_hippocampus() -> tuple[Case, NDArray[np.uint16]]:
    """A volume (36, 50, 35) of noise with a bright ellipsoid in two halves, and its labels."""
    z, y, x = np.ogrid[:36, :50, :35]
    inside = ((z - 18) / 14) ** 2 + ((y - 25) / 18) ** 2 + ((x - 17) / 8) ** 2 < 1
    truth = np.where(inside, np.where(y < 25, 1, 2), 0).astype(np.uint16)
    noise = np.random.default_rng(0).normal(0, 0.3, truth.shape)
    return case_from_array((noise + 0.5 * truth).astype(np.float32)), truth


def hippocampi(data: Path) -> list[Path]:
    """The volumes of the public set in a folder."""
    return list((data / "msd_hippocampus").rglob("images/*.nii.gz"))


def first_hippocampus(data: Path) -> tuple[Case, NDArray[np.uint16]]:
    """The first volume of the public set in a folder, and its labels (n_slices, H, W)."""
    image = min(hippocampi(data))
    case, truth = open_case(image), open_case(image.parent.parent / "labels" / image.name)
    return case, np.stack([truth.slice(i) for i in range(truth.n_slices)]).astype(np.uint16)


def measure(data: Path | None, pairs: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by what runs beside and by way, in order of the pairs."""
    found: dict[str, dict[str, list[float]]] = {beside: {way: [] for way in WAYS} for beside in BESIDE}
    for _ in range(pairs):
        for beside, by_way in found.items():
            with busy_core(on=beside != BESIDE[0]):
                for way, seconds in by_way.items():
                    seconds.append(in_own_process(way, data, steps))
                    sys.stderr.write(f"{way}, beside {beside}: {seconds[-1]:.1f} s\n")
    return found


def in_own_process(way: str, data: Path | None, steps: int) -> float:
    """What `train_seconds` gives in a fresh process whose threads wait in a way."""
    own = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-m", "benchmarks.speed.threads", "--alone", "--steps", str(steps)]
    command += ["--data", str(data)] if data is not None else []
    done = subprocess.run(command, env={**own, **WAYS[way]}, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


@contextmanager
def busy_core(*, on: bool) -> Iterator[None]:
    """Another process that computes without a pause meanwhile, if it shall."""
    if not on:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", _BUSY], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.read(2)  # it has begun
        try:
            yield
        finally:
            other.kill()


def table_of(found: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: seconds of each pair, and how many times as long as ours a way takes."""
    lines = ["| beside | threads | seconds | times ours |", "| :-- | :-- | --: | --: |"]
    for beside, by_way in found.items():
        for way, seconds in by_way.items():
            times = median(theirs / ours for theirs, ours in zip(seconds, by_way[OURS], strict=True))
            lines.append(f"| {beside} | {way} | {', '.join(f'{value:.1f}' for value in seconds)} | {times:.2f} |")
    return "\n".join(lines)


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of the public sets; else a made-up volume")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--json", type=Path, default=None, help="file for the seconds")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # one training, in this process
    parsed = parser.parse_args(arguments)
    if parsed.data is not None and not hippocampi(parsed.data):
        parser.error(f"{parsed.data} holds no msd_hippocampus with images; leave --data out for a made-up volume")
    if parsed.alone:
        print(train_seconds(parsed.data, parsed.steps))
        return
    found = measure(parsed.data, parsed.pairs, parsed.steps)
    print(table_of(found))
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    command()
