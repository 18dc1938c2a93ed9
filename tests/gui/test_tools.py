"""The tool in hand: the button that is lit, the class it goes back to, and a fill bucket that asks first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.gui.display import BACKGROUND
from tests.gui.conftest import settle
from tests.gui.kept_window import differences, state_of

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


@pytest.fixture
def lit(panel):
    """The names of the buttons that are lit."""
    buttons = {
        "brush": panel.label.paint_button,
        "eraser": panel.label.erase_button,
        "background": panel.label.background_button,
    }

    def names() -> list[str]:
        settle()
        return [name for name, button in buttons.items() if button.isChecked()]

    return names


def click(button) -> None:
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def press(controller, key) -> None:
    QTest.keyClick(controller.viewer.window._qt_viewer.canvas.native, key)


def click_middle(controller) -> None:
    native = controller.viewer.window._qt_viewer.canvas.native
    middle = QPoint(native.width() // 2, native.height() // 2)
    QTest.mouseMove(native, middle)
    QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=middle)
    QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=middle)


# --- the button that is lit ---


def test_the_tool_that_is_active_is_the_button_that_is_lit(panel, controller, case, lit):
    assert lit() == ["brush"]
    click(panel.label.erase_button)
    assert lit() == ["eraser"]
    click(panel.label.erase_button)  # a second click puts nothing away
    assert lit() == ["eraser"]
    click(panel.label.paint_button)
    assert lit() == ["brush"]
    panel.label.scribbles.click()
    settle()
    click(panel.label.background_button)
    assert lit() == ["background"]


def test_it_follows_the_keys_and_buttons_of_napari(controller, case, lit):
    for key, expected in (
        (Qt.Key.Key_E, ["eraser"]),
        (Qt.Key.Key_F, []),
        (Qt.Key.Key_P, ["brush"]),
        (Qt.Key.Key_Z, []),
    ):
        press(controller, key)
        assert lit() == expected
    controller.layers.manual.mode = "paint"
    controller.layers.manual.selected_label = 0
    assert lit() == ["eraser"]


def test_no_button_is_lit_while_another_layer_is_selected(controller, case, lit):
    controller.viewer.layers.selection.active = controller.layers.image
    assert lit() == []
    controller.viewer.layers.selection.active = controller.layers.manual
    assert lit() == ["brush"]
    other = controller.viewer.add_labels(np.zeros((16, 8, 8), np.uint8), name="somebody else's")
    other.mode = "paint"
    assert lit() == []
    controller.viewer.layers.remove(other)
    controller.viewer.layers.selection.active = controller.layers.manual
    controller.viewer.layers.remove(controller.layers.manual)
    assert lit() == []
    controller.view.restore_layers()
    assert lit() == ["brush"]
    press(controller, Qt.Key.Key_E)
    assert lit() == ["eraser"]


def test_after_the_eraser_the_brush_paints_the_class_that_it_painted_before(panel, controller, case):
    controller.labels.add_class()
    controller.labels.select_class(2)
    click(panel.label.erase_button)
    click(panel.label.paint_button)
    assert controller.labels.selected_class == 2
    assert controller.layers.manual.selected_label == 2


# --- the fill bucket ---


@pytest.fixture
def answer(qtbot):
    """Answer the next question by a click on its button, and keep its text."""
    asked: list[str] = []

    def answer_with(yes: bool):
        def look() -> None:
            box = QApplication.activeModalWidget()
            if not isinstance(box, QMessageBox):
                QTimer.singleShot(20, look)
                return
            asked.append(box.text())
            standard = QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No
            QTest.mouseClick(box.button(standard), Qt.MouseButton.LeftButton)

        QTimer.singleShot(0, look)
        return asked

    return answer_with


@pytest.mark.parametrize("yes", [False, True])
def test_the_fill_bucket_asks_before_it_floods_an_unlabelled_slice(controller, case, answer, qtbot, yes):
    layer = controller.layers.manual
    layer.paint((3, 10, 10), 1)
    controller.flush()
    controller.view.go_to(8)
    asked = answer(yes=yes)
    press(controller, Qt.Key.Key_F)
    click_middle(controller)
    assert not layer.data[8].any()  # not before the answer
    qtbot.waitUntil(lambda: bool(asked))
    qtbot.wait(50)
    assert asked[0].startswith("Fill 100% of slice 9 with class 1?")
    controller.flush()
    assert controller.session.labels.labelled == ([3, 8] if yes else [3])
    assert layer.data[8].all() == yes
    layer.undo()  # the fill where there was one, else the stroke before
    controller.flush()
    assert controller.session.labels.labelled == ([3] if yes else [])


def test_a_gap_in_an_outline_is_noticed_before_the_rest_of_the_slice_is_filled(controller, case, answer, qtbot):
    layer = controller.layers.manual
    height, width = layer.data[8].shape
    outline = np.zeros((height, width), np.uint16)
    top, bottom, left, right = height // 4, 3 * height // 4, width // 4, 3 * width // 4
    outline[[top, bottom], left : right + 1] = 1
    outline[top : bottom + 1, [left, right]] = 1
    layer.data[8] = outline
    layer.data[9] = outline
    layer.data[9, top, width // 2] = 0  # the gap
    layer.refresh()
    controller.flush()
    controller.view.go_to(8)
    press(controller, Qt.Key.Key_F)
    click_middle(controller)
    controller.flush()
    assert layer.data[8, height // 2, width // 2] == 1  # inside an outline nobody is asked
    controller.view.go_to(9)
    asked = answer(yes=False)
    click_middle(controller)
    qtbot.waitUntil(lambda: bool(asked))
    assert layer.data[9, height // 2, width // 2] == 0


def test_background_around_what_is_painted_is_filled_without_a_question(controller, case):
    controller.labels.set_scribbles(True)
    layer = controller.layers.manual
    layer.data[8, 2:5, 2:5] = 1
    layer.refresh()
    controller.flush()
    controller.view.go_to(8)
    controller.labels.select_class(-1)
    layer.mode = "fill"
    click_middle(controller)
    assert (layer.data[8] == BACKGROUND).sum() == layer.data[8].size - 9


def test_a_script_that_fills_is_not_asked(controller, case):
    controller.layers.manual.fill((8, 5, 5), 1)
    assert controller.layers.manual.data[8].all()


# --- the picture in view ---


def test_the_name_of_the_picture_in_view_is_always_shown(panel, controller, tmp_path, case):
    assert panel.label.picture.isHidden()  # slices have no names
    folder = tmp_path / "skin"
    folder.mkdir()
    names = [f"IMD{number:03d}.png" for number in range(4)]
    for name in names:
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / name)
    controller.cases.begin(open_case(folder))
    settle()
    assert not panel.label.picture.isHidden()
    assert panel.label.picture.whole == names[controller.current_slice]
    controller.view.go_to(2)
    settle()
    assert panel.label.picture.whole == "IMD002.png"
    assert panel.label.position.text() == "picture 3 of 4"
    press(controller, Qt.Key.Key_Right)
    settle()
    assert panel.label.picture.whole == "IMD003.png"


def test_a_long_name_is_cut_in_its_middle_and_whole_in_the_tooltip(qtbot):
    from napari_dinoaugseg.gui.widgets import Elided

    label = Elided()
    qtbot.addWidget(label)
    label.resize(120, 20)
    name = "an_archive_that_gives_very_long_names_0042.png"
    label.show_text(name)
    assert label.toolTip() == name
    assert "…" in label.text()
    label.resize(1200, 20)
    label.show()
    assert label.text() == name


def test_what_a_test_leaves_in_the_shared_window_is_noticed(panel, controller, case):
    layers, keys = controller.layers, controller.viewer.keymap
    before = state_of(panel)
    assert differences(before, state_of(panel)) == []
    for leave, put_back in (
        (lambda: setattr(layers.manual, "opacity", 0.1), lambda: setattr(layers.manual, "opacity", 0.7)),
        (lambda: layers.manual.events.paint.connect(print), lambda: layers.manual.events.paint.disconnect(print)),
        (lambda: keys.update({"Alt-Q": print}), lambda: keys.pop("Alt-Q")),
        (lambda: panel.message.setText("left"), lambda: panel.message.clear()),
        (lambda: setattr(controller.setup, "device", "mps"), lambda: setattr(controller.setup, "device", "cpu")),
    ):
        leave()
        assert differences(before, state_of(panel))
        put_back()
        assert differences(before, state_of(panel)) == []
