"""Available memory, and the share of it for features."""

from __future__ import annotations

from pathlib import Path

import psutil  # type: ignore[import-untyped]

SHARE = 4  # features get a quarter: the case, napari's layers and the training need the rest
_SMALLEST_BUDGET = 64 * 2**20  # bytes
_GROUP = Path("/sys/fs/cgroup")

_limit: int | None = None


def limit_to(size: int | None) -> None:
    """Limit this process, such as one of several workers of a machine, to so many bytes; None = no limit."""
    global _limit
    _limit = size


def available_memory(group: Path = _GROUP) -> int:
    """Bytes that can be allocated without swapping, within the limits of the container and of this process.

    Args:
        group: the folder with the container's limits on Linux.
    """
    left = _available(group)
    if _limit is None:
        return left
    return max(0, min(left, _limit - int(psutil.Process().memory_info().rss)))


def _available(group: Path) -> int:
    machine = int(psutil.virtual_memory().available)
    try:
        limit = int((group / "memory.max").read_text())  # "max" = unlimited
        used = int((group / "memory.current").read_text())
        # Cached files count as used, but are released on demand.
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, min(machine, limit - used + int(kept.get("inactive_file", 0))))
    except (OSError, ValueError):
        return machine


def feature_budget() -> int:
    """Bytes that a feature store may keep in memory."""
    return max(_SMALLEST_BUDGET, available_memory() // SHARE)
