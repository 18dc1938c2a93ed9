"""A simulated person who labels one slice, trains, corrects the slices that are suggested, and trains again.

    python -m benchmarks.simulated_person --data FOLDER --out RESULTS [--sets …] [--volumes 1] [--draws 1]
        [--strategies suggested,even,random,completion,live,by_hand,by_hand_largest] [--per-round 1]
        [--max-slices 20] [--preset …]

Counted are the slices that the person touches, the strokes that they make and the seconds that pass, until the mask
that they would export has a Dice of 0.90 and of 0.95: over the whole volume, each class by itself and then their mean.
In that mask the touched slices are as the person left them and the others as predicted. The session is the program's
own. A stroke takes the hand 1.5 s, and the step to a slice 1 s; waiting for the program takes what it takes here.

The first slice is the middle one of those that hold the structure, painted from nothing. After that a strategy chooses:
`suggested` what the program suggests, `even` the middle of the largest gap, `random` any slice. A slice is corrected as
`benchmarks.person_brush` defines; one that is right already is accepted, and is touched but takes no stroke.

`completion` is `suggested` with one more tool: a slice is corrected with the brush, or labelled from nothing by strokes
that the program completes (`benchmarks.person_scribble`), whichever takes fewer; a practised person knows which.
`live` is the same without Train: the program learns while the hand draws, and the person waits only until the slice
that is suggested next shows a mask. Waiting and drawing happen in real time there.

`by_hand` is the person without the program, who paints each slice that holds the structure from nothing, first to last;
`by_hand_largest` begins with the slices that hold the most of it, as if that were known beforehand: about the fewest
slices in which painting alone can reach the same.

`python -m benchmarks.person_table RESULTS` makes the table and the picture.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks import rows
from benchmarks.cases import SampleCases, engine_with
from benchmarks.harness import Job, add_common_arguments, command_of, machine, main, names
from benchmarks.live import LiveRun
from benchmarks.methods.problem import raise_on_notice
from benchmarks.one_volume import VOLUMES, holding
from benchmarks.person_brush import Correction, correct
from benchmarks.person_scribble import scribble
from benchmarks.samples import SETS, Sample, load_set
from napari_dinoaugseg.case import Case
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.learning.events import Event
from napari_dinoaugseg.learning.fallback import choose_device
from napari_dinoaugseg.learning.settings import PRESETS, Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.evaluation import StrategyName, first_slices, next_slices
from napari_dinoaugseg.session.labels import classes_of
from napari_dinoaugseg.session.session import Session

NAME = "simulated_person"
TARGETS = (0.90, 0.95)
"""Mean Dice over the volume; at the last one the person stops."""

BY_HAND = ("by_hand", "by_hand_largest")
WITH_TOOLS = ("completion", "live")
STRATEGIES = ("suggested", "even", "random", *WITH_TOOLS, *BY_HAND)
STROKE_SECONDS, STEP_SECONDS = 1.5, 1.0
"""What a stroke and the step to a slice take the hand."""

_PATIENCE = 30.0  # seconds until the person goes on without a mask


@dataclass(frozen=True)
class PersonOptions:
    """What all jobs of a run have in common.

    Attributes:
        data: folder of the sets.
        encoder: its name.
        weights: file with its weights, or None.
        input_size: side of the square that slices are resized to.
        preset: how the program learns.
        max_slices: after which the person gives up; painting by hand goes on to the last.
        device: "cpu", "cuda", …
        cache: folder for features.
        command: as it can be given again.
    """

    data: Path
    encoder: str
    weights: Path | None
    input_size: int
    preset: str
    max_slices: int
    device: str
    cache: Path
    command: str


class VolumeDice:
    """Dice of each class over a volume, kept up to date slice by slice. At first all of it is background.

    Args:
        truth: (H, W) class numbers for each slice.
        numbers: of the classes.
    """

    def __init__(self, truth: Sequence[NDArray[np.integer]], numbers: Sequence[int]) -> None:
        self._truth, self.numbers = truth, list(numbers)
        self._true = np.array([[np.count_nonzero(labels == n) for n in numbers] for labels in truth])
        self._found, self._both = np.zeros_like(self._true), np.zeros_like(self._true)  # (slice, class) pixels

    def set(self, index: int, labels: NDArray[np.integer]) -> None:
        """Take what a slice holds now, (H, W)."""
        truth = self._truth[index]
        self._found[index] = [np.count_nonzero(labels == n) for n in self.numbers]
        self._both[index] = [np.count_nonzero((labels == n) & (truth == n)) for n in self.numbers]

    @property
    def values(self) -> list[float]:
        """0 to 1, in the order of the numbers."""
        size = self._found.sum(axis=0) + self._true.sum(axis=0)
        return [float(value) for value in 2 * self._both.sum(axis=0) / size]


Hand = Callable[[int, NDArray[np.integer], NDArray[np.integer]], Correction]


def hand_with_completion(shown: Callable[[int], NDArray[Any]]) -> Hand:
    """A hand that takes the brush or strokes that are completed; ``shown`` gives the image of a slice."""

    def label(index: int, found: NDArray[np.integer], truth: NDArray[np.integer]) -> Correction:
        brushed = correct(found, truth)
        if not brushed.strokes or not truth.any():
            return brushed
        return min(brushed, scribble(shown(index), truth, index), key=lambda correction: correction.strokes)

    return label


@dataclass
class Work:
    """What the person did on a volume so far, and what came of it.

    Attributes:
        sample: the volume.
        dice: of what would be exported now.
        target: the mean Dice at which the person stops.
        hand: labels a slice, given its number, what it holds, and its truth, (H, W) class numbers both.
        touched: strokes by slice, in the order in which they came.
        curve: see `note`.
    """

    sample: Sample
    dice: VolumeDice
    target: float = TARGETS[-1]
    hand: Hand = lambda _, found, truth: correct(found, truth)
    touched: dict[int, int] = field(default_factory=dict)
    curve: list[rows.Row] = field(default_factory=list)

    @property
    def mean_dice(self) -> float:
        """Mean over the classes."""
        return float(np.mean(self.dice.values))

    @property
    def is_done(self) -> bool:
        """Whether the target is reached."""
        return self.mean_dice >= self.target

    def correct(self, index: int, found: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Label a slice that holds this now, (H, W) class numbers, and count it; returns what it then holds."""
        correction = self.hand(index, found, self.sample.truth[index])
        self.touched[index] = correction.strokes
        self.dice.set(index, correction.labels)
        return correction.labels

    def look(self, session: Session) -> None:
        """Take the masks of the slices that are not labelled in the session."""
        for index in session.labels.open_slices:
            self.dice.set(index, session.labels.result(index))

    def note(self, seconds: dict[str, float]) -> None:
        """Add a point to the curve: slices touched, slices painted, strokes, Dice, seconds of this round."""
        self.curve.append(
            {
                "slices": len(self.touched),
                "painted": sum(strokes > 0 for strokes in self.touched.values()),
                "strokes": sum(self.touched.values()),
                "dice": [round(value, 6) for value in self.dice.values],
                "mean_dice": round(self.mean_dice, 6),
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
            }
        )


