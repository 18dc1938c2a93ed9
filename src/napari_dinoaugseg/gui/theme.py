"""Colours of napari's theme, for what its style sheet does not reach: plots."""

from __future__ import annotations

from typing import Any


def text_colour(viewer: Any) -> str:
    """The colour of text in the viewer's theme, ``#rrggbb``."""
    return _colour(viewer, "text")


def background_colour(viewer: Any) -> str:
    """The colour behind the text, ``#rrggbb``. A plot without one keeps that of the theme it was made in."""
    return _colour(viewer, "background")


def _colour(viewer: Any, name: str) -> str:
    from napari.utils.theme import get_theme

    return str(getattr(get_theme(viewer.theme), name).as_hex(format="long"))
