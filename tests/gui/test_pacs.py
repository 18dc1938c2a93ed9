"""From a PACS into the panel and back to it, with a mouse and a keyboard."""

from __future__ import annotations

import os
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog

from napari_dinoaugseg.gui.pacs import FindDialog, SendDialog
from napari_dinoaugseg.session.labels import Status
from tests.case.builders import listing
from tests.case.test_rtstruct import plastimatch
from tests.gui.conftest import settle, wait_idle
from tests.gui.test_painting import stroke
from tests.pacs.conftest import PASSWORD, SERIES, STUDY, locked_pacs, pacs, ring, slices  # noqa: F401 - fixtures


def click(widget) -> None:
    assert widget.isEnabled(), widget.text()
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)


def write(field, text: str) -> None:
    field.clear()
    QTest.keyClicks(field, text)


def window(panel, kind: type[QDialog]):
    (found,) = [dialog for dialog in panel.findChildren(kind) if dialog.isVisible()]
    return found


def look(qtbot, controller, dialog, name: str) -> None:
    """Until the work of a window is done; keep a picture of it where that is asked for."""
    wait_idle(qtbot, controller)
    folder = os.environ.get("DINOAUGSEG_PICTURES")
    if folder:
        dialog.grab().save(str(Path(folder, f"{name}.png")))


@pytest.fixture
def finding(panel, controller):
    """The window in which a PACS is searched."""
    panel.folds["Case"].set_open(True)
    click(panel.case.pacs_button)
    return window(panel, FindDialog)


def test_a_series_is_fetched_labelled_and_its_masks_are_read_back_from_the_pacs_by_others(
    panel,
    controller,
    finding,
    qtbot,
    locked_pacs,  # noqa: F811
    slices,  # noqa: F811
    ring,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    write(finding.form.address, locked_pacs)
    write(finding.form.user, "ann")
    write(finding.form.secret, "wrong")
    click(finding.search_button)
    look(qtbot, controller, finding, "wrong")
    assert "does not accept the user name and password" in finding.work.message.text()
    write(finding.form.secret, PASSWORD)
    finding.form.remember.setChecked(True)
    write(finding.patient, "quastenflosser")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(type(ring), "priority", 0.5)  # no keyring that encrypts
        QTest.keyClick(finding.patient, Qt.Key.Key_Return)
        look(qtbot, controller, finding, "not_kept")
    assert finding.work.message.text().startswith("1 series in 1 study. Select one, and fetch it. The password was not")
    QTest.keyClick(finding.patient, Qt.Key.Key_Return)
    look(qtbot, controller, finding, "found")
    assert finding.table.rowCount() == 1
    assert finding.work.message.text() == "1 series in 1 study. Select one, and fetch it."
    assert list(ring.kept.values()) == [PASSWORD]
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "images"))
    click(finding.fetch_button)
    qtbot.waitUntil(lambda: controller.session is not None, timeout=60_000)
    wait_idle(qtbot, controller)
    (folder,) = (tmp_path / "images").iterdir()
    assert folder.name.startswith("CT_")  # tiny-pacs names no description
    assert sorted(listing(folder).values()) == sorted(path.read_bytes() for path in slices)

    book = controller.session.labels
    for index in (1, 4):
        controller.view.go_to(index)
        stroke(qtbot, controller.viewer)
        qtbot.waitUntil(lambda index=index: index in book.labelled, timeout=10_000)
    click(panel.head.train_button)
    wait_idle(qtbot, controller, 120_000)
    controller.view.go_to(3)
    qtbot.waitUntil(panel.review.accept_button.isEnabled, timeout=10_000)
    click(panel.review.accept_button)
    assert [book.status(index) for index in (1, 3, 4)] == [Status.MANUAL, Status.ACCEPTED, Status.MANUAL]

    panel.folds["Export"].set_open(True)
    settle()
    monkeypatch.setattr("napari_dinoaugseg.gui.export_section.chosen", lambda *_: 0)  # with what nobody looked at
    click(panel.export.send_button)
    sending = window(panel, SendDialog)
    assert (sending.form.address.text(), sending.form.user.text()) == (locked_pacs, "ann")
    assert sending.form.secret.text() == ""  # it comes from the keyring
    sending.kinds[".rtstruct.dcm"].setChecked(True)
    click(sending.send_button)
    look(qtbot, controller, sending, "sent")
    assert sending.work.message.text() == "The PACS stored SEG and RTSTRUCT (2 files) in the study."
    assert panel.export.result.text() == sending.work.message.text()
    kept = b"".join(path.read_bytes() for path in Path(os.environ["DINOAUGSEG_CACHE"]).rglob("*") if path.is_file())
    assert locked_pacs.encode() in kept
    assert PASSWORD.encode() not in kept
    click(sending.close_button)

    case = controller.session.case
    shown = case.restore(np.stack([book.result(index) for index in range(case.n_slices)])) > 0  # (i, j, k)
    assert shown[:, :, (1, 3, 4)].any(axis=(0, 1)).all()
    objects = {entry.Modality: entry for entry in stored(locked_pacs, PASSWORD)}
    assert set(objects) == {"SEG", "RTSTRUCT"}
    stored_as = {kind: entry.file_meta.TransferSyntaxUID for kind, entry in objects.items()}
    assert stored_as == {"SEG": ExplicitVRLittleEndian, "RTSTRUCT": ImplicitVRLittleEndian}
    (tmp_path / "rtstruct").mkdir()
    objects["RTSTRUCT"].save_as(tmp_path / "rtstruct" / "contours.dcm", enforce_file_format=True)
    (contours,) = plastimatch(tmp_path / "rtstruct" / "contours.dcm", folder, tmp_path / "out").values()
    assert np.array_equal(contours > 0, shown)
    voxels = highdicom.seg.Segmentation.from_dataset(objects["SEG"])
    uids = [dataset.SOPInstanceUID for dataset in sorted(map(pydicom.dcmread, folder.iterdir()), key=height)]
    read = voxels.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=True)
    assert np.array_equal(read.transpose(2, 1, 0) > 0, shown)
    check_what_ohif_needs(objects["SEG"], objects["RTSTRUCT"], set(uids))


