"""Long runs of the attacks: no time limit of the suite's, and their figures at the end."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.timeout(3 * 3600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    lines = [str(value) for report in reports for key, value in report.user_properties if key == "figures"]
    if lines:
        terminalreporter.section("attacks survived")
        terminalreporter.write("\n".join([*lines, ""]))
