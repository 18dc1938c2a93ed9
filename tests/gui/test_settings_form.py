"""The form of the settings: it offers what the settings allow, and shows what a preset chose."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QGraphicsView, QSlider

from napari_dinoaugseg.gui.train_section import settings_form, show_settings
from napari_dinoaugseg.learning.settings import Settings
from tests.gui.conftest import settle


def test_the_precision_of_a_preset_is_shown_and_another_can_be_chosen(qtbot):
    chosen = []
    form = settings_form(Settings(), lambda name, value: chosen.append((name, value)))
    qtbot.addWidget(form.native)
    box = form["precision"].native
    assert isinstance(box, QComboBox)
    assert [box.itemText(i) for i in range(box.count())] == ["auto", "float32", "bfloat16"]
    assert box.currentText() == "auto"
    show_settings(form, Settings.of_preset("paper"))
    assert box.currentText() == "float32"
    assert chosen == []
    box.setCurrentText("bfloat16")
    assert chosen == [("precision", "bfloat16")]


@pytest.mark.shared_window
def test_the_wheel_over_a_list_or_a_number_scrolls_the_panel_and_changes_nothing(case, panel):
    for fold in (*panel.folds.values(), panel.train.more):
        fold.set_open(True)
    settle()
    assert panel.scroll_area.widget().width() <= panel.scroll_area.viewport().width()  # nothing below the scroll bar
    fields = [
        field
        for kind in (QComboBox, QAbstractSpinBox, QSlider)
        for field in panel.scroll_area.widget().findChildren(kind)
        if field.isVisible() and field.isEnabled()
    ]
    assert {type(field) for field in fields} >= {QComboBox, QSlider}
    assert panel.train.window_choice in fields
    fields += [plot.viewport() for plot in panel.scroll_area.widget().findChildren(QGraphicsView)]
    for field in fields:
        before = shown_in(field)
        for turned in (-120, 120):
            event = wheel(field, turned)
            QApplication.sendEvent(field, event)
            assert shown_in(field) == before, field.toolTip()
            assert not event.isAccepted()  # so it goes on to the scroll area


def shown_in(field) -> object:
    if isinstance(field, QComboBox):
        return field.currentIndex()
    return field.value() if isinstance(field, QAbstractSpinBox | QSlider) else None


def wheel(field, turned: int) -> QWheelEvent:
    place, angle = QPointF(field.rect().center()), QPoint(0, turned)
    button, keys, phase = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase
    return QWheelEvent(place, QPointF(field.mapToGlobal(place.toPoint())), QPoint(), angle, button, keys, phase, False)
