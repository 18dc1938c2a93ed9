"""Which files a reader opens: an image from a stranger may name others, and none of them is to be read."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

_opened: list[str] = []


def begin() -> None:
    """Forget what was opened until now, and watch."""
    _start()
    _opened.clear()


def opened(*parts: str) -> list[str]:
    """What was opened since with one of these parts in its name."""
    return [name for name in _opened if any(part in name for part in parts)]


@cache
def _start() -> None:
    sys.addaudithook(_watch)  # it stays until the process ends, so only the child of the harness has it


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _opened.append(str(arguments[0]))
