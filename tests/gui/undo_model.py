"""What a person expects of labels and undo, told as plainly as possible: whole copies of everything, step by step.

It shares no code with the panel. A slice is nothing, painted or accepted. A step is whatever changed the labels of
slices or the classes, or a rejection; undo gives exactly what was there before the step, and shows a slice that it
changed. Not steps: predictions that arrive, the mode for scribbles, moving about, a layer that leaves or comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

OPEN, BACKGROUND, LIMIT = 65535, 65535, 100


@dataclass(frozen=True, eq=False)
class Slice:
    """``kind``: nothing, painted, accepted; ``labels`` (H, W) with OPEN where a scribbled slice is unknown."""

    kind: str = "nothing"
    labels: np.ndarray | None = None
    scribbled: bool = False

    def same(self, other: Slice) -> bool:
        return self.kind == other.kind and (self.labels is other.labels or np.array_equal(self.labels, other.labels))


NOTHING = Slice()


@dataclass
class Moment:
    slices: list[Slice]
    classes: dict[int, tuple[str, str]]
    layer: list[np.ndarray | None]  # (H, W) of each slice as it was seen; None = changed while the layer was gone


Prediction = tuple[np.ndarray, float]


@dataclass
class Step:
    before: Moment
    after: Moment
    back: Callable[[], None] = field(default=lambda: None)
    again: Callable[[], None] = field(default=lambda: None)
    rejected: int | None = None
    erased: dict[int, tuple[Prediction, Prediction]] = field(default_factory=dict)  # by the classes: was, left


class Model:
    def __init__(self, shape: tuple[int, int, int], classes: dict[int, tuple[str, str]]) -> None:
        self.shape = shape
        self.slices = [NOTHING] * shape[0]
        self.layer: list[np.ndarray | None] = list(np.zeros(shape, np.uint16))
        self.gone = False  # whether the layer left the viewer
        self.predicted: dict[int, tuple[np.ndarray, float]] = {}
        self.classes = dict(classes)
        self.former: dict[int, tuple[str, str]] = {}
        self.scribbles = False
        self.undone: list[Step] = []
        self.done: list[Step] = []

    # --- steps ------------------------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        return Moment(list(self.slices), dict(self.classes), list(self.layer))

    def step(self, before: Moment, step: Step | None = None) -> None:
        """After a change: it is a step when labels or classes differ; `step` makes it one in any case."""
        for index, (was, now) in enumerate(zip(before.slices, self.slices, strict=True)):
            if was.same(now):
                self.slices[index] = was
            elif self.gone:
                self.layer[index] = None
        same = all(was is now for was, now in zip(before.slices, self.slices, strict=True))
        if step is None and same and before.classes == self.classes:
            return
        step = step or Step(before, before)
        self.let_predictions_follow(step)
        step.before, step.after = before, self.moment()
        self.done = [*self.done, step][-LIMIT:]
        self.undone = []

    def let_predictions_follow(self, step: Step) -> None:
        """They lose classes that are gone, and get back what the step took from them, where no newer one came."""
        for index, (was, left) in step.erased.items():
            if self.predicted.get(index) is left:
                self.predicted[index] = was
        step.erased = {}
        for index, (labels, sure) in list(self.predicted.items()):
            known = np.isin(labels, [0, *self.classes])
            if not known.all():
                left = (np.where(known, labels, 0).astype(np.uint16), sure)
                step.erased[index] = (self.predicted[index], left)
                self.predicted[index] = left

    def undo(self) -> set[int] | None:
        """Returns the slices one of which is to be seen; None when there was nothing to undo."""
        if not self.done:
            return None
        step = self.done.pop()
        self.undone.append(step)
        return self.go(step, step.after, step.before, step.back)

    def redo(self) -> set[int] | None:
        if not self.undone:
            return None
        step = self.undone.pop()
        self.done.append(step)
        return self.go(step, step.before, step.after, step.again)

    def go(self, step: Step, start: Moment, end: Moment, predictions: Callable[[], None]) -> set[int]:
        """Only what the step changed: a slice that it left alone is seen as it is seen now."""
        changed = {
            index
            for index in range(self.shape[0])
            if start.slices[index] is not end.slices[index] or not look_alike(start.layer[index], end.layer[index])
        }
        held = dict(self.predicted)
        self.slices, self.classes = list(end.slices), dict(end.classes)
        for index in changed:
            self.layer[index] = end.layer[index]
        predictions()
        self.let_predictions_follow(step)
        if changed:
            return changed
        return {i for i in {*held, *self.predicted} if held.get(i) is not self.predicted.get(i)} | (
            {step.rejected} - {None}
        )

    def saw(self, layer: np.ndarray) -> None:
        """What the layer holds after an action; whether it shows the labels is checked where it was looked at."""
        self.layer = [one.copy() for one in layer]
        if self.done and not self.undone:
            self.done[-1].after.layer = list(self.layer)

    # --- painting ---------------------------------------------------------------------------------------------------

    def painted(self, layer: np.ndarray, *, across: bool = False) -> None:
        """A stroke, or another array, made this of the layer; a stroke across slices says nothing of their rest."""
        assert not self.gone
        before = self.moment()
        changed = [i for i in range(self.shape[0]) if not np.array_equal(layer[i], self.layer[i])]
        for index in changed:
            self.meet(layer[index])
            self.slices[index] = self.reading(index, layer[index], across)
        self.layer = [one.copy() for one in layer]
        if changed:
            self.step(before, Step(before, before))

    def reading(self, index: int, values: np.ndarray, across: bool) -> Slice:
        if not values.any():
            return NOTHING
        was = self.slices[index]
        scribbled = (self.scribbles or across) if was.kind == "nothing" else was.scribbled
        labels = values.copy()
        labels[values == 0] = OPEN if scribbled else 0
        labels[values == BACKGROUND] = 0
        return Slice("painted", labels, scribbled)

    def meet(self, values: np.ndarray) -> None:
        for number in np.unique(values):
            if number not in (0, BACKGROUND) and int(number) not in self.classes:
                self.classes[int(number)] = self.former.get(int(number), default_class(int(number)))

    # --- what buttons do; True when it is done, False when it is refused ---------------------------------------------

    def accept(self, index: int) -> bool:
        if self.slices[index].kind == "painted":
            return True
        if index not in self.predicted:
            return False
        before = self.moment()
        self.slices[index] = Slice("accepted", self.predicted[index][0])
        self.step(before)
        return True

    def accept_above(self, confidence: float) -> None:
        before = self.moment()
        for index, (labels, sure) in self.predicted.items():
            if sure >= confidence and self.slices[index].kind == "nothing":
                self.slices[index] = Slice("accepted", labels)
        self.step(before)

    def reject(self, index: int) -> bool:
        if index not in self.predicted:
            return False
        before = self.moment()
        thrown: list[tuple[np.ndarray, float]] = []

        def again() -> None:
            thrown[:] = [self.predicted.pop(index)] if index in self.predicted else []

        def back() -> None:
            if thrown:
                self.predicted.setdefault(index, thrown[0])

        again()
        if self.slices[index].kind == "accepted":
            self.slices[index] = NOTHING
        self.step(before, Step(before, before, back, again, index))
        return True

    def copy(self, index: int, overwrite: bool) -> bool:
        was, predicted = self.slices[index], self.predicted.get(index)
        source = was.labels if was.kind == "accepted" else predicted[0] if predicted else None
        before = self.moment()
        if was.kind == "painted" and not overwrite:
            if predicted is None or not (was.labels == OPEN).any():
                return False
            self.slices[index] = Slice("painted", np.where(was.labels == OPEN, predicted[0], was.labels))
        elif source is None:
            return False
        else:
            self.slices[index] = Slice("painted", source)
        self.step(before)
        return True

    def mark_empty(self, index: int) -> bool:
        was = self.slices[index]
        if was.kind == "painted" and not np.isin(was.labels, [0, OPEN]).all():
            return False
        self.say({index: np.zeros(self.shape[1:], np.uint16)})
        return True

    def clear(self, index: int) -> None:
        before = self.moment()
        self.slices[index] = NOTHING
        self.step(before)

    def say(self, labels: dict[int, np.ndarray], *, meet: bool = False) -> None:
        """Whole slices, painted: filled between, or loaded with classes of their own."""
        before = self.moment()
        for number in {int(n) for one in labels.values() for n in np.unique(one)} - {0} if meet else ():
            self.classes.setdefault(number, default_class(number))
        for index, one in labels.items():
            self.slices[index] = Slice("painted", one)
        self.step(before)

    def ends_around(self, here: int) -> tuple[int, int] | None:
        """The painted slices between which is filled, or None where that is refused."""
        painted = [i for i, one in enumerate(self.slices) if one.kind == "painted"]
        below = max((i for i in painted if i <= here), default=None)
        above = min((i for i in painted if i >= here and i != below), default=None)
        if below is None or above is None:
            return None
        whole = all(not (self.slices[i].labels == OPEN).any() for i in (below, above))
        something = any(self.slices[i].kind == "nothing" for i in range(below + 1, above))
        return (below, above) if whole and something else None

    def sure_mask(self, index: int, otherwise: np.ndarray) -> np.ndarray:
        """The prediction of a slice, if the model is sure enough of it."""
        labels, confidence = self.predicted.get(index, (otherwise, 1.0))
        return labels if confidence >= 0.4 else otherwise

    # --- classes, predictions, layers ---------------------------------------------------------------------------------

    def add_class(self, name: str) -> int:
        before = self.moment()
        number = next(n for n in range(1, 99) if n not in self.classes)
        self.classes[number] = (name, default_class(number)[1])
        self.step(before)
        return number

    def name_class(self, number: int, name: str | None = None, colour: str | None = None) -> None:
        before = self.moment()
        was = self.classes[number]
        self.classes[number] = (name or was[0], colour or was[1])
        self.step(before)

    def remove_class(self, number: int, erase: bool) -> bool:
        holds = any(one.kind == "painted" and (one.labels == number).any() for one in self.slices)
        if holds and not erase:
            return False
        before = self.moment()
        self.former[number] = self.classes.pop(number)
        for index, one in enumerate(self.slices):
            if one.labels is not None and (one.labels == number).any():
                self.slices[index] = self.without(index, one, number)
        self.step(before)
        return True

    def without(self, index: int, one: Slice, number: int) -> Slice:
        """What is left of a slice in the layer decides whether it is labelled at all."""
        values = self.layer[index] if self.layer[index] is not None else shown(one.labels)
        if np.isin(values, [0, number]).all():
            return NOTHING
        gone = OPEN if one.scribbled else 0
        return Slice(one.kind, np.where(one.labels == number, gone, one.labels).astype(np.uint16), one.scribbled)

    def predict(self, index: int, labels: np.ndarray, confidence: float) -> None:
        self.predicted[index] = (np.where(np.isin(labels, list(self.classes)), labels, 0).astype(np.uint16), confidence)


def look_alike(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether a slice looked the same; what it looked like while the layer was gone, nobody saw."""
    return one is None or other is None or np.array_equal(one, other)


def shown(labels: np.ndarray) -> np.ndarray:
    """What a new layer holds: background only stands out where it must, on scribbled slices and empty ones."""
    if not labels.any() or (labels == OPEN).any():
        return np.where(labels == OPEN, 0, np.where(labels == 0, BACKGROUND, labels))
    return labels


def default_class(number: int) -> tuple[str, str]:
    from napari_dinoaugseg.session.labels import new_class

    entry = new_class(number)
    return entry.name, entry.colour
