"""The preset `paper` from labels to masks, and models of it that an older version saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from napari_dinoaugseg.learning.prediction import Prediction
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.model.checkpoint import load_checkpoint, save_checkpoint
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.study import open_study
from tests.blobs import LABELLED

NEWER = ("scaling", "dice", "clip_gradient", "precision", "resize")
"""Settings that older versions did not have."""


PAPER = Settings.of_preset("paper", encoder="efficientnet-lite0", input_size=64, steps=20, learning_rate=3e-3)


def masks_of(session: Session) -> dict[int, np.ndarray]:
    return {item.index: item.classes for item in session.predictions(8) if isinstance(item, Prediction)}


def trained(files: tuple[Path, Path], settings: Settings) -> Session:
    session = Session(open_study(files[0], plane="axial"), settings, device="cpu", cache=False)
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
        image = learnt.study.slice(index).astype(float)
        levels = ((image - image.min()) / (image.max() - image.min()) * 255).astype(np.uint8)
        resized = np.asarray(Image.fromarray(levels).resize((64, 64), Image.Resampling.BILINEAR))
        picture = torch.from_numpy(resized / np.float32(255)).expand(1, 3, 64, 64)
        with torch.no_grad():
            maps = store.encoder.encode(picture)
            logits = F.interpolate(decoder(maps), (64, 64), mode="bilinear", align_corners=False)
        square = logits[0].argmax(0).numpy().astype(np.uint8)
        height, width = learnt.study.slice_shape(index)
        expected = numbers[np.asarray(Image.fromarray(square).resize((width, height), Image.Resampling.NEAREST))]
        assert np.mean(found[index] != expected) < 0.005  # a level of a pixel may be rounded otherwise


def test_a_model_of_it_predicts_in_another_session_as_in_its_own(new_session, learnt, tmp_path):
    learnt.save_model(tmp_path / "paper.safetensors")
    expected = masks_of(learnt)
    other = new_session(settings=Settings(encoder="efficientnet-lite0"), cache=False)
    other.load_model(tmp_path / "paper.safetensors")
    found = masks_of(other)
    assert all(np.array_equal(found[index], expected[index]) for index in expected)
    assert (other.settings.scaling, other.settings.resize, other.settings.precision) == ("slice", "nearest", "float32")


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


def test_other_scaling_needs_other_features_and_other_masks_do_not(new_session):
    session = new_session(cache=False)
    assert session.encoded == 0  # which loads the encoder
    same = {"device": "cpu", "weights": None}
    session.configure(session.settings.with_changes(resize="nearest"), **same)
    assert session.is_ready
    session.configure(session.settings.with_changes(scaling="slice"), **same)
    assert not session.is_ready
    session = new_session(cache=False, settings=PAPER)
    assert session.encoded == 0
    session.configure(session.settings.with_changes(precision="bfloat16"), **same)
    assert not session.is_ready