def paint_by_hand(work: Work, *, largest_first: bool) -> None:
    """Paint slice by slice from nothing."""
    order = holding(work.sample)
    if largest_first:
        order.sort(key=lambda index: -np.count_nonzero(work.sample.truth[index]))
    for index in order:
        work.correct(index, np.zeros(work.sample.truth[index].shape, np.uint16))
        work.note({})
        if work.is_done:
            return


def annotate(
    work: Work,
    session: Session,
    strategy: StrategyName,
    *,
    per_round: int,
    max_slices: int,
    seed: int = 0,
    train: Callable[[], Iterable[Event]] | None = None,
    after_training: Callable[[], object] = lambda: None,
) -> None:
    """Paint a slice, train, correct the next slices, train, and so on. With a model, begin by correcting its masks.

    Args:
        work: where to count; its volume is the session's case.
        session: without labels; a model that is loaded predicts first.
        strategy: chooses the slices after the first.
        per_round: slices corrected before each training but the first.
        max_slices: after which the person gives up.
        seed: of the strategy.
        train: the session on the labels so far; None = on its own.
        after_training: is called when the new masks are there.
    """
    random = np.random.default_rng(seed)
    if session.is_trained:
        for _ in session.predict(report=raise_on_notice):
            pass
        work.look(session)
        chosen = [] if work.is_done else next_slices(session, 1, strategy, random)
    else:
        session.labels.replace_classes(classes_of(work.dice.numbers))
        chosen = first_slices(holding(work.sample), 1, "even", random)
    while chosen:
        for index in chosen:
            touch(work, session, index)
        work.note(_learn(work, session, chosen[0], train or session.train))
        after_training()
        left = min(per_round, max_slices - len(work.touched))
        chosen = [] if work.is_done or left < 1 else next_slices(session, left, strategy, random)


