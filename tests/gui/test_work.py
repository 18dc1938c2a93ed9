"""Training and prediction in the background, with the real engine."""

import threading
import time

import numpy as np
import pytest

from napari_dinoaugseg.learning.events import Progress
from napari_dinoaugseg.session.labels import Status
from tests.gui.conftest import LABELLED, dice, paint, settle, train, wait_idle

pytestmark = pytest.mark.shared_window


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


def test_training_puts_masks_on_the_other_slices_and_a_second_one_is_shorter(
    labelled, truth, qtbot, panel, said, monkeypatch
):
    controller = labelled
    stages, order = [], []
    controller.progressed.connect(lambda event: stages.append(event.stage))
    store = controller.session.store_prediction
    monkeypatch.setattr(controller.session, "store_prediction", lambda made: (order.append(made.index), store(made)))
    controller.view.go_to(8)
    train(qtbot, controller)
    book = controller.session.labels
    left = [i for i in range(16) if i not in LABELLED]
    found = np.stack([book.result(i) for i in left])
    assert all(dice(found == number, truth[left] == number) > 0.8 for number in (1, 3))
    assert list(dict.fromkeys(stages)) == ["encode", "train", "predict"]
    assert sorted(order) == left
    assert abs(order[0] - 8) == 1  # near the slice in view first
    shown = controller.layers.prediction.data
    assert np.array_equal(shown[7], book.predicted(7))
    assert not shown[8].any()  # labelled slices show what was painted
    assert len(panel.train.curve.losses) == controller.session.history[0].steps
    assert "Encoder in use: efficientnet-lite0" in _later(qtbot, panel)
    assert panel.advice.text().startswith("4.")

    paint(controller, truth, [6])
    steps = controller.session.history[0].steps
    began = time.monotonic()
    train(qtbot, controller)
    assert time.monotonic() - began < 30
    assert controller.session.history[1].steps < steps
    assert controller.session.history[1].agreement > 0.5
    assert not panel.train.curve.isHidden()
    controller.cases.close()
    settle()
    assert panel.train.curve.isHidden()  # it told of that case


def _later(qtbot, panel):
    qtbot.wait(150)
    return panel.encoder.text()


def until_stage(qtbot, controller, stage, count=2):
    seen = []
    controller.progressed.connect(lambda event: seen.append(event) if event.stage == stage else None)
    qtbot.waitUntil(lambda: len(seen) >= count, timeout=60_000)


@pytest.mark.parametrize("stage", ["train", "predict", "encode"])  # the first encoding of a process takes longer
def test_stop_answers_within_a_second_and_keeps_what_is_there(labelled, stage, qtbot, said):
    controller = labelled
    if stage == "predict":
        controller.setup.change(steps=5)
    else:
        controller.setup.change(steps=2000, views=40 if stage == "encode" else 2)
    controller.jobs.train()
    until_stage(qtbot, controller, stage, 1)
    began = time.monotonic()
    controller.jobs.stop()
    wait_idle(qtbot, controller, 5000)
    assert time.monotonic() - began < 1.0
    assert controller.session.labels.labelled == list(LABELLED)
    if stage == "train":
        assert controller.session.is_trained
        assert 0 < controller.session.history[0].steps < 2000
        assert any("Predict uses it" in text for text in said)
    if stage == "encode":
        assert not controller.session.is_trained
        assert "Stopped before anything was learnt." in said
    controller.setup.change(steps=5, views=1)
    train(qtbot, controller)
    assert controller.session.labels.status(2) is Status.PREDICTED


def test_paint_while_training_is_kept_and_counts_in_the_next_round(labelled, truth, qtbot):
    controller = labelled
    controller.setup.change(steps=40)
    controller.jobs.train()
    until_stage(qtbot, controller, "train")
    paint(controller, truth, [2])
    controller.layers.manual.paint((8, 3, 3), 1)
    assert controller.jobs.busy
    wait_idle(qtbot, controller)
    book = controller.session.labels
    assert controller.session.history[0].labelled == LABELLED
    assert np.array_equal(book.manual(2), truth[2])
    assert book.manual(8)[3, 3] == 1
    controller.setup.change(steps=5)
    train(qtbot, controller)
    assert controller.session.history[1].labelled == (2, *LABELLED)


