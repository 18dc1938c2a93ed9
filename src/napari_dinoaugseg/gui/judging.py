"""How masks are judged: as outlines or filled, against the image by a swipe, against the last round by a flicker."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QWidget

from napari_dinoaugseg.gui.canvas import canvas_widget, drawn_node, write_on_canvas
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.layers import FILLED, OUTLINED, outline_width_on
from napari_dinoaugseg.gui.setup import preferences, remember_outlines
from napari_dinoaugseg.gui.widgets import single_shot, stop
from napari_dinoaugseg.gui.words import noun_of

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.layers import CaseLayers


_FLICKER = 600  # ms that each prediction is shown
_TALL = 1e6  # more than the height of any canvas, in pixels


class Judging:
    """How the predictions of the open case are drawn. Nothing that is stored or exported changes.

    Painted and accepted labels are always filled, so that they differ from predictions at a glance.

    Attributes:
        outlines: whether predictions are drawn as outlines: the choice in the preferences, until another is made.
        swipe: shows the masks up to the cursor only.
        flicker: shows the predictions of this and of the last round in turn.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.outlines = preferences().outlines
        self.swipe, self.flicker = Swipe(controller), Flicker(controller)
        self._opacity = {False: FILLED, True: OUTLINED}  # of each style, as last seen
        self._drawn: weakref.ref[Labels] | None = None  # the layer that was drawn last, which may be gone
        self._of: weakref.ref[CaseLayers] | None = None  # and of which case

    def draw(self, *, outlines: bool) -> None:
        """Draw predictions as outlines or filled, in the next viewers too."""
        layer = self._layer()
        if layer is not None:
            self._opacity[layer.contour > 0] = layer.opacity
        self.outlines = outlines
        remember_outlines(outlines)
        if layer is not None:
            self._style(layer)
            layer.opacity = self._opacity[outlines]

    def follow(self, what: Change) -> None:
        """Draw a new prediction layer, or that of another case, in the chosen style."""
        self.swipe.follow(what)
        self.flicker.follow(what)
        if not what & (Change.SESSION | Change.LAYERS):
            return
        layer, layers = self._layer(), self.controller.layers
        if layer is None or layers is None:
            return
        is_new = self._drawn is None or self._drawn() is not layer
        if is_new or self._of is None or self._of() is not layers:
            self._style(layer)
        if is_new:
            layer.opacity = self._opacity[self.outlines]

    def dispose(self) -> None:
        """End with the viewer."""
        self.swipe.end()
        self.flicker.end()

    def _layer(self) -> Labels | None:
        layers = self.controller.layers
        return layers.prediction if layers is not None else None

    def _style(self, layer: Labels) -> None:
        layers = self.controller.layers
        if layers is None:
            return
        self._drawn, self._of = weakref.ref(layer), weakref.ref(layers)
        width = outline_width_on(layers) if self.outlines else 0
        if layer.contour != width:
            layer.contour = width


