"""Colours of napari's theme, for what its style sheet does not reach: plots."""

from __future__ import annotations

from typing import Any


def text_colour(viewer: Any) -> str:
    """The colour of text in the viewer's theme, ``#rrggbb``."""
    from napari.utils.theme import get_theme

    return str(get_theme(viewer.theme).text.as_hex(format="long"))
