"""What ended the process is played in processes of their own (`visit.py`), with software OpenGL as on a remote desktop.

`DINOAUGSEG_TIMES=20` plays it in so many processes, with as many rounds in each as a patient person would go.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TIMES = int(os.environ.get("DINOAUGSEG_TIMES", "1"))
ROUNDS = 3 if TIMES == 1 else 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 * TIMES)]


@pytest.fixture(scope="module")
def visits() -> list[tuple[str, str]]:
    """What each process printed and how it ended, and what it wrote into the terminal besides."""
    # The person's own processes run with as many threads as there are cores.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["LIBGL_ALWAYS_SOFTWARE"] = "1"
    outputs = []
    for _ in range(TIMES):
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-m", "tests.gui.visit", str(ROUNDS)],
            cwd=Path(__file__).resolve().parents[2],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        outputs.append((f"{done.stdout}exit {done.returncode}\n", done.stderr[-4000:]))
    return outputs


def test_pytorch_is_loaded_in_the_background_once_a_layer_is_used(visits):
    for output, errors in visits:
        assert "encoder efficientnet-lite0\nlibraries\n" in output, errors


def test_all_layers_can_be_deleted_and_brought_back_while_painting(visits):
    for output, errors in visits:
        assert f"back {ROUNDS}\n" in output, errors


def test_closing_the_window_writes_no_error_to_the_terminal(visits):
    for output, errors in visits:
        assert output.endswith("closed\nexit 0\n"), errors
        assert "Error" not in errors, errors


def test_an_exiting_program_stops_its_threads_and_waits_for_their_end():
    code = (
        "import time\n"
        "from napari_dinoaugseg.gui.widgets import in_background\n"
        "from napari_dinoaugseg.learning.events import Cancel\n"
        "cancel = Cancel()\n"
        "def work():\n"
        "    while not cancel:\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(0.2)  # a step of a training\n"
        "    print('ended')\n"
        "in_background(work, 'work', cancel)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr
