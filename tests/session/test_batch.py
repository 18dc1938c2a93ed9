"""What is predicted already, and from what."""

from __future__ import annotations

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg import disk
from napari_dinoaugseg.errors import CheckpointError, Hint, OutputError
from napari_dinoaugseg.session.batch import (
    Batch,
    BatchPlan,
    Provenance,
    ResultState,
    fingerprint_of,
    look,
    predict_here,
    require_none_else,
)
from napari_dinoaugseg.session.cohort import place_results
from napari_dinoaugseg.session.compute import ComputeConfig
from tests.blobs import LABELLED, truth_voxels, write_case
from tests.case.builders import listing


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    from napari_dinoaugseg.case import open_case
    from napari_dinoaugseg.learning.settings import Settings
    from napari_dinoaugseg.session.session import Session

    folder = tmp_path_factory.mktemp("model")
    image, truth = write_case(folder)
    settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, steps=5, views=1)
    session = Session(open_case(image, plane="axial"), settings, ComputeConfig("cpu", cache=False))
    session.load_labels(truth, LABELLED)
    list(session.train())
    session.save_model(folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture
def plan(model_file, tmp_path):
    shutil.copy(model_file, tmp_path / "model.safetensors")
    model = tmp_path / "model.safetensors"
    return BatchPlan(model, fingerprint_of(model), compute=ComputeConfig("cpu", cache=False))


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "cohort").mkdir()
    for seed in range(2):
        write_case(tmp_path / "cohort", seed)
    (tmp_path / "out").mkdir()
    return place_results(sorted((tmp_path / "cohort").glob("image*")), tmp_path / "out")


@pytest.fixture
def done(plan, cases):
    """A case that is predicted."""
    ((case, outcome),) = predict_here(cases[:1], plan)
    assert outcome.reason is None
    return case


def state(case, plan, **changes) -> ResultState:
    return look(case, Provenance(**{**vars(plan.provenance), **changes}))[0]


def test_a_mask_gets_a_report_that_names_no_patient(done, plan, tmp_path):
    report = json.loads(done.report.read_text())
    assert report["prediction"]["model"] == plan.fingerprint
    assert report["slices"]["predicted"] == list(range(16))
    assert "image0" not in done.report.read_text()
    assert str(tmp_path) not in done.report.read_text()
    image, mask = nib.load(done.path), nib.load(done.mask)
    assert np.array_equal(image.affine, mask.affine)
    assert mask.shape == truth_voxels().shape


def test_what_is_there_is_known_again(done, plan, cases):
    assert state(done, plan) is ResultState.PRESENT
    assert state(cases[1], plan) is ResultState.OPEN
    assert state(done, plan, model="another") is ResultState.OTHER
    assert state(done, plan, options="others") is ResultState.OTHER
    os.utime(done.path, (1, 1))  # a copy with the same content
    assert state(done, plan) is ResultState.PRESENT


def test_a_case_with_a_corrected_header_is_another(done, plan):
    image = nib.load(done.path)
    affine = image.affine.copy()
    affine[0, 3] += 1
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), done.path)
    assert look(done, plan.provenance) == (ResultState.OTHER, "of a case that has changed since")


def test_a_mask_that_somebody_changed_is_told_apart(done, plan):
    done.mask.write_bytes(done.mask.read_bytes() + b"0")
    assert state(done, plan) is ResultState.CHANGED


@pytest.mark.parametrize("report", [None, "no json", "{}", '{"prediction": 3}', "[]"])
def test_a_mask_without_a_sound_report_is_somebody_elses(report, done, plan):
    done.report.unlink()
    if report is not None:
        done.report.write_text(report)
    found = look(done, plan.provenance)
    assert found[0] is ResultState.OTHER
    with pytest.raises(OutputError, match=r"image0.nii.gz is there already, without a report") as caught:
        require_none_else([(done, *found)], done.mask.parent)
    assert caught.value.hint is Hint.REPLACE_MASKS


def test_a_program_that_died_between_mask_and_report_left_an_unfinished_attempt(plan, cases, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_dinoaugseg.session.batch.write_report", die)
    with pytest.raises(KeyboardInterrupt):
        list(predict_here(cases[:1], plan))
    assert cases[0].mask.exists()
    assert state(cases[0], plan) is ResultState.OPEN
    monkeypatch.undo()
    list(predict_here(cases[:1], plan))
    assert state(cases[0], plan) is ResultState.PRESENT


def test_a_mask_that_cannot_be_written_leaves_nothing(plan, cases, monkeypatch):
    write = disk.replacing

    def refuse(path, **options):
        if path == cases[0].mask:
            raise OSError(28, "No space left on device")
        return write(path, **options)

    monkeypatch.setattr(disk, "replacing", refuse)
    results = [outcome.reason for _, outcome in predict_here(cases, plan)]
    assert "No space left on device" in results[0]
    assert results[1] is None
    assert set(listing(cases[0].mask.parent)) == {"image1.nii.gz", "image1.json"}


def test_a_broken_case_does_not_stop_the_others(plan, cases):
    cases[0].path.write_bytes(b"hello")
    first, second = (outcome for _, outcome in predict_here(cases, plan))
    assert "image0.nii.gz" in first.reason
    assert "\n" not in first.reason
    assert second.reason is None


def test_the_model_is_loaded_once_and_must_stay_the_same(plan, cases, monkeypatch):
    from napari_dinoaugseg.session import engine

    loads, load = [], engine.load_encoder
    monkeypatch.setattr(engine, "load_encoder", lambda *a, **k: (loads.append(a), load(*a, **k))[1])
    assert [outcome.reason for _, outcome in predict_here(cases, plan)] == [None, None]
    assert len(loads) == 1
    plan.model.write_bytes(b"another")
    with pytest.raises(CheckpointError, match="not the model that the prediction began with"):
        Batch(plan).load()
