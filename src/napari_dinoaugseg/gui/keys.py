"""The keys of the plugin. napari ignores keys in a plugin's manifest, so they are bound here.

They are bound to the viewer, and to the layers of the open study as well: napari asks the selected layer first, and C
and X mean something on its image and labels layers (adjust the contrast; swap the selected label with the background).
On every other layer napari's keys stay napari's. Training has Shift, for half a minute of work should not start by a
slip of the finger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from napari_dinoaugseg.gui.reviewing import accept_and_go_on, correct, reject

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.controller import Controller


@dataclass(frozen=True)
class Key:
    """A key and what it does.

    Attributes:
        name: what other modules call it.
        keys: as napari writes it: ``Shift-T``.
        does: for the person, beginning with a verb.
        action: what happens.
    """

    name: str
    keys: str
    does: str
    action: Callable[[Controller], Any]

    @property
    def shown(self) -> str:
        """As people write it: ``Shift+T``."""
        return self.keys.replace("-", "+")


def _train_or_stop(controller: Controller) -> None:
    if controller.busy:
        controller.stop()
    else:
        controller.train()


def _toggle_prediction(controller: Controller) -> None:
    layer = controller.layers.prediction if controller.layers is not None else None
    if layer is not None:
        layer.visible = not layer.visible


KEYS: tuple[Key, ...] = (
    Key("train", "Shift-T", "train, or stop the work that is going on", _train_or_stop),
    Key("next_suggested", "N", "go to the next slice to label or check", lambda c: c.next_suggested()),
    Key("next_labelled", "J", "go to the next labelled slice", lambda c: c.next_labelled(1)),
    Key("previous_labelled", "Shift-J", "go to the labelled slice before", lambda c: c.next_labelled(-1)),
    Key("accept", "A", "accept the prediction of the slice in view, and go on to the next", accept_and_go_on),
    Key("correct", "C", "correct the prediction of the slice in view with the brush", lambda c: correct(c)),
    Key("reject", "X", "reject the prediction of the slice in view", reject),
    Key("toggle_prediction", "H", "hide or show the prediction", _toggle_prediction),
    Key("help", "F1", "show these keys", lambda c: _show_help(c)),
)


def hint(name: str) -> str:
    """The key of an action, for a tooltip: ``Shift+T``."""
    return next(key.shown for key in KEYS if key.name == name)


def tooltip(text: str, name: str) -> str:
    """A tooltip with the key of the action at its end."""
    return f"{text} (key: {hint(name)})"


def bind_keys(viewer: napari.Viewer, controller: Controller) -> None:
    """Bind the keys of one viewer to its controller; keys that another panel of the viewer bound are replaced."""
    unbind_keys(viewer)
    _bindings[id(viewer)] = _Bindings(viewer, controller)


def unbind_keys(viewer: napari.Viewer) -> None:
    """Give the keys back."""
    bindings = _bindings.pop(id(viewer), None)
    if bindings is not None:
        bindings.give_back()


class _Bindings:
    """The keys of one viewer and of the layers of its study. It lives as long as the viewer, whose keys refer to it."""

    def __init__(self, viewer: napari.Viewer, controller: Controller) -> None:
        self._viewer, self._controller = viewer, controller
        self._layers: list[Any] = []
        self._actions = {key.keys: self._action(key) for key in KEYS}
        self._bind(viewer)
        controller.session_changed.connect(self._follow)
        controller.layers_changed.connect(self._follow)
        self._follow()

    def give_back(self) -> None:
        """Bind nothing any more."""
        self._controller.session_changed.disconnect(self._follow, missing_ok=True)
        self._controller.layers_changed.disconnect(self._follow, missing_ok=True)
        for owner in (*self._layers, self._viewer):
            self._unbind(owner)

    def _follow(self) -> None:
        """Bind the keys to the layers of the study that is open now, and to no others."""
        layers = self._controller.layers
        ours = [] if layers is None else [layers.image, layers.prediction, layers.manual]
        for layer in self._layers:
            if not any(layer is one for one in ours):
                self._unbind(layer)
        self._layers = [layer for layer in ours if layer is not None]
        for layer in self._layers:
            self._bind(layer)

    def _bind(self, owner: Any) -> None:
        for keys, action in self._actions.items():
            owner.bind_key(keys, action, overwrite=True)

    def _unbind(self, owner: Any) -> None:
        for keys in self._actions:
            owner.bind_key(keys, None, overwrite=True)

    def _action(self, key: Key) -> Callable[[Any], None]:
        def pressed(_owner: Any) -> None:
            if not self._controller.closed:
                self._controller.guarded(key.action, self._controller)

        # napari lists bound keys by these.
        pressed.__name__, pressed.__doc__ = f"dinoaugseg_{key.name}", f"DINO-AugSeg: {key.does}"
        return pressed


_bindings: WeakValueDictionary[int, _Bindings] = WeakValueDictionary()


def _show_help(controller: Controller) -> None:
    from napari_dinoaugseg.gui.help_popup import show_help

    show_help(controller.viewer)
