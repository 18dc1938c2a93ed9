from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable
from types import MappingProxyType

import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.session import Session
from tests.blobs import write_case

copyreg.pickle(MappingProxyType, lambda view: (MappingProxyType, (dict(view),)))  # or no session could be copied


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="session")
def quick():
    # Each slice by itself: three labelled ones of a few thick ones do not teach what neighbours tell.
    return Settings.of_preset(
        "fast", encoder="efficientnet-lite0", input_size=64, context=0, steps=60, views=2, width=16
    )


@pytest.fixture(scope="session")
def new_session(blob_files, quick):
    def make(**options):
        chosen = {name: options.pop(name) for name in ("weights", "cache", "scheduler") if name in options}
        config = ComputeConfig("cpu", **chosen)
        return Session(open_case(blob_files[0], plane="axial"), options.pop("settings", quick), config, **options)

    return make


@pytest.fixture(scope="session")
def copy_of_trained(new_session, blob_files) -> Callable[..., Session]:
    """Gives each test a session of its own that was trained on some slices and predicted the others.

    A session is trained once for each choice of slices, and copied: book, engine, encoder and decoder. Its features
    lie in the cache of the test that came first; one that asks what a training leaves on disk has to train.
    """
    once: dict[tuple[int, ...], Session] = {}

    def make(*slices: int) -> Session:
        if slices not in once:
            session = new_session()
            session.load_labels(blob_files[1], slices)
            list(session.train())
            list(session.predict(8))
            once[slices] = session
        return copy.deepcopy(once[slices])

    return make
