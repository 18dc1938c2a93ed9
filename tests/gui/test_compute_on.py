"""Which machine computes: the choice in the panel, and what a person meets when the scheduler is not there."""

import pytest

from napari_dinoaugseg.cluster import connection
from napari_dinoaugseg.gui import case_section
from napari_dinoaugseg.gui.panel import advice
from tests.gui.conftest import LABELLED, settle, wait_idle
from tests.gui.test_whole_loop import choose_scheduler

NOWHERE = "tcp://127.0.0.1:9"

pytestmark = pytest.mark.shared_window


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(connection, "_TIMEOUT", 0.5)


def test_the_address_is_asked_for_and_said_what_travels(panel, case):
    panel.folds["Case"].set_open(True)
    machine = panel.case.machine
    assert machine.places.currentText() == "this computer"
    assert not machine.address.isVisible()
    machine.places.setCurrentIndex(1)
    machine.places.activated.emit(1)
    assert machine.address.isVisible()
    assert panel.controller.setup.scheduler == ""
    choose_scheduler(panel, "  tcp://gpu-room:8786 ".strip())
    assert "not encrypted" in machine.state.text()
    choose_scheduler(panel, "tls://gpu-room:8786")
    assert "encrypted; names and paths stay here" in machine.state.text()
    assert "worker" in panel.case.encoder.state.text()
    machine.places.setCurrentIndex(0)
    machine.places.activated.emit(0)
    assert panel.controller.setup.scheduler == ""
    assert not machine.address.isVisible()


def test_without_dask_it_is_said_how_to_get_it(panel, case, monkeypatch):
    monkeypatch.setattr(case_section, "is_installed", lambda: False)
    machine = panel.case.machine
    machine.places.setCurrentIndex(1)
    machine.places.activated.emit(1)
    assert 'pip install "napari-dinoaugseg[cluster]"' in machine.state.text()


def test_a_scheduler_that_is_not_there_offers_this_computer(panel, labelled, said, qtbot):
    labelled.setup.change(steps=5, views=1)
    choose_scheduler(panel, NOWHERE)
    panel.head.train_button.click()
    wait_idle(qtbot, labelled)
    assert any("cannot be reached" in sentence for sentence in said)
    assert panel.train.here_button.isVisible()
    assert labelled.session.labels.labelled == list(LABELLED)
    panel.case.machine.places.setCurrentIndex(0)
    panel.case.machine.places.activated.emit(0)
    settle()
    assert "scheduler" not in advice(labelled)
    choose_scheduler(panel, NOWHERE)
    panel.head.train_button.click()
    wait_idle(qtbot, labelled)
    panel.train.here_button.click()
    wait_idle(qtbot, labelled)
    assert labelled.session.device_name == "cpu"
    assert labelled.session.labels.confidence
    assert not panel.train.here_button.isVisible()


def test_the_machine_cannot_be_changed_while_it_computes(panel, labelled, qtbot, said):
    panel.head.train_button.click()
    settle()
    assert not panel.case.machine.isEnabled()
    labelled.setup.use_scheduler(NOWHERE)
    assert labelled.setup.scheduler == ""
    assert any("Press Stop first" in sentence for sentence in said)
    labelled.jobs.stop()
    wait_idle(qtbot, labelled)


def test_a_case_that_was_left_tells_nothing_of_its_scheduler(panel, labelled, said, qtbot, monkeypatch):
    monkeypatch.setattr(connection, "_TIMEOUT", 1.5)
    choose_scheduler(panel, NOWHERE)
    panel.head.train_button.click()
    labelled.cases.close()
    wait_idle(qtbot, labelled)
    assert not any("cannot be reached" in sentence for sentence in said)
    assert labelled.jobs.interrupted == ""
