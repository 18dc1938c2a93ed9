"""Labels of an earlier session of the same pixels, for a case that is added to a project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from napari_dinoaugseg.errors import DinoAugSegError, joined
from napari_dinoaugseg.session.project import Project, ProjectCase
from napari_dinoaugseg.session.store import SavedSession, SessionStore, saved_sessions


@dataclass(frozen=True)
class Earlier:
    """The newest saved session of a case in the plane of the project.

    Attributes:
        saved: the session; it is only read.
        reason: why its labels were not copied, a sentence; empty if they were.
    """

    saved: SavedSession
    reason: str = ""


def take_earlier(project: Project, case: ProjectCase, root: Path | None = None) -> Earlier | None:
    """Copy the labels and predictions of an earlier session into a case that was just added.

    The session stays as it is. Nothing is copied where a class of it has the number, but not the name, of a class of
    the project: its labels would change their meaning.

    Args:
        project: with the case.
        case: without labels.
        root: the folder of all sessions; None = the default.

    Returns:
        What was found; None without a session in the plane of the case.

    Raises:
        OutputError, SessionError: the labels of the case cannot be saved.
    """
    try:
        found = [saved for saved in saved_sessions(case.record.fingerprint, root) if saved.plane == case.record.plane]
    except OSError:  # a folder that cannot be read: the case is as one without sessions
        return None
    if not found:
        return None
    saved = found[0]
    try:
        # Nothing is changed by reading, not even a damaged file set aside.
        snapshot, problems = SessionStore(saved.folder, project.recorded(case), locks=False).load()
    except DinoAugSegError as error:
        return Earlier(saved, error.message)
    if problems:
        return Earlier(saved, joined(problems))
    known = {entry.number: entry.name for entry in project.classes}
    for entry in snapshot.book.classes:
        if known.get(entry.number, entry.name) != entry.name:
            return Earlier(saved, f"Class {entry.number} is '{entry.name}' there, and '{known[entry.number]}' here.")
    store = project.store(case)
    try:
        project.keep_snapshot(case, replace(snapshot, model=None, model_settings=None), store)
    finally:
        store.close()
    return Earlier(saved)
