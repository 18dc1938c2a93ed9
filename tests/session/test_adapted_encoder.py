"""A model whose encoder learned: it gives the same masks wherever it is used, and is given up with its decoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dinoaugseg.errors import CheckpointError
from napari_dinoaugseg.learning.settings import Adaptation, Settings
from napari_dinoaugseg.model.checkpoint import load_checkpoint, save_checkpoint
from napari_dinoaugseg.session.batch import SavedModel
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.export import make_report
from napari_dinoaugseg.session.project import Project
from napari_dinoaugseg.session.session import LabelledCase
from tests.blobs import LABELLED, LEFT_OUT, write_case
from tests.session.live_thread import Live
from tests.session.test_session import drain


@pytest.fixture(scope="module")
def settings(quick) -> Settings:
    return quick.with_changes(preset="adapt", steps=16, adaptation=Adaptation(), shows=0, class_steps=0.0)


@pytest.fixture(scope="module")
def saved(new_session, settings, blob_files, tmp_path_factory):
    """A trained session, its masks of the other slices, and its model on disk."""
    session = new_session(settings=settings)
    session.load_labels(blob_files[1], LABELLED)
    drain(session.train())
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    session.save_model(path)
    return session, masks(session), path


def masks(session) -> dict[int, np.ndarray]:
    return {found.index: found.classes for found in session.predictions()}


def same(one, other) -> bool:
    """Whether the masks are the same on the slices that the model has not learned from."""
    return all(np.array_equal(one[index], other[index]) for index in LEFT_OUT)


def fingerprint(session) -> str:
    """Of the encoder that the features of the session come from."""
    return session.engine.store.encoder.fingerprint


def test_a_saved_model_gives_the_same_masks_in_a_new_session(saved, new_session):
    _, expected, path = saved
    assert sorted(expected) == list(LEFT_OUT)
    session = new_session()
    session.load_model(path)
    assert same(masks(session), expected)


def test_a_session_that_is_resumed_gives_the_same_masks(saved, new_session):
    trained, expected, _ = saved
    session = new_session()
    session.resume(trained.snapshot())
    assert same(masks(session), expected)


def test_a_model_that_is_read_once_for_many_cases_gives_the_same_masks(saved, new_session, blob_files):
    trained, expected, path = saved
    model = SavedModel(path, ComputeConfig("cpu"))
    for _ in range(2):
        session = model.session(trained.case)
        assert same(masks(session), expected)


def test_the_encoder_that_other_cases_share_is_that_of_the_file(saved):
    session = saved[0]
    assert session.encoder.changes == {}
    assert fingerprint(session).startswith(session.encoder.fingerprint + "+")


def test_the_report_says_that_the_encoder_was_adapted(saved):
    described = make_report(saved[0])["encoder"]
    assert described["adapted"] == fingerprint(saved[0])
    assert described["fingerprint"] == saved[0].encoder.fingerprint


def test_a_second_training_goes_on_from_the_adapted_encoder(saved, new_session, blob_files):
    session = new_session(settings=saved[0].settings)
    session.resume(saved[0].snapshot())
    before = fingerprint(session)
    assert session.changes_since_training() == []
    events = list(session.train())
    assert {event.stage for event in events} == {"adapt"}
    assert fingerprint(session).startswith(session.encoder.fingerprint + "+")
    assert fingerprint(session) != before


@pytest.mark.parametrize("change", ["preset", "classes"])
def test_a_training_from_scratch_begins_with_the_encoder_of_the_file(saved, new_session, quick, settings, change):
    session = new_session(settings=settings)
    session.resume(saved[0].snapshot())
    assert same(masks(session), saved[1])
    if change == "preset":
        session.configure(quick, session._config)
        assert session.changes_since_training() == ["adaptation"]
    else:
        session.labels.add_class()
        session.configure(settings.with_changes(adaptation=None), session._config)
    drain(session.train())
    assert fingerprint(session) == session.encoder.fingerprint
    assert session.model.encoder_changes == {}


def test_the_encoder_learns_from_several_cases(saved, new_session, settings, blob_files):
    other = new_session()
    other.load_labels(blob_files[1], (2, 6))
    others = [LabelledCase(other.case, {i: other.labels.truth(i) for i in (2, 6)}, other.labels.classes)]
    session = new_session(settings=settings)
    session.load_labels(blob_files[1], LABELLED)
    drain(session.train(None, others))
    assert session.model.encoder_changes
    expected = masks(session)
    again = new_session()
    again.resume(session.snapshot())
    assert same(masks(again), expected)


def test_live_goes_on_with_the_adapted_encoder(saved, new_session, settings, blob_files):
    session = new_session(settings=settings)
    session.resume(saved[0].snapshot())
    truth = session.case.read_labels(blob_files[1], range(16))
    session.paint(6, truth[6])
    live = Live(session)
    try:
        live.show(5)
        live.until(lambda: bool(live.found))
    finally:
        live.end()
    assert live.learned.model.encoder["adapted"] == fingerprint(saved[0])
    changes = saved[0].model.encoder_changes
    assert all(torch.equal(value, changes[name]) for name, value in live.learned.model.encoder_changes.items())


@pytest.mark.parametrize(("name", "told"), [("dinov3-convnext-tiny", True), ("efficientnet-lite0", False)])
def test_saving_weights_that_are_derived_from_dinov3_names_their_licence(saved, new_session, tmp_path, name, told):
    said = []
    session = new_session(notify=said.append)
    model = saved[0].model
    session.resume(replace(saved[0].snapshot(), model=replace(model, encoder={**model.encoder, "name": name})))
    session.save_model(tmp_path / "model.safetensors")
    assert any("the DINOv3 License applies" in text for text in said) is told


def test_a_model_with_weights_of_another_encoder_is_refused_before_anything_changes(saved, new_session, tmp_path):
    session, expected, path = saved
    model = load_checkpoint(path)
    wrong = {name: value[:1] for name, value in model.encoder_changes.items()}
    save_checkpoint(tmp_path / "wrong.safetensors", replace(model, encoder_changes=wrong))
    with pytest.raises(CheckpointError, match=r"wrong\.safetensors: the model's weights do not fit its encoder"):
        session.load_model(tmp_path / "wrong.safetensors")
    assert same(masks(session), expected)


def test_a_project_predicts_its_other_cases_with_the_adapted_encoder(settings, blob_files, tmp_path):
    project = Project(tmp_path / "project", settings=settings, config=ComputeConfig("cpu"))
    folder = tmp_path / "cases"
    folder.mkdir()
    paths = [write_case(folder, seed)[0] for seed in range(2)]
    first, second = (project.add(path)[0] for path in paths)
    session, store, _ = project.session(first)
    session.load_labels(blob_files[1], LABELLED)
    project.keep(first, session, store)
    store.close()
    drain(project.train())
    session, problems = project.predict(second)
    assert problems == []
    expected = masks(session)
    assert session.engine.store.encoder.changes
    project.close()
    again = Project(tmp_path / "project", config=ComputeConfig("cpu"))
    session, _ = again.predict(again.find(second.name))
    assert same(masks(session), expected)
    again.close()
