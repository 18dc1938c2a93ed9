"""What the first training would wait for can be loaded before."""

from __future__ import annotations

import subprocess
import sys

TRAINING = """
import sys
import numpy as np
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.local import load_libraries
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.case import case_from_array

HEAVY = ("torch.nn", "torch._dynamo", "torch.optim", "torchvision", "timm", "pytorch_wavelets", "scipy.ndimage")
assert not [name for name in sys.modules if name.startswith(HEAVY)], "too early"
load_libraries("efficientnet-lite0")
before = set(sys.modules)
settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, steps=1, views=0)
session = Session(case_from_array(np.zeros((3, 64, 64), np.float32)), settings, ComputeConfig("cpu", cache=False))
session.labels.add_class("square")
session.paint(0, np.eye(64, dtype=np.uint16))
for part in (session.train(), session.predict(0)):
    for _ in part:
        pass
print(*sorted(name for name in set(sys.modules) - before if name.startswith(HEAVY)))
"""


def test_a_training_imports_nothing_large_any_more():
    done = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
