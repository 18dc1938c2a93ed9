"""The smart brush, what paint goes over, and the keys of classes, with a mouse on the canvas."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_dinoaugseg.gui.display import camera_of
from napari_dinoaugseg.session.labels import BACKGROUND
from napari_dinoaugseg.session.paint_rules import PaintOver
from tests.case.builders import write_nifti
from tests.gui.conftest import settle

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]

LEFT, RIGHT, SHIFT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton, Qt.KeyboardModifier.ShiftModifier
HERE, EDGE = 2, 32  # the slice in view; the column where the bright organ begins
FREE = PaintOver("free")


def organ() -> np.ndarray:
    """(6, 64, 64): a dark half on the left and a bright one on the right, with noise."""
    volume = np.full((6, 64, 64), 50.0)
    volume[:, :, EDGE:] = 150.0
    return (volume + np.random.default_rng(0).normal(0, 3, volume.shape)).round().astype(np.int16)


class Hand:
    """A person at the canvas. Places are rows and columns of the slice in view."""

    def __init__(self, controller, qtbot) -> None:
        self.controller, self.viewer, self.qtbot = controller, controller.viewer, qtbot
        self.native = self.viewer.window._qt_viewer.canvas.native

    @property
    def layer(self):
        return self.controller.layers.manual

    @property
    def here(self) -> np.ndarray:
        """The slice in view, as the layer shows it."""
        return self.layer.data[HERE]

    def at(self, row: float, column: float) -> QPoint:
        camera, scale = camera_of(self.viewer), self.layer.scale
        down, across = row * scale[1] - camera.center[-2], column * scale[2] - camera.center[-1]
        middle = self.native.rect().center()
        return QPoint(round(middle.x() + across * camera.zoom), round(middle.y() + down * camera.zoom))

    def move(self, place) -> None:
        """Move, until napari has seen it: of fast movements it leaves some out."""
        point, end = self.at(*place), time.monotonic() + 10
        while True:
            QTest.mouseMove(self.native, point + QPoint(0, 1))
            QTest.mouseMove(self.native, point)
            QTest.qWait(8)
            seen = self.layer.world_to_data(self.viewer.cursor.position)[-2:]
            if np.allclose(seen, place, atol=1.5 / camera_of(self.viewer).zoom + 0.1):
                return
            assert time.monotonic() < end, f"the cursor is at {seen}, not at {place}"

    def fit(self) -> None:
        """Show the whole slice: the canvas beside the panel is narrow."""
        height, width = np.array(self.layer.data.shape[-2:]) * self.layer.scale[-2:]
        camera_of(self.viewer).zoom = 0.7 * min(self.native.height() / height, self.native.width() / width)

    def clear(self) -> None:
        self.controller.labels.clear(HERE)

    def draw(self, *places, button=LEFT, seen=None) -> None:
        """A stroke through places; `seen` is called before the button goes up."""
        self.move(places[0])
        QTest.mousePress(self.native, button, pos=self.at(*places[0]))
        for place in places[1:]:
            self.move(place)
        if seen is not None:
            seen()
        QTest.mouseRelease(self.native, button, pos=self.at(*places[-1]))
        self.controller.flush()

    def press(self, key, *, held=Qt.KeyboardModifier.NoModifier) -> None:
        QTest.keyClick(self.native, key, held)

    def steps(self) -> int:
        """How many actions can be undone."""
        return len(self.controller.session.labels._undo)


def click(button) -> None:
    QTest.mouseClick(button, LEFT)


def rule(panel, text: str) -> None:
    """Choose what paint goes over, with the keyboard."""
    settle()
    combo = panel.label.paint_over.choice
    target = combo.findText(text)
    assert target >= 0, [combo.itemText(place) for place in range(combo.count())]
    combo.setFocus()
    while combo.currentIndex() != target:
        QTest.keyClick(combo, Qt.Key.Key_Down if combo.currentIndex() < target else Qt.Key.Key_Up)
    settle()


@pytest.fixture
def hand(controller, case, tmp_path, qtbot) -> Hand:
    """In the window of the tests before, where the organ is the next case."""
    path = write_nifti(tmp_path / "organ.nii.gz", organ().transpose(2, 1, 0), np.diag([-0.8, -0.8, 3.0, 1.0]))
    controller.cases.open_path(path, background=False, plane="axial")
    settle()
    controller.view.go_to(HERE)
    controller.labels.add_class()
    controller.labels.add_class()
    controller.labels.select_class(1)
    hand = Hand(controller, qtbot)
    hand.fit()
    hand.layer.brush_size = 13
    hand.move((10, 10))
    assert np.array_equal(controller.session.case.slice(HERE), organ()[HERE])
    return hand


def labels(hand, values) -> None:
    """Put labels into slices, by index, as a script would."""
    for index, one in values.items():
        hand.layer.data[index] = one
    hand.layer.refresh()
    hand.controller.flush()


def thirds() -> np.ndarray:
    """Class 1 in the upper third, class 2 in the middle one, nothing below."""
    values = np.zeros((64, 64), np.uint16)
    values[:20], values[20:40] = 1, 2
    return values


# --- the smart brush ---


def test_a_smart_stroke_stops_at_the_edge_while_it_is_drawn_and_is_one_action(panel, hand):
    click(panel.label.smart_button)
    settle()
    assert panel.label.smart_button.isChecked()
    assert not panel.label.paint_button.isChecked()
    assert not panel.label.smart_options.isHidden()
    shown = []
    hand.draw((20, 27), (40, 29), seen=lambda: shown.append(hand.here.copy()))
    (during,) = shown
    assert (during[20:41, 25:EDGE] == 1).mean() > 0.98
    assert not during[:, EDGE:].any()
    book = hand.controller.session.labels
    assert np.array_equal(book.manual(HERE), during)
    hand.press(Qt.Key.Key_Z, held=Qt.KeyboardModifier.ControlModifier)
    assert not hand.here.any()
    assert book.labelled == []
    # Each stroke has a start of its own.
    hand.draw((15, 29), (20, 29))
    hand.draw((45, 35), (50, 35))
    assert not hand.here[:30, EDGE:].any()
    assert not hand.here[35:, :EDGE].any()
    assert hand.here[45:51, EDGE : EDGE + 4].all()
    hand.clear()
    hand.draw((30, -6), (30, 1), (30, 20), (30, 40))  # the first pixel of the image that it meets
    assert (hand.here[30, 4:EDGE] == 1).all()
    assert not hand.here[:, EDGE:].any()
    hand.clear()
    click(panel.label.paint_button)
    hand.draw((20, 28), (40, 28))
    assert hand.here[20:41, EDGE : EDGE + 2].all()


def test_tolerance_and_intensity_range_decide_what_is_painted(panel, hand, said):
    click(panel.label.smart_button)
    settle()
    options = panel.label.smart_options
    options.tolerance.setFocus()
    QTest.keyClick(options.tolerance, Qt.Key.Key_Home)
    assert hand.controller.paint_rules.tolerance == 0.25
    hand.draw((20, 20), (40, 20))
    few = int((hand.here == 1).sum())
    hand.clear()
    QTest.keyClick(options.tolerance, Qt.Key.Key_End)
    assert hand.controller.paint_rules.tolerance == 10
    hand.draw((20, 20), (40, 20))
    assert (hand.here == 1).sum() > 2 * few
    hand.clear()
    options.limited.click()
    settle()
    assert options.low.isEnabled()
    options.low.setValue(50)
    options.high.setValue(300)
    settle()
    hand.draw((20, 20), (40, 20))
    painted = hand.here == 1
    assert painted.any()
    assert organ()[HERE][painted].min() >= 50
    options.low.setValue(200)
    settle()
    before, steps = hand.here.copy(), hand.steps()
    hand.draw((50, 20), (55, 20))
    assert np.array_equal(hand.here, before)
    assert hand.steps() == steps
    assert "intensity range" in said[-1]


def test_the_key_switches_the_smart_brush_and_the_eraser_stays_plain(panel, hand):
    hand.press(Qt.Key.Key_B, held=SHIFT)
    settle()
    assert hand.controller.tools.active == "smart brush"
    assert panel.label.smart_button.isChecked()
    labels(hand, {HERE: np.ones((64, 64), np.uint16)})
    hand.press(Qt.Key.Key_E)
    hand.draw((20, 30), (40, 30))
    assert not hand.here[20:41, 28 : EDGE + 3].any()  # over the edge
    hand.press(Qt.Key.Key_B, held=SHIFT)
    assert hand.controller.tools.active == "smart brush"
    hand.press(Qt.Key.Key_B, held=SHIFT)
    assert hand.controller.tools.active == "brush"


def test_smart_strokes_and_the_rule_hold_across_slices(panel, hand):
    click(panel.label.smart_button)
    hand.layer.n_edit_dimensions = 3
    hand.draw((20, 28), (30, 28))
    painted = [index for index in range(6) if hand.layer.data[index].any()]
    assert len(painted) > 1
    assert not hand.layer.data[:, :, EDGE:].any()
    assert hand.controller.session.labels.labelled == painted
    hand.layer.undo()
    assert not hand.layer.data.any()
    click(panel.label.paint_button)
    labels(hand, {index: thirds() for index in range(6)})
    rule(panel, "only what is free")
    hand.controller.labels.select_class(3)
    hand.draw((30, 30), (50, 30))
    changed = hand.layer.data != thirds()
    assert changed.any(axis=(1, 2)).sum() > 1
    assert not changed[:, :40].any()


@pytest.mark.usefixtures("case")
def test_colour_and_pictures_of_different_sizes(panel, controller, tmp_path, qtbot):
    from PIL import Image

    for name, size in (("a", (64, 64)), ("b", (40, 44)), ("c", (64, 64))):
        picture = np.zeros((*size, 3), np.uint8)
        picture[:, :20], picture[:, 20:] = (180, 40, 40), (40, 180, 40)  # of one brightness
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    controller.cases.open_path(tmp_path, background=False)
    settle()
    hand = Hand(controller, qtbot)
    hand.fit()
    hand.layer.brush_size = 13
    controller.view.go_to(1)
    click(panel.label.smart_button)
    hand.draw((20, 10), (20, 18), (36, 18))
    shown = hand.layer.data[1]
    assert (shown[20, 8:20] == 1).all()
    assert not shown[:, 20:].any()
    hand.draw((36, 30), (44, 42))  # over the corner of the picture
    assert not shown[40:].any()
    assert not shown[:, 44:].any()
    assert (shown[34:40, 30:36] == 1).any()
    assert controller.session.labels.labelled == [1]


# --- paint over ---


def test_the_brush_the_smart_brush_and_the_eraser_follow_the_rule(panel, hand):
    labels(hand, {HERE: thirds()})
    rule(panel, "only what is free")
    hand.controller.labels.select_class(3)
    hand.draw((10, 30), (60, 30))
    assert np.array_equal(hand.here[:40], thirds()[:40])
    assert (hand.here[42:60, 30] == 3).all()
    labels(hand, {HERE: thirds()})
    click(panel.label.smart_button)
    hand.draw((45, 28), (30, 28))
    changed = hand.here != thirds()
    assert changed[41:46, 26:EDGE].all()
    assert not changed[:40].any()
    assert not changed[:, EDGE:].any()
    click(panel.label.paint_button)
    labels(hand, {HERE: thirds()})
    rule(panel, "only class 2")
    hand.draw((10, 30), (60, 30))
    changed = hand.here != thirds()
    assert (thirds()[changed] == 2).all()
    assert (hand.here[21:39, 30] == 3).all()
    for text, erased in (("everything", {1, 2}), ("only what is free", {1}), ("only class 2", {2})):
        labels(hand, {HERE: thirds()})
        hand.controller.labels.select_class(1)
        rule(panel, text)
        click(panel.label.erase_button)
        hand.draw((10, 30), (35, 30))
        changed = hand.here != thirds()
        assert set(np.unique(thirds()[changed])) == erased, text
        assert not hand.here[changed].any()


def test_a_polygon_of_the_mouse_follows_the_rule_and_is_one_action(panel, hand):
    labels(hand, {HERE: thirds()})
    rule(panel, "only class 1")
    hand.controller.labels.select_class(3)
    click(panel.label.polygon_button)
    settle()
    assert panel.label.polygon_button.isChecked()
    steps = hand.steps()
    for place in ((5, 10), (5, 50), (35, 50), (35, 10)):
        hand.draw(place)
    hand.press(Qt.Key.Key_Return)
    hand.controller.flush()
    changed = hand.here != thirds()
    assert changed[6:20, 12:48].all()
    assert not changed[20:].any()
    assert hand.steps() == steps + 1
    hand.layer.undo()
    assert np.array_equal(hand.here, thirds())


def test_the_outline_that_fills_itself_follows_the_rule_and_esc_drops_it(panel, hand, said):
    if not hand.controller.paint_rules.has_outline:
        pytest.skip("this napari has no outline")
    labels(hand, {HERE: thirds()})
    rule(panel, "only what is free")
    hand.controller.labels.select_class(3)
    click(panel.label.outline_button)
    assert said[-1].startswith("Outline: right-click on the edge")
    hand.layer.brush_size = 3
    around = ((30, 30), (30, 50), (45, 50), (60, 50), (60, 30), (60, 10), (45, 10), (34, 10), (30, 10))
    for smart in (False, True):
        if smart:
            click(panel.label.smart_button)
            hand.controller.paint_rules.set_limits((0.0, 100.0))
        steps = hand.steps()
        hand.draw((30, 10), button=RIGHT)
        for place in around:
            hand.move(place)
        hand.controller.flush()
        changed = hand.here != thirds()
        assert changed[42:58, 14:30].all()
        assert not changed[:40].any()
        assert changed[42:58, EDGE + 2 : 46].any() != smart  # bright: outside the range
        assert hand.steps() == steps + 1
        hand.layer.undo()
        assert np.array_equal(hand.here, thirds())
    hand.draw((30, 10), button=RIGHT)
    for place in ((45, 20), (55, 30)):
        hand.move(place)
    assert not np.array_equal(hand.here, thirds())
    hand.press(Qt.Key.Key_Escape)
    hand.controller.flush()
    assert np.array_equal(hand.here, thirds())


def test_the_fill_bucket_follows_the_rule_and_does_not_ask_in_vain(panel, hand, said, monkeypatch):
    monkeypatch.setattr("napari_dinoaugseg.gui.view.confirmed", lambda *_: pytest.fail("asked"))
    labels(hand, {HERE: np.where(thirds() == 0, 1, thirds()).astype(np.uint16)})
    before, steps = hand.here.copy(), hand.steps()
    rule(panel, "only class 2")
    hand.controller.labels.select_class(3)
    click(panel.label.bucket_button)
    settle()
    assert panel.label.bucket_button.isChecked()
    hand.draw((10, 30))
    hand.qtbot.wait(60)
    assert np.array_equal(hand.here, before)
    assert hand.steps() == steps
    assert any("only over class 2" in text for text in said)
    hand.draw((30, 30))
    assert (hand.here[20:40] == 3).all()
    assert np.array_equal(hand.here != before, before == 2)


def test_a_stroke_that_changes_nothing_is_no_action_and_is_explained(panel, hand, said):
    labels(hand, {HERE: thirds()})
    rule(panel, "only what is free")
    steps = hand.steps()
    hand.controller.labels.select_class(3)
    hand.draw((10, 30), (12, 30))
    assert hand.steps() == steps
    assert [text for text in said if text.startswith("Nothing changed here")] == [
        "Nothing changed here: paint goes only over what is free ('Paint over' in the Label section)."
    ]
    hand.layer.undo()
    assert not hand.here.any()  # what was there before the stroke


def test_napari_s_own_switch_and_the_rule_are_one_and_painted_background_is_free(panel, hand):
    hand.press(Qt.Key.Key_B)
    settle()
    assert hand.controller.paint_rules.over == FREE
    assert panel.label.paint_over.choice.currentText() == "only what is free"
    hand.controller.labels.mark_empty(HERE)
    assert (hand.here == BACKGROUND).all()
    hand.draw((10, 30), (20, 30))
    assert (hand.here[10:21, 30] == 1).all()
    assert hand.layer.preserve_labels
    rule(panel, "only class 1")
    assert not hand.layer.preserve_labels
    rule(panel, "only what is free")
    assert hand.layer.preserve_labels
    hand.press(Qt.Key.Key_B)
    settle()
    assert panel.label.paint_over.choice.currentText() == "everything"


def test_the_rule_lasts_as_long_as_its_class_and_its_case(panel, hand, said, blob_files):
    rule(panel, "only class 3")
    hand.controller.labels.remove_class(3)
    settle()
    rules, choice = hand.controller.paint_rules, panel.label.paint_over.choice
    assert rules.over.is_everything
    assert choice.currentText() == "everything"
    assert any("paint goes over everything again" in text for text in said)
    labels(hand, {HERE: thirds()})
    rule(panel, "only what is free")
    hand.controller.viewer.layers.remove(hand.layer)
    hand.controller.view.restore_layers()
    settle()
    hand.layer.brush_size = 13
    hand.draw((10, 30), (60, 30))
    assert np.array_equal(hand.here[:40], thirds()[:40])
    assert (hand.here[45:58, 30] == 1).all()
    click(panel.label.smart_button)
    rules.set_tolerance(5.0)
    hand.controller.cases.open_path(blob_files[0], background=False, plane="axial")
    settle()
    assert rules.over.is_everything
    assert not rules.is_smart
    assert rules.limits is None
    assert rules.tolerance == 5.0
    assert choice.currentText() == "everything"
    assert panel.label.paint_button.isChecked()
    assert panel.label.smart_options.isHidden()
    assert not hand.layer.preserve_labels


def test_a_script_that_writes_voxels_is_not_filtered_and_a_layer_that_is_given_up_is_napari_s_again(panel, hand):
    labels(hand, {HERE: thirds()})
    rule(panel, "only class 2")
    click(panel.label.smart_button)
    layer = hand.layer
    layer.data_setitem((np.array([HERE]), np.array([10]), np.array([10])), 3)
    layer.data[HERE, 11, 10] = 3
    layer.refresh()
    hand.controller.flush()
    assert (hand.controller.session.labels.manual(HERE)[10:12, 10] == 3).all()
    layer.data = np.zeros((2, 3, 4), np.uint16)
    assert hand.controller.layers.manual is None
    settle()
    layer.paint((1, 1, 1), 1)
    assert layer.data.any()


# --- keys ---


def test_keys_select_the_next_and_the_previous_class(hand):
    seen = []
    for _ in range(3):
        hand.press(Qt.Key.Key_K)
        seen.append(hand.layer.selected_label)
    hand.press(Qt.Key.Key_K, held=SHIFT)
    assert seen == [2, 3, 1]
    assert hand.controller.labels.selected_class == 3
    hand.controller.labels.select_class(0)  # the eraser
    hand.press(Qt.Key.Key_K)
    assert hand.controller.labels.selected_class == 3


def test_the_class_under_the_cursor_is_picked_painted_or_predicted(hand, said):
    labels(hand, {HERE: thirds()})
    hand.move((30, 30))
    hand.press(Qt.Key.Key_I)
    assert hand.controller.labels.selected_class == 2
    hand.move((50, 30))
    hand.press(Qt.Key.Key_I)
    assert hand.controller.labels.selected_class == 2
    assert said[-1] == "No class lies under the cursor."
    labels(hand, {HERE: np.zeros((64, 64), np.uint16)})
    hand.controller.session.labels.set_prediction(HERE, np.full((64, 64), 3, np.uint16), 0.9)
    hand.controller.layers.show_predictions([HERE])
    hand.press(Qt.Key.Key_I)
    assert hand.controller.labels.selected_class == 3


# --- speed ---


@pytest.mark.usefixtures("case")
def test_a_movement_of_the_smart_brush_takes_less_than_20_ms_at_512(panel, controller, tmp_path):
    rng = np.random.default_rng(1)
    path = write_nifti(tmp_path / "large.nii.gz", rng.normal(100, 10, (512, 512, 3)).astype(np.float32), np.eye(4))
    controller.cases.open_path(path, background=False, plane="axial")
    settle()
    hand, layer = Hand(controller, None), controller.layers.manual
    layer.brush_size = 41
    controller.view.go_to(1)
    controller.paint_rules.paint_over(FREE)
    click(panel.label.smart_button)
    QTest.mousePress(hand.native, LEFT, pos=hand.at(200, 200))
    spent = []
    for step in range(10):
        start = time.process_time()
        layer._draw(1, (1, 200, 200 + 20 * step), (1, 200, 220 + 20 * step))  # what a movement of 20 pixels calls
        spent.append(time.process_time() - start)
    QTest.mouseRelease(hand.native, LEFT, pos=hand.at(200, 200))
    assert layer.data[1].any()
    assert np.median(spent) < 0.02
