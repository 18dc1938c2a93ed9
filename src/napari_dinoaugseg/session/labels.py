"""The classes that a person labels: number, name, colour."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case, VolumeCase
from napari_dinoaugseg.case.case import UNKNOWN, MaskOf, Segment
from napari_dinoaugseg.errors import LabelError, TrainingError

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


# The label book: what a person painted, what they accepted and what was predicted, slice by slice, kept apart.
#
# No prediction ever touches a manual label. Every change goes through one method that remembers what was there, so that
# all of them can be undone. Arrays are kept read-only: what is in the book cannot change behind its back.


__all__ = ["UNKNOWN", "BookContent", "LabelBook", "Labels", "SliceLabels", "Status"]
# UNKNOWN: a pixel that the person left open (scribbles). The loss ignores it, a prediction fills it.

UNDO_LIMIT = 200
"""How many changes can be taken back; each may hold copies of slices."""

Labels = NDArray[np.uint16]
Entry = tuple[str, int]
"""A layer (``manual``, ``accepted``, ``predicted``) and a slice."""


@dataclass(frozen=True)
class _Change:
    """New contents of some slices (None = nothing there), and the classes, where they change."""

    slices: dict[Entry, Labels | None]
    classes: list[LabelClass] | None = None


@dataclass(frozen=True, eq=False)
class SliceLabels:
    """What a person has said about a slice: (H, W) arrays, None = nothing."""

    manual: Labels | None = None
    accepted: Labels | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return self.manual is None and self.accepted is None


@dataclass(frozen=True)
class BookContent:
    """All that a label book holds but what can be undone. The arrays are the book's own: (H, W) uint16, read-only.

    Attributes:
        classes: ascending by number.
        layers: ``manual``, ``accepted`` and ``predicted``: the labels by slice.
        confidence: of the predicted slices, 0 to 1.
        unseen: (layer, slice) of labels that nobody has looked at; None where that was not recorded.
    """

    classes: tuple[LabelClass, ...] = ()
    layers: Mapping[str, Mapping[int, Labels]] = field(default_factory=dict)
    confidence: Mapping[int, float] = field(default_factory=dict)
    unseen: frozenset[Entry] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said of any slice, and nothing predicted."""
        return not any(self.layers.values())


class Status(StrEnum):
    """What is known of a slice; the first that applies, in this order: manual, accepted, predicted, empty."""

    EMPTY = "empty"
    MANUAL = "manual"
    ACCEPTED = "accepted"
    PREDICTED = "predicted"


_EVERY_STATUS = (Status.MANUAL, Status.ACCEPTED, Status.PREDICTED)


def foreign_values(labels: NDArray[np.integer], numbers: Collection[int]) -> list[int]:
    """The values in (H, W) labels that are neither background, nor UNKNOWN, nor among `numbers`; ascending."""
    if labels.dtype != np.uint16:
        return sorted({int(value) for value in np.unique(labels)} - {0, UNKNOWN, *numbers})
    allowed = np.zeros(UNKNOWN + 1, bool)
    allowed[[0, UNKNOWN, *numbers]] = True
    # Classes are numbered from 1, so the largest value mostly settles it: a hundred times faster than np.unique.
    if allowed[: int(labels.max(initial=0)) + 1].all() or allowed.take(labels).all():
        return []
    return [int(value) for value in np.unique(labels) if not allowed[value]]


