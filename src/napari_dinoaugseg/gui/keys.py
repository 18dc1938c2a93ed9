"""The keys of the plugin: what they do, their binding, and the help window.

They are bound here, because napari ignores keys in a plugin's manifest: to the viewer, and to the layers of the open
case, because napari asks the active layer first, and C and X have a meaning on its image and labels layers (contrast
limits; swap the selected label with the background). On other layers napari's keys are unchanged. Training needs Shift,
so that half a minute of work does not start by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.canvas import main_window
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.judging import press
from napari_dinoaugseg.gui.widgets import confirmed
from napari_dinoaugseg.gui.windowing import WINDOW_KEYS
from napari_dinoaugseg.gui.words import counted, slice_name
from napari_dinoaugseg.session.labels import Status

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.controller import Controller


def accept_and_go_on(controller: Controller) -> None:
    """Accept the prediction of the slice in view and show the next slice to label or check."""
    session, here = controller.session, controller.current_slice
    if session is None:
        return
    controller.labels.accept(here)
    if session.labels.status(here) is not Status.ACCEPTED:
        return  # the reason is already shown
    found = controller.view.suggestion()
    if found is not None:
        controller.view.go_to(found.index)
        accepted, name = slice_name(session.case, here), slice_name(session.case, found.index)
        words = f"{accepted} accepted; Ctrl+Z undoes it. Next is {name}: {found.reason}."
        words = words[0].upper() + words[1:] if session.case.kind == "volume" else words
        controller.notify(words, "slice")


def correct(controller: Controller, parent: QWidget | None = None) -> None:
    """Copy the prediction of the slice in view into the manual layer, and select the brush."""
    controller.flush()
    session, here = controller.session, controller.current_slice
    if session is None:
        return
    # On scribbled slices only unknown pixels are filled, so nothing is replaced.
    painted = session.labels.status(here) is Status.MANUAL and not session.labels.of_slice(here).is_open
    if painted and session.labels.predicted(here) is not None:
        name = slice_name(session.case, here)
        text = f"You painted {name} by hand. Replace it by the prediction? Ctrl+Z undoes it."
        if not confirmed(parent, "Replace what you painted?", text):
            return
    controller.labels.copy_to_manual(here, overwrite=painted)
    layers = controller.layers
    if layers is not None and layers.manual is not None and session.labels.status(here) is Status.MANUAL:
        controller.viewer.layers.selection.active = layers.manual
        if layers.manual.mode in ("pan_zoom", "transform"):
            layers.manual.mode = "paint"


def reject(controller: Controller) -> None:
    """Discard the prediction of the slice in view."""
    if controller.session is not None:
        controller.labels.reject(controller.current_slice)


def accept_certain(controller: Controller, confidence: float | None, parent: QWidget | None = None) -> None:
    """Accept all predictions with this confidence (0 to 1) or more, or those of another program, after a question."""
    controller.flush()
    session, indices = controller.session, controller.labels.certain_slices(confidence)
    if session is None or not indices:
        return
    count = len(indices)
    unseen = sum(not session.labels.is_seen("predicted", index) for index in indices)
    slices = counted(count, "slice")
    if not unseen:
        looked = "You have looked at it." if count == 1 else "You have looked at all of them."
    elif unseen == count:
        looked = "Nobody has looked at it yet." if count == 1 else "Nobody has looked at any of them yet."
    else:
        looked = f"Nobody has looked at {unseen} of them yet."
    text = f"Accept {slices}? {looked} Training uses accepted slices. Ctrl+Z undoes it."
    if confirmed(parent, f"Accept {slices}?", text):
        controller.labels.accept_above(confidence)


@dataclass(frozen=True)
class Key:
    """A key and what it does.

    Attributes:
        name: for other modules.
        task: under which the help lists it; one of `TASKS`.
        keys: in napari's notation: ``Shift-T``.
        does: a description for the person, beginning with a verb.
        action: called with the controller; what it returns is called once a key that was held is released.
    """

    name: str
    task: str
    keys: str
    does: str
    action: Callable[[Controller], Any]

    @property
    def shown(self) -> str:
        """The key in the usual notation: ``Shift+T``."""
        return self.keys.replace("-", "+")


def _train_or_stop(controller: Controller) -> None:
    if controller.jobs.busy:
        controller.jobs.stop()
    else:
        controller.jobs.train()


def _toggle_prediction(controller: Controller) -> None:
    layer = controller.layers.prediction if controller.layers is not None else None
    if layer is not None:
        layer.visible = not layer.visible


def _window(name: str) -> Callable[[Controller], Any]:
    return lambda controller: controller.windowing.show(name)


def _switch_brush(controller: Controller) -> None:
    rules = controller.paint_rules
    rules.take_brush(smart=controller.tools.active != "smart brush")


_PAINT, _SCRIBBLE, _GO, _REVIEW = "Paint", "Smart scribble", "Go to a slice", "Train and review"
_LOOK, _MEASURE, _PROJECT = "Look", "Measure", "Project"

KEYS: tuple[Key, ...] = (
    Key("train", _REVIEW, "Shift-T", "train, or stop the running work", _train_or_stop),
    Key("next_suggested", _GO, "N", "go to the next slice to label or check", lambda c: c.view.next_suggested()),
    Key("next_labelled", _GO, "J", "go to the next labelled slice", lambda c: c.view.next_labelled(1)),
    Key("previous_labelled", _GO, "Shift-J", "go to the previous labelled slice", lambda c: c.view.next_labelled(-1)),
    Key("accept", _REVIEW, "A", "accept the prediction of the slice in view, and go to the next", accept_and_go_on),
    Key("correct", _REVIEW, "C", "correct the prediction of the slice in view with the brush", lambda c: correct(c)),
    Key("reject", _REVIEW, "X", "reject the prediction of the slice in view", reject),
    Key("next_class", _PAINT, "K", "select the next class", lambda c: c.paint_rules.step_class(1)),
    Key("previous_class", _PAINT, "Shift-K", "select the previous class", lambda c: c.paint_rules.step_class(-1)),
    Key("pick_class", _PAINT, "I", "select the class under the cursor", lambda c: c.paint_rules.pick()),
    Key("smart_brush", _PAINT, "Shift-B", "switch between the smart brush and the plain one", _switch_brush),
    Key("toggle_prediction", _LOOK, "H", "hide or show the prediction", _toggle_prediction),
    Key("swipe", _LOOK, "W", "swipe: the masks end at the cursor (tap, or hold)", lambda c: press(c.judging.swipe)),
    Key(
        "flicker",
        _LOOK,
        "Q",
        "flicker between the prediction of this round and of the last (tap, or hold)",
        lambda c: press(c.judging.flicker),
    ),
    Key("ruler", _MEASURE, "R", "measure a distance: drag from end to end", lambda c: c.ruler.take("distance")),
    Key(
        "angle",
        _MEASURE,
        "Shift-R",
        "measure an angle: click an end, the vertex, the other end",
        lambda c: c.ruler.take("angle"),
    ),
    Key("smart", _SCRIBBLE, "S", "switch Smart scribble on or off", lambda c: c.smart.switch(not c.smart.is_on)),
    Key(
        "background",
        _SCRIBBLE,
        "D",
        "draw the background, or the class again (with scribbles)",
        lambda c: c.smart.swap(),
    ),
    Key("next_case", _PROJECT, "Shift-N", "open the next case of the project", lambda c: c.project.step(1)),
    Key("previous_case", _PROJECT, "Shift-P", "open the previous case of the project", lambda c: c.project.step(-1)),
    Key(
        "done_and_next",
        _PROJECT,
        "Shift-D",
        "mark the case as done, and open the next",
        lambda c: c.project.done_and_next(),
    ),
    Key("next_sequence", _LOOK, "G", "show the next sequence of the case", lambda c: c.view.sequences.step(1)),
    Key(
        "previous_sequence",
        _LOOK,
        "Shift-G",
        "show the previous sequence of the case",
        lambda c: c.view.sequences.step(-1),
    ),
    Key(
        "three_planes",
        _LOOK,
        "F3",
        "show or hide the three planes",
        lambda c: c.planes.switch(not c.planes.is_open, in_turns=True),
    ),
    *(
        Key(f"window_{name.replace(' ', '_')}", _LOOK, keys, f"show the image in the window '{name}'", _window(name))
        for name, keys in WINDOW_KEYS.items()
    ),
    Key("help", _LOOK, "F1", "show these keys", lambda c: show_help(c.viewer)),
)


def hint(name: str) -> str:
    """The key of an action, for a tooltip: ``Shift+T``."""
    return next(key.shown for key in KEYS if key.name == name)


def tooltip(text: str, name: str) -> str:
    """A tooltip that ends with the key of the action."""
    return f"{text} (key: {hint(name)})"


def bind_keys(viewer: napari.Viewer, controller: Controller) -> None:
    """Bind the keys of a viewer to its controller, in place of the bindings of another panel of the viewer."""
    unbind_keys(viewer)
    _bindings[id(viewer)] = _Bindings(viewer, controller)


def unbind_keys(viewer: napari.Viewer) -> None:
    """Remove the bindings of a viewer."""
    bindings = _bindings.pop(id(viewer), None)
    if bindings is not None:
        bindings.remove()


class _Bindings:
    """The bindings of a viewer and of the layers of its case. The viewer's key map keeps this object alive."""

    def __init__(self, viewer: napari.Viewer, controller: Controller) -> None:
        self._viewer, self._controller = viewer, controller
        self._layers: list[Any] = []
        self._actions = {key.keys: self._action(key) for key in KEYS}
        self._bind(viewer)
        controller.followers.append(self)
        self._follow_layers()

    def remove(self) -> None:
        """Remove all bindings."""
        if self in self._controller.followers:
            self._controller.followers.remove(self)
        for owner in (*self._layers, self._viewer):
            self._unbind(owner)

    def follow(self, what: Change) -> None:
        """Update the bindings when the layers of the case change."""
        if what & (Change.SESSION | Change.LAYERS):
            self._follow_layers()

    def _follow_layers(self) -> None:
        """Bind the keys to the layers of the open case, and to no others."""
        layers = self._controller.layers
        ours = [] if layers is None else [layers.image, layers.prediction, layers.manual, layers.proposal]
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

    def _action(self, key: Key) -> Callable[[Any], Any]:
        def pressed(_owner: Any) -> Any:
            found: list[Any] = []
            if not self._controller.closed:
                self._controller.guarded(lambda: found.append(key.action(self._controller)))
            # napari calls it when the key is released, unless that is at once.
            return found[0] if found and callable(found[0]) else None

        # napari shows these in its list of keys.
        pressed.__name__, pressed.__doc__ = f"dinoaugseg_{key.name}", f"DINO-AugSeg: {key.does}"
        return pressed


