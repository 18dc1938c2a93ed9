"""Runs what a benchmark consists of, job by job, and keeps the results as they come."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import rows
from benchmarks.cases import SampleCases
from benchmarks.methods import METHODS, Learnt, Method, Problem
from benchmarks.methods.problem import seconds_on
from benchmarks.samples import SETS, ImageSet, Sample
from benchmarks.scores import Scores, score_samples
from napari_dinoaugseg.errors import DinoAugSegError, SettingsError
from napari_dinoaugseg.learning.fallback import choose_device
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.model.encoder import Encoder, load_encoder

_TIMED = 4  # slices, to learn what encoding one takes


@dataclass(frozen=True)
class Options:
    """What all jobs of a run have in common.

    Attributes:
        data: folder of the sets.
        test: folder of other samples of the same sets to score on; None = the `test` below `data`.
        encoder: its name.
        weights: file with its weights, or None.
        input_size: side of the square that slices are resized to.
        seconds: of training that each method may take.
        device: "cpu", "cuda", …
        cache: folder for features.
        command: as it can be given again.
    """

    data: Path
    test: Path | None
    encoder: str
    weights: Path | None
    input_size: int
    seconds: float
    device: str
    cache: Path
    command: str


@dataclass(frozen=True)
class Job:
    """One row to be measured.

    Attributes:
        benchmark: name of the module.
        image_set: name of the set.
        volume: name of the volume that is completed; None when other samples are scored.
        labels: how many samples (few_shot) or slices (one_volume) are labelled.
        draw: number of the random choice of them, and seed of the method.
        method: its name.
    """

    benchmark: str
    image_set: str
    volume: str | None
    labels: int
    draw: int
    method: str


@dataclass(frozen=True)
class Setting:
    """What a job learns from and is scored on.

    Attributes:
        cases: of all samples that it touches.
        labelled: slice numbers.
        names: of what is labelled, for the row.
        scored: samples.
    """

    cases: SampleCases
    labelled: tuple[int, ...]
    names: list[str]
    scored: tuple[Sample, ...]


Prepare = Callable[[Job, Options], Setting]


def add_arguments(parser: argparse.ArgumentParser, sets: Sequence[str], methods: Sequence[str]) -> None:
    """Options of the benchmarks that compare methods."""
    add_common_arguments(parser, sets)
    parser.add_argument(
        "--methods", type=names(METHODS), default=list(methods), help=f"among {','.join(METHODS)}; default: all"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of training for each method, without encoding")


def add_common_arguments(parser: argparse.ArgumentParser, sets: Sequence[str]) -> None:
    """Options that all benchmarks share that this module runs."""
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--sets", type=names(SETS), default=list(sets), help=f"default: {','.join(sets)}")
    parser.add_argument("--draws", type=int, default=3, help="how many random choices of what is labelled")
    parser.add_argument("--encoder", default="efficientnet-lite0", help="its name; the same for all methods")
    parser.add_argument("--weights", type=Path, default=None, help="file with the weights of the encoder")
    parser.add_argument("--input-size", type=int, default=256, help="pixels; the same for all methods")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, default=None, help="folder for features; default: cache in --out")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {rows.FILE}; finished rows are skipped")
    parser.add_argument("--jobs", type=int, default=1, help="processes, with one thread each")


def numbers(text: str) -> list[int]:
    """Numbers such as 1,3,5."""
    return [int(part) for part in text.split(",")]


def options_of(parsed: argparse.Namespace, module: str, shown: Iterable[str]) -> Options:
    """The options of a run; arguments as of `command_of`."""
    if parsed.draws < 1 or parsed.jobs < 1 or parsed.seconds <= 0:
        msg = "--draws and --jobs must be at least 1, and --seconds more than 0."
        raise SettingsError(msg)
    test = getattr(parsed, "test", None)
    return Options(
        data=parsed.data,
        test=test,
        encoder=parsed.encoder,
        weights=parsed.weights,
        input_size=parsed.input_size,
        seconds=parsed.seconds,
        device=str(choose_device(parsed.device)),
        cache=parsed.cache or parsed.out / "cache",
        command=command_of(parsed, module, shown) + (" --test OTHER" if test else ""),
    )


def command_of(parsed: argparse.Namespace, module: str, shown: Iterable[str]) -> str:
    """The command as it is published, without the folders of this machine.

    Args:
        parsed: the arguments.
        module: that is run.
        shown: names of the arguments in it.
    """
    words = ["python -m", f"benchmarks.{module}", "--data DATA", "--out OUT"]
    for name in shown:
        value = getattr(parsed, name)
        text = (
            ",".join(map(str, value))
            if isinstance(value, list)
            else f"{value:g}"
            if isinstance(value, float)
            else value
        )
        words.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(words)


def run(jobs: Sequence[Job], prepare: Prepare, options: Options, out: Path, processes: int = 1) -> None:
    """Measure all jobs that have no row yet, and append a row for each.

    Args:
        jobs: in the order in which they share the most.
        prepare: gives what a job learns from; a function of a module, since processes have to find it.
        options: of the run.
        out: folder of the results.
        processes: at once.
    """
    one = partial(_measured, prepare, options)
    rows.measure_missing(jobs, partial(_identity, options=options), one, _progress, out, processes)


def main(action: Callable[[], None]) -> int:
    """Run a benchmark's command; errors that a person can meet are one line."""
    try:
        action()
    except DinoAugSegError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _measured(prepare: Prepare, options: Options, job: Job) -> rows.Row:
    return measure(job, prepare, options)


