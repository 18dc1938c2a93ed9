"""The keys do what the buttons do; what napari means by them stays on the layers of others."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QLineEdit

from napari_dinoaugseg.gui.keys import KEYS, TASKS, HelpPopup, bind_keys, help_columns, hint, tooltip, unbind_keys
from napari_dinoaugseg.gui.label_section import NAME
from napari_dinoaugseg.session.labels import Status
from tests.gui.conftest import settle

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]

T, N, J, A, H = Qt.Key.Key_T, Qt.Key.Key_N, Qt.Key.Key_J, Qt.Key.Key_A, Qt.Key.Key_H
C, X = Qt.Key.Key_C, Qt.Key.Key_X
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
    opened.layers.show_labels([2, 8])
    book.set_prediction(5, truth_slices(5), 0.9)
    opened.layers.show_predictions([5])
    opened.view.go_to(5)
    return opened


def test_accept_goes_on_to_the_next_slice_and_undo_comes_back(predicted, press, truth_slices):
    predicted.session.labels.set_prediction(11, truth_slices(11), 0.6)
    press(A)
    assert predicted.session.labels.status(5) is Status.ACCEPTED
    assert predicted.current_slice == predicted.view.suggestion().index != 5
    press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert predicted.session.labels.status(5) is Status.PREDICTED
    assert predicted.current_slice == 5


def test_correct_puts_the_prediction_under_the_brush(predicted, press, truth_slices):
    predicted.layers.manual.mode = "pan_zoom"
    press(C)
    assert predicted.session.labels.status(5) is Status.MANUAL
    np.testing.assert_array_equal(predicted.session.labels.manual(5), truth_slices(5))
    assert predicted.layers.manual.mode == "paint"
    assert predicted.current_slice == 5


def test_reject(predicted, press):
    press(X)
    assert predicted.session.labels.status(5) is Status.EMPTY


def test_correct_and_reject_work_whichever_layer_of_the_case_is_selected(predicted, press, truth_slices):
    image, manual = predicted.layers.image, predicted.layers.manual
    limits, label = tuple(image.contrast_limits), manual.selected_label
    for layer in (image, manual, predicted.layers.prediction):
        predicted.session.labels.set_prediction(5, truth_slices(5), 0.9)
        predicted.layers.show_predictions([5])
        assert predicted.session.labels.status(5) is Status.PREDICTED
        predicted.viewer.layers.selection.active = layer
        press(X)
        assert predicted.session.labels.status(5) is Status.EMPTY, layer.name
        press(C)
        assert predicted.session.labels.status(5) is Status.EMPTY, layer.name  # nothing to correct any more
        assert tuple(image.contrast_limits) == limits
        assert manual.selected_label == label


def test_on_other_layers_the_keys_of_napari_stay_those_of_napari(predicted, press):
    other = predicted.viewer.add_labels(np.zeros((16, 8, 8), np.uint8), name="somebody else's")
    other.selected_label = 4
    press(X)
    assert other.selected_label == 0
    assert predicted.session.labels.status(5) is Status.PREDICTED


def test_without_the_case_its_layers_have_the_keys_of_napari_again_and_ours_do_nothing_bad(predicted, press):
    image = predicted.layers.image
    assert any("dinoaugseg" in action.__name__ for action in image.keymap.values())
    predicted.cases.close()
    assert not image.keymap
    for key in (A, N, J, H):
        press(key)


@pytest.mark.parametrize("widget", ["a class name", "a number", "a search in napari"])
def test_no_key_fires_while_somebody_types(predicted, press, panel, qtbot, widget):
    if widget == "a class name":
        table = panel.classes.table
        table.editItem(table.item(0, NAME))
        field = table.findChild(QLineEdit)
    elif widget == "a number":
        field = panel.review.threshold.lineEdit()
        panel.folds["Review"].set_open(True)
    else:
        field = QLineEdit()
        predicted.viewer.window.add_dock_widget(field, name="another plugin")
    field.setFocus()
    for key in (A, C, X, N):
        qtbot.keyClick(field, key)
    assert predicted.session.labels.status(5) is Status.PREDICTED
    assert predicted.current_slice == 5


def test_next_suggested(predicted, press):
    found = predicted.view.suggestion()
    press(N)
    assert predicted.current_slice == found.index


def test_why_a_slice_is_suggested_stands_as_long_as_the_slice_is_in_view(predicted, press, panel):
    press(N)
    settle()
    assert panel.message.text().startswith(f"Slice {predicted.current_slice + 1}:")
    assert not panel.message.isHidden()
    predicted.view.go_to(predicted.current_slice + 1)
    settle()
    assert panel.message.isHidden()
    predicted.notify("Something else.")
    predicted.view.go_to(predicted.current_slice + 1)
    settle()
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
    assert predicted.jobs.busy
    press(T, SHIFT)
    assert predicted.jobs.stopping
    wait(predicted)


def test_a_plain_t_does_not_train(predicted, press):
    press(T)
    assert not predicted.jobs.busy


def test_help_opens(predicted, press, qtbot):
    press(Qt.Key.Key_F1)
    window = predicted.viewer.window._qt_window
    (popup,) = window.findChildren(HelpPopup)
    qtbot.addWidget(popup)
    assert popup.isVisible()
    assert popup.sizeHint().height() <= 740  # of a screen of 800 lines
    assert popup.sizeHint().width() <= 1260
    for text in popup.findChildren(QLabel):
        assert text.height() >= text.heightForWidth(text.width())  # nothing is cut off
    popup.reject()


def test_errors_are_said_and_not_raised(opened, press):
    said = []
    opened.notified.connect(lambda message: said.append(message.text) if message.kind == "error" else None)
    press(A)
    assert said == [f"Slice {opened.current_slice + 1} has no prediction to accept yet: predictions come from a model."]


def test_keys_are_given_back(opened, press):
    unbind_keys(opened.viewer)
    press(H)
    assert opened.layers.prediction.visible


def test_two_keys_are_taken_from_napari(opened):
    from napari.layers import Image, Labels
    from napari.utils.key_bindings import coerce_keybinding

    taken = {str(binding) for binding in opened.viewer.class_keymap}
    for kind in (Image, Labels):
        taken |= {str(binding) for binding in kind.class_keymap}
    assert {"P", "E"} <= taken, "napari's own keys were not found"
    ours = {str(coerce_keybinding(key.keys)) for key in KEYS}
    assert len(ours) == len(KEYS)
    assert ours & taken == {"C", "X"}  # contrast and swapping of labels, on the layers of the case only


def test_tooltips_and_the_popup_name_the_keys():
    assert hint("train") == "Shift+T"
    assert tooltip("Begin", "accept") == "Begin (key: A)"
    shown = "".join(help_columns())
    for key in KEYS:
        assert key.task in TASKS
        assert key.shown in shown
        if key.name.startswith("window_"):  # in one row
            assert f"{key.shown} {key.name.removeprefix('window_').replace('_', ' ')}" in shown
        else:
            assert key.does in shown
    assert [shown.index(f"<h3>{task}</h3>") for task in TASKS] == sorted(
        shown.index(f"<h3>{task}</h3>") for task in TASKS
    )
