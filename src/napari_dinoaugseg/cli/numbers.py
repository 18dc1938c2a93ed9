"""Slice numbers as people type them."""

from __future__ import annotations

import re

from napari_dinoaugseg.errors import LabelError

# Six digits are more than any study has slices, and keep a slip of the finger from filling the memory.
_PART = re.compile(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*")


def parse_slices(text: str) -> list[int]:
    """``20,40,60`` or ``10-19,30`` as ascending numbers without repetition.

    Raises:
        LabelError: not such a list.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            msg = f"'{text}' is no list of slices. Write them as 20,40,60 or 10-19; the first slice is 0."
            raise LabelError(msg)
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def parse_counts(text: str, rounds: int) -> list[int]:
    """``1,2,2`` as one positive number a round; a single number counts for every round.

    Raises:
        LabelError: not such a list, or not one number a round.
    """
    parts = [part.strip() for part in text.split(",")]
    if any(not part.isdecimal() or int(part) == 0 for part in parts) or len(parts) not in (1, rounds):
        msg = f"'{text}' is not one number of slices for each of {rounds} rounds. Write it as 1,2,2."
        raise LabelError(msg)
    counts = [int(part) for part in parts]
    return counts * rounds if len(counts) == 1 else counts
