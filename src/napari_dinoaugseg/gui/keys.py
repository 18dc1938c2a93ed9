"""The keys of the plugin. napari ignores keys in a plugin's manifest, so they are bound to the viewer here.

All are keys that napari leaves free for a viewer with image and labels layers; a test holds that. Training has Shift,
for half a minute of work should not start by a slip of the finger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def _accept(controller: Controller) -> None:
    if controller.session is not None:
        controller.accept(controller.current_slice)


KEYS: tuple[Key, ...] = (
    Key("train", "Shift-T", "train, or stop the work that is going on", _train_or_stop),
    Key("next_suggested", "N", "go to the next slice to label or check", lambda c: c.next_suggested()),
    Key("next_labelled", "J", "go to the next labelled slice", lambda c: c.next_labelled(1)),
    Key("previous_labelled", "Shift-J", "go to the labelled slice before", lambda c: c.next_labelled(-1)),
    Key("accept", "A", "accept the prediction of the slice in view", _accept),
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
    for key in KEYS:
        viewer.bind_key(key.keys, _bound(key, controller), overwrite=True)


def unbind_keys(viewer: napari.Viewer) -> None:
    """Give the keys back."""
    for key in KEYS:
        viewer.bind_key(key.keys, None, overwrite=True)


def _bound(key: Key, controller: Controller) -> Callable[[Any], None]:
    def pressed(_viewer: Any) -> None:
        if not controller.closed:
            controller.guarded(key.action, controller)

    # napari lists bound keys by these.
    pressed.__name__, pressed.__doc__ = f"dinoaugseg_{key.name}", f"DINO-AugSeg: {key.does}"
    return pressed


def _show_help(controller: Controller) -> None:
    from napari_dinoaugseg.gui.help_popup import show_help

    show_help(controller.viewer)
