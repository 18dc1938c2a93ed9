"""Live learning as a person uses it: tick the box, paint, and masks appear and follow what is painted."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_dinoaugseg.errors import DeviceError
from napari_dinoaugseg.session.labels import Status
from tests.blobs import write_case
from tests.gui.conftest import LABELLED, dice, paint, settle, wait_idle

PATIENT = 120_000


@pytest.fixture
def live(panel, qtbot, controller, case):
    """The controller with the blobs open and Live ticked."""
    controller.setup.change(steps=40, views=1)
    tick(panel, qtbot)
    yield controller
    controller.live.stop()


def tick(panel, qtbot) -> None:
    box = panel.head.live_box
    qtbot.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))
    settle()


def shown(controller, index: int, number: int) -> np.ndarray:
    """Pixels of a class in the layer of predictions."""
    layer = controller.layers.prediction
    return np.moveaxis(layer.data, controller.layers.axis, 0)[index] == number


def rests(controller) -> bool:
    progress = controller.live.progress
    if progress is None or progress.done < progress.total:
        return False
    return set(controller.session.labels.confidence) >= set(controller.session.labels.open_slices)


def test_masks_appear_while_a_person_paints_and_nobody_pressed_train(live, panel, qtbot, truth):
    assert panel.head.live_box.isChecked()
    qtbot.waitUntil(lambda: "paint a slice" in panel.head.live_text.text(), timeout=PATIENT)
    live.view.go_to(4)
    paint(live, truth, (4,))
    qtbot.waitUntil(lambda: 5 in live.session.labels.confidence, timeout=PATIENT)
    paint(live, truth, (8, 11))
    qtbot.waitUntil(lambda: rests(live), timeout=PATIENT)
    settle()
    assert "up to date" in panel.head.live_text.text()
    assert dice(shown(live, 6, 1), truth[6] == 1) > 0.6
    assert not live.session.is_trained
    assert not live.jobs.busy
    for index in LABELLED:
        assert np.array_equal(live.session.labels.manual(index), truth[index])


def test_walking_to_a_slice_accepting_and_correcting_go_on_while_it_learns(live, panel, qtbot, truth):
    paint(live, truth, (4, 8))
    live.view.go_to(6)
    qtbot.waitUntil(lambda: 6 in live.session.labels.confidence, timeout=PATIENT)
    live.labels.accept(6)
    settle()
    assert live.session.labels.status(6) is Status.ACCEPTED
    accepted = live.session.labels.result(6).copy()
    paint(live, truth, (11,))
    qtbot.waitUntil(lambda: rests(live), timeout=PATIENT)
    assert np.array_equal(live.session.labels.result(6), accepted)
    live.layers.undo()  # of the last slice painted
    settle()
    assert 11 not in live.session.labels.labelled
    qtbot.waitUntil(lambda: 11 in live.session.labels.confidence, timeout=PATIENT)


def test_train_stops_it_learns_alone_and_the_next_stroke_starts_it_again(live, panel, qtbot, truth):
    paint(live, truth, LABELLED)
    qtbot.waitUntil(lambda: live.live.progress is not None, timeout=PATIENT)
    panel.head.train_button.click()
    assert live.live.progress is None
    wait_idle(qtbot, live)
    assert live.session.is_trained
    model = live.session.model
    qtbot.wait(800)
    assert live.live.progress is None  # nothing new to learn
    paint(live, truth, (6,))
    qtbot.waitUntil(lambda: live.live.progress is not None, timeout=PATIENT)
    assert live.session.model is model


def test_switched_off_it_stops_and_masks_stay(live, panel, qtbot, truth):
    paint(live, truth, LABELLED)
    qtbot.waitUntil(lambda: bool(live.session.labels.confidence), timeout=PATIENT)
    tick(panel, qtbot)
    assert panel.head.live_text.isHidden()
    masks = dict(live.session.labels.confidence)
    assert masks
    qtbot.wait(700)
    assert live.session.labels.confidence == masks
    paint(live, truth, (6,))
    qtbot.wait(500)
    assert live.live.progress is None


def test_masks_of_a_closed_case_do_not_reach_the_next(live, qtbot, truth, tmp_path):

    paint(live, truth, LABELLED)
    qtbot.waitUntil(lambda: bool(live.session.labels.confidence), timeout=PATIENT)
    image, _ = write_case(tmp_path, seed=3)
    live.cases.open_path(image, background=False, plane="axial")
    settle()
    qtbot.wait(1500)
    assert live.session.labels.confidence == {}
    assert live.session.labels.labelled == []
    assert live.live.progress is None


def test_it_waits_for_a_class_and_rests_without_labels(live, panel, qtbot, truth):
    paint(live, np.zeros_like(truth), (2,))
    qtbot.wait(500)
    assert live.live.progress is None
    paint(live, truth, (4,))
    qtbot.waitUntil(lambda: bool(live.session.labels.confidence), timeout=PATIENT)
    live.layers.undo()
    settle()
    assert live.session.labels.labelled in ([], [2])


def test_changed_settings_start_it_again(live, qtbot, truth):
    paint(live, truth, LABELLED)
    qtbot.waitUntil(lambda: live.live.progress is not None, timeout=PATIENT)
    total = live.live.progress.total
    live.setup.change(steps=60)
    assert live.live.progress is None
    qtbot.waitUntil(lambda: live.live.progress is not None, timeout=PATIENT)
    assert live.live.progress.total > total


def test_an_error_switches_it_off_and_says_so(live, panel, qtbot, truth, said, monkeypatch):
    def fails(*_, **__):
        raise DeviceError("The graphics card is gone.")
        yield

    tick(panel, qtbot)  # off
    monkeypatch.setattr(live.session, "live", fails)
    paint(live, truth, LABELLED)
    tick(panel, qtbot)
    qtbot.waitUntil(lambda: any("Live was switched off" in text for text in said), timeout=PATIENT)
    settle()
    assert any("The graphics card is gone." in text for text in said)
    assert not panel.head.live_box.isChecked()
    assert live.session.labels.labelled == list(LABELLED)


def test_the_viewer_closes_while_it_learns(live, panel, qtbot, truth):
    paint(live, truth, LABELLED)
    qtbot.waitUntil(lambda: live.live.progress is not None, timeout=PATIENT)
    live.dispose()
    assert live.closed
