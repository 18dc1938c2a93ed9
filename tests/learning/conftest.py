from __future__ import annotations

import numpy as np
import pytest

from napari_dinoaugseg.learning import device
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.trainer import Example
from napari_dinoaugseg.model.encoder import load_encoder
from napari_dinoaugseg.study import open_study
from napari_dinoaugseg.study.intensity import choose_window
from tests.blobs import LABELLED, write_study

SIZE = 64


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """No other program is going to give memory back."""
    monkeypatch.setattr(device, "_WAIT", 0.0)


@pytest.fixture(scope="session")
def encoder():
    return load_encoder("efficientnet-lite0")


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("blobs"))


@pytest.fixture
def study(blob_files):
    return open_study(blob_files[0], plane="axial")


@pytest.fixture
def truth(study, blob_files):
    """Class indices 0, 1, 2 of every slice, (n, H, W)."""
    labels = study.read_labels(blob_files[1], range(study.n_slices))
    return np.stack([np.searchsorted([0, 1, 3], labels[index]) for index in range(study.n_slices)]).astype(np.int16)


@pytest.fixture
def make_store(study, encoder):
    def make(cache: FeatureCache | None = None, **options):
        return FeatureStore(
            study,
            encoder,
            input_size=options.pop("input_size", SIZE),
            window=choose_window(study),
            cache=cache,
            **options,
        )

    return make


@pytest.fixture
def examples(truth):
    return [Example(index, truth[index]) for index in LABELLED]


@pytest.fixture
def quick():
    """Settings for a training of a few seconds."""
    return Settings.of_preset("fast", shows=0, input_size=SIZE, steps=90, batch_size=4, views=2, width=32)
