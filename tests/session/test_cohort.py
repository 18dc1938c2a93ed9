"""Which cases a cohort has, and where their masks go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.uid import ComputedRadiographyImageStorage, UltrasoundMultiFrameImageStorage, generate_uid

from napari_dinoaugseg.errors import CaseError, LabelError, OutputError
from napari_dinoaugseg.session import cohort
from napari_dinoaugseg.session.cohort import find_cohort, match_labels, place_results, prepare_folder
from tests.case.builders import numbers, write_dicom, write_nifti
from tests.case.dicom_builders import write_object

VOLUME = numbers((3, 8, 9), np.int16)


def find(folder: Path, **options):
    return find_cohort(folder, out=folder.parent / "out", **options)


def names(folder: Path, **options) -> list[str]:
    found = find(folder, **options)
    assert found is not None
    return [path.name for path in found.cases]


def series(folder: Path, case: str | None = None) -> Path:
    def change(_, dataset) -> None:
        dataset.StudyInstanceUID = case

    case = case or generate_uid()
    write_dicom(folder, VOLUME, change=change)
    return folder


def pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 9), np.uint8)).save(folder / name)
    return folder


def stack(path: Path) -> Path:
    tifffile.imwrite(path, numbers((3, 8, 9), np.uint8), photometric="minisblack")
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cohort").mkdir()
    return tmp_path / "cohort"


def test_a_folder_of_volumes_is_a_cohort_in_natural_order(folder):
    for name in ("s10.nii.gz", "s2.nii", "s2b.nii.gz"):
        write_nifti(folder / name, VOLUME)
    stack(folder / "s1.tif")
    series(folder / "s3")
    pictures(folder / "s4")
    (folder / "notes.csv").write_text("x")
    (folder / ".hidden.nii").write_bytes(b"")
    assert names(folder) == ["s1.tif", "s2.nii", "s2b.nii.gz", "s3", "s4", "s10.nii.gz"]
    assert find(folder).notices == ["Left out, because they are masks or not images: notes.csv."]


def test_masks_and_the_results_inside_the_folder_are_no_cases(folder):
    for name in ("a.nii.gz", "a_mask.nii.gz", "b.nii.gz"):
        write_nifti(folder / name, VOLUME)
    pictures(folder / "labels")
    (folder / "out").mkdir()
    write_nifti(folder / "out" / "a.nii.gz", VOLUME)
    found = find_cohort(folder, out=folder / "out")
    assert [path.name for path in found.cases] == ["a.nii.gz", "b.nii.gz"]
    assert found.notices == ["Left out, because they are masks or not images: a_mask.nii.gz, labels."]


def test_what_is_one_case_stays_one(tmp_path):
    series(tmp_path / "series")
    same = generate_uid()
    for part in ("part1", "part2"):
        series(tmp_path / "exam" / part, case=same)
        pictures(tmp_path / "endoscopy" / part)
    for name in ("series", "exam", "endoscopy"):
        assert find(tmp_path / name) is None, name
    assert find(write_nifti(tmp_path / "a.nii.gz", VOLUME)) is None
    assert find(tmp_path / "missing") is None


def test_dicom_of_several_examinations_is_a_cohort_unless_a_series_is_named(folder):
    for name in ("p1", "p2"):
        series(folder / name)
    assert names(folder) == ["p1", "p2"]
    assert find(folder, series="1.2") is None
    assert find(folder, wanted=False) is None


def test_subfolders_of_pictures_are_cases_when_it_is_said(folder):
    for name in ("p1", "p2"):
        pictures(folder / name)
    assert find(folder) is None
    assert names(folder, wanted=True) == ["p1", "p2"]


def test_the_name_of_a_file_for_the_result_asks_for_one_case(folder):
    write_nifti(folder / "a.nii.gz", VOLUME)
    assert find_cohort(folder, out=folder.parent / "mask.nii.gz") is None


def test_a_list_names_cases_from_its_own_folder(tmp_path):
    write_nifti(tmp_path / "ä.nii.gz", VOLUME)
    text = f"# patients\n\nä.nii.gz\n  sub/b.nii.gz \n{tmp_path / 'c.nii.gz'}\n"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8-sig")
    assert find(tmp_path / "list.txt").cases == [tmp_path / name for name in ("ä.nii.gz", "sub/b.nii.gz", "c.nii.gz")]


REFUSED = {
    "volumes beside pictures": (
        lambda f: [write_nifti(f / "a.nii", VOLUME), pictures_in(f)],
        None,
        "neither one case",
    ),
    "the same, said": (lambda f: [write_nifti(f / "a.nii", VOLUME), pictures_in(f)], True, "right in the folder"),
    "several pages": (lambda f: stack(f / "a.tif"), None, "several pages"),
    "slices": (lambda f: write_dicom(f, VOLUME), True, "right in the folder of the cohort"),
    "nothing": (lambda f: (f / "a.csv").write_text("x"), True, "no case found"),
    "volumes below": (lambda f: [(f / "p1").mkdir(), write_nifti(f / "p1" / "a.nii", VOLUME)], True, "text file"),
}


def pictures_in(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(folder / "p.png")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_is_refused(case, folder):
    make, wanted, says = REFUSED[case]
    make(folder)
    with pytest.raises(CaseError, match=says):
        find(folder, wanted=wanted)


@pytest.mark.parametrize(("content", "says"), [(b"", "names no case"), (b"\xff\xfe\x00", "list of cases")])
def test_a_list_that_is_none_is_refused(content, says, tmp_path):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(CaseError, match=says):
        find(tmp_path / "list.txt")


def test_a_list_that_is_too_long_to_be_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "_LARGEST_LIST", 3)
    (tmp_path / "list.txt").write_text("a.nii")
    with pytest.raises(CaseError, match="too large for a list"):
        find(tmp_path / "list.txt")


def test_a_damaged_tiff_is_taken_for_a_picture_and_named(folder):
    stack(folder / "a.tif")
    (folder / "b.tif").write_bytes(b"II*\0 and no more")
    with pytest.raises(CaseError, match=r"pictures or DICOM slices \(b\.tif\)"):
        find(folder, wanted=True)


def test_a_damaged_file_does_not_hide_the_examination_of_a_folder(folder):
    for name in ("p1", "p2"):
        series(folder / name)
        (folder / name / "0.dcm").write_bytes(bytes(128) + b"DICM and no more")
    assert names(folder) == ["p1", "p2"]


def test_a_folder_of_notes_is_no_case(folder):
    write_nifti(folder / "a.nii", VOLUME)
    (folder / "notes").mkdir()
    (folder / "notes" / "read.me").write_text("x")
    found = find(folder)
    assert [path.name for path in found.cases] == ["a.nii"]
    assert "notes" in found.notices[0]


def test_a_folder_for_the_results_that_cannot_be_made_is_said(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be made \\(No space left on device\\)"):
        prepare_folder(folder.parent / "out", folder, [])


def test_one_volume_is_no_cohort(tmp_path):
    with pytest.raises(CaseError, match="a cohort is a folder"):
        find(write_nifti(tmp_path / "a.nii.gz", VOLUME), wanted=True)


def test_results_are_named_after_their_cases(tmp_path):
    cases = [
        *(write_nifti(tmp_path / "a.nii", VOLUME), stack(tmp_path / "b.tif")),
        *(series(tmp_path / "c"), pictures(tmp_path / "d"), tmp_path / "missing.nrrd"),
    ]
    placed = place_results(cases, tmp_path / "out")
    assert [case.mask.name for case in placed] == ["a.nii.gz", "b.tif", "c.nii.gz", "d", "missing.nii.gz"]
    assert [case.report.name for case in placed] == ["a.json", "b.json", "c.json", "d.json", "missing.json"]


@pytest.mark.parametrize("other", ["x/scan.nii.gz", "x/Scan.nrrd", "scan.nii"])
def test_two_cases_of_one_name_are_refused(other, tmp_path):
    with pytest.raises(OutputError, match=r"scan.*Rename one"):
        place_results([tmp_path / "scan.nii.gz", tmp_path / other], tmp_path / "out")


def test_results_do_not_go_among_the_cases(folder):
    cases = [series(folder / "p1"), write_nifti(folder / "a.nii", VOLUME)]
    for out in (folder, folder / "p1"):
        with pytest.raises(OutputError, match="the cases lie here"):
            prepare_folder(out, folder, cases)
    with pytest.raises(OutputError, match="name of a file"):
        prepare_folder(folder.parent / "mask.nii.gz", folder, cases)
    with pytest.raises(OutputError, match="does not exist"):
        prepare_folder(folder.parent / "no" / "out", folder, cases)
    prepare_folder(folder / "masks", folder, cases)
    assert (folder / "masks").is_dir()


def test_masks_of_dicom_are_a_file_for_a_volume_and_a_folder_for_radiographs(tmp_path):
    write_dicom(tmp_path / "ct", numbers((3, 5, 6), np.uint16))
    for k in range(2):
        write_object(tmp_path / "xr" / f"{k}.dcm", ComputedRadiographyImageStorage, "CR", numbers((5, 6), np.uint16))
    frames = numbers((3, 5, 6), np.uint8)
    write_object(tmp_path / "us" / "loop.dcm", UltrasoundMultiFrameImageStorage, "US", frames)
    placed = place_results([tmp_path / name for name in ("ct", "xr", "us")], tmp_path / "out")
    assert [case.mask.name for case in placed] == ["ct.nii.gz", "xr", "us.nii.gz"]


def write_label_files(folder: Path, *names: str) -> Path:
    labels = folder / "labels"
    for name in names:
        path = labels / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return labels


CASES = [Path("a/ct_1.nii.gz"), Path("a/ct_10.nii.gz"), Path("a/ct_2_0000.nrrd"), Path("a/polyps")]


def test_labels_of_several_cases_are_found_by_name(tmp_path):
    labels = write_label_files(
        tmp_path, "ct_1_seg.nii.gz", "ct_10.nii", "ct_2.nrrd", "polyps/1.png", ".DS_Store", "readme.md"
    )
    found = match_labels(labels, CASES)
    assert {case.name: file.name for case, file in found.items()} == {
        "ct_1.nii.gz": "ct_1_seg.nii.gz",
        "ct_10.nii.gz": "ct_10.nii",
        "ct_2_0000.nrrd": "ct_2.nrrd",
        "polyps": "polyps",
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["stranger.nii.gz"], "belong to no case"),
        (["ct_1.nii.gz", "ct_1_seg.nii.gz"], "both labels of ct_1"),
        (["ct_1.nii.gz", "ct_1.nii"], "labels of the same name"),
        (["readme.md"], "no label file"),
        (["task-1-annotation-1-by-1-tag-polyp-0.nii.gz"], "belong to no case"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(tmp_path, names, words):
    with pytest.raises(LabelError, match=words):
        match_labels(write_label_files(tmp_path, *names), CASES)
