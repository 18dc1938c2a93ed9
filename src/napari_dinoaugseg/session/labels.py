"""The label book: all labels of a case and the history of their changes; with its classes and label codes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import UNKNOWN, Segment, Slices
from napari_dinoaugseg.errors import LabelError, naming_slices

__all__ = ["UNKNOWN", "BookContent", "Changed", "LabelBook", "Labels", "SliceLabels", "Status"]

Labels = NDArray[np.uint16]
Entry = tuple[str, int]
"""A layer (``manual``, ``accepted``, ``predicted``) and a slice."""

# Label codes, the one table of them. A label is a 16-bit number, and two of them depend on where it stands:
#
#   value       in the book                            on the canvas (napari's layer)    for the loss
#   0           background                             nothing painted                   background
#   1 to 65534  the class                              the class                         the class
#   65535       UNKNOWN, a pixel that scribbles left   BACKGROUND, painted as such       ignored
#
# The canvas has a code for "nothing painted", because that is what an eraser leaves. A canvas of zeros is therefore a
# slice without labels, and a canvas of BACKGROUND is a slice that is labelled and holds no class.

LARGEST_CLASS = 65534
BACKGROUND = 65535
"""Painted background on a canvas."""

UNDO_LIMIT = 100
"""How many actions can be undone."""
UNDO_BYTES = 512 * 2**20
"""How many bytes of labels the history may hold; the last action is always kept."""

# Colour-blind safe (Okabe and Ito 2008), ordered so that neighbours differ strongly.
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
    """A class with the next colour of the palette, and the name ``class N`` if none is given."""
    return LabelClass(number, name or f"class {number}", _COLOURS[(number - 1) % len(_COLOURS)])


def digest_of(slices: Slices, index: int, labels: Labels) -> str:
    """A hash of a slice and its labels (H, W); the same if its case is one of several that are joined."""
    return hashlib.blake2b(slices.slice_fingerprint(index).encode() + labels.tobytes(), digest_size=16).hexdigest()


def classes_of(numbers: Iterable[int], segments: Iterable[Segment] = ()) -> list[LabelClass]:
    """Classes for the label values found in masks, ascending, without 0; `segments` name some of them."""
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
    """The classes of a session after labels were loaded, ascending.

    Args:
        classes: before. A class with its default name takes name and colour of its segment; other names stay.
        numbers: the loaded label values.
        segments: names and colours from the file; each becomes a class, even if none of its pixels is painted.

    Raises:
        LabelError: a number that no class can have.
    """
    default = {entry.number for entry in classes if entry.name == new_class(entry.number).name}
    named = default & {segment.number for segment in segments}
    kept = [entry for entry in classes if entry.number not in named]
    wanted = {*numbers, *(segment.number for segment in segments)} - {entry.number for entry in kept}
    return sorted([*kept, *classes_of(wanted, segments)], key=lambda entry: entry.number)


def names_kept(classes: Iterable[LabelClass], segments: Iterable[Segment]) -> list[str]:
    """A sentence for each class whose name differs from the one in the label file."""
    names = {entry.number: entry.name for entry in classes}
    return [
        f"Class {segment.number} keeps its name {names[segment.number]!r}; the label file calls it {segment.name!r}."
        for segment in segments
        if names.get(segment.number, segment.name) != segment.name
    ]


def to_plain(classes: Iterable[LabelClass]) -> list[dict[str, Any]]:
    """Classes as JSON values."""
    return [asdict(entry) for entry in classes]


def from_plain(values: Iterable[Mapping[str, Any]]) -> list[LabelClass]:
    """Classes from JSON values. Raises KeyError, TypeError, ValueError or LabelError for anything else."""
    return [LabelClass(int(value["number"]), str(value["name"]), str(value["colour"])) for value in values]


@dataclass(frozen=True, eq=False)
class Strokes:
    """The strokes on a slice that a proposal for the whole slice is made from. Arrays are (H, W) and read-only.

    Attributes:
        marks: class numbers, 0 = background, UNKNOWN = no stroke.
        base: the labels of a slice that was labelled before the strokes, whose classes a proposal leaves as they are;
            None if it had no labels.
        taken: whether the labels of the slice already are a proposal made from these strokes.
    """

    marks: Labels
    base: Labels | None = None
    taken: bool = False


@dataclass(frozen=True, eq=False)
class SliceLabels:
    """The painted or accepted labels of a slice. Arrays are (H, W) and read-only.

    Attributes:
        manual: painted labels, None without any.
        accepted: an accepted prediction, None without one.
        scribbled: whether unpainted pixels are unknown instead of background.
        canvas: the labels as the canvas shows them; None = as :func:`to_canvas` writes them.
        seen: False for computed labels that nobody has looked at.
        drawn: the strokes on a slice that is labelled as a whole; None without any.
    """

    manual: Labels | None = None
    accepted: Labels | None = None
    scribbled: bool = False
    canvas: Labels | None = None
    seen: bool = True
    drawn: Strokes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the slice has no labels."""
        return self.manual is None and self.accepted is None

    @property
    def labels(self) -> Labels | None:
        """The labels that count: painted ones, else accepted ones."""
        return self.manual if self.manual is not None else self.accepted

    @cached_property  # reads every pixel, and is asked of all slices at each change
    def is_open(self) -> bool:
        """Whether scribbles left pixels of the slice unknown."""
        return self.manual is not None and bool((self.manual == UNKNOWN).any())

    @property
    def is_whole(self) -> bool:
        """Whether the slice is labelled as a whole, so that no prediction is shown on it."""
        return not (self.is_empty or self.is_open)

    @property
    def strokes(self) -> Strokes | None:
        """The strokes that a proposal for the slice is made from; None without any."""
        return Strokes(self.manual) if self.scribbled and self.manual is not None else self.drawn


