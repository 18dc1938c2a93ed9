"""The window a person looks through and the window the model sees: two things, both as the panel says."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dinoaugseg.session.store import saved_sessions
from tests.blobs import AFFINE, image_voxels
from tests.gui.conftest import paint, settle, train, wait_idle
from tests.gui.test_work import until_stage

SOFT_TISSUE = [-160, 240]

pytestmark = pytest.mark.shared_window


def choose(combo, text: str) -> None:
    """Choose from a list with the keyboard, as a person may; each item on the way is chosen as well."""
    combo.setFocus()
    target = combo.findText(text)
    assert target >= 0
    while combo.currentIndex() != target:
        key = Qt.Key.Key_Down if combo.currentIndex() < target else Qt.Key.Key_Up
        QTest.keyClick(combo, key)
    settle()


@pytest.fixture
def ct(tmp_path):
    """A NIfTI file with Hounsfield units: air, water, two structures."""
    hounsfield = np.clip(image_voxels() - 350, -1000, 700).astype(np.int16)
    hounsfield[:6] = -1000
    hounsfield[-6:] = -1000
    nib.save(nib.Nifti1Image(hounsfield, AFFINE), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def shown(controller) -> list[float]:
    return [round(value, 3) for value in controller.layers.image.contrast_limits]


def test_a_ct_opens_in_soft_tissue_for_the_eyes_and_the_model(controller, case, panel, ct, qtbot):
    controller.cases.open_path(ct, plane="axial")
    wait_idle(qtbot, controller)
    assert shown(controller) == SOFT_TISSUE
    assert panel.case.window_choice.currentText() == "soft tissue"
    assert panel.train.window_choice.currentText() == "soft tissue"
    assert controller.session.settings.window == "soft tissue"


def test_a_ct_from_a_layer_opens_in_soft_tissue(controller, case, panel, ct):
    data = np.moveaxis(np.asarray(nib.load(ct).dataobj), 2, 0)
    controller.cases.use_layer(controller.viewer.add_image(data, contrast_limits=(-1000, 700)))
    settle()
    assert shown(controller) == SOFT_TISSUE
    assert panel.case.window_choice.currentText() == "soft tissue"


def test_an_mr_after_a_ct_does_not_open_in_hounsfield_units(controller, case, panel, ct, blob_files):
    controller.cases.open_path(ct, background=False, plane="axial")
    controller.cases.open_path(blob_files[0], background=False, plane="axial")
    settle()
    assert panel.case.window_choice.currentText() == "auto"
    assert shown(controller) != SOFT_TISSUE


def test_looking_through_another_window_keeps_the_model(labelled, panel, qtbot, said):
    labelled.setup.change(steps=5)
    train(qtbot, labelled)
    model, sees = labelled.session.model, labelled.setup.settings.window
    choose(panel.case.window_choice, "bone")
    assert shown(labelled) == [-450, 1050]
    assert labelled.session.model is model
    assert labelled.session.changes_since_training() == []
    assert labelled.setup.settings.window == sees
    assert panel.train.window_choice.currentText() == sees
    assert not panel.train.from_scratch.isVisible()
    assert not any("scratch" in text for text in said)


def test_the_window_can_be_changed_while_the_model_is_trained(labelled, panel, qtbot):
    labelled.setup.change(steps=200)
    sees = labelled.setup.settings.window
    labelled.jobs.train()
    until_stage(qtbot, labelled, "train")
    settle()
    assert panel.case.window_choice.isEnabled()
    choose(panel.case.window_choice, "lung")
    assert labelled.jobs.busy
    assert shown(labelled) == [-1350, 150]
    labelled.jobs.stop()
    wait_idle(qtbot, labelled)
    assert labelled.session.model_settings.window == sees
    assert labelled.session.model.settings["window"] == sees


def test_before_the_first_training_the_model_sees_what_the_person_sees(case, controller, panel, qtbot):
    choose(panel.case.window_choice, "bone")
    assert panel.train.window_choice.currentText() == "bone"
    assert controller.session.settings.window == "bone"
    controller.layers.image.contrast_limits = (10, 300)
    assert controller.session.settings.window == "10,300"


@pytest.mark.parametrize(("change", "words"), [("window", "the window"), ("preset", "the decoder of the preset")])
def test_a_changed_setting_keeps_the_model_and_says_that_training_starts_from_scratch(
    labelled, panel, qtbot, change, words
):
    labelled.setup.change(steps=5)
    train(qtbot, labelled)
    model, first = labelled.session.model, labelled.setup.settings
    if change == "window":
        choose(panel.train.window_choice, "bone")
    else:
        choose(panel.train.preset, "fast")
        labelled.setup.change(input_size=64)
        settle()
    assert labelled.session.model is model
    assert panel.train.from_scratch.isVisible()
    assert words in panel.train.from_scratch.text()
    assert panel.train.predict_button.isEnabled()
    labelled.jobs.predict()
    wait_idle(qtbot, labelled)
    assert labelled.session.model is model
    labelled.setup.change(**first.model_dump())
    settle()
    assert not panel.train.from_scratch.isVisible()
    assert labelled.session.changes_since_training() == []


def test_the_contrast_slider_of_napari_moves_the_words_of_the_panel(case, controller, panel):
    controller.layers.image.contrast_limits = (12.5, 345)
    settle()
    assert panel.case.window_choice.currentText() == "12.5,345"
    choose(panel.case.window_choice, "auto")
    assert controller.view.window == "auto"
    assert panel.case.window_choice.findText("12.5,345") < 0


def test_a_saved_session_comes_back_through_the_window_that_was_looked_through(
    labelled, panel, truth, blob_files, qtbot
):
    labelled.setup.change(steps=5)
    train(qtbot, labelled)
    sees = labelled.setup.settings.window
    choose(panel.case.window_choice, "bone")
    paint(labelled, truth, [6])
    labelled.cases.open_path(blob_files[0], plane="axial")
    wait_idle(qtbot, labelled)
    assert len(saved_sessions(labelled.session.case.fingerprint)) == 1
    assert panel.case.window_choice.currentText() == "auto"
    qtbot.mouseClick(panel.resume.go_on_button, Qt.MouseButton.LeftButton)
    wait_idle(qtbot, labelled)
    assert shown(labelled) == [-450, 1050]
    assert panel.case.window_choice.currentText() == "bone"
    assert panel.train.window_choice.currentText() == sees


def test_a_saved_session_without_a_window_shows_the_one_of_its_settings(
    labelled, panel, blob_files, qtbot, monkeypatch
):
    labelled.setup.change(window="-10,500")
    view = labelled.saving._view
    monkeypatch.setattr(labelled.saving, "_view", lambda: {k: v for k, v in view().items() if k != "window"})
    labelled.cases.open_path(blob_files[0], plane="axial")
    wait_idle(qtbot, labelled)
    qtbot.mouseClick(panel.resume.go_on_button, Qt.MouseButton.LeftButton)
    wait_idle(qtbot, labelled)
    assert shown(labelled) == [-10, 500]
    assert panel.case.window_choice.currentText() == "-10,500"


def test_another_plane_keeps_the_window(case, controller, panel):
    from napari_dinoaugseg.case import Plane

    choose(panel.case.window_choice, "bone")
    controller.cases.change_plane(Plane.CORONAL)
    settle()
    assert shown(controller) == [-450, 1050]
    assert panel.case.window_choice.currentText() == "bone"
