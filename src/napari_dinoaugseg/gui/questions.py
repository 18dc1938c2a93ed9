"""Questions: asked before anything is replaced, flooded or let out. The default loses nothing at a stray Enter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import QMessageBox, QWidget


def confirmed(parent: QWidget | None, title: str, text: str) -> bool:
    """Ask yes or no, and wait for the answer. "No" is the default."""
    button = QMessageBox.StandardButton
    buttons: Any = button.Yes | button.No  # PyQt5's stubs call this a number
    return bool(QMessageBox.question(parent, title, text, buttons, button.No) == button.Yes)


def chosen(parent: QWidget | None, title: str, text: str, answers: Sequence[str]) -> int | None:
    """Let the person choose one of several answers, or cancel, which is the default.

    Returns:
        The number of the answer; None = cancelled.
    """
    box = QMessageBox(QMessageBox.Icon.Question, title, text, parent=parent)
    buttons = [box.addButton(answer, QMessageBox.ButtonRole.AcceptRole) for answer in answers]
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(cancel)
    box.setEscapeButton(cancel)
    box.exec()
    clicked = box.clickedButton()
    return next((number for number, button in enumerate(buttons) if button is clicked), None)
