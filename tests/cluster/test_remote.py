"""A session whose worker is another process: the same masks as here, and nothing is lost when the worker is."""

from __future__ import annotations

import pickle
from dataclasses import replace

import dask.config
import numpy as np
import pytest
import torch
from PIL import Image

from napari_dinoaugseg.case import case_from_array, open_case
from napari_dinoaugseg.cluster import compute_for, connection, remote
from napari_dinoaugseg.cluster.remote import ReceivedSlices, SentSlice, SliceInfo, WorkerActor
from napari_dinoaugseg.errors import CheckpointError, ClusterError, DinoAugSegError, LostSchedulerError, TrainingError
from napari_dinoaugseg.learning.events import Cancel, Notice, Progress
from napari_dinoaugseg.learning.settings import Adaptation
from napari_dinoaugseg.model.checkpoint import save_checkpoint
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.session import LabelledCase
from tests.blobs import LABELLED, LEFT_OUT
from tests.cluster.schedulers import make_certificates, running_scheduler
from tests.session.live_thread import Live
from tests.session.test_session import drain


@pytest.fixture(autouse=True)
def one_thread():
    """As the worker has it: with other numbers of threads sums differ in the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scheduler")
    with running_scheduler(folder, "--nthreads", 1, OMP_NUM_THREADS="1") as running:
        yield running


@pytest.fixture
def labelled(new_session, blob_files):
    """Make sessions with three labelled slices."""
    made = []

    def make(**options):
        session = new_session(cache=False, make_compute=compute_for, **options)
        session.load_labels(blob_files[1], LABELLED)
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()


def at(scheduler) -> ComputeConfig:
    return ComputeConfig("cpu", cache=False, scheduler=scheduler.address)


def stages(events) -> list[str]:
    """The stages that progress told of, in their order."""
    return list(dict.fromkeys(event.stage for event in events if isinstance(event, Progress)))


def flat(values, prefix: str = ""):
    """Dask's configuration as it may be set for a while: dotted names for nested ones."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def until(work, stage: str) -> None:
    """Draw events until progress tells of the stage."""
    while not (isinstance(event := next(work), Progress) and event.stage == stage):
        pass


@pytest.mark.slow
def test_a_worker_learns_and_predicts_as_this_machine_does(labelled, scheduler):
    here, there = labelled(), labelled(scheduler=scheduler.address)
    assert not there.is_ready
    drain(here.train())
    events = list(there.train())
    assert stages(events) == ["send", "encode", "train"]
    assert Notice(f"Connecting to {scheduler.address}…") in events
    assert there.is_ready
    assert (there.encoder_name, there.device_name) == ("efficientnet-lite0", "cpu (dask worker)")
    assert there.history[0].steps == here.history[0].steps
    assert there.history[0].final_loss == pytest.approx(here.history[0].final_loss)
    for session in (here, there):
        list(session.predict(8))
        assert session.seconds["train"] > 0
    assert there.encoded == here.encoded
    assert all(np.array_equal(here.labels.result(i), there.labels.result(i)) for i in range(16))
    assert here.labels.confidence == pytest.approx(there.labels.confidence)


@pytest.mark.slow
def test_a_worker_adapts_the_encoder_as_this_machine_does(labelled, scheduler, quick, new_session):
    settings = quick.with_changes(steps=16, adaptation=Adaptation(), shows=0, class_steps=0.0)
    here, there = labelled(settings=settings), labelled(settings=settings, scheduler=scheduler.address)
    masks = []
    for session in (here, there):
        assert "adapt" in stages(list(session.train()))
        masks.append({found.index: found.classes for found in session.predict()})
    resumed = new_session()  # what was learned there goes on here
    resumed.resume(there.snapshot())
    masks.append({found.index: found.classes for found in resumed.predictions()})
    assert there.model.encoder["adapted"] == resumed.engine.store.encoder.fingerprint
    assert all(np.array_equal(masks[0][i], other[i]) for other in masks[1:] for i in LEFT_OUT)


