"""Several sequences of one case in the window: added by a button, seen in turn with a key, each in its own window."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QLabel, QMenu

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.gui.canvas import canvas_widget
from napari_dinoaugseg.gui.display import case_of_layers
from napari_dinoaugseg.gui.reading import SLICE_LABEL
from napari_dinoaugseg.session.project import Project
from napari_dinoaugseg.session.store import saved_sessions
from tests.gui.conftest import dice, paint, settle, train, wait_idle
from tests.sequences import LABELLED, NAMES, sequence_voxels, truth_voxels, write_sequences, write_volume

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


@pytest.fixture
def controller(windowless_or_not):
    """With a window where it is looked at."""
    return windowless_or_not


@pytest.fixture
def files(tmp_path):
    """T2 is a hundred times as bright as T1, so that one window does not show both."""
    first, second = write_sequences(tmp_path)
    return first, write_volume(second, (sequence_voxels("t2").astype(np.float32) * 100))


@pytest.fixture
def add(panel, controller, qtbot, monkeypatch):
    """Press 'Add a sequence…', and choose a file in the menu and in the dialog."""

    def chosen(path) -> None:
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
        qtbot.mouseClick(panel.case.sequence_button, Qt.MouseButton.LeftButton)
        menu = next(m for m in panel.case.findChildren(QMenu) if m.isVisible())
        qtbot.keyClick(menu, Qt.Key.Key_Down)
        qtbot.keyClick(menu, Qt.Key.Key_Return)
        wait_idle(qtbot, controller)

    return chosen


@pytest.fixture
def both(controller, panel, case, files, add):
    """Both sequences, the second one added in the panel, in the window of the tests before."""
    controller.cases.open_path(files[0], background=False, plane="axial")
    settle()
    add(files[1])
    return controller.session.case


def press(controller, qtbot, key, modifier=Qt.KeyboardModifier.NoModifier) -> None:
    qtbot.keyClick(controller.viewer.window._qt_viewer.canvas.native, key, modifier)
    settle()


def on_canvas(controller) -> str:
    label = canvas_widget(controller.viewer).findChild(QLabel, SLICE_LABEL)
    return label.text()


def shown(controller) -> np.ndarray:
    layers = controller.layers
    return np.moveaxis(np.asarray(layers.image.data), layers.axis, 0)[controller.current_slice]


def test_a_sequence_is_added_and_one_key_goes_through_them(controller, panel, both, qtbot, failed):
    assert tuple(both.sequences) == NAMES
    assert [panel.case.sequence.itemText(n) for n in range(panel.case.sequence.count())] == list(NAMES)
    image, slices = controller.layers.image, {name: each.slice(8) for name, each in both.sequences.items()}
    assert controller.current_slice == 8
    for name in ("t1", "t2", "t1"):
        assert np.array_equal(shown(controller), slices[name])
        assert on_canvas(controller) == f"{name}   slice 9 of 16"
        assert panel.case.sequence.currentText() == name
        assert controller.layers.image is image
        press(controller, qtbot, Qt.Key.Key_G)
    press(controller, qtbot, Qt.Key.Key_G, Qt.KeyboardModifier.ShiftModifier)
    assert on_canvas(controller).startswith("t1")
    panel.case.sequence.setCurrentIndex(1)
    panel.case.sequence.activated.emit(1)
    assert np.array_equal(shown(controller), slices["t2"])
    assert failed == []


def test_each_sequence_has_a_window_of_its_own_and_the_first_ones_is_that_of_the_training(controller, both, qtbot):
    image, trained_with = controller.layers.image, controller.setup.settings.window
    controller.view.look_through("0,500")
    assert controller.setup.settings.window == "0,500"
    press(controller, qtbot, Qt.Key.Key_G)
    low, high = image.contrast_limits
    assert high > 20_000  # not black
    image.contrast_limits = (1000, 40_000)  # as napari's slider does
    settle()
    assert controller.setup.settings.window == "0,500"
    press(controller, qtbot, Qt.Key.Key_G)
    assert tuple(image.contrast_limits) == (0, 500)
    press(controller, qtbot, Qt.Key.Key_G)
    assert tuple(image.contrast_limits) == (1000, 40_000)
    assert trained_with == "auto"
    assert low < high


def test_the_smart_brush_reads_the_sequence_in_view(controller, both, qtbot):
    rules = controller.paint_rules
    for name in NAMES:
        assert controller.view.sequences.name == name
        stroke = rules._on_press(controller.viewer, None)
        next(stroke)
        assert np.array_equal(rules._stroke.picture(8), both.sequences[name].slice(8))
        stroke.close()
        press(controller, qtbot, Qt.Key.Key_G)


def test_another_plane_begins_with_the_first_sequence(controller, panel, both, qtbot):
    press(controller, qtbot, Qt.Key.Key_G)
    panel.case.plane.setCurrentText("coronal")
    panel.case.plane.activated.emit(panel.case.plane.currentIndex())
    settle()
    assert controller.session.case.plane == "coronal"
    for name in ("t1", "t2"):
        assert on_canvas(controller).startswith(name)
        expected = controller.session.case.sequences[name].slice(controller.current_slice)
        assert np.array_equal(shown(controller), expected)
        press(controller, qtbot, Qt.Key.Key_G)


def test_a_case_of_one_has_nothing_to_go_through_and_says_how_to_add(controller, panel, case, files, qtbot, said):
    controller.cases.open_path(files[0], background=False, plane="axial")
    settle()
    press(controller, qtbot, Qt.Key.Key_G)
    assert any("Add a sequence…" in text for text in said)
    assert on_canvas(controller) == "slice 9 of 16"


def test_a_sequence_that_is_added_later_keeps_what_was_labelled_and_the_first_alone_keeps_it_too(
    controller, case, files, add, failed, said, qtbot
):
    controller.cases.open_path(files[0], background=False, plane="axial")
    settle()
    alone = controller.session.case
    truth = alone.to_slices(truth_voxels())
    controller.labels.rename_class(1, "disc")
    controller.session.labels.add_class("second", 3)
    paint(controller, truth, [4, 9])
    controller.session.labels.set_prediction(6, truth[6], 0.9)
    controller.view.go_to(9)
    add(files[1])
    session, book = controller.session, controller.session.labels
    assert tuple(session.case.sequences) == NAMES
    assert [entry.name for entry in book.classes] == ["disc", "second"]
    assert book.labelled == [4, 9]
    assert all(np.array_equal(book.manual(index), truth[index]) for index in (4, 9))
    assert np.array_equal(book.predicted(6), truth[6])
    assert np.array_equal(controller.layers.manual.data[9] % 32768, truth[9])
    assert controller.current_slice == 9
    assert any("labels of 2 slices were taken along" in text for text in said)
    qtbot.waitUntil(lambda: bool(saved_sessions(session.case.fingerprint)), timeout=10_000)
    controller.cases.close()
    for case in (alone, session.case):
        (saved,) = saved_sessions(case.fingerprint)
        assert saved.n_manual == 2
    assert failed == []


def test_selected_layers_are_the_sequences_of_one_case(controller, case, panel, qtbot, failed):
    layers = [controller.viewer.add_image(sequence_voxels(name).T, name=name.upper()) for name in NAMES]
    elsewhere = controller.viewer.add_image(sequence_voxels("t1").T, name="moved", translate=(3, 0, 0))
    selected = controller.viewer.layers.selection
    panel.folds["Case"].set_open(True)
    selected.clear()
    selected.update([layers[0], elsewhere])
    qtbot.mouseClick(panel.case.layer_button, Qt.MouseButton.LeftButton)
    assert "'T1' and 'moved' do not have the same voxels in the same place" in failed[-1]
    assert controller.session.case is case
    selected.clear()
    selected.update(layers)
    qtbot.mouseClick(panel.case.layer_button, Qt.MouseButton.LeftButton)
    wait_idle(qtbot, controller)
    assert tuple(controller.session.case.sequences) == ("T1", "T2")
    before = [layer.data.copy() for layer in layers]
    for name in NAMES:
        assert np.array_equal(shown(controller), sequence_voxels(name).T[controller.current_slice])
        press(controller, qtbot, Qt.Key.Key_G)
    assert all(np.array_equal(layer.data, data) for layer, data in zip(layers, before, strict=True))


def test_layers_of_files_have_the_names_of_the_sequences_that_their_files_have(controller, files):
    layers = [layer for file in files for layer in controller.viewer.open(str(file), plugin="napari-dinoaugseg")]
    case = case_of_layers(layers)
    assert (case.name, tuple(case.sequences)) == ("anna", NAMES)  # not "anna_t1", which no next patient has
    layers[0].name = "contrast"
    assert tuple(case_of_layers(layers).sequences) == ("contrast", "anna_t2")


def test_a_file_that_is_no_sequence_leaves_the_case_as_it_is(controller, case, files, add, failed, tmp_path):
    controller.cases.open_path(files[0], background=False, plane="axial")
    settle()
    far = np.diag([1.0, 1, 1, 1])
    far[:3, 3] = 9000
    before = controller.session
    add(write_volume(tmp_path / "anna_far.nii.gz", np.zeros((5, 5, 5), np.int16), far))
    assert "no part of far lies on t1" in failed[-1]
    assert controller.session is before


@pytest.mark.slow
def test_the_whole_loop_with_two_sequences(controller, panel, both, export, tmp_path, qtbot, files):
    """Label, train, look in both, export, close, and go on where it stopped; then as a project."""
    truth = both.to_slices(truth_voxels())
    controller.session.labels.add_class("second", 3)
    press(controller, qtbot, Qt.Key.Key_G)  # what is in view does not change what is learned
    paint(controller, truth, LABELLED)
    train(qtbot, controller)
    left = [i for i in range(16) if i not in LABELLED]
    found = np.stack([controller.session.labels.predicted(i) for i in left])
    assert min(dice(found == n, truth[left] == n) for n in (1, 3)) > 0.8
    export(tmp_path / "mask.nii.gz")
    assert open_case(tmp_path / "mask.nii.gz").grid.affine.tolist() == both.grid.affine.tolist()
    controller.project.make(tmp_path / "project")
    wait_idle(qtbot, controller)
    assert tuple(controller.project.current.cases[0].record.sequences) == NAMES
    assert controller.project.current.cases[0].files == tuple(files)
    assert tuple(controller.session.case.sequences) == NAMES
    controller.cases.close()
    with Project(tmp_path / "project") as project:
        assert project.status(project.cases[0]).n_manual == len(LABELLED)
        assert project.model.sequences == NAMES
    assert len(saved_sessions(both.fingerprint)) == 1
    assert saved_sessions(open_case(files[0], plane="axial").fingerprint) == []


@pytest.mark.slow
def test_the_three_planes_show_the_sequence_in_view(controller, both, qtbot):
    controller.planes.switch(True)
    QApplication.processEvents()
    press(controller, qtbot, Qt.Key.Key_G)
    qtbot.wait(200)
    for view in controller.planes.views:
        images = [layer for layer in view.model.layers if layer.name == controller.layers.image.name]
        assert np.array_equal(np.asarray(images[0].data), np.asarray(both.sequences["t2"].display))
        assert tuple(images[0].contrast_limits) == tuple(controller.layers.image.contrast_limits)
    controller.planes.switch(False)
