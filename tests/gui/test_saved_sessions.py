"""What is saved by itself, what is offered when a study is opened again, and what another window may not touch."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.gui.session_actions import describe
from napari_dinoaugseg.session.labels import UNKNOWN, Status
from napari_dinoaugseg.session.places import default_sessions_folder, saved_sessions
from napari_dinoaugseg.session.store import SessionStore
from napari_dinoaugseg.study import Plane
from tests.gui.conftest import LABELLED, SMALL, train, wait_idle
from tests.gui.test_painting import stroke

SOON = 2000  # ms: what a crash may cost
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def another(make_napari_viewer, qtbot):
    """Opens a further viewer with the panel; all are disposed of at the end."""
    from napari_dinoaugseg.gui.panel import Panel

    made = []

    def make():
        viewer = make_napari_viewer(show=True)
        panel = Panel(viewer)
        viewer.window.add_dock_widget(panel, name="DINO-AugSeg")
        panel.controller.change_settings(**SMALL)
        panel.controller.use_device("cpu")
        made.append(panel)
        return panel

    yield make
    for panel in made:
        panel.controller.dispose()
        wait_idle(qtbot, panel.controller)


def on_disk(study):
    """The sessions of a study on disk, the newest first."""
    return saved_sessions(study.fingerprint)


def content(study, saved):
    """What a saved session holds, read as another program would."""
    store = SessionStore(saved.folder, study)
    try:
        return store.load()[0]
    finally:
        store.close()


def reopen(panel, path, qtbot, **options):
    """Open a study in another panel, as a person does; returns its controller."""
    panel.controller.open_path(path, **options)
    wait_idle(qtbot, panel.controller)
    return panel.controller


def go_on(panel, qtbot):
    """Press "Go on"."""
    panel.resume.go_on_button.click()
    wait_idle(qtbot, panel.controller)
    return panel.controller


# --- saving by itself -----------------------------------------------------------------------------------------------


def test_a_stroke_is_on_disk_within_two_seconds(controller, study, panel, qtbot):
    controller.go_to(8)
    began = time.monotonic()
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: bool(on_disk(study)), timeout=SOON)
    assert time.monotonic() - began < SOON / 1000
    saved = content(study, on_disk(study)[0])
    assert np.array_equal(saved.book.layers["manual"][8], controller.session.labels.manual(8))
    assert saved.view["slice"] == 8
    qtbot.waitUntil(lambda: panel.saved.text().startswith("Saved "), timeout=SOON)


def test_a_stroke_that_does_not_end_is_saved_too(controller, study, qtbot):
    layer, began = controller.layers.manual, time.monotonic()
    column = 0
    while time.monotonic() - began < SOON / 1000 and not on_disk(study):
        layer.paint((8, 10, 5 + column % 30), 1)  # with pauses shorter than those that end a stroke
        column += 1
        qtbot.wait(20)
    assert len(on_disk(study)) == 1


def test_a_study_that_was_only_looked_at_leaves_nothing_behind(controller, study, qtbot):
    controller.go_to(3)
    controller.rename_class(1, "liver")
    controller.change_settings(steps=7)
    qtbot.wait(700)
    controller.close_study()
    assert not default_sessions_folder().exists() or not any(default_sessions_folder().iterdir())


def test_training_and_export_find_the_strokes_on_disk(controller, study, truth, tmp_path, qtbot):
    layer = controller.layers.manual
    layer.data[8][:] = truth[8]
    controller.train()
    assert on_disk(study)[0].n_manual == 1
    controller.stop()
    wait_idle(qtbot, controller)
    layer.paint((5, 10, 10), 1)
    controller.export(tmp_path / "mask.nii.gz")
    assert on_disk(study)[0].n_manual == 2


def test_the_last_strokes_are_written_when_another_study_is_opened(controller, study, tmp_path, qtbot):
    from tests.blobs import write_study

    controller.layers.manual.paint((8, 10, 10), 1)
    other, _ = write_study(tmp_path, seed=1)
    controller.open_path(other, background=False)
    assert on_disk(study)[0].n_manual == 1
    assert controller.sessions.offers == []


@pytest.mark.parametrize("way", ["viewer", "dispose", "quit"])
def test_the_last_strokes_are_written_when_the_window_closes(another, blob_files, qtbot, way):
    from qtpy.QtCore import QCoreApplication

    controller = reopen(another(), blob_files[0], qtbot, plane="axial")
    study = controller.session.study
    controller.layers.manual.paint((9, 10, 10), 1)
    if way == "viewer":
        controller.viewer.close()
        qtbot.waitUntil(lambda: controller.closed, timeout=SOON)
    elif way == "dispose":
        controller.dispose()
    else:
        QCoreApplication.instance().aboutToQuit.emit()
    again = reopen(another(), blob_files[0], qtbot, plane="axial")
    assert [saved.n_manual for saved in again.sessions.offers] == [1]
    assert content(study, on_disk(study)[0]).book.layers["manual"][9][10, 10] == 1


# --- going on -------------------------------------------------------------------------------------------------------

KILLED = """
import os, sys
import napari
from qtpy.QtWidgets import QApplication
from napari_dinoaugseg.gui.panel import Panel
viewer = napari.Viewer()
panel = Panel(viewer)
controller = panel.controller
controller.open_path(sys.argv[1], background=False, plane="axial")
for index in (4, 8):
    controller.layers.manual.paint((index, 10 + index, 20), 1)
