"""Label a few slices of one volume, predict its other slices: Dice of our presets and of their peers.

    python -m benchmarks.one_volume --data FOLDER --out RESULTS [--sets …] [--slices 3,5,10] [--draws 3] [--methods …]

Labelled slices lie evenly over those that hold the structure; a draw moves them by a part of their distance. Scored are
the other slices of the volume, as one 3-D mask. The time to train is the same for all methods.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.cases import SampleCases
from benchmarks.harness import Job, Options, Setting, add_arguments, main, numbers, options_of, run
from benchmarks.methods import METHODS
from benchmarks.samples import SETS, Sample, load_set

NAME = "one_volume"
VOLUMES = tuple(name for name, image_set in SETS.items() if image_set.kind == "volume")


def even_slices(holding: Sequence[int], count: int, draw: int) -> list[int]:
    """``count`` of the slices that hold the structure, one in each of as many equal parts.

    In draw 0 it is the middle of a part, where a person would begin; else a place that is drawn, the same in each part.
    """
    place = 0.5 if draw == 0 else float(np.random.default_rng(draw).uniform())
    return [holding[int((part + place) * len(holding) / count)] for part in range(count)]


def holding(sample: Sample) -> list[int]:
    """Slices with any foreground."""
    return [i for i, truth in enumerate(sample.truth) if truth.any()]


@lru_cache(maxsize=1)
def _load(data: Path, name: str) -> dict[str, Sample]:
    return {sample.name: sample for sample in sorted(load_set(data, name), key=lambda sample: sample.name)}


@lru_cache(maxsize=1)
def _cases(data: Path, name: str, volume: str) -> SampleCases:
    return SampleCases([_load(data, name)[volume]])


def prepare(job: Job, options: Options) -> Setting:
    """Choose the labelled slices of a job."""
    cases = _cases(options.data, job.image_set, str(job.volume))
    sample = cases.samples[0]
    labelled = even_slices(holding(sample), job.labels, job.draw)
    return Setting(cases, tuple(labelled), [f"slice {i}" for i in labelled], (sample,))


def jobs_of(
    sets: Sequence[str], volumes: int, slices: Sequence[int], draws: int, methods: Sequence[str], options: Options
) -> list[Job]:
    """All jobs, volume by volume; a volume that would be labelled whole is left out, with a line on standard error."""
    jobs = []
    for name in sets:
        samples = list(_load(options.data, name).values())
        chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, min(volumes, len(samples))).round().astype(int)]
        for sample in chosen:
            for count in slices:
                if not 1 <= count <= len(holding(sample)) or count >= sample.n_slices:
                    print(
                        f"{sample.name}: {count} slices are left out; {len(holding(sample))} hold it.", file=sys.stderr
                    )
                    continue
                jobs += [
                    Job(NAME, name, sample.name, count, draw, method) for draw in range(draws) for method in methods
                ]
    return jobs


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, VOLUMES, tuple(METHODS))
    parser.add_argument("--slices", type=numbers, default=[3, 5, 10])
    parser.add_argument("--volumes", type=int, default=3, help="of each set, evenly over the names")
    parsed = parser.parse_args(arguments)
    shown = ("sets", "volumes", "slices", "draws", "methods", "encoder", "input_size", "seconds", "device")
    options = options_of(parsed, NAME, shown)
    jobs = jobs_of(parsed.sets, parsed.volumes, parsed.slices, parsed.draws, parsed.methods, options)
    run(jobs, prepare, options, parsed.out, parsed.jobs)


if __name__ == "__main__":
    sys.exit(main(command))
