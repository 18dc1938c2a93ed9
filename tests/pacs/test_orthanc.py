"""The same with a real PACS, where it is installed: Orthanc, alone in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

LOOP = "test_a_series_is_fetched_labelled_and_its_masks_are_read_back_from_the_pacs_by_others"


def why_not() -> str:
    """Why Orthanc cannot run here; empty if it can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "Orthanc is tested in a network namespace, which only Linux has"
    # Also where it is not on the path of the person.
    if not Path("/usr/sbin/Orthanc").exists() or not Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").exists():
        return "Orthanc is not installed: tools/install_orthanc.sh does it on Debian"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        return "this person may not make a network namespace: root may"
    return ""


def run_alone(*command: str, **variables: str) -> str:
    """Run a command of Python in a network of its own; returns what it printed, or skips where that cannot be."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    done = subprocess.run(
        ["unshare", "-n", sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_orthanc_gives_series_takes_masks_and_leaves_nothing_half_when_it_dies(tmp_path):
    assert run_alone("-m", "tests.pacs.orthanc", str(tmp_path)).endswith("All of it holds.\n")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_loop_of_the_panel_holds_with_orthanc(tmp_path):
    loop = f"{REPOSITORY}/tests/gui/test_pacs.py::{LOOP}"
    options = ("-q", "-p", "no:cacheprovider", "-o", "timeout=540", f"--basetemp={tmp_path / 'inside'}")
    assert "1 passed" in run_alone("-m", "pytest", *options, loop, DINOAUGSEG_TEST_ORTHANC="yes")
