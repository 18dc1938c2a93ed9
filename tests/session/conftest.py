from __future__ import annotations

import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.session import Session
from tests.blobs import write_case


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("blobs"))


@pytest.fixture
def quick():
    # Each slice by itself: three labelled ones of a few thick ones do not teach what neighbours tell.
    return Settings.of_preset(
        "fast", encoder="efficientnet-lite0", input_size=64, context=0, steps=90, views=2, width=32
    )


@pytest.fixture
def new_session(blob_files, quick):
    def make(**options):
        chosen = {name: options.pop(name) for name in ("weights", "cache", "scheduler") if name in options}
        config = ComputeConfig("cpu", **chosen)
        return Session(open_case(blob_files[0], plane="axial"), options.pop("settings", quick), config, **options)

    return make
