"""How much memory a large case takes, stage by stage: opening, labels, features, training, predictions, export.

    python -m benchmarks.memory                      # 512 x 512 x 1000, as the command works
    python -m benchmarks.memory --slices 300         # and what 1,000 slices would take
    python -m benchmarks.memory --sequences 2        # as a case of two sequences
    xvfb-run python -m benchmarks.memory --panel     # with napari's layers

The volume is made up. ``peak`` is the largest resident memory in a stage, ``own`` the part of what is resident at its
end that no file backs: what is mapped from files is given back as soon as another program wants memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil

SIDE = 512
ASKED = 1000  # slices


@dataclass
class Stage:
    name: str
    seconds: float
    peak: int
    own: int


class Meter:
    """Looks at the resident memory of this process all the time."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._process = psutil.Process()
        self._peak = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._peak = max(self._peak, self._process.memory_info().rss)
            time.sleep(0.01)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started, self._peak = time.monotonic(), self._process.memory_info().rss
        yield
        memory = self._process.memory_info()
        own = memory.rss - getattr(memory, "shared", 0)
        self.stages.append(Stage(name, time.monotonic() - started, max(self._peak, memory.rss), own))
        last = self.stages[-1]
        print(f"{name:<12} {last.seconds:>7.1f} s   peak {last.peak / 1e9:>6.2f} GB   own {last.own / 1e9:>6.2f} GB")


def write_volume(path: Path, slices: int, seed: int = 0) -> Path:
    """A noisy volume with a bright column, written slice by slice."""
    rows, columns = np.indices((SIDE, SIDE))
    random = np.random.default_rng(seed)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((SIDE, SIDE, slices))
    header.set_zooms((0.8, 0.8, 1.0))
    header.set_sform(np.diag([0.8, 0.8, 1.0, 1.0]), code=1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with path.open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        for index in range(slices):
            image = random.integers(-60, 60, (SIDE, SIDE), dtype=np.int16)
            image[disc(rows, columns, index)] += 250
            file.write(image.tobytes(order="F"))
    return path


def disc(rows: np.ndarray, columns: np.ndarray, index: int) -> np.ndarray:
    return (rows - 200 - index % 40) ** 2 + (columns - 300) ** 2 < 90**2


def column(index: int) -> np.ndarray:
    """The bright column in slice `index` of the case, (H, W) uint16: shown axes are the file's, swapped and turned."""
    rows, columns = SIDE - 1 - np.indices((SIDE, SIDE))
    return disc(columns, rows, index).astype(np.uint16)


def headless(
    image: Path | list[Path], meter: Meter, settings: Any
) -> tuple[Any, Callable[[], None], Callable[[], None]]:
    from napari_dinoaugseg.case import open_case
    from napari_dinoaugseg.session.compute import ComputeConfig
    from napari_dinoaugseg.session.session import Session

    with meter.stage("open"):
        session = Session(open_case(image, plane="axial"), settings, ComputeConfig("cpu"))
    return session, lambda: None, lambda: None


def with_panel(
    image: Path | list[Path], meter: Meter, settings: Any
) -> tuple[Any, Callable[[], None], Callable[[], None]]:
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_dinoaugseg.gui.panel import Panel

    with meter.stage("napari"):
        viewer = napari.Viewer()
        panel = Panel(viewer)
        viewer.window.add_dock_widget(panel)
    with meter.stage("open"):
        panel.controller.setup.settings = settings
        panel.controller.setup.use_device("cpu")
        panel.controller.cases.open_path(image, background=False, plane="axial")
        QApplication.processEvents()

    def show() -> None:
        panel.controller.layers.show_predictions(list(panel.controller.session.labels.confidence))
        for index in range(0, panel.controller.session.case.n_slices, 50):
            viewer.dims.set_current_step(panel.controller.layers.axis, index)
            QApplication.processEvents()

    return panel.controller.session, show, viewer.close


def measure(folder: Path, slices: int, size: int, sequences: int, *, panel: bool) -> list[Stage]:
    from napari_dinoaugseg.learning.settings import Settings
    from napari_dinoaugseg.session.local import engine_class

    files = [write_volume(folder / f"volume_{number}.nii", slices, number) for number in range(sequences)]
    image = files[0] if sequences == 1 else files
    meter = Meter()
    with meter.stage("libraries"):
        engine_class()
    settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=size)
    session, show, close = (with_panel if panel else headless)(image, meter, settings)
    labelled = [slices * part // 10 for part in (2, 5, 8)]
    with meter.stage("labels"):
        session.labels.add_class("column")
        for index in labelled:
            session.paint(index, column(index))
    with meter.stage("train"):
        for _ in session.train():
            pass
    with meter.stage("features"):
        for _ in session.engine.store.prepare([(index, None) for index in range(slices)]):
            pass
    kept = session.engine.store.memory_used
    with meter.stage("predict"):
        count = len({item.index for item in session.predict(slices // 2)})
    with meter.stage("show"):
        show()
    with meter.stage("export"):
        session.export(folder / "mask.nii.gz")
    close()
    print(f"{count} slices predicted; features in memory {kept / 1e9:.2f} GB, {kept / slices / 1e6:.2f} MB a slice")
    return meter.stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=ASKED)
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--sequences", type=int, default=1, help="volumes that form one case")
    parser.add_argument("--panel", action="store_true", help="open the case in napari's panel")
    parser.add_argument("--alone", action="store_true", help="do not reckon how much more slices would take")
    options = parser.parse_args()
    available = psutil.virtual_memory().available
    print(
        f"{SIDE} x {SIDE} x {options.slices} int16, {options.sequences} of it, inputs of {options.input_size}; "
        f"{available / 1e9:.1f} GB are free"
    )
    with tempfile.TemporaryDirectory() as name:
        os.environ["DINOAUGSEG_CACHE"] = str(Path(name) / "cache")
        stages = measure(Path(name), options.slices, options.input_size, options.sequences, panel=options.panel)
    peak = max(stages, key=lambda stage: stage.peak)
    print(f"largest      {peak.peak / 1e9:.2f} GB, in the stage '{peak.name}'")
    if options.slices < ASKED and not options.alone:
        half = at_the_end(options.slices // 2, options.input_size, options.sequences, panel=options.panel)
        now = stages[-1].peak / 1e9
        there = now + (now - half) * (ASKED - options.slices) / (options.slices - options.slices // 2)
        print(f"{half:.2f} GB at the end with half as many slices: {ASKED} would take about {there:.2f} GB")


def at_the_end(slices: int, size: int, sequences: int, *, panel: bool) -> float:
    """GB in the last stage with another number of slices, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--alone", "--slices", str(slices), "--input-size", str(size)]
    command += ["--sequences", str(sequences)]
    done = subprocess.run([*command, *(["--panel"] if panel else [])], capture_output=True, text=True, check=True)
    return float(done.stdout.partition("export")[2].partition("peak")[2].split()[0])


if __name__ == "__main__":
    main()
