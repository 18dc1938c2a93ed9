"""The review section on a real viewer: what it says of the slice in view, and what its buttons do to the labels."""

from __future__ import annotations

import re

import numpy as np
import pyqtgraph
import pytest
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QMessageBox

from napari_dinoaugseg.gui.review_section import ReviewSection
from napari_dinoaugseg.gui.widgets import background_colour
from napari_dinoaugseg.session.labels import Status

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


@pytest.fixture
def section(opened, qtbot):
    made = ReviewSection(opened)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def predicted(opened, section, truth_slices):
    """Classes 1 and 3; slice 8 painted; 3, 5 and 6 predicted with rising confidence; slice 5 in view."""
    book = opened.session.labels
    book.add_class(number=3)
    opened.layers.show_colours()
    opened.session.paint(8, truth_slices(8))
    opened.layers.show_labels([8])
    for index, confidence in ((3, 0.6), (5, 0.9), (6, 0.97)):
        book.set_prediction(index, truth_slices(index), confidence)
    opened.layers.show_predictions([3, 5, 6])
    opened.view.go_to(5)
    section.refresh()
    return opened


def status(controller, index: int) -> Status:
    return controller.session.labels.status(index)


def test_without_a_case_nothing_can_be_pressed(controller, qtbot):
    section = ReviewSection(controller)
    qtbot.addWidget(section)
    assert "after the first training" in section.next_text.text()
    for button in (section.go_button, section.accept_button, section.correct_button, section.reject_button):
        assert not button.isEnabled()
    assert not section.accept_all_button.isEnabled()


def test_it_says_what_is_in_view(predicted, section, qtbot):
    assert "slice 6" in section.state_text.text()  # the window counts from 1
    assert "predicted, confidence 90%" in section.state_text.text()
    predicted.view.go_to(8)
    qtbot.waitUntil(lambda: "labelled by hand" in section.state_text.text())
    assert not section.accept_button.isEnabled()
    predicted.view.go_to(0)
    qtbot.waitUntil(lambda: "no prediction yet" in section.state_text.text())


def test_go_shows_the_slice_that_is_worth_labelling(predicted, section):
    found = predicted.view.suggestion()
    assert f"slice {found.index + 1}" in section.next_text.text()
    assert found.reason in section.next_text.text()
    section.go_button.click()
    assert predicted.current_slice == found.index


def test_accept_goes_on_and_undo_comes_back(predicted, section, qtbot, truth_slices):
    section.accept_button.click()
    assert status(predicted, 5) is Status.ACCEPTED
    np.testing.assert_array_equal(predicted.layers.manual.data[5], truth_slices(5))
    assert predicted.current_slice == predicted.view.suggestion().index != 5
    predicted.view.go_to(5)
    qtbot.waitUntil(lambda: "prediction accepted" in section.state_text.text())
    predicted.view.go_to(0)
    predicted.layers.undo()
    assert status(predicted, 5) is Status.PREDICTED
    assert not predicted.layers.manual.data[5].any()
    assert predicted.current_slice == 5


def test_reject_and_undo(predicted, section, qtbot):
    section.reject_button.click()
    assert status(predicted, 5) is Status.EMPTY
    assert not predicted.layers.prediction.data[5].any()
    qtbot.waitUntil(lambda: not section.reject_button.isEnabled())
    predicted.layers.undo()
    assert status(predicted, 5) is Status.PREDICTED


def test_accept_all_above_a_confidence(predicted, section, answer):
    answer(yes=True)
    section.threshold.setValue(90)
    assert section.accept_all_button.text() == "Accept 2 slices"
    section.threshold.setValue(95)
    assert section.accept_all_button.text() == "Accept 1 slice"
    section.threshold.setValue(90)
    section.accept_all_button.click()
    assert [status(predicted, i) for i in (3, 5, 6)] == [Status.PREDICTED, Status.ACCEPTED, Status.ACCEPTED]
    assert status(predicted, 8) is Status.MANUAL


@pytest.fixture
def answer(monkeypatch):
    """Answer questions with yes or no, and keep their texts."""
    asked = []

    def answer_with(yes: bool):
        button = QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No
        monkeypatch.setattr(QMessageBox, "question", lambda *args: (asked.append(args[2]), button)[1])
        return asked

    return answer_with


def test_accepting_many_asks_and_says_how_many_nobody_has_looked_at(predicted, section, answer):
    asked = answer(yes=False)
    section.threshold.setValue(50)
    section.accept_all_button.click()
    assert asked[0].startswith("Accept 3 slices? Nobody has looked at 2 of them yet.")
    assert [status(predicted, i) for i in (3, 5, 6)] == [Status.PREDICTED] * 3
    predicted.view.go_to(3)
    predicted.view.go_to(6)
    section.accept_all_button.click()
    assert asked[1].startswith("Accept 3 slices? You have looked at all of them.")
    predicted.session.labels.set_prediction(3, predicted.session.labels.predicted(6), 0.9)
    section.accept_all_button.click()
    assert "Nobody has looked at 1 of them yet." in asked[2]


