"""Window and level by a drag in the canvas and by keys: what the image shows changes, and nothing else."""

from __future__ import annotations

import contextlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qtpy.QtCore import QPoint, Qt

from napari_dinoaugseg.gui.canvas import canvas_widget
from napari_dinoaugseg.gui.windowing import WindowMenu, moved, percentiles, words
from tests.gui.conftest import settle, train
from tests.gui.test_painting import stroke

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]

CONTROL = Qt.KeyboardModifier.ControlModifier
NONE = Qt.KeyboardModifier.NoModifier
LEFT, MIDDLE = Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton


@pytest.fixture
def drag(controller, case, qtbot):
    """Drag in the canvas, and look at the text on it before the button is released."""
    native = controller.viewer.window._qt_viewer.canvas.native

    def dragged(button, modifier, across: int, down: int) -> str:
        start = QPoint(native.width() // 2, native.height() // 2)
        qtbot.mouseMove(native, start)
        qtbot.mousePress(native, button, modifier, start)
        for part in (0.5, 1.0):
            before = controller.viewer.cursor.position
            place = start + QPoint(round(part * across), round(part * down))
            _move(native, place, button, modifier)
            with contextlib.suppress(qtbot.TimeoutError):
                qtbot.waitUntil(lambda before=before: controller.viewer.cursor.position != before, timeout=500)
        text = _shown(controller)
        qtbot.mouseRelease(native, button, modifier, start + QPoint(across, down))
        settle()
        return text

    return dragged


def _move(native, place, button, modifier) -> None:
    """Move the mouse with a button and a modifier down, which QTest cannot."""
    from qtpy.QtCore import QEvent, QPointF
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    event = QMouseEvent(
        QEvent.Type.MouseMove,
        QPointF(place),
        QPointF(native.mapToGlobal(place)),
        Qt.MouseButton.NoButton,
        button,
        modifier,
    )
    QApplication.sendEvent(native, event)


def _shown(controller) -> str:
    overlay = controller.viewer.canvas.overlays.get("dinoaugseg_window")
    return overlay.text if overlay is not None and overlay.visible else ""


def _width(image) -> float:
    low, high = image.contrast_limits
    return high - low


@pytest.mark.parametrize(
    ("mode", "button", "modifier"),
    [
        *((mode, LEFT, CONTROL) for mode in ("pan_zoom", "paint", "erase", "fill", "pick", "polygon")),
        *((mode, MIDDLE, NONE) for mode in ("paint", "polygon")),
    ],
)
def test_a_drag_changes_the_window_in_every_mode_and_paints_nothing(controller, case, drag, mode, button, modifier):
    layers, book = controller.layers, controller.session.labels
    layers.manual.mode = mode
    width, level = _width(layers.image), sum(layers.image.contrast_limits) / 2
    camera = controller.viewer.scene.camera.center
    text = drag(button, modifier, 60, -40)
    assert _width(layers.image) > width  # to the right
    assert sum(layers.image.contrast_limits) / 2 < level  # upwards
    assert text == controller.windowing.in_words()
    assert text.startswith(f"{words(*layers.image.contrast_limits)}  (")
    assert _shown(controller) == ""
    assert layers.manual.mode == mode
    assert not layers.manual.data.any()
    assert book.labelled == []
    assert book.undo() is None
    assert controller.viewer.scene.camera.center == camera
    assert not layers.manual._overlays["polygon"].points


def test_painting_goes_on_after_a_drag(controller, case, drag, qtbot):
    controller.view.go_to(8)
    controller.labels.select_class(1)
    drag(LEFT, CONTROL, 40, 0)
    stroke(qtbot, controller.viewer)
    qtbot.waitUntil(lambda: controller.session.labels.labelled == [8], timeout=10_000)
    painted = controller.session.labels.manual(8)
    drag(MIDDLE, NONE, 30, 30)
    assert np.array_equal(controller.session.labels.manual(8), painted)
    controller.layers.undo()
    assert controller.session.labels.labelled == []


def test_a_polygon_that_is_being_drawn_survives_a_drag(controller, case, drag, qtbot):
    manual = controller.layers.manual
    manual.mode = "polygon"
    native = controller.viewer.window._qt_viewer.canvas.native
    middle = QPoint(native.width() // 2, native.height() // 2)
    for offset in (QPoint(-20, 0), QPoint(0, 20)):
        qtbot.mouseMove(native, middle + offset)
        qtbot.mouseClick(native, LEFT, pos=middle + offset)
    points = list(manual._overlays["polygon"].points)
    assert len(points) >= 3
    drag(LEFT, CONTROL, 40, 0)
    assert len(manual._overlays["polygon"].points) == len(points)
    assert np.allclose(manual._overlays["polygon"].points[:2], points[:2])


def test_what_a_trained_model_sees_stays_as_it_was(labelled, drag, qtbot):
    labelled.setup.change(steps=5, views=1)
    train(qtbot, labelled)
    window = labelled.setup.settings.window
    drag(LEFT, CONTROL, 80, 10)
    assert labelled.setup.settings.window == window
    assert labelled.view.window != window
    assert labelled.session.changes_since_training() == []


@pytest.mark.parametrize(("key", "window"), [(Qt.Key.Key_F11, "percentiles"), (Qt.Key.Key_F5, "auto")])
def test_keys_show_windows(controller, case, panel, qtbot, key, window):
    controller.view.look_through("10,20")
    qtbot.keyClick(controller.viewer.window._qt_viewer.canvas.native, key)
    settle()
    assert controller.view.window == window
    assert panel.case.window_choice.currentText() == window


def test_a_window_of_ct_is_refused_where_it_means_nothing(controller, case, failed, qtbot):
    before = controller.layers.image.contrast_limits
    qtbot.keyClick(controller.viewer.window._qt_viewer.canvas.native, Qt.Key.Key_F7)
    assert "is for CT" in failed[-1]
    assert controller.layers.image.contrast_limits == before


@given(
    low=st.floats(-1e4, 1e4),
    width=st.floats(1e-3, 1e4),
    across=st.floats(-2000, 2000),
    up=st.floats(-2000, 2000),
)
def test_a_window_never_turns_over_and_a_drag_to_and_fro_changes_nothing(low, width, across, up):
    least = 1e-4
    found = moved(low, low + width, across, up, least)
    assert found[0] < found[1]
    assert moved(low, low + width, 0, 0, least) == pytest.approx((low, low + width), rel=1e-6, abs=1e-6)


def test_the_menu_on_the_canvas_shows_the_window_and_chooses_another(controller, case, drag):
    (menu,) = canvas_widget(controller.viewer).findChildren(WindowMenu)
    controller.view.look_through("percentiles")
    assert menu.text().startswith(words(*controller.layers.image.contrast_limits))
    menu.presets.aboutToShow.emit()
    names = [action.text().split("  (")[0] for action in menu.presets.actions() if action.text()]
    assert names == ["auto", "percentiles", "own values…"]  # those of CT mean nothing here
    assert [action.text() for action in menu.presets.actions() if action.isChecked()] == ["percentiles  (F11)"]
    before = menu.text()
    drag(LEFT, CONTROL, 60, -40)
    assert menu.text() != before
    menu.presets.actions()[1].trigger()
    assert menu.text() == before
    assert controller.view.window == "percentiles"
    native = canvas_widget(controller.viewer)
    assert native.width() - menu.geometry().right() <= 8
    for width, has_percentiles in ((700, True), (340, False), (700, True)):  # the letter in the middle stays in view
        native.resize(width, native.height())
        assert ("%" in menu.text()) is has_percentiles
        assert menu.geometry().left() > width / 2
        assert menu.geometry().right() <= width
    controller.cases.close()
    assert menu.isHidden()


def test_a_ct_has_all_presets_and_no_percentiles(controller, case, tmp_path):
    path = tmp_path / "ct.nii"
    voxels = np.random.default_rng(0).integers(-1000, 1000, (20, 22, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    controller.cases.open_path(path, background=False)
    (menu,) = canvas_widget(controller.viewer).findChildren(WindowMenu)
    menu.presets.aboutToShow.emit()
    shown = [action.text() for action in menu.presets.actions()]
    assert "soft tissue  (F6)" in shown
    assert "stroke" in shown
    menu.presets.actions()[shown.index("bone  (F8)")].trigger()
    assert menu.text() == "W 1500  L 300  ▾"
    assert tuple(controller.layers.image.contrast_limits) == (-450, 1050)


def test_limits_are_written_as_percentiles_of_the_slice():
    assert percentiles(10, 89, np.arange(100)) == "(10 to 90 %)"
    assert percentiles(-5, 500, np.arange(100)) == "(0 to 100 %)"


def test_values_are_written_with_the_digits_that_matter():
    assert words(-160, 240) == "W 400  L 40"
    assert words(0, 0.5) == "W 0.500  L 0.250"
