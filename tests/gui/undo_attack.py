"""Random actions of a person, of scripts and of a worker, on a real viewer and on the model beside it."""

from __future__ import annotations

import random

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.session.fill import fill_between
from tests.gui.undo_model import BACKGROUND
from tests.gui.undo_watched import Action, Watched

WEIGHTS = {
    "stroke": 14,
    "erase": 4,
    "polygon": 2,
    "bucket": 4,
    "script": 3,
    "thick": 1,
    "predict": 9,
    "accept": 5,
    "accept_above": 2,
    "reject": 4,
    "copy": 4,
    "empty": 3,
    "clear": 3,
    "fill_between": 3,
    "add_class": 1,
    "rename": 1,
    "recolour": 1,
    "remove_class": 5,
    "scribbles": 3,
    "go": 6,
    "turn": 2,
    "lose": 1,
    "lose_prediction": 1,
    "restore": 2,
    "replace": 1,
    "misfit": 1,
    "load": 1,
    "undo": 16,
    "redo": 10,
    "wait": 3,
}
ALWAYS = {"stroke", "predict", "undo"}


def actions_of(seed: int, count: int) -> list[Action]:
    """The same for a seed always; each has a seed of its own, so that others can be left out.

    A seed leaves out half of what can be done, so that the rest meets more often.
    """
    rng = random.Random(seed)
    weights = {name: weight for name, weight in WEIGHTS.items() if name in ALWAYS or rng.random() < 0.5}
    names = rng.choices(list(weights), list(weights.values()), k=count)
    looked = rng.choice([0.2, 0.6, 1.0])
    return [(name, rng.getrandbits(32), rng.random() < looked) for name in names]