@pytest.mark.slow
def test_a_worker_learns_from_several_cases_as_this_machine_does(labelled, scheduler, blob_files, new_session):
    other = new_session()
    other.load_labels(blob_files[1], (2, 6))
    others = [LabelledCase(other.case, {i: other.labels.truth(i) for i in (2, 6)}, other.labels.classes)]
    masks = []
    for options in ({}, {"scheduler": scheduler.address}):
        session = labelled(**options)
        drain(session.train(None, others))
        assert session.history[-1].labelled == LABELLED
        masks.append({found.index: found.classes for found in session.predict()})
    here, there = masks
    assert all(np.array_equal(here[i], there[i]) for i in LEFT_OUT)


@pytest.mark.slow
def test_a_worker_learns_live_and_follows_labels_that_change(labelled, scheduler, blob_files):
    session = labelled(scheduler=scheduler.address)
    truth = session.case.read_labels(blob_files[1], range(16))
    live = Live(session)
    try:
        live.show(5)
        live.until(lambda: bool(live.found))
        assert live.found[0].index == 5
        session.paint(5, truth[5])
        known = len(live.found)
        live.show(6)
        live.until(lambda: 6 in {item.index for item in live.found[known:]})
        live.until(lambda: live.rests)
        assert set(np.unique(live.masks()[6])) <= {0, 1, 3}
    finally:
        live.end()
    assert not session.is_trained
    assert [entry["number"] for entry in live.learned.model.classes] == [1, 3]
    assert live.learned.model.sequences == tuple(session.case.sequences)


def test_a_second_training_there_goes_on_and_sends_nothing_again(labelled, scheduler, tmp_path):
    session = labelled(scheduler=scheduler.address)
    session.labels.rename_class(1, "John Doe's lesion")
    drain(session.train())
    events = list(session.train())
    assert stages(events) == ["train"]
    assert session.history[1].steps < session.history[0].steps
    session.save_model(tmp_path / "model.safetensors")
    assert [entry["name"] for entry in session.model.classes] == ["John Doe's lesion", "class 3"]
    loaded = labelled(scheduler=scheduler.address)
    loaded.load_model(tmp_path / "model.safetensors")
    for one in (session, loaded):
        list(one.predict())
    assert all(np.array_equal(session.labels.result(i), loaded.labels.result(i)) for i in LEFT_OUT)


@pytest.mark.slow
def test_another_architecture_starts_from_scratch_there(labelled, scheduler, quick):
    session = labelled(scheduler=scheduler.address)
    drain(session.train())
    wider = quick.with_changes(width=48)
    session.configure(wider, at(scheduler))
    assert session.changes_since_training() == ["width"]
    assert stages(session.train()) == ["train"]
    assert session.history[-1].steps == session.history[0].steps
    assert session.model.decoder["width"] == 48


@pytest.mark.slow
def test_what_was_learnt_there_goes_on_here(labelled, scheduler, quick):
    session = labelled(scheduler=scheduler.address)
    drain(session.train())
    list(session.predict())
    there = [session.labels.result(i) for i in LEFT_OUT]
    session.configure(quick, ComputeConfig("cpu", cache=False))
    assert session.is_trained
    list(session.predict())
    assert all(np.array_equal(session.labels.result(i), mask) for i, mask in zip(LEFT_OUT, there, strict=True))
    assert session.device_name == "cpu"


@pytest.mark.slow
def test_training_there_is_stopped_and_what_was_learnt_is_kept(labelled, scheduler, quick):
    session = labelled(scheduler=scheduler.address, settings=quick.with_changes(steps=5000, shows=0))
    cancel = Cancel()
    training = session.train(cancel)
    until(training, "train")
    cancel.set()
    drain(training)
    assert 0 < session.history[0].steps < 5000
    assert session.is_trained


@pytest.mark.slow
def test_stopping_while_slices_are_sent_leaves_the_worker(labelled, scheduler):
    session, cancel = labelled(scheduler=scheduler.address), Cancel()
    training = session.train(cancel)
    until(training, "send")
    cancel.set()
    with pytest.raises(TrainingError, match="stopped before the worker had started"):
        drain(training)
    assert not session.is_ready
    assert session.history == []


