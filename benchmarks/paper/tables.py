"""The table of a run, its head that lists the differences from the paper, and the same as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.paper import published
from benchmarks.paper.draws import Draw
from benchmarks.paper.protocols import Protocol
from benchmarks.paper.runs import Result, protocol_settings
from benchmarks.paper.sources import DataSet, groups_of
from napari_dinoaugseg.learning.settings import Settings

MEASURES = {"dice": 100.0, "hd95": 1.0}
"""Factor from a score to the unit of the table: Dice in percent, HD95 in voxels."""

HOW_COUNTED = (
    "Mean over test cases, then over classes; ± is the standard deviation over random draws. Slices are predicted one "
    "by one, masks compared at their own size.\nHD95 in voxels, both directions taken together; 100 where only one "
    "mask has the class."
)


@dataclass(frozen=True)
class Cell:
    """One figure beside the paper's.

    Attributes:
        mean: over random draws.
        deviation: over random draws; None when there is only one.
        paper: None where it was not published.
    """

    mean: float
    deviation: float | None
    paper: float | None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else self.mean - self.paper


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        dataset: its name on the command line.
        protocol: the experiment.
        data: what lies in the folder.
        settings: of the training.
        shots: how many samples were labelled.
        results: of the random draws.
        authors: of the authors' draw; None without it.
        why_not: why the authors' draw was not repeated.
    """

    dataset: str
    protocol: Protocol
    data: DataSet
    settings: Settings
    shots: int
    results: Sequence[Result]
    authors: Result | None
    why_not: str

    @property
    def paper_shots(self) -> int:
        """Shots of the paper's figures."""
        return self.protocol.nearest(self.shots)

    @property
    def higher(self) -> Mapping[str, float]:
        """Mean Dice of other methods, in percent, that is higher than the paper's; as reported second hand."""
        return self.protocol.figures[self.paper_shots].higher

    def cell(self, number: int | None, measure: str) -> Cell:
        """A figure of a class; of None, the mean over classes."""
        values = [value_of(result, number, measure) for result in self.results]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return Cell(float(np.mean(values)), deviation, self._paper(number, measure))

    def differences(self) -> list[str]:
        """How this differs from the paper's experiment."""
        first, settings, volumes = self.results[0], self.settings, self.protocol.unit == "volume"
        every = [
            (first.encoder != published.ENCODER, f"encoder {first.encoder}, not {published.ENCODER}"),
            (
                first.input_size != published.INPUT_SIZE,
                f"slices at {_square(first.input_size)}, not {_square(published.INPUT_SIZE)}",
            ),
            (
                settings.preset != "paper",
                f"preset {settings.preset}: {first.steps} steps of {settings.batch_size} slices, {settings.views} "
                "augmented views a slice, decoder, class weights and optimiser of its own; not "
                f"{published.PASSES} passes of batch {published.BATCH} without views",
            ),
            *_recipe_differences(settings, volumes=volumes),
            (
                first.context > 0,
                f"slices seen with those {first.context} before and after, and masks smoothed between slices, not each "
                "slice by itself",
            ),
            (bool(self._changed()), f"settings changed: {self._changed()}"),
            (
                self.shots != self.paper_shots,
                f"{_counted(self.shots, 'shot')}; the paper's figures are of {self.paper_shots}",
            ),
            (self._fewer_tested(), self._tested()),
            (not self.data.papers_split, f"tested on {self.data.split}"),
            (
                volumes,
                "every slice of a shot is shown equally often, not one random slice of each volume a pass",
            ),
            (
                settings.preset == "paper" and self.shots % settings.batch_size > 0,
                f"every batch has {settings.batch_size} slices, not fewer at the end of a pass",
            ),
            (
                self.dataset != "acdc",
                "the authors' training code is public for ACDC only; its recipe is taken for theirs here",
            ),
            (bool(self._same_shots()), self._same_shots()),
            (bool(self.why_not), self.why_not),
        ]
        return [text for holds, text in every if holds]

    def _changed(self) -> str:
        """Settings that are not those of the preset; encoder, size and what `_recipe_differences` names aside."""
        preset = protocol_settings(self.settings.preset, self.shots).model_dump()
        listed = ("encoder", "input_size", "seed", "scaling", "dice", "clip_gradient", "precision", "resize")
        values = {name: value for name, value in self.settings.model_dump().items() if name not in listed}
        return ", ".join(f"{name}={value}" for name, value in values.items() if value != preset[name])

    def _fewer_tested(self) -> bool:
        return self.protocol.test_groups != len(groups_of(self.results[0].draw.test))

    def _tested(self) -> str:
        here = _counted(len(groups_of(self.results[0].draw.test)), f"test {self.protocol.group}")
        paper = "" if self.protocol.test_groups is None else f", not {self.protocol.test_groups}"
        return here + paper

    def _same_shots(self) -> str:
        """Which draws label the same samples, as happens where there is little to draw from."""
        names = [frozenset(source.name for source in result.draw.shots) for result in self.results]
        repeated = [
            result.draw.name for result, shots in zip(self.results, names, strict=True) if names.count(shots) > 1
        ]
        if not repeated:
            return ""
        return f"draws {', '.join(repeated)} label the same cases as another, and differ in the training's seed"

    def _paper(self, number: int | None, measure: str) -> float | None:
        figures = self.protocol.figures[self.paper_shots]
        whole, of_class = {"dice": (figures.dice, figures.dice_of), "hd95": (figures.hd95, figures.hd95_of)}[measure]
        # The mean of one class is that class.
        return whole if number is None or len(self.protocol.classes) == 1 else of_class.get(number)


