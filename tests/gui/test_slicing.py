"""With napari's asynchronous slicing, layers are drawn a moment later; what they hold is right at once."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_dinoaugseg.gui.panel import Panel
from tests.gui.conftest import LABELLED, SMALL, paint, settle, train

pytestmark = pytest.mark.filterwarnings("ignore:System theme detection")


def test_labels_predictions_and_planes_hold_with_asynchronous_slicing(
    make_napari_viewer, qtbot, blob_files, monkeypatch
):
    from napari.settings import get_settings

    from napari_dinoaugseg.case import Plane, open_case

    monkeypatch.setattr(get_settings().experimental, "async_", True)
    viewer = make_napari_viewer(show=True)
    made = Panel(viewer)
    viewer.window.add_dock_widget(made, name="DINO-AugSeg")
    controller = made.controller
    controller.live.switch(False)
    controller.setup.change(**{**SMALL, "steps": 5, "views": 1})
    controller.setup.use_device("cpu")
    try:
        controller.cases.open_path(blob_files[0], background=False, plane="coronal")
        controller.cases.change_plane(Plane.AXIAL)
        settle()
        truth = open_case(blob_files[1], plane="axial")
        slices = np.stack([truth.slice(i).astype(np.uint16) for i in range(truth.n_slices)])
        paint(controller, slices, LABELLED)
        train(qtbot, controller)
        for index in (5, 9, 4):
            controller.view.go_to(index)
            QApplication.processEvents()
            assert controller.current_slice == index
        book, layers = controller.session.labels, controller.layers
        assert list(book.labelled) == list(LABELLED)
        assert len(book.confidence) == truth.n_slices - len(LABELLED)
        np.testing.assert_array_equal(layers.prediction.data[5], book.predicted(5))
        np.testing.assert_array_equal(layers.manual.data[4], slices[4])
        for layer in (layers.image, layers.manual, layers.prediction):
            assert tuple(layer.axis_labels) == ("slice", "row", "column")
    finally:
        controller.dispose()
        qtbot.waitUntil(lambda: not controller.jobs.busy, timeout=60_000)