@pytest.mark.slow
def test_pictures_of_several_sizes_in_colour(scheduler, quick, tmp_path, new_session):
    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number, size in enumerate(((40, 48), (48, 40), (64, 64))):
        pixels = random.integers(0, 60, (*size, 3), dtype=np.uint8)
        pixels[8:28, 10:30, 0] = 255
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    session = type(new_session())(
        open_case(tmp_path / "pictures"),
        quick,
        at(scheduler),
        make_compute=compute_for,
    )
    session.labels.add_class()
    mask = np.zeros((40, 48), np.uint16)
    mask[8:28, 10:30] = 1
    session.paint(0, mask)
    drain(session.train())
    masks = list(session.predict())
    described = session.engine.descriptors
    session.close()
    assert [mask.classes.shape for mask in masks] == [(48, 40), (64, 64)]
    assert sorted(described) == [0, 1, 2]  # what is suggested next does not depend on where it is computed


@pytest.mark.slow
def test_a_case_goes_over_encrypted_connections_only_and_losing_its_worker_loses_nothing(labelled, quick, tmp_path):
    """What the loss of a scheduler means to a person, the panel's tests show (`tests/gui/test_whole_loop.py`)."""
    certificates = make_certificates(tmp_path)
    options = ("--nthreads", 1, "--no-nanny")
    with running_scheduler(tmp_path, *options, protocol="tls", OMP_NUM_THREADS="1", **certificates) as running:
        session = labelled(scheduler=running.address)
        assert running.address.startswith("tls://")
        with pytest.raises(ClusterError, match="names no certificates"):
            drain(session.train())
        with dask.config.set(dict(flat(dask.config.collect_env(certificates)))):
            drain(session.train())
            assert session.device_name == "cpu (dask worker)"
            session.configure(quick.with_changes(steps=50_000), at(running))
            training = session.train()
            until(training, "train")
            running.worker.kill()
            with pytest.raises(LostSchedulerError, match=r"The worker of this case|The connection to the scheduler"):
                drain(training)
        assert not session.is_ready
        assert session.is_trained
        assert session.labels.labelled == list(LABELLED)
        session.configure(quick, ComputeConfig("cpu", cache=False))
        list(session.predict())
        assert all(session.labels.status(i) is Status.PREDICTED for i in LEFT_OUT)


@pytest.mark.slow
def test_a_worker_of_another_version_is_said(labelled, scheduler, monkeypatch):
    monkeypatch.setattr(remote, "version", lambda _: "0.0.1")
    session = labelled(scheduler=scheduler.address)
    with pytest.raises(ClusterError, match=r"cannot be used: it has napari-dinoaugseg .*, not 0\.0\.1"):
        drain(session.train())
    assert not session.is_ready


@pytest.mark.slow
def test_a_worker_that_cannot_have_the_encoder_says_why(labelled, scheduler, quick):
    session = labelled(scheduler=scheduler.address, settings=quick.with_changes(encoder="resnet18"))
    with pytest.raises(DinoAugSegError, match="resnet18"):
        drain(session.train())


def test_a_scheduler_that_is_not_there_is_said(labelled, monkeypatch):
    monkeypatch.setattr(connection, "_TIMEOUT", 0.5)
    session = labelled(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"tcp://127.0.0.1:9 cannot be reached"):
        drain(session.train())
    assert not session.is_ready


def test_without_dask_it_is_said_how_to_get_it(labelled, monkeypatch):
    monkeypatch.setattr(connection, "is_installed", lambda: False)
    with pytest.raises(ClusterError, match=r"napari-dinoaugseg\[cluster\]"):
        drain(labelled(scheduler="tcp://127.0.0.1:9").train())


def test_a_file_with_weights_stays_here(labelled, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(connection, "_TIMEOUT", 0.5)
    session = labelled(scheduler="tcp://127.0.0.1:9", weights=tmp_path / "mine.safetensors", notify=said.append)
    with pytest.raises(ClusterError, match="cannot be reached"):
        drain(session.train())
    assert said == ["The worker uses weights of its own, not mine.safetensors."]


@pytest.mark.slow
def test_a_model_of_another_encoder_is_refused_there_and_its_file_named_here(labelled, scheduler, tmp_path):
    session = labelled()
    drain(session.train())
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, replace(session.model, encoder={**session.model.encoder, "fingerprint": "other"}))
    other = labelled(scheduler=scheduler.address)
    with pytest.raises(CheckpointError, match=rf"{path}: the model was trained on features of"):
        other.load_model(path)


