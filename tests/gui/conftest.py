"""A real viewer, and the controller of a small study in it that can be learnt in seconds."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.study import open_study
from tests.blobs import write_study

PATIENCE = 60_000  # ms for work in the background, on a machine that does other things as well


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory):
    """Image and truth of a small volume: 16 axial slices of 40 x 48 pixels."""
    return write_study(tmp_path_factory.mktemp("blobs"))


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def controller(viewer):
    """A controller without a study, with settings that train in seconds."""
    made = Controller.of(viewer)
    made.device = "cpu"
    made.settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, steps=60, views=2, width=32)
    yield made
    made.dispose()


@pytest.fixture
def opened(controller, blob_files):
    """The controller with the small volume open."""
    controller.set_study(open_study(blob_files[0], plane="axial"))
    return controller


@pytest.fixture
def truth_slices(blob_files):
    """The true labels of a slice of the small volume, (H, W) uint16, by number."""
    truth = open_study(blob_files[1], plane="axial")
    return lambda index: truth.slice(index).astype(np.uint16)


@pytest.fixture
def wait(qtbot):
    """Wait until the work in the background is done, predictions after a training included."""

    def until_idle(controller: Controller) -> None:
        qtbot.waitUntil(lambda: not controller.busy, timeout=PATIENCE)

    return until_idle
