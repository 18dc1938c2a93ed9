"""Dice of completed slices after a few strokes a structure, and what completing one costs.

    python -m benchmarks.completion --data FOLDER --out RESULTS [--sets …] [--methods …] [--slices 24] [--distance 0.1]

The slices are taken evenly over those of `test` that hold a structure; of a set without that split, over all of them.
`benchmarks.person_scribble` defines a structure and the strokes. A slice with n structures gets n times as many strokes
as the table's head says, and the first ones are always drawn: those inside the structures, and the loops. Background is
one of the classes, all classes of a slice are completed at once, and the score of a class is its Dice in the mean of
the slices that hold it. The true mask places strokes and scores, nothing else.

`completion` is the program's own. The others get the same strokes on the same grid: `geodesic` the cheapest path over
the gradient (skimage's MCP_Geometric), `fast_marching` the same by SimpleITK, `random_walker` and `watershed` those of
skimage, and `nearest` the nearest stroke, without a look at the image. Each person mends what their own method left.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import rows
from benchmarks.cases import SampleCases
from benchmarks.harness import command_of, machine, main, names, numbers
from benchmarks.person_scribble import DISTANCE, Stroke, correction, drawn, first_strokes, structures
from benchmarks.samples import SETS, load_set
from benchmarks.tables import table
from napari_dinoaugseg.case.case import UNKNOWN
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.learning.completion import Grid, complete, grid_of, resized
from napari_dinoaugseg.learning.metrics import dice

NAME = "completion"
STROKES = (2, 3, 4, 6)
"""A structure."""

Labels = NDArray[np.integer]
Method = Callable[[NDArray[Any], Labels], Labels]


@dataclass(frozen=True)
class Job:
    """One row to be measured: an image set and a method."""

    image_set: str
    method: str


@dataclass(frozen=True)
class Options:
    """What all jobs have in common.

    Attributes:
        data: folder of the sets.
        slices: of each set.
        strokes: how many a structure, ascending.
        distance: of the loop, in diameters of the structure.
        command: as it can be given again.
    """

    data: Path
    slices: int
    strokes: tuple[int, ...]
    distance: float
    command: str


@dataclass(frozen=True)
class Slice:
    """A slice with its truth: image 0 to 1, or uint8 colour."""

    name: str
    image: NDArray[Any]
    truth: NDArray[np.uint8]


@lru_cache(maxsize=1)
def slices_of(data: Path, name: str, count: int) -> list[Slice]:
    """Slices of a set that hold a structure, evenly over all of them."""
    split = "test" if (data / name / "test").is_dir() else None
    samples = load_set(data, name, split)
    places = [(sample, i) for sample in samples for i, truth in enumerate(sample.truth) if truth.any()]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
    return [
        Slice(f"{sample.name}, slice {i}", SampleCases([sample]).shown(i), sample.truth[i])
        for sample, i in (places[place] for place in chosen)
    ]


def scribble(image: NDArray[Any], truth: Labels, method: Method, strokes: Sequence[int], first: list[Stroke]) -> Any:
    """Draw and mend a slice until the last number of strokes.

    Args:
        image: (H, W) or (H, W, 3).
        truth: (H, W) class numbers.
        method: completes the strokes.
        strokes: how many a structure, ascending.
        first: the strokes to begin with.

    Returns:
        For each number of strokes the Dice by class number, and the processor seconds of all completions.
    """
    n_structures, done, scores, seconds = len(structures(truth)), list(first), [], []
    for count in strokes:
        while True:
            started = time.process_time()
            found = method(image, drawn(done, truth.shape))
            seconds.append(time.process_time() - started)
            mended = correction(found, truth) if len(done) < count * n_structures else None
            if mended is None:
                break
            done.append(mended)
        scores.append({int(k): dice(found == k, truth == k) for k in np.unique(truth[truth > 0])})
    return scores, seconds


def _on_grid(method: Callable[[Grid], Labels]) -> Method:
    """A method that works on the grid of the whole slice and gives class indices there."""

    def complete_on_grid(image: NDArray[Any], strokes: Labels) -> Labels:
        marks = strokes.astype(np.uint16)
        classes = np.unique(marks[marks != UNKNOWN])
        found = method(grid_of(image, marks, classes))
        each = np.stack([found == i for i in range(len(classes))]).astype(np.float32)
        labels = classes[resized(each, marks.shape).argmax(axis=0)]
        return np.where(marks == UNKNOWN, labels, marks)

    return complete_on_grid


def _gradient(grid: Grid) -> NDArray[np.float32]:
    """Length of the gradient, 1 at strong edges."""
    squares = [ndimage.gaussian_gradient_magnitude(channel, 1.0) ** 2 for channel in grid.channels]
    length = np.sqrt(np.sum(squares, axis=0))
    scaled: NDArray[np.float32] = (length / (np.percentile(length, 95) + 1e-6)).astype(np.float32)
    return scaled


def _geodesic(grid: Grid) -> Labels:
    from skimage.graph import MCP_Geometric

    cost = 0.05 + _gradient(grid)
    return np.argmin([MCP_Geometric(cost).find_costs(np.argwhere(seeds))[0] for seeds in grid.seeds], axis=0)


def _fast_marching(grid: Grid) -> Labels:
    import SimpleITK

    speed = SimpleITK.GetImageFromArray(1 / (0.05 + _gradient(grid)))
    times = []
    for seeds in grid.seeds:
        march = SimpleITK.FastMarchingImageFilter()
        march.SetTrialPoints([(int(column), int(row), 0) for row, column in np.argwhere(seeds)])
        times.append(SimpleITK.GetArrayFromImage(march.Execute(speed)))
    return np.argmin(times, axis=0)


def _random_walker(grid: Grid) -> Labels:
    from skimage.segmentation import random_walker

    markers = np.where(grid.seeds.any(axis=0), 1 + grid.seeds.argmax(axis=0), 0)
    return random_walker(np.moveaxis(grid.channels, 0, -1), markers, beta=1000, mode="cg_j", channel_axis=-1) - 1


def _watershed(grid: Grid) -> Labels:
    from skimage.segmentation import watershed

    return watershed(_gradient(grid), np.where(grid.seeds.any(axis=0), 1 + grid.seeds.argmax(axis=0), 0)) - 1


def _nearest(grid: Grid) -> Labels:
    return np.argmin([ndimage.distance_transform_edt(~seeds) for seeds in grid.seeds], axis=0)


METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        "completion": complete,
        "geodesic": _on_grid(_geodesic),
        "fast_marching": _on_grid(_fast_marching),
        "random_walker": _on_grid(_random_walker),
        "watershed": _on_grid(_watershed),
        "nearest": _on_grid(_nearest),
    }
)


def measure(options: Options, job: Job) -> rows.Row:
    """Complete the slices of a set with a method."""
    slices = slices_of(options.data, job.image_set, options.slices)
    classes = SETS[job.image_set].classes
    scores, seconds = [], []
    for seed, entry in enumerate(slices):
        first = first_strokes(entry.truth, seed, options.distance)
        found, taken = scribble(entry.image, entry.truth, METHODS[job.method], options.strokes, first)
        scores.append(found)
        seconds += taken
    by_class = {
        name: [_mean([score[i][number] for score in scores if number in score[i]]) for i in range(len(options.strokes))]
        for number, name in enumerate(classes, start=1)
    }
    return {
        **_identity(job, options),
        "mean_dice": float(np.mean([values[0] for values in by_class.values()])),
        "strokes": list(options.strokes),
        "dice": by_class,
        "slices": len(slices),
        "milliseconds": {"median": round(1000 * float(np.median(seconds))), "most": round(1000 * max(seconds))},
        "command": options.command,
        **machine(),
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 6)


def _identity(job: Job, options: Options) -> rows.Row:
    return rows.identity(
        NAME,
        job.image_set,
        labels=options.slices,
        draw=round(100 * options.distance),  # the loops are other ones
        method=job.method,
        device="cpu",
    )


def _describe(row: rows.Row) -> str:
    return f"Dice {100 * row['mean_dice']:.1f} after {row['strokes'][0]} strokes, {row['milliseconds']['median']} ms"


def shown(found: Sequence[rows.Row]) -> str:
    """Table of the rows: mean Dice of the classes, in percent, and processor milliseconds."""
    strokes = found[0]["strokes"]
    lines = []
    for row in found:
        for name, values in [*row["dice"].items(), ("mean", np.mean(list(row["dice"].values()), axis=0))]:
            if name == "mean" and len(row["dice"]) == 1:
                continue
            line = [row["set"], name, row["method"], *(f"{100 * value:.1f}" for value in values)]
            lines.append([*line, str(row["milliseconds"]["median"]), str(row["milliseconds"]["most"])])
    heads = ["set", "class", "method", *(f"{count} strokes" for count in strokes), "ms, median", "ms, most"]
    return table(heads, lines)


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--sets", type=names(SETS), default=list(SETS), help="default: all")
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS), help=f"among {','.join(METHODS)}")
    parser.add_argument("--slices", type=int, default=24, help="of each set, at most")
    parser.add_argument("--strokes", type=numbers, default=list(STROKES), help="a structure, ascending")
    parser.add_argument("--distance", type=float, default=DISTANCE, help="of the loop, in diameters of the structure")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {rows.FILE}; finished rows are skipped")
    parser.add_argument("--jobs", type=int, default=1, help="processes, with one thread each")
    parsed = parser.parse_args(arguments)
    if min(parsed.slices, parsed.jobs, *parsed.strokes) < 1 or parsed.distance <= 0:
        msg = "--slices, --jobs, --strokes and --distance must be positive."
        raise SettingsError(msg)
    options = Options(
        parsed.data,
        parsed.slices,
        tuple(sorted(parsed.strokes)),
        parsed.distance,
        command_of(parsed, NAME, ("sets", "methods", "slices", "strokes", "distance")),
    )
    jobs = [Job(name, method) for name in parsed.sets for method in parsed.methods]
    rows.measure_missing(
        jobs, partial(_identity, options=options), partial(measure, options), _describe, parsed.out, parsed.jobs
    )
    own = [row for row in rows.read(parsed.out / rows.FILE) if row["benchmark"] == NAME]
    print(shown([row for row in own if row["set"] in parsed.sets and row["method"] in parsed.methods]))


if __name__ == "__main__":
    sys.exit(main(command))
