"""One window with the panel and an open case for many tests, instead of a new one for each.

Most tests need nothing of a new window: they open the same case and do one deed. Window, panel, case and the first
drawing take 2.5 s; the next case in the same window takes 0.2 s, because the program keeps its layers. So the window
stays, and each test opens the case again in it, as a person does who begins again.

A test must not depend on the one before. All that can be seen of the program's and napari's state is written down when
a new window has opened the case (`state_of`), and again each time the case has been opened once more. Where the two
differ, which means that the test before has left something that opening a case does not put back, the window is closed
and the test gets a new one. A test that fails leaves no window behind either.
"""

from __future__ import annotations

import contextlib
import gc
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qtpy.compat import isalive
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QWidget

from napari_dinoaugseg.case.array import ArrayCase
from tests.conftest import look_at_everything

SIMPLE = (bool, int, float, complex, str, bytes, type(None), Enum, Path, np.generic)
# The number of the job; whether it looks for weights, is to save the view or to show what has changed, and sliders that
# napari replaced, which come and go by themselves; what the three planes showed when they were open; what the ruler
# held when it was on; where the camera was before the last look in 3-D.
PASSING = (
    *("jobs.count", "head._work", "encoder._looking", "encoder._timer", "saving._dirty", "saving._timer"),
    *("reading._sliders", "controller._pending", "controller._timer", "planes._place", "planes._seen"),
    *("ruler._mode", "ruler._preview", "surfaces._aim_before"),
)
# For a list that drops down, by Qt, and for a menu.
MADE_LATER = {"QMenu", "QListView", "QScrollBar", "QFrame", "QLineEdit", "QtPrivateContainer"}
# Events that only napari listens to, once more to a layer that was made for a case of another kind.
NAPARIS_OWN = {"extent", "locked", "locked_data_level"}


