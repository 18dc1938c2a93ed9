"""What a project of many cases costs: adding and opening a case, and the memory of a training, beside one case.

    python -m benchmarks.project_size [--cases 200] [--slices 40] [--labelled 20] [--window]

The volumes are made of noise and balls. Every training runs in a process of its own, whose peak of memory is printed:
`--labelled` slices of one case, and as many slices of as many cases, with the same encoder and settings. With
`--window`, the project is opened in napari, with the model of the training over many cases, five seconds after the
panel (a person looks for the folder), and the next case is shown ten times, once the cases ahead are predicted: the
time until its slices are there, and the longest gap of the interface. That needs a display, or xvfb-run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from benchmarks.harness import main
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.project import Project

_SIDE = 96  # pixels of a slice
_STEPS = 10  # to the next case
_LOOKING = 5.0  # s from the panel to the folder of the project


def write_volume(path: Path, n_slices: int, seed: int) -> None:
    """A bright ball in noise."""
    random = np.random.default_rng(seed)
    voxels = random.normal(0, 40, (_SIDE, _SIDE, n_slices))
    i, j, k = np.indices(voxels.shape)
    voxels += 500 * _inside(i, j, k, n_slices)
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([1.0, 1.0, 1.0, 1.0])), path)


def _inside(i: np.ndarray, j: np.ndarray, k: np.ndarray, n_slices: int) -> np.ndarray:
    return ((i - _SIDE / 2) / 20) ** 2 + ((j - _SIDE / 2) / 20) ** 2 + ((k - n_slices / 2) / (n_slices / 3)) ** 2 < 1


def add_cases(folder: Path, n_cases: int, n_slices: int) -> dict[str, float]:
    """Add cases to a project, and label one slice of each; returns seconds."""
    seconds: dict[str, list[float]] = {"add": [], "open": [], "label": []}
    settings = Settings.of_preset("fast", encoder="efficientnet-lite0")
    with Project(folder / "project", settings=settings, config=ComputeConfig("cpu")) as project:
        for number in range(n_cases):
            path = folder / f"case {number}.nii.gz"
            write_volume(path, n_slices, number)
            started = time.perf_counter()
            project.add(path)
            seconds["add"].append(time.perf_counter() - started)
    with Project(folder / "project", config=ComputeConfig("cpu")) as project:
        for case in project.cases:
            started = time.perf_counter()
            session, store, _ = project.session(case)
            seconds["open"].append(time.perf_counter() - started)
            if not session.labels.classes:
                session.labels.add_class()
            height, width = case.record.shapes[0]
            labels = np.zeros((height, width), np.uint16)
            labels[height // 3 : height // 2, width // 3 : width // 2] = 1
            started = time.perf_counter()
            session.paint(case.record.n_slices // 2, labels)
            project.keep(case, session, store)
            seconds["label"].append(time.perf_counter() - started)
            store.close()
        started = time.perf_counter()
        project.suggest()
        suggest = time.perf_counter() - started
    found = {f"{name}_median": median(values) for name, values in seconds.items()}
    return {**found, "open_longest": max(seconds["open"]), "suggest": suggest}


def train(folder: Path, *, joint: bool, n_labelled: int) -> dict[str, float]:
    """Train on slices of one case, or of as many cases; returns the peak of memory in MiB, and seconds."""
    with Project(folder / "project", config=ComputeConfig("cpu", cache=False)) as project:
        if not joint:
            case = project.cases[0]
            session, store, _ = project.session(case)
            truth = session.labels.truth(case.record.n_slices // 2)
            for index in np.linspace(0, case.record.n_slices - 1, n_labelled).round().astype(int):
                session.paint(int(index), truth)
            project.keep(case, session, store)
            store.close()
        project.cases = project.cases[: n_labelled if joint else 1]
        started = time.perf_counter()
        for _ in project.train():
            pass
        slices = sum(len(entry) for entry in project.trainings[-1].slices.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mib": peak, "seconds": time.perf_counter() - started, "labelled": slices}


def walk(folder: Path) -> dict[str, float]:
    """Show the project in a window, and step to the next case; returns milliseconds."""
    import napari
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    from benchmarks.interface_latency import Gaps, pump, wait
    from napari_dinoaugseg.gui.panel import Panel

    viewer = napari.Viewer()
    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel, name="DINO-AugSeg")
    controller = panel.controller
    pump(_LOOKING)
    stage = "open"
    gaps, shown = Gaps(lambda: stage), []
    controller.project.open_folder(folder / "project")
    wait(lambda: controller.session is not None and not controller.jobs.busy)
    pump(5)
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    stage = "next"
    for _ in range(_STEPS):
        wait(lambda: not controller.jobs.busy)
        pump(1)
        wait(lambda: not controller.project.ahead.busy)
        before, started = controller.project.case, time.perf_counter()
        QTest.keyClick(canvas, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
        wait(lambda before=before: controller.project.case is not before)  # type: ignore[misc]
        shown.append(1000 * (time.perf_counter() - started))
    viewer.close()
    longest = {f"{name}_gap": max(values) for name, values in gaps.by_stage.items()}
    return {"next_median": median(shown), "next_longest": max(shown), **longest}


def command(arguments: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--labelled", type=int, default=20)
    parser.add_argument("--window", action="store_true", help="step through the cases in a window")
    parser.add_argument("--train-in", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--joint", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.train_in is not None:
        print(json.dumps(train(parsed.train_in, joint=parsed.joint, n_labelled=parsed.labelled)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, value in add_cases(folder, parsed.cases, parsed.slices).items():
            print(f"{label:<14} {value:8.3f} s")
        peaks = {}
        for joint in (True, False):  # the second one labels more slices of the first case
            words = [sys.executable, "-m", "benchmarks.project_size", "--train-in", str(folder)]
            words += ["--labelled", str(parsed.labelled), *(["--joint"] if joint else [])]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            peaks[joint] = found["peak_mib"]
            what = f"{parsed.labelled} cases" if joint else "one case"
            figures = f"{found['peak_mib']:.0f} MiB, {found['seconds']:.0f} s"
            print(f"training on {found['labelled']} slices of {what}: {figures}")
        print(f"memory of many cases to that of one: {peaks[True] / peaks[False]:.2f}")
        if parsed.window:
            os.environ["NAPARI_CONFIG"] = ""  # not the person's own preferences
            for label, value in walk(folder).items():
                print(f"{label:<14} {value:8.0f} ms")


if __name__ == "__main__":
    sys.exit(main(command))
