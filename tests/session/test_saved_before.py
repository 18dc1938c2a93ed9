"""A session and a model that the program saved before studies were called cases open, and the model predicts.

`saved/before_cases` was written by commit 2c55a67 from the blobs of `tests/blobs.py`: three slices labelled by hand,
one of them with voxels of unknown class, one marked empty, two predictions accepted, one of which nobody had looked at.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.labels import UNKNOWN, Status
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore
from tests.blobs import LABELLED, truth_voxels

SAVED = Path(__file__).parent / "saved" / "before_cases"
EMPTY, ACCEPTED, UNKNOWN_COLUMNS = 0, (6, 7), 20


@pytest.fixture
def case(blob_files):
    return open_case(blob_files[0], plane="axial")


@pytest.fixture
def session(case, tmp_path) -> Session:
    shutil.copytree(SAVED / "session", tmp_path / "session")
    store = SessionStore(tmp_path / "session", case)
    try:
        snapshot, problems = store.load()
    finally:
        store.close()
    assert problems == []
    made = Session(case, config=ComputeConfig("cpu"))
    made.resume(snapshot)
    return made


def test_the_labels_are_as_they_were(session, case):
    truth = case.to_slices(truth_voxels()).astype(np.uint16)
    book = session.labels

    assert book.labelled == sorted({*LABELLED, EMPTY, *ACCEPTED})
    for index in LABELLED[:2]:
        np.testing.assert_array_equal(book.manual(index), truth[index])
    partly = truth[LABELLED[2]].copy()
    partly[:, :UNKNOWN_COLUMNS] = UNKNOWN
    np.testing.assert_array_equal(book.manual(LABELLED[2]), partly)
    assert not book.manual(EMPTY).any()
    assert [book.status(index) for index in ACCEPTED] == [Status.ACCEPTED] * 2
    assert [book.is_seen("accepted", index) for index in ACCEPTED] == [False, True]
    assert [(entry.number, entry.name) for entry in book.classes] == [(1, "Herz – links"), (3, "class 3")]
    assert book.classes[1].colour == "#123456"
    assert [(entry.labelled, entry.steps) for entry in session.history] == [(LABELLED, 66)]
    assert session.settings.width == 16


@pytest.mark.parametrize("source", ["the session", "the model file"])
def test_its_model_predicts_what_it_predicted_then(session, case, source):
    predicted = {index: session.labels.predicted(index) for index in (2, 5, 10, 13)}
    if source == "the model file":
        session = Session(case, Settings.of_preset("fast"), ComputeConfig("cpu"))
        session.load_model(SAVED / "model.safetensors")
        assert [entry.name for entry in session.labels.classes] == ["Herz – links", "class 3"]

    for _ in session.predict():
        pass

    for index, labels in predicted.items():
        assert labels.any()
        same = (session.labels.predicted(index) == labels).mean()
        assert same > 0.995, f"slice {index}: {100 * same:.1f} % of the pixels are as they were"
