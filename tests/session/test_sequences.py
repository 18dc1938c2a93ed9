"""Learning from several sequences: each class is found only where its sequence is, and models and cases fit by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.sequences import unnamed
from napari_dinoaugseg.cluster.remote import ReceivedSlices, SliceInfo, _parcels
from napari_dinoaugseg.errors import CaseError, CheckpointError, ProjectError
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.events import Cancel
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.model.checkpoint import checkpoint_bytes, load_checkpoint
from napari_dinoaugseg.session.batch import SavedModel
from napari_dinoaugseg.session.compute import ComputeConfig, LiveFeed
from napari_dinoaugseg.session.project import MissingCaseError, Project
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore, new_session_folder, saved_sessions
from tests.sequences import LABELLED, SHOWN, truth_voxels, write_sequences, write_truth
from tests.session.test_session import drain

FOUND, NOT_FOUND = 0.85, 0.3


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """The sequences of two patients, and labels that are true for both."""
    folder = tmp_path_factory.mktemp("patients")
    files = {name: write_sequences(folder / name, name, seed) for seed, name in enumerate(("anna", "bert"))}
    return {**files, "truth": write_truth(folder / "truth.nii.gz")}


@pytest.fixture(scope="module")
def trained(patients, quick):
    """Sessions of both sequences of anna and of each alone, trained and predicted once."""
    made = {}
    for name, paths in (("both", patients["anna"]), *zip(SHOWN, patients["anna"], strict=True)):
        session = Session(open_case(paths, plane="axial"), quick, ComputeConfig("cpu"))
        session.load_labels(patients["truth"], LABELLED)
        drain(session.train())
        drain(session.predict(8))
        made[name] = session
    return made


def scores(session):
    """The Dice of each class on the slices that were not labelled."""
    truth = truth_slices(session)
    left = [i for i in range(session.case.n_slices) if i not in LABELLED]
    return {
        number: dice(np.stack([session.labels.predicted(i) for i in left]) == number, truth[left] == number)
        for number in SHOWN.values()
    }


def truth_slices(session):
    return np.ascontiguousarray(session.case.to_slices(truth_voxels()))


def test_each_class_is_found_only_with_its_sequence_and_both_with_both(trained):
    found = {name: scores(session) for name, session in trained.items()}
    assert min(found["both"].values()) > FOUND
    for name, number in SHOWN.items():
        others = set(SHOWN.values()) - {number}
        assert found[name][number] > FOUND
        assert all(found[name][other] < NOT_FOUND for other in others)


def test_a_sequence_is_encoded_once_for_all_the_cases_that_have_it(trained):
    """Alone, and in a case of two, it has the same features."""
    assert trained["both"].encoded > 0
    assert trained["t1"].encoded == trained["t2"].encoded == 0


def test_the_maps_of_a_slice_are_those_of_its_sequences_in_order(trained):
    encoder = trained["both"].encoder
    options = {"input_size": 64, "window": None, "memory_budget": 2**26}
    stores = {name: FeatureStore(session.case, encoder, **options) for name, session in trained.items()}
    maps = {name: store.features(3) for name, store in stores.items()}
    assert stores["both"].channels == tuple(2 * count for count in encoder.channels)
    for both, t1, t2 in zip(maps["both"], maps["t1"], maps["t2"], strict=True):
        assert np.array_equal(both.numpy(), np.concatenate([t1.numpy(), t2.numpy()]))
    # Time and memory grow with the number of sequences.
    assert stores["both"].encoded == 2 * stores["t1"].encoded
    assert stores["both"].memory_used == stores["t1"].memory_used + stores["t2"].memory_used


# --- models ---------------------------------------------------------------------------------------------------------


def refusal(session, model):
    before = session.snapshot()
    with pytest.raises(CheckpointError) as caught:
        session.load_model(model)
    assert session.snapshot() == before
    return str(caught.value)


@pytest.fixture
def models(trained, tmp_path):
    paths = {name: tmp_path / f"{name}.safetensors" for name in trained}
    for name, session in trained.items():
        session.save_model(paths[name])
    return paths


def session_of(paths, quick):
    return Session(open_case(paths, plane="axial"), quick, ComputeConfig("cpu"))


def test_a_model_is_refused_on_a_case_of_other_sequences(models, patients, quick):
    t1, t2 = patients["bert"]
    both, alone = session_of([t1, t2], quick), session_of(t1, quick)
    assert "was trained with t1 and t2; bert_t1 has t1: t2 is missing." in refusal(alone, models["both"])
    assert "was trained with one sequence; bert has t1 and t2." in refusal(both, models["t1"])
    assert "bert has t2 and t1, in another order." in refusal(session_of([t2, t1], quick), models["both"])
    with pytest.raises(CheckpointError, match="t2 is missing"):
        SavedModel(models["both"], ComputeConfig("cpu")).session(alone.case)


def test_a_model_of_two_sequences_finds_both_classes_in_another_patient(models, patients, quick):
    session = session_of(patients["bert"], quick)
    session.load_model(models["both"])
    drain(session.predict())
    assert min(scores_of_all(session).values()) > FOUND


def scores_of_all(session):
    truth, found = truth_slices(session), np.stack([session.labels.predicted(i) for i in range(16)])
    return {number: dice(found == number, truth == number) for number in SHOWN.values()}


def test_a_model_knows_its_sequences_and_one_of_a_single_sequence_is_as_before(models):
    both, alone = load_checkpoint(models["both"]), load_checkpoint(models["t1"])
    assert (both.sequences, alone.sequences) == (("t1", "t2"), ("",))
    assert b'\\"schema\\": 1' in checkpoint_bytes(alone)
    assert b"sequences" not in checkpoint_bytes(alone)
    assert b'\\"schema\\": 2' in checkpoint_bytes(both)
    damaged = replace(both, sequences=(1, 2))
    models["both"].write_bytes(checkpoint_bytes(damaged))
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(models["both"])


def test_a_saved_session_of_several_sequences_is_found_again_and_never_that_of_one(trained, patients, tmp_path, quick):
    case = trained["both"].case
    store = SessionStore(new_session_folder(case.fingerprint, tmp_path), case)
    store.save(trained["both"].snapshot())
    store.close()
    again = open_case(patients["anna"], plane="axial")
    (found,) = saved_sessions(again.fingerprint, tmp_path)
    assert saved_sessions(open_case(patients["anna"][0], plane="axial").fingerprint, tmp_path) == []
    session = Session(again, quick, ComputeConfig("cpu"))
    resumed = SessionStore(found.folder, again)
    session.resume(resumed.load()[0])
    resumed.close()
    drain(session.predict())
    assert min(scores(session).values()) > FOUND


@pytest.mark.slow
def test_live_learns_from_all_sequences(patients, quick):
    session = session_of(patients["anna"], quick)
    session.load_labels(patients["truth"], LABELLED)
    feed, cancel = LiveFeed(), Cancel()
    feed.put(session.live_state(5))
    found = {}
    for prediction in session.live(feed, cancel=cancel):
        found[prediction.index] = prediction
        if len(found) == 16 - len(LABELLED):
            cancel.set()
    assert set(found) == set(range(16)) - set(LABELLED)


# --- on another machine ---------------------------------------------------------------------------------------------


def test_a_worker_gets_the_pixels_of_all_sequences_and_none_of_their_names(trained):
    case = trained["both"].case
    received = ReceivedSlices([SliceInfo.of(each) for each in case.sequences.values()])
    for parcel in _parcels(case):
        received.take(parcel)
    assert tuple(received.sequences) == unnamed(2)
    for there, here in zip(received.sequences.values(), case.sequences.values(), strict=True):
        assert np.array_equal(there.slice(7), here.slice(7))
        assert there.slice_fingerprint(7) == here.slice_fingerprint(7)
        assert there.intensity_range() == here.intensity_range()


# --- projects -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_project_trains_on_the_sequences_of_all_its_cases(patients, quick, tmp_path):
    with Project(tmp_path / "project", settings=quick, config=ComputeConfig("cpu")) as project:
        anna, _ = project.add(patients["anna"], plane="axial")
        bert, _ = project.add(patients["bert"], plane="axial")
        assert (anna.name, bert.name) == ("anna", "bert")
        project.load_labels(anna, patients["truth"], LABELLED)
        drain(project.train())
        session, _ = project.predict(bert)
        assert min(scores_of_all(session).values()) > FOUND
        assert project.model.sequences == ("t1", "t2")
    with Project(tmp_path / "project", config=ComputeConfig("cpu")) as project:
        assert project.is_current()
        assert tuple(project.opened(project.cases[0]).sequences) == ("t1", "t2")
        assert project.add(patients["anna"], plane="axial")[1] is False


def test_a_project_refuses_a_case_without_a_sequence_before_anything_changes(patients, tmp_path):
    with Project(tmp_path / "project") as project:
        project.add(patients["anna"], plane="axial")
        listing = sorted(path for path in project.folder.rglob("*"))
        with pytest.raises(CaseError, match="have t1 and t2; bert_t1 has t1: t2 is missing"):
            project.add(patients["bert"][0], plane="axial")
        assert sorted(path for path in project.folder.rglob("*")) == listing
        assert len(project.cases) == 1
    with Project(tmp_path / "other") as project:
        project.add(patients["anna"][0], plane="axial")
        with pytest.raises(CaseError, match="have one sequence; bert has t1 and t2"):
            project.add(patients["bert"], plane="axial")


def test_sequences_that_moved_are_found_each_by_its_name(tmp_path):
    files = write_sequences(tmp_path / "scans")
    with Project(tmp_path / "project") as project:
        project.add(files, plane="axial")
        files[1].rename(tmp_path / "project" / files[1].name)
    with Project(tmp_path / "project") as project:
        case = project.opened(project.cases[0])
        assert tuple(case.sequences) == ("t1", "t2")
        assert project.cases[0].files == (files[0], tmp_path / "project" / files[1].name)
    (tmp_path / "project" / files[1].name).rename(files[1])
    (tmp_path / "scans").rename(tmp_path / "elsewhere")
    with Project(tmp_path / "project") as project:
        with pytest.raises(MissingCaseError, match="anna_t1"):
            project.opened(project.cases[0])
        project.relocate(project.cases[0], tmp_path / "elsewhere")
        assert project.cases[0].files == tuple(tmp_path / "elsewhere" / file.name for file in files)
    with Project(tmp_path / "project") as project:
        assert project.opened(project.cases[0]).name == "anna"


def test_project_and_images_move_together(tmp_path):
    files = write_sequences(tmp_path / "all" / "scans")
    with Project(tmp_path / "all" / "project") as project:
        project.add(files, plane="axial")
    (tmp_path / "all").rename(tmp_path / "copy")
    with Project(tmp_path / "copy" / "project") as project:
        assert project.opened(project.cases[0]).name == "anna"
        assert project.cases[0].files == tuple(tmp_path / "copy" / "scans" / file.name for file in files)


def test_an_earlier_version_does_not_take_sequences_for_pictures(tmp_path, monkeypatch):
    with Project(tmp_path / "project") as project:
        project.add(write_sequences(tmp_path), plane="axial")
    monkeypatch.setattr("napari_dinoaugseg.session.project._SEQUENCES_SCHEMA", 1)
    with pytest.raises(ProjectError, match="newer version"):
        Project(tmp_path / "project")


def test_the_cache_holds_a_file_for_each_sequence(trained, tmp_path):
    case, encoder = trained["both"].case, trained["both"].encoder
    store = FeatureStore(case, encoder, input_size=64, window=None, cache=FeatureCache(tmp_path))
    store.features(3)
    assert len(list(tmp_path.rglob("*.features"))) == 2