def _recipe_differences(settings: Settings, *, volumes: bool) -> list[tuple[bool, str]]:
    """In what input, loss and masks are computed otherwise than the authors do: whether it holds, and its words."""
    whole = "grey values scaled for each volume" if volumes else "pictures as they are"
    steps = "steps in bfloat16" + (" where the device has it" if settings.precision == "auto" else "")
    clipped = f"gradients clipped at a norm of {settings.clip_gradient}"
    return [
        (settings.scaling != "slice", f"{whole}, not each slice from its least to its greatest value"),
        (settings.mirrors and not volumes, "pictures predicted mirrored as well"),
        (settings.dice != "sums", "squared probabilities below in the Dice loss, not plain ones"),
        (settings.clip_gradient is not None, f"{clipped}, not left as they are"),
        (settings.precision != "float32", f"{steps} and features kept in half precision, not all in single"),
        (settings.resize != "nearest", "classes chosen at the slices' own size, not before the mask is resized"),
    ]


def value_of(result: Result, number: int | None, measure: str) -> float:
    """A figure of one draw in the unit of the table; of None, the mean over classes."""
    numbers = list(next(iter(result.scores.values()))) if number is None else [number]
    return MEASURES[measure] * float(np.mean([result.mean(one, measure) for one in numbers]))


def as_text(report: Report) -> str:
    """The table with its head."""
    protocol, first = report.protocol, report.results[0]
    rows: list[tuple[int | None, str]] = [*protocol.classes.items()]
    rows += [(None, "mean")] if len(rows) > 1 else []
    lines = [
        f"{protocol.title}, {_counted(report.shots, 'shot')} ({_counted(first.labelled, 'labelled slice')} in draw 1), "
        f"{_counted(len(report.results), 'random draw')}, on {first.device}",
        f"data: {report.data.layout}" + "".join(f"; {notice}" for notice in report.data.notices),
        "not as in the paper:",
        *(f"  - {text}" for text in report.differences()),
        HOW_COUNTED,
        "",
        f"{'':<18}{'Dice %':>16}{'paper':>8}{'diff':>8}{'HD95':>18}{'paper':>8}{'diff':>8}",
        *(
            f"{name:<18}{_cells(report.cell(number, 'dice'), 14)}{_cells(report.cell(number, 'hd95'), 16)}"
            for number, name in rows
        ),
        *_higher(report),
        "",
        *(_line(f"draw {result.draw.name}", result) for result in report.results),
        *([] if report.authors is None else [_line("authors' draw", report.authors)]),
    ]
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """All of it: figures, differences, and the scores of every test sample in every draw."""
    protocol = report.protocol
    names: dict[int | None, str] = {**protocol.classes, None: "mean"}
    first = report.results[0]
    figures = {measure: {name: report.cell(number, measure) for number, name in names.items()} for measure in MEASURES}
    return {
        "dataset": report.dataset,
        "shots": report.shots,
        "paper_shots": report.paper_shots,
        "encoder": first.encoder,
        "device": first.device,
        "settings": report.settings.model_dump(mode="json"),
        "layout": report.data.layout,
        "notices": report.data.notices,
        "differences": report.differences(),
        "counted": HOW_COUNTED,
        "figures": {
            measure: {name: asdict(cell) | {"difference": cell.difference} for name, cell in cells.items()}
            for measure, cells in figures.items()
        },
        "higher": dict(report.higher),
        "draws": [_draw_json(result, protocol) for result in [*report.results, *filter(None, [report.authors])]],
    }


def names_of(draw: Draw) -> str:
    """The groups of the shots, for reading: few of them in full."""
    groups = groups_of(draw.shots)
    return ", ".join(groups) if len(groups) <= 10 else f"{', '.join(groups[:10])} and {len(groups) - 10} more"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _square(side: int) -> str:
    return f"{side} x {side}"


def _higher(report: Report) -> list[str]:
    """A line for each method that is above the paper's figure."""
    ours = report.cell(None, "dice").mean
    return [
        f"higher than the paper, as reported second hand: {name}, mean Dice {dice:.2f} (ours {ours - dice:+.2f})"
        for name, dice in report.higher.items()
    ]


def _cells(cell: Cell, width: int) -> str:
    ours = f"{cell.mean:.2f}" + ("" if cell.deviation is None else f" ± {cell.deviation:.2f}")
    paper = "-" if cell.paper is None else f"{cell.paper:.2f}"
    difference = "-" if cell.difference is None else f"{cell.difference:+.2f}"
    return f"{ours:>{width}}{paper:>8}{difference:>8}"


def _line(title: str, result: Result) -> str:
    seconds = result.seconds
    spent = ", ".join(f"{name} {seconds[name]:.0f}" for name in ("encode", "train", "predict"))
    return (
        f"{title}: Dice {value_of(result, None, 'dice'):.2f}, HD95 {value_of(result, None, 'hd95'):.2f}, "
        f"{seconds['total']:.0f} s ({spent}); {names_of(result.draw)}"
    )


def _draw_json(result: Result, protocol: Protocol) -> dict[str, Any]:
    names: dict[int | None, str] = {**protocol.classes, None: "mean"}
    return {
        "draw": result.draw.name,
        "seed": result.draw.seed,
        "shots": [source.name for source in result.draw.shots],
        "labelled_slices": result.labelled,
        "steps": result.steps,
        "input_size": result.input_size,
        "context": result.context,
        "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        **{measure: {name: value_of(result, n, measure) for n, name in names.items()} for measure in MEASURES},
        "cases": {
            sample: {names[n]: {"dice": one.dice, "hd95": one.hd95} for n, one in of_case.items()}
            for sample, of_case in result.scores.items()
        },
    }
