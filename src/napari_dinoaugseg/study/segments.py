"""What a label number means, for the formats that can say it (DICOM SEG)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """One class of a mask.

    Attributes:
        number: its value in the mask, 1 to 65535.
        name: for people.
        colour: ``#rrggbb``; None leaves it to the viewer.
        by_hand: whether a person drew all of it.
    """

    number: int
    name: str
    colour: str | None = None
    by_hand: bool = False


def described(numbers: list[int], segments: tuple[Segment, ...]) -> list[Segment]:
    """Return a segment for each that is given or occurs, by number; one that nobody described is `class N`."""
    known = {segment.number: segment for segment in segments}
    return [known.get(number) or Segment(number, f"class {number}") for number in sorted({*numbers, *known} - {0})]
