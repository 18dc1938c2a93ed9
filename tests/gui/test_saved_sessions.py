"""What is saved by itself, what is offered when a case is opened again, and what another window may not touch."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dinoaugseg.case import Plane
from napari_dinoaugseg.gui.saving import describe
from napari_dinoaugseg.session.labels import UNKNOWN, Status
from napari_dinoaugseg.session.store import SessionStore, default_sessions_folder, saved_sessions
from tests.gui.conftest import LABELLED, SMALL, errors_of, settle, train, wait_idle
from tests.gui.test_painting import stroke

PROMISED = 2.0  # seconds: what a crash may cost
PATIENT = 20_000  # ms: a busy machine is slow

pytestmark = [pytest.mark.slow, pytest.mark.shared_window]  # slow: the tests wait for the disk, as a person does


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


@pytest.fixture
def another(make_napari_viewer, qtbot):
    """Opens a further viewer with the panel; all are disposed of at the end."""
    from napari_dinoaugseg.gui.panel import Panel

    made = []

    def make():
        viewer = make_napari_viewer(show=True)
        panel = Panel(viewer)
        viewer.window.add_dock_widget(panel, name="DINO-AugSeg")
        panel.controller.setup.change(**SMALL)
        panel.controller.setup.use_device("cpu")
        made.append(panel)
        return panel

    yield make
    for panel in made:
        panel.controller.dispose()
        wait_idle(qtbot, panel.controller)


def on_disk(case):
    """The sessions of a case on disk, the newest first."""
    return saved_sessions(case.fingerprint)


def content(case, saved):
    """What a saved session holds, read as another program would."""
    store = SessionStore(saved.folder, case)
    try:
        return store.load()[0]
    finally:
        store.close()


def come_back(controller, path, qtbot, plane="axial"):
    """Leave the case and open it again in the same window; returns its saved sessions."""
    case = controller.session.case
    controller.cases.open_path(path, plane=plane)
    wait_idle(qtbot, controller)
    return on_disk(case)


def reopen(panel, path, qtbot, **options):
    """Open a case in another panel, as a person does; returns its controller."""
    panel.controller.cases.open_path(path, **options)
    wait_idle(qtbot, panel.controller)
    return panel.controller


def go_on(panel, qtbot):
    """Press "Continue"."""
    panel.resume.go_on_button.click()
    wait_idle(qtbot, panel.controller)
    return panel.controller


# --- saving by itself -----------------------------------------------------------------------------------------------


def test_a_stroke_is_on_disk_within_two_seconds(controller, case, panel, qtbot, monkeypatch):
    """By the waits that the program chooses: how long the machine takes for the rest is not ours to promise."""
    waits = {"read": [0], "saved": [0]}  # ms
    for name, timer in (("read", controller.layers.painting._timer), ("saved", controller.saving._timer)):
        start = timer.start
        monkeypatch.setattr(timer, "start", lambda ms, n=name, start=start: (waits[n].append(ms), start(ms)))
    controller.view.go_to(8)
    qtbot.waitUntil(lambda: not controller.saving._timer.isActive(), timeout=PATIENT)
    for wait in waits.values():
        wait.clear()
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: [s.n_manual for s in on_disk(case)] == [1], timeout=PATIENT)
    assert waits["read"], "the stroke is read by itself"
    assert waits["saved"], "and saved by itself"
    assert max(waits["read"]) + max(waits["saved"]) <= 1000 * PROMISED / 2, "the other half is for the disk"
    saved = content(case, on_disk(case)[0])
    assert np.array_equal(saved.book.layers["manual"][8], controller.session.labels.manual(8))
    qtbot.waitUntil(lambda: panel.saved.text().startswith("Saved "), timeout=PATIENT)


def test_a_stroke_that_does_not_end_is_saved_too(controller, case, monkeypatch, qtbot):
    from napari_dinoaugseg.gui import painting

    monkeypatch.setattr(painting, "_SETTLE", 10**6)  # no pause ends it
    layer, began, column = controller.layers.manual, time.monotonic(), 0
    while not on_disk(case):
        layer.paint((8, 10, 5 + column % 30), 1)
        column += 1
        qtbot.wait(10)
        assert time.monotonic() - began < PATIENT / 1000


def test_a_case_that_was_only_looked_at_leaves_nothing_behind(controller, case, qtbot):
    controller.view.go_to(3)
    controller.labels.rename_class(1, "liver")
    controller.setup.change(steps=7)
    qtbot.wait(700)
    controller.cases.close()
    assert not default_sessions_folder().exists() or not any(default_sessions_folder().iterdir())


def test_training_and_export_find_the_strokes_on_disk(controller, case, truth, tmp_path, qtbot, export):
    found = []
    controller.progressed.connect(lambda _: found.extend(on_disk(case)))
    layer = controller.layers.manual
    layer.data[8][:] = truth[8]
    controller.jobs.train()
    qtbot.waitUntil(lambda: bool(found), timeout=PATIENT)
    assert found[0].n_manual == 1
    controller.jobs.stop()
    wait_idle(qtbot, controller)
    layer.paint((5, 10, 10), 1)
    export(tmp_path / "mask.nii.gz")
    assert on_disk(case)[0].n_manual == 2


def test_the_last_strokes_are_written_when_another_case_is_opened(controller, case, tmp_path, qtbot):
    from tests.blobs import write_case

    controller.layers.manual.paint((8, 10, 10), 1)
    other, _ = write_case(tmp_path, seed=1)
    controller.cases.open_path(other, background=False)
    assert on_disk(case)[0].n_manual == 1
    assert controller.sessions.offers == []


@pytest.mark.parametrize("way", ["viewer", "quit"])
def test_the_last_strokes_are_written_when_the_window_closes(another, blob_files, qtbot, way):
    from qtpy.QtCore import QCoreApplication

    controller = reopen(another(), blob_files[0], qtbot, plane="axial")
    case = controller.session.case
    controller.layers.manual.paint((9, 10, 10), 1)
    if way == "viewer":
        controller.viewer.close()
        qtbot.waitUntil(lambda: controller.closed, timeout=PATIENT)
    else:
        QCoreApplication.instance().aboutToQuit.emit()
    again = reopen(another(), blob_files[0], qtbot, plane="axial")
    assert [saved.n_manual for saved in again.sessions.offers] == [1]
    assert content(case, on_disk(case)[0]).book.layers["manual"][9][10, 10] == 1


# --- going on -------------------------------------------------------------------------------------------------------


def test_going_on_brings_everything_back(labelled, panel, another, blob_files, truth, qtbot):
    first = labelled
    first.setup.change(steps=20, views=1)
    first.labels.rename_class(1, "liver")
    first.labels.recolour_class(3, "#123456")
    train(qtbot, first)
    first.labels.accept(2)
    first.labels.reject(3)
    first.labels.set_scribbles(True)
    first.layers.manual.paint((6, 10, 10), 3)
    first.labels.select_class(3)
    first.view.go_to(6)
    first.flush()
    before = first.session.snapshot()
    masks = {i: first.session.labels.result(i).copy() for i in range(16)}
    first.dispose()

    panel = another()
    second = reopen(panel, blob_files[0], qtbot, plane="axial")
    assert panel.resume.isVisible()
    assert "4 slices by hand, 1 accepted" in panel.resume.text.text()
    assert "1 training" in panel.resume.text.text()
    settle()
    assert panel.advice.text().startswith("Continue with your labels, or start over")
    go_on(panel, qtbot)
    after = second.session.snapshot()
    assert not panel.resume.isVisible()
    assert after.book.classes == before.book.classes
    assert after.settings == before.settings
    assert after.history == before.history
    for layer in ("manual", "accepted", "predicted"):
        assert after.book.layers[layer].keys() == before.book.layers[layer].keys()
        for index, labels in before.book.layers[layer].items():
            assert np.array_equal(after.book.layers[layer][index], labels)
    assert (second.current_slice, second.labels.selected_class, second.labels.scribbles) == (6, 3, True)
    assert panel.label.scribbles.isChecked()
    assert np.array_equal(second.layers.manual.data[8], truth[8])
    assert [layer.name for layer in second.viewer.layers] == ["image0", "prediction", "manual"]
    second.flush()  # what the layers show is what the book holds: nothing changes by looking
    assert second.session.labels.status(2) is Status.ACCEPTED
    assert (second.session.labels.manual(6) == UNKNOWN).any()
    # The decoder is there: it predicts without training, and the same.
    second.labels.reject(5)
    panel.train.predict_button.click()
    wait_idle(qtbot, second)
    assert np.array_equal(second.session.labels.predicted(5), masks[5])
    assert len(second.session.history) == 1
    train(qtbot, second)
    assert second.session.history[1].steps < second.session.history[0].steps  # it went on


def test_starting_over_leaves_the_old_session_and_offers_it_again(labelled, panel, blob_files, qtbot):
    controller = labelled
    (old,) = come_back(controller, blob_files[0], qtbot)
    panel.resume.start_over_button.click()
    settle()
    assert not panel.resume.isVisible()
    assert controller.session.labels.labelled == []
    controller.layers.manual.paint((1, 10, 10), 1)
    sessions = come_back(controller, blob_files[0], qtbot)
    assert [saved.n_manual for saved in sessions] == [1, 3]
    assert sessions[1] == old
    assert panel.resume.choice.count() == 2
    panel.resume.choice.setCurrentIndex(1)
    assert "3 slices by hand" in panel.resume.text.text()
    assert go_on(panel, qtbot).session.labels.labelled == list(LABELLED)


def test_a_case_that_is_opened_again_offers_what_was_just_painted(controller, case, blob_files, panel):
    controller.layers.manual.paint((1, 10, 10), 1)
    controller.cases.open_path(blob_files[0], background=False, plane="axial")
    settle()
    assert "1 slice by hand" in panel.resume.text.text()
    assert not panel.export.mask_button.isEnabled()  # a mask without them is not what is wanted
    failed = errors_of(controller)
    panel.head.train_button.click()
    assert failed == ["Your saved labels are not in view yet. Press Continue to train on them, or Start over."]
    panel.resume.start_over_button.click()
    settle()
    assert panel.export.mask_button.isEnabled()


def test_what_was_painted_before_going_on_is_saved_as_a_session_of_its_own(labelled, panel, blob_files, qtbot):
    controller = labelled
    come_back(controller, blob_files[0], qtbot)
    controller.layers.manual.paint((1, 10, 10), 1)
    panel.resume.go_on_button.click()
    assert controller.jobs.busy
    controller.layers.manual.paint((2, 10, 10), 1)  # while the labels are read
    wait_idle(qtbot, controller)
    case = controller.session.case
    assert controller.session.labels.labelled == list(LABELLED)
    assert sorted(saved.n_manual for saved in on_disk(case)) == [2, 3]
    assert [layer.name for layer in controller.viewer.layers][1:] == ["prediction", "manual"]
    controller.layers.manual.paint((1, 20, 20), 1)
    controller.saving.secure()
    assert sorted(saved.n_manual for saved in on_disk(case)) == [2, 4]


@pytest.mark.parametrize("plane", ["coronal", "native"])
def test_a_session_of_another_plane_is_opened_in_its_plane(
    controller, case, panel, blob_files, plane, tmp_path, qtbot, export
):
    import nibabel as nib

    controller.cases.open_path(blob_files[0], background=False, plane=plane)
    slices = np.moveaxis(controller.layers.manual.data, controller.layers.axis, 0)
    slices[7, 3:9, 5:12] = 1
    controller.layers.manual.refresh()
    export(tmp_path / "before.nii.gz")
    come_back(controller, blob_files[0], qtbot)
    assert controller.session.case.plane is Plane.AXIAL
    go_on(panel, qtbot)
    assert controller.session.case.plane == plane
    assert controller.session.labels.labelled == [7]
    assert np.array_equal(controller.layers.image.data, controller.session.case.display)
    assert len(controller.viewer.layers) == 3
    export(tmp_path / "after.nii.gz")
    before, after = nib.load(tmp_path / "before.nii.gz"), nib.load(tmp_path / "after.nii.gz")
    assert np.asarray(before.dataobj).any()
    assert np.array_equal(before.dataobj, after.dataobj)
    assert np.array_equal(before.affine, after.affine)


def test_an_image_layer_is_found_again_in_the_background(controller, case, panel, qtbot):
    from tests.blobs import image_voxels

    image = controller.viewer.add_image(np.moveaxis(image_voxels(), 2, 0), scale=(4, 1.2, 1.1))
    controller.cases.use_layer(image)
    controller.layers.manual.paint((8, 10, 10), 1)
    controller.cases.use_layer(image)
    qtbot.waitUntil(panel.resume.isVisible, timeout=PATIENT)
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == [8]
    assert image in controller.viewer.layers


def test_damaged_parts_are_listed_until_they_are_read(labelled, panel, blob_files, qtbot):
    controller = labelled
    (saved,) = come_back(controller, blob_files[0], qtbot)
    for file in (saved.folder / "slices").glob("*_manual_*"):
        if file.name.startswith(("00004", "00008")):
            file.write_bytes(b"rubbish")
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == [11]
    shown = panel.resume.problems.toPlainText().splitlines()
    assert len(shown) == 2
    assert shown[0].startswith("Slice 5:")  # counted from 1 in the window
    assert shown[1].startswith("Slice 9:")
    assert panel.resume.isVisible()
    panel.resume.read_button.click()
    settle()
    assert not panel.resume.isVisible()


def test_a_session_of_a_newer_version_is_left_as_it_is(labelled, panel, blob_files, qtbot):
    controller = labelled
    controller.saving.secure()
    index = on_disk(controller.session.case)[0].folder / "session.json"
    controller.cases.close()
    index.write_text(json.dumps({**json.loads(index.read_text()), "schema": 99}))
    before = index.read_bytes()
    reopen(panel, blob_files[0], qtbot, plane="axial")
    assert "newer version" in panel.resume.text.text()
    go_on(panel, qtbot)
    assert "newer version" in panel.message.text()
    assert controller.session.labels.labelled == []
    controller.layers.manual.paint((1, 10, 10), 1)
    controller.saving.secure()
    assert index.read_bytes() == before
    assert sorted(saved.n_manual for saved in on_disk(controller.session.case)) == [0, 1]


def test_what_a_stranger_wrote_into_the_view_breaks_nothing(labelled, panel, blob_files, qtbot):
    controller = labelled
    (saved,) = come_back(controller, blob_files[0], qtbot)
    store = SessionStore(saved.folder, controller.session.case)
    strange = {"slice": 10**9, "class": [], "scribbles": {}, "zoom": "x", "centre": [1e300, None, 2]}
    store.save(replace(store.load()[0], view=strange))
    store.close()
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == list(LABELLED)
    assert controller.current_slice == 15


# --- two windows ----------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(labelled, panel, blob_files, qtbot):
    """The session is open in another window, which holds its lock; here it is looked at."""
    (saved,) = come_back(labelled, blob_files[0], qtbot)
    store = SessionStore(saved.folder, labelled.session.case)
    assert store.is_writable
    go_on(panel, qtbot)
    yield store
    store.close()


def test_the_second_window_looks_and_does_not_touch(labelled, elsewhere, panel, truth, tmp_path, qtbot, export):
    controller = labelled
    assert "another window" in panel.resume.text.text()
    assert controller.session.labels.labelled == list(LABELLED)
    assert panel.export.mask_button.isEnabled()
    assert np.array_equal(controller.layers.manual.data[8], truth[8])
    before = {i: controller.layers.manual.data[i].copy() for i in range(16)}
    files = {path: path.read_bytes() for path in on_disk(controller.session.case)[0].folder.rglob("*.*")}

    controller.view.go_to(8)
    panel.label.paint_button.click()
    stroke(qtbot, controller.viewer)
    controller.layers.manual.paint((8, 3, 3), 1)  # a script
    qtbot.waitUntil(lambda: controller.layers.manual.data[8, 3, 3] == before[8][3, 3], timeout=PATIENT)
    controller.layers.manual.data[9] = 1
    controller.layers.manual.refresh()
    controller.flush()
    said = errors_of(controller)
    for action in (
        controller.jobs.train,
        controller.jobs.predict,
        lambda: controller.labels.mark_empty(1),
        lambda: controller.labels.clear(8),
        lambda: controller.labels.accept(1),
        controller.labels.fill_between,
        controller.labels.add_class,
        lambda: controller.labels.rename_class(1, "other"),
        lambda: controller.labels.remove_class(1, erase=True),
        lambda: controller.jobs.load_model(tmp_path / "model.safetensors"),
        lambda: controller.jobs.load_labels(tmp_path / "labels.nii.gz"),
    ):
        said.clear()
        action()
        assert not controller.jobs.busy
        assert len(said) == 1
        assert "another window" in said[0]
    controller.layers.undo()
    assert all(np.array_equal(controller.layers.manual.data[i], before[i]) for i in range(16))
    assert controller.session.labels.labelled == list(LABELLED)
    assert [entry.number for entry in controller.session.labels.classes] == [1, 3]
    export(tmp_path / "mask.nii.gz")
    assert (tmp_path / "mask.nii.gz").exists()
    controller.view.go_to(2)
    assert controller.current_slice == 2
    qtbot.wait(700)
    assert files == {path: path.read_bytes() for path in on_disk(controller.session.case)[0].folder.rglob("*.*")}
    assert "Only looking" in panel.saved.text()
    for widget in (panel.label.clear_button, panel.label.load_button, panel.label.erase_button):
        assert not widget.isEnabled()
    assert not panel.head.train_button.isEnabled()
    assert panel.advice.text().startswith("Look at these labels")


def test_trying_again_takes_the_session_over_as_the_other_window_left_it(labelled, elsewhere, panel, qtbot):
    controller = labelled
    panel.resume.again_button.click()
    wait_idle(qtbot, controller)
    assert controller.read_only
    assert "another window" in panel.message.text()
    left = elsewhere.load()[0]
    layers = {**left.book.layers, "manual": {4: left.book.layers["manual"][4]}}
    elsewhere.save(replace(left, book=replace(left.book, layers=layers)))
    elsewhere.close()
    panel.resume.again_button.click()
    wait_idle(qtbot, controller)
    assert not controller.read_only
    assert not panel.resume.isVisible()
    assert controller.session.labels.labelled == [4]
    qtbot.waitUntil(panel.head.train_button.isEnabled, timeout=PATIENT)
    controller.view.go_to(12)
    panel.label.paint_button.click()
    stroke(qtbot, controller.viewer)
    controller.saving.secure()
    assert on_disk(controller.session.case)[0].n_manual == 2


def test_a_visit_to_look_leaves_what_can_be_undone_for_later(labelled, elsewhere, panel, qtbot):
    assert labelled.read_only
    elsewhere.close()
    panel.resume.again_button.click()
    wait_idle(qtbot, labelled)
    assert not labelled.read_only
    assert labelled.session.labels.labelled == list(LABELLED)
    QTest.keyClick(labelled.viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: labelled.session.labels.labelled != list(LABELLED), timeout=PATIENT)


def test_two_windows_of_one_case_have_a_session_each(labelled, another, blob_files, qtbot):
    labelled.saving.secure()
    panel = another()
    controller = reopen(panel, blob_files[0], qtbot, plane="axial")
    go_on(panel, qtbot)
    assert controller.read_only
    panel.resume.start_over_button.click()
    assert not controller.read_only
    assert controller.session.labels.labelled == []
    controller.layers.manual.paint((1, 10, 10), 1)
    controller.saving.secure()
    assert sorted(saved.n_manual for saved in on_disk(controller.session.case)) == [1, 3]
    assert labelled.session.labels.labelled == list(LABELLED)


def test_a_folder_that_cannot_be_locked_is_only_looked_at(labelled, panel, blob_files, monkeypatch, qtbot):
    from filelock import BaseFileLock

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    come_back(labelled, blob_files[0], qtbot)
    monkeypatch.setattr(BaseFileLock, "acquire", refuse)
    go_on(panel, qtbot)
    assert os.strerror(errno.EROFS) in panel.resume.text.text()
    assert labelled.session.labels.labelled == list(LABELLED)
    assert not labelled.layers.manual.editable


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    """A disk that can be full: fill it with full.append(True), free it with full.clear()."""
    from napari_dinoaugseg import disk
    from napari_dinoaugseg.session import autosave

    state = []
    write = disk.write

    def refusing(path, data, **options):
        if state:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data, **options)

    monkeypatch.setattr(disk, "write", refusing)
    monkeypatch.setattr(autosave, "_RETRY", 0.1)
    return state


def test_a_full_disk_is_said_once_and_painting_goes_on(controller, case, panel, said, full, qtbot):
    full.append(True)
    controller.layers.manual.paint((1, 10, 10), 1)
    qtbot.waitUntil(lambda: "Not saved: No space left" in panel.saved.text(), timeout=PATIENT)
    controller.layers.manual.paint((2, 10, 10), 1)
    qtbot.wait(900)  # several tries
    assert len([text for text in said if "could not be saved" in text]) == 1
    assert "Not saved" in panel.saved.text()
    full.clear()
    qtbot.waitUntil(lambda: panel.saved.text().startswith("Saved "), timeout=PATIENT)
    assert any("Saved again" in text for text in said)
    assert on_disk(case)[0].n_manual == 2
    full.append(True)
    controller.layers.manual.paint((3, 10, 10), 1)
    qtbot.waitUntil(lambda: len([text for text in said if "could not be saved" in text]) == 2, timeout=PATIENT)
    full.clear()


def test_nothing_is_switched_while_the_disk_refuses(labelled, panel, blob_files, full, qtbot):
    controller = labelled
    come_back(controller, blob_files[0], qtbot)
    full.append(True)
    controller.layers.manual.paint((1, 10, 10), 1)
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == [1]
    assert panel.resume.isVisible()
    full.clear()
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == list(LABELLED)


def test_labels_that_cannot_be_saved_at_the_end_are_said_and_stay_in_the_viewer(
    controller, case, said, full, tmp_path, qtbot
):
    from tests.blobs import write_case

    full.append(True)
    controller.layers.manual.paint((1, 10, 10), 1)
    other, _ = write_case(tmp_path, seed=1)
    controller.cases.open_path(other, background=False)
    assert any("last labels are not on disk" in text and "No space left" in text for text in said)
    assert controller.viewer.layers["image0: labels, not saved"].data[1, 10, 10] == 1


def test_a_folder_that_cannot_be_made_is_tried_again(controller, case, panel, said, tmp_path, monkeypatch, qtbot):
    from napari_dinoaugseg.gui import saving

    monkeypatch.setattr(saving, "_RETRY", 100)
    monkeypatch.setenv("DINOAUGSEG_SESSIONS", str(tmp_path / "no" / "folder"))
    (tmp_path / "no").write_text("a file")
    controller.layers.manual.paint((1, 10, 10), 1)
    qtbot.waitUntil(lambda: "Not saved" in panel.saved.text(), timeout=PATIENT)
    qtbot.wait(400)
    assert len([text for text in said if "no session can be saved there" in text]) == 1
    (tmp_path / "no").unlink()
    qtbot.waitUntil(lambda: panel.saved.text().startswith("Saved "), timeout=PATIENT)
    assert on_disk(case)[0].n_manual == 1


def test_a_folder_that_was_taken_away_is_made_again_with_everything(labelled, panel, qtbot):
    case = labelled.session.case
    labelled.saving.secure()
    shutil.rmtree(on_disk(case)[0].folder)
    labelled.layers.manual.paint((1, 10, 10), 1)
    labelled.saving.secure()
    assert on_disk(case)[0].n_manual == 4


def test_another_folder_in_the_preferences_helps_at_once(labelled, panel, full, tmp_path, monkeypatch, qtbot):
    from napari_dinoaugseg.gui import saving
    from napari_dinoaugseg.gui.setup import Preferences

    case = labelled.session.case
    labelled.setup.change(steps=5, views=1)
    train(qtbot, labelled)
    full.append(True)
    labelled.layers.manual.paint((1, 10, 10), 1)
    qtbot.waitUntil(lambda: "Not saved" in panel.saved.text(), timeout=PATIENT)
    monkeypatch.setattr(saving, "preferences", lambda: Preferences(sessions=str(tmp_path / "elsewhere")))
    qtbot.wait(300)
    full.clear()
    qtbot.waitUntil(lambda: bool(saved_sessions(case.fingerprint, tmp_path / "elsewhere")), timeout=PATIENT)
    labelled.saving.secure()
    (moved,) = saved_sessions(case.fingerprint, tmp_path / "elsewhere")
    assert (moved.n_manual, moved.rounds) == (4, 1)
    assert content(case, moved).model is not None


def test_a_sentence_says_what_a_session_holds(labelled):
    labelled.saving.secure()
    (saved,) = on_disk(labelled.session.case)
    assert describe(saved).endswith("(axial): 3 slices by hand.")
    assert describe(saved, "picture").endswith("3 pictures by hand.")
    assert f"{saved.saved:%Y, %H:%M}" in describe(saved)


def test_the_plane_of_a_layer_that_we_read_changes_without_losing_its_geometry(
    controller, blob_files, tmp_path, export
):
    import nibabel as nib

    from napari_dinoaugseg.hooks import get_volume_reader

    data, options, _ = get_volume_reader(str(blob_files[0]))(str(blob_files[0]))[0]
    controller.cases.use_layer(controller.viewer.add_image(data, **options))
    controller.cases.change_plane(Plane.SAGITTAL)
    controller.layers.manual.paint((3, 10, 20), 1)
    export(tmp_path / "mask.nii.gz")
    assert np.array_equal(nib.load(tmp_path / "mask.nii.gz").affine, nib.load(blob_files[0]).affine)