def to_canvas(labels: Labels | None, shape: tuple[int, int], *, explicit: bool = False) -> Labels:
    """The canvas (H, W) of a slice with these labels.

    Args:
        labels: as in the book; None = no labels.
        shape: (H, W).
        explicit: write all background as BACKGROUND, so that it stands out beside scribbled slices.
    """
    if labels is None:
        return np.zeros(shape, np.uint16)
    unknown = labels == UNKNOWN
    if explicit or unknown.any() or not labels.any():
        return np.where(unknown, 0, np.where(labels == 0, BACKGROUND, labels)).astype(np.uint16)
    return labels


def from_canvas(canvas: NDArray[np.integer], *, scribbles: bool) -> Labels | None:
    """The labels (H, W) that a canvas means; None where nothing is painted.

    Args:
        canvas: (H, W).
        scribbles: unpainted pixels are unknown; otherwise they are background.
    """
    if not canvas.any():
        return None
    labels = canvas.astype(np.uint16)
    labels[canvas == BACKGROUND] = 0
    if scribbles:
        labels[canvas == 0] = UNKNOWN
    return labels


def same_labels(one: Labels | None, other: Labels | None) -> bool:
    """Whether both are the same labels, or none."""
    if one is None or other is None:
        return one is other
    return one is other or np.array_equal(one, other)


@dataclass(frozen=True)
class Changed:
    """What an action, or its undo, changed.

    Attributes:
        labels: the slices whose painted or accepted labels changed.
        predictions: the slices whose prediction changed.
        classes: whether the classes changed.
    """

    labels: frozenset[int] = frozenset()
    predictions: frozenset[int] = frozenset()
    classes: bool = False

    def __bool__(self) -> bool:
        return bool(self.labels or self.predictions or self.classes)


@dataclass(frozen=True)
class BookContent:
    """All that a label book holds except its history. Arrays are (H, W) uint16, read-only and shared with the book.

    Attributes:
        classes: ascending by number.
        layers: ``manual``, ``accepted`` and ``predicted``: the labels by slice.
        confidence: of the slices that the model predicted, 0 to 1.
        unseen: (layer, slice) of labels that nobody has looked at; None if that was not recorded.
        taken: the predicted slices whose prediction another program made.
    """

    classes: tuple[LabelClass, ...] = ()
    layers: Mapping[str, Mapping[int, Labels]] = field(default_factory=dict)
    confidence: Mapping[int, float] = field(default_factory=dict)
    unseen: frozenset[Entry] | None = None
    taken: frozenset[int] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether no slice has labels or a prediction."""
        return not any(self.layers.values())


class Status(StrEnum):
    """The state of a slice: the first of manual, accepted, predicted and empty that applies."""

    EMPTY = "empty"
    MANUAL = "manual"
    ACCEPTED = "accepted"
    PREDICTED = "predicted"


EVERYTHING = (Status.MANUAL, Status.ACCEPTED, Status.PREDICTED)
_NOTHING = SliceLabels()


def foreign_values(labels: NDArray[np.integer], numbers: Collection[int]) -> list[int]:
    """The values in (H, W) labels that are neither background, nor UNKNOWN, nor among `numbers`; ascending."""
    if labels.dtype != np.uint16:
        return sorted({int(value) for value in np.unique(labels)} - {0, UNKNOWN, *numbers})
    allowed = np.zeros(UNKNOWN + 1, bool)
    allowed[[0, UNKNOWN, *numbers]] = True
    # Classes are numbered from 1, so the largest value usually decides: a hundred times faster than np.unique.
    if allowed[: int(labels.max(initial=0)) + 1].all() or allowed.take(labels).all():
        return []
    return [int(value) for value in np.unique(labels) if not allowed[value]]


_Known = dict[int, tuple[Labels, Labels]]


def _erased(labels: Labels, numbers: Iterable[int], known: _Known) -> Labels:
    """Labels (H, W) with background in place of these numbers, read-only; the same array if it holds none of them.

    Args:
        labels: not changed.
        numbers: of classes.
        known: arrays and what is left of them, by identity: one array is often accepted, drawn and predicted labels.
    """
    if id(labels) in known:
        return known[id(labels)][1]
    left = labels
    for number in numbers:
        found = labels == number
        if found.any():
            left = labels.copy() if left is labels else left
            left[found] = 0
    known[id(labels)] = labels, _frozen(left)  # both, for the identity holds while the array lives
    return left


@dataclass(frozen=True, eq=False)
class _Predicted:
    """The prediction of a slice; without a confidence if another program made it."""

    labels: Labels
    confidence: float | None
    seen: bool


def _is_certain(one: _Predicted, confidence: float | None) -> bool:
    if one.confidence is None or confidence is None:
        return one.confidence is confidence
    return one.confidence >= confidence


def _same_prediction(one: _Predicted | None, other: _Predicted | None) -> bool:
    """Whether two predictions are the same, looked at or not, and also if one of them was read from disk since."""
    if one is None or other is None:
        return one is other
    return one.confidence == other.confidence and same_labels(one.labels, other.labels)


@dataclass(eq=False)
class _Action:
    """One change. It holds the opposite state: what undo restores, and after an undo what redo restores.

    Attributes:
        slices: the labels of the slices that change.
        classes: the classes; None if they do not change.
        predictions: the predictions that it stores, None where it discards one.
        replaced: those that it replaced.
        erased: predictions before they lost a class, with the labels that remained.
    """

    slices: dict[int, SliceLabels] = field(default_factory=dict)
    classes: tuple[LabelClass, ...] | None = None
    predictions: dict[int, _Predicted | None] = field(default_factory=dict)
    replaced: dict[int, _Predicted | None] = field(default_factory=dict)
    erased: dict[int, tuple[_Predicted, Labels]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of its arrays."""
        held = [one for labels in self.slices.values() for one in (labels.manual, labels.accepted, labels.canvas)]
        held += [one for labels in self.slices.values() if (drawn := labels.drawn) for one in (drawn.marks, drawn.base)]
        held += [was.labels for was, _ in self.erased.values()]
        held += [one.labels for one in (*self.predictions.values(), *self.replaced.values()) if one is not None]
        return sum({id(one): one.nbytes for one in held if one is not None}.values())