def check_what_ohif_needs(seg: pydicom.Dataset, contours: pydicom.Dataset, images: set[str]) -> None:
    """The attributes by which OHIF 3 finds the series below a mask, and draws it (cornerstone-dicom-seg and -rt)."""
    for entry in (seg, contours):
        assert entry.StudyInstanceUID == STUDY
        assert entry.SeriesDescription
        assert str(entry.SeriesNumber)
    (below,) = seg.ReferencedSeriesSequence
    assert below.SeriesInstanceUID == SERIES
    assert {one.ReferencedSOPInstanceUID for one in below.ReferencedInstanceSequence} <= images
    assert len(seg.PerFrameFunctionalGroupsSequence) == seg.NumberOfFrames
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (derived,) = frame.DerivationImageSequence
        assert derived.SourceImageSequence[0].ReferencedSOPInstanceUID in images
        number = frame if "SegmentIdentificationSequence" in frame else shared  # of one segment it is shared
        assert number.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
        assert len(frame.PlanePositionSequence[0].ImagePositionPatient) == 3
    assert shared.PlaneOrientationSequence
    assert shared.PixelMeasuresSequence
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel
    assert len(segment.RecommendedDisplayCIELabValue) == 3
    (frame,) = contours.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == seg.FrameOfReferenceUID
    (below,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert below.SeriesInstanceUID == SERIES
    assert {one.ReferencedSOPInstanceUID for one in below.ContourImageSequence} <= images
    (region,), (outline,) = contours.StructureSetROISequence, contours.ROIContourSequence
    assert outline.ReferencedROINumber == region.ROINumber
    assert region.ROIName == segment.SegmentLabel
    assert len(outline.ROIDisplayColor) == 3
    for contour in outline.ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints


def height(dataset: pydicom.Dataset) -> float:
    """The position of an axial slice along the patient, mm."""
    return float(dataset.ImagePositionPatient[2])


def stored(url: str, password: str) -> list[pydicom.Dataset]:
    """All objects of the study that are no images, fetched without our code."""
    client = DICOMwebClient(url, session=create_session_from_user_pass("ann", password))
    media = (("application/dicom", "*"),)
    everything = client.retrieve_study(STUDY, media_types=media)
    return [dataset for dataset in everything if dataset.Modality != "CT"]


def test_a_window_that_is_closed_while_it_fetches_leaves_nothing(
    controller,
    finding,
    qtbot,
    pacs,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    write(finding.form.address, pacs.url)
    click(finding.search_button)
    wait_idle(qtbot, controller)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    click(finding.fetch_button)
    click(finding.close_button)
    wait_idle(qtbot, controller)
    QApplication.processEvents()
    assert not list(tmp_path.iterdir())
    assert controller.session is None


def test_nothing_is_asked_while_the_person_works_offline(controller, finding, pacs, monkeypatch):  # noqa: F811
    monkeypatch.setenv("DINOAUGSEG_OFFLINE", "1")
    write(finding.form.address, pacs.url)
    click(finding.search_button)
    assert "the network is switched off" in finding.work.message.text()
    assert "Preferences" in finding.work.message.text()
    assert not pacs.asked
    click(finding.close_button)


def test_a_case_that_is_no_dicom_series_has_no_study_to_send_to(panel, labelled):
    assert not panel.export.send_button.isEnabled()
    assert panel.export.mask_button.isEnabled()


def test_a_series_of_a_pacs_becomes_a_case_of_a_project(
    panel,
    controller,
    qtbot,
    pacs,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    controller.project.create(tmp_path / "project")
    wait_idle(qtbot, controller)
    panel.folds["Project"].set_open(True)
    click(panel.cases.pacs_button)
    adding = window(panel, FindDialog)
    write(adding.form.address, pacs.url)
    click(adding.search_button)
    wait_idle(qtbot, controller)
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "images"))
    monkeypatch.setattr("napari_dinoaugseg.gui.case_table.AddDialog.exec", lambda _: True)
    click(adding.fetch_button)
    qtbot.waitUntil(lambda: bool(controller.project.current.cases), timeout=60_000)
    wait_idle(qtbot, controller)
    (case,) = controller.project.current.cases
    assert case.path.is_relative_to(tmp_path / "images")