class Attack(Watched):
    """What can be done; each draws its details from a seed of its own."""

    def run(self, actions: list[Action]) -> None:
        """Raises AssertionError with the log when the panel and the model are not of one mind."""
        try:
            for name, seed, looked in actions:
                self.rng = random.Random(seed)
                self.log.append(name)
                getattr(self, name)()
                self.see()
                if looked:
                    self.look()
            self.there_and_back()
        except Exception as error:
            raise AssertionError("\n".join([*self.log, f"{type(error).__name__}: {error}"])) from error

    def there_and_back(self) -> None:
        """Everything undone gives the start, everything done again the end."""
        end, steps = self.model.moment(), len(self.model.done)
        for _ in range(steps + 1):
            self.take_back("undo")
            self.look()
        for _ in range(len(self.model.undone) + 1):
            self.take_back("redo")
            self.look()
        for _ in range(len(self.model.done) - steps):
            self.take_back("undo")
        self.look()
        assert all(a.same(b) for a, b in zip(end.slices, self.model.slices, strict=True))
        if self.manual is not None:
            for index, seen in enumerate(self.layer()):
                assert end.layer[index] is None or np.array_equal(end.layer[index], seen)

    # --- details ----------------------------------------------------------------------------------------------------

    def any_slice(self) -> int:
        """Few, so that actions meet."""
        return self.rng.choice([self.controller.current_slice, 0, 1, 2])

    def any_number(self) -> int:
        return self.rng.choice([*self.model.classes, *self.model.classes, 0, BACKGROUND, self.rng.choice([7, 300])])

    def any_point(self, index: int) -> tuple[int, int, int]:
        point = [self.rng.randrange(size) for size in self.model.shape[1:]]
        point.insert(self.controller.layers.axis, index)
        return tuple(point)

    def painted(self, text: str, number: int, paint, *, reaches: int = 1) -> None:
        """A tool of napari paints, over so many slices; what it did is seen in the layer.

        In 3-D the layer is hidden: there napari gives nobody a brush, and fails to write for a script.
        """
        if self.manual is None or not self.manual.visible:
            return
        before = self.layer().copy()
        paint()
        after = self.layer()
        self.say(f"{text} with {number}, {(after != before).sum()} pixels")
        assert (after[after != before] == number).all()
        changed = sum((was != now).any() for was, now in zip(before, after, strict=True))
        self.model.painted(after, across=not self.upright or max(changed, reaches) > 1)

    def refusable(self, done: bool, action, *args) -> None:
        """What the model refuses, the panel refuses too, with a sentence."""
        said = len(self.failed)
        action(*args)
        assert (len(self.failed) == said) == done, f"refused: {self.failed[said:]}, expected: {not done}"

    # --- painting ---------------------------------------------------------------------------------------------------

    def stroke(self) -> None:
        self._stroke(self.any_number())

    def erase(self) -> None:
        self._stroke(0)

    def _stroke(self, number: int) -> None:
        index, layer = self.any_slice(), self.manual
        points = [self.any_point(index) for _ in range(self.rng.randrange(1, 4))]

        def paint() -> None:
            layer.brush_size = self.rng.choice([1, 3, 8])
            with layer.block_history():
                for point in points:
                    layer.paint(point, number, refresh=False)
            layer.refresh()

        self.painted(f"on slice {index}", number, paint)

    def polygon(self) -> None:
        index, number = self.any_slice(), self.any_number()
        points = [self.any_point(index) for _ in range(4)]
        self.painted(f"on slice {index}", number, lambda: self.manual.paint_polygon(points, number))

    def bucket(self) -> None:
        index, number = self.any_slice(), self.any_number()

        def paint() -> None:
            self.manual.contiguous = self.rng.random() < 0.7
            self.manual.fill(self.any_point(index), number)

        self.painted(f"on slice {index}", number, paint)

    def script(self) -> None:
        number = self.any_number()
        points = np.array([self.any_point(self.any_slice()) for _ in range(6)])
        self.painted("anywhere", number, lambda: self.manual.data_setitem(tuple(points.T), number))

    def thick(self) -> None:
        index, number = self.any_slice(), self.any_number()

        def paint() -> None:
            self.manual.n_edit_dimensions, self.manual.brush_size = 3, 4
            self.manual.paint(self.any_point(index), number)
            self.manual.n_edit_dimensions = 2

        # A ball of 2.5 of the smallest voxel size around the voxel.
        sizes = np.abs(self.case.display_scale)
        reach = int(2.5 * sizes.min() / sizes[self.controller.layers.axis])
        around = min(index + reach, self.case.n_slices - 1) - max(index - reach, 0) + 1
        self.painted(f"around slice {index}", number, paint, reaches=around)

    @property
    def upright(self) -> bool:
        """Whether slices are seen: else tools paint across them."""
        dims = self.controller.viewer.dims
        return dims.ndisplay == 2 and dims.order[0] == self.controller.layers.axis

    def replace(self) -> None:
        if self.manual is None:
            return
        data = self.manual.data.copy()
        for _ in range(3):
            data[self.any_point(self.any_slice())] = self.rng.choice([0, *self.model.classes])
        if self.rng.random() < 0.3:
            data[...] = 0
        kind = self.rng.choice([np.uint16, np.int64, np.int32, np.uint32])
        self.say(np.dtype(kind))
        self.manual.data = data.astype(kind)
        self.model.painted(np.moveaxis(data, self.controller.layers.axis, 0))

    # --- predictions ------------------------------------------------------------------------------------------------

    def predict(self) -> None:
        index, shape = self.any_slice(), self.model.shape[1:]
        noise = np.random.default_rng(self.rng.getrandbits(32))
        labels = np.zeros(shape, np.uint16)
        for number in self.rng.sample([*self.model.classes, 0, 9], 2):
            labels[noise.random(shape) < 0.3] = number
        confidence = self.rng.choice([0.25, 0.5, 0.75])
        self.say(f"slice {index}")
        self.model.predict(index, labels, confidence)
        made = Prediction(index, labels, noise.random(shape).astype(np.float32), confidence)
        self.controller.jobs.show_event(made, self.controller.session)

    def accept(self) -> None:
        index = self.any_slice()
        self.say(index)
        self.refusable(self.model.accept(index), self.controller.labels.accept, index)

    def accept_above(self) -> None:
        confidence = self.rng.choice([0.3, 0.6])
        self.model.accept_above(confidence)
        self.controller.labels.accept_above(confidence)

    def reject(self) -> None:
        index = self.any_slice()
        self.say(index)
        self.refusable(self.model.reject(index), self.controller.labels.reject, index)

    def copy(self) -> None:
        index, overwrite = self.any_slice(), self.rng.random() < 0.3
        self.say(f"{index} overwrite={overwrite}")
        self.refusable(self.model.copy(index, overwrite), self.controller.labels.copy_to_manual, index, overwrite)

    # --- slices -----------------------------------------------------------------------------------------------------

    def empty(self) -> None:
        index = self.any_slice()
        self.say(index)
        self.refusable(self.model.mark_empty(index), self.controller.labels.mark_empty, index)

    def clear(self) -> None:
        index = self.any_slice()
        self.say(index)
        self.model.clear(index)
        self.controller.labels.clear(index)

    def fill_between(self) -> None:
        ends = self.model.ends_around(self.controller.current_slice)
        if ends is not None:
            below, above = ends
            first, last = (self.model.slices[i].labels for i in ends)
            filled = fill_between(first, last, above - below - 1, self.case.slice_spacing(below))
            between = {
                i: self.model.sure_mask(i, one)
                for i, one in enumerate(filled, below + 1)
                if self.model.slices[i].kind == "nothing"
            }
            self.model.say(between)
            self.say(f"{ends}")
        self.refusable(ends is not None, self.controller.labels.fill_between)

    def load(self) -> None:
        chosen = sorted({self.any_slice(), self.any_slice()})
        values = [0, *self.model.classes, 8]
        shape = self.model.shape[1:]
        noise = np.random.default_rng(self.rng.getrandbits(32))
        loaded = {index: noise.choice(values, shape).astype(np.uint16) for index in chosen}
        path = self.folder / "labels.nii.gz"
        self.case.write_mask(path, lambda index: loaded.get(index, np.zeros(shape, np.uint16)))
        self.controller.flush()
        if self.rng.random() < 0.5:
            # The panel leaves alone what is painted.
            self.controller.labels.take(path, self.case.read_labels(path))
            loaded = {index: labels for index, labels in loaded.items() if self.model.slices[index].kind != "painted"}
        else:
            assert self.controller.session.load_labels(path, chosen) == chosen
            self.controller.labels.show(chosen)
            self.controller.labels.show_classes()
        self.say(list(loaded))
        self.model.say(loaded, meet=True)

    # --- classes ----------------------------------------------------------------------------------------------------

    def any_class(self) -> int:
        accepted = [one.labels for one in self.model.slices if one.kind == "accepted"]
        held = [number for number in self.model.classes if any((labels == number).any() for labels in accepted)]
        return self.rng.choice([*self.model.classes, *held, *held, 5])

    def add_class(self) -> None:
        number = self.model.add_class(name := f"new {self.rng.randrange(99)}")
        self.say(number)
        self.controller.labels.add_class(name)
        assert self.controller.labels.selected_class == number

    def rename(self) -> None:
        number = self.any_class()
        self.refusable(number in self.model.classes, self.controller.labels.rename_class, number, "other")
        if number in self.model.classes:
            self.model.name_class(number, name="other")

    def recolour(self) -> None:
        number, colour = self.any_class(), f"#{self.rng.randrange(2**24):06x}"
        self.refusable(number in self.model.classes, self.controller.labels.recolour_class, number, colour)
        if number in self.model.classes:
            self.model.name_class(number, colour=colour)

    def remove_class(self) -> None:
        number, erase = self.any_class(), self.rng.random() < 0.7
        self.say(f"{number} erase={erase}")
        done = number not in self.model.classes or self.model.remove_class(number, erase)
        self.refusable(done, self.controller.labels.remove_class, number, erase)

    # --- the viewer -------------------------------------------------------------------------------------------------

    def scribbles(self) -> None:
        self.model.scribbles = not self.model.scribbles
        self.say(self.model.scribbles)
        self.controller.labels.set_scribbles(self.model.scribbles)

    def go(self) -> None:
        self.controller.view.go_to(self.rng.randrange(self.case.n_slices))

    def turn(self) -> None:
        dims = self.controller.viewer.dims
        if self.rng.random() < 0.5:
            dims.ndisplay = 5 - dims.ndisplay
        else:
            dims.order = tuple(np.roll(dims.order, 1))

    def lose(self) -> None:
        if self.manual is not None:
            self.controller.viewer.layers.remove(self.manual)
            self.model.gone = True

    def misfit(self) -> None:
        if self.manual is not None:
            self.controller.flush()
            self.manual.data = np.zeros((2, 3, 4), np.uint16)
            self.model.gone = True

    def lose_prediction(self) -> None:
        layer = self.controller.layers.prediction
        if layer is not None:
            self.controller.viewer.layers.remove(layer)

    def restore(self) -> None:
        self.model.gone = False
        self.controller.view.restore_layers()

    def undo(self) -> None:
        for _ in range(self.rng.choice([1, 1, 2, 5])):
            self.take_back("undo")

    def redo(self) -> None:
        for _ in range(self.rng.choice([1, 1, 2, 5])):
            self.take_back("redo")

    def wait(self) -> None:
        """Until the timers did what they do."""
        while self.controller.layers.painting._timer.isActive():
            QApplication.processEvents()