class KeptWindow:
    """A viewer with the panel that outlives a test.

    Args:
        request: of the fixture that makes it.
        qtbot: of pytest-qt.
        build: makes the panel in a viewer.
        open_case: opens the case in it.
    """

    def __init__(
        self, request: pytest.FixtureRequest, qtbot: Any, build: Callable[[Any], Any], open_case: Callable[[Any], None]
    ) -> None:
        self._node = SimpleNamespace(rep_call=SimpleNamespace(failed=False))
        self._ends = contextlib.ExitStack()
        self.panel = build(self._make_viewer(request, qtbot))
        controller = self.panel.controller
        self._settings, self._tolerance = controller.setup.settings, controller.paint_rules.tolerance
        open_case(controller)
        qtbot.waitUntil(lambda: controller.setup.weights_found is not None, timeout=60_000)  # it looks for them once
        self._folds = {title: fold.title.isChecked() for title, fold in self.panel.folds.items()}
        self._slots = {id(signal): len(signal) for signal in controller._signals()}
        open_case(controller)  # as for all later tests: the canvas has its size by now
        self._open_case = open_case
        self._point, self._brush = controller.viewer.dims.point, controller.layers.manual.brush_size
        controller.guard.look()  # as it does when the view moves
        self.new = state_of(self.panel)

    def _make_viewer(self, request: pytest.FixtureRequest, qtbot: Any) -> Any:
        """With napari's own fixtures, which look for what a closed window leaves behind."""
        from napari.utils import _testsupport

        patch = self._ends.enter_context(pytest.MonkeyPatch.context())
        asked = SimpleNamespace(config=request.config, module=request.module, keywords=(), node=self._node)
        application = self._ends.enter_context(_generator(_testsupport.mock_app_model)())
        make = self._ends.enter_context(
            _generator(_testsupport.make_napari_viewer)(qtbot, asked, application, patch),
        )
        return make(show=True)

    def rest(self) -> None:
        """Save the labels of a test where they belong to: to its own folder."""
        self.panel.controller.saving.secure()

    def begin_again(self) -> None:
        """Open the case; put back what that does not: the person's choices, messages, what a test listens to."""
        panel, controller = self.panel, self.panel.controller
        for signal in controller._signals():
            del signal._slots[self._slots[id(signal)] :]
        controller.smart.switch(False)
        for title, fold in panel.folds.items():
            fold.set_open(self._folds[title])
        if controller.session is not None and isinstance(controller.session.case, ArrayCase):
            controller.cases.close()  # its image is the person's: it would be hidden, and the panel would say so
        self._remove_others()
        controller.paint_rules.set_tolerance(self._tolerance)
        controller.labels.scribbles = False
        if controller.live.is_on:
            controller.live.switch(False)
        controller.project.ahead.stop()
        controller.planes.switch(False)
        controller.setup.settings = self._settings
        panel.message.clear()
        panel._fade.stop()
        panel._noted = -1.0
        self._forget_work()
        self._open_case(controller)
        controller.viewer.dims.point = self._point  # opening moves along the slices only
        controller.layers.manual.brush_size = self._brush
        controller.guard.look()

    def _remove_others(self) -> None:
        """Remove layers and docks that a new window does not have, and what was asked and told of images and files."""
        panel, controller, layers = self.panel, self.panel.controller, self.panel.controller.layers
        own = () if layers is None else (layers.image, layers.manual, layers.prediction)
        for layer in [layer for layer in controller.viewer.layers if layer not in own]:
            controller.viewer.layers.remove(layer)
        window = controller.viewer.window
        for widget in [widget for name, widget in window.dock_widgets.items() if name != "DINO-AugSeg"]:
            window.remove_dock_widget(widget)
        controller.cases.decline_offer()
        panel.offer.text.clear()
        panel.resume.choice.clear()
        panel.resume.text.clear()
        panel.resume.problems.clear()
        panel.label.picture.show_text("")
        panel.label.position.clear()
        panel.label.masks_offer.text.clear()
        panel.label.masks_offer.text.setToolTip("")
        panel.export.result.clear()
        panel.measure.result.clear()

    def _forget_work(self) -> None:
        """Put back what the Train section keeps, out of sight, of a training that has ended."""
        controller, section, head = self.panel.controller, self.panel.train, self.panel.train.head
        head.doing.clear()
        head.bar.setRange(0, 100)
        head.bar.resetFormat()
        head.bar.reset()
        head.pace.forget()
        head._job, head._shown = None, 0.0
        section._stage = None
        section.curve._timer.stop()
        section.curve.start(1)
        controller.jobs.last_stage = None

    def close(self, *, failed: bool = False) -> None:
        """Close the window; napari's fixture says what is left of it, except after a test that failed."""
        look_at_everything()  # what was frozen for the sake of speed may hold the window
        self._node.rep_call.failed = failed
        self.panel.controller.dispose()
        del self.panel
        self._ends.close()
        gc.collect(1)


def _generator(fixture: Any) -> Callable[..., contextlib.AbstractContextManager[Any]]:
    return contextlib.contextmanager(fixture._get_wrapped_function())


# --- what a test can leave behind -----------------------------------------------------------------------------------


def state_of(panel: QWidget) -> dict[str, str]:
    """All simple values that can be reached from the panel, its widgets, and the state of napari, by place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari and pydantic rename what is read here
        return dict([*_reached(panel), *_of_widgets(panel), *_of_napari(panel.controller.viewer)])


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Where two states differ."""
    return [
        f"{place}: {before.get(place, '-')} | {after.get(place, '-')}"
        for place in sorted({*before, *after})
        if before.get(place) != after.get(place)
    ]


def _reached(panel: QWidget) -> Iterator[tuple[str, str]]:
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("panel", panel)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, SIMPLE):
            yield place, repr(value)
        elif isinstance(value, np.ndarray):
            yield place, _short(value)
        elif isinstance(value, QTimer):
            yield place, f"timer, {'runs' if isalive(value) and value.isActive() else 'idle'}"
        elif isinstance(value, dict):
            yield place, f"{len(value)} entries"
            waiting += [(f"{place}[{key!r}]", one) for key, one in value.items() if isinstance(key, (str, int, tuple))]
        elif isinstance(value, (list, tuple)):
            yield place, f"{len(value)} items"
            waiting += [(f"{place}[{index}]", one) for index, one in enumerate(value)]
        elif isinstance(value, (set, frozenset)):
            yield (
                place,
                repr(sorted(map(repr, value))) if all(isinstance(one, SIMPLE) for one in value) else str(len(value)),
            )
        elif type(value).__module__.startswith("napari_dinoaugseg") and not isinstance(value, (type, ModuleType)):
            yield place, type(value).__name__
            if id(value) not in seen:
                seen.add(id(value))
                held = {**{n: getattr(value, n, None) for n in _slots(value)}, **getattr(value, "__dict__", {})}
                waiting += [
                    (f"{place}.{name}", one)
                    for name, one in sorted(held.items())
                    if not f"{place}.{name}".endswith(PASSING)
                ]
        else:
            yield place, type(value).__name__


