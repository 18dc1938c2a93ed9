"""`dinoaugseg simulate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_dinoaugseg.cli.numbers import parse_counts
from napari_dinoaugseg.cli.output import ProgressLine, print_json, print_text, tell
from napari_dinoaugseg.cli.segment import require_pictures
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.simulation import SimulatedRound, StrategyName, simulate
from napari_dinoaugseg.study import MaskOptions, open_study
from napari_dinoaugseg.study.study import ReadLabels


@dataclass(frozen=True)
class SimulateJob:
    """The options of `simulate`."""

    study: Path
    truth: Path
    rounds: int
    slices_per_round: str
    strategy: StrategyName
    plane: str | None
    component: int | None
    series: str | None
    weights: Path | None
    preset: str
    settings: Mapping[str, Any]
    device: str
    seed: int
    masks: MaskOptions
    cache: bool


def run_simulate(job: SimulateJob, *, as_json: bool) -> None:
    """Play the rounds and print the Dice of the slices that were not labelled."""
    counts = parse_counts(job.slices_per_round, job.rounds)
    settings = Settings.of_preset(job.preset, **job.settings)
    study = open_study(job.study, plane=job.plane, series=job.series, component=job.component, masks=job.masks)
    require_pictures(study, job.masks)
    for notice in study.notices:
        tell(f"Note: {notice}")
    truth = study.read_labels(job.truth, None)
    for notice in truth.notices if isinstance(truth, ReadLabels) else ():
        tell(f"Note: {notice}")
    session = Session(study, settings, device=job.device, weights=job.weights, cache=job.cache, say=tell)
    rounds: list[SimulatedRound] = []

    def events() -> Iterator[object]:
        for event in simulate(session, truth, counts, job.strategy, job.seed):
            if isinstance(event, SimulatedRound):
                rounds.append(event)
            yield event

    with ProgressLine().live() as line:
        line.follow(events())
    if as_json:
        print_json({"rounds": [_as_json(entry) for entry in rounds], "strategy": str(job.strategy)})
        return
    print_text(f"{'round':>5} {'slices':>6} {'Dice':>7} {'seconds':>8}  labelled")
    for number, entry in enumerate(rounds, start=1):
        mean = "-" if entry.mean_dice is None else f"{entry.mean_dice:.4f}"
        listed = ", ".join(str(index) for index in entry.labelled)
        print_text(f"{number:>5} {len(entry.labelled):>6} {mean:>7} {entry.seconds:>8.1f}  {listed}")
    print_text(f"Dice over the slices that were not labelled; strategy {job.strategy}, encoder {session.encoder_name}")


def _as_json(entry: SimulatedRound) -> dict[str, Any]:
    return {
        "labelled": entry.labelled,
        "dice": {str(number): value for number, value in entry.dice.items()},
        "mean_dice": entry.mean_dice,
        "seconds": round(entry.seconds, 3),
    }
