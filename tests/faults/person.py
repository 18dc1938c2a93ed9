"""A person at the panel, in a process of its own that somebody kills: paints without a pause, trains, accepts, exports.

    python -m tests.faults.person IMAGE FOLDER SEED

Everything it did stands in FOLDER/ledger: for each deed the time (seconds of the monotonic clock, which all processes
share), how long the window had been blocked so far, and what the labels layer held then, (slice, row, column) uint16.
FOLDER/heart holds the last beat of the window: its time, and the seconds blocked until then. On a busy machine nothing
can be saved while the window gets no turn.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from napari_dinoaugseg.session.export import export_masks
from tests.blobs import truth_voxels

_TIMES = struct.Struct("<dd")  # when, seconds blocked until then
_BEAT = 0.02  # seconds
SMALL = {"encoder": "efficientnet-lite0", "input_size": 64, "steps": 12, "views": 1}


class Ledger:
    """What was done when; a last entry that is not whole does not count."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.path, self.shape = path, shape

    def write(self, blocked: float, labels: np.ndarray) -> None:
        content = _TIMES.pack(time.monotonic(), blocked) + np.ascontiguousarray(labels, "<u2").tobytes()
        with self.path.open("ab", buffering=0) as file:
            file.write(content)

    def read(self) -> list[tuple[float, float, np.ndarray]]:
        """Times, seconds blocked, labels."""
        content = self.path.read_bytes() if self.path.exists() else b""
        size = _TIMES.size + 2 * int(np.prod(self.shape))
        whole = [content[start : start + size] for start in range(0, len(content) - size + 1, size)]
        return [
            (*_TIMES.unpack_from(one), np.frombuffer(one, "<u2", offset=_TIMES.size).reshape(self.shape))
            for one in whole
        ]


class Heart:
    """Beats on the thread of the interface, and knows how long it could not."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_CREAT | os.O_RDWR)
        self.last = time.monotonic()
        self.blocked = 0.0

    def beat(self) -> None:
        now = time.monotonic()
        self.blocked += max(0.0, now - self.last - _BEAT)
        self.last = now
        os.pwrite(self.handle, _TIMES.pack(now, self.blocked), 0)


def blocked_until(path: Path, when: float) -> float:
    """How long a window had been blocked at a time after its last beat."""
    last, blocked = _TIMES.unpack(path.read_bytes())
    return blocked + max(0.0, when - last - _BEAT)


class Person:
    """Does something every few dozen milliseconds, on the thread of the interface."""

    def __init__(self, controller: Any, folder: Path, seed: int) -> None:
        from qtpy.QtCore import QTimer

        self.controller, self.folder = controller, folder
        self.random = np.random.default_rng(seed)
        case = controller.session.case
        self.truth = case.to_slices(truth_voxels())
        self.ledger = Ledger(folder / "ledger", self.truth.shape)
        self.deeds = 0
        self.heart = Heart(folder / "heart")
        self.heart.beat()
        self.pulse = QTimer()
        self.pulse.timeout.connect(self.heart.beat)
        self.pulse.start(int(1000 * _BEAT))
        self.timer = QTimer()
        self.timer.setSingleShot(True)
        self.timer.timeout.connect(self.act)
        self.note()
        self.timer.start(1)

    def note(self) -> None:
        layer = self.controller.layers.manual
        values = np.moveaxis(np.asarray(layer.data), self.controller.layers.axis, 0)
        depth, height, width = self.truth.shape
        values = values[:depth, :height, :width]
        self.heart.beat()
        self.ledger.write(self.heart.blocked, np.where(values == 65535, 0, values))

    def act(self) -> None:
        self.deeds += 1
        if self.deeds % 25 == 5 and not self.controller.jobs.busy:
            self.controller.jobs.train()
        elif self.deeds % 10 == 0:
            self.controller.saving.secure()
            export_masks(self.controller.session, self.folder / "mask.nii.gz")
        elif self.deeds % 6 == 0:
            self.accept()
        elif self.deeds % 9 == 0:
            self.controller.layers.manual.undo()
        else:
            self.stroke()
        self.note()
        self.timer.start(int(self.random.integers(5, 120)))

    def stroke(self) -> None:
        """A short stroke with the right class somewhere on a structure, or with the eraser."""
        layer, axis = self.controller.layers.manual, self.controller.layers.axis
        index = int(self.random.integers(3, 13))
        places = np.argwhere(self.truth[index])
        row, column = places[self.random.integers(len(places))]
        number = int(self.truth[index, row, column]) if self.random.random() < 0.9 else 0
        self.controller.view.go_to(index)
        layer.brush_size = 3
        for step in range(4):
            point = [int(row), int(column) + step]
            point.insert(axis, index)
            layer.paint(point, number)

    def accept(self) -> None:
        confidence = self.controller.session.labels.confidence
        if confidence:
            self.controller.labels.accept(int(self.random.choice(sorted(confidence))))


def main(image: Path, folder: Path, seed: int) -> None:
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_dinoaugseg.gui.panel import Panel

    viewer = napari.Viewer(show=True)
    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel, name="DINO-AugSeg")
    controller = panel.controller
    controller.setup.change(**SMALL)
    controller.setup.use_device("cpu")
    controller.cases.open_path(image, background=False, plane="axial")
    if any(os.scandir(os.environ["DINOAUGSEG_SESSIONS"])):
        while not controller.sessions.offers:
            QApplication.processEvents()
        controller.sessions.go_on(controller.sessions.offers[0])
        while controller.jobs.busy:
            QApplication.processEvents()
    else:
        controller.labels.add_class()  # the blobs have the numbers 1 and 3
        controller.labels.add_class()
    person = Person(controller, folder, seed)
    napari.run()
    del person


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