_bindings: WeakValueDictionary[int, _Bindings] = WeakValueDictionary()


_STEPS = (
    "<b>Case</b>: open a file or folder, or use an image layer that is there.",
    "<b>Label</b>: paint a class on three to five slices, spread over the case; or one stroke inside and one around it "
    "with <b>Smart scribble</b>.",
    "<b>Train</b>: after a minute or so masks appear on the other slices.",
    "<b>Review</b>: go where the model is unsure; accept a slice, correct it, or reject it. Train again.",
    "<b>Export</b>: write the mask in the geometry of the case.",
)

# What else belongs to a task: keys of napari, keys that are bound while they mean something, and the mouse.
_ALSO: dict[str, tuple[tuple[str, str], ...]] = {
    _PAINT: (
        ("P, E, F", "paint, erase, fill"),
        ("[  and  ]", "make the brush smaller or larger"),
        ("3", "polygon: click its corners, then Enter or a double click fills it; right click removes the last corner"),
        ("Right click", "outline: with the brush, move round a shape and back to the start to fill it; Esc drops it"),
        ("B", "paint only over what is free, or over everything"),
        ("Space (hold)", "move the image while painting"),
        ("Ctrl+Z", "undo, also accepting and rejecting"),
    ),
    _SCRIBBLE: (
        ("Enter", "take the outline of Smart scribble as painted"),
        ("Esc", "drop the outline; the strokes stay"),
    ),
    _GO: (("Left, Right", "go to the previous or next slice"),),
    _LOOK: (
        (
            "Ctrl + drag",
            "window (left, right) and level (up, down) of the image; also a drag with the middle button",
        ),
        (
            "Three planes",
            "a click or drag in a small view, and Shift + click in any, moves the crosshair; the wheel goes "
            "through its slices, the right button zooms, a double click shows all; a brush paints across slices",
        ),
    ),
}

