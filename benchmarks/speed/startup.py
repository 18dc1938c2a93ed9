"""(f) From a click on the plugin to the panel: import, discovery, and the panel in an open viewer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.speed.alone import Figures, alone

_REPEATS = 5


def measure() -> list[Figures]:
    """The median of some fresh processes for each."""
    return [
        {"what": "import napari_dinoaugseg", "seconds": _median(import_seconds)},
        {"what": "discovery of the plugin", "seconds": _median(discovery_seconds)},
        {"what": "panel in an open viewer", "seconds": _median(panel_seconds)},
    ]


def import_seconds() -> Figures:
    """In an interpreter that has loaded nothing else."""
    code = "import time; t = time.perf_counter(); import napari_dinoaugseg; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"seconds": float(done.stdout)}


def discovery_seconds() -> Figures:
    """Reading all manifests, ours among them."""
    from npe2 import PluginManager

    started = time.perf_counter()
    manager = PluginManager()
    manager.discover()
    manager.get_manifest("napari-dinoaugseg")
    return {"seconds": time.perf_counter() - started}


def panel_seconds() -> Figures:
    """From the call to the moment at which Qt has drawn it; napari is up."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    QApplication.processEvents()
    started = time.perf_counter()
    viewer.window.add_plugin_dock_widget("napari-dinoaugseg")
    QApplication.processEvents()
    seconds = time.perf_counter() - started
    viewer.close()
    return {"seconds": seconds}


def _median(measure_one: Callable[[], Figures]) -> float:
    found = sorted(alone(measure_one)["seconds"] for _ in range(_REPEATS))
    median: float = found[_REPEATS // 2]
    return round(median, 4)