class LabelBook:
    """What a person painted, what they accepted and what was predicted, slice by slice, and the history of changes.

    No prediction ever touches a manual label. Methods that change labels or classes are actions: :meth:`undo` reverts
    the last one exactly, except that a newer prediction stays. An action that changes nothing is not recorded.
    Predictions of the model are stored outside the history. This is the only history: the window shows the book and
    undoes through it. Arrays are read-only, so the content cannot change from outside. A book belongs to one thread.

    Args:
        shapes: (H, W) of slice i, by index or by call.
        n_slices: of the case.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]] | Callable[[int], tuple[int, int]], n_slices: int) -> None:
        self._shape_of = shapes if callable(shapes) else shapes.__getitem__
        self.n_slices = n_slices
        self._classes: tuple[LabelClass, ...] = ()
        self._slices: dict[int, SliceLabels] = {}  # without empty ones
        self._predicted: dict[int, _Predicted] = {}
        self._former: dict[int, LabelClass] = {}  # removed classes, restored by paint with their number
        self._undo: list[_Action] = []
        self._redo: list[_Action] = []
        self._painted: _Action | None = None  # the last action that paint may continue

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes, ascending by number."""
        return self._classes

    def status(self, index: int) -> Status:
        """The state of a slice."""
        self._check_index(index)
        labels = self._slices.get(index, _NOTHING)
        if labels.manual is not None:
            return Status.MANUAL
        if labels.accepted is not None:
            return Status.ACCEPTED
        return Status.PREDICTED if index in self._predicted else Status.EMPTY

    def manual(self, index: int) -> Labels | None:
        """The painted labels, (H, W) read-only; None if the slice is not labelled by hand."""
        return self._slices.get(index, _NOTHING).manual

    def predicted(self, index: int) -> Labels | None:
        """The last prediction, (H, W) read-only; None without one."""
        found = self._predicted.get(index)
        return found.labels if found is not None else None

    @property
    def labelled(self) -> list[int]:
        """Slices to train on: manual and accepted ones."""
        return sorted(self._slices)

    @property
    def confidence(self) -> Mapping[int, float]:
        """Confidence of the slices that the model predicted, 0 to 1."""
        return {index: one.confidence for index, one in self._predicted.items() if one.confidence is not None}

    @property
    def open_slices(self) -> list[int]:
        """Slices that a prediction can complete: unlabelled ones, and those with unknown pixels.

        A prediction that another program made stays until it is rejected: a model cannot repeat it.
        """
        taken = self._taken
        return [
            i for i in range(self.n_slices) if i not in taken and (i not in self._slices or self._slices[i].is_open)
        ]

    @property
    def _taken(self) -> frozenset[int]:
        return frozenset(index for index, one in self._predicted.items() if one.confidence is None)

    def of_slice(self, index: int) -> SliceLabels:
        """The painted or accepted labels of a slice."""
        self._check_index(index)
        return self._slices.get(index, _NOTHING)

    def canvas(self, index: int) -> Labels:
        """The canvas (H, W) of a slice, in the codes of the table above; read-only."""
        labels = self.of_slice(index)
        if labels.canvas is not None:
            return labels.canvas
        if labels.is_empty:
            return np.broadcast_to(np.uint16(0), self._shape_of(index))
        return to_canvas(labels.labels, self._shape_of(index))

    def lay_out(self, index: int, *, explicit: bool) -> None:
        """Fix how the canvas of a slice shows labels that were not painted on it. Not an action.

        Args:
            index: the slice.
            explicit: see :func:`to_canvas`.
        """
        labels = self.of_slice(index)
        if not labels.is_empty and labels.canvas is None:
            canvas = _frozen(to_canvas(labels.labels, self._shape_of(index), explicit=explicit))
            self._slices[index] = replace(labels, canvas=canvas)

    def holds_paint(self, number: int) -> list[int]:
        """The slices on which a person painted a class."""
        painted = ((index, one.manual) for index, one in self._slices.items() if one.manual is not None)
        return sorted(index for index, labels in painted if (labels == number).any())

    def truth(self, index: int) -> Labels:
        """The training target of a labelled slice, (H, W), UNKNOWN where no label was given."""
        labels = self._slices.get(index, _NOTHING).labels
        if labels is None:
            msg = naming_slices("Slice ", index, " is not labelled.")
            raise LabelError(msg)
        return labels

    def result(self, index: int, include: Iterable[Status] = EVERYTHING, *, reviewed_only: bool = False) -> Labels:
        """The mask of a slice, (H, W): manual exactly as painted, else accepted, else predicted, else background.

        Unknown pixels are filled from the prediction if that is included, otherwise with background.

        Args:
            index: the slice.
            include: the layers that count.
            reviewed_only: background instead of labels that nobody has looked at, see :meth:`unseen`.
        """
        wanted = set(include)
        fill = self.predicted(index) if Status.PREDICTED in wanted else None
        if reviewed_only and not self.is_seen("predicted", index):
            fill = None
        for layer in EVERYTHING:
            labels = self._layer(layer, index) if layer in wanted else None
            if labels is None:
                continue
            if reviewed_only and not self.is_seen(layer, index):
                break
            unknown = labels == UNKNOWN
            return np.where(unknown, 0 if fill is None else fill, labels).astype(np.uint16) if unknown.any() else labels
        return np.zeros(self._shape_of(index), np.uint16)

    # --- what a person has looked at --------------------------------------------------------------------------------

    def see(self, index: int) -> bool:
        """Record that a person looks at a slice. Returns whether something on it was unseen."""
        unseen = False
        if index in self._slices and not self._slices[index].seen:
            self._slices[index], unseen = replace(self._slices[index], seen=True), True
        if index in self._predicted and not self._predicted[index].seen:
            self._predicted[index], unseen = replace(self._predicted[index], seen=True), True
        return unseen

    def is_seen(self, layer: str, index: int) -> bool:
        """Whether a person has looked at the labels of a layer on a slice."""
        if layer == "predicted":
            return index not in self._predicted or self._predicted[index].seen
        return self._layer(layer, index) is None or self._slices[index].seen

    def unseen(self, include: Iterable[Status] = EVERYTHING) -> list[int]:
        """The slices whose :meth:`result` holds something that nobody has looked at.

        That is a prediction, accepted or not, that has not been in view since it was made, also one that fills the gaps
        between scribbles; or an interpolated slice.
        """
        wanted = set(include)
        return [index for index in sorted({*self._slices, *self._predicted}) if self._is_unseen(index, wanted)]

    def _is_unseen(self, index: int, wanted: set[Status]) -> bool:
        top = next((one for one in EVERYTHING if one in wanted and self._layer(one, index) is not None), None)
        if top is None or not self.is_seen(top, index):
            return top is not None
        if top is not Status.MANUAL or Status.PREDICTED not in wanted or self.is_seen("predicted", index):
            return False
        return self._slices[index].is_open

    # --- as a whole -------------------------------------------------------------------------------------------------

    def content(self) -> BookContent:
        """A copy of the content; later changes do not affect it."""
        layers: dict[str, dict[int, Labels]] = {"manual": {}, "accepted": {}, "predicted": {}}
        for index, one in self._slices.items():
            if one.manual is not None:
                layers["manual"][index] = one.manual
            if one.accepted is not None:
                layers["accepted"][index] = one.accepted
        layers["predicted"] = {index: predicted.labels for index, predicted in self._predicted.items()}
        unseen = {(layer, index) for layer in layers for index in layers[layer] if not self.is_seen(layer, index)}
        return BookContent(self._classes, layers, dict(self.confidence), frozenset(unseen), self._taken)

    def take_content(self, content: BookContent) -> None:
        """Replace everything by a :meth:`content`, with an empty history.

        Raises:
            LabelError: a wrong shape, an unknown slice or class; nothing is changed.
        """
        made = LabelBook(self._shape_of, self.n_slices)
        made._classes = tuple(content.classes)
        for given in content.layers.values():
            for index, labels in given.items():
                made._require_fitting(index, labels)
        manual, accepted, predicted = (content.layers.get(name, {}) for name in ("manual", "accepted", "predicted"))

        def seen(layer: str, index: int) -> bool:
            # If it was not recorded what was looked at, no output of the model counts as seen.
            return layer == "manual" if content.unseen is None else (layer, index) not in content.unseen

        # The same arrays: the store recognises by identity what it has already written.
        for index in {*manual, *accepted}:
            both = SliceLabels(manual.get(index), accepted.get(index))
            layer = "manual" if both.manual is not None else "accepted"
            made._slices[index] = replace(both, scribbled=both.is_open, seen=seen(layer, index))
        for index, one in predicted.items():
            confidence = None if index in content.taken else content.confidence.get(index, 0.0)
            made._predicted[index] = _Predicted(one, confidence, seen("predicted", index))
        self._classes, self._slices, self._predicted = made._classes, made._slices, made._predicted
        self._former.clear()
        self.forget_history()

    # --- labels -----------------------------------------------------------------------------------------------------

    def paint(
        self, canvases: Mapping[int, NDArray[np.integer]], *, scribbles: bool = False, continues: bool = False
    ) -> Changed:
        """Take over painted canvases in one action. An unknown class number becomes a class: no paint is refused.

        A labelled slice stays what it is, scribbled or labelled as a whole.

        Args:
            canvases: (H, W) by slice, in the codes of a canvas.
            scribbles: whether slices without labels start as scribbles, and the strokes on slices that are labelled as
                a whole are kept as such, see :class:`Strokes`.
            continues: this continues the stroke of the last call, unless another action came in between.

        Raises:
            LabelError: a wrong shape, a value that no class can have, or an unknown slice; nothing is changed.
        """
        slices: dict[int, SliceLabels] = {}
        new: set[int] = set()
        for index, values in canvases.items():
            self._require_shape(index, values)
            before = self.of_slice(index)
            if np.array_equal(values, self.canvas(index)):
                continue
            new.update(foreign_values(values, [entry.number for entry in self._classes]))
            canvas = _frozen(np.array(values, dtype=np.uint16))
            scribbled = scribbles if before.is_empty else before.scribbled
            labels = canvas if not scribbled and canvas.max() < BACKGROUND else from_canvas(canvas, scribbles=scribbled)
            if labels is None or not canvas.any():
                slices[index] = _NOTHING
            else:
                drawn = self._with_stroke(index, canvas) if scribbles and not (before.is_empty or scribbled) else None
                slices[index] = SliceLabels(manual=_frozen(labels), scribbled=scribbled, canvas=canvas, drawn=drawn)
        met = [self._former.get(number) or new_class(number) for number in sorted(new)]
        classes = tuple(sorted([*self._classes, *met], key=lambda entry: entry.number)) if met else None
        action = _Action(slices, classes)
        first = self._painted if continues and self._undo and self._undo[-1] is self._painted else None
        done = self._do(action)
        if done and first is not None:
            self._undo.pop()
            self._join(first, action)
        elif done:
            self._painted = action
        return done

    def label(
        self,
        slices: Mapping[int, NDArray[np.integer]],
        *,
        classes: Iterable[LabelClass] | None = None,
        seen: bool = True,
    ) -> Changed:
        """Set the manual labels of slices in one action; an all-background slice counts as labelled.

        Args:
            slices: (H, W) by slice, UNKNOWN where a pixel has no label.
            classes: the new classes; None = unchanged.
            seen: False for computed labels that nobody has looked at yet.

        Raises:
            LabelError: a wrong shape, or a value that is neither background, a class, nor UNKNOWN; nothing is changed.
        """
        known = self._classes if classes is None else _ordered(classes)
        numbers = [entry.number for entry in known]
        made = {}
        for index, labels in slices.items():
            kept = self._checked(index, labels, numbers)
            one = SliceLabels(manual=kept, seen=seen)
            made[index] = replace(one, scribbled=one.is_open)
        done = self._do(_Action(self._differing(made), known if known != self._classes else None))
        if seen:
            for index in made:
                if not self._slices[index].seen:
                    self._slices[index] = replace(self._slices[index], seen=True)
        return done

    def complete(self, index: int, labels: NDArray[np.integer]) -> None:
        """Take a proposal that was made from the strokes of a slice as its manual labels, in one action.

        The strokes are kept, so that further ones can change the proposal.

        Args:
            index: the slice.
            labels: (H, W).

        Raises:
            LabelError: the slice has no strokes; a wrong shape, or a value that is not a class.
        """
        strokes = self.of_slice(index).strokes
        if strokes is None:
            msg = naming_slices(
                "Slice ", index, " has no strokes. Draw one inside, and one of the background around it."
            )
            raise LabelError(msg)
        kept = self._checked(index, labels, [entry.number for entry in self._classes])
        one = SliceLabels(manual=kept, drawn=replace(strokes, taken=True))
        self._do(_Action({index: replace(one, scribbled=one.is_open)}))

    def set_manual(self, index: int, labels: NDArray[np.integer], *, seen: bool = True) -> None:
        """Set the manual labels of one slice, see :meth:`label`."""
        self.label({index: labels}, seen=seen)

    def mark_empty(self, index: int) -> None:
        """Label a slice as background only."""
        self._check_index(index)
        self.label({index: np.zeros(self._shape_of(index), np.uint16)})

    def clear(self, index: int) -> None:
        """Remove manual and accepted labels of a slice."""
        self._check_index(index)
        self._do(_Action(self._differing({index: _NOTHING})))

    def accept(self, index: int) -> None:
        """Accept the prediction of a slice as its label. Manual labels are not changed."""
        self.accept_all([index])

    def accept_all(self, indices: Iterable[int]) -> list[int]:
        """Accept several predictions in one action; returns the accepted slices.

        Slices with manual labels are skipped. Raises LabelError if a slice has no prediction.
        """
        chosen = [index for index in indices if self.manual(index) is None]
        numbers = [entry.number for entry in self._classes]
        made = {}
        for index in chosen:
            self._check_index(index)
            predicted = self._predicted.get(index)
            if predicted is None:
                msg = naming_slices("Slice ", index, " has no prediction to accept yet: predictions come from a model.")
                raise LabelError(msg)
            made[index] = SliceLabels(accepted=self._checked(index, predicted.labels, numbers), seen=predicted.seen)
        self._do(_Action(self._differing(made)))
        return chosen

    def certain_slices(self, confidence: float | None) -> list[int]:
        """The slices, ascending, whose mask was predicted with at least this confidence, 0 to 1.

        None gives those whose mask another program made, which have no confidence.
        """
        certain = {index for index, one in self._predicted.items() if _is_certain(one, confidence)}
        return sorted(index for index in certain if self.status(index) is Status.PREDICTED)

    def reject(self, index: int) -> None:
        """Discard the prediction of a slice, and its acceptance."""
        self._check_index(index)
        accepted = self.of_slice(index).accepted
        slices = {} if accepted is None or self.manual(index) is not None else {index: _NOTHING}
        self._do(_Action(slices, predictions={index: None} if index in self._predicted else {}))

    def copy_to_manual(self, index: int, *, overwrite: bool = False) -> None:
        """Copy the prediction to the manual labels, as a starting point for corrections.

        Raises:
            LabelError: no prediction; or the slice has manual labels and `overwrite` is False.
        """
        labels = self.of_slice(index)
        if labels.manual is not None and not overwrite:
            msg = naming_slices("Slice ", index, " has manual labels. Copying the prediction would overwrite them.")
            raise LabelError(msg)
        source = labels.accepted if labels.accepted is not None else self.predicted(index)
        if source is None:
            msg = naming_slices("Slice ", index, " has no prediction to copy yet: predictions come from a model.")
            raise LabelError(msg)
        seen = labels.seen if labels.accepted is not None else self.is_seen("predicted", index)
        self.label({index: source}, seen=seen)

    # --- classes ----------------------------------------------------------------------------------------------------

    def add_class(
        self, name: str | None = None, number: int | None = None, *, reserved: Collection[int] = ()
    ) -> LabelClass:
        """Add a class. Raises LabelError if its number is taken or out of range.

        `number` defaults to the lowest one that is neither taken nor reserved.
        """
        taken = {entry.number for entry in self._classes}
        used = taken | set(reserved)
        chosen = number if number is not None else next(n for n in range(1, len(used) + 2) if n not in used)
        if chosen in taken:
            msg = f"Class number {chosen} already exists."
            raise LabelError(msg)
        added = new_class(chosen, name)
        self.replace_classes([*self._classes, added])
        return added

    def rename_class(self, number: int, name: str) -> None:
        """Rename a class. Raises LabelError for an empty name or an unknown class."""
        if not name.strip():
            msg = "A class needs a name."
            raise LabelError(msg)
        self._replace_class(number, name=name.strip())

    def recolour_class(self, number: int, colour: str) -> None:
        """Change the colour of a class. Raises LabelError unless it is ``#rrggbb``, or for an unknown class."""
        self._replace_class(number, colour=colour)

    def replace_classes(self, classes: Iterable[LabelClass]) -> None:
        """Replace the classes. Predictions lose removed classes.

        Raises:
            LabelError: labelled slices hold a class that would be removed; nothing is changed.
        """
        chosen = _ordered(classes)
        numbers = [entry.number for entry in chosen]
        for number in sorted({entry.number for entry in self._classes} - set(numbers)):
            held = [i for i, one in self._slices.items() if one.labels is not None and (one.labels == number).any()]
            if held:
                msg = naming_slices(
                    f"Class {number} is on slice ", min(held), ". Remove the class with its labels first."
                )
                raise LabelError(msg)
        self._do(_Action(classes=chosen if chosen != self._classes else None))

    def remove_class(self, number: int, *, erase: bool = False) -> None:
        """Remove a class from labels and predictions. A slice that held nothing else becomes unlabelled.

        Raises:
            LabelError: the class holds paint and `erase` is False.
        """
        if self.holds_paint(number) and not erase:
            msg = f"Class {number} holds paint. Removing it would erase that paint."
            raise LabelError(msg)
        gone = next((entry for entry in self._classes if entry.number == number), None)
        if gone is None:
            return
        self._former[number] = gone
        known: _Known = {}
        slices = {
            index: self._without(index, one, number, known)
            for index, one in self._slices.items()
            if one.labels is not None and (one.labels == number).any()
        }
        self._do(_Action(slices, tuple(entry for entry in self._classes if entry.number != number)), known)

    # --- predictions ------------------------------------------------------------------------------------------------

    def set_prediction(
        self, index: int, labels: NDArray[np.integer], confidence: float | None, *, seen: bool = False
    ) -> None:
        """Store the prediction of a slice in place of the last one. It changes no label, and undo does not remove it.

        Args:
            index: the slice.
            labels: (H, W).
            confidence: 0 to 1; None for the mask of another program, see :attr:`open_slices`.
            seen: whether a person has looked at it.

        Raises:
            LabelError: a wrong shape, or a value that is not a class.
        """
        kept = self._checked(index, labels, [entry.number for entry in self._classes])
        self._predicted[index] = _Predicted(kept, confidence, seen)

    def take_predictions(self, masks: Mapping[int, NDArray[np.integer]]) -> Changed:
        """Store masks (H, W) of another program as the predictions of slices, in one action.

        Raises:
            LabelError: a wrong shape, or a value that is not a class; nothing is changed.
        """
        numbers = [entry.number for entry in self._classes]
        made = {index: _Predicted(self._checked(index, one, numbers), None, seen=False) for index, one in masks.items()}
        return self._do(_Action(predictions=dict(made)))

    # --- history ----------------------------------------------------------------------------------------------------

    def undo(self) -> Changed | None:
        """Undo the last action; returns what that changed, None if there is nothing to undo."""
        if not self._undo:
            return None
        action = self._undo.pop()
        self._redo.append(action)
        return self._exchange(action, undoing=True)

    def redo(self) -> Changed | None:
        """Redo the last undone action; returns what that changed, None if there is nothing to redo."""
        if not self._redo:
            return None
        action = self._redo.pop()
        self._undo.append(action)
        return self._exchange(action, undoing=False)

    def forget_history(self) -> None:
        """Clear the history: the present state becomes the starting point."""
        self._undo.clear()
        self._redo.clear()

    def _do(self, action: _Action, known: _Known | None = None) -> Changed:
        """Carry out a new action, which holds the new state, and record it; `known` as for :func:`_erased`."""
        if not action.slices and action.classes is None and not action.predictions:
            return Changed()
        done = self._exchange(action, undoing=False, known=known)
        self._undo.append(action)
        self._redo.clear()
        self._trim()
        return done

    def _trim(self) -> None:
        """Drop the oldest actions beyond the limits."""
        del self._undo[:-UNDO_LIMIT]
        sizes = [action.size for action in self._undo]
        held = sum(sizes)
        while held > UNDO_BYTES and len(self._undo) > 1:
            held -= sizes.pop(0)
            del self._undo[0]

    def _join(self, first: _Action, more: _Action) -> None:
        """Merge two strokes into one action; none if they cancel out."""
        first.slices = {**more.slices, **first.slices}
        first.classes = more.classes if first.classes is None else first.classes
        as_before = first.classes in (None, self._classes) and all(
            same_labels(self.of_slice(index).canvas, before.canvas) and self.of_slice(index).is_empty == before.is_empty
            for index, before in first.slices.items()
        )
        if as_before:
            self._undo.remove(first)
            self._exchange(first, undoing=True)

    def _exchange(self, action: _Action, *, undoing: bool, known: _Known | None = None) -> Changed:
        """Swap the state in the action with the state of the book."""
        predictions: set[int] = set()
        if action.classes is not None:
            before, self._classes = self._classes, action.classes
            action.classes = before
            predictions |= self._update_predictions(action, {} if known is None else known)
        for index, labels in list(action.slices.items()):
            action.slices[index] = self._slices.pop(index, _NOTHING)
            if not labels.is_empty:
                self._slices[index] = labels
        for index, stored in action.predictions.items():
            now = self._predicted.pop(index, None)
            predictions.add(index)
            if not undoing:
                action.replaced[index], now = now, stored
            elif _same_prediction(now, stored):  # else there is a newer one, which stays
                now = action.replaced.pop(index)
            if now is not None:
                self._predicted[index] = now
        return Changed(frozenset(action.slices), frozenset(predictions), action.classes is not None)

    def _update_predictions(self, action: _Action, known: _Known) -> set[int]:
        """Erase removed classes from predictions, or restore what this action erased unless there is a newer one."""
        changed = set()
        for index, (was, left) in action.erased.items():
            now = self._predicted.get(index)
            if now is not None and _same_prediction(now, replace(was, labels=left)):
                self._predicted[index] = replace(was, seen=now.seen)
                changed.add(index)
        action.erased = {}
        removed = {entry.number for entry in action.classes or ()} - {entry.number for entry in self._classes}
        for index, one in list(self._predicted.items()) if removed else ():
            left = _erased(one.labels, removed, known)
            if left is not one.labels:
                action.erased[index] = (one, left)
                self._predicted[index] = replace(one, labels=left)
                changed.add(index)
        return changed

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _layer(self, layer: str, index: int) -> Labels | None:
        if layer == "predicted":
            return self.predicted(index)
        labels = self._slices.get(index, _NOTHING)
        return labels.manual if layer == "manual" else labels.accepted

    def _differing(self, slices: dict[int, SliceLabels]) -> dict[int, SliceLabels]:
        """The slices whose labels differ from those in the book."""
        found = {}
        for index, labels in slices.items():
            now = self.of_slice(index)
            if not (same_labels(now.manual, labels.manual) and same_labels(now.accepted, labels.accepted)):
                found[index] = labels
        return found

    def _with_stroke(self, index: int, canvas: Labels) -> Strokes:
        """The strokes of a slice that is labelled as a whole, with those that change its canvas to this one."""
        labels = self.of_slice(index)
        before = labels.drawn or Strokes(np.full_like(canvas, UNKNOWN), labels.labels)
        stroke = np.where(canvas == BACKGROUND, 0, canvas)
        marks = np.where(canvas != self.canvas(index), stroke, before.marks)
        return Strokes(_frozen(marks.astype(np.uint16)), before.base)

    def _without(self, index: int, labels: SliceLabels, number: int, known: _Known) -> SliceLabels:
        """The labels of a slice without a class, `known` as for :func:`_erased`; none if the canvas is left empty."""
        labels = replace(labels, drawn=None)
        canvas = _erased(self.canvas(index), [number], known)
        if not canvas.any():
            return _NOTHING
        if labels.accepted is not None and labels.manual is None:
            return replace(labels, accepted=_erased(labels.accepted, [number], known), canvas=canvas)
        manual = from_canvas(canvas, scribbles=labels.scribbled)
        return replace(labels, manual=None if manual is None else _frozen(manual), canvas=canvas)

    def _checked(self, index: int, labels: NDArray[np.integer], numbers: Collection[int]) -> Labels:
        self._require_fitting(index, labels, numbers)
        kept = labels.astype(np.uint16, copy=False)
        if kept is labels and kept.base is None and not kept.flags.writeable:
            return kept  # it is immutable
        return _frozen(np.array(labels, dtype=np.uint16))

    def _require_fitting(self, index: int, labels: NDArray[np.integer], numbers: Collection[int] | None = None) -> None:
        self._require_shape(index, labels)
        known = [entry.number for entry in self._classes] if numbers is None else numbers
        foreign = foreign_values(labels, known)
        if foreign:
            msg = naming_slices("Labels for slice ", index, f" hold the value {foreign[0]}, which is not a class.")
            raise LabelError(msg)

    def _require_shape(self, index: int, labels: NDArray[np.integer]) -> None:
        self._check_index(index)
        shape = self._shape_of(index)
        if labels.shape != shape:
            msg = naming_slices("Labels for slice ", index, f" have the shape {labels.shape}; the slice has {shape}.")
            raise LabelError(msg)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.n_slices:
            msg = naming_slices(
                "Slice ", index, " does not exist; the case has slices ", 0, " to ", self.n_slices - 1, "."
            )
            raise LabelError(msg)

    def _replace_class(self, number: int, **changes: Any) -> None:
        if number not in {entry.number for entry in self._classes}:
            msg = f"Class number {number} does not exist."
            raise LabelError(msg)
        self.replace_classes(replace(one, **changes) if one.number == number else one for one in self._classes)