def _progress(row: rows.Row) -> str:
    effort = f"{row['seconds']['train']:.0f} s, {row['steps']} of {row['planned']} steps"
    return f"Dice {100 * row['mean_dice']:.1f}, {effort}"


def measure(job: Job, prepare: Prepare, options: Options) -> rows.Row:
    """Let a method learn, predict and be scored; returns the row."""
    setting, image_set = prepare(job, options), SETS[job.image_set]
    method, store = METHODS[job.method], _store(setting.cases, options)
    each = _encode_seconds(store)
    store = _as_learned(store, method, setting)
    problem = _problem(setting, store, job, options)
    learnt = method.learn(problem)
    wanted = [i for sample in setting.scored for i in setting.cases.indices(sample) if i not in problem.labelled]
    for _ in store.prepare([(i, None) for i in wanted]):
        pass  # so that prediction is timed without encoding
    started = seconds_on(problem.device)
    predictions = {found.index: found for found in learnt.predict(wanted)}  # the last one of a slice counts
    seconds = {"train": learnt.seconds, "predict": seconds_on(problem.device) - started, "encode_each": each}
    # Slices that are given count as found only in their own volume, as a person's labels do.
    own = {i for sample in setting.scored for i in setting.cases.indices(sample)}
    given = [i for i in problem.labelled if i in own]
    scores = score_samples(setting.cases, setting.scored, predictions.values(), image_set.classes, given)
    return {
        **_identity(job, options),
        **_figures(scores),
        "labelled": setting.names,
        "labelled_slices": len(problem.labelled),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        **_effort(learnt, len(wanted)),
        "classes": list(image_set.classes),
        "about": image_set.about,
        "command": options.command,
        **machine(),
    }


def _problem(setting: Setting, store: FeatureStore, job: Job, options: Options) -> Problem:
    image_set: ImageSet = SETS[job.image_set]
    return Problem(
        cases=setting.cases,
        store=store,
        labelled=setting.labelled,
        n_classes=len(image_set.classes) + 1,
        seed=job.draw,
        seconds=options.seconds,
        cache=options.cache,
    )


def _as_learned(store: FeatureStore, method: Method, setting: Setting) -> FeatureStore:
    """The store with the neighbouring slices and the precision that the program chooses for the labelled slices."""
    own = method.settings
    chosen = own.context if own is not None else None
    context = setting.cases.context(setting.labelled) if chosen is None else chosen
    exact = own is not None and own.precision == "float32"
    if context != store.context:
        store = store.with_context(context)
    return store if exact == store.exact else store.with_precision(exact=exact)


def _identity(job: Job, options: Options) -> rows.Row:
    return {
        "benchmark": job.benchmark,
        "set": job.image_set,
        "volume": job.volume,
        "test": options.test.name if options.test else None,
        "labels": job.labels,
        "draw": job.draw,
        "method": job.method,
        "encoder": options.encoder,
        "input_size": options.input_size,
        "seconds_limit": options.seconds,
        "device": options.device,
    }


def _figures(scores: Scores) -> rows.Row:
    return {
        "mean_dice": round(scores.mean_dice, 6),
        "dice": scores.dice,
        "hd95": scores.hd95,
        "hd95_unit": scores.unit,
        "slices": scores.slices,
        "calibration": scores.calibration.as_plain(),
    }


def _effort(learnt: Learnt, predicted: int) -> rows.Row:
    finished = learnt.steps >= learnt.planned
    return {
        "steps": learnt.steps,
        "planned": learnt.planned,
        "finished": finished,
        "encoded": learnt.encoded,
        "predicted": predicted,
        "notes": [] if finished else [f"stopped by the limit of time at step {learnt.steps}"],
    }


# The features of one set at a time: the jobs of one set follow on one another.
_last: dict[str, Any] = {}


def _store(cases: SampleCases, options: Options) -> FeatureStore:
    if _last.get("cases") is not cases:
        _last.update(cases=cases, store=cases.store(_encoder(options), options.input_size, options.cache))
    store: FeatureStore = _last["store"]
    return store


@cache
def _encoder(options: Options) -> Encoder:
    return load_encoder(options.encoder, weights=options.weights, device=options.device)


def _encode_seconds(store: FeatureStore) -> float:
    """What a slice takes to encode: the median of a few, whatever is in the cache."""
    if _last.get("timed") is not store:
        taken = []
        for i in range(min(_TIMED, store.case.n_slices)):
            started = seconds_on(store.encoder.device)
            for stage in store.encoder.encode(store.image(i)[None]):
                stage.cpu()
            taken.append(seconds_on(store.encoder.device) - started)
        _last.update(timed=store, each=float(np.median(taken)))
    each: float = _last["each"]
    return each


@cache
def machine() -> rows.Row:
    """What the figures depend on besides."""
    packages = ("napari-dinoaugseg", "torch", "timm", "monai", "scikit-learn", "numpy")
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "code": _commit(),
        "hardware": {"cpu": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": card},
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the code, where it is a clone."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Parser of names among those that are known, such as acdc,la2018."""

    def parse(text: str) -> list[str]:
        given = text.split(",")
        wrong = [name for name in given if name not in known]
        if wrong:
            msg = f"'{wrong[0]}' is none of {', '.join(known)}"
            raise argparse.ArgumentTypeError(msg)
        return given

    return parse