def test_many_are_accepted_in_one_step_that_is_undone_and_redone(predicted, section, answer, truth_slices):
    answer(yes=True)
    section.threshold.setValue(50)
    section.accept_all_button.click()
    for index in (3, 5, 6):
        np.testing.assert_array_equal(predicted.layers.manual.data[index], truth_slices(index))
    predicted.layers.manual.paint((6, 2, 2), 1)
    predicted.flush()
    assert status(predicted, 6) is Status.MANUAL
    predicted.layers.undo()
    predicted.layers.undo()
    assert [status(predicted, i) for i in (3, 5, 6)] == [Status.PREDICTED] * 3
    assert not predicted.layers.manual.data[[3, 5, 6]].any()
    predicted.layers.redo()
    assert [status(predicted, i) for i in (3, 5, 6)] == [Status.ACCEPTED] * 3
    np.testing.assert_array_equal(predicted.layers.manual.data[5], truth_slices(5))
    predicted.layers.redo()
    assert status(predicted, 6) is Status.MANUAL
    assert predicted.layers.manual.data[6, 2, 2] == 1


def test_correct_makes_it_manual(predicted, section, truth_slices):
    section.correct_button.click()
    assert status(predicted, 5) is Status.MANUAL
    np.testing.assert_array_equal(predicted.session.labels.manual(5), truth_slices(5))


@pytest.mark.parametrize("yes", [False, True])
def test_manual_paint_is_only_replaced_when_the_person_says_so(predicted, section, monkeypatch, truth_slices, yes):
    asked = []

    def answer(*args):
        asked.append(args[2])
        return QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    predicted.session.labels.set_prediction(8, np.zeros_like(truth_slices(8)), 0.9)
    predicted.view.go_to(8)
    section.refresh()
    section.correct_button.click()
    assert len(asked) == 1
    assert "painted slice 9 by hand" in asked[0]
    manual = predicted.session.labels.manual(8)
    if yes:
        assert not manual.any()
        predicted.layers.undo()
        manual = predicted.session.labels.manual(8)
    np.testing.assert_array_equal(manual, truth_slices(8))


def test_opacity_and_outline_are_those_of_the_layer(predicted, section):
    layer = predicted.layers.prediction
    section.opacity.setValue(30)
    assert layer.opacity == pytest.approx(0.3)
    assert section.style_choice.currentText() == "as outlines"
    assert layer.contour == 1
    section.style_choice.setCurrentIndex(0)
    assert layer.contour == 0
    assert (layer.opacity, section.opacity.value()) == (0.5, 50)
    section.style_choice.setCurrentIndex(1)
    assert layer.contour == 1
    assert layer.opacity == pytest.approx(0.3)  # as it was left
    layer.opacity = 0.8
    section.refresh()
    assert section.opacity.value() == 80


def test_the_confidence_overlay_is_made_when_it_is_asked_for(predicted, section):
    assert predicted.layers.confidence is None
    section.confidence_box.click()
    assert predicted.layers.confidence.visible
    section.confidence_box.click()
    assert not predicted.layers.confidence.visible
    predicted.viewer.layers.remove(predicted.layers.confidence)
    section.refresh()
    assert not section.confidence_box.isChecked()


def test_a_removed_prediction_layer_is_no_error(predicted, section):
    predicted.viewer.layers.remove(predicted.layers.prediction)
    section.refresh()
    assert not section.opacity.isEnabled()
    section.opacity.setValue(10)
    predicted.view.restore_layers()
    section.refresh()
    assert section.opacity.isEnabled()
    assert predicted.layers.prediction.data[5].any()


def test_agreement_is_a_curve_over_trainings(opened, section, wait, truth_slices, qtbot):
    assert section.curve.isHidden()
    opened.session.labels.add_class(number=3)
    for index in (4, 8, 11):
        opened.session.paint(index, truth_slices(index))
    opened.layers.show_labels([4, 8, 11])
    opened.setup.change(steps=30, width=16)
    opened.jobs.train()
    wait(opened)
    section.refresh()
    assert section.curve.points == {}
    assert "Correct a predicted slice" in section.agreement_text.text()
    opened.view.go_to(6)
    section.correct_button.setEnabled(True)
    section.correct_button.click()
    section.refresh()
    assert section.curve.points == {1: 1.0}  # nothing had to be changed
    opened.session.paint(9, truth_slices(9))
    expected = opened.session.agreement()
    opened.jobs.train()
    wait(opened)
    section.refresh()
    assert section.curve.points == {1: pytest.approx(expected)}
    assert f"Predictions of training 1 agree with your corrections by <b>{expected:.0%}</b>" in (
        section.agreement_text.text()
    )
    assert not section.curve.isHidden()


def test_the_curve_follows_the_theme(opened, section):
    def colour() -> str:
        return section.curve.getAxis("left").textPen().color().name()

    opened.viewer.theme = "dark"
    dark = colour()
    opened.viewer.theme = "light"
    assert colour() != dark


def test_both_curves_and_the_link_to_the_licence_are_readable_in_either_theme(panel, opened, qtbot):
    state = panel.case.encoder.state
    qtbot.waitUntil(lambda: "<a href" in state.text(), timeout=30_000)  # looked for once a case is open
    for theme in ("dark", "light", "dark"):
        opened.viewer.theme = theme
        for plot in (panel.train.curve, panel.review.curve):
            ground = plot.backgroundBrush().color()
            (line,) = plot.listDataItems()
            pens = (plot.getAxis("left").textPen().color(), pyqtgraph.mkPen(line.opts["pen"]).color())
            assert all(contrast(pen, ground) > 3 for pen in pens)
        (link,) = re.findall(r"color: (#[0-9a-f]{6})", state.text())
        assert contrast(QColor(link), QColor(background_colour(opened.viewer))) > 4.5


def contrast(one: QColor, other: QColor) -> float:
    """Of two colours, 1 to 21, as WCAG defines it."""

    def luminance(colour: QColor) -> float:
        parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.getRgbF()[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
