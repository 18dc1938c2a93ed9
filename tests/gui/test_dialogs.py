"""File dialogs begin where the last one of their kind was used."""

from __future__ import annotations

from pathlib import Path

import pytest
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_dinoaugseg.gui.widgets import ask_for_file, ask_for_folder, ask_where_to_save


@pytest.fixture
def parent(qtbot) -> QWidget:
    made = QWidget()
    qtbot.addWidget(made)
    return made


@pytest.fixture
def dialogs(monkeypatch):
    """Answer dialogs with a path, and tell where the last one began."""
    seen: list[Path] = []

    def answer(path):
        def named(_parent, _title, start="", *_, **__):
            seen.append(Path(start))
            return str(path or ""), ""

        monkeypatch.setattr(QFileDialog, "getOpenFileName", named)
        monkeypatch.setattr(QFileDialog, "getSaveFileName", named)
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *args, **_: named(*args)[0])
        return seen

    return answer


def test_each_purpose_remembers_its_own_folder(parent, dialogs, tmp_path):
    for name in ("scans", "masks"):
        (tmp_path / name).mkdir()
    seen = dialogs(tmp_path / "scans" / "a.nii.gz")
    assert ask_for_file(parent, "case", "Open", "*") == tmp_path / "scans" / "a.nii.gz"
    dialogs(tmp_path / "masks" / "a_mask.nii.gz")
    ask_where_to_save(parent, "export", "Export", "mask.nii.gz", "NIfTI (*.nii.gz)")
    ask_for_file(parent, "case", "Open", "*")
    assert seen[-1] == tmp_path / "scans"
    ask_where_to_save(parent, "export", "Export", "mask.nii.gz", "NIfTI (*.nii.gz)")
    assert seen[-1] == tmp_path / "masks" / "mask.nii.gz"


def test_a_dialog_begins_beside_the_case_or_at_home_and_a_dismissed_one_changes_nothing(parent, dialogs, tmp_path):
    seen = dialogs(None)
    assert ask_for_file(parent, "model", "Open", "*") is None
    assert seen[-1] == Path.home()
    assert ask_for_file(parent, "model", "Open", "*", beside=tmp_path) is None
    assert seen[-1] == tmp_path
    assert ask_for_file(parent, "model", "Open", "*") is None
    assert seen[-1] == Path.home()


def test_a_folder_that_is_gone_is_forgotten(parent, dialogs, tmp_path):
    gone = tmp_path / "stick"
    gone.mkdir()
    seen = dialogs(gone / "a.png")
    ask_for_file(parent, "case", "Open", "*")
    gone.rmdir()
    ask_for_file(parent, "case", "Open", "*", beside=tmp_path)
    assert seen[-1] == tmp_path


def test_cases_lie_beside_each_other_and_exports_go_into_the_folder(parent, dialogs, tmp_path):
    (tmp_path / "case_1").mkdir()
    seen = dialogs(tmp_path / "case_1")
    ask_for_folder(parent, "case", "Open")
    ask_for_folder(parent, "case", "Open")
    assert seen[-1] == tmp_path
    ask_for_folder(parent, "export", "Export")
    ask_for_folder(parent, "export", "Export")
    assert seen[-1] == tmp_path / "case_1"
