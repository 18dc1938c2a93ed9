"""Two patients in one viewer: what is in view is the one that the panel names, and strokes go nowhere else."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtCore import Qt

from tests.blobs import image_voxels
from tests.gui.conftest import settle, train, wait_idle
from tests.gui.test_painting import stroke

pytestmark = pytest.mark.shared_window


@pytest.fixture
def other(tmp_path):
    """A second patient: fewer slices, larger pixels, in another place."""
    voxels = image_voxels(3)[:30, :30, 3:10]
    affine = np.diag([2.5, 2.5, 6.0, 1.0])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "second.nii.gz")
    return tmp_path / "second.nii.gz"


def open_by_hand(panel, path, qtbot, **options):
    """Open a file as the button does, in the background."""
    panel.controller.cases.open_path(path, **options)
    wait_idle(qtbot, panel.controller)
    qtbot.wait(150)


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_the_next_patient_stands_alone_in_the_middle_of_the_view_under_its_name(labelled, panel, other, qtbot, said):
    viewer = labelled.viewer
    labelled.view.go_to(15)
    assert panel.head.name.text() == "image0 (16 slices)"
    labelled.setup.change(steps=5)
    train(qtbot, labelled)
    open_by_hand(panel, other, qtbot, plane="axial")
    assert names(viewer) == ["second", "prediction", "manual"]
    assert all(layer.visible for layer in viewer.layers)
    assert panel.head.name.text() == "second (7 slices)"
    assert panel.head.name.isVisible()
    assert labelled.current_slice == 3
    assert viewer.dims.point[0] == pytest.approx(labelled.layers.manual.translate[0] + 3 * 6)
    assert viewer.dims.nsteps[0] == 7
    stroke(qtbot, viewer)
    qtbot.wait(200)
    assert labelled.session.labels.labelled == [3]
    assert labelled.session.case.name == "second"


def test_the_labels_of_the_patient_before_are_on_disk(labelled, panel, other, blob_files, qtbot, truth):
    open_by_hand(panel, other, qtbot, plane="axial")
    open_by_hand(panel, blob_files[0], qtbot, plane="axial")
    assert panel.resume.go_on_button.isVisible()
    qtbot.mouseClick(panel.resume.go_on_button, Qt.MouseButton.LeftButton)
    wait_idle(qtbot, labelled)
    assert np.array_equal(labelled.session.labels.manual(8), truth[8])
    assert names(labelled.viewer) == ["image0", "prediction", "manual"]


def test_labels_that_could_not_be_saved_stay_in_the_viewer(labelled, panel, other, qtbot, monkeypatch, said):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_dinoaugseg.disk.write", refuse)
    labelled.layers.manual.paint((2, 10, 10), 1)
    open_by_hand(panel, other, qtbot, plane="axial")
    kept = labelled.viewer.layers["image0: labels, not saved"]
    assert not kept.visible
    assert kept.data[2, 10, 10] == 1
    assert labelled.session.case.name == "second"
    assert any("not on disk" in text for text in said)


def test_layers_of_other_origin_are_hidden_and_listed(panel, case, controller, other, qtbot, said):
    viewer = controller.viewer
    scan = viewer.add_image(np.random.default_rng(0).random((9, 60, 60)), name="old scan")
    viewer.add_points([[1, 2, 3]], name="marks")
    open_by_hand(panel, other, qtbot, plane="axial")
    assert not scan.visible
    assert any(text.startswith("Hidden") and "old scan, marks" in text for text in said)
    assert panel.message.isVisible()
    assert viewer.layers.selection.active is controller.layers.manual


def test_an_array_that_the_person_brought_is_hidden_not_removed(panel, case, controller, other, qtbot):
    scan = controller.viewer.add_image(np.random.default_rng(0).random((9, 60, 60)), name="computed")
    controller.cases.use_layer(scan)
    open_by_hand(panel, other, qtbot, plane="axial")
    assert scan in controller.viewer.layers
    assert not scan.visible
    assert names(controller.viewer) == ["second", "computed", "prediction", "manual"]


@pytest.fixture
def covered(case, controller, panel, qtbot):
    """The blobs, with an image of somebody else above them."""
    foreign = controller.viewer.add_image(np.random.default_rng(0).random((16, 40, 48)), name="somebody else")
    controller.viewer.layers.selection.active = controller.layers.manual
    qtbot.wait(100)
    return foreign


def test_no_stroke_lands_while_another_image_lies_above(covered, controller, panel, qtbot, said):
    viewer = controller.viewer
    stroke(qtbot, viewer)
    qtbot.wait(200)
    assert controller.session.labels.labelled == []
    assert "'somebody else' lies above image0" in panel.advice.text()
    assert any("'somebody else' lies above image0" in text for text in said)
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_2)  # napari's key for the brush
    stroke(qtbot, viewer)
    qtbot.wait(200)
    assert controller.session.labels.labelled == []
    controller.labels.mark_empty(controller.current_slice)
    assert controller.session.labels.labelled == []
    covered.visible = False
    qtbot.wait(100)
    assert controller.layers.manual.mode == "paint"
    assert "somebody else" not in panel.advice.text()
    stroke(qtbot, viewer)
    qtbot.wait(200)
    assert controller.session.labels.labelled == [8]


def test_another_image_counts_as_in_view_when_the_own_one_is_hidden(covered, controller, qtbot):
    viewer = controller.viewer
    viewer.layers.move(viewer.layers.index(covered), 0)
    qtbot.wait(50)
    assert controller.guard.reason == ""
    controller.layers.image.visible = False
    assert "somebody else" in controller.guard.reason
    stroke(qtbot, viewer)
    assert controller.session.labels.labelled == []


def test_no_stroke_lands_while_the_slider_is_outside_the_case(case, controller, panel, qtbot, said):
    viewer = controller.viewer
    points = viewer.add_points([[400, 10, 10]], name="far")  # makes the slider reach beyond the case
    viewer.layers.selection.active = controller.layers.manual
    viewer.dims.set_point(0, 200)
    qtbot.wait(100)
    stroke(qtbot, viewer)
    qtbot.wait(200)
    assert controller.session.labels.labelled == []
    assert "outside image0" in panel.advice.text()
    controller.labels.mark_empty(controller.current_slice)
    assert controller.session.labels.labelled == []
    controller.view.go_to(5)
    qtbot.wait(100)
    stroke(qtbot, viewer)
    qtbot.wait(200)
    assert controller.session.labels.labelled == [5]
    assert points in viewer.layers


def test_the_undo_history_survives_a_view_outside_the_case(case, controller, qtbot):
    viewer = controller.viewer
    stroke(qtbot, viewer)
    qtbot.wait(200)
    viewer.add_points([[400, 10, 10]])
    viewer.layers.selection.active = controller.layers.manual
    viewer.dims.set_point(0, 200)
    controller.view.go_to(8)
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    qtbot.wait(200)
    assert controller.session.labels.labelled == []


def test_every_notice_of_an_opened_case_is_read_and_stays_in_the_case_section(panel, case, controller, tmp_path, qtbot):
    image = nib.Nifti1Image(image_voxels(), np.diag([1.0, 1, 4, 1]))
    image.set_qform(np.diag([1.0, 1, 3, 1]), 1)
    image.set_sform(np.diag([1.0, 1, 4, 1]), 1)
    (tmp_path / "plain.nii.gz").write_bytes(image.to_bytes())  # and it is not packed
    controller.viewer.add_points([[1, 2, 3]], name="marks")
    open_by_hand(panel, tmp_path / "plain.nii.gz", qtbot)
    notices = controller.session.case.notices
    assert len(notices) >= 2
    for words in [*(notice[1:40] for notice in notices), "marks"]:
        assert words in panel.message.text()
    panel.folds["Case"].set_open(True)
    assert all(notice[1:40] in panel.case.notes.text() for notice in notices)


# --- a dropped case ------------------------------------------------------------------------------------------------


def test_a_dropped_case_is_asked_about_and_opened(case, controller, panel, other, qtbot):
    viewer = controller.viewer
    viewer.open(str(other), plugin="napari-dinoaugseg")
    qtbot.wait(150)
    assert panel.offer.isVisible()
    assert panel.offer.text.text() == "Annotate second?"
    assert controller.session.case is case
    qtbot.mouseClick(panel.offer.yes_button, Qt.MouseButton.LeftButton)
    qtbot.wait(150)
    assert controller.session.case.name == "second"
    assert not panel.offer.isVisible()
    assert names(viewer) == ["second", "prediction", "manual"]


def test_a_dropped_case_may_be_left_alone(case, controller, panel, other, qtbot):
    controller.viewer.open(str(other), plugin="napari-dinoaugseg")
    qtbot.wait(150)
    qtbot.mouseClick(panel.offer.no_button, Qt.MouseButton.LeftButton)
    settle()
    assert controller.session.case is case
    assert not panel.offer.isVisible()


def test_what_the_panel_opens_itself_is_not_asked_about(panel, case, controller, blob_files, qtbot):
    open_by_hand(panel, blob_files[0], qtbot, plane="axial")
    controller.cases.open_path(blob_files[0], plane="coronal", background=False)
    qtbot.wait(150)
    assert not panel.offer.isVisible()


# --- what belongs to the patient before -----------------------------------------------------------------------------


def test_an_error_goes_with_its_patient_and_once_the_person_paints_on(labelled, panel, other, tmp_path, qtbot):
    for paints in (True, False):
        labelled.jobs.load_labels(tmp_path / "none.nii.gz")
        wait_idle(qtbot, labelled)
        assert "none.nii.gz" in panel.message.text()
        assert panel.message.isVisible()
        if paints:
            qtbot.keyClick(labelled.viewer.window._qt_viewer.canvas.native, Qt.Key.Key_2)  # napari's key for the brush
            stroke(qtbot, labelled.viewer)
            qtbot.waitUntil(lambda: not panel.message.isVisible())
    open_by_hand(panel, other, qtbot, plane="axial")
    assert "none.nii.gz" not in panel.message.text() or not panel.message.isVisible()


def test_an_error_of_work_on_the_patient_before_names_it(labelled, panel, other, qtbot, monkeypatch, said):
    shown = []
    monkeypatch.setattr("napari.utils.notifications.show_error", shown.append)
    labelled.setup.change(steps=400)

    def break_down(*_, **__):
        raise ValueError("broken")
        yield

    monkeypatch.setattr(type(labelled.session), "_train", break_down)
    labelled.jobs.train()
    labelled.cases.open_path(other, background=False, plane="axial")
    wait_idle(qtbot, labelled)
    assert labelled.session.case.name == "second"
    assert not any("broken" in text for text in said)
    assert any(text.startswith("image0: ") and "broken" in text for text in shown)


def test_a_model_can_be_saved_once_there_is_one(labelled, panel, qtbot):
    panel.folds["Export"].set_open(True)
    assert not panel.export.save_button.isEnabled()
    labelled.setup.change(steps=5)
    train(qtbot, labelled)
    qtbot.wait(100)
    assert panel.export.save_button.isEnabled()


def test_pictures_after_a_volume_and_a_volume_after_them_are_opened_without_a_notice(
    labelled, panel, other, tmp_path, qtbot
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    before = len(notification_manager.records)
    open_by_hand(panel, folder, qtbot)
    open_by_hand(panel, other, qtbot, plane="axial")
    said = [record.message for record in list(notification_manager.records)[before:]]
    assert not [text for text in said if "nits" in text]
    assert {str(unit) for layer in labelled.viewer.layers for unit in layer.units} == {"millimeter"}
