"""A person's visit, played in a process of its own, for what fails there is a crash (`test_survives.py` runs it).

    python -m tests.gui.visit ROUNDS

A scan is in the viewer; *Use selected layer* is clicked; once the encoder is known and the libraries are loaded, a
stroke is painted, and ROUNDS times all layers are selected and deleted by key and brought back by button; then the
window is closed. Nothing of the program is called that these events do not call.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


def spin(seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
    """Let Qt work for a while, or until something holds; tells whether it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.processEvents()
        time.sleep(0.005)
    return until()


def reached(what: str) -> None:
    """Say how far the visit got."""
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


def click(inside: QWidget, text: str) -> None:
    """Click the button with a text."""
    (found,) = (button for button in inside.findChildren(QPushButton) if button.text() == text)
    QTest.mouseClick(found, LEFT)


def drag(canvas: QWidget) -> None:
    """A short stroke in the middle of the canvas."""
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    QTest.mouseMove(canvas, middle)
    QTest.mousePress(canvas, LEFT, NONE, middle)
    for step in range(1, 6):
        QTest.mouseMove(canvas, middle + QPoint(6 * step, 0))
        spin(0.02)
    QTest.mouseRelease(canvas, LEFT, NONE, middle + QPoint(30, 0))


def visit(rounds: int) -> None:
    """Play it; prints a line for each thing that was reached."""
    viewer = napari.Viewer(show=True)
    viewer.add_image(np.random.default_rng(0).random((8, 32, 32), dtype=np.float32), name="scan")
    panel = viewer.window.add_plugin_dock_widget("napari-dinoaugseg")[1]
    controller = panel.controller
    spin(0.3)  # the window is drawn
    click(panel, "Use selected layer")
    assert spin(400, lambda: controller.setup.encoder_expected is not None), "nobody found an encoder"
    reached(f"encoder {controller.setup.encoder_expected}")
    assert spin(400, lambda: "look-for-weights" not in {thread.name for thread in threading.enumerate()})
    reached("libraries")

    layer = viewer.layers["manual"]
    layer.mode = "paint"
    spin(0.2)
    canvas = viewer.window._qt_viewer.canvas.native
    drag(canvas)
    assert spin(5, lambda: controller.session.labels.labelled == [controller.current_slice]), "the stroke is no label"
    painted = layer.data.copy()
    for number in range(rounds):
        list_of_layers = viewer.window._qt_viewer.layers
        list_of_layers.setFocus()
        QTest.keyClick(list_of_layers, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        QTest.keyClick(list_of_layers, Qt.Key.Key_Delete)
        assert len(viewer.layers) == 0
        assert spin(5, lambda: "Bring layers back" in panel.advice.text()), panel.advice.text()
        for _ in range(3):  # the empty viewer is drawn, as often as something passes over its window
            canvas.update()
            spin(0.05)
        click(panel, "Bring layers back")
        assert {"manual", "prediction"} < {layer.name for layer in viewer.layers}
        assert np.array_equal(viewer.layers["manual"].data, painted)
        viewer.layers["manual"].mode = "paint"
        spin(0.2)
        reached(f"back {number + 1}")
    QTimer.singleShot(0, viewer.window._qt_window.close)  # as the person does
    napari.run()
    reached("closed")


if __name__ == "__main__":
    visit(int(sys.argv[1]))