# --- what travels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        np.array([[-1024, 0], [3071, 32767]], np.float32),
        np.array([[0.5, 1]], np.float32),
        np.array([[1e6, -4e4]], np.float32),
        np.array([[0, 255]], np.uint8),
    ],
)
def test_pixels_travel_unchanged_and_whole_numbers_in_half_the_bytes(image):
    packed = remote.pack(image)
    assert np.array_equal(remote.unpack(packed), image)
    assert remote.unpack(packed).dtype == image.dtype
    halved = image.dtype == np.float32 and image.max() == 32767
    assert packed.nbytes == image.nbytes // (2 if halved else 1)


def test_neither_names_nor_paths_travel(blob_files):
    case = open_case(blob_files[0])
    sent = pickle.dumps((SliceInfo.of(case), [SentSlice.of(case, i) for i in range(case.n_slices)]))
    for word in (case.name, str(case.path), str(case.path.parent), ".nii"):
        assert word.encode() not in sent


def test_slices_arrive_in_parcels_and_are_what_they_were(monkeypatch):
    monkeypatch.setattr(remote, "_PARCEL", 3000)
    case = case_from_array(np.random.default_rng(0).normal(size=(7, 20, 30)).astype(np.float32))
    arrived = ReceivedSlices([SliceInfo.of(case)])
    parcels = list(remote._parcels(case))
    assert [len(parcel) for parcel in parcels] == [2, 2, 2, 1]
    for parcel in parcels:
        arrived.take(parcel)
    for i in range(7):
        assert np.array_equal(arrived.slice(i), case.slice(i))
        assert arrived.slice_fingerprint(i) == case.slice_fingerprint(i)
        assert arrived.slice_shape(i) == case.slice_shape(i)
        assert arrived.neighbours(i, 2) == case.neighbours(i, 2)
    assert arrived.intensity_range() == case.intensity_range()
    assert arrived.is_byte == case.is_byte


# --- the actor -------------------------------------------------------------------------------------------------------


@pytest.fixture
def facts(blob_files):
    return [SliceInfo.of(open_case(blob_files[0]))]


@pytest.fixture
def on_worker(monkeypatch):
    monkeypatch.setattr(remote, "respect_limit", lambda: None)


@pytest.mark.usefixtures("on_worker")
def test_a_worker_without_room_or_of_another_version_says_so(facts, monkeypatch):
    monkeypatch.setattr(remote, "available_memory", lambda: 64 * 2**20)
    with pytest.raises(ClusterError, match="memory for 32 MB of slices, and the case takes 40 MB"):
        WorkerActor([facts], connection.version("napari-dinoaugseg"), 40 * 2**20)
    with pytest.raises(ClusterError, match="Install the same version"):
        WorkerActor([facts], "0.0.1", 0)


@pytest.mark.usefixtures("on_worker")
def test_an_actor_that_is_asked_out_of_turn_answers_with_an_error(facts, quick):
    made = WorkerActor([facts], connection.version("napari-dinoaugseg"), 0)
    assert "before it had started" in str(made.train({}, [], quick, ()).error)
    assert "no work to continue" in str(made.draw(False).error)


@pytest.mark.usefixtures("on_worker")
def test_what_nobody_foresaw_is_an_answer_too(facts, monkeypatch):
    made = WorkerActor([facts], connection.version("napari-dinoaugseg"), 0)

    def failing():
        yield Notice("first")
        raise ZeroDivisionError("out of\nthe blue")

    made._work = remote._Work(failing())
    monkeypatch.setattr(made, "_state", lambda: None)
    drawn = made.draw(False).value
    assert drawn.items == [Notice("first")]
    assert "ZeroDivisionError: out of the blue" in str(drawn.error)
