"""Several sequences as one case, as a person types it: `--sequence` for one case, `--sequence-names` for many."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.errors import CaseError
from napari_dinoaugseg.session.cohort import find_sequences, match_labels, place_results
from tests.cli.conftest import QUICK, run_command
from tests.sequences import LABELLED, truth_voxels, write_sequences, write_truth, write_volume


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmented")
    for seed, name in enumerate(("anna", "bert")):
        write_sequences(folder / "scans", name, seed)
    write_truth(folder / "truth.nii.gz")
    labels = ("--labels", "truth.nii.gz", "--slices", ",".join(map(str, LABELLED)), "--plane", "axial")
    outcome = run_command(
        *(folder, "segment", "scans/anna_t1.nii.gz", "--sequence", "scans/anna_t2.nii.gz", *labels),
        *("--out", "mask.nii.gz", "--model-out", "model.safetensors", *QUICK, "--json"),
    )
    return folder, outcome


def scores(path):
    found, truth = np.asarray(nib.load(path).dataobj), truth_voxels()
    return [2 * ((found == n) & (truth == n)).sum() / ((found == n).sum() + (truth == n).sum()) for n in (1, 3)]


@pytest.mark.slow
def test_one_case_of_two_sequences_is_segmented(segmented):
    folder, outcome = segmented
    assert outcome.json["slices"]["predicted"] == 12
    assert min(scores(folder / "mask.nii.gz")) > 0.85
    assert np.array_equal(nib.load(folder / "mask.nii.gz").affine, nib.load(folder / "scans/anna_t1.nii.gz").affine)


@pytest.mark.slow
def test_a_model_of_two_is_refused_on_one_and_says_what_to_give(segmented):
    folder, _ = segmented
    model = ("--model", "model.safetensors", "--out", "new.nii.gz", "--device", "cpu")
    outcome = run_command(folder, "predict", "scans/bert_t1.nii.gz", *model)
    assert outcome.code == 1
    assert "was trained with t1 and t2; bert_t1 has t1: t2 is missing." in outcome.errors
    assert "--sequence FILE" in outcome.errors
    assert not (folder / "new.nii.gz").exists()
    outcome = run_command(folder, "predict", "scans/bert_t1.nii.gz", "--sequence", "scans/bert_t2.nii.gz", *model)
    assert outcome.code == 0, outcome.errors
    assert min(scores(folder / "new.nii.gz")) > 0.85


@pytest.mark.slow
def test_a_folder_of_cases_is_predicted_and_continued(segmented, alone):
    folder, _ = segmented
    words = ("predict", "scans", "--sequence-names", "t1,t2", "--plane", "axial", "--model", "model.safetensors")
    words = (*words, "--out", "masks", "--device", "cpu", "--json")
    assert run_command(folder, *words, **alone).json["done"] == 2
    assert min(scores(folder / "masks" / "bert.nii.gz")) > 0.85
    assert run_command(folder, *words, **alone).json["present"] == 2
    write_sequences(folder / "scans", "bert", 5)
    outcome = run_command(folder, *words, **alone)
    assert "of a case that has changed since" in outcome.errors


@pytest.mark.slow
def test_several_cases_of_sequences_teach_one_model(tmp_path):
    for seed, name in enumerate(("anna", "bert")):
        write_sequences(tmp_path / "scans" / name, name, seed)
    (tmp_path / "labels").mkdir()
    painted = np.zeros_like(truth_voxels())
    painted[:, :, LABELLED] = truth_voxels()[:, :, LABELLED]
    write_volume(tmp_path / "labels" / "anna_seg.nii.gz", painted)
    words = ("segment", "scans", "--sequence-names", "t1,t2", "--labels", "labels", "--out", "out", "--plane", "axial")
    outcome = run_command(tmp_path, *words, *QUICK, "--json")
    assert [case["name"] for case in outcome.json["cases"]] == ["anna", "bert"]
    assert min(scores(tmp_path / "out" / "bert.nii.gz")) > 0.85


def refused(outcome, *words):
    assert outcome.code == 1, outcome.errors
    assert "Traceback" not in outcome.errors
    assert all(word in outcome.errors for word in words), outcome.errors


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path):
    write_sequences(tmp_path, "anna")
    (tmp_path / "anna_t2.nii.gz").rename(tmp_path / "bert_t2.nii.gz")
    rest = ("--model", "m.safetensors", "--out", "out")
    refused(
        run_command(tmp_path, "predict", ".", "--sequence-names", "t1,t2", *rest), "anna has no t2", "bert has no t1"
    )
    refused(run_command(tmp_path, "predict", ".", "--sequence-names", "t1", *rest), "two sequences or more")
    refused(
        run_command(tmp_path, "predict", ".", "--sequence-names", "pet,ct", *rest), "no file here ends in pet or ct"
    )
    one = ("predict", "anna_t1.nii.gz", "--sequence", "nothing.nii.gz", "--model", "m.safetensors", "--out", "m.nii.gz")
    refused(run_command(tmp_path, *one), "nothing.nii.gz: there is no such file")
    refused(
        run_command(tmp_path, "project", "p", "--add", "a", "--add", "b", "--sequence", "c"), "--sequence belongs to"
    )


def test_cases_are_found_by_the_ends_of_names_or_in_a_folder_for_each_patient(tmp_path):
    (tmp_path / "flat").mkdir()
    for name in ("anna_0000", "anna_0001", "bert_0000", "bert_0001", "notes_seg"):
        write_volume(tmp_path / "flat" / f"{name}.nii.gz", np.zeros((4, 4, 4), np.int16))
    found = find_sequences(tmp_path / "flat", ("0000", "0001"), tmp_path / "out")
    assert list(found.names.values()) == ["anna", "bert"]
    assert "notes_seg" in found.notices[0]
    placed = place_results(found, tmp_path / "out")
    assert [(case.name, case.mask.name, case.further[0].name) for case in placed] == [
        ("anna", "anna.nii.gz", "anna_0001.nii.gz"),
        ("bert", "bert.nii.gz", "bert_0001.nii.gz"),
    ]
    for patient in ("p1", "p2"):
        for name in ("T1", "t2"):
            (tmp_path / "deep" / patient).mkdir(parents=True, exist_ok=True)
            write_volume(tmp_path / "deep" / patient / f"{name}.nii.gz", np.zeros((4, 4, 4), np.int16))
    found = find_sequences(tmp_path / "deep", ("t1", "t2"), tmp_path / "out")
    assert list(found.names.values()) == ["p1", "p2"]
    (tmp_path / "labels").mkdir()
    write_volume(tmp_path / "labels" / "p2.nii.gz", np.zeros((4, 4, 4), np.int16))
    assert list(match_labels(tmp_path / "labels", found.cases, found.names)) == [tmp_path / "deep/p2/T1.nii.gz"]
    write_volume(tmp_path / "deep" / "p1" / "T1.nii", np.zeros((4, 4, 4), np.int16))
    with pytest.raises(CaseError, match="is t1 of the same case"):
        find_sequences(tmp_path / "deep", ("t1", "t2"), tmp_path / "out")