def touch(work: Work, session: Session, index: int) -> None:
    """Correct a slice in the session; its prediction is accepted where there is nothing to correct."""
    _give(work, session, index, work.correct(index, session.labels.result(index)))


def _give(work: Work, session: Session, index: int, labels: NDArray[np.uint16]) -> None:
    """Label a slice in the session as the person left it."""
    if work.touched[index] or session.labels.predicted(index) is None:
        session.paint(index, labels)
    else:
        session.labels.accept(index)


def annotate_live(work: Work, session: Session, *, max_slices: int) -> None:
    """Label a slice, go on to the one that is suggested as soon as it shows a mask, label it, and so on.

    Args:
        work: where to count; its volume is the session's case.
        session: without labels and without a model.
        max_slices: after which the person gives up.
    """
    session.labels.replace_classes(classes_of(work.dice.numbers))
    (index,) = first_slices(holding(work.sample), 1, "even", np.random.default_rng(0))
    run = LiveRun(session)
    try:
        run.show(index)  # a case that is opened: its slices are encoded around the one in view
        while True:
            began = time.monotonic()
            labels = work.correct(index, session.labels.result(index))
            drawing = hand_seconds(work.touched[index], 1)
            time.sleep(max(0.0, began + drawing - time.monotonic()))
            _give(work, session, index, labels)
            asked = time.monotonic()
            _take_masks(run, session)
            following = next_slices(session, 1, "suggested", np.random.default_rng(0))
            if following:
                run.show(following[0])
                while run.when.get(following[0], 0.0) < asked and time.monotonic() < asked + _PATIENCE:
                    run.check()
                    time.sleep(0.01)
            _take_masks(run, session)
            work.look(session)
            work.note({"all": time.monotonic() - asked})
            if work.is_done or len(work.touched) >= max_slices or not following:
                return
            index = following[0]
    finally:
        run.end()


def _take_masks(run: LiveRun, session: Session) -> None:
    open_slices = set(session.labels.open_slices)
    for found in list(run.masks.values()):
        if found.index in open_slices:
            session.store_prediction(found)


def hand_seconds(strokes: int, slices: int) -> float:
    """Seconds that the hand takes for strokes and steps."""
    return STROKE_SECONDS * strokes + STEP_SECONDS * slices


def _learn(work: Work, session: Session, centre: int, train: Callable[[], Iterable[Event]]) -> dict[str, float]:
    """Train and predict as the program does, and score what it predicted; returns the seconds of each stage."""
    started = time.monotonic()
    for event in train():
        raise_on_notice(event)
    for _ in session.predict(centre, report=raise_on_notice):
        pass
    seconds = {**session.seconds, "all": time.monotonic() - started}
    work.look(session)
    return seconds


def class_numbers(sample: Sample) -> list[int]:
    """The classes that a volume holds."""
    return sorted({int(value) for truth in sample.truth for value in np.unique(truth)} - {0})


@lru_cache(maxsize=1)
def _load(data: Path, name: str) -> list[Sample]:
    return sorted(load_set(data, name), key=lambda sample: sample.name)


def jobs_of(
    sets: Sequence[str], volumes: int, draws: int, strategies: Sequence[str], per_round: int, data: Path
) -> list[Job]:
    """All jobs, volume by volume; volumes lie evenly over the names. There is one draw only of painting by hand."""
    jobs = []
    for name in sets:
        samples = _load(data, name)
        for place in np.linspace(0, len(samples) - 1, min(volumes, len(samples))).round().astype(int):
            jobs += [
                Job(NAME, name, samples[place].name, per_round, draw, strategy)
                for draw in range(draws)
                for strategy in strategies
                if draw == 0 or strategy not in BY_HAND
            ]
    return jobs