class LabelBook:
    """Labels of a case with ``shapes[i]`` = (H, W) of slice i."""

    def __init__(self, shapes: Sequence[tuple[int, int]] | Callable[[int], tuple[int, int]], n_slices: int) -> None:
        self._shape_of = shapes if callable(shapes) else shapes.__getitem__
        self.n_slices = n_slices
        self.classes: list[LabelClass] = []
        self._layers: dict[str, dict[int, Labels]] = {"manual": {}, "accepted": {}, "predicted": {}}
        self._confidence: dict[int, float] = {}
        self._unseen: set[Entry] = set()  # filled by the model or by interpolation, and not looked at since
        self._undo: list[_Change] = []
        self._redo: list[_Change] = []

    # --- looking ----------------------------------------------------------------------------------------------------

    def status(self, index: int) -> Status:
        """What is known of a slice."""
        self._check_index(index)
        for status in (Status.MANUAL, Status.ACCEPTED, Status.PREDICTED):
            if index in self._layers[status]:
                return status
        return Status.EMPTY

    def manual(self, index: int) -> Labels | None:
        """What the person painted, (H, W) read-only; None when the slice is not labelled by hand."""
        return self._layers["manual"].get(index)

    def predicted(self, index: int) -> Labels | None:
        """The last prediction, (H, W) read-only."""
        return self._layers["predicted"].get(index)

    @property
    def labelled(self) -> list[int]:
        """Slices to learn from: manual and accepted ones."""
        return sorted({*self._layers["manual"], *self._layers["accepted"]})

    @property
    def confidence(self) -> Mapping[int, float]:
        """Confidence of the predicted slices, 0 to 1."""
        return {index: value for index, value in self._confidence.items() if index in self._layers["predicted"]}

    @property
    def open_slices(self) -> list[int]:
        """Slices that a prediction can add to: those not labelled, and those with pixels left open."""
        labelled = set(self.labelled)
        return [i for i in range(self.n_slices) if i not in labelled or self._has_unknown(i)]

    def shape(self, index: int) -> tuple[int, int]:
        """(H, W) of a slice."""
        self._check_index(index)
        return self._shape_of(index)

    def of_slice(self, index: int) -> SliceLabels:
        """What the person has said about a slice, to be put back later with :meth:`put_back`."""
        self._check_index(index)
        return SliceLabels(self._layers["manual"].get(index), self._layers["accepted"].get(index))

    def holds_paint(self, number: int) -> list[int]:
        """The slices on which a person painted a class."""
        return sorted(index for index, labels in self._layers["manual"].items() if (labels == number).any())

    def truth(self, index: int) -> Labels:
        """What a labelled slice teaches, (H, W), with UNKNOWN where it was left open."""
        for layer in ("manual", "accepted"):
            if index in self._layers[layer]:
                return self._layers[layer][index]
        msg = f"Slice {index} is not labelled."
        raise LabelError(msg)

    def result(self, index: int, include: Iterable[Status] = _EVERY_STATUS, *, reviewed_only: bool = False) -> Labels:
        """The mask of a slice, (H, W): manual exactly as painted, else accepted, else predicted, else background.

        Pixels left open are filled from the prediction when that is included, otherwise with background.

        Args:
            index: the slice.
            include: the layers that count.
            reviewed_only: background instead of labels that nobody has looked at, see :meth:`unseen`.
        """
        wanted = set(include)
        fill = self._layers["predicted"].get(index) if Status.PREDICTED in wanted else None
        if reviewed_only and ("predicted", index) in self._unseen:
            fill = None
        for layer in _EVERY_STATUS:
            labels = self._layers[layer].get(index) if layer in wanted else None
            if labels is None:
                continue
            if reviewed_only and (layer, index) in self._unseen:
                break
            unknown = labels == UNKNOWN
            return np.where(unknown, 0 if fill is None else fill, labels).astype(np.uint16) if unknown.any() else labels
        return np.zeros(self._shape_of(index), np.uint16)

    # --- what was looked at -----------------------------------------------------------------------------------------

    def see(self, index: int) -> bool:
        """A person looks at a slice with all that is on it now. Returns whether something on it was unseen."""
        here = {(layer, index) for layer in self._layers} & self._unseen
        self._unseen -= here
        return bool(here)

    def is_seen(self, layer: str, index: int) -> bool:
        """Whether a person has looked at what a layer holds on a slice."""
        return (layer, index) not in self._unseen

    def unseen(self, include: Iterable[Status] = _EVERY_STATUS) -> list[int]:
        """The slices whose :meth:`result` holds something that nobody has looked at.

        That is a prediction, accepted or not, that was not in view since it came; one that fills the gaps between
        scribbles; or a slice that was filled by interpolation.
        """
        wanted = set(include)
        return [index for index in sorted({index for _, index in self._unseen}) if self._is_unseen(index, wanted)]

    def _is_unseen(self, index: int, wanted: set[Status]) -> bool:
        top = next((layer for layer in _EVERY_STATUS if layer in wanted and index in self._layers[layer]), None)
        if top is None or not self.is_seen(top, index):
            return top is not None
        is_filled = Status.PREDICTED in wanted and index in self._layers["predicted"] and self._has_unknown(index)
        return top is Status.MANUAL and is_filled and not self.is_seen("predicted", index)

    # --- as a whole -------------------------------------------------------------------------------------------------

    def content(self) -> BookContent:
        """All that is in the book now; later changes do not reach it."""
        layers = {layer: dict(slices) for layer, slices in self._layers.items()}
        unseen = frozenset((layer, index) for layer, index in self._unseen if index in layers[layer])
        return BookContent(tuple(self.classes), layers, dict(self._confidence), unseen)

    def take_content(self, content: BookContent) -> None:
        """Replace everything by what :meth:`content` gave; there is nothing to undo afterwards.

        Raises:
            LabelError: labels of another shape, of a slice that is not there or with a value that is no class; the book
                stays as it was.
        """
        made = LabelBook(self._shape_of, self.n_slices)
        made.classes = list(content.classes)
        for layer in made._layers:
            given = content.layers.get(layer, {})
            for index, labels in given.items():
                made._require_fitting(index, labels)
                made._layers[layer][index] = labels  # the same array: whoever kept it knows it again
        self.classes, self._layers = made.classes, made._layers
        self._confidence = {index: content.confidence.get(index, 0.0) for index in self._layers["predicted"]}
        made_by_model = {(layer, index) for layer in ("accepted", "predicted") for index in self._layers[layer]}
        # Where nobody recorded what was looked at, nothing of the model counts as seen.
        self._unseen = made_by_model if content.unseen is None else set(content.unseen)
        self._undo.clear()
        self._redo.clear()

    # --- a person's changes -----------------------------------------------------------------------------------------

    def set_manual(self, index: int, labels: NDArray[np.integer], *, seen: bool = True) -> None:
        """Put what the person painted on a slice; an all-background slice counts as labelled.

        Args:
            index: the slice.
            labels: (H, W).
            seen: False for labels that were computed and that nobody has looked at yet.

        Raises:
            LabelError: another shape, or a value that is neither background, a class, nor UNKNOWN.
        """
        self._apply({("manual", index): self._checked(index, labels), ("accepted", index): None})
        self._note("manual", index, seen=seen)

    def mark_empty(self, index: int) -> None:
        """Say that a slice holds none of the classes."""
        self.set_manual(index, np.zeros(self._shape_of(index), np.uint16))

    def clear(self, index: int) -> None:
        """Take manual and accepted labels off a slice."""
        self._check_index(index)
        self._apply({("manual", index): None, ("accepted", index): None})

    def put_back(self, index: int, said: SliceLabels) -> None:
        """Set what the person has said about a slice, as :meth:`of_slice` gave it: an undo kept elsewhere.

        Raises:
            LabelError: it holds a class that was removed since.
        """
        self._check_index(index)
        manual, accepted = (None if one is None else self._checked(index, one) for one in (said.manual, said.accepted))
        self._apply({("manual", index): manual, ("accepted", index): accepted if manual is None else None})

    def accept(self, index: int) -> None:
        """Take the prediction of a slice as its label. Manual labels stay what they are."""
        self.accept_all([index])

    def accept_all(self, indices: Iterable[int]) -> list[int]:
        """Accept several predictions in one undoable step; returns those that were accepted.

        Slices with manual labels are left out. Raises LabelError when a slice has no prediction.
        """
        chosen = [index for index in indices if index not in self._layers["manual"]]
        for index in chosen:
            self._check_index(index)
            if index not in self._layers["predicted"]:
                msg = f"Slice {index} has no prediction to accept. Train first."
                raise LabelError(msg)
        if chosen:
            self._apply({("accepted", i): self._checked(i, self._layers["predicted"][i]) for i in chosen})
            for index in chosen:
                self._note("accepted", index, seen=self.is_seen("predicted", index))
        return chosen

    def accept_above(self, confidence: float) -> list[int]:
        """Accept every predicted slice with at least this confidence (0 to 1)."""
        return self.accept_all(
            [
                i
                for i, value in sorted(self.confidence.items())
                if value >= confidence and self.status(i) is Status.PREDICTED
            ]
        )

    def reject(self, index: int) -> None:
        """Throw away the prediction of a slice, and its acceptance."""
        self._check_index(index)
        self._apply({("accepted", index): None, ("predicted", index): None})

    def copy_to_manual(self, index: int, *, overwrite: bool = False) -> None:
        """Take the prediction as a starting point for correction by hand.

        Raises:
            LabelError: no prediction; or manual labels are there and ``overwrite`` was not said.
        """
        self._check_index(index)
        if index in self._layers["manual"] and not overwrite:
            msg = f"Slice {index} has manual labels. Copying the prediction would overwrite them."
            raise LabelError(msg)
        layer = "accepted" if index in self._layers["accepted"] else "predicted"
        source = self._layers[layer].get(index)
        if source is None:
            msg = f"Slice {index} has no prediction to copy. Train first."
            raise LabelError(msg)
        self._apply({("manual", index): self._checked(index, source), ("accepted", index): None})
        self._note("manual", index, seen=self.is_seen(layer, index))

    def undo(self) -> bool:
        """Take back the last change of the person; False when there is none."""
        return self._swap(self._undo, self._redo)

    def redo(self) -> bool:
        """Do again what was taken back; False when there is nothing."""
        return self._swap(self._redo, self._undo)

    # --- classes ----------------------------------------------------------------------------------------------------

    def add_class(self, name: str | None = None, number: int | None = None) -> LabelClass:
        """A new class with the next free number. Raises LabelError when the number is taken or out of range."""
        taken = {entry.number for entry in self.classes}
        chosen = number if number is not None else next(n for n in range(1, len(taken) + 2) if n not in taken)
        if chosen in taken:
            msg = f"There is a class number {chosen} already."
            raise LabelError(msg)
        added = new_class(chosen, name)
        self._apply({}, sorted([*self.classes, added], key=lambda entry: entry.number))
        return added

    def rename_class(self, number: int, name: str) -> None:
        """Give a class another name. Raises LabelError for an empty name or a class that is not there."""
        if not name.strip():
            msg = "A class needs a name."
            raise LabelError(msg)
        self._replace_class(number, name=name.strip())

    def recolour_class(self, number: int, colour: str) -> None:
        """Give a class another colour, ``#rrggbb``. Raises LabelError for another colour or no such class."""
        self._replace_class(number, colour=colour)

    def remove_class(self, number: int, *, erase: bool = False) -> None:
        """Remove a class; its pixels become background, which ``undo`` brings back.

        Raises:
            LabelError: the class holds paint and ``erase`` was not said.
        """
        if self.holds_paint(number) and not erase:
            msg = f"Class {number} holds paint. Removing it would erase that paint."
            raise LabelError(msg)
        self._apply({}, [entry for entry in self.classes if entry.number != number])

    # --- the model's changes ----------------------------------------------------------------------------------------

    def set_prediction(self, index: int, labels: NDArray[np.integer], confidence: float, *, seen: bool = False) -> None:
        """Keep the prediction of a slice; replaces the last one, touches nothing else, and no undo takes it back.

        Args:
            index: the slice.
            labels: (H, W).
            confidence: 0 to 1.
            seen: True for one that comes back after a person has looked at it.

        Raises:
            LabelError: another shape, or a value that is no class.
        """
        self._layers["predicted"][index] = self._checked(index, labels)
        self._confidence[index] = confidence
        self._note("predicted", index, seen=seen)
        for change in (*self._undo, *self._redo):
            change.slices.pop(("predicted", index), None)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _note(self, layer: str, index: int, *, seen: bool) -> None:
        if seen:
            self._unseen.discard((layer, index))
        else:
            self._unseen.add((layer, index))

    def _checked(self, index: int, labels: NDArray[np.integer]) -> Labels:
        self._require_fitting(index, labels)
        kept = labels.astype(np.uint16, copy=False)
        if kept is labels and kept.base is None and not kept.flags.writeable:
            return kept  # nobody can change it any more
        kept = np.array(labels, dtype=np.uint16)
        kept.setflags(write=False)
        return kept

    def _require_fitting(self, index: int, labels: NDArray[np.integer]) -> None:
        self._check_index(index)
        shape = self._shape_of(index)
        if labels.shape != shape:
            msg = f"Labels for slice {index} have the shape {labels.shape}; the slice has {shape}."
            raise LabelError(msg)
        foreign = foreign_values(labels, [entry.number for entry in self.classes])
        if foreign:
            msg = f"Labels for slice {index} hold the value {foreign[0]}, which is no class."
            raise LabelError(msg)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.n_slices:
            msg = f"There is no slice {index}; the case has slices 0 to {self.n_slices - 1}."
            raise LabelError(msg)

    def _has_unknown(self, index: int) -> bool:
        manual = self._layers["manual"].get(index)
        return manual is not None and bool((manual == UNKNOWN).any())

    def _erased(self, classes: list[LabelClass]) -> dict[Entry, Labels]:
        """What becomes of slices with a class that is not among these; predictions with it may have come any time."""
        gone = sorted({entry.number for entry in self.classes} - {entry.number for entry in classes})
        return {
            (layer, index): self._checked(index, np.where(np.isin(labels, gone), 0, labels))
            for layer, slices in self._layers.items()
            for index, labels in slices.items()
            if gone and np.isin(labels, gone).any()
        }

    def _replace_class(self, number: int, **changes: Any) -> None:
        if number not in {entry.number for entry in self.classes}:
            msg = f"There is no class number {number}."
            raise LabelError(msg)
        self._apply({}, [replace(entry, **changes) if entry.number == number else entry for entry in self.classes])

    def _apply(self, slices: dict[Entry, Labels | None], classes: list[LabelClass] | None = None) -> None:
        self._undo.append(self._exchange(_Change(slices, classes)))
        del self._undo[:-UNDO_LIMIT]
        self._redo.clear()

    def _swap(self, source: list[_Change], target: list[_Change]) -> bool:
        if not source:
            return False
        target.append(self._exchange(source.pop()))
        return True

    def _exchange(self, change: _Change) -> _Change:
        """Carry out a change and return the one that reverts it."""
        before: dict[Entry, Labels | None] = {}
        erased = {} if change.classes is None else self._erased(change.classes)
        for (layer, index), labels in {**erased, **change.slices}.items():
            before[layer, index] = self._layers[layer].get(index)
            if labels is None:
                self._layers[layer].pop(index, None)
            else:
                self._layers[layer][index] = labels
        reverted = _Change(before, None if change.classes is None else self.classes)
        if change.classes is not None:
            self.classes = change.classes
        return reverted


# A mask with what its labels mean, for the formats that keep it (DICOM SEG).


def is_by_hand(book: LabelBook, n_slices: int, include: Sequence[Status], *, reviewed_only: bool = False) -> bool:
    """Tell whether a person drew all the labels of the slices with these statuses, as they come out of the book."""
    left_out = set(book.unseen(include)) if reviewed_only else set()
    found = {book.status(index) for index in range(n_slices) if index not in left_out} & set(include)
    return found <= {Status.MANUAL}


def write_mask(case: Case, path: Path, masks: MaskOf, classes: Iterable[LabelClass], *, by_hand: bool = False) -> None:
    """Write a mask as :meth:`Case.write_mask` does, and tell a format that asks what its labels mean.

    Args:
        case: whose mask.
        path: where to write.
        masks: gives the labels (H, W) of slice i.
        classes: number, name and colour of the labels in it.
        by_hand: whether a person drew all of it.

    Raises:
        OutputError: it cannot be written.
    """
    if isinstance(case, VolumeCase):
        segments = [Segment(entry.number, entry.name, entry.colour, by_hand) for entry in classes]
        case.write_mask(path, masks, segments)
    else:
        case.write_mask(path, masks)
