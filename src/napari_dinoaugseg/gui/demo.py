"""`dinoaugseg demo` on a machine with a display: napari with the panel and the sample case."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.learning.settings import Settings

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.panel import Panel

PLUGIN = "napari-dinoaugseg"
# Tried in a separate process, because Qt aborts the whole process if the display is set but not reachable.
_ASK = "from qtpy.QtWidgets import QApplication; QApplication([])"
_PATIENCE = 60  # seconds
_SIZE = (1400, 900)  # of the first window, in pixels: the panel shows the brushes, and the image has half the width


def has_display() -> bool:
    """Whether a window can be opened: there is a display, and Qt is installed."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        command = [sys.executable, "-c", _ASK]
        asked = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)  # noqa: S603 - a fixed command
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def open_demo(
    viewer: napari.Viewer, changes: Mapping[str, Any], preset: str, weights: Path | None, device: str
) -> Panel:
    """Open the panel and the sample case in a viewer.

    Args:
        viewer: a new viewer.
        changes: settings that differ from the preset.
        preset: fast, balanced, adapt or paper.
        weights: a file or folder with encoder weights, or None.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        SettingsError: an unknown preset or setting.
    """
    from napari_dinoaugseg.gui.core import Change

    settings = Settings.of_preset(preset, **changes)
    panel: Panel = viewer.window.add_plugin_dock_widget(PLUGIN)[1]
    controller = panel.controller
    controller.setup.settings, controller.setup.device, controller.setup.weights = settings, device, weights
    controller.touch(Change.SETTINGS)
    controller.cases.open_sample()
    return panel


def run_window(changes: Mapping[str, Any], preset: str, weights: Path | None, device: str) -> None:
    """Open the demo and wait until its window is closed."""
    import napari
    from napari.settings import get_settings

    is_first = get_settings().application.first_time  # later napari opens its window as the person left it
    viewer = napari.Viewer(title="DINO-AugSeg: brain case")
    open_demo(viewer, changes, preset, weights, device)
    if is_first:
        show_whole_panel(viewer)
    napari.run()


def show_whole_panel(viewer: napari.Viewer) -> None:
    """Enlarge the window, as far as the screen allows, so that the brushes are in view: napari's own begins small."""
    from qtpy.QtCore import QSize

    from napari_dinoaugseg.gui.canvas import main_window

    window = main_window(viewer)
    screen = window.screen() if window is not None else None
    if window is None or screen is None:
        return
    room = screen.availableGeometry()
    border = window.frameGeometry().size() - window.size()
    window.resize(QSize(*_SIZE).boundedTo(room.size() - border).expandedTo(window.size()))
    frame = window.frameGeometry()
    frame.moveCenter(room.center())
    window.move(frame.topLeft())