def identity(job: Job, options: PersonOptions) -> rows.Row:
    """What a job's row is known by."""
    return rows.identity(
        job.benchmark,
        job.image_set,
        volume=job.volume,
        labels=job.labels,
        draw=job.draw,
        method=job.method,
        encoder=options.encoder,
        input_size=options.input_size,
        device=options.device,
        preset=options.preset,
        max_slices=options.max_slices,
    )


def measure(options: PersonOptions, job: Job) -> rows.Row:
    """Let the person work on a volume; returns the row."""
    sample = next(sample for sample in _load(options.data, job.image_set) if sample.name == job.volume)
    numbers = class_numbers(sample)
    work = Work(sample, VolumeDice(sample.truth, numbers))
    if job.method in BY_HAND:
        paint_by_hand(work, largest_first=job.method == "by_hand_largest")
    else:
        opened = SampleCases([sample])  # its file is there as long as this is
        session = _session(opened.cases[0], job.draw, options)
        if job.method in WITH_TOOLS:
            work.hand = hand_with_completion(opened.shown)
        if job.method == "live":
            annotate_live(work, session, max_slices=options.max_slices)
        else:
            strategy = "suggested" if job.method == "completion" else cast(StrategyName, job.method)
            annotate(work, session, strategy, per_round=job.labels, max_slices=options.max_slices, seed=job.draw)
    image_set = SETS[job.image_set]
    return {
        **identity(job, options),
        "mean_dice": work.curve[-1]["mean_dice"],
        "curve": work.curve,
        "touched": list(work.touched.items()),
        "n_slices": sample.n_slices,
        "holding": len(holding(sample)),
        "classes": [image_set.classes[number - 1] for number in numbers],
        "about": image_set.about,
        "command": options.command,
        **machine(),
    }


def _session(case: Case, seed: int, options: PersonOptions) -> Session:
    settings = Settings.of_preset(options.preset, encoder=options.encoder, input_size=options.input_size, seed=seed)
    config = ComputeConfig(options.device, options.weights)
    return Session(case, settings, config, make_compute=engine_with(options.cache))


def _progress(row: rows.Row) -> str:
    last = row["curve"][-1]
    seconds = seconds_until(row, last)
    return (
        f"Dice {100 * row['mean_dice']:.1f} after {last['slices']} slices, {last['strokes']} strokes, {seconds:.0f} s"
    )


def seconds_until(row: rows.Row, point: rows.Row) -> float:
    """Seconds of the hand and of waiting until a point of the curve of a row."""
    waited = sum(p["seconds"].get("all", 0.0) for p in row["curve"] if p["slices"] <= point["slices"])
    return float(waited + hand_seconds(point["strokes"], point["slices"]))


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, VOLUMES)
    parser.set_defaults(draws=1)
    parser.add_argument("--strategies", type=names(STRATEGIES), default=list(STRATEGIES), help="default: all")
    parser.add_argument("--volumes", type=int, default=1, help="of each set, evenly over the names")
    parser.add_argument("--per-round", type=int, default=1, help="slices corrected before each training")
    parser.add_argument("--max-slices", type=int, default=20, help="after which the person gives up")
    parser.add_argument("--preset", choices=list(PRESETS), default="balanced")
    parsed = parser.parse_args(arguments)
    if min(parsed.draws, parsed.jobs, parsed.volumes, parsed.per_round, parsed.max_slices) < 1:
        msg = "--draws, --jobs, --volumes, --per-round and --max-slices must be at least 1."
        raise SettingsError(msg)
    shown = ("sets", "volumes", "draws", "strategies", "per_round", "max_slices", "preset", "encoder", "input_size")
    options = PersonOptions(
        data=parsed.data,
        encoder=parsed.encoder,
        weights=parsed.weights,
        input_size=parsed.input_size,
        preset=parsed.preset,
        max_slices=parsed.max_slices,
        device=str(choose_device(parsed.device)),
        cache=parsed.cache or parsed.out / "cache",
        command=command_of(parsed, NAME, (*shown, "device")),
    )
    jobs = jobs_of(parsed.sets, parsed.volumes, parsed.draws, parsed.strategies, parsed.per_round, parsed.data)
    known_by, one = partial(identity, options=options), partial(measure, options)
    rows.measure_missing(jobs, known_by, one, _progress, parsed.out, parsed.jobs)


if __name__ == "__main__":
    sys.exit(main(command))
