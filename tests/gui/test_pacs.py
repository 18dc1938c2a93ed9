"""From a PACS into the panel and back to it, with a mouse and a keyboard."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog

from napari_dinoaugseg.gui.pacs import FindDialog, SendDialog
from tests.case.builders import listing
from tests.gui.conftest import paint, settle, wait_idle
from tests.pacs.conftest import PASSWORD, pacs, ring, slices  # noqa: F401 - fixtures
from tests.pacs.test_pacs import search


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


def test_a_series_is_found_fetched_labelled_and_its_masks_are_sent_back(
    panel,
    controller,
    finding,
    qtbot,
    pacs,  # noqa: F811
    slices,  # noqa: F811
    ring,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    pacs.asks_for("ann", PASSWORD)
    write(finding.form.address, pacs.url)
    write(finding.form.user, "ann")
    write(finding.form.secret, "wrong")
    click(finding.search_button)
    look(qtbot, controller, finding, "wrong")
    assert "does not accept the user name and password" in finding.work.message.text()
    write(finding.form.secret, PASSWORD)
    finding.form.remember.setChecked(True)
    write(finding.patient, "quastenflosser")
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

    case = controller.session.case
    drawn = np.zeros((case.n_slices, *case.slice_shape(0)), np.uint16)
    drawn[2, 12:20, 14:25] = 1
    paint(controller, drawn, (2,))
    panel.folds["Export"].set_open(True)
    settle()
    click(panel.export.send_button)
    sending = window(panel, SendDialog)
    assert (sending.form.address.text(), sending.form.user.text()) == (pacs.url, "ann")
    assert sending.form.secret.text() == ""  # it comes from the keyring
    sending.kinds[".rtstruct.dcm"].setChecked(True)
    click(sending.send_button)
    look(qtbot, controller, sending, "sent")
    assert sending.work.message.text() == "The PACS stored SEG and RTSTRUCT (2 files) in the study."
    assert panel.export.result.text() == sending.work.message.text()
    found = search(pacs.url, user="ann", secret=PASSWORD).series
    assert sorted(series.modality for series in found) == ["CT", "RTSTRUCT", "SEG"]
    kept = b"".join(path.read_bytes() for path in Path(os.environ["DINOAUGSEG_CACHE"]).rglob("*") if path.is_file())
    assert pacs.url.encode() in kept
    assert PASSWORD.encode() not in kept
    click(sending.close_button)
    settle()


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
