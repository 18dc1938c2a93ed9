"""Whether a saved model fits a session: its classes, its settings, its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinoaugseg.errors import CheckpointError, LabelError, SettingsError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.labels import LabelClass, from_plain

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint


def require_fitting(
    checkpoint: Checkpoint, path: Path, present: Sequence[int], encoder: str
) -> tuple[list[LabelClass], Settings]:
    """The classes and settings of a model that fits a session.

    Args:
        checkpoint: the model.
        path: its file, for messages.
        present: the numbers of the session's classes; none = the model brings its own.
        encoder: the encoder that the session asks for, or ``auto``.

    Raises:
        CheckpointError: another encoder, other classes, or contents that this version does not understand.
    """
    classes, settings = _contents(checkpoint, path)
    numbers = [entry.number for entry in classes]
    if present and list(present) != numbers:
        msg = (
            f"{path}: the model knows the classes {_listed(numbers)}, the labels have {_listed(present)}. "
            "They must be the same; give labels with these values, or train without the model."
        )
        raise CheckpointError(msg)
    if encoder not in ("auto", settings.encoder):
        msg = (
            f"{path}: the model works on features of {settings.encoder}, not of {encoder}. "
            "Use that encoder (or auto), or train without the model."
        )
        raise CheckpointError(msg)
    return classes, settings


def _contents(checkpoint: Checkpoint, path: Path) -> tuple[list[LabelClass], Settings]:
    with importing_torch():
        from napari_dinoaugseg.model.specs import ENCODERS

    try:
        classes, settings = from_plain(checkpoint.classes), Settings.checked(checkpoint.settings)
    except (KeyError, TypeError, ValueError, LabelError, SettingsError) as error:
        msg = (
            f"{path}: the model file describes classes or settings that this version does not understand. "
            f"Train a new model ({error})."
        )
        raise CheckpointError(msg) from error
    if settings.encoder not in ENCODERS:
        msg = f"{path}: the model needs the encoder '{settings.encoder}', which is not known here. Train a new model."
        raise CheckpointError(msg)
    return classes, settings


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
