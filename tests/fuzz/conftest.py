"""All fuzz tests are slow; a long run has no time limit of the suite's."""

from __future__ import annotations

import os
import sys

import pytest

# The harness limits memory and time by means that Windows does not have.
collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []


@pytest.hookimpl(tryfirst=True)  # before the suite leaves out and sorts the slow ones
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seconds = float(os.environ.get("DINOAUGSEG_FUZZ_SECONDS", "600"))
    for item in items:
        if "fuzz" in item.path.parts:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(seconds + 300))
