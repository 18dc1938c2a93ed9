from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from benchmarks.person_scribble import drawn, first_strokes
from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import CheckpointError, LabelError, TrainingError
from napari_dinoaugseg.learning.events import Cancel
from napari_dinoaugseg.session.index import Round
from napari_dinoaugseg.session.labels import UNKNOWN, Status, classes_of
from napari_dinoaugseg.session.session import Session
from tests.blobs import LABELLED, LEFT_OUT, write_case


def drain(work):
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


@pytest.fixture
def trained(copy_of_trained):
    return copy_of_trained(*LABELLED)


def test_the_loop_from_labels_to_a_mask_in_the_cases_geometry(trained, blob_files, tmp_path):
    out = tmp_path / "mask.nii.gz"
    trained.export(out)
    image, truth, mask = (nib.load(path) for path in (*blob_files, out))
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, image.affine)
    assert mask.header["sform_code"] == image.header["sform_code"]
    assert mask.header["qform_code"] == image.header["qform_code"]
    found, true = np.asarray(mask.dataobj), np.asarray(truth.dataobj)
    assert np.array_equal(found[:, :, list(LABELLED)], true[:, :, list(LABELLED)])
    left = list(LEFT_OUT)
    for number in (1, 3):
        a, b = found[:, :, left] == number, true[:, :, left] == number
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85


def test_a_second_session_on_the_case_encodes_nothing(new_session, blob_files, quick):
    first, again = (new_session(settings=quick.with_changes(steps=5, shows=0)) for _ in range(2))
    for session in (first, again):
        session.load_labels(blob_files[1], LABELLED)
        drain(session.train())
        list(session.predict())
    assert first.encoded > 0
    assert again.encoded == 0
    assert all(np.array_equal(again.labels.result(i), first.labels.result(i)) for i in range(16))


def test_rounds_are_remembered_and_the_second_is_shorter(trained, blob_files):
    truth = trained.case.read_labels(blob_files[1], range(16))
    trained.paint(6, truth[6])
    second = drain(trained.train())
    first = trained.history[0]
    assert (first.agreement, first.labelled) == (None, LABELLED)
    assert 0.7 < second.agreement <= 1
    assert second.steps < first.steps
    assert second.labelled == tuple(sorted([*LABELLED, 6]))
    assert set(second.seconds) == {"encode", "train", "predict"}


def test_a_saved_model_predicts_the_next_case(trained, tmp_path, quick):
    model = tmp_path / "model.safetensors"
    trained.save_model(model)
    image, truth = write_case(tmp_path, seed=5)
    session = Session(open_case(image, plane="axial"), quick)
    session.load_model(model)
    assert [entry.number for entry in session.labels.classes] == [1, 3]
    found = list(session.predict())
    assert len(found) == 16
    true = session.case.read_labels(truth, range(16))
    overlap = sum(((session.labels.result(i) == 1) & (true[i] == 1)).sum() for i in range(16))
    size = sum((session.labels.result(i) == 1).sum() + (true[i] == 1).sum() for i in range(16))
    assert 2 * overlap / size > 0.85


def test_a_model_of_other_classes_is_refused_and_changes_nothing(trained, new_session, tmp_path):
    model = tmp_path / "model.safetensors"
    trained.save_model(model)
    session = new_session()
    session.labels.add_class(number=2)
    before = session.settings
    with pytest.raises(CheckpointError, match="knows the classes 1, 3, the labels have 2"):
        session.load_model(model)
    assert session.settings == before


def test_a_model_of_another_encoder_than_the_one_asked_for_is_refused(trained, new_session, quick, tmp_path):
    model = tmp_path / "model.safetensors"
    trained.save_model(model)
    session = new_session(settings=quick.with_changes(encoder="dinov3-convnext-tiny"))
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*features of efficientnet-lite0"):
        session.load_model(model)


def test_stopping_a_prediction_keeps_the_masks_that_came(trained):
    for index in LEFT_OUT:
        trained.labels.reject(index)
    cancel = Cancel()
    for _ in trained.predict(8, report=lambda _: cancel.set(), cancel=cancel):
        pass
    kept = [i for i in range(16) if trained.labels.status(i) is Status.PREDICTED]
    assert kept
    assert len(kept) < len(LEFT_OUT)


