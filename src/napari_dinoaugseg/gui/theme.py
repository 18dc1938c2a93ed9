"""Colours of napari's theme, for what its style sheet does not reach: plots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QWidget


def text_colour(viewer: Any) -> str:
    """The colour of text in the viewer's theme, ``#rrggbb``."""
    return _colour(viewer, "text")


def background_colour(viewer: Any) -> str:
    """The colour behind the text, ``#rrggbb``. A plot without one keeps that of the theme it was made in."""
    return _colour(viewer, "background")


def is_dark(viewer: Any) -> bool:
    """Whether the viewer's theme writes light on dark."""
    return _brightness(text_colour(viewer)) > _brightness(background_colour(viewer))


def follow_theme(viewer: Any, widget: QWidget, show: Callable[[], None]) -> None:
    """Show a widget in the colours of the theme: now, and at each change of the theme while the widget lives."""

    def changed(*_: object) -> None:
        show()

    def let_go(*_: object) -> None:
        viewer.events.theme.disconnect(changed)

    viewer.events.theme.connect(changed)
    widget.destroyed.connect(let_go)
    show()


def _brightness(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _colour(viewer: Any, name: str) -> str:
    from napari.utils.theme import get_theme

    return str(getattr(get_theme(viewer.theme), name).as_hex(format="long"))
