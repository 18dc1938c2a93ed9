"""The classes that a person labels: number, name, colour."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import LabelError, TrainingError
from napari_dinoaugseg.study.segments import Segment

LARGEST_CLASS = 65534  # 65535 marks a pixel that is left open, see labels.UNKNOWN

# Colour-blind safe (Okabe and Ito 2008), in an order in which neighbours differ strongly.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999")


@dataclass(frozen=True)
class LabelClass:
    """One class.

    Attributes:
        number: the value in masks, 1 to 65534; 0 is always the background.
        name: for people.
        colour: ``#rrggbb``.
    """

    number: int
    name: str
    colour: str

    def __post_init__(self) -> None:
        if not 1 <= self.number <= LARGEST_CLASS:
            msg = (
                f"A class cannot have the number {self.number}. "
                f"Choose one from 1 to {LARGEST_CLASS}; 0 is the background."
            )
            raise LabelError(msg)
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            msg = f"A class cannot have the colour {self.colour[:20]!r}. Give it as #rrggbb, like {_COLOURS[0]}."
            raise LabelError(msg)


def new_class(number: int, name: str | None = None) -> LabelClass:
    """A class with a colour of its own, and the name ``class N`` if none is given."""
    return LabelClass(number, name or f"class {number}", _COLOURS[(number - 1) % len(_COLOURS)])


def classes_of(numbers: Iterable[int], segments: Iterable[Segment] = ()) -> list[LabelClass]:
    """Classes for the label values found in masks, ascending; 0 is left out.

    Args:
        numbers: the values.
        segments: name and colour of some of them, as the file of the labels gives them.
    """
    known = {segment.number: segment for segment in segments}
    classes = []
    for number in sorted({int(number) for number in numbers} - {0}):
        segment = known.get(number)
        made = new_class(number, segment.name if segment else None)
        classes.append(replace(made, colour=segment.colour) if segment and segment.colour else made)
    return classes


def with_segments(
    classes: Collection[LabelClass], numbers: Iterable[int], segments: Collection[Segment]
) -> list[LabelClass]:
    """Return the classes of a session once labels were loaded, ascending.

    Args:
        classes: those that the session has. One that still has its default name takes name and colour of its segment;
            a name that a person gave stays.
        numbers: the label values that were loaded.
        segments: what the file says its labels mean; each becomes a class, also where nothing of it is painted yet.

    Raises:
        LabelError: a number that no class can have.
    """
    default = {entry.number for entry in classes if entry.name == new_class(entry.number).name}
    named = default & {segment.number for segment in segments}
    kept = [entry for entry in classes if entry.number not in named]
    wanted = {*numbers, *(segment.number for segment in segments)} - {entry.number for entry in kept}
    return sorted([*kept, *classes_of(wanted, segments)], key=lambda entry: entry.number)


def names_kept(classes: Iterable[LabelClass], segments: Iterable[Segment]) -> list[str]:
    """Return a sentence for each class whose name differs from the one in the file that its labels came from."""
    names = {entry.number: entry.name for entry in classes}
    return [
        f"Class {segment.number} keeps its name {names[segment.number]!r}; the label file calls it {segment.name!r}."
        for segment in segments
        if names.get(segment.number, segment.name) != segment.name
    ]


def to_plain(classes: Iterable[LabelClass]) -> list[dict[str, Any]]:
    """As JSON values."""
    return [asdict(entry) for entry in classes]


def from_plain(values: Iterable[Mapping[str, Any]]) -> list[LabelClass]:
    """From JSON values; KeyError or LabelError when they are not classes."""
    return [LabelClass(int(value["number"]), str(value["name"]), str(value["colour"])) for value in values]


def classes_to_learn(classes: Iterable[LabelClass], labelled: Collection[NDArray[np.integer[Any]]]) -> list[LabelClass]:
    """The classes, when the labels of the labelled slices, (H, W) each, are something to learn from.

    Raises:
        TrainingError: no slice is labelled, or only background is.
    """
    if not labelled:
        msg = "No slice is labelled. Paint at least one slice, then train."
        raise TrainingError(msg)
    if not any(1 <= value <= LARGEST_CLASS for labels in labelled for value in np.unique(labels)):
        msg = "The labelled slices hold only background. Paint at least one class on one slice, then train."
        raise TrainingError(msg)
    return list(classes)
