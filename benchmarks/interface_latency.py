"""How smooth the window stays while the model encodes, trains and predicts the sample case.

    python -m benchmarks.interface_latency [--preset balanced] [--json FILE]

A Qt timer of 10 ms runs in the interface's thread; a gap is the time between two of its ticks. A stroke is twenty brush
positions drawn through napari's Labels layer, with the canvas redrawn after each. Needs a display (or xvfb-run).
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

LABELLED = (20, 46, 72, 98, 124)
TICK = 10  # milliseconds
LIMITS = {"longest": 150.0, "p99": 50.0}


class Gaps:
    """Gaps between the ticks of a timer, by what the engine does meanwhile, in milliseconds.

    Args:
        stage: returns what the engine does now.
        clock: returns seconds; `time.thread_time` counts only those in which the interface's thread computes.
    """

    def __init__(self, stage: Callable[[], str], clock: Callable[[], float] = time.perf_counter) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.by_stage: dict[str, list[float]] = {}
        self._stage, self._clock = stage, clock
        self._last: float | None = None
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK)

    def pause(self) -> None:
        """Forget the last tick: the time that the benchmark itself takes does not count as a gap."""
        self._last = None

    def _tick(self) -> None:
        now = self._clock()
        if self._last is not None:
            self.by_stage.setdefault(self._stage(), []).append(1000 * (now - self._last))
        self._last = now


def measure(preset: str) -> dict[str, dict[str, float]]:
    """Open the sample, let it train and predict, and return figures by stage in milliseconds."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_dinoaugseg.case.array import brain_sample
    from napari_dinoaugseg.gui.panel import Panel

    viewer = napari.Viewer()
    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel, name="DINO-AugSeg")
    controller = panel.controller
    controller.setup.change(preset=preset, encoder="efficientnet-lite0")
    stage = {"now": "opening"}  # the case is read and drawn, and PyTorch is loaded in the background
    gaps = Gaps(lambda: stage["now"])
    controller.cases.open_sample()
    wait(lambda: controller.session is not None and not controller.jobs.busy)
    pump(5)
    gaps.pause()
    truth = controller.session.case.to_slices(np.asarray(brain_sample().tissue.dataobj))
    controller.labels.add_class("white matter")
    for index in LABELLED:
        controller.layers.manual.data[index] = truth[index]
    controller.layers.manual.refresh()
    controller.flush()

    strokes: dict[str, list[float]] = {}
    pump(2)
    gaps.pause()
    stage["now"] = "idle"
    for _ in range(20):
        draw_stroke(controller, strokes, stage["now"])
        pump(0.1)
    gaps.pause()

    def follow(event: object) -> None:
        stage["now"] = event.stage  # type: ignore[attr-defined]

    controller.progressed.connect(follow)
    stage["now"] = "starting"  # the encoder is loaded
    controller.jobs.train()
    next_stroke = time.monotonic() + 0.5
    while controller.jobs.busy or controller.jobs.last_stage != "predict":
        QApplication.processEvents()
        if time.monotonic() > next_stroke:
            draw_stroke(controller, strokes, stage["now"])
            next_stroke = time.monotonic() + 0.5
        time.sleep(0.0005)
    viewer.close()
    return {name: figures(values, strokes.get(name, [])) for name, values in gaps.by_stage.items()}


def draw_stroke(controller: object, strokes: dict[str, list[float]], stage: str) -> None:
    """Twenty brush positions on a slice without labels, each followed by what Qt has to do."""
    layer = controller.layers.manual  # type: ignore[attr-defined]
    started = time.perf_counter()
    for step in range(20):
        layer.paint((60, 60 + step, 80), 1)
    layer.refresh()
    strokes.setdefault(stage, []).append(1000 * (time.perf_counter() - started))


def figures(gaps: list[float], strokes: list[float]) -> dict[str, float]:
    """Longest and 99th percentile of the gaps, median of the strokes."""
    return {
        "longest": max(gaps),
        "p99": float(np.percentile(gaps, 99)),
        "median": float(np.median(gaps)),
        "ticks": len(gaps),
        "stroke": float(np.median(strokes)) if strokes else float("nan"),
    }


def wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Let Qt work until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        pump(0.05)
        if time.monotonic() > end:
            msg = "the case did not open in time"
            raise TimeoutError(msg)


def pump(seconds: float) -> None:
    """Let Qt work for a while."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.001)


def main() -> None:
    """Print a table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as sessions:
        os.environ["DINOAUGSEG_CACHE"] = cache  # everything has to be encoded
        os.environ["DINOAUGSEG_SESSIONS"] = sessions  # not the person's own
        result = measure(arguments.preset)
    print(f"{'stage':<10} {'longest':>9} {'99th pct':>9} {'median':>8} {'stroke':>8} {'ticks':>7}   (milliseconds)")
    for name, row in result.items():
        missed = [key for key, limit in LIMITS.items() if row[key] > limit]
        print(
            f"{name:<10} {row['longest']:>9.1f} {row['p99']:>9.1f} {row['median']:>8.1f} {row['stroke']:>8.1f} "
            f"{row['ticks']:>7.0f}   {'above the limit: ' + ', '.join(missed) if missed else ''}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
