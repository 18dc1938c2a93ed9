"""What to do next, in one sentence: always the first thing that the panel says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.gui.work_actions import TRAINING
from napari_dinoaugseg.session.labels import UNKNOWN

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

ENOUGH_TO_START = 3
"""Labelled slices from which a first training pays."""


def advice(controller: Controller) -> str:
    """The next step for the person."""
    session = controller.session
    if controller.busy:
        return "Stopping…" if controller.stopping else _while_busy(controller)
    if session is None:
        return "1. Open a case: a file, a folder, an image layer of this viewer, or the brain sample."
    if controller.layers is not None and controller.layers.manual is None:
        return "The labels layer was removed; nothing is lost. Press 'Bring layers back' in the Label section."
    if controller.guard is not None and controller.guard.reason:
        return controller.guard.reason
    if controller.read_only:
        return "Look at these labels and export them here; press 'Try again' when the other window is closed."
    if controller.interrupted:
        return "The scheduler was lost. Press 'Go on with this computer' in the Train section, or Train to try again."
    if unanswered(controller):
        return "Go on with your labels, or start anew: choose below."
    noun = "slice" if session.case.kind == "volume" else "picture"
    return _to_label(session, noun) or _after_training(controller, session, noun)


def unanswered(controller: Controller) -> bool:
    """Whether the person is still asked to go on with saved labels or to start anew."""
    session = controller.session
    if session is None or controller.read_only:
        return False
    return bool(controller.sessions.offers) and not session.labels.labelled


def _to_label(session: Session, noun: str) -> str | None:
    """What lacks before a first training; None when there was one."""
    book = session.labels
    labelled = book.labelled
    if not book.classes:
        return "Add a class for what you want to find."
    if session.is_trained and not labelled:
        return None  # a saved model
    if not labelled:
        names = " and ".join(f"'{entry.name}'" for entry in book.classes[:2]) + (" …" if len(book.classes) > 2 else "")
        return f"2. Paint {names} on one {noun} with the brush, then on two to four more, spread out. Then press Train."
    if not any(((book.truth(i) != 0) & (book.truth(i) != UNKNOWN)).any() for i in labelled):
        return f"Only background is labelled so far. Paint a class on at least one {noun}."
    if session.is_trained:
        return None
    count = f"{_several(len(labelled), noun)} labelled."
    if len(labelled) < min(ENOUGH_TO_START, session.case.n_slices):
        return f"{count} Paint {ENOUGH_TO_START} to 5, spread out ('Go to suggested' shows where), then press Train."
    return f"3. {count} Press Train."


def _after_training(controller: Controller, session: Session, noun: str) -> str:
    book = session.labels
    learnt = set(session.history[-1].labelled) if session.history else set()
    new = [i for i in book.labelled if i not in learnt]
    found = controller.suggestion()
    if found is None or not book.open_slices:
        return f"Every {noun} is labelled. Export the masks."
    if not book.confidence:
        return "Press Predict to see masks on the other slices."
    if new:
        return f"{_several(len(new), noun)} labelled since the last training. Press Train to learn from that too."
    name = session.case.slice_name(found.index)
    return f"4. Look at {name} ({found.reason}): accept it, or correct it and train again. Export when content."


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _while_busy(controller: Controller) -> str:
    if controller.work_name == TRAINING:
        return "Learning from your labels. Go on painting if you like: it counts in the next round."
    if controller.work_name == "Predicting":
        return "Masks appear as they come, nearest slices first. You can look and paint meanwhile."
    return f"{controller.work_name}…"
