"""Table and picture of the simulated person.

    python -m benchmarks.person_table RESULTS [--out docs/benchmarks]

RESULTS is a results.jsonl, or a folder with several. Written are simulated_person.md, with a section for each encoder,
input size, preset and number of slices a round, and the picture that a section shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import person_brush, simulated_person
from benchmarks import rows as files
from benchmarks.harness import main
from benchmarks.rows import Row
from benchmarks.simulated_person import BY_HAND, NAME, STRATEGIES, TARGETS, seconds_until
from benchmarks.tables import different, hardware, software, table
from napari_dinoaugseg.errors import CaseError
from napari_dinoaugseg.learning.metrics import mean_of

_GOAL = (0.90, 0.1)  # a Dice, and the share of the slices of painting by hand with which it should be reached
_GROUP = ("encoder", "input_size", "preset", "labels", "max_slices", "device")
_NONE = "–"
_PANEL = (3.4, 2.9)  # inches
_COLUMNS = 3


def reach(row: Row, target: float) -> Row | None:
    """The first point of the curve with this Dice; None when it was not reached."""
    point: Row | None = next((point for point in row["curve"] if point["mean_dice"] >= target), None)
    return point


def share(row: Row, hand: Row | None, target: float, what: str) -> float | None:
    """Slices, strokes or seconds to a Dice, as a part of those of painting by hand; None = not both got there.

    Args:
        row: of the person with the program.
        hand: of painting the same volume by hand, if there is such a row.
        target: the Dice.
        what: "slices", "strokes" or "seconds".
    """
    own, other = amount(row, target, what), amount(hand, target, what) if hand else None
    return own / other if own is not None and other else None


def amount(row: Row, target: float, what: str) -> float | None:
    """Slices, strokes or seconds to a Dice; None when it was not reached."""
    point = reach(row, target)
    if point is None:
        return None
    return seconds_until(row, point) if what == "seconds" else float(point[what])


def write(rows: Sequence[Row], out: Path) -> Path:
    """Write Markdown and pictures; returns the Markdown file."""
    own = [row for row in rows if row["benchmark"] == NAME]
    if not own:
        msg = "There is no row of the simulated person among these results. Run benchmarks.simulated_person first."
        raise CaseError(msg)
    out.mkdir(parents=True, exist_ok=True)
    parts = ["# A simulated person", *_about(simulated_person), "## How a slice is corrected", *_about(person_brush)]
    for key in sorted({_key(row) for row in own}):
        group = [row for row in own if _key(row) == key]
        picture = out / f"{NAME}-{'-'.join(key)}.png"
        _plot(group, picture)
        parts += [*section(group), f"![Dice against slices touched]({picture.name})"]
    path = out / f"{NAME}.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def section(rows: Sequence[Row]) -> list[str]:
    """Paragraphs and tables of comparable rows."""
    first = rows[0]
    heading = f"{first['encoder']}, {first['input_size']} pixels, preset {first['preset']}"
    words = (
        f"Means over volumes and draws; the shares are of painting the same volume by hand. {_NONE}: not reached in "
        f"{first['max_slices']} slices; (1 of 2): reached by one of two, and the mean is that of this one."
    )
    parts = [f"## {heading}, {first['labels']} a round, on {first['device']}", _head(rows), *_goal(rows), words]
    for what in ("slices", "strokes", "seconds"):
        parts += [f"### {what.capitalize()}", _counts(rows, what)]
    return [*parts, "### Rounds", *_rounds(rows)]


def _about(module: Any) -> list[str]:
    """What a module says of the person, without its first line and the commands."""
    paragraphs = str(module.__doc__).strip().split("\n\n")[1:]
    return [text.replace("\n", " ") for text in paragraphs if "python -m" not in text]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in _GROUP)


def _head(rows: Sequence[Row]) -> str:
    hours = sum(point["seconds"].get("all", 0.0) for row in rows for point in row["curve"]) / 3600
    items = [
        "Data: " + "; ".join(_data([row for row in rows if row["set"] == name]) for name in _sets(rows)),
        f"Runs: {len(rows)}, draws: {len({row['draw'] for row in rows})}, {hours:.2f} h of training and prediction",
        "Hardware: " + "; ".join(different(hardware(row) for row in rows)),
        f"Software: {software(rows)}",
        "Commands: " + "; ".join(f"`{text}`" for text in different(row["command"] for row in rows)),
        "Table: `python -m benchmarks.person_table OUT`",
    ]
    return "\n".join(f"- {item}" for item in items)


def _data(rows: Sequence[Row]) -> str:
    volumes = {row["volume"]: f"{row['volume']}, {row['holding']} of {row['n_slices']} slices hold it" for row in rows}
    return f"{rows[0]['set']} ({rows[0]['about']}: {', '.join(rows[0]['classes'])}; {'; '.join(volumes.values())})"


def _sets(rows: Iterable[Row]) -> list[str]:
    return different(row["set"] for row in rows)


def _of(rows: Iterable[Row], strategy: str) -> list[Row]:
    return [row for row in rows if row["method"] == strategy]


def _by_volume(rows: Iterable[Row], strategy: str) -> dict[tuple[str, str], Row]:
    return {(row["set"], row["volume"]): row for row in _of(rows, strategy)}


def _goal(rows: Sequence[Row]) -> list[str]:
    """How often the program kept to the goal; only where painting by hand was measured."""
    hand = _by_volume(rows, BY_HAND[0])
    dice, most = _GOAL
    parts = []
    for strategy in (name for name in STRATEGIES if name not in BY_HAND):
        own = [row for row in _of(rows, strategy) if (row["set"], row["volume"]) in hand]
        shares = [share(row, hand[row["set"], row["volume"]], dice, "slices") for row in own]
        met = sum(value is not None and value <= most for value in shares)
        parts += [f"{strategy} {met} of {len(own)}"] if own else []
    words = f"Runs that reach {dice:.2f} with at most {100 * most:.0f} % of the slices that painting by hand takes: "
    return [words + ", ".join(parts) + "."] if parts else []


def _counts(rows: Sequence[Row], what: str) -> str:
    """A line for each set and strategy: how many to each target, and which part of painting by hand this is."""
    hands = {name: _by_volume(rows, name) for name in BY_HAND}
    head = ["set", "strategy"]
    for target in TARGETS:
        head += [f"to {target:.2f}", *(f"of {name}, %" for name in BY_HAND)]
    lines = []
    for name, strategy, own in _places(rows):
        line = [name, strategy]
        for target in TARGETS:
            line.append(_mean([amount(row, target, what) for row in own], "{:.1f}"))
            for hand in hands.values():
                shares = [share(row, hand.get((name, row["volume"])), target, what) for row in own]
                line.append(_mean([None if value is None else 100 * value for value in shares], "{:.0f}"))
        lines.append(line)
    return table(head, lines)


def _rounds(rows: Sequence[Row]) -> list[str]:
    columns: list[tuple[str, Callable[[Row], float | None], str]] = [
        ("slices touched", lambda row: row["curve"][-1]["slices"], "{:.1f}"),
        ("without a stroke", lambda row: row["curve"][-1]["slices"] - row["curve"][-1]["painted"], "{:.1f}"),
        ("strokes", lambda row: row["curve"][-1]["strokes"], "{:.0f}"),
        ("Dice, %", lambda row: 100 * row["mean_dice"], "{:.1f}"),
        ("worst class, %", lambda row: 100 * min(row["curve"][-1]["dice"]), "{:.1f}"),
        ("seconds a round", lambda row: mean_of(p["seconds"].get("all") for p in row["curve"]), "{:.1f}"),
    ]
    lines = [
        [name, strategy, *(_mean([value(row) for row in own], form) for _, value, form in columns)]
        for name, strategy, own in _places(rows)
    ]
    words = (
        f"At the end, which is the first round with {TARGETS[-1]:.2f}, or the last. Seconds of a round are those of "
        "waiting: from the press on Train to the last mask, with the encoding of what was not in the cache; with Live "
        "from the label to the mask of the next slice."
    )
    return [words, table(["set", "strategy", *(name for name, _, _ in columns)], lines)]


def _places(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """Set, strategy and their rows, where there are any."""
    every = [(name, strategy) for name in _sets(rows) for strategy in STRATEGIES]
    found = [(name, strategy, [r for r in _of(rows, strategy) if r["set"] == name]) for name, strategy in every]
    return [place for place in found if place[2]]


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return _NONE
    return form.format(np.mean(known)) + (f" ({len(known)} of {len(values)})" if len(known) < len(values) else "")


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Dice against slices touched, a panel for each set and a line for each run."""
    from matplotlib.figure import Figure  # without pyplot no window system is asked for

    sets = _sets(rows)
    columns = min(_COLUMNS, len(sets))
    lines = -(-len(sets) // columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * lines + 0.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    for axis in axes[len(sets) :]:
        axis.remove()
    shown: dict[str, Any] = {}
    for axis, name in zip(axes, sets, strict=False):
        shown.update(_panel(axis, [row for row in rows if row["set"] == name]))
        axis.set_title(name)
    axes[0].set_ylabel("Dice, %")
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=2 * columns, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axis: Any, rows: Sequence[Row]) -> dict[str, Any]:
    """Draw the runs of a set; returns a line for each strategy."""
    shown = {}
    for number, strategy in enumerate(STRATEGIES):
        for row in _of(rows, strategy):
            slices = [point["slices"] for point in row["curve"]]
            dice = [100 * point["mean_dice"] for point in row["curve"]]
            (shown[strategy],) = axis.plot(slices, dice, marker=".", color=f"C{number}", alpha=0.8)
    for target in TARGETS:
        axis.axhline(100 * target, color="grey", linewidth=0.8, linestyle=":")
    axis.set_xscale("log")  # a tenth of the slices is as far to the left everywhere
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")  # they would overlap
    axis.set_xlabel("slices touched")
    axis.set_ylim(0, 100)
    axis.grid(alpha=0.3)
    return shown


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parsed = parser.parse_args(arguments)
    print(write(files.read(parsed.results), parsed.out))


if __name__ == "__main__":
    sys.exit(main(command))
