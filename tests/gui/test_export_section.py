"""The export section on a real viewer: what is written where, what is asked before, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

from napari_dinoaugseg.case import case_from_array, open_case
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.export_section import ExportSection
from napari_dinoaugseg.session.labels import Status
from tests.blobs import AFFINE, truth_voxels, write_case
from tests.case.builders import numbers, write_dicom
from tests.gui.conftest import errors_of, settle

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


@pytest.fixture
def section(controller, qtbot):
    made = ExportSection(controller)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def labelled(opened, section, truth_slices):
    """Slices 4 and 8 painted, 9 accepted, 10 predicted."""
    book = opened.session.labels
    book.add_class(number=3)
    for index in (4, 8):
        opened.session.paint(index, truth_slices(index))
    for index in (9, 10):
        book.set_prediction(index, truth_slices(index), 0.9)
    book.accept(9)
    opened.layers.show_labels([4, 8, 9])
    for index in (9, 10):  # somebody looks at them
        opened.view.go_to(index)
    section.refresh()
    return opened


@pytest.fixture
def save_as(monkeypatch):
    """Answer the next save dialogs with a path, and keep what they were asked with."""
    asked = []

    def answer_with(path: Path, chosen: str = ""):
        def answer(*args, **options):
            asked.append(args)
            return str(path), chosen

        monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
        monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *args, **options: answer(*args)[0])
        return asked

    return answer_with


@pytest.fixture
def answer(monkeypatch):
    """Answer questions with yes or no, and keep their texts."""
    asked = []

    def answer_with(yes: bool):
        button = QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No
        monkeypatch.setattr(QMessageBox, "question", lambda *args: (asked.append(args[2]), button)[1])
        return asked

    return answer_with


def labelled_slices(path: Path) -> list[int]:
    voxels = np.asarray(nib.load(path).dataobj)
    return [k for k in range(voxels.shape[2]) if voxels[:, :, k].any()]


def test_without_a_case_nothing_can_be_written(section):
    for button in (section.mask_button, section.report_button, section.save_button, section.apply_button):
        assert not button.isEnabled()
    assert section.contents.text() == "Open a case first."


def test_the_mask_holds_what_was_chosen(labelled, section, save_as, wait, tmp_path):
    assert section.result.isHidden()
    for choice, slices in ((0, [4, 8, 9, 10]), (1, [4, 8, 9]), (2, [4, 8])):
        section.include.setCurrentIndex(choice)
        path = tmp_path / f"mask{choice}.nii.gz"
        asked = save_as(path, "NIfTI (*.nii.gz *.nii)")
        section.mask_button.click()
        wait(labelled)
        image = nib.load(path)
        np.testing.assert_array_equal(image.affine, AFFINE.astype(np.float32))
        np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, slices], truth_voxels()[:, :, slices])
        assert labelled_slices(path) == slices
        assert str(path) in section.result.text()
        assert not section.result.isHidden()
        assert asked[choice][2].endswith("image0_mask.nii.gz")


@pytest.fixture
def click(monkeypatch):
    """Click a button in the next window that asks, by its text, and keep what was asked."""
    asked = []

    def click_on(text: str):
        def look() -> None:
            box = QApplication.activeModalWidget()
            if not isinstance(box, QMessageBox):
                QTimer.singleShot(20, look)
                return
            asked.append(box.text())
            (button,) = [one for one in box.buttons() if one.text().replace("&", "") == text]
            QTest.mouseClick(button, Qt.MouseButton.LeftButton)

        QTimer.singleShot(0, look)
        return asked

    return click_on


@pytest.mark.parametrize(
    ("pressed", "slices"), [("Everything", [4, 8, 9, 10, 11]), ("Reviewed only", [4, 8, 9, 10]), ("Cancel", None)]
)
def test_what_nobody_has_looked_at_is_only_written_when_the_person_says_so(
    labelled, section, save_as, click, wait, truth_slices, tmp_path, pressed, slices
):
    labelled.session.labels.set_prediction(11, truth_slices(11), 0.9)
    labelled.touch(Change.PREDICTIONS)
    save_as(tmp_path / "mask.nii.gz")
    asked = click(pressed)
    section.mask_button.click()
    wait(labelled)
    assert asked[0].startswith("Nobody has looked at 1 of the 5 slices that go into the mask")
    if slices is None:
        assert list(tmp_path.iterdir()) == []
    else:
        assert labelled_slices(tmp_path / "mask.nii.gz") == slices
        assert ("On 1 slice, what nobody has looked at is background." in section.result.text()) is (
            pressed == "Reviewed only"
        )


@pytest.mark.usefixtures("panel")
def test_a_slice_counts_as_looked_at_once_it_was_in_view_with_its_prediction(labelled, truth_slices, qtbot):
    book = labelled.session.labels
    book.set_prediction(12, truth_slices(12), 0.9)
    assert book.unseen() == [12]
    canvas = labelled.viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_Right)
    assert labelled.current_slice == 11
    assert book.unseen() == [12]
    labelled.layers.prediction.visible = False
    qtbot.keyClick(canvas, Qt.Key.Key_Right)
    assert labelled.current_slice == 12
    assert book.unseen() == [12]  # the prediction is hidden
    labelled.layers.prediction.visible = True
    assert book.unseen() == []
    labelled.view.go_to(0)
    book.set_prediction(12, truth_slices(11), 0.9)  # a new one
    assert book.unseen() == [12]
    labelled.view.go_to(12)
    assert book.unseen() == []


def test_in_another_view_of_the_volume_no_slice_is_looked_at(labelled, truth_slices):
    book, dims = labelled.session.labels, labelled.viewer.dims
    book.set_prediction(12, truth_slices(12), 0.9)
    order = tuple(dims.order)
    dims.order = (*order[1:], order[0])
    labelled.view.go_to(12)
    assert book.unseen() == [12]
    dims.order = order
    assert labelled.current_slice == 12
    assert book.unseen() == []


def test_each_class_in_its_own_file_leaves_out_the_same_slices(
    labelled, section, save_as, click, wait, truth_slices, tmp_path
):
    labelled.session.labels.set_prediction(11, truth_slices(11), 0.9)
    section.per_class.setChecked(True)
    save_as(tmp_path / "mask.nii.gz")
    click("Reviewed only")
    section.mask_button.click()
    wait(labelled)
    written = sorted(tmp_path.iterdir())
    assert len(written) == 2
    assert all(11 not in labelled_slices(path) for path in written)


def test_it_says_what_goes_in(labelled, section):
    section.include.setCurrentIndex(0)
    assert section.contents.text() == "16 slices: 2 by hand, 1 accepted, 1 predicted; 12 left as background."
    section.include.setCurrentIndex(2)
    assert section.contents.text() == "16 slices: 2 by hand; 14 left as background."


def test_strokes_of_the_last_moment_are_written(labelled, section, save_as, wait, tmp_path):
    labelled.layers.manual.data_setitem((np.array([0]), np.array([5]), np.array([6])), 1)
    save_as(tmp_path / "mask.nii.gz")
    section.mask_button.click()
    wait(labelled)
    assert open_case(tmp_path / "mask.nii.gz", plane="axial").slice(0)[5, 6] == 1


def test_nothing_is_replaced_without_asking(labelled, section, save_as, answer, wait, tmp_path):
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(b"precious")
    save_as(path)
    for times, yes in ((1, False), (2, True)):
        asked = answer(yes)
        section.mask_button.click()
        wait(labelled)
        assert len(asked) == times
        assert "mask.nii.gz already exists" in asked[-1]
        assert (path.read_bytes() == b"precious") is not yes


def test_one_file_per_class_asks_once_for_all(labelled, section, save_as, answer, wait, tmp_path):
    section.per_class.setChecked(True)
    save_as(tmp_path / "mask.nrrd", "NRRD (*.nrrd)")
    section.mask_button.click()
    wait(labelled)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["mask_class-1.nrrd", "mask_class-3.nrrd"]
    asked = answer(False)
    section.mask_button.click()
    wait(labelled)
    assert len(asked) == 1
    assert "mask_class-1.nrrd" in asked[0]
    assert "mask_class-3.nrrd" in asked[0]


def test_a_name_without_suffix_gets_one(labelled, section, save_as, wait, tmp_path):
    for name, chosen, written in (
        ("mask", "NIfTI (*.nii.gz *.nii)", ["mask.nii.gz"]),
        ("mask.v2", "NRRD (*.nrrd)", ["mask.nii.gz", "mask.v2.nrrd"]),
    ):
        save_as(tmp_path / name, chosen)
        section.mask_button.click()
        wait(labelled)
        assert sorted(path.name for path in tmp_path.iterdir()) == written


def test_a_dismissed_dialog_writes_nothing(labelled, section, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: ("", ""))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: ("", ""))
    for button in (section.mask_button, section.report_button, section.apply_button):
        button.click()
    assert not labelled.jobs.busy
    assert section.result.isHidden()


def test_the_image_itself_cannot_be_replaced(labelled, section, save_as, answer, blob_files):
    failed = errors_of(labelled)
    before = blob_files[0].read_bytes()
    asked = answer(True)
    save_as(blob_files[0])
    section.mask_button.click()
    assert "overwrite an input" in failed[0]
    assert asked == []
    assert blob_files[0].read_bytes() == before


def test_names_for_itk_snap_are_written_and_loaded_with_the_mask(
    labelled, panel, section, save_as, answer, wait, monkeypatch, tmp_path
):
    labelled.session.labels.rename_class(3, "Spleen")
    asked = save_as(tmp_path / "mask", "ITK-SNAP label descriptions (*.txt *.label)")
    section.table_button.click()
    assert asked[0][2].endswith("_mask.txt")
    assert '"Spleen"' in (tmp_path / "mask.txt").read_text(encoding="utf-8")
    save_as(tmp_path / "mask.nii.gz")
    section.mask_button.click()
    wait(labelled)
    labelled.session.labels.rename_class(3, "class 3")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(tmp_path / "mask.nii.gz"), ""))
    panel.label.load_button.click()
    wait(labelled)
    assert [entry.name for entry in labelled.session.labels.classes if entry.number == 3] == ["Spleen"]
    assert "mask.nii.gz" in section.result.text()
    refused = answer(False)
    save_as(tmp_path / "mask.txt")
    section.table_button.click()
    assert "mask.txt" in refused[0]
    assert not section.result.isVisible()  # nothing was written this time


def test_the_report(labelled, section, save_as, wait, tmp_path):
    save_as(tmp_path / "report", "JSON (*.json)")
    section.report_button.click()
    wait(labelled)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["slices"]["manual"] == [4, 8]
    assert report["slices"]["accepted"] == [9]


@pytest.mark.usefixtures("case")
def test_pictures_go_to_a_folder_of_their_own(controller, section, save_as, answer, wait, tmp_path):
    pictures = tmp_path / "skin"
    pictures.mkdir()
    for name, size in (("a", (6, 8)), ("b", (9, 5))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(pictures / f"{name}.jpg")
    controller.cases.begin(open_case(pictures))
    settle()
    controller.session.paint(1, np.ones((9, 5), np.uint16))
    assert section.mask_button.text() == "Export masks…"
    assert section.per_class.text() == "One folder per class"
    save_as(tmp_path)
    section.mask_button.click()
    wait(controller)
    out = tmp_path / "skin_masks"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    assert (np.asarray(Image.open(out / "b.png")) == np.ones((9, 5))).all()
    assert not np.asarray(Image.open(out / "a.png")).any()
    asked = answer(False)
    section.mask_button.click()
    wait(controller)
    assert "a.png" in asked[0]


@pytest.mark.usefixtures("case")
def test_a_picture_layer_becomes_a_png(controller, section, save_as, wait, tmp_path):
    controller.cases.begin(case_from_array(np.zeros((6, 8), np.uint8), name="skin"))
    settle()
    controller.session.paint(0, np.ones((6, 8), np.uint16))
    asked = save_as(tmp_path / "skin_mask.png")
    section.mask_button.click()
    wait(controller)
    assert (np.asarray(Image.open(tmp_path / "skin_mask.png")) == np.ones((6, 8))).all()
    assert asked[0][2].endswith("skin_mask.png")
    assert asked[0][3].startswith("PNG (*.png)")


@pytest.mark.usefixtures("case")
def test_a_dicom_series_becomes_a_dicom_segmentation(controller, section, save_as, wait, tmp_path):
    write_dicom(tmp_path / "ct", numbers((3, 6, 8), np.uint16))
    controller.cases.begin(open_case(tmp_path / "ct"))
    settle()
    controller.session.labels.rename_class(1, "Liver")
    labels = np.zeros((6, 8), np.uint16)
    labels[1, 2:5] = 1
    controller.session.paint(1, labels)
    asked = save_as(tmp_path / "mask", "DICOM SEG (*.dcm)")
    section.mask_button.click()
    wait(controller)
    assert asked[0][2].endswith("ct_mask.nii.gz")
    assert asked[0][3] == (
        "NIfTI (*.nii.gz *.nii);;NRRD (*.nrrd);;3D Slicer segmentation (*.seg.nrrd);;DICOM SEG (*.dcm);;"
        "DICOM RTSTRUCT (*.rtstruct.dcm)"
    )
    written = pydicom.dcmread(tmp_path / "mask.dcm")
    assert [segment.SegmentLabel for segment in written.SegmentSequence] == ["Liver"]
    np.testing.assert_array_equal(controller.session.case.read_labels(tmp_path / "mask.dcm")[1], labels)


@pytest.mark.usefixtures("case")
@pytest.mark.parametrize("name", ["mask", "mask.dcm", "mask.rtstruct.dcm"])
def test_contours_for_planning_systems_are_written_and_loaded_again(
    name, panel, controller, section, save_as, wait, monkeypatch, tmp_path
):
    write_dicom(tmp_path / "ct", numbers((3, 6, 8), np.uint16))
    controller.cases.begin(open_case(tmp_path / "ct"))
    settle()
    controller.session.labels.rename_class(1, "Liver")
    labels = np.zeros((6, 8), np.uint16)
    labels[1, 2:5] = labels[3:6, 3:6] = 1
    labels[4, 4] = 0
    controller.session.paint(1, labels)
    save_as(tmp_path / name, "DICOM RTSTRUCT (*.rtstruct.dcm)")
    section.mask_button.click()
    wait(controller)
    written = pydicom.dcmread(tmp_path / "mask.rtstruct.dcm")
    assert (written.Modality, written.StructureSetROISequence[0].ROIName) == ("RTSTRUCT", "Liver")
    write_dicom(tmp_path / "again", numbers((3, 6, 8), np.uint16), intercept=-1000)
    controller.cases.begin(open_case(tmp_path / "again"))
    settle()
    chosen = (str(tmp_path / "mask.rtstruct.dcm"), "")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: chosen)
    panel.label.load_button.click()
    wait(controller)
    np.testing.assert_array_equal(controller.session.labels.manual(1), labels)
    assert controller.session.labels.classes[0].name == "Liver"


def test_a_file_that_is_no_dicom_series_is_offered_no_dicom(labelled, section, save_as, wait, tmp_path):
    asked = save_as(tmp_path / "mask.nii.gz")
    section.mask_button.click()
    wait(labelled)
    assert "DICOM" not in asked[0][3]


def test_a_dicom_segmentation_of_what_is_no_dicom_series_is_refused_with_the_reason(
    labelled, section, save_as, wait, said, tmp_path
):
    save_as(tmp_path / "mask.dcm")
    section.mask_button.click()
    wait(labelled)
    assert "DICOM" in said[-1]
    assert "mask.dcm" in said[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_mask_is_written_only_when_it_is_wanted(opened, section, save_as, answer, wait, tmp_path):
    save_as(tmp_path / "mask.nii.gz")
    for times, yes in ((1, False), (2, True)):
        asked = answer(yes)
        section.mask_button.click()
        wait(opened)
        assert len(asked) == times
        assert "the whole mask would be background" in asked[-1]
        assert (tmp_path / "mask.nii.gz").exists() is yes


@pytest.mark.usefixtures("case")
@pytest.mark.parametrize(
    ("spacing", "lacking"), [(None, "neither voxel size nor position"), ((5.0, 0.8, 0.8), "no position")]
)
def test_a_layer_without_a_place_in_the_body_says_so_when_it_is_taken_and_at_the_export(
    controller, section, said, spacing, lacking
):
    controller.cases.begin(case_from_array(np.zeros((4, 6, 8), np.int16), spacing=spacing, name="dropped"))
    settle()
    assert any(lacking in sentence and "open its file or folder" in sentence for sentence in said)
    assert f"This image has {lacking} in the body, and its mask will have none." in section.contents.text()


def test_a_saved_model_predicts_the_next_case(labelled, section, save_as, wait, tmp_path):
    assert not section.save_button.isEnabled()
    labelled.setup.change(width=16)
    labelled.jobs.train()
    wait(labelled)
    assert section.save_button.isEnabled()
    model = tmp_path / "model.safetensors"
    save_as(tmp_path / "model")
    section.save_button.click()
    assert str(model) in section.result.text()
    (tmp_path / "next").mkdir()
    image, truth = write_case(tmp_path / "next", seed=1)
    labelled.cases.begin(open_case(image, plane="axial"))
    settle()
    assert section.result.isHidden()
    save_as(model)
    section.apply_button.click()
    wait(labelled)
    book = labelled.session.labels
    assert [entry.number for entry in book.classes] == [1, 3]
    assert all(book.status(index) is Status.PREDICTED for index in range(16))
    middle = open_case(truth, plane="axial").slice(8)
    found = book.predicted(8)
    assert 2 * ((found == 1) & (middle == 1)).sum() / ((found == 1).sum() + (middle == 1).sum()) > 0.8


def test_a_file_that_is_no_model_is_said(labelled, section, save_as, wait, tmp_path):
    failed = errors_of(labelled)
    (tmp_path / "model.safetensors").write_bytes(b"no model")
    save_as(tmp_path / "model.safetensors")
    section.apply_button.click()
    wait(labelled)
    assert len(failed) == 1
    assert "model.safetensors" in failed[0]
    assert [entry.number for entry in labelled.session.labels.classes] == [1, 3]


def test_nothing_is_written_while_work_goes_on(labelled, section, wait):
    labelled.jobs.train()
    settle()
    assert not section.mask_button.isEnabled()
    labelled.jobs.stop()
    wait(labelled)
    assert section.mask_button.isEnabled()