def test_layers_deleted_and_renamed_while_training(labelled, truth, qtbot, said):
    controller = labelled
    controller.setup.change(steps=40)
    controller.jobs.train()
    until_stage(qtbot, controller, "train")
    controller.layers.image.name = "renamed"
    controller.viewer.layers.remove(controller.layers.manual)
    controller.viewer.layers.remove(controller.layers.prediction)
    controller.viewer.layers.remove(controller.layers.image)
    assert controller.jobs.busy
    wait_idle(qtbot, controller)
    book = controller.session.labels
    assert book.status(2) is Status.PREDICTED
    assert np.array_equal(book.manual(8), truth[8])
    controller.view.restore_layers()
    assert np.array_equal(controller.layers.prediction.data[2], book.predicted(2))
    assert np.array_equal(controller.layers.manual.data[8], truth[8])
    assert controller.viewer.layers.index(controller.layers.image) == 0


def test_a_class_removed_while_training(labelled, qtbot, said):
    controller = labelled
    controller.setup.change(steps=40)
    controller.jobs.train()
    until_stage(qtbot, controller, "train")
    controller.labels.remove_class(3, erase=True)
    assert controller.jobs.busy
    wait_idle(qtbot, controller)
    assert not (controller.layers.prediction.data == 3).any()
    assert controller.session.labels.status(2) is Status.PREDICTED
    controller.setup.change(steps=5)
    train(qtbot, controller)
    assert not [text for text in said if "unforeseen" in text]


def test_the_viewer_closed_while_training(make_napari_viewer, blob_files, qtbot):
    from napari_dinoaugseg.gui.panel import Panel
    from tests.gui.conftest import SMALL

    viewer = make_napari_viewer()
    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel)
    controller = panel.controller
    controller.setup.change(**{**SMALL, "steps": 5000})
    controller.cases.open_path(blob_files[0], background=False, plane="axial")
    session = controller.session
    controller.layers.manual.paint((8, 10, 10), 1)
    controller.jobs.train()
    until_stage(qtbot, controller, "train")
    controller.layers.manual.paint((9, 10, 10), 1)
    began = time.monotonic()
    viewer.close()
    qtbot.wait(300)
    assert time.monotonic() - began < 5
    assert session.labels.labelled == [8, 9]


@pytest.mark.parametrize(
    ("slices", "sentence"),
    [([], "No slice is labelled"), ([0], "only background")],
)
def test_nothing_to_learn_from_is_said(controller, case, said, panel, slices, sentence):
    for index in slices:
        controller.labels.mark_empty(index)
    panel.head.train_button.click()
    assert not controller.jobs.busy
    assert any(sentence in text for text in said)
    assert sentence in panel.message.text()


def test_one_class_is_enough(controller, case, truth, qtbot):
    paint(controller, (truth == 1).astype(np.uint16), LABELLED)
    controller.setup.change(steps=10)
    train(qtbot, controller)
    assert controller.session.labels.status(2) is Status.PREDICTED


def test_an_encoder_that_cannot_be_had_is_said_and_the_button_lives(labelled, qtbot, said, panel):
    controller = labelled
    controller.setup.change(encoder="dinov3-convnext-tiny")
    panel.head.train_button.click()
    wait_idle(qtbot, controller)
    assert any("dinov3-convnext-tiny" in text and "not on this machine" in text for text in said)
    assert not any("--weights" in text for text in said)
    assert panel.head.train_button.isEnabled()


def test_a_saved_model_predicts_a_new_case_at_once(labelled, blob_files, tmp_path, qtbot, truth):
    controller = labelled
    controller.setup.change(width=16)
    train(qtbot, controller)
    controller.session.save_model(tmp_path / "blobs.safetensors")
    controller.cases.open_path(blob_files[0], background=False, plane="axial")
    controller.jobs.load_model(tmp_path / "blobs.safetensors")
    wait_idle(qtbot, controller)
    book = controller.session.labels
    assert [entry.number for entry in book.classes] == [1, 3]
    assert dice(book.result(8) == 1, truth[8] == 1) > 0.8


def test_progress_is_events_on_the_thread_of_the_interface(labelled, qtbot):
    from qtpy.QtCore import QCoreApplication, QThread

    threads = set()
    labelled.progressed.connect(
        lambda event: threads.add(QThread.currentThread()) if isinstance(event, Progress) else 0
    )
    labelled.setup.change(steps=5)
    train(qtbot, labelled)
    assert threads == {QCoreApplication.instance().thread()}


def test_what_was_said_at_the_beginning_goes_when_the_work_has_ended(panel, case, controller, tmp_path, qtbot):
    end = threading.Event()
    controller.jobs.run("Writing the mask", lambda: end.wait(10), lambda _: None)
    qtbot.waitUntil(lambda: panel.advice.text() == "Writing the mask…")
    end.set()
    wait_idle(qtbot, controller)
    qtbot.waitUntil(lambda: panel.advice.text() != "Writing the mask…")
    assert not panel.message.isVisible()