def is_by_hand(book: LabelBook, include: Iterable[Status], *, reviewed_only: bool = False) -> bool:
    """Whether a person painted every label in the :meth:`LabelBook.result` of these layers."""
    wanted = set(include)
    left_out = set(book.unseen(wanted)) if reviewed_only else set()
    found = {book.status(index) for index in range(book.n_slices) if index not in left_out} & wanted
    return found <= {Status.MANUAL}


def _ordered(classes: Iterable[LabelClass]) -> tuple[LabelClass, ...]:
    return tuple(sorted(classes, key=lambda entry: entry.number))


def _frozen(labels: Labels) -> Labels:
    labels.setflags(write=False)
    return labels


@dataclass(frozen=True, eq=False)
class History:
    """What can be undone and redone in a label book, with the labels and classes that it starts from."""

    classes: tuple[LabelClass, ...]
    slices: Mapping[int, SliceLabels]
    undo: Sequence[_Action]
    redo: Sequence[_Action]

    @property
    def size(self) -> int:
        """Bytes of its arrays."""
        return sum(action.size for action in (_Action(dict(self.slices)), *self.undo, *self.redo))


def history_of(book: LabelBook) -> History:
    """The history of a book that is not changed any more."""
    return History(book._classes, book._slices, book._undo, book._redo)


def continue_history(book: LabelBook, history: History) -> bool:
    """Let a book without a history go on with that of an earlier book of its case, if it holds what that one held.

    Predictions may differ: newer ones stay, as in :meth:`LabelBook.undo`.

    Returns:
        Whether labels and classes are the same, so that it does.
    """
    if book._classes != history.classes or book._slices.keys() != history.slices.keys():
        return False
    for index, one in book._slices.items():
        was = history.slices[index]
        if not (same_labels(one.manual, was.manual) and same_labels(one.accepted, was.accepted)):
            return False
    book._undo, book._redo = list(history.undo), list(history.redo)
    return True
