"""Model files whose description was changed, or that were made elsewhere, are refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from napari_dinoaugseg.errors import CheckpointError
from tests.blobs import LABELLED


@pytest.fixture
def model(new_session, blob_files, quick, tmp_path) -> Path:
    session = new_session(settings=quick.with_changes(steps=1, views=0))
    session.load_labels(blob_files[1], LABELLED)
    for _ in session.train():
        pass
    session.save_model(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def changed(model: Path, old: str, new: str) -> Path:
    """A copy with words of its description changed; the weights stay."""
    with safe_open(model, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata()
    assert all(old in entry for entry in metadata.values())
    forged = model.with_name("forged.safetensors")
    save_file(tensors, forged, metadata={name: entry.replace(old, new) for name, entry in metadata.items()})
    return forged


CHANGES = {
    '"width": 16': ('"width": 48', "weights in the model file do not fit the decoder"),
    "efficientnet-lite0": ("resnet18", "needs the encoder 'resnet18', which is not known here"),
    "efficientnet-lite0:": ("efficientnet-lite0:0", "was trained on features of efficientnet-lite0"),
    '"classes": [': (
        '"classes": [{"number": 9, "name": "x", "colour": "#ffffff"}, ',
        "does not fit its encoder and classes",
    ),
    '"number": 3': ('"number": 0', "classes or settings that this version does not understand"),
    '"steps": 1': ('"steps": 0', "classes or settings that this version does not understand"),
}


def test_a_changed_model_is_refused_and_the_session_stays_as_it_was(model, new_session):
    session = new_session()
    before = session.settings
    for old, (new, says) in CHANGES.items():
        with pytest.raises(CheckpointError, match=says) as caught:
            session.load_model(changed(model, old, new))
        assert "forged.safetensors" in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 2
        assert session.settings == before
        assert session.labels.classes == ()


def test_a_model_comes_back_with_the_settings_of_its_training(model, new_session, quick):
    session = new_session()
    trained = session.load_model(Path(shutil.copy(model, model.with_name("copy.safetensors"))))
    assert (trained.steps, session.settings.steps) == (1, quick.steps)
    assert [entry.number for entry in session.labels.classes] == [1, 3]
