"""How soon Live gives masks, and how good they are: Dice beside the first labelled slice, some seconds after it.

    python -m benchmarks.live --data FOLDER --out RESULTS [--sets …] [--volumes 3] [--preset fast] [--seconds 2.5,10]
        [--before 10]

In each volume the slice with the most structure is labelled with its truth, as a person would begin, with the encoder
loaded and the slices around it encoded, and `--before` seconds after Live began, in which the person paints. Measured
are the time from the label to the first masks of the four slices around it, and after `--seconds` the Dice of the
slices at the distances 1, 2, 4 and 8, where they hold the structure and have a mask.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import rows
from benchmarks.cases import write_sample
from benchmarks.harness import command_of, machine, main, names
from benchmarks.samples import SETS, Sample, load_set
from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.events import Cancel, Prediction
from napari_dinoaugseg.learning.metrics import dice, mean_of
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig, LiveFeed
from napari_dinoaugseg.session.labels import classes_of
from napari_dinoaugseg.session.session import Session

NAME = "live"
VOLUMES = tuple(name for name, image_set in SETS.items() if image_set.kind == "volume")
DISTANCES = (1, 2, 4, 8)
_AROUND = 2  # slices to either side whose first masks are waited for
_ENCODED = 8  # slices to either side that are encoded before


@dataclass(frozen=True)
class Job:
    """One row to be measured: a volume of a set."""

    image_set: str
    volume: str


@dataclass(frozen=True)
class Options:
    """What all jobs have in common; as in the other benchmarks. `seconds` are those after which masks are scored."""

    data: Path
    encoder: str
    preset: str
    input_size: int
    device: str
    seconds: tuple[float, ...]
    before: float
    command: str


class LiveRun:
    """Live learning in a thread of its own, as in the panel.

    Attributes:
        masks: the last one of each slice.
        when: it came, in the seconds of `time.monotonic`.
        error: that ended the learning.
    """

    def __init__(self, session: Session) -> None:
        self.masks: dict[int, Prediction] = {}
        self.when: dict[int, float] = {}
        self.error: Exception | None = None
        self._feed, self._cancel = LiveFeed(), Cancel()
        self._source = session.live(self._feed, cancel=self._cancel)
        self._session = session
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            for found in self._source:
                self._keep(found)
        except Exception as error:
            self.error = error

    def _keep(self, found: Prediction) -> None:
        self.masks[found.index], self.when[found.index] = found, time.monotonic()

    def show(self, centre: int) -> None:
        """Pass on the labels as they are now."""
        self._feed.put(self._session.live_state(centre))

    def end(self) -> None:
        """Stop; raises the error that ended it before."""
        self._cancel.set()
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise the error that ended it, if there is one."""
        if self.error is not None:
            raise self.error


def measure(options: Options, job: Job) -> rows.Row:
    """Label one slice, and look at the masks that come."""
    sample = next(one for one in load_set(options.data, job.image_set) if one.name == job.volume)
    settings = Settings.of_preset(options.preset, encoder=options.encoder, input_size=options.input_size)
    with tempfile.TemporaryDirectory() as folder:
        case = open_case(write_sample(sample, Path(folder)), plane="native")
        session = Session(case, settings, ComputeConfig(options.device, cache=False))
        session.labels.replace_classes(classes_of(range(1, 1 + len(SETS[job.image_set].classes))))
        return {
            **_identity(job, options),
            **_figures(session, sample, options),
            "command": options.command,
            **machine(),
        }


def _figures(session: Session, sample: Sample, options: Options) -> rows.Row:
    first = int(np.argmax([np.count_nonzero(truth) for truth in sample.truth]))
    _encode_around(session, first)
    run = LiveRun(session)
    try:
        run.show(first)
        time.sleep(options.before)
        session.paint(first, sample.truth[first].astype(np.uint16))
        started = time.monotonic()
        run.show(first)
        around = [i for i in range(first - _AROUND, first + _AROUND + 1) if i != first and 0 <= i < sample.n_slices]
        first_masks, scores = None, {}
        for moment in sorted(options.seconds):
            while time.monotonic() - started < moment and run.error is None:
                if first_masks is None and all(i in run.masks for i in around):
                    first_masks = time.monotonic() - started
                time.sleep(0.005)
            masks = {index: found.classes for index, found in list(run.masks.items())}
            scores[f"{moment:g}"] = [_at(sample, masks, first, distance) for distance in DISTANCES]
    finally:
        run.end()
    return {"first_masks": first_masks, "dice": scores, "mean_dice": mean_of(_known(scores.values()))}


def _encode_around(session: Session, first: int) -> None:
    engine: Any = session.engine
    for index in range(max(0, first - _ENCODED), min(session.case.n_slices, first + _ENCODED + 1)):
        engine.store.features(index)


def _at(sample: Sample, masks: Mapping[int, NDArray[np.uint16]], first: int, distance: int) -> float | None:
    """Mean Dice of the structures in the slices at a distance; None where there are none."""
    found = []
    for index in (first - distance, first + distance):
        if 0 <= index < sample.n_slices and index in masks:
            truth = sample.truth[index]
            found += [dice(masks[index] == n, truth == n) for n in sorted({int(v) for v in np.unique(truth)} - {0})]
    return mean_of(found)


def _known(scores: Any) -> list[float]:
    return [value for entry in scores for value in entry if value is not None]


def _identity(job: Job, options: Options) -> rows.Row:
    return rows.identity(
        NAME,
        job.image_set,
        volume=job.volume,
        labels=1,
        draw=0,
        method=NAME,
        encoder=options.encoder,
        input_size=options.input_size,
        seconds_limit=max(options.seconds),
        device=options.device,
        preset=options.preset,
        before=options.before,
    )


def _describe(row: rows.Row) -> str:
    first = "none" if row["first_masks"] is None else f"{row['first_masks']:.1f} s"
    tables = "; ".join(
        f"{moment} s: " + " ".join("-" if value is None else f"{100 * value:.0f}" for value in values)
        for moment, values in row["dice"].items()
    )
    return f"first masks {first}; Dice at {', '.join(map(str, DISTANCES))} after {tables}"


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--sets", type=names(VOLUMES), default=list(VOLUMES), help=f"among {','.join(VOLUMES)}")
    parser.add_argument("--volumes", type=int, default=3, help="of each set, evenly over it")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=lambda text: [float(part) for part in text.split(",")], default=[2.5, 10.0])
    parser.add_argument("--before", type=float, default=10.0, help="seconds of Live before the label")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {rows.FILE}; finished rows are skipped")
    parsed = parser.parse_args(arguments)
    shown = ("sets", "volumes", "preset", "encoder", "input_size", "device", "seconds", "before")
    seconds = tuple(parsed.seconds)
    options = Options(
        parsed.data,
        parsed.encoder,
        parsed.preset,
        parsed.input_size,
        parsed.device,
        seconds,
        parsed.before,
        command_of(parsed, NAME, shown),
    )
    jobs = []
    for name in parsed.sets:
        volumes = [sample.name for sample in load_set(parsed.data, name)]
        chosen = np.unique(np.linspace(0, len(volumes) - 1, min(parsed.volumes, len(volumes))).round().astype(int))
        jobs += [Job(name, volumes[i]) for i in chosen]
    rows.measure_missing(jobs, partial(_identity, options=options), partial(measure, options), _describe, parsed.out)


if __name__ == "__main__":
    sys.exit(main(command))