def _slots(value: Any) -> list[str]:
    names = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    return [name for group in names for name in ((group,) if isinstance(group, str) else group) if name[:2] != "__"]


def _short(array: np.ndarray) -> str:
    return f"{array.dtype}{array.shape} {zlib.crc32(np.ascontiguousarray(array).tobytes())}"


def _of_widgets(panel: QWidget) -> Iterator[tuple[str, str]]:
    number: Counter[str] = Counter()
    for widget in panel.findChildren(QWidget):
        kind = type(widget).__name__
        if kind in MADE_LATER or widget.objectName().startswith("qt_"):
            continue
        number[kind] += 1
        shown = [widget.isVisibleTo(panel), widget.isEnabled()]
        for name in ("isChecked", "value", "currentText", "count", "text", "toPlainText", "rowCount", "toolTip"):
            with contextlib.suppress(AttributeError, TypeError):
                shown.append(re.sub(r"\d+:\d\d", "(time)", str(getattr(widget, name)())))
        yield f"{kind} {number[kind]} {widget.objectName()}", repr(shown)


def _of_napari(viewer: Any) -> Iterator[tuple[str, str]]:
    window = viewer.window._qt_window
    yield "size", f"{window.size()} {viewer.window._qt_viewer.canvas.native.size()}"
    yield "docks", repr(sorted(viewer.window.dock_widgets))
    yield "top-level", repr(sorted(type(one).__name__ for one in QApplication.topLevelWidgets() if one.isVisible()))
    yield "title", viewer.title
    yield "theme", viewer.theme
    yield "dims", repr(viewer.dims.dict())
    yield "camera", repr(viewer.camera)
    yield "grid", repr(viewer.grid)
    yield "scale bar", repr(viewer.scale_bar)
    yield "axes", repr(viewer.axes)
    yield "selected", repr([layer.name for layer in viewer.layers.selection])
    yield from _listeners("viewer", viewer)
    for name in ("layers", "dims", "camera", "cursor"):
        yield from _listeners(name, getattr(viewer, name))
    for index, layer in enumerate(viewer.layers):
        place = f"layer {index}"
        yield place, type(layer).__name__
        for name, value in layer._get_state().items():
            if name == "colormap" and hasattr(value, "color_dict"):
                yield f"{place}.colours", repr(sorted(map(repr, value.color_dict.items())))
            elif name not in ("metadata", "iso_threshold"):  # that of a 3-D view which the program does not use
                yield f"{place}.{name}", _short(value) if isinstance(value, np.ndarray) else repr(value)
        for name in (
            "mode",
            "editable",
            "brush_size",
            "selected_label",
            "contour",
            "preserve_labels",
            "n_edit_dimensions",
        ):
            yield f"{place}.{name}", repr(getattr(layer, name, None))
        yield f"{place}.overlays", repr({name: one.visible for name, one in layer._overlays.items()})
        yield from _listeners(place, layer)


def _listeners(place: str, emitter: Any) -> Iterator[tuple[str, str]]:
    """How many functions are called at each event, key and movement of the mouse."""
    for name in (
        "mouse_move_callbacks",
        "mouse_drag_callbacks",
        "mouse_wheel_callbacks",
        "mouse_double_click_callbacks",
    ):
        yield f"{place}.{name}", str(len(getattr(emitter, name, ())))
    yield f"{place}.keys", repr(sorted(map(str, getattr(emitter, "keymap", {}))))
    for name, event in getattr(emitter.events, "emitters", {}).items():
        if name in NAPARIS_OWN:
            continue
        yield f"{place}.events.{name}", str(len(event.callbacks))
