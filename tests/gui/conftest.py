"""A real viewer with the panel, the real engine with its offline encoder, and cases that are learnt in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.blobs import truth_voxels, write_case

LABELLED = (4, 8, 11)
SMALL = {"encoder": "efficientnet-lite0", "input_size": 64, "steps": 60, "views": 2}


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory) -> tuple[Path, Path]:
    """Image and truth of a case of 16 axial slices with the classes 1 and 3."""
    return write_case(tmp_path_factory.mktemp("gui_blobs"))


@pytest.fixture
def panel(make_napari_viewer, qtbot):
    """The panel in a viewer, nothing open."""
    from napari_dinoaugseg.gui.panel import Panel

    viewer = make_napari_viewer(show=True)
    made = Panel(viewer)
    viewer.window.add_dock_widget(made, name="DINO-AugSeg")
    qtbot.waitExposed(viewer.window._qt_window)
    yield made
    made.controller.dispose()
    wait_idle(qtbot, made.controller)


@pytest.fixture
def controller(panel):
    """Of the panel, with settings that train in seconds."""
    panel.controller.change_settings(**SMALL)
    panel.controller.use_device("cpu")
    return panel.controller


@pytest.fixture
def said(controller) -> list[str]:
    """Every sentence that the panel said."""
    sentences: list[str] = []
    for signal in (controller.said, controller.notice, controller.failed):
        signal.connect(sentences.append)
    return sentences


@pytest.fixture
def case(controller, blob_files):
    """The blobs, open."""
    controller.open_path(blob_files[0], background=False, plane="axial")
    return controller.session.case


@pytest.fixture
def truth(case) -> np.ndarray:
    """(16, H, W) labels of the blobs: 1 and 3."""
    return case.to_slices(truth_voxels())


@pytest.fixture
def labelled(controller, case, truth):
    """The blobs with three slices painted, classes 1 and 3."""
    paint(controller, truth, LABELLED)
    return controller


def paint(controller, truth: np.ndarray, slices) -> None:
    """Put labels into the layer, as a tool of napari would."""
    layer = controller.layers.manual
    moved = np.moveaxis(layer.data, controller.layers.axis, 0)
    for index in slices:
        moved[index, : truth.shape[1], : truth.shape[2]] = truth[index]
    layer.refresh()
    controller.flush()


def wait_idle(qtbot, controller, timeout: int = 60_000) -> None:
    """Until no work goes on, the prediction after a training included."""
    qtbot.waitUntil(lambda: not controller.busy, timeout=timeout)


def train(qtbot, controller) -> None:
    """Train and predict."""
    controller.train()
    wait_idle(qtbot, controller)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boolean arrays."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


@pytest.fixture
def viewer(make_napari_viewer):
    """A viewer without the panel."""
    return make_napari_viewer()


@pytest.fixture
def opened(controller, case):
    """The controller with the blobs open."""
    assert controller.session.case is case
    return controller


@pytest.fixture
def truth_slices(blob_files):
    """The true labels of a slice of the blobs, (H, W) uint16, by number."""
    from napari_dinoaugseg.case import open_case

    truth = open_case(blob_files[1], plane="axial")
    return lambda index: truth.slice(index).astype(np.uint16)


@pytest.fixture
def wait(qtbot):
    """Wait until the work in the background is done, predictions after a training included."""
    return lambda controller: wait_idle(qtbot, controller)
