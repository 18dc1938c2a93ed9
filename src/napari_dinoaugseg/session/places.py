"""Where sessions lie: a folder for each study, named by its pixels, with a numbered folder for each session in it.

Neither the study's name nor its path stands in a name or a file: they may tell who the patient is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import OutputError, SessionError
from napari_dinoaugseg.session.index import INDEX_NAME, DamagedIndexError, read_index
from napari_dinoaugseg.session.slice_files import parse, slice_files


def default_sessions_folder() -> Path:
    """The user's data folder; the environment variable DINOAUGSEG_SESSIONS moves it."""
    named = os.environ.get("DINOAUGSEG_SESSIONS")
    if named:
        return Path(named)
    return Path(platformdirs.user_data_dir("napari-dinoaugseg", appauthor=False)) / "sessions"


@dataclass(frozen=True)
class SavedSession:
    """A session on disk, as its index tells.

    Attributes:
        folder: where it lies.
        saved: when.
        plane: how the study was cut; None where the index is damaged.
        n_manual: slices labelled by hand.
        n_accepted: slices with accepted predictions.
        n_predicted: slices with predictions.
        rounds: how many trainings.
    """

    folder: Path
    saved: datetime
    plane: str | None
    n_manual: int
    n_accepted: int
    n_predicted: int
    rounds: int


def saved_sessions(fingerprint: str, root: Path | None = None) -> list[SavedSession]:
    """The sessions of a study that hold anything, the last one first; those of a newer version of the program too.

    Args:
        fingerprint: of the study.
        root: the folder of all sessions; None = the user's.
    """
    folder = _study_folder(fingerprint, root)
    found = [_describe(path) for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.saved, reverse=True)


def new_session_folder(fingerprint: str, root: Path | None = None) -> Path:
    """Make an empty folder for a session of a study. Raises OutputError when the system refuses."""
    folder = _study_folder(fingerprint, root)
    number = 1
    while True:
        path = folder / f"{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            msg = (
                f"{path}: no session can be saved there ({disk.reason(error)}). "
                "Free some space, or choose another folder for sessions in the preferences."
            )
            raise OutputError(msg) from error
        else:
            return path


def _study_folder(fingerprint: str, root: Path | None) -> Path:
    return (root or default_sessions_folder()) / fingerprint


def _describe(folder: Path) -> SavedSession | None:
    """What a session is, from its index; from its files when that does not tell; None when it is empty."""
    layers = [found[1] for path in slice_files(folder / "slices") if (found := parse(path.name)) is not None]
    try:
        index, _ = read_index(folder)
    except SessionError:  # of a newer version: it is offered, so that the person learns of it
        return SavedSession(folder, _changed(folder), None, 0, 0, 0, 0)
    except DamagedIndexError:
        saved, plane, rounds = _changed(folder), None, 0
    else:
        if index.slices is not None:
            layers = [layer for names in index.slices.values() for layer in names]
        saved, plane, rounds = index.saved, index.study.plane, len(index.rounds)
    if not layers:
        return None
    count = layers.count
    return SavedSession(folder, saved, plane, count("manual"), count("accepted"), count("predicted"), rounds)


def _changed(folder: Path) -> datetime:
    path = folder / INDEX_NAME
    return datetime.fromtimestamp((path if path.exists() else folder).stat().st_mtime, UTC).astimezone()
