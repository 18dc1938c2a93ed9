"""What becomes a case when files or a folder are added to a project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinoaugseg.errors import CaseError
from napari_dinoaugseg.session.adding import cases_in_folder, cases_of_files
from napari_dinoaugseg.session.project import Project
from tests.case.builders import numbers, write_dicom, write_nifti


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers((12, 16), np.uint8, seed)).save(path)
    return path


def test_each_volume_is_a_case_and_pictures_together_are_one(tmp_path):
    volumes = [write_nifti(tmp_path / f"b{i}.nii.gz", numbers((5, 6, 4), seed=i)) for i in (10, 2)]
    pictures = [picture(tmp_path / "photos" / f"{i}.png", i) for i in range(3)]
    found = cases_of_files([*volumes, *pictures])
    assert [(entry.name, entry.slices) for entry in found] == [("b2", None), ("b10", None), ("photos", 3)]
    assert list(found[2].path) == pictures


def test_dicom_slices_that_were_chosen_are_one_case(tmp_path):
    files = write_dicom(tmp_path / "scan", numbers((4, 6, 5)))
    (found,) = cases_of_files(files)
    with Project(tmp_path / "project") as project:
        case, _ = project.add(list(found.path))
        assert (case.name, case.record.n_slices) == ("scan", 4)


def test_a_folder_of_volumes_leaves_out_masks_and_mentions_them(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "a_seg"):
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", numbers((5, 6, 4)))
    found, notices = cases_in_folder(tmp_path / "in")
    assert [entry.name for entry in found] == ["a", "b"]
    assert "a_seg.nii.gz" in notices[0]


def test_each_series_is_a_case_opened_from_its_own_folder(tmp_path):
    write_dicom(tmp_path / "in" / "p1" / "t1", numbers((4, 6, 5)), series_uid="1.2.1", description="T1")
    shared = tmp_path / "in" / "p2"
    write_dicom(shared, numbers((3, 6, 5), seed=1), series_uid="1.2.2", description="T1", names=lambda k: f"a{k}.dcm")
    write_dicom(shared, numbers((2, 6, 5), seed=2), series_uid="1.2.3", description="T2", names=lambda k: f"b{k}.dcm")
    found, _ = cases_in_folder(tmp_path / "in")
    assert [(entry.name, entry.description, entry.slices, entry.modality) for entry in found] == [
        ("t1", "T1", 4, "CT"),
        ("p2 T1", "T1", 3, "CT"),
        ("p2 T2", "T2", 2, "CT"),
    ]
    assert found[0].path == tmp_path / "in" / "p1" / "t1"
    with Project(tmp_path / "project") as project:
        for entry in found:
            project.add(entry.path, series=entry.series, name=entry.name)
        assert [(case.name, case.record.n_slices) for case in project.cases] == [("t1", 4), ("p2 T1", 3), ("p2 T2", 2)]
        assert project.opened(project.cases[2]).n_slices == 2


def test_a_folder_of_pictures_is_one_case(tmp_path):
    for i in range(3):
        picture(tmp_path / "photos" / f"{i}.png", i)
    (found,) = cases_in_folder(tmp_path / "photos")[0]
    assert (found.path, found.name) == (tmp_path / "photos", "photos")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    with pytest.raises(CaseError, match="no case found"):
        cases_in_folder(tmp_path / "in")
