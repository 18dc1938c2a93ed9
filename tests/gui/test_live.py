"""Live learning as a person uses it: tick the box, paint, and masks appear and follow what is painted."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_dinoaugseg.errors import DeviceError
from napari_dinoaugseg.gui.setup import preferences, remember_live
from napari_dinoaugseg.session.labels import Status
from tests.blobs import write_case
from tests.gui.conftest import LABELLED, dice, paint, settle, wait_idle
from tests.gui.test_painting import stroke

PATIENT = 120_000

pytestmark = pytest.mark.shared_window


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


@pytest.mark.shared_window(False)  # no run has loaded an encoder before
def test_a_run_that_is_stopped_before_its_turn_leaves_the_engine_to_other_work(live, qtbot, truth):
    """It once put an engine without a model in the place of the one that Train had used: nothing was predicted."""
    with live.live._turn:  # as the run before has it, while it loads the encoder
        paint(live, truth, (4,))
        qtbot.waitUntil(lambda: live.live._run is not None, timeout=PATIENT)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "live"]
        live.live.stop()  # as Train does
    thread.join(60)
    assert not live.session.is_ready


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


@pytest.mark.shared_window(False)
def test_the_viewer_closes_while_it_learns(live, panel, qtbot, truth):
    paint(live, truth, LABELLED)
    qtbot.waitUntil(lambda: live.live.progress is not None, timeout=PATIENT)
    live.dispose()
    assert live.closed


def test_a_new_viewer_learns_live_until_the_person_switches_it_off(make_napari_viewer, qtbot):
    from napari_dinoaugseg.gui.panel import Panel

    def another() -> Panel:
        viewer = make_napari_viewer(show=True)
        made = Panel(viewer)
        viewer.window.add_dock_widget(made, name="DINO-AugSeg")
        qtbot.waitExposed(viewer.window._qt_window)
        return made

    remember_live(on=True)  # as where nobody has chosen yet
    first = another()
    assert first.head.live_box.isChecked()
    tick(first, qtbot)
    assert not preferences().live
    second = another()
    assert not second.head.live_box.isChecked()
    tick(second, qtbot)
    assert preferences().live
    for made in (first, second):
        made.controller.dispose()


def test_before_a_stroke_the_encoder_looks_at_the_slice_in_view(live, qtbot):
    qtbot.waitUntil(lambda: live.session.is_ready and live.session.encoded > 0, timeout=PATIENT)
    assert live.session.labels.labelled == []
    assert not live.live.learns


def test_it_downloads_no_weights_on_a_stroke_and_says_what_it_waits_for(
    panel, controller, case, qtbot, truth, failed, monkeypatch
):
    monkeypatch.setattr("napari_dinoaugseg.model.hub.download", lambda *_: pytest.fail("it downloads"))
    choose_encoder(panel, qtbot, "dinov3-convnext-tiny")
    tick(panel, qtbot)
    paint(controller, truth, LABELLED)
    qtbot.wait(1000)
    settle()
    assert "waits for the weights" in panel.head.live_text.text()
    assert failed == []
    assert panel.head.live_box.isChecked()
    choose_encoder(panel, qtbot, "efficientnet-lite0")
    qtbot.waitUntil(lambda: bool(controller.session.labels.confidence), timeout=PATIENT)
    controller.live.stop()


def choose_encoder(panel, qtbot, name: str) -> None:
    choice = panel.case.encoder
    choice.names.setCurrentText(name)
    choice.names.activated.emit(choice.names.currentIndex())
    qtbot.waitUntil(lambda: choice._found is not None and choice._found["asked"][0] == name, timeout=PATIENT)
    settle()


def choose(box, text: str) -> None:
    box.setCurrentText(text)
    box.activated.emit(box.currentIndex())
    settle()


def test_the_next_step_names_no_training_while_it_is_on(live, panel, qtbot, truth):
    qtbot.waitUntil(lambda: "Masks then appear" in panel.advice.text(), timeout=PATIENT)  # the encoder is looked for
    paint(live, truth, (4,))
    qtbot.waitUntil(lambda: 5 in live.session.labels.confidence, timeout=PATIENT)
    settle()
    assert "accept their masks" in panel.advice.text()
    tick(panel, qtbot)
    assert "press Train" in panel.advice.text()


@pytest.mark.shared_window(False)
def test_everything_a_person_does_meanwhile_is_safe(live, panel, qtbot, truth, failed, tmp_path, monkeypatch):
    """Strokes, keys and clicks while it learns: nothing fails, nothing painted changes, masks belong to the case."""
    monkeypatch.setattr("napari_dinoaugseg.gui.label_section.confirmed", lambda *_: True)
    viewer, canvas = live.viewer, live.viewer.window._qt_viewer.canvas.native

    def learns() -> None:
        """A mask comes that is newer than the last change."""
        book = live.session.labels
        before = {index: book.predicted(index) for index in range(book.n_slices)}
        qtbot.waitUntil(lambda: any(book.predicted(i) is not mask for i, mask in before.items()), timeout=PATIENT)
        assert failed == []

    # A plane is chosen while the encoder is being loaded, then a stroke is drawn, undone and drawn again.
    choose(panel.case.plane, "coronal")
    choose(panel.case.plane, "axial")
    live.view.go_to(8)
    stroke(qtbot, viewer)
    learns()
    qtbot.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    settle()
    assert live.session.labels.labelled == []
    paint(live, truth, (4, 8))
    learns()

    # Classes: the table is used while masks with the classes of a moment ago arrive.
    panel.classes.add_button.click()
    settle()
    panel.classes.table.item(0, 2).setText("renamed")
    numbers = [entry.number for entry in live.session.labels.classes]
    panel.classes.table.selectRow(numbers.index(3))
    settle()
    panel.classes.remove_button.click()
    settle()
    assert 3 not in {entry.number for entry in live.session.labels.classes}
    learns()
    for index in live.session.labels.confidence:
        assert 3 not in live.session.labels.predicted(index)
    qtbot.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    settle()
    assert np.array_equal(live.session.labels.manual(4), truth[4])
    assert live.session.labels.classes[0].name == "renamed"

    # Window and preset, which another decoder and other features follow.
    choose(panel.case.window_choice, "minmax")
    choose(panel.train.preset, "balanced")
    live.setup.change(steps=30, views=1, input_size=64)
    learns()
    paint(live, truth, (11,))

    # Train in its middle, stopped in its own middle.
    panel.head.train_button.click()
    qtbot.waitUntil(lambda: live.jobs.last_stage == "train", timeout=PATIENT)
    panel.head.stop_button.click()
    wait_idle(qtbot, live)
    stroke(qtbot, viewer)
    learns()

    # The layers are deleted and brought back.
    here = live.session.labels.labelled
    painted = {index: live.session.labels.manual(index) for index in here}
    viewer.layers.selection = set(viewer.layers)
    viewer.layers.remove_selected()
    settle()
    panel.label.restore_button.click()
    settle()
    assert {index: live.session.labels.manual(index) for index in here} == painted
    live.view.go_to(3)
    stroke(qtbot, viewer)
    learns()

    # Another case is opened, and then the viewer closes in the middle.
    session, (image, _) = live.session, write_case(tmp_path, seed=3)
    live.cases.open_path(image, background=False, plane="axial")
    settle()
    assert live.session is not session
    stroke(qtbot, viewer)
    learns()
    assert set(live.session.labels.confidence) | set(live.session.labels.labelled) <= set(range(16))
    assert failed == []
    live.dispose()
    qtbot.waitUntil(lambda: "live" not in {thread.name for thread in threading.enumerate()}, timeout=PATIENT)
