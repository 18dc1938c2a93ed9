"""Dice against the number of labels, and against the seconds that it took, as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import by_draw, mean_and_deviation, seconds_to_masks
from benchmarks.methods import METHODS
from benchmarks.rows import Row

_PANEL = (3.4, 2.9)  # inches
_COLUMNS = 4


def plot(rows: Sequence[Row], folder: Path, name: str) -> list[Path]:
    """Draw both pictures of comparable rows.

    Args:
        rows: of one benchmark, encoder, input size and limit of time.
        folder: made when it does not exist.
        name: stem of the files.

    Returns:
        The PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for against in ("labels", "seconds"):
        path = folder / f"{name}-dice-against-{against}.png"
        _draw(rows, against, path)
        files.append(path)
    return files


def _draw(rows: Sequence[Row], against: str, path: Path) -> None:
    from matplotlib.figure import Figure  # without pyplot no window system is asked for

    sets = list(dict.fromkeys(row["set"] for row in rows))
    columns = min(_COLUMNS, len(sets))
    lines = -(-len(sets) // columns)
    legend = 0.25 * -(-len(METHODS) // (2 * columns))
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * lines + legend), layout="constrained")
    axes = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    for axis in axes[len(sets) :]:
        axis.remove()
    for axis, name in zip(axes, sets, strict=False):
        _panel(axis, [row for row in rows if row["set"] == name], against)
        axis.set_title(name)
    axes[0].set_ylabel("Dice, %")
    handles, labels = _legend(axes[: len(sets)])
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * columns, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axis: Any, rows: Sequence[Row], against: str) -> None:
    dice = by_draw(rows, lambda row: 100 * row["mean_dice"])
    seconds = by_draw(rows, seconds_to_masks)
    for number, method in enumerate(METHODS):
        points = []
        for place, name in sorted(dice):
            if name == method:
                mean, deviation = mean_and_deviation(dice[place, name].values())
                x = place[1] if against == "labels" else mean_and_deviation(seconds[place, name].values())[0]
                points.append((x, mean, deviation or 0.0))
        if points:
            across, up, error = zip(*points, strict=True)
            axis.errorbar(across, up, yerr=error, marker="o", markersize=4, capsize=2, color=f"C{number}", label=method)
    axis.set_xlabel("labelled" if against == "labels" else "seconds to encode and train")
    if against == "seconds":
        axis.set_xlim(left=0)
    else:
        axis.set_xticks(sorted({row["labels"] for row in rows}))
    axis.grid(alpha=0.3)


def _legend(axes: Iterable[Any]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
