"""The same with a real PACS, where it is installed: Orthanc, alone in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


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


@pytest.mark.slow
def test_orthanc_gives_series_takes_masks_and_leaves_nothing_half_when_it_dies(tmp_path):
    reason = why_not()
    if reason:
        pytest.skip(reason)

    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "tests.pacs.orthanc", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("All of it holds.\n")
