"""File dialogs that open where the last one of the same purpose was used, also after a restart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import platformdirs
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QFileDialog, QWidget

Purpose = Literal["study", "labels", "export", "report", "model", "weights"]
"""What a dialog is for; each purpose has a folder of its own."""


def ask_for_file(
    parent: QWidget, purpose: Purpose, title: str, filters: str, *, beside: Path | None = None
) -> Path | None:
    """Let the person choose a file that is there.

    Args:
        parent: the widget below the dialog.
        purpose: what for.
        title: of the dialog.
        filters: as Qt takes them: ``Model (*.safetensors);;All files (*)``.
        beside: where to begin while no folder of this purpose is known; None = at home.

    Returns:
        The file; None = cancelled.
    """
    name, _ = QFileDialog.getOpenFileName(parent, title, str(_start(purpose, beside)), filters)
    return _remember(purpose, name, is_inside=True)


def ask_for_folder(parent: QWidget, purpose: Purpose, title: str, *, beside: Path | None = None) -> Path | None:
    """Let the person choose a folder that is there; arguments as of :func:`ask_for_file`. None = cancelled."""
    name = QFileDialog.getExistingDirectory(parent, title, str(_start(purpose, beside)))
    # The next study lies beside the last one; what is written goes into the folder.
    return _remember(purpose, name, is_inside=purpose != "export")


def ask_where_to_save(
    parent: QWidget, purpose: Purpose, title: str, name: str, filters: str, *, beside: Path | None = None
) -> tuple[Path, str] | None:
    """Let the person name a file to write; whether it may be replaced is asked elsewhere, for all files at once.

    Args:
        parent: the widget below the dialog.
        purpose: what for.
        title: of the dialog.
        name: the proposed name.
        filters: as Qt takes them.
        beside: where to begin while no folder of this purpose is known; None = at home.

    Returns:
        The file and the filter that was chosen; None = cancelled.
    """
    options = QFileDialog.Option.DontConfirmOverwrite
    proposed = str(_start(purpose, beside) / name)
    picked, chosen = QFileDialog.getSaveFileName(parent, title, proposed, filters, options=options)
    path = _remember(purpose, picked, is_inside=True)
    return None if path is None else (path, chosen)


def _start(purpose: Purpose, beside: Path | None) -> Path:
    known = _folders().value(purpose)
    for folder in (Path(known) if isinstance(known, str) else None, beside):
        if folder is not None and folder.is_dir():
            return folder
    return Path.home()


def _remember(purpose: Purpose, name: str, *, is_inside: bool) -> Path | None:
    """What the dialog gave, as a path; its folder is where the next one begins."""
    if not name:
        return None
    path = Path(name)
    _folders().setValue(purpose, str(path.parent if is_inside else path))
    return path


def _folders() -> QSettings:
    """The folders by purpose. A cache: whoever clears it begins at home again."""
    named = os.environ.get("DINOAUGSEG_CACHE")
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("napari-dinoaugseg", appauthor=False))
    return QSettings(str(folder / "dialogs.ini"), QSettings.Format.IniFormat)
