"""The panel on a real viewer beside the model, and whether both are of one mind."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from napari.layers import Image

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.gui.core import Message
from tests.gui.undo_model import BACKGROUND, OPEN, Model

Action = tuple[str, int, bool]  # what, the seed of its details, whether everything is looked at afterwards


@dataclass
class Watched:
    """One case in a viewer and the model of it."""

    controller: Controller
    case: Case
    folder: Path

    def __post_init__(self) -> None:
        viewer = self.controller.viewer
        image = next((layer for layer in viewer.layers if isinstance(layer, Image)), None)  # the same in every plane
        for layer in [one for one in viewer.layers if one is not image]:
            viewer.layers.remove(layer)
        viewer.dims.ndisplay = 2
        self.controller.labels.set_scribbles(False)
        self.controller.cases.begin(self.case, image=image)
        self.rng = random.Random(0)
        self.book = self.controller.session.labels
        self.book.add_class()
        self.book.add_class("vessel")
        self.book.forget_history()
        self.model = Model(
            (self.case.n_slices, *self.case.slice_shape(0)),
            {entry.number: (entry.name, entry.colour) for entry in self.book.classes},
        )
        self.failed: list[str] = []
        self.log: list[str] = []
        self.controller.notified.connect(self._on_message)

    def end(self) -> None:
        self.controller.notified.disconnect(self._on_message)

    def _on_message(self, message: Message) -> None:
        if message.kind == "error":
            self.failed.append(message.text)

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def manual(self):
        return self.controller.layers.manual

    def layer(self) -> np.ndarray:
        return np.moveaxis(self.manual.data, self.controller.layers.axis, 0)

    def say(self, text: object) -> None:
        self.log[-1] += f" {text}"

    def see(self) -> None:
        assert (self.manual is None) == self.model.gone
        assert not [sentence for sentence in self.failed if "unforeseen" in sentence], self.failed
        if self.manual is not None:
            seen = self.layer()
            for index in range(len(seen)):
                expected = self.model.layer[index]
                if expected is None or not np.array_equal(seen[index], expected):
                    assert shows(seen[index], self.model.slices[index]), f"the layer does not show slice {index}"
            self.model.saw(seen)

    def look(self) -> None:
        self.controller.flush()
        for index, expected in enumerate(self.model.slices):
            said = self.book.of_slice(index)
            kinds = {"painted": said.manual, "accepted": said.accepted}
            for kind, labels in kinds.items():
                wanted = expected.labels if expected.kind == kind else None
                assert (labels is None) == (wanted is None), f"slice {index} should be {expected.kind}"
                assert labels is None or np.array_equal(labels, wanted), f"slice {index}: {kind}\n{labels}\n{wanted}"
                assert labels is None or np.isin(labels, [0, OPEN, *self.model.classes]).all()
            if self.manual is not None:
                assert shows(self.layer()[index], expected), f"the layer does not show slice {index}"
            self.look_at_prediction(index)
        found = {entry.number: (entry.name, entry.colour) for entry in self.book.classes}
        assert found == self.model.classes, f"classes {found}\n{self.model.classes}"

    def look_at_prediction(self, index: int) -> None:
        expected, predicted = self.model.predicted.get(index), self.book.predicted(index)
        assert (predicted is None) == (expected is None), f"prediction of slice {index}"
        if expected is not None:
            assert np.array_equal(predicted, expected[0]), f"prediction of slice {index}"
            assert self.book.confidence[index] == expected[1]
        layer = self.controller.layers.prediction
        if layer is not None:
            one = self.model.slices[index]
            whole = one.kind == "accepted" or (one.kind == "painted" and not (one.labels == OPEN).any())
            seen = np.moveaxis(layer.data, self.controller.layers.axis, 0)[index]
            assert np.array_equal(seen, 0 * seen if whole or expected is None else expected[0]), (
                f"shown prediction of slice {index}"
            )

    # --- taking back ---------------------------------------------------------------------------------------------

    def take_back(self, way: str) -> None:
        """By the key, by a script on the layer, or by ours: all the same."""
        layer = self.manual or self.controller.layers.prediction
        key = {"undo": "Ctrl+Z", "redo": self.rng.choice(["Ctrl+Shift+Z", "Ctrl+Y"])}[way]
        how = self.rng.choice(["ours", "key", "script"])
        if how == "key" and layer is not None:
            next(action for keys, action in layer.keymap.items() if str(keys) == key)(layer)
        elif how == "script" and self.manual is not None:
            getattr(self.manual, way)()
        else:
            getattr(self.controller.layers, way)()
        changed = getattr(self.model, way)()
        here = self.controller.current_slice
        assert not changed or here in changed, f"{way} changed {changed}, and slice {here} is in view"
        if self.manual is not None:
            for index, seen in enumerate(self.layer()):
                expected = self.model.layer[index]
                if expected is None:
                    assert shows(seen, self.model.slices[index]), f"{way}: the layer does not show slice {index}"
                    self.model.layer[index] = seen.copy()
                else:
                    assert np.array_equal(seen, expected), f"{way} gives other pixels on slice {index}"


def shows(values: np.ndarray, one) -> bool:
    """Whether the layer's pixels say of a slice what was said of it."""
    if one.kind == "nothing":
        return not values.any()
    open_pixels = one.labels == OPEN
    meant = np.where(values == BACKGROUND, 0, values)
    if one.scribbled and not np.array_equal(values == 0, open_pixels):
        return False
    return bool(values.any() and (meant[~open_pixels] == one.labels[~open_pixels]).all())
