"""Choices of an intensity window: one for the eyes (Case section), one for the model (Train section)."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox

from napari_dinoaugseg.case import CT_WINDOWS
from napari_dinoaugseg.gui.widgets import quietly

WINDOWS = ("auto", "percentiles", *CT_WINDOWS)


def show_window(choice: QComboBox, window: str) -> None:
    """Show a window in a list without acting on it; values of the person's own replace those shown before.

    The list holds WINDOWS and, last, an item that is not a window of its own ("own values…").
    """

    def change() -> None:
        for index in reversed(range(len(WINDOWS), choice.count() - 1)):
            choice.removeItem(index)
        if window not in WINDOWS:
            choice.insertItem(choice.count() - 1, window)
        choice.setCurrentText(window)

    quietly(choice, change)
