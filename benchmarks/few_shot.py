"""Label a few samples of a public set, predict others: Dice and HD95 of our presets and of their peers.

    python -m benchmarks.few_shot --data FOLDER --out RESULTS [--sets …] [--shots 1,3,5,10] [--draws 5] [--methods …]

A shot is a picture; in sets of volumes it is a whole volume with all its slices. Labelled samples are drawn at random
from `train`, and a draw with more shots holds those of the same draw with fewer. Scored are all samples of `test`, or
all samples of the same set below another folder (--test). Every sample is a case in a file of its own, and the presets
of the program learn through its own project. Every method gets the same labelled samples, the same frozen encoder at
the same input size, and the same time to train. `python -m benchmarks.tables` makes tables of the results.
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
from benchmarks.samples import Sample, load_set

NAME = "few_shot"
WITH_SPLIT = ("cvc_clinicdb", "ph2", "lung_ct", "busi", "hc18", "acdc", "la2018", "msd_hippocampus")


@lru_cache(maxsize=1)
def _load(data: Path, test: Path | None, name: str) -> tuple[tuple[Sample, ...], tuple[Sample, ...], SampleCases]:
    """Samples to label, samples to score, and the cases of both."""
    pool = tuple(load_set(data, name, "train"))
    scored = tuple(load_set(data, name, "test") if test is None else load_set(test, name))
    return pool, scored, SampleCases([*pool, *scored])


def prepare(job: Job, options: Options) -> Setting:
    """Draw the labelled samples of a job."""
    pool, scored, cases = _load(options.data, options.test, job.image_set)
    chosen = [pool[i] for i in np.random.default_rng(job.draw).permutation(len(pool))[: job.labels]]
    labelled = tuple(i for sample in chosen for i in cases.indices(sample))
    return Setting(cases, labelled, [sample.name for sample in chosen], scored)


def jobs_of(
    sets: Sequence[str], shots: Sequence[int], draws: int, methods: Sequence[str], options: Options
) -> list[Job]:
    """All jobs, set by set; more shots than a set has samples are left out, with a line on standard error."""
    jobs = []
    for name in sets:
        pool = len(load_set(options.data, name, "train"))
        for count in shots:
            if not 1 <= count <= pool:
                print(f"{name}: {count} shots are left out, for there are {pool} cases to draw from.", file=sys.stderr)
                continue
            jobs += [Job(NAME, name, None, count, draw, method) for draw in range(draws) for method in methods]
    return jobs


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, WITH_SPLIT, tuple(METHODS))
    parser.add_argument("--shots", type=numbers, default=[1, 3, 5, 10])
    parser.add_argument("--test", type=Path, default=None, help="folder of other cases of the same sets to score on")
    parsed = parser.parse_args(arguments)
    options = options_of(
        parsed, NAME, ("sets", "shots", "draws", "methods", "encoder", "input_size", "seconds", "device")
    )
    jobs = jobs_of(parsed.sets, parsed.shots, parsed.draws, parsed.methods, options)
    run(jobs, prepare, options, parsed.out, parsed.jobs)


if __name__ == "__main__":
    sys.exit(main(command))