def test_training_asks_for_labels_before_it_loads_anything(new_session):
    session = new_session()
    with pytest.raises(TrainingError, match="No slice is labelled"):
        drain(session.train())
    session.labels.add_class()
    session.labels.mark_empty(3)
    with pytest.raises(TrainingError, match="only background"):
        drain(session.train())
    assert session._engine is None


def test_one_class_and_nothing_else_is_not_enough_to_train(new_session):
    session = new_session()
    session.labels.replace_classes(classes_of([1]))
    strokes = np.full(session.case.slice_shape(4), UNKNOWN, np.uint16)
    strokes[5, 5:9] = 1
    session.paint(4, strokes)
    with pytest.raises(TrainingError, match="nothing says where it ends"):
        session.train()
    assert not session.live_state(4).is_enough
    strokes[1] = 0
    session.paint(4, strokes)
    assert session.live_state(4).is_enough


def test_predicting_without_a_model_says_what_to_do(new_session):
    with pytest.raises(TrainingError, match="Label a few slices and train"):
        list(new_session().predict())


def test_labels_that_do_not_fit_change_nothing(new_session, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "other.nii.gz")
    session = new_session()
    with pytest.raises(LabelError, match=r"other\.nii\.gz"):
        session.load_labels(tmp_path / "other.nii.gz")
    assert session.labels.classes == ()
    assert session.labels.labelled == []


def test_scribbled_slices_are_filled_by_the_prediction(trained, blob_files):
    scribble = trained.labels.result(8).copy()
    scribble[::2] = UNKNOWN
    trained.paint(8, scribble)
    drain(trained.train())
    list(trained.predict(8))
    result = trained.labels.result(8)
    assert np.array_equal(result[1::2], scribble[1::2])
    assert (result != UNKNOWN).all()
    assert (result[::2] > 0).any()


def test_a_few_strokes_on_each_slice_teach_like_painted_slices(new_session, blob_files):
    session = new_session()
    truth = session.case.read_labels(blob_files[1], range(16))
    session.labels.replace_classes(classes_of([1, 3]))
    for index in LABELLED:
        session.paint(index, drawn(first_strokes(truth[index], index), truth[index].shape))
    drain(session.train())
    list(session.predict())
    found = np.stack([session.labels.result(i) for i in LEFT_OUT])
    true = np.stack([truth[i] for i in LEFT_OUT])
    for number in (1, 3):
        a, b = found == number, true == number
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.75


def test_suggestions_are_not_labelled_yet(trained):
    assert all(entry.index in LEFT_OUT for entry in trained.suggest(5))


def test_a_model_of_other_encoder_weights_is_kept_until_something_new_is_learnt(trained, new_session):
    snapshot = trained.snapshot()
    other = replace(snapshot.model, encoder={"name": "efficientnet-lite0", "fingerprint": "other weights"})
    said = []
    session = new_session(notify=said.append)
    session.resume(replace(snapshot, model=other))

    with pytest.raises(TrainingError, match="no trained model"):
        list(session.predict(8))

    assert "can no longer be used" in said[-1]
    assert not session.is_trained
    assert session.snapshot().model is other  # what is saved: the weights may come back
    drain(session.train())
    assert session.is_trained
    assert session.snapshot().model is not other


def test_a_resumed_session_predicts_without_training_again_and_goes_on(trained, new_session):
    session = new_session()
    session.resume(trained.snapshot())

    list(session.predict(8))

    for index in LEFT_OUT:
        np.testing.assert_array_equal(session.labels.predicted(index), trained.labels.predicted(index))
    assert drain(session.train()).steps < trained.history[0].steps
    assert len(session.history) == 2


def test_a_round_cannot_be_changed_through_the_mapping_it_was_made_with():
    seconds = {"encode": 1.0, "train": 2.0, "predict": 0.0}
    made = Round(labelled=(4,), steps=3, final_loss=0.5, seconds=seconds, agreement=None)
    seconds["predict"] = 9.0
    assert made.seconds["predict"] == 0.0
    with pytest.raises(TypeError):
        made.seconds["predict"] = 9.0
    assert replace(made, seconds=seconds).seconds["predict"] == 9.0
    assert made == replace(made)
