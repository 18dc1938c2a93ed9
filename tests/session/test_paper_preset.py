"""The preset `paper` from labels to masks, and models of it that an older version saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.model.checkpoint import load_checkpoint, save_checkpoint
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.session import Session
from tests.blobs import LABELLED

NEWER = ("scaling", "dice", "clip_gradient", "precision", "resize")
"""Settings that older versions did not have."""


PAPER = Settings.of_preset("paper", encoder="efficientnet-lite0", input_size=64, steps=20, learning_rate=3e-3)


def masks_of(session: Session) -> dict[int, np.ndarray]:
    return {item.index: item.classes for item in session.predictions(8)}


def trained(files: tuple[Path, Path], settings: Settings) -> Session:
    session = Session(open_case(files[0], plane="axial"), settings, ComputeConfig("cpu", cache=False))
    session.load_labels(files[1], LABELLED)
    list(session.train())
    return session


@pytest.fixture(scope="module")
def learnt(blob_files) -> Session:
    """A session in which the preset has learnt."""
    return trained(blob_files, PAPER)


def test_its_masks_are_chosen_at_the_input_size_from_slices_that_are_scaled_by_themselves(
    learnt,
):
    found = masks_of(learnt)
    assert any(mask.any() for mask in found.values())
    store, decoder = learnt.engine.store, learnt.engine.decoder
    numbers = np.array([0, *learnt.engine.numbers])
    for index in (0, 7):
        image = learnt.case.slice(index).astype(float)
        levels = ((image - image.min()) / (image.max() - image.min()) * 255).astype(np.uint8)
        resized = np.asarray(Image.fromarray(levels).resize((64, 64), Image.Resampling.BILINEAR))
        picture = torch.from_numpy(resized / np.float32(255)).expand(1, 3, 64, 64)
        with torch.no_grad():
            maps = store.encoder.encode(picture)
            logits = F.interpolate(decoder(maps), (64, 64), mode="bilinear", align_corners=False)
        square = logits[0].argmax(0).numpy().astype(np.uint8)
        height, width = learnt.case.slice_shape(index)
        expected = numbers[np.asarray(Image.fromarray(square).resize((width, height), Image.Resampling.NEAREST))]
        assert np.mean(found[index] != expected) < 0.005  # a level of a pixel may be rounded otherwise


def test_a_model_of_it_predicts_in_another_session_as_in_its_own(new_session, learnt, tmp_path):
    learnt.save_model(tmp_path / "paper.safetensors")
    expected = masks_of(learnt)
    other = new_session(settings=Settings(encoder="efficientnet-lite0"), cache=False)
    other.load_model(tmp_path / "paper.safetensors")
    found = masks_of(other)
    assert all(np.array_equal(found[index], expected[index]) for index in expected)
    assert (other.settings.scaling, other.settings.resize) == ("slice", "nearest")
    assert other.settings.precision == "auto"  # how to train on is the person's choice


def test_a_model_of_an_older_version_predicts_as_it_did(new_session, blob_files, tmp_path):
    then = PAPER.with_changes(**{name: Settings.model_fields[name].default for name in NEWER})
    session = trained(blob_files, then)
    session.save_model(tmp_path / "model.safetensors")
    expected = masks_of(session)
    saved = load_checkpoint(tmp_path / "model.safetensors")
    for name in NEWER:
        saved.settings.pop(name)
    save_checkpoint(tmp_path / "older.safetensors", saved)
    other = new_session(settings=PAPER, cache=False)  # as the preset is now
    other.load_model(tmp_path / "older.safetensors")
    found = masks_of(other)
    assert all(np.array_equal(found[index], expected[index]) for index in expected)
    assert other.settings.precision == "float32"  # it does not bring bfloat16 into a training of the preset


def test_features_follow_the_precision_of_the_model_and_then_of_the_next_training(new_session, learnt, tmp_path):
    learnt.save_model(tmp_path / "paper.safetensors")
    session = new_session(settings=PAPER.with_changes(precision="auto", steps=2), cache=False)
    session.load_model(tmp_path / "paper.safetensors")
    assert session.engine.store.exact
    session.paint(4, learnt.labels.truth(4))
    list(session.train())
    assert session.history[0].steps == 2
    assert not session.engine.store.exact


def test_a_model_of_other_scaling_is_not_continued_one_of_other_masks_or_precision_is(new_session, learnt, tmp_path):
    learnt.save_model(tmp_path / "paper.safetensors")
    session = new_session(settings=PAPER, cache=False)
    session.load_model(tmp_path / "paper.safetensors")
    same = ComputeConfig("cpu", cache=False)
    session.configure(session.settings.with_changes(resize="bilinear", precision="bfloat16", dice="squares"), same)
    assert session.changes_since_training() == []
    session.configure(session.settings.with_changes(scaling="window"), same)
    assert session.changes_since_training() == ["scaling"]