while not panel.saved.text().startswith("Saved "):
    QApplication.processEvents()
print("saved", flush=True)
while True:
    QApplication.processEvents()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_paint_survives_a_killed_program(another, blob_files, qtbot):
    command = [sys.executable, "-c", KILLED, str(blob_files[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as program:
        assert any(line.strip() == "saved" for line in program.stdout)  # napari has words of its own
        program.send_signal(signal.SIGKILL)
        program.wait(10)
    panel = another()
    controller = reopen(panel, blob_files[0], qtbot, plane="axial")
    assert "2 slices by hand" in panel.resume.text.text()
    go_on(panel, qtbot)
    assert not controller.read_only
    expected = np.zeros(controller.layers.manual.data.shape, bool)
    book = controller.session.labels
    assert book.labelled == [4, 8]
    for index in (4, 8):
        expected[index] = book.manual(index) == 1
        assert book.manual(index)[10 + index, 20] == 1
        assert expected[index].sum() > 20
    assert np.array_equal(controller.layers.manual.data == 1, expected)


def test_going_on_brings_everything_back(labelled, panel, another, blob_files, truth, qtbot):
    first = labelled
    first.change_settings(steps=20, views=1)
    first.rename_class(1, "liver")
    first.recolour_class(3, "#123456")
    train(qtbot, first)
    first.accept(2)
    first.reject(3)
    first.set_scribbles(True)
    first.layers.manual.paint((6, 10, 10), 3)
    first.select_class(3)
    first.go_to(6)
    first.flush()
    before = first.session.snapshot()
    masks = {i: first.session.labels.result(i).copy() for i in range(16)}
    first.dispose()

    panel = another()
    second = reopen(panel, blob_files[0], qtbot, plane="axial")
    assert panel.resume.isVisible()
    assert "4 slices by hand, 1 accepted" in panel.resume.text.text()
    assert "1 training" in panel.resume.text.text()
    assert second.advice.startswith("Go on with your labels, or start anew")
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
    assert (second.current_slice, second.selected_class, second.scribbles) == (6, 3, True)
    assert panel.label.scribbles.isChecked()
    assert np.array_equal(second.layers.manual.data[8], truth[8])
    assert [layer.name for layer in second.viewer.layers] == ["image0", "prediction", "manual"]
    second.flush()  # what the layers show is what the book holds: nothing changes by looking
    assert second.session.labels.status(2) is Status.ACCEPTED
    assert (second.session.labels.manual(6) == UNKNOWN).any()
    # The decoder is there: it predicts without training, and the same.
    second.reject(5)
    panel.train.predict_button.click()
    wait_idle(qtbot, second)
    assert np.array_equal(second.session.labels.predicted(5), masks[5])
    assert len(second.session.history) == 1
    train(qtbot, second)
    assert second.session.history[1].steps < second.session.history[0].steps  # it went on


def test_starting_anew_leaves_the_old_session_and_offers_it_again(labelled, another, blob_files, qtbot):
    study = labelled.session.study
    labelled.dispose()
    panel = another()
    controller = reopen(panel, blob_files[0], qtbot, plane="axial")
    old = on_disk(study)[0]
    panel.resume.anew_button.click()
    assert not panel.resume.isVisible()
    assert controller.session.labels.labelled == []
    controller.layers.manual.paint((1, 10, 10), 1)
    controller.dispose()
    sessions = on_disk(study)
    assert [saved.n_manual for saved in sessions] == [1, 3]
    assert sessions[1] == old
    panel = another()
    reopen(panel, blob_files[0], qtbot, plane="axial")
    assert panel.resume.choice.count() == 2
    panel.resume.choice.setCurrentIndex(1)
    assert "3 slices by hand" in panel.resume.text.text()
    assert go_on(panel, qtbot).session.labels.labelled == list(LABELLED)


def test_what_was_painted_before_going_on_is_saved_as_a_session_of_its_own(labelled, another, blob_files, qtbot):
    study = labelled.session.study
    labelled.dispose()
    panel = another()
    controller = reopen(panel, blob_files[0], qtbot, plane="axial")
    controller.layers.manual.paint((1, 10, 10), 1)
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == list(LABELLED)
    assert sorted(saved.n_manual for saved in on_disk(study)) == [1, 3]
    assert [layer.name for layer in controller.viewer.layers] == ["image0", "prediction", "manual"]
    controller.layers.manual.paint((1, 20, 20), 1)
    controller.saving.secure()
    assert sorted(saved.n_manual for saved in on_disk(study)) == [1, 4]


def test_what_is_painted_while_the_labels_are_read_is_saved_too(labelled, another, blob_files, qtbot):
    study = labelled.session.study
    labelled.dispose()
    panel = another()
    controller = reopen(panel, blob_files[0], qtbot, plane="axial")
    panel.resume.go_on_button.click()
    assert controller.busy
    controller.layers.manual.paint((1, 10, 10), 1)
    wait_idle(qtbot, controller)
    assert controller.session.labels.labelled == list(LABELLED)
    assert sorted(saved.n_manual for saved in on_disk(study)) == [1, 3]


@pytest.mark.parametrize("plane", ["coronal", "native"])
def test_a_session_of_another_plane_is_opened_in_its_plane(controller, another, blob_files, plane, tmp_path, qtbot):
    import nibabel as nib

    controller.open_path(blob_files[0], background=False, plane=plane)
    controller.layers.manual.data[...] = 0
    slices = np.moveaxis(controller.layers.manual.data, controller.layers.axis, 0)
    slices[7, 3:9, 5:12] = 1
    controller.layers.manual.refresh()
    controller.export(tmp_path / "before.nii.gz")
    controller.dispose()
    panel = another()
    again = reopen(panel, blob_files[0], qtbot, plane="axial")
    go_on(panel, qtbot)
    assert again.session.study.plane == plane
    assert again.session.labels.labelled == [7]
    assert again.layers.manual.data.shape == again.layers.image.data.shape
    assert np.array_equal(again.layers.image.data, again.session.study.display)
    again.export(tmp_path / "after.nii.gz")
    before, after = nib.load(tmp_path / "before.nii.gz"), nib.load(tmp_path / "after.nii.gz")
    assert np.array_equal(before.dataobj, after.dataobj)
    assert np.array_equal(before.affine, after.affine)


def test_an_image_layer_is_found_again_in_the_background(controller, another, panel, qtbot):
    from tests.blobs import image_voxels

    voxels = np.moveaxis(image_voxels(), 2, 0)
    controller.use_layer(controller.viewer.add_image(voxels, scale=(4, 1.2, 1.1)))
    controller.layers.manual.paint((8, 10, 10), 1)
    controller.dispose()
    again = another()
    again.controller.use_layer(again.controller.viewer.add_image(voxels, scale=(4, 1.2, 1.1)))
    qtbot.waitUntil(again.resume.isVisible, timeout=SOON)
    go_on(again, qtbot)
    assert again.controller.session.labels.labelled == [8]


def test_damaged_parts_are_listed_until_they_are_read(labelled, another, blob_files, qtbot):
    study = labelled.session.study
    labelled.dispose()
    for file in (on_disk(study)[0].folder / "slices").glob("*_manual_*"):
        if file.name.startswith(("00004", "00008")):
            file.write_bytes(b"rubbish")
    panel = another()
    reopen(panel, blob_files[0], qtbot, plane="axial")
    controller = go_on(panel, qtbot)
    assert controller.session.labels.labelled == [11]
    shown = panel.resume.problems.toPlainText().splitlines()
    assert len(shown) == 2
    assert "4" in shown[0]
    assert "8" in shown[1]
    assert panel.resume.isVisible()
    panel.resume.read_button.click()
    assert not panel.resume.isVisible()


def test_a_session_of_a_newer_version_is_left_as_it_is(labelled, another, blob_files, qtbot):
    study = labelled.session.study
    labelled.dispose()
    index = on_disk(study)[0].folder / "session.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "schema": 99}))
    before = index.read_bytes()
    panel = another()
    controller = reopen(panel, blob_files[0], qtbot, plane="axial")
    assert "newer version" in panel.resume.text.text()
    go_on(panel, qtbot)
    assert "newer version" in panel.message.text()
    assert controller.session.labels.labelled == []
    controller.layers.manual.paint((1, 10, 10), 1)
    controller.saving.secure()
    assert index.read_bytes() == before
    assert sorted(saved.n_manual for saved in on_disk(study)) == [0, 1]


def test_what_a_stranger_wrote_into_the_view_breaks_nothing(labelled, another, blob_files, qtbot):
    from dataclasses import replace

    study = labelled.session.study
    labelled.dispose()
    saved = on_disk(study)[0]
    store = SessionStore(saved.folder, study)
    strange = {"slice": 10**9, "class": [], "scribbles": {}, "zoom": "x", "centre": [1e300, None, 2]}
    store.save(replace(store.load()[0], view=strange))
    store.close()
    panel = another()
    reopen(panel, blob_files[0], qtbot, plane="axial")
    controller = go_on(panel, qtbot)
    assert controller.session.labels.labelled == list(LABELLED)
    assert controller.current_slice == 15


# --- two windows ----------------------------------------------------------------------------------------------------


@pytest.fixture
def second(labelled, another, blob_files, qtbot):
    """A second window on the session that the first one writes."""
    labelled.saving.secure()
    panel = another()
    reopen(panel, blob_files[0], qtbot, plane="axial")
    go_on(panel, qtbot)
    return panel


def test_the_second_window_looks_and_does_not_touch(labelled, second, truth, tmp_path, qtbot):
    controller = second.controller
    assert "another window" in second.resume.text.text()
    assert controller.session.labels.labelled == list(LABELLED)
    assert np.array_equal(controller.layers.manual.data[8], truth[8])
    before = {i: controller.layers.manual.data[i].copy() for i in range(16)}
    files = {path: path.read_bytes() for path in on_disk(controller.session.study)[0].folder.rglob("*.*")}

    controller.go_to(8)
    second.label.paint_button.click()
    stroke(qtbot, controller.viewer)
    controller.layers.manual.paint((8, 3, 3), 1)  # a script
    qtbot.waitUntil(lambda: controller.layers.manual.data[8, 3, 3] == before[8][3, 3], timeout=SOON)
    controller.layers.manual.data[9] = 1
    controller.layers.manual.refresh()
    controller.flush()
    said = []
    controller.failed.connect(said.append)
    for action in (
        controller.train,
        controller.predict,
        lambda: controller.mark_empty(1),
        lambda: controller.clear(8),
        lambda: controller.accept(1),
        controller.fill_between,
        controller.add_class,
        lambda: controller.rename_class(1, "other"),
        lambda: controller.remove_class(1, erase=True),
        lambda: controller.load_model(tmp_path / "model.safetensors"),
    ):
        said.clear()
        action()
        assert not controller.busy
        assert len(said) == 1
        assert "another window" in said[0]
    controller.layers.undo()
    assert all(np.array_equal(controller.layers.manual.data[i], before[i]) for i in range(16))
    assert controller.session.labels.labelled == list(LABELLED)
    assert [entry.number for entry in controller.session.labels.classes] == [1, 3]
    controller.export(tmp_path / "mask.nii.gz")
    assert (tmp_path / "mask.nii.gz").exists()
    controller.go_to(2)
    assert controller.current_slice == 2
    qtbot.wait(700)
    assert files == {path: path.read_bytes() for path in on_disk(controller.session.study)[0].folder.rglob("*.*")}
    assert "Only looking" in second.saved.text()


def test_trying_again_takes_the_session_over_as_the_other_window_left_it(labelled, second, qtbot):
    controller = second.controller
    second.resume.again_button.click()
    wait_idle(qtbot, controller)
    assert controller.read_only
    assert "another window" in second.message.text()
    labelled.layers.manual.paint((1, 10, 10), 1)
    labelled.dispose()
    second.resume.again_button.click()
    wait_idle(qtbot, controller)
    assert not controller.read_only
    assert not second.resume.isVisible()
    assert controller.session.labels.labelled == [1, *LABELLED]
    controller.go_to(12)
    second.label.paint_button.click()
    stroke(qtbot, controller.viewer)
    controller.saving.secure()
    assert on_disk(controller.session.study)[0].n_manual == 5


def test_starting_anew_in_the_second_window_paints_into_a_session_of_its_own(labelled, second, qtbot):
    controller = second.controller
    second.resume.anew_button.click()
    assert not controller.read_only
    assert controller.session.labels.labelled == []
    controller.layers.manual.paint((1, 10, 10), 1)
    controller.saving.secure()
    assert sorted(saved.n_manual for saved in on_disk(controller.session.study)) == [1, 3]
    assert labelled.session.labels.labelled == list(LABELLED)


def test_a_folder_that_cannot_be_locked_is_only_looked_at(labelled, another, blob_files, monkeypatch, qtbot):
    from filelock import BaseFileLock

    labelled.dispose()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    panel = another()
    reopen(panel, blob_files[0], qtbot, plane="axial")
    monkeypatch.setattr(BaseFileLock, "acquire", refuse)
    controller = go_on(panel, qtbot)
    assert "Read-only file system" in panel.resume.text.text()
    assert controller.session.labels.labelled == list(LABELLED)
    assert not controller.layers.manual.editable


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


def test_a_full_disk_is_said_once_and_painting_goes_on(controller, study, panel, said, full, qtbot):
    full.append(True)
    controller.layers.manual.paint((1, 10, 10), 1)
    qtbot.waitUntil(lambda: "Not saved: No space left" in panel.saved.text(), timeout=SOON)
    controller.layers.manual.paint((2, 10, 10), 1)
    qtbot.wait(900)  # several tries
    assert len([text for text in said if "could not be saved" in text]) == 1
    assert "Not saved" in panel.saved.text()
    full.clear()
    qtbot.waitUntil(lambda: panel.saved.text().startswith("Saved "), timeout=SOON)
    assert any("Saved again" in text for text in said)
    assert on_disk(study)[0].n_manual == 2
    full.append(True)
    controller.layers.manual.paint((3, 10, 10), 1)
    qtbot.waitUntil(lambda: len([text for text in said if "could not be saved" in text]) == 2, timeout=SOON)
    full.clear()


def test_nothing_is_switched_while_the_disk_refuses(labelled, another, blob_files, full, qtbot):
    labelled.dispose()
    panel = another()
    controller = reopen(panel, blob_files[0], qtbot, plane="axial")
    full.append(True)
    controller.layers.manual.paint((1, 10, 10), 1)
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == [1]
    assert panel.resume.isVisible()
    full.clear()
    go_on(panel, qtbot)
    assert controller.session.labels.labelled == list(LABELLED)


def test_labels_that_cannot_be_saved_at_the_end_are_said_and_stay_in_the_viewer(
    controller, study, said, full, tmp_path, qtbot
):
    from tests.blobs import write_study

    full.append(True)
    controller.layers.manual.paint((1, 10, 10), 1)
    other, _ = write_study(tmp_path, seed=1)
    controller.open_path(other, background=False)
    assert any("last labels are not on disk" in text and "No space left" in text for text in said)
    assert controller.viewer.layers["image0: manual"].data[1, 10, 10] == 1


def test_a_folder_that_cannot_be_made_is_tried_again(controller, study, panel, said, tmp_path, monkeypatch, qtbot):
    from napari_dinoaugseg.gui import saving

    monkeypatch.setattr(saving, "_RETRY", 100)
    monkeypatch.setenv("DINOAUGSEG_SESSIONS", str(tmp_path / "no" / "folder"))
    (tmp_path / "no").write_text("a file")
    controller.layers.manual.paint((1, 10, 10), 1)
    qtbot.waitUntil(lambda: "Not saved" in panel.saved.text(), timeout=SOON)
    qtbot.wait(400)
    assert len([text for text in said if "no session can be saved there" in text]) == 1
    (tmp_path / "no").unlink()
    qtbot.waitUntil(lambda: panel.saved.text().startswith("Saved "), timeout=SOON)
    assert on_disk(study)[0].n_manual == 1


def test_a_folder_that_was_taken_away_is_made_again_with_everything(labelled, panel, qtbot):
    study = labelled.session.study
    labelled.saving.secure()
    shutil.rmtree(on_disk(study)[0].folder)
    labelled.layers.manual.paint((1, 10, 10), 1)
    labelled.saving.secure()
    assert on_disk(study)[0].n_manual == 4


def test_another_folder_in_the_preferences_helps_at_once(labelled, panel, full, tmp_path, monkeypatch, qtbot):
    from napari_dinoaugseg.gui import saving
    from napari_dinoaugseg.gui.preferences import Preferences

    study = labelled.session.study
    labelled.change_settings(steps=5, views=1)
    train(qtbot, labelled)
    full.append(True)
    labelled.layers.manual.paint((1, 10, 10), 1)
    qtbot.waitUntil(lambda: "Not saved" in panel.saved.text(), timeout=SOON)
    monkeypatch.setattr(saving, "preferences", lambda: Preferences(sessions=str(tmp_path / "elsewhere")))
    qtbot.wait(300)
    full.clear()
    qtbot.waitUntil(lambda: bool(saved_sessions(study.fingerprint, tmp_path / "elsewhere")), timeout=SOON)
    labelled.saving.secure()
    (moved,) = saved_sessions(study.fingerprint, tmp_path / "elsewhere")
    assert (moved.n_manual, moved.rounds) == (4, 1)
    assert content(study, moved).model is not None


def test_a_sentence_says_what_a_session_holds(labelled):
    labelled.saving.secure()
    (saved,) = on_disk(labelled.session.study)
    assert describe(saved).endswith("(axial): 3 slices by hand.")
    assert describe(saved, "picture").endswith("3 pictures by hand.")
    assert f"{saved.saved:%Y, %H:%M}" in describe(saved)


def test_the_plane_of_a_layer_that_we_read_changes_without_losing_its_geometry(controller, blob_files, tmp_path):
    import nibabel as nib

    from napari_dinoaugseg.hooks import get_volume_reader

    data, options, _ = get_volume_reader(str(blob_files[0]))(str(blob_files[0]))[0]
    controller.use_layer(controller.viewer.add_image(data, **options))
    controller.change_plane(Plane.SAGITTAL)
    controller.layers.manual.paint((3, 10, 20), 1)
    controller.export(tmp_path / "mask.nii.gz")
    assert np.array_equal(nib.load(tmp_path / "mask.nii.gz").affine, nib.load(blob_files[0]).affine)
