"""Labels of an earlier session follow a case into a project, unless their classes mean something else there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.session.earlier import take_earlier
from napari_dinoaugseg.session.labels import new_class
from napari_dinoaugseg.session.project import Project
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore, new_session_folder
from tests.case.builders import listing, numbers, write_nifti


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A volume with a saved session: class 1, liver, on slice 2."""
    path = write_nifti(tmp_path / "scan.nii.gz", numbers((6, 7, 5)), np.diag([1.0, 1.0, 2.0, 1.0]))
    save_session(path, plane="axial")
    return path


def save_session(path: Path, plane: str) -> Path:
    session = Session(open_case(path, plane=plane))
    session.labels.add_class("liver", 1)
    session.paint(2, np.ones(session.case.slice_shape(2), np.uint16))
    store = SessionStore(new_session_folder(session.case.fingerprint), session.case)
    store.save(session.snapshot())
    store.close()
    return store.folder


def sessions() -> dict[str, bytes]:
    folder = Path(os.environ["DINOAUGSEG_SESSIONS"])
    return {name: content for name, content in listing(folder).items() if not name.endswith("lock")}


def test_labels_and_classes_are_copied_and_the_session_stays(image: Path, tmp_path: Path) -> None:
    before = sessions()
    with Project(tmp_path / "project") as project:
        case, _ = project.add(image, plane="axial")
        found = take_earlier(project, case)
        assert found is not None
        assert found.reason == ""
        assert [entry.name for entry in project.classes] == ["liver"]
        assert project.status(case).labelled == (2,)
    assert sessions() == before


def test_classes_of_another_meaning_are_left_behind_with_the_reason(image: Path, tmp_path: Path) -> None:
    with Project(tmp_path / "project") as project:
        project.classes = [new_class(1, "spleen")]
        case, _ = project.add(image, plane="axial")
        found = take_earlier(project, case)
        assert found is not None
        assert found.reason == "Class 1 is 'liver' there, and 'spleen' here."
        assert project.status(case).labelled == ()
        assert [entry.name for entry in project.classes] == ["spleen"]


def test_a_damaged_session_is_left_behind_and_not_touched(image: Path, tmp_path: Path) -> None:
    (slices,) = Path(os.environ["DINOAUGSEG_SESSIONS"]).rglob("*_manual_*.png")
    slices.write_bytes(b"half")
    before = sessions()
    with Project(tmp_path / "project") as project:
        case, _ = project.add(image, plane="axial")
        found = take_earlier(project, case)
        assert found is not None
        assert "manual labels" in found.reason
        assert project.status(case).labelled == ()
    assert sessions() == before


def test_labels_in_another_plane_are_none(image: Path, tmp_path: Path) -> None:
    with Project(tmp_path / "project") as project:
        case, _ = project.add(image, plane="coronal")
        assert take_earlier(project, case) is None
