"""The engine when a device is too small or fails: what is said, where it goes on, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import ClusterError, DeviceError, TrainingError
from napari_dinoaugseg.learning import fallback as devices
from napari_dinoaugseg.learning.events import Notice
from napari_dinoaugseg.learning.postprocessing import Finish
from napari_dinoaugseg.learning.train import Trained
from napari_dinoaugseg.model.encoder import Encoder
from napari_dinoaugseg.session import engine as module
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import classes_of
from napari_dinoaugseg.session.session import Session
from tests.blobs import LABELLED

CARD = torch.device("mps")


@pytest.fixture(autouse=True)
def _card(monkeypatch):
    """A card that is chosen by its name, and has not failed yet."""
    monkeypatch.setattr(devices, "_failed", set())
    monkeypatch.setattr(module, "choose_device", lambda name: CARD)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)


@pytest.mark.parametrize(
    ("error", "told", "decoder_on"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "does not fit into the memory of the device 'mps'", CARD),
        (RuntimeError("CUDA error: unspecified launch failure"), "failed (CUDA error: unspecified", devices.CPU),
    ],
    ids=["full", "broken"],
)
def test_an_encoder_that_cannot_be_loaded_onto_the_device_goes_on_with_the_cpu(
    blob_files, quick, monkeypatch, error, told, decoder_on
):
    move = Encoder.to

    def refuse(self, device):
        if torch.device(device).type == "mps":
            raise error
        return move(self, device)

    monkeypatch.setattr(Encoder, "to", refuse)
    said = []
    session = Session(open_case(blob_files[0]), quick, notify=said.append)
    assert session.engine.encoder.device == devices.CPU
    assert session.engine.device == decoder_on
    assert len(said) == 1
    assert told in said[0]
    assert "with the CPU" in said[0]
    assert len(session.engine.store.features(3)) == 4


def test_an_encoder_for_which_there_is_no_memory_is_said(blob_files, quick, monkeypatch):
    def refuse(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(module, "load_encoder", refuse)
    with pytest.raises(DeviceError, match="not enough memory to load efficientnet-lite0"):
        _ = Session(open_case(blob_files[0]), quick).engine


def test_a_mistake_while_loading_is_not_taken_for_a_lack_of_memory(blob_files, quick, monkeypatch):
    def break_down(*_args, **_options):
        raise RuntimeError("shapes do not match")

    with monkeypatch.context() as patch:
        patch.setattr(module, "load_encoder", break_down)
        with pytest.raises(RuntimeError, match="shapes do not match"):
            _ = Session(open_case(blob_files[0]), quick).engine
    monkeypatch.setattr(Encoder, "to", break_down)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        _ = Session(open_case(blob_files[0]), quick).engine


def test_without_a_model_there_is_nothing_to_save(new_session, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "choose_device", lambda name: devices.CPU)
    session = new_session()
    with pytest.raises(TrainingError, match="Train first"):
        session.save_model(tmp_path / "model.safetensors")
    with pytest.raises(TrainingError, match="Train first"):
        session.engine.checkpoint(session.labels.classes, session.settings)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def trained_small(new_session, blob_files, monkeypatch):
    """A session whose training ended at a smaller size, on the CPU, because memory ran out."""
    monkeypatch.setattr(module, "choose_device", lambda name: devices.CPU)
    fit = module.fit

    def smaller(store, *arguments, **options):
        yield Notice("Memory ran out in training; going on at 32 x 32 pixels.")
        result: Trained = yield from fit(store.resized(32), *arguments, **options)
        return result

    monkeypatch.setattr(module, "fit", smaller)
    session = new_session()
    session.load_labels(blob_files[1], LABELLED)
    list(session.train())
    return session


def test_what_was_learnt_at_a_smaller_size_is_used_at_that_size(trained_small, new_session, tmp_path):
    assert trained_small.engine.store.input_size == 32
    assert trained_small.model.settings["input_size"] == 32
    later = new_session()
    later.resume(trained_small.snapshot())
    assert later.settings.input_size == 64
    assert later.engine.store.input_size == 32
    assert {item.index for item in later.predict(8)} == set(later.labels.open_slices)


def test_the_decoder_stays_on_the_cpu(trained_small):
    assert {value.device.type for value in trained_small.engine.decoder.state_dict().values()} == {"cpu"}


def test_a_model_is_used_with_the_neighbours_that_it_was_trained_with(new_session, blob_files, quick, tmp_path):
    first = new_session(settings=quick.with_changes(context=2, steps=5))
    first.load_labels(blob_files[1], LABELLED)
    list(first.train())
    first.save_model(tmp_path / "model.safetensors")
    resumed = new_session(settings=quick.with_changes(context=None))
    resumed.resume(first.snapshot())
    loaded = new_session(settings=quick.with_changes(context=None))
    loaded.load_model(tmp_path / "model.safetensors")
    assert [session.engine.store.context for session in (first, resumed, loaded)] == [2, 2, 2]
    assert loaded.settings.context == 2


def test_a_session_that_looks_for_neighbours_by_itself_takes_those_of_its_model(
    new_session, blob_files, quick, monkeypatch
):
    monkeypatch.setattr(module, "choose_device", lambda name: devices.CPU)
    by_itself = quick.with_changes(context=None, steps=5)
    with monkeypatch.context() as patch:
        patch.setattr(module, "neighbour_distance", lambda *_: 2)
        first = new_session(settings=by_itself)
        first.load_labels(blob_files[1], LABELLED)
        list(first.train())
    later = new_session(settings=by_itself)
    later.resume(first.snapshot())
    assert later.settings.context is None
    assert later.engine.store.context == 2


def test_other_neighbours_need_another_decoder(new_session, blob_files, quick):
    session = new_session(settings=quick.with_changes(steps=5))
    session.load_labels(blob_files[1], LABELLED)
    list(session.train())
    session.configure(session.settings.with_changes(context=1), ComputeConfig("cpu"))
    assert session.changes_since_training() == ["context"]
    assert session.engine.store.context == 0
    list(session.train())
    assert session.engine.store.context == 1


def test_a_session_that_was_given_no_cluster_refuses_a_scheduler(blob_files, quick):
    session = Session(open_case(blob_files[0]), quick, ComputeConfig(scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(ClusterError, match="computes on this computer only"):
        _ = session.engine


@pytest.mark.parametrize("resize", ["bilinear", "nearest"])
def test_pictures_with_one_lesion_each_teach_that_there_is_one(tmp_path, quick, monkeypatch, resize):
    """A model keeps what it learnt of its pictures, and uses it on others; the paper's masks stay as they are."""
    for number in range(4):
        shade = np.full((64, 64), 60, np.uint8)
        shade[20 + 5 * number : 40 + 5 * number, 10:40] = 200
        Image.fromarray(shade).save(tmp_path / f"{number}.png")
    settings = quick.with_changes(steps=2, shows=0, resize=resize)
    taught = Session(open_case(tmp_path), settings)
    taught.labels.replace_classes(classes_of([4]))
    for number in range(3):
        label = np.zeros((64, 64), np.uint16)
        label[20 + 5 * number : 40 + 5 * number, 10:40] = 4
        taught.paint(number, label)
    for _ in taught.train():
        pass
    taught.save_model(tmp_path / "lesion.model")
    used = Session(open_case(tmp_path / "3.png"), settings)
    used.load_model(tmp_path / "lesion.model")
    seen = []
    finishes = Finish.__call__
    monkeypatch.setattr(Finish, "__call__", lambda self, *given: seen.append(self) or finishes(self, *given))
    masks = [[found.classes for found in session.predict()] for session in (taught, used)]
    assert seen == ([Finish((1,), redraws=True)] * 2 if resize == "bilinear" else [])
    assert np.array_equal(*(found[0] for found in masks))


def test_the_next_picture_is_unlike_the_labelled_ones(tmp_path, quick):
    random = np.random.default_rng(0)
    for number in range(8):
        shade = random.integers(40, 60, (64, 64), dtype=np.uint8)
        if number > 4:
            shade[::4] = 250  # stripes
        shade[20:40, 10:40] = 200
        Image.fromarray(shade).save(tmp_path / f"{number}.png")
    session = Session(open_case(tmp_path), quick.with_changes(steps=2))
    session.labels.replace_classes(classes_of([1]))
    label = np.zeros((64, 64), np.uint16)
    label[20:40, 10:40] = 1
    session.paint(0, label)
    for _ in session.train():
        pass
    list(session.predict())
    (best,) = session.suggest()
    assert best.index > 4
    assert "unlike the labelled pictures" in best.reason
