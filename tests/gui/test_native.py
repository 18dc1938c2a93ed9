"""PyTorch can be loaded after a window was drawn: in a process of its own, for the failure is a crash."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import napari
import numpy as np
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer(show=True)
viewer.add_image(np.zeros((3, 8, 8), np.float32))
for _ in range(20):
    QApplication.processEvents()
from napari_dinoaugseg.gui.native import keep_llvm_apart
keep_llvm_apart()
import timm
keep_llvm_apart()
viewer.layers[0].data = np.ones((3, 8, 8), np.float32)
print("drawn", viewer.screenshot(flash=False).mean() > 0)
viewer.close()
"""


def test_pytorch_loads_after_the_window_was_drawn():
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", CODE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "drawn True" in done.stdout
