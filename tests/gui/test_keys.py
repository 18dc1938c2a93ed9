"""The keys do what the buttons do, and none is taken from napari."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt

from napari_dinoaugseg.gui.help_popup import HelpPopup, help_text
from napari_dinoaugseg.gui.keys import KEYS, bind_keys, hint, tooltip, unbind_keys
from napari_dinoaugseg.session.labels import Status

pytestmark = pytest.mark.filterwarnings("ignore:System theme detection")

T, N, J, A, H = Qt.Key.Key_T, Qt.Key.Key_N, Qt.Key.Key_J, Qt.Key.Key_A, Qt.Key.Key_H
SHIFT = Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def press(opened, qtbot):
    """Press a key in the canvas of the viewer, as a person does."""
    bind_keys(opened.viewer, opened)
    canvas = opened.viewer.window._qt_viewer.canvas.native

    def pressed(key, modifier=Qt.KeyboardModifier.NoModifier):
        qtbot.keyClick(canvas, key, modifier)

    return pressed


@pytest.fixture
def predicted(opened, truth_slices):
    book = opened.session.labels
    book.add_class(number=3)
    for index in (2, 8):
        opened.session.paint(index, truth_slices(index))
    opened.layers.write_labels([2, 8])
    book.set_prediction(5, truth_slices(5), 0.9)
    opened.layers.show_predictions([5])
    opened.go_to(5)
    return opened


def test_accept(predicted, press):
    press(A)
    assert predicted.session.labels.status(5) is Status.ACCEPTED


def test_next_suggested(predicted, press):
    found = predicted.suggestion()
    press(N)
    assert predicted.current_slice == found.index


def test_why_a_slice_is_suggested_stands_as_long_as_the_slice_is_in_view(predicted, press, panel):
    press(N)
    assert panel.message.text().startswith(
        f"{predicted.session.study.slice_name(predicted.current_slice)}:".capitalize()
    )
    assert not panel.message.isHidden()
    predicted.go_to(predicted.current_slice + 1)
    assert panel.message.isHidden()
    predicted.said.emit("Something else.")
    predicted.go_to(predicted.current_slice + 1)
    assert not panel.message.isHidden()


def test_labelled_slices_round_and_round(predicted, press):
    seen = []
    for _ in range(3):
        press(J)
        seen.append(predicted.current_slice)
    press(J, SHIFT)
    assert seen == [8, 2, 8]
    assert predicted.current_slice == 2


def test_hide_and_show_the_prediction(predicted, press):
    press(H)
    assert not predicted.layers.prediction.visible
    press(H)
    assert predicted.layers.prediction.visible


def test_train_and_stop(predicted, press, wait):
    press(T, SHIFT)
    assert predicted.busy
    press(T, SHIFT)
    assert predicted.stopping
    wait(predicted)


def test_a_plain_t_does_not_train(predicted, press):
    press(T)
    assert not predicted.busy


def test_help_opens(predicted, press, qtbot):
    press(Qt.Key.Key_F1)
    window = predicted.viewer.window._qt_window
    (popup,) = window.findChildren(HelpPopup)
    qtbot.addWidget(popup)
    assert popup.isVisible()
    popup.reject()


def test_errors_are_said_and_not_raised(opened, press):
    said = []
    opened.failed.connect(said.append)
    press(A)
    assert said == [f"Slice {opened.current_slice} has no prediction to accept. Train first."]


def test_keys_without_a_study_do_nothing_bad(controller, qtbot):
    bind_keys(controller.viewer, controller)
    canvas = controller.viewer.window._qt_viewer.canvas.native
    for key in (A, N, J, H):
        qtbot.keyClick(canvas, key)


def test_keys_are_given_back(opened, press):
    unbind_keys(opened.viewer)
    press(H)
    assert opened.layers.prediction.visible


def test_no_key_is_taken_from_napari(viewer):
    from napari.layers import Image, Labels
    from napari.utils.key_bindings import coerce_keybinding

    taken = {str(binding) for binding in viewer.class_keymap}
    for kind in (Image, Labels):
        taken |= {str(binding) for binding in kind.class_keymap}
    assert {"P", "E"} <= taken, "napari's own keys were not found"
    ours = {str(coerce_keybinding(key.keys)) for key in KEYS}
    assert len(ours) == len(KEYS)
    assert not ours & taken


def test_tooltips_and_the_popup_name_the_keys():
    assert hint("train") == "Shift+T"
    assert tooltip("Begin", "accept") == "Begin (key: A)"
    for key in KEYS:
        assert key.shown in help_text()
        assert key.does in help_text()