_COLUMNS = ((_PAINT, _SCRIBBLE, _MEASURE), (_GO, _REVIEW, _PROJECT), (_LOOK,))
TASKS = tuple(task for tasks in _COLUMNS for task in tasks)
"""What a person wants to do, in the order of the help."""

_COLUMN = 390  # pixels: three of them side by side, so that the help fits a screen of 1280 x 800


class HelpPopup(QDialog):
    """The help window with steps and keys."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("DINO-AugSeg: keys by task")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        columns = QHBoxLayout()
        columns.setSpacing(16)
        for part in help_columns():
            text = QLabel(part, self)
            text.ensurePolished()  # or the height would be that of another font
            text.setTextFormat(Qt.TextFormat.RichText)
            text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            text.setWordWrap(True)
            text.setFixedSize(_COLUMN, text.heightForWidth(_COLUMN))
            columns.addWidget(text, alignment=Qt.AlignmentFlag.AlignTop)
        close = QPushButton("Close")
        close.clicked.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(columns)
        layout.addWidget(close, alignment=Qt.AlignmentFlag.AlignRight)


def help_columns() -> tuple[str, ...]:
    """The content of the help window as HTML: the keys by task in three columns, the steps in the second."""
    steps = "".join(f"<li>{step}</li>" for step in _STEPS)
    order = (
        f"<h3>In this order</h3><ol>{steps}</ol>"
        "<p>Predictions never overwrite what you painted. Research use only; not a medical device.</p>"
    )
    tables = {task: _table(task, [*_rows_of_keys(task), *_ALSO.get(task, ())]) for task in TASKS}
    columns = ["".join(tables[task] for task in tasks) for tasks in _COLUMNS]
    return columns[0], columns[1] + order, columns[2]


def _rows_of_keys(task: str) -> list[tuple[str, str]]:
    """The plugin's keys of a task with what they do; those of the windows are in one row."""
    windows = [key for key in KEYS if key.name.startswith("window_")]
    named = ", ".join(f"{shown} {name}" for name, shown in WINDOW_KEYS.items())
    rows = []
    for key in (key for key in KEYS if key.task == task):
        if key not in windows:
            rows.append((key.shown, key.does))
        elif key is windows[0]:
            rows.append((f"{windows[0].shown} to {windows[-1].shown}", f"show the image in a window: {named}"))
    return rows


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"<h3>{title}</h3><table>{''.join(_row(key, does) for key, does in rows)}</table>"


def _row(key: str, does: str) -> str:
    return f"<tr><td style='white-space: nowrap'><b>{key}</b></td><td style='padding-left: 14px'>{does}</td></tr>"


def show_help(viewer: Any) -> HelpPopup:
    """Open the help window, which does not block the viewer."""
    popup = HelpPopup(main_window(viewer))
    popup.show()
    return popup
