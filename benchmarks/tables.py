"""Tables and pictures of whatever results there are.

    python -m benchmarks.tables RESULTS [--out docs/benchmarks]

RESULTS is a results.jsonl, or a folder with several. One Markdown file is written for each benchmark, with a section
for each encoder, input size and limit of time, and the pictures that it shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rows as files
from benchmarks.comparison import (
    POOR,
    Difference,
    Place,
    Values,
    auroc_of_poor_slices,
    by_draw,
    compare,
    expected_calibration_error,
    mean_and_deviation,
    mean_hd95,
    missing_hd95,
    pairs_of,
    seconds_to_masks,
)
from benchmarks.harness import main
from benchmarks.methods import METHODS, REFERENCE
from benchmarks.plots import plot
from benchmarks.rows import Row

_PRESETS = ("balanced", "fast", "paper")
_TITLES = {"few_shot": "A few labelled cases", "one_volume": "A few labelled slices of one volume"}
_WORDS = {
    "few_shot": (
        "A shot is a labelled picture; in sets of volumes it is a whole labelled volume. Dice is measured for each "
        "case and class at the native size, then averaged over cases and classes."
    ),
    "one_volume": (
        "Some slices of a volume are labelled, evenly over those that hold the structure; Dice of each class over all "
        "its other slices together, averaged over classes and volumes."
    ),
}


def write(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write Markdown and pictures; returns the Markdown files."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for benchmark in sorted({row["benchmark"] for row in rows} & _TITLES.keys()):  # others have tables of their own
        own = [row for row in rows if row["benchmark"] == benchmark]
        parts = [f"# {_TITLES[benchmark]}", _WORDS[benchmark]]
        for group in _groups(own):
            slug = _slug(group[0])
            pictures = plot(group, out, slug)
            parts += [*section(group), *(f"![{picture.stem}]({picture.name})" for picture in pictures)]
        path = out / f"{benchmark}.md"
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        written.append(path)
    return written


def section(rows: Sequence[Row]) -> list[str]:
    """Paragraphs and tables of comparable rows."""
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    dice = by_draw(rows, lambda row: 100 * row["mean_dice"])
    parts = [f"## {_heading(rows[0])}", *_head(rows, methods)]
    parts += ["### Dice, %", "Mean ± standard deviation over draws.", _means(dice, methods, "{:.1f}")]
    if REFERENCE in methods and len(methods) > 1:
        parts += [f"### Difference to {REFERENCE}, points of Dice", *_differences(dice, methods)]
    parts += ["### HD95", _about_hd95(rows), _means(by_draw(rows, mean_hd95), methods, "{:.1f}")]
    parts += ["### Time and steps", *_effort(rows, methods)]
    presets = [name for name in _PRESETS if name in methods]
    if presets:
        parts += ["### Is the confidence honest?", *_confidence(rows, presets)]
    return parts


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    rule = [":--", *("--:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that may be compared: of one encoder, input size, limit of time, device and test."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("encoder", "input_size", "seconds_limit", "device", "test"))
        groups.setdefault(key, []).append(row)
    return [groups[key] for key in sorted(groups)]


def _slug(row: Row) -> str:
    other = "-other-cases" if row["test"] else ""
    return f"{row['benchmark']}-{row['encoder']}-{row['input_size']}-{row['seconds_limit']:g}s-{row['device']}{other}"


def _heading(row: Row) -> str:
    other = ", scored on other cases" if row["test"] else ""
    return f"{row['encoder']}, {row['input_size']} pixels, {row['seconds_limit']:g} s on {row['device']}{other}"


def _head(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    sets = {row["set"]: (row["about"], ", ".join(row["classes"]), len(row["dice"])) for row in rows}
    scored = {name: len({sample for row in rows if row["set"] == name for sample in row["dice"]}) for name in sets}
    draws = sorted({row["draw"] for row in rows})
    took = sum(row["seconds"]["train"] + row["seconds"]["predict"] for row in rows) / 3600
    items = [
        "Data: "
        + "; ".join(f"{name} ({about}: {what}; {scored[name]} scored)" for name, (about, what, _) in sets.items()),
        f"Draws: {len(draws)} (numbers {draws[0]} to {draws[-1]}), {len(rows)} runs, "
        f"{took:.1f} h of training and prediction",
        f"Encoder: {rows[0]['encoder']}, frozen, the same features for all methods but unet",
        "Hardware: " + "; ".join(different(hardware(row) for row in rows)),
        f"Software: {software(rows)}",
        "Commands: " + "; ".join(f"`{text}`" for text in different(row["command"] for row in rows)),
        "Tables: `python -m benchmarks.tables OUT`",
        "Seconds are those of one thread of the processor" if rows[0]["device"] == "cpu" else "Seconds on the clock",
    ]
    return ["\n".join(f"- {item}" for item in items), "\n".join(f"- `{m}`: {METHODS[m].about}" for m in methods)]


def hardware(row: Row) -> str:
    """On what a row was measured."""
    found = row["hardware"]
    card = f", {found['gpu']}" if found["gpu"] and row["device"] != "cpu" else ""
    return f"{found['cpu']}, {found['threads']} of {found['cores']} threads{card}"


def software(rows: Iterable[Row]) -> str:
    """With what rows were measured: versions of libraries, and commits of this repository."""
    every = list(rows)
    named = different(", ".join(f"{name} {number}" for name, number in row["versions"].items()) for row in every)
    commits = different(row["code"] for row in every if row["code"])
    return "; ".join(named) + (f"; commits {', '.join(commits)}" if commits else "")


def different(texts: Iterable[str]) -> list[str]:
    """Each text once, in the order of their first."""
    return list(dict.fromkeys(texts))


def _places(values: Values) -> list[Place]:
    return sorted({place for place, _ in values})


def _means(values: Values, methods: Sequence[str], form: str) -> str:
    """One line for each set and number of labels, one column for each method."""

    def cell(place: Place, method: str) -> str:
        draws = values.get((place, method))
        if not draws:
            return "–"
        mean, deviation = mean_and_deviation(draws.values())
        return form.format(mean) + (f" ± {form.format(deviation)}" if deviation is not None else "")

    lines = [[name, str(labels), *(cell((name, labels), m) for m in methods)] for name, labels in _places(values)]
    return table(["set", "labels", *methods], lines)


def _differences(dice: Values, methods: Sequence[str]) -> list[str]:
    others = [method for method in methods if method != REFERENCE]

    def cell(place: Place, method: str) -> str:
        pairs = pairs_of(dice, place, method, METHODS[method].against)
        return _difference(compare(pairs)) if pairs else "–"

    lines = [[name, str(labels), *(cell((name, labels), m) for m in others)] for name, labels in _places(dice)]
    pooled = []
    for method in others:
        pairs = [pair for place in _places(dice) for pair in pairs_of(dice, place, method, METHODS[method].against)]
        if pairs:
            found = compare(pairs)
            counts = (str(found.pairs), str(found.better), str(found.worse), f"{found.p:.2g}")
            pooled.append([method, METHODS[method].against, _difference(found), *counts])
    return [
        f"Method minus {REFERENCE}, or minus what the second table names, on the same draw: mean, and its 95 % "
        "bootstrap interval over draws where there are three or more. Draws score the same cases: the interval "
        "covers the choice of labels, not other patients.",
        table(["set", "labels", *others], lines),
        "All sets, numbers of labels and draws together, with a two-sided sign test:",
        table(["method", "minus", "difference", "pairs", "better", "worse", "p"], pooled),
    ]


def _difference(found: Difference) -> str:
    interval = f" ({found.interval[0]:+.1f} to {found.interval[1]:+.1f})" if found.interval else ""
    return f"{found.mean:+.1f}{interval}"


def _about_hd95(rows: Sequence[Row]) -> str:
    units = {row["set"]: row["hd95_unit"] for row in rows}
    shares = {
        m: missing_hd95([r for r in rows if r["method"] == m]) for m in METHODS if any(r["method"] == m for r in rows)
    }
    return (
        "Mean over cases and classes in which both masks hold something ("
        + ", ".join(f"{name}: {unit}" for name, unit in units.items())
        + "). Left out, because one mask is empty: "
        + ", ".join(f"{method} {100 * share:.0f} %" for method, share in shares.items())
        + ". A method that leaves out its worst cases looks better here than it is."
    )


def _effort(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    columns: list[tuple[str, Callable[[Row], float], str]] = [
        ("encode, s", lambda row: row["seconds"]["encode_each"] * row["encoded"], "{:.1f}"),
        ("train, s", lambda row: row["seconds"]["train"], "{:.1f}"),
        ("both, s", seconds_to_masks, "{:.1f}"),
        ("predict a slice, s", lambda row: row["seconds"]["predict"] / max(1, row["predicted"]), "{:.3f}"),
        ("steps", lambda row: row["steps"], "{:.0f}"),
        ("planned", lambda row: row["planned"], "{:.0f}"),
        ("stopped early, %", lambda row: 100 * (not row["finished"]), "{:.0f}"),
    ]
    lines = []
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        lines.append([method, *(form.format(np.mean([value(row) for row in own])) for _, value, form in columns)])
    words = (
        "Means over all runs. Encoding counts the labelled slices and their views as if none was at hand. A method "
        "that had not finished its planned steps when the time was over was stopped and used as it was."
    )
    return [words, table(["method", *(name for name, _, _ in columns)], lines)]


def _confidence(rows: Sequence[Row], presets: Sequence[str]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        for method in presets:
            own = [row for row in rows if row["set"] == name and row["method"] == method]
            if own:
                area, poor, total = auroc_of_poor_slices(own)
                error = f"{100 * expected_calibration_error(own):.1f}"
                lines.append([name, method, error, "–" if area is None else f"{area:.2f}", str(poor), str(total)])
    words = (
        "Expected calibration error over the pixels (15 bins, in percent; 0 is perfect), and how well a low confidence "
        f"of a slice finds the slices with a Dice below {POOR:g} (area under the ROC curve; 0.5 is chance)."
    )
    return [words, table(["set", "method", "error, %", "area", f"below {POOR:g}", "slices"], lines)]


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parsed = parser.parse_args(arguments)
    for path in write(files.read(parsed.results), parsed.out):
        print(path)


if __name__ == "__main__":
    sys.exit(main(command))
