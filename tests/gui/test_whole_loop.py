"""The whole loop on the brain sample, through the widgets, as a person goes through it: here, and on a worker."""

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case.array import CLASS_NAMES, LABELLED_SLICES, brain_sample
from napari_dinoaugseg.session.labels import Status
from tests.cluster.schedulers import running_scheduler
from tests.gui.conftest import dice, paint, settle, wait_idle
from tests.gui.test_painting import stroke


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_the_sample_to_an_exported_mask(panel, qtbot, tmp_path, export):
    go_through(panel, qtbot, tmp_path, export, train_again=lambda: panel.head.train_button.click())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_on_a_worker_whose_scheduler_is_killed_in_the_second_training(panel, qtbot, tmp_path, export):
    controller = panel.controller
    with running_scheduler(tmp_path, "--nthreads", 1, "--no-nanny", OMP_NUM_THREADS="1") as running:

        def kill(event) -> None:
            if event.stage == "train":
                running.scheduler.kill()

        def train_again() -> None:
            assert controller.session.device_name == "cpu (dask worker)"
            assert not panel.train.here_button.isVisible()
            controller.progressed.connect(kill)
            panel.head.train_button.click()
            wait_idle(qtbot, controller)
            controller.progressed.disconnect(kill)
            assert set(LABELLED_SLICES) < set(controller.session.labels.labelled)
            settle()
            assert "Continue on this computer" in panel.advice.text()
            assert panel.train.here_button.isVisible()
            panel.train.here_button.click()
            assert controller.setup.scheduler == ""
            settle()
            assert not panel.train.here_button.isVisible()

        choose_scheduler(panel, running.address)
        # How good the masks are, the test above says at the size of the preset.
        small = {"steps": 80, "views": 1, "input_size": 64}
        go_through(panel, qtbot, tmp_path, export, train_again, small, at_least=0.5)
    assert controller.session.device_name == "cpu"


def choose_scheduler(panel, address: str) -> None:
    machine = panel.case.machine
    machine.places.setCurrentIndex(1)
    machine.places.activated.emit(1)
    machine.address.setText(address)
    machine.address.editingFinished.emit()
    assert panel.controller.setup.scheduler == address
    settle()


def go_through(panel, qtbot, tmp_path, export, train_again, settings=None, at_least=0.88) -> None:
    """Open the sample, paint, train, correct and accept, train again, export."""
    controller = panel.controller
    controller.setup.change(encoder="efficientnet-lite0")
    controller.setup.use_preset("fast")
    controller.setup.change(**settings or {"steps": 100, "views": 3})
    controller.setup.use_device("cpu")
    panel.case.sample_button.click()
    # Its classes come after it.
    qtbot.waitUntil(lambda: panel.classes.table.rowCount() == len(CLASS_NAMES), timeout=60_000)
    sample = brain_sample()
    truth = controller.session.case.to_slices(np.asarray(sample.tissue.dataobj))
    assert [entry.name for entry in controller.session.labels.classes] == list(CLASS_NAMES.values())

    controller.view.go_to(LABELLED_SLICES[0])
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [LABELLED_SLICES[0]], timeout=10_000)
    paint(controller, truth, LABELLED_SLICES)
    assert controller.session.labels.labelled == list(LABELLED_SLICES)

    controller.view.go_to(72)
    panel.head.train_button.click()
    wait_idle(qtbot, controller, 400_000)
    book = controller.session.labels
    left = [i for i in range(140) if i not in LABELLED_SLICES]
    found = np.stack([book.result(i) for i in left])
    assert all(dice(found == number, truth[left] == number) >= at_least for number in (1, 2))

    panel.label.suggested_button.click()
    settle()
    suggested = controller.current_slice
    assert book.status(suggested) is Status.PREDICTED
    panel.review.correct_button.click()
    paint(controller, truth, [suggested])
    accepted = next(i for i in range(80, 140) if book.status(i) is Status.PREDICTED)
    controller.view.go_to(accepted)
    qtbot.waitUntil(panel.review.accept_button.isEnabled, timeout=10_000)
    panel.review.accept_button.click()
    assert book.status(accepted) is Status.ACCEPTED

    train_again()
    wait_idle(qtbot, controller, 400_000)
    first, second = controller.session.history
    assert second.steps < first.steps
    assert second.agreement is not None

    out = tmp_path / "mask.nii.gz"
    export(out)
    mask = nib.load(out)
    assert mask.shape == sample.image.shape
    assert np.allclose(mask.affine, sample.image.affine)
    exported = controller.session.case.to_slices(np.asarray(mask.dataobj))
    for index in (*LABELLED_SLICES, suggested):
        assert np.array_equal(exported[index], truth[index])
