"""What is no case is refused in one or two lines that name the file; nothing is written or changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import CaseError, DinoAugSegError, SettingsError
from tests.case.bad_volumes import BAD_VOLUMES
from tests.case.builders import listing, numbers, write_nifti


@pytest.mark.parametrize("case", BAD_VOLUMES)
def test_an_image_that_cannot_be_used_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, message = BAD_VOLUMES[case]
    path = make(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(CaseError, match=message) as caught:
        open_case(path)
    assert path.name in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert isinstance(caught.value, DinoAugSegError)
    assert listing(tmp_path) == before


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for message in ("empty: there is no image here", "empty: a folder of volumes is not one case. Name one file"):
        with pytest.raises(CaseError, match=message):
            open_case(tmp_path / "empty")
        (tmp_path / "empty" / "notes.txt").write_text("text")
        write_nifti(tmp_path / "empty" / "a.nii.gz", numbers((4, 4, 4)))


def test_an_empty_list_or_a_missing_member_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="list of files is empty"):
        open_case([])
    with pytest.raises(CaseError, match=r"b\.png: there is no such file"):
        open_case([write_nifti(tmp_path / "a.nii", numbers((4, 4, 4))), tmp_path / "b.png"])


def test_a_plane_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", numbers((4, 4, 4)))
    with pytest.raises(SettingsError, match=r"'oblique'\. Choose one of axial, coronal, sagittal, native"):
        open_case(path, plane="oblique")
    assert open_case(path, plane="Coronal").plane == "coronal"