class Swipe:
    """Cuts the masks off at the cursor: left of it they lie over the image, right of it the image is bare.

    Nothing of the layers changes: their drawing is clipped. Switched on and off by a key, or for as long as it is held.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._clipped: list[tuple[Any, Any]] = []  # nodes with their clipper
        self._line: QWidget | None = None
        self._dims = controller.viewer.dims.events.ndisplay

    @property
    def is_on(self) -> bool:
        """Whether masks are cut off."""
        return bool(self._clipped)

    def begin(self) -> None:
        """Cut the masks off at the cursor from now on; in 3-D, or where nothing is shown, nothing happens."""
        controller, layers = self.controller, self.controller.layers
        canvas, viewer = canvas_widget(controller.viewer), controller.viewer
        if self.is_on or layers is None or canvas is None or viewer.dims.ndisplay == 3:
            return
        from vispy.visuals.filters import Clipper  # type: ignore[import-untyped]

        masks = [layer for layer in layers.own if layer is not layers.image]
        nodes = [node for layer in masks if (node := drawn_node(viewer, layer)) is not None]
        if not nodes:
            controller.notify("This version of napari cannot cut masks off. H hides the prediction.", "notice")
            return
        for node in nodes:
            clipper = Clipper()
            node.attach(clipper)
            self._clipped.append((node, clipper))
        self._line = QWidget(canvas)
        self._line.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._line.setStyleSheet("background-color: #e69f00;")
        self._line.show()
        cursor = canvas.mapFromGlobal(QCursor.pos())
        self._cut(cursor.x() if canvas.rect().contains(cursor) else canvas.width() // 2)
        viewer.mouse_move_callbacks.append(self._on_move)
        self._dims.connect(self._on_turned)

    def end(self) -> None:
        """Show the masks whole again."""
        if not self.is_on:
            return
        callbacks = self.controller.viewer.mouse_move_callbacks
        if self._on_move in callbacks:
            callbacks.remove(self._on_move)
        self._dims.disconnect(self._on_turned)
        clipped, self._clipped = self._clipped, []
        for node, clipper in clipped:
            node.detach(clipper)
            node.update()
        if self._line is not None and isalive(self._line):  # type: ignore[no-untyped-call]
            self._line.deleteLater()
        self._line = None

    def follow(self, what: Change) -> None:
        """End before another case, or other layers, are shown."""
        if what & (Change.SESSION | Change.LAYERS):
            self.end()

    def _on_turned(self, *_: object) -> None:
        self.end()  # napari draws the layers with other nodes

    def _on_move(self, _viewer: Any, event: Any) -> None:
        self._cut(int(event.pos[0]))

    def _cut(self, x: int) -> None:
        """Cut the masks off at a column of the canvas, in pixels of Qt."""
        canvas = canvas_widget(self.controller.viewer)
        if canvas is None or self._line is None:
            return
        self._line.setGeometry(x, 0, 1, canvas.height())
        for node, clipper in self._clipped:
            clipper.bounds = (0, 0, max(1.0, x * canvas.devicePixelRatioF()), _TALL)
            node.update()


class Flicker:
    """Shows the prediction of the last round and that of this one in turn, on the slice in view.

    Differences jump to the eye, as stars do in a blink comparator. Only what the layer shows changes, never the label
    book. Switched on and off by a key, or for as long as it is held.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._index: int | None = None  # the slice that flickers
        self._layers: CaseLayers | None = None  # of its case
        self._shows_last = False
        self._timer = single_shot(self._turn)

    @property
    def is_on(self) -> bool:
        """Whether a slice flickers."""
        return self._index is not None

    def begin(self) -> None:
        """Flicker from now on, or notify why the slice in view cannot."""
        session, layers, here = self.controller.session, self.controller.layers, self.controller.current_slice
        if self.is_on or session is None or layers is None or layers.prediction is None:
            return
        noun = noun_of(session.case)
        if session.labels.of_slice(here).is_whole:
            self.controller.notify(f"This {noun} is labelled, so it shows no prediction.", "slice")
        elif self._last() is None:
            self.controller.notify(f"There is no prediction of an earlier round on this {noun} yet.", "slice")
        else:
            layers.prediction.visible = True
            self._index, self._layers, self._shows_last = here, layers, False
            self._turn()

    def end(self) -> None:
        """Show the prediction of this round only."""
        index, self._index = self._index, None
        layers, self._layers = self._layers, None
        stop(self._timer)
        if index is not None and layers is not None:
            if layers is self.controller.layers:
                layers.show_instead(index, None)
            write_on_canvas(self.controller.viewer, "round", "", "bottom_left")

    def follow(self, what: Change) -> None:
        """End with the slice, its prediction, or the case."""
        if not self.is_on:
            return
        moved = what & Change.SLICE and self._index != self.controller.current_slice
        if moved or what & (Change.SESSION | Change.LAYERS | Change.LABELS | Change.CLASSES):
            self.end()

    def _last(self) -> Any:
        session = self.controller.session
        if session is None:
            return None
        numbers = [entry.number for entry in session.labels.classes]
        return session.last_round.labels(self.controller.current_slice, numbers)

    def _turn(self) -> None:
        layers, index = self.controller.layers, self._index
        if layers is None or index is None or self.controller.closed:
            return
        self._shows_last = not self._shows_last
        layers.show_instead(index, self._last() if self._shows_last else None)
        write_on_canvas(
            self.controller.viewer, "round", "last round" if self._shows_last else "this round", "bottom_left"
        )
        self._timer.start(_FLICKER)


def press(mode: Swipe | Flicker) -> Callable[[], None] | None:
    """Switch a mode on or off, as its key does. Returns what ends it when the key is released after being held."""
    if mode.is_on:
        mode.end()
        return None
    mode.begin()
    return mode.end if mode.is_on else None
