"""What a session is at one moment: what is written to disk, and what a session goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.labels import BookContent

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint


@dataclass
class Round:
    """One training and what it cost.

    Attributes:
        labelled: slices that were learnt from.
        steps: optimisation steps.
        final_loss: smoothed training loss at the end.
        seconds: by stage: ``encode``, ``train``, ``predict``.
        agreement: Dice (0 to 1) of the round before with what the person made of it; None in a first round, or when no
            predicted slice was corrected.
    """

    labelled: list[int]
    steps: int
    final_loss: float | None
    seconds: dict[str, float]
    agreement: float | None


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment. Arrays are shared with the session and read-only, so taking one costs nothing.

    Attributes:
        book: labels, predictions and classes.
        settings: how to learn.
        history: one entry a training.
        model: the trained decoder, or the file that holds it; None without one.
        view: what the person looked at, plain JSON values; the panel knows what they mean.
        model_settings: the settings with which the model was trained; None = those of the session.
    """

    book: BookContent
    settings: Settings
    history: tuple[Round, ...] = ()
    model: Checkpoint | Path | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    model_settings: Settings | None = None
