"""Several cases, one model: `segment` on a folder of cases, and `project`, as a person types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.blobs import LABELLED, truth_voxels, write_case
from tests.case.builders import listing
from tests.cli.conftest import QUICK, run_command

SEGMENT = ("segment", "cases", "--labels", "labels", "--out", "out", *QUICK)


def write_cases(folder: Path) -> None:
    """Three cases, and labels of three slices of the first two: one class in each."""
    (folder / "cases").mkdir()
    (folder / "labels").mkdir()
    for number in range(3):
        image, truth = write_case(folder, number)
        image.rename(folder / "cases" / f"patient {number}.nii.gz")
    truth.unlink()
    affine = nib.load(folder / "cases" / "patient 0.nii.gz").affine
    for name in ("patient 0", "patient 1_seg"):
        painted = np.zeros_like(truth_voxels())
        painted[:, :, LABELLED] = truth_voxels()[:, :, LABELLED]
        nib.save(nib.Nifti1Image(painted, affine), folder / "labels" / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def segmented_cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmented_cases")
    write_cases(folder)
    (folder / "cases" / "broken.nii.gz").write_bytes(b"\x1f\x8b broken")
    return folder, run_command(folder, *SEGMENT)


@pytest.fixture
def cases(tmp_path):
    write_cases(tmp_path)
    return tmp_path


def refused(outcome, *words: str) -> None:
    assert outcome.code == 1, outcome.errors
    assert "Traceback" not in outcome.errors
    for word in words:
        assert word in outcome.errors


@pytest.mark.slow
def test_one_command_gives_a_mask_of_each_case_and_a_broken_one_does_not_stop_it(segmented_cases):
    folder, outcome = segmented_cases
    assert outcome.code == 1
    assert "broken.nii.gz" in outcome.errors
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {*(f"patient {n}.nii.gz" for n in range(3)), "model.safetensors", "project", "report"}
    for number in range(3):
        mask = np.asarray(nib.load(folder / "out" / f"patient {number}.nii.gz").dataobj)
        for n in (1, 3):
            both = np.count_nonzero((mask == n) & (truth_voxels() == n))
            assert 2 * both / (np.count_nonzero(mask == n) + np.count_nonzero(truth_voxels() == n)) > 0.7
    for line in ("patient 2", "failed    broken.nii.gz", "next      label slice"):
        assert line in outcome.output


@pytest.mark.slow
def test_the_same_command_continues_and_changes_nothing(segmented_cases):
    folder, _ = segmented_cases
    before = listing(folder / "out")
    again = run_command(folder, *SEGMENT)
    assert "The model is up to date" in again.errors
    assert "Training on" not in again.errors
    after = listing(folder / "out")
    dated = {"report/report.json", "report/report.html"}
    assert set(after) == set(before)
    assert [name for name in after if after[name] != before[name] and name not in dated] == []


@pytest.mark.slow
def test_a_mask_that_somebody_corrected_is_kept_until_told_otherwise(segmented_cases):
    folder, _ = segmented_cases
    mask = folder / "out" / "patient 1.nii.gz"
    found = nib.load(mask)
    written = np.asarray(found.dataobj).copy()
    corrected = np.where(np.arange(len(written))[:, None, None] < 2, written.dtype.type(1), written)
    nib.save(nib.Nifti1Image(corrected, found.affine, found.header), mask)
    again = run_command(folder, *SEGMENT, "--json")
    assert np.array_equal(np.asarray(nib.load(mask).dataobj), corrected)
    assert "patient 1.nii.gz" in again.errors
    assert "--overwrite" in again.errors
    assert [Path(path).name for path in json.loads(again.output)["files"]["kept"]] == ["patient 1.nii.gz"]
    replaced = run_command(folder, *SEGMENT, "--overwrite", "--json")
    assert "kept" not in json.loads(replaced.output)["files"]
    assert np.array_equal(np.asarray(nib.load(mask).dataobj), written)


def test_a_strange_mask_in_the_folder_of_an_export_is_kept(cases):
    run_command(cases, "project", "p", "--add", "cases", "--labels", "labels")
    (cases / "masks").mkdir()
    (cases / "masks" / "patient 2.nii.gz").write_bytes(b"of another program")
    written = run_command(cases, "project", "p", "--export", "masks", "--json").json["files"]
    assert [Path(path).name for path in written["masks"]] == ["patient 0.nii.gz", "patient 1.nii.gz"]
    assert [Path(path).name for path in written["kept"]] == ["patient 2.nii.gz"]
    assert (cases / "masks" / "patient 2.nii.gz").read_bytes() == b"of another program"


@pytest.mark.slow
def test_a_project_is_listed_marked_and_exported_again(segmented_cases, tmp_path):
    folder, _ = segmented_cases
    shutil.copytree(folder / "out" / "project", tmp_path / "project")
    listed = run_command(tmp_path, "project", "project", "--done", 2, "--export", "masks", "--json").json
    assert [case["name"] for case in listed["cases"]] == ["patient 0", "patient 1", "patient 2"]
    assert [case["painted"] for case in listed["cases"]] == [3, 3, 0]
    assert [case["done"] for case in listed["cases"]] == [False, True, False]
    assert all(case["current"] for case in listed["cases"])
    assert listed["next"]["case"] == 3
    for number in range(3):
        one, other = (root / f"patient {number}.nii.gz" for root in (folder / "out", tmp_path / "masks"))
        assert np.array_equal(np.asarray(nib.load(one).dataobj), np.asarray(nib.load(other).dataobj))


def test_cases_are_added_and_counted(cases):
    added = run_command(cases, "project", "p", "--add", "cases", "--labels", "labels").output
    assert "patient 2" in added
    listed = run_command(cases, "project", "p", "--json").json
    assert [case["painted"] for case in listed["cases"]] == [3, 3, 0]
    assert listed["model"] is None


def test_a_case_is_added_in_the_plane_that_the_panel_remembers(cases):
    run_command(cases, "project", "work", "--add", "cases/patient 0.nii.gz")
    path = cases / "work" / "project.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "plane": "coronal"}), encoding="utf-8")
    run_command(cases, "project", "work", "--add", "cases/patient 1.nii.gz")
    records = [json.loads(file.read_text()) for file in sorted((cases / "work" / "cases").glob("*/case.json"))]
    assert [entry["record"]["plane"] for entry in records] == ["axial", "coronal"]


def test_a_mistyped_project_is_not_created(tmp_path):
    refused(run_command(tmp_path, "project", "p", "--train"), "there is no project here", "--add")
    assert list(tmp_path.iterdir()) == []


def test_a_project_without_a_case_is_not_created(tmp_path):
    refused(run_command(tmp_path, "project", "p", "--add", "mistyped"), "mistyped: there is no such file or folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    refused(run_command(tmp_path, "project", "p", "--add", "empty"), "there is no image here", "no project was made")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_labels_of_no_case_are_refused_before_anything_is_written(cases):
    (cases / "labels" / "patient 0.nii.gz").rename(cases / "labels" / "stranger.nii.gz")
    before = listing(cases)
    refused(run_command(cases, *SEGMENT), "stranger", "belong to no case")
    assert listing(cases) == before


def test_predicting_without_a_model_says_what_to_do(cases):
    refused(run_command(cases, "project", "p", "--add", "cases", "--predict"), "no trained model yet")


def test_training_without_labels_says_what_to_do(cases):
    refused(run_command(cases, "project", "p", "--add", "cases", "--train"), "No slice of any case is labelled")


def test_a_missing_image_is_named_with_the_option_that_finds_it(cases):
    assert run_command(cases, "project", "p", "--add", "cases").code == 0
    (cases / "cases" / "patient 1.nii.gz").rename(cases / "elsewhere.nii.gz")
    refused(run_command(cases, "project", "p", "--labels", "labels"), "patient 1", "--find patient 1=PATH")
    found = run_command(cases, "project", "p", "--find", "patient 1=elsewhere.nii.gz")
    assert found.code == 0, found.errors
    assert run_command(cases, "project", "p", "--json").json["cases"][1]["path"].endswith("elsewhere.nii.gz")


def test_cases_that_moved_are_the_same_cases(cases):
    assert run_command(cases, "project", "p", "--add", "cases", "--labels", "labels").code == 0
    (cases / "cases").rename(cases / "archive")
    moved = run_command(cases, "project", "p", "--add", "archive", "--json").json
    assert [case["number"] for case in moved["cases"]] == [1, 2, 3]
    assert [case["painted"] for case in moved["cases"]] == [3, 3, 0]
    assert all("archive" in case["path"] for case in moved["cases"])


def test_two_files_of_the_same_pixels_get_no_mask_in_silence(cases):
    shutil.copy(cases / "cases" / "patient 1.nii.gz", cases / "cases" / "patient 9.nii.gz")
    refused(run_command(cases, "project", "p", "--add", "cases"), "patient 9.nii.gz", "the same pixels as")


def test_labels_that_do_not_fit_stop_before_the_training(cases):
    shifted = nib.load(cases / "labels" / "patient 0.nii.gz")
    affine = shifted.affine.copy()
    affine[:3, 3] += 30
    nib.save(nib.Nifti1Image(np.asarray(shifted.dataobj), affine), cases / "labels" / "patient 0.nii.gz")
    outcome = run_command(cases, *SEGMENT)
    refused(outcome, "patient 0.nii.gz", "do not fit")
    assert "Training on" not in outcome.errors


def test_a_case_that_is_not_there_is_refused(cases):
    run_command(cases, "project", "p", "--add", "cases")
    refused(run_command(cases, "project", "p", "--done", "nobody"), "nobody", "by its number")


def test_replacing_corrected_masks_is_refused_for_one_case(cases):
    outcome = run_command(cases, "segment", "cases/patient 0.nii.gz", *SEGMENT[2:], "--overwrite")
    assert outcome.code == 2
    assert "--overwrite is for several" in " ".join(outcome.errors.replace("│", " ").split())


@pytest.mark.parametrize("option", [("--slices", "1,2"), ("--confidence-out", "c.nii.gz")])
def test_options_of_one_case_are_refused_for_several(cases, option):
    outcome = run_command(cases, *SEGMENT, *option)
    assert outcome.code == 2
    assert option[0] in outcome.errors
    assert not (cases / "out").exists()


@pytest.mark.slow
def test_cases_that_are_done_leave_for_nnunet_and_the_report_names_nobody(segmented_cases, tmp_path):
    folder, _ = segmented_cases
    shutil.copytree(folder / "out" / "project", tmp_path / "project")
    refused(run_command(tmp_path, "project", "project", "--export-nnunet", "Dataset001_Balls"), "no case", "is done")
    options = ("--done", 1, "--export-nnunet", "Dataset001_Balls", "--report", "report")
    assert run_command(tmp_path, "project", "project", *options).code == 0
    written = listing(tmp_path / "Dataset001_Balls")
    assert set(written) == {"dataset.json", "imagesTr/case_001_0000.nii.gz", "labelsTr/case_001.nii.gz"}
    for content in (*written.values(), *listing(tmp_path / "report").values()):
        assert b"patient" not in content
