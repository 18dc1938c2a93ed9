"""The form of the settings: it offers what the settings allow, and shows what a preset chose."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox

from napari_dinoaugseg.gui.train_section import settings_form, show_settings
from napari_dinoaugseg.learning.settings import Settings


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
