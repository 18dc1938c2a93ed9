"""Yes or no: asked before anything is replaced. "No" is the default, so that a stray Enter loses nothing."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QMessageBox, QWidget


def confirmed(parent: QWidget | None, title: str, text: str) -> bool:
    """Ask, and wait for the answer."""
    button = QMessageBox.StandardButton
    buttons: Any = button.Yes | button.No  # PyQt5's stubs call this a number
    return bool(QMessageBox.question(parent, title, text, buttons, button.No) == button.Yes)
