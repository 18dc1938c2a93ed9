"""The keys with which masks are judged: the swipe between mask and image, and the flicker between two rounds."""

from __future__ import annotations

import numpy as np
import pytest
from napari.settings import get_settings
from qtpy.QtCore import QPoint, Qt

from napari_dinoaugseg.gui.canvas import canvas_widget
from tests.gui.conftest import hover, paint, settle, train

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]

W, Q = Qt.Key.Key_W, Qt.Key.Key_Q


@pytest.fixture
def canvas(controller, case):
    return canvas_widget(controller.viewer)


@pytest.fixture
def held():
    """A key held as briefly as this counts as held, not tapped."""
    application = get_settings().application
    before, application.hold_button_delay = application.hold_button_delay, 0.0
    yield
    application.hold_button_delay = before


def masked(controller) -> np.ndarray:
    """The columns of the canvas that a mask colours, as a share of its width."""
    settle()
    picture = controller.viewer.screenshot(canvas_only=True, flash=False).astype(int)
    coloured = (picture[..., :3].max(axis=-1) - picture[..., :3].min(axis=-1)) > 60
    return np.flatnonzero(coloured[60:-60].any(axis=0)) / picture.shape[1]


def test_the_masks_end_at_the_cursor_while_the_key_is_held(controller, case, truth, canvas, qtbot, held):
    paint(controller, np.ones_like(truth), [8])
    controller.layers.manual.mode = "pan_zoom"
    controller.view.go_to(8)
    book, data = controller.session.labels, controller.layers.manual.data.copy()
    whole = masked(controller)
    assert whole.max() > 0.6
    qtbot.mouseMove(canvas, QPoint(canvas.width() // 2, canvas.height() // 2))
    qtbot.keyPress(canvas, W)
    assert 0.45 < masked(controller).max() < 0.52
    place = QPoint(round(0.4 * canvas.width()), canvas.height() // 2)
    hover(canvas, place, lambda: 0.35 < masked(controller).max() < 0.42)
    qtbot.keyRelease(canvas, W)
    np.testing.assert_allclose(masked(controller), whole)
    np.testing.assert_array_equal(controller.layers.manual.data, data)
    assert book.labelled == [8]
    qtbot.keyClick(canvas, W)
    assert not controller.judging.swipe.is_on  # held however briefly
    controller.judging.swipe.begin()
    controller.viewer.dims.ndisplay = 3
    assert not controller.judging.swipe.is_on
    controller.viewer.dims.ndisplay = 2
    controller.judging.swipe.begin()
    controller.cases.close()
    assert not controller.judging.swipe.is_on


def test_the_prediction_flickers_between_two_rounds_and_the_book_stays(labelled, truth, canvas, qtbot, said):
    controller, book = labelled, labelled.session.labels
    controller.view.go_to(6)
    controller.setup.change(steps=20, width=16)
    train(qtbot, controller)
    first = book.predicted(6)
    qtbot.keyClick(canvas, Q)
    assert not controller.judging.flicker.is_on
    assert "no prediction of an earlier round" in said[-1]
    paint(controller, np.where(truth == 3, 0, truth), [12])
    controller.setup.change(steps=5)
    train(qtbot, controller)
    second = book.predicted(6)
    assert not np.array_equal(first, second)
    layer = controller.layers.prediction
    qtbot.keyClick(canvas, Q)  # a tap: it goes on
    overlay = controller.viewer.canvas.overlays["dinoaugseg_round"]
    for shown, text in ((first, "last round"), (second, "this round"), (first, "last round")):
        qtbot.waitUntil(lambda text=text: overlay.text == text, timeout=10_000)
        np.testing.assert_array_equal(layer.data[6], shown)
        assert book.predicted(6) is second
    controller.view.go_to(7)
    settle()
    assert not controller.judging.flicker.is_on
    assert not overlay.visible
    np.testing.assert_array_equal(layer.data[6], second)
    controller.view.go_to(8)
    qtbot.keyClick(canvas, Q)
    assert "is labelled" in said[-1]
