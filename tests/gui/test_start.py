"""The first start: three ways to begin, the labels that come with the sample, and the last case again."""

from __future__ import annotations

import gc
import json
import sys
import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_dinoaugseg.case import Plane
from napari_dinoaugseg.case.array import LABELLED_SLICES
from napari_dinoaugseg.gui.panel import Panel
from napari_dinoaugseg.gui.start import last_opened
from napari_dinoaugseg.gui.widgets import cache_settings
from tests.gui.conftest import open_blobs, settle, wait_idle
from tests.sequences import write_sequences

pytestmark = pytest.mark.filterwarnings("ignore:System theme detection")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DINOAUGSEG_CACHE", str(tmp_path / "cache"))


def click(qtbot, widget):
    settle()
    assert widget.isVisible()
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)
    settle()


@pytest.fixture
def sample(panel, controller, qtbot):
    """The panel with the sample, opened by its button."""
    controller.live.switch(False)
    click(qtbot, panel.start.sample_button)
    wait_idle(qtbot, controller, timeout=240_000)
    return panel


def test_an_empty_panel_offers_ways_to_begin_which_give_way_to_the_sections_of_a_case(panel, controller, blob_files):
    settle()
    start = panel.start
    for widget in (start.sample_button, start.file_button, start.folder_button, panel.cases.open_button):
        assert widget.isVisible()
        assert widget.isEnabled()
    assert not start.last_button.isVisible()
    assert not start.layer_button.isVisible()
    assert [title for title, fold in panel.folds.items() if fold.isVisible()] == ["Project", "Case"]
    assert not panel.head.train_button.isVisible()
    open_blobs(controller, blob_files[0])
    assert not panel.start.isVisible()
    assert all(fold.isVisible() for fold in panel.folds.values())
    assert panel.head.train_button.isVisible()
    controller.cases.close()
    settle()
    assert panel.start.isVisible()


def test_an_image_in_the_viewer_can_be_taken_at_the_start(panel, controller, qtbot):
    controller.viewer.add_image(np.random.default_rng(0).random((4, 32, 32)), name="seen before")
    settle()
    click(qtbot, panel.offer.no_button)
    click(qtbot, panel.start.layer_button)
    assert controller.session.case.name == "seen before"
    assert last_opened() is None  # it lies nowhere on disk


def test_five_slices_of_the_sample_are_labelled_with_one_click_and_one_undo_and_of_no_other_case(
    sample, controller, qtbot, wait, blob_files
):
    assert last_opened() is None  # it is no case of the person's
    click(qtbot, sample.sample.yes_button)
    wait(controller)
    book = controller.session.labels
    assert tuple(book.labelled) == LABELLED_SLICES
    for index in LABELLED_SLICES:
        assert set(np.unique(book.truth(index))) == {0, 1, 2}
        np.testing.assert_array_equal(controller.layers.manual.data[index], book.truth(index))
    assert controller.current_slice in LABELLED_SLICES
    assert not sample.sample.isVisible()
    assert "press Train" in sample.message.text() or "Press Train" in sample.message.text()
    assert controller.session.labels.classes[0].name == "grey matter"

    controller.layers.undo()
    settle()
    assert not book.labelled
    assert sample.sample.isVisible()
    controller.cases.change_plane(Plane.CORONAL)
    settle()
    assert not sample.sample.isVisible()
    controller.cases.open_path(blob_files[0], background=False, plane="axial")
    settle()
    assert not sample.sample.isVisible()


def test_who_paints_the_sample_is_not_asked_again(sample, controller, qtbot):
    click(qtbot, sample.sample.no_button)
    assert not sample.sample.isVisible()
    controller.view.go_to(3)
    settle()
    assert not sample.sample.isVisible()


def test_the_last_case_is_offered_at_the_next_start_and_opens_in_its_plane(
    panel, controller, blob_files, make_napari_viewer, qtbot, wait
):
    controller.cases.open_path(blob_files[0], background=False, plane="coronal")
    settle()
    viewer = make_napari_viewer(show=True)
    again = Panel(viewer)
    viewer.window.add_dock_widget(again, name="DINO-AugSeg")
    settle()
    assert again.start.last_button.text() == f"Continue with {blob_files[0].name}"
    assert again.start.last_text.text().startswith("The last case, opened on ")
    controller.cases.close()
    click(qtbot, again.start.last_button)
    wait(again.controller)
    assert again.controller.session.case.path == blob_files[0]
    assert again.controller.session.case.plane.value == "coronal"
    again.controller.dispose()


def test_the_last_case_opens_with_all_its_sequences(panel, controller, tmp_path, qtbot, wait):
    paths = write_sequences(tmp_path / "scans")
    controller.cases.open_path(paths, background=False, plane="axial")
    settle()
    assert last_opened().others == (paths[1],)
    controller.cases.close()
    click(qtbot, panel.start.last_button)
    wait(controller)
    assert tuple(controller.session.case.sequences) == ("t1", "t2")


def test_the_last_project_is_offered(panel, controller, tmp_path, wait):
    controller.project.create(tmp_path / "livers")
    wait(controller)
    found = last_opened()
    assert (found.kind, found.path) == ("project", tmp_path / "livers")


@pytest.mark.parametrize(
    "kept", ["", "{", "[]", "3", json.dumps({"kind": "other", "path": "/x", "opened": "2026-01-01", "options": {}})]
)
def test_a_note_that_cannot_be_read_is_no_last_case(kept):
    cache_settings().setValue("last", kept)
    assert last_opened() is None


def test_a_last_case_that_is_gone_is_named_in_one_sentence(panel, controller, qtbot, failed, tmp_path, wait):
    from datetime import UTC, datetime

    from napari_dinoaugseg.gui.start import Last, StartSection, remember

    remember(Last("case", tmp_path / "gone.nii.gz", datetime.now(UTC)))
    start = StartSection(controller, open_file=print, open_folder=print, use_layer=print)
    qtbot.addWidget(start)
    start.show()
    click(qtbot, start.last_button)
    wait(controller)
    assert len(failed) == 1
    assert "gone.nii.gz" in failed[0]
    assert controller.session is None


def test_pytorch_is_loaded_while_a_file_is_chosen(panel, qtbot):
    qtbot.waitUntil(lambda: panel.controller.setup.encoder_expected is not None, timeout=60_000)
    qtbot.waitUntil(lambda: "look-for-weights" not in {thread.name for thread in threading.enumerate()}, timeout=60_000)
    assert "torch" in sys.modules


def test_a_panel_lets_python_look_for_garbage_rarely(panel):
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        second = Panel(panel.controller.viewer)
        assert gc.get_threshold() == (700, 10, 100)
        second.deleteLater()
    finally:
        gc.set_threshold(*before)
