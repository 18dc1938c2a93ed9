"""Whether this program may use the network.

It uses it for two things, and only when a person asks for them: to download encoder weights, and to find, fetch and
send DICOM at a PACS. (Workers of a cluster are reached by the scheduler's address that a person gives.)
"""

from __future__ import annotations

import os

VARIABLE = "DINOAUGSEG_OFFLINE"
_YES = ("1", "true", "yes", "on")


def is_offline() -> bool:
    """Whether the person forbade the network, by an option, in the preferences or in the environment."""
    return os.environ.get(VARIABLE, "").strip().lower() in _YES


def go_offline() -> None:
    """Forbid the network from now on, here and in processes started from here."""
    os.environ[VARIABLE] = "1"


def go_online() -> None:
    """Allow the network again."""
    os.environ.pop(VARIABLE, None)
