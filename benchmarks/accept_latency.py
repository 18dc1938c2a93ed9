"""How long the window stands still when many predictions are accepted at once, and when that is undone and redone.

    python -m benchmarks.accept_latency [--slices 200] [--predicted 180] [--size 512] [--json FILE]

Processor time of the interface's thread in milliseconds, which other work on the machine does not lengthen; first what
the button itself takes, then what the panel does in the second after it. Needs a display (or xvfb-run).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.interface_latency import pump

LIMIT = 200.0  # milliseconds
ROUNDS = 3
CLASSES = 3


def measure(n_slices: int, n_predicted: int, size: int) -> dict[str, dict[str, float]]:
    """Accept, undo and redo on a case of noise with discs as predictions; returns milliseconds by what was done."""
    import napari

    from napari_dinoaugseg.case import case_from_array
    from napari_dinoaugseg.gui.core import Change
    from napari_dinoaugseg.gui.panel import Panel

    viewer = napari.Viewer()
    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel, name="DINO-AugSeg")
    controller = panel.controller
    voxels = np.random.default_rng(0).integers(0, 200, (n_slices, size, size)).astype(np.int16)
    controller.cases.begin(case_from_array(voxels, name="noise", spacing=(1.0, 1.0, 1.0)))
    for _ in range(CLASSES - 1):
        controller.labels.add_class()
    first = (n_slices - n_predicted) // 2
    for index in range(first, first + n_predicted):
        controller.session.labels.set_prediction(index, discs(size, index), 0.95)
    controller.layers.show_predictions(range(n_slices))
    controller.touch(Change.PREDICTIONS)
    pump(3)
    result: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for name, action in (
            ("accept", lambda: controller.labels.accept_above(0.5)),
            ("undo", controller.layers.undo),
            ("redo", controller.layers.redo),
            ("undo again", controller.layers.undo),
        ):
            at_once, after = milliseconds(action), milliseconds(lambda: pump(1))
            row = result.setdefault(name, {"at once": at_once, "after": after})
            row["at once"], row["after"] = min(row["at once"], at_once), min(row["after"], after)
    viewer.close()
    return result


def milliseconds(action: Callable[[], object]) -> float:
    """The processor time that this thread spends on it."""
    started = time.thread_time()
    action()
    return 1000 * (time.thread_time() - started)


def discs(size: int, seed: int) -> np.ndarray:
    """Labels (size, size) with a disc of each class."""
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint16)
    for number in range(1, CLASSES + 1):
        row, column = size * number // (CLASSES + 1) + seed % 7, size * (CLASSES + 1 - number) // (CLASSES + 1)
        labels[(rows - row) ** 2 + (columns - column) ** 2 < (size * (1 + number) // 24) ** 2] = number
    return labels


def main() -> None:
    """Print a table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--predicted", type=int, default=180)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as sessions:
        os.environ["DINOAUGSEG_CACHE"], os.environ["DINOAUGSEG_SESSIONS"] = cache, sessions  # not the person's own
        result = measure(arguments.slices, arguments.predicted, arguments.size)
    print(f"{'':<12} {'at once':>9} {'after':>9}   (milliseconds, best of {ROUNDS})")
    for name, row in result.items():
        missed = "   above the limit" if row["at once"] > LIMIT else ""
        print(f"{name:<12} {row['at once']:>9.0f} {row['after']:>9.0f}{missed}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
