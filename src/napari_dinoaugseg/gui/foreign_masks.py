"""Masks that nnU-Net predicted, taken as predictions of the open case, or of all cases of the project."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import ProjectError, TrainingError
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.widgets import as_sentence
from napari_dinoaugseg.gui.words import counted, in_words, noun_of
from napari_dinoaugseg.learning.events import Cancel
from napari_dinoaugseg.session.foreign_masks import (
    CaseMasks,
    TakenMasks,
    read_masks_of,
    read_project_masks,
    take_project_masks,
)
from napari_dinoaugseg.session.project import CaseStatus

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

_LISTED = 5


def take_for_case(controller: Controller, path: Path) -> None:
    """Take a mask, or a folder with masks of the pictures, as predictions of the open case."""
    controller.require_writable()
    session = controller.session
    if session is None:
        msg = "No case is open. Open one in the Case section first."
        raise TrainingError(msg)
    controller.flush()
    classes = list(session.labels.classes)
    identifier = controller.project.case.identifier if controller.project.case is not None else None

    def done(masks: CaseMasks) -> None:
        if session is controller.session:
            taken = _give(controller, session, masks)
            noun = noun_of(session.case)
            kept = len(masks) - taken
            stay = f" {counted(kept, noun)} that you labelled stay as they are." if kept else ""
            _tell(controller, f"Masks on {counted(taken, noun)} to be reviewed; Ctrl+Z undoes it.{stay}", masks.notices)

    controller.jobs.run("Reading masks", lambda: read_masks_of(session.case, path, classes, identifier), done)


def take_for_project(controller: Controller, path: Path, then: Callable[[str], None]) -> None:
    """Take a folder of masks as predictions of the cases of the project; ``then`` receives what happened."""
    work = controller.project
    project, opened = work.current, work.case
    if project is None or work.read_only:
        msg = work.read_only or "No project is open. Open one in the Project section first."
        raise ProjectError(msg)
    controller.flush()
    session, cancel = controller.session, Cancel()
    statuses: dict[int, CaseStatus] = {}

    def source() -> Generator[Any, None, tuple[CaseMasks | None, TakenMasks, list[str]]]:
        yield from ()
        found = read_project_masks(project, path, cancel)
        if cancel:
            return None, TakenMasks(), []
        own = found.masks.get(opened.number) if opened is not None else None
        taken = take_project_masks(
            project, found, opened, lambda case: statuses.update({case.number: project.status(case, quick=True)})
        )
        return own, taken, [*taken.problems, *found.notices]

    def done(result: tuple[CaseMasks | None, TakenMasks, list[str]]) -> None:
        own, taken, notices = result
        if project is not work.current:
            return
        work.order.renew(statuses)
        if cancel:
            controller.notify("Stopped; no mask was taken.")
            return
        if own is not None and opened is not None and session is not None and session is controller.session:
            count = _give(controller, session, own)
            taken.slices[opened.number], taken.kept[opened.number] = count, len(own) - count
        then("\n".join([taken.sentence(), *map(in_words, notices[:_LISTED])]))

    controller.jobs.start("Reading masks", source, done, cancel)


def _give(controller: Controller, session: Session, masks: CaseMasks) -> int:
    """Store masks in the label book of the open case and show them; returns on how many slices."""
    taken = masks.give_to(session.labels)
    if controller.layers is not None:
        controller.layers.show_predictions(taken)
    controller.touch(Change.PREDICTIONS)
    return len(taken)


def _tell(controller: Controller, words: str, notices: list[str]) -> None:
    controller.notify(" ".join([words, *(as_sentence(in_words(notice)) for notice in notices[:_LISTED])]))
