from __future__ import annotations

import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.intensity import choose_window
from napari_dinoaugseg.learning import fallback
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example
from napari_dinoaugseg.model.encoder import load_encoder
from tests.blobs import LABELLED, write_case

SIZE = 64


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """No other program is going to give memory back."""
    monkeypatch.setattr(fallback, "_WAIT", 0.0)


@pytest.fixture(scope="session")
def encoder():
    return load_encoder("efficientnet-lite0")


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("blobs"))


@pytest.fixture
def case(blob_files):
    return open_case(blob_files[0], plane="axial")


@pytest.fixture
def truth(case, blob_files):
    """Class indices 0, 1, 2 of every slice, (n, H, W)."""
    labels = case.read_labels(blob_files[1], range(case.n_slices))
    return np.stack([np.searchsorted([0, 1, 3], labels[index]) for index in range(case.n_slices)]).astype(np.int16)


@pytest.fixture
def make_store(case, encoder):
    def make(cache: FeatureCache | None = None, **options):
        return FeatureStore(
            case,
            encoder,
            input_size=options.pop("input_size", SIZE),
            window=choose_window(case),
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
