"""A small window with the keys and the order of things, for whoever has forgotten them."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.keys import KEYS

_STEPS = (
    "<b>Study</b>: open a file or folder, or use an image layer that is there.",
    "<b>Label</b>: pick a class and paint it on three to five slices, spread over the study.",
    "<b>Train</b>: after a minute or so masks appear on the other slices.",
    "<b>Review</b>: go where the model is unsure (N); accept a slice (A), correct it with the brush (C), or reject it "
    "(X). Train again.",
    "<b>Export</b>: write the mask in the geometry of the study.",
)

_NAPARI_KEYS = (
    ("[  and  ]", "make the brush smaller or larger"),
    ("P, E, F", "paint, erase, fill"),
    ("Space (hold)", "move the image while painting"),
    ("Left, Right", "go to the slice before or after"),
    ("Ctrl+Z", "undo, also accepting and rejecting"),
)


class HelpPopup(QDialog):
    """Keys and steps."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("DINO-AugSeg: steps and keys")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.text = QLabel(help_text())
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        close = QPushButton("Close")
        close.clicked.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addWidget(close, alignment=Qt.AlignmentFlag.AlignRight)


def help_text() -> str:
    """The content as simple HTML."""
    steps = "".join(f"<li>{step}</li>" for step in _STEPS)
    rows = "".join(_row(key.shown, key.does) for key in KEYS)
    napari_rows = "".join(_row(key, does) for key, does in _NAPARI_KEYS)
    return (
        f"<h3>In this order</h3><ol>{steps}</ol>"
        f"<h3>Keys</h3><table>{rows}</table>"
        f"<h3>Keys of napari that help</h3><table>{napari_rows}</table>"
        "<p>Predictions never overwrite what you painted. Research use only; not a medical device.</p>"
    )


def _row(key: str, does: str) -> str:
    return f"<tr><td><b>{key}</b></td><td style='padding-left: 14px'>{does}</td></tr>"


def show_help(viewer: Any) -> HelpPopup:
    """Open the window over the viewer; it does not block the work."""
    window = getattr(viewer.window, "_qt_window", None) if getattr(viewer, "window", None) is not None else None
    popup = HelpPopup(window)
    popup.show()
    return popup
