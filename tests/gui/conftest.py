"""A real viewer with the panel, the real engine with its offline encoder, and cases that are learnt in seconds."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QPoint
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog

from tests.blobs import truth_voxels, write_case
from tests.conftest import KEPT_WINDOWS, shares_window
from tests.gui.kept_window import KeptWindow, differences, state_of

_log = logging.getLogger(__name__)

LABELLED = (4, 8, 11)
SMALL = {"encoder": "efficientnet-lite0", "input_size": 64, "steps": 60, "views": 2}


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory) -> tuple[Path, Path]:
    """Image and truth of a case of 16 axial slices with the classes 1 and 3."""
    return write_case(tmp_path_factory.mktemp("gui_blobs"))


@pytest.fixture
def panel(request, qtbot, _live_is_off):
    """The panel, with nothing open; for tests that share a window, with the case opened again in it."""
    if not shares_window(request.node):
        viewer = request.getfixturevalue("make_napari_viewer")(show=True)
        made = panel_in(viewer, qtbot)
        yield from _watched(made)
        made.controller.dispose()
        wait_idle(qtbot, made.controller)
        return
    path = request.getfixturevalue("blob_files")[0]
    kept = KEPT_WINDOWS.pop() if KEPT_WINDOWS else None  # for good, if a test has left it so that no case can be opened
    if kept is not None and not _is_as_new(kept):
        kept.close()
        kept = None
    opens = partial(open_blobs, path=path)
    KEPT_WINDOWS.append(kept or KeptWindow(request, qtbot, partial(panel_in, qtbot=qtbot), opens))
    made = KEPT_WINDOWS[0].panel
    yield from _watched(made)
    if request.node.rep_call.failed:
        KEPT_WINDOWS.pop().close(failed=True)
        return
    made.controller.jobs.stop()
    qtbot.waitUntil(lambda: not made.controller.jobs.busy, timeout=60_000)
    KEPT_WINDOWS[0].rest()


def panel_in(viewer, qtbot):
    """A new panel in a viewer."""
    from napari_dinoaugseg.gui.panel import Panel

    made = Panel(viewer)
    viewer.window.add_dock_widget(made, name="DINO-AugSeg")
    qtbot.waitExposed(viewer.window._qt_window)
    return made


def _watched(made):
    """Give the panel to the test, and see that its sentences have no options."""
    sentences: list[str] = []
    made.controller.notified.connect(lambda message: sentences.append(message.text))
    yield made
    options = [text for text in sentences if re.search(r"--[a-z]", text)]
    assert not options, "the panel has no options"


def open_blobs(controller, path: Path) -> None:
    """Open the blobs, with settings that train in seconds."""
    with_small_settings(controller)
    controller.cases.open_path(path, background=False, plane="axial")
    settle()


def _is_as_new(kept: KeptWindow) -> bool:
    """Whether the kept window is as a new one when the case is opened again."""
    kept.begin_again()
    for _ in range(3):
        left = differences(kept.new, state_of(kept.panel))
        if not left and not kept.panel.controller._timer.isActive():
            return True
        settle()  # the encoder may just have been found
    if not left:
        return True
    _log.info("a new window, because the test before left:\n  %s", "\n  ".join(left))
    return False


@pytest.fixture
def controller(panel):
    """Of the panel, with settings that train in seconds."""
    if panel.controller.session is None:
        with_small_settings(panel.controller)
    return panel.controller


@pytest.fixture
def windowless(qtbot, _live_is_off):
    """The controller of a viewer without a window: for what layers and labels do, whoever looks at them."""
    from napari.components import ViewerModel

    from napari_dinoaugseg.gui.controller import Controller

    made = Controller.of(ViewerModel())
    with_small_settings(made)
    yield made
    made.dispose()
    qtbot.waitUntil(lambda: not made.jobs.busy, timeout=60_000)


@pytest.fixture
def windowless_or_not(request):
    """The controller of the panel where a test asks for the panel, else one without a window: far quicker.

    For modules that take it as their `controller`.
    """
    if "panel" not in request.fixturenames:
        return request.getfixturevalue("windowless")
    controller = request.getfixturevalue("panel").controller
    if controller.session is None:
        with_small_settings(controller)
    return controller


def with_small_settings(controller) -> None:
    """Train in seconds, here."""
    controller.setup.change(**SMALL)
    controller.setup.use_device("cpu")


@pytest.fixture
def said(controller) -> list[str]:
    """Every sentence that the panel showed."""
    sentences: list[str] = []
    controller.notified.connect(lambda message: sentences.append(message.text))
    return sentences


@pytest.fixture
def failed(controller) -> list[str]:
    """Every error that the panel showed."""
    return errors_of(controller)


def errors_of(controller) -> list[str]:
    """A list that fills with the errors that a controller reports."""
    errors: list[str] = []
    controller.notified.connect(lambda message: errors.append(message.text) if message.kind == "error" else None)
    return errors


def settle() -> None:
    """Until the sections show what has just changed; they wait 60 ms for what else changes with it."""
    QTest.qWait(70)
    QApplication.processEvents()  # on a busy machine the wait may end before what is due has been handled


def hover(widget, place: QPoint, seen: Callable[[], object]) -> None:
    """Move the mouse over a place of a widget until it is seen: the window system takes its time on a busy machine.

    Qt reports no move to where the mouse is already, hence the pixel beside it.
    """
    end = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < end, f"nothing has seen the mouse at {place}"
        QTest.mouseMove(widget, place + QPoint(1, 0))
        QTest.mouseMove(widget, place)
        QTest.qWait(20)


@pytest.fixture
def export(request, controller, qtbot, monkeypatch):
    """Export the mask in the Export section; the dialog answers with a path, and every question with yes."""
    from napari_dinoaugseg.gui.export_section import ExportSection

    if "panel" in request.fixturenames:
        section = request.getfixturevalue("panel").export
    else:
        section = ExportSection(controller)
        qtbot.addWidget(section)

    def to(path: Path) -> None:
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
        monkeypatch.setattr("napari_dinoaugseg.gui.export_section.chosen", lambda *_: 0)
        monkeypatch.setattr("napari_dinoaugseg.gui.export_section.confirmed", lambda *_: True)
        settle()
        assert section.mask_button.isEnabled()
        section.mask_button.click()
        wait_idle(qtbot, controller)
        assert path.exists()

    return to


@pytest.fixture
def case(controller, blob_files):
    """The blobs, open."""
    if controller.session is None:
        open_blobs(controller, blob_files[0])
    return controller.session.case


@pytest.fixture
def truth(case) -> np.ndarray:
    """(16, H, W) labels of the blobs: 1 and 3."""
    return case.to_slices(truth_voxels())


@pytest.fixture
def labelled(controller, case, truth):
    """The blobs with three slices painted, classes 1 and 3."""
    paint(controller, truth, LABELLED)
    return controller


def paint(controller, truth: np.ndarray, slices) -> None:
    """Put labels into the layer, as a tool of napari would."""
    layer = controller.layers.manual
    moved = np.moveaxis(layer.data, controller.layers.axis, 0)
    for index in slices:
        moved[index, : truth.shape[1], : truth.shape[2]] = truth[index]
    layer.refresh()
    controller.flush()
    settle()


def wait_idle(qtbot, controller, timeout: int = 60_000) -> None:
    """Until no work goes on, the prediction after a training included, and the sections show that."""
    qtbot.waitUntil(lambda: not controller.jobs.busy, timeout=timeout)
    settle()


def train(qtbot, controller) -> None:
    """Train and predict."""
    controller.jobs.train()
    wait_idle(qtbot, controller)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boolean arrays."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


@pytest.fixture
def viewer(make_napari_viewer):
    """A viewer without the panel."""
    return make_napari_viewer()


@pytest.fixture
def opened(controller, case):
    """The controller with the blobs open."""
    assert controller.session.case is case
    return controller


@pytest.fixture
def truth_slices(blob_files):
    """The true labels of a slice of the blobs, (H, W) uint16, by number."""
    from napari_dinoaugseg.case import open_case

    truth = open_case(blob_files[1], plane="axial")
    return lambda index: truth.slice(index).astype(np.uint16)


@pytest.fixture
def wait(qtbot):
    """Wait until the work in the background is done, predictions after a training included."""
    return lambda controller: wait_idle(qtbot, controller)
