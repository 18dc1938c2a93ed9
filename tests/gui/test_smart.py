"""Smart scribble as a person uses it: two strokes of the mouse, an outline, Enter."""

from __future__ import annotations

import threading

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit

from napari_dinoaugseg.errors import SessionError
from napari_dinoaugseg.gui import smart as smart_module
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.session.labels import BACKGROUND, UNKNOWN, Status
from tests.blobs import truth_voxels, write_case
from tests.gui.conftest import dice, paint, settle, wait_idle
from tests.gui.test_project import Hands

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
ENTER, ESCAPE, D, S, Z = (Qt.Key.Key_Return, Qt.Key.Key_Escape, Qt.Key.Key_D, Qt.Key.Key_S, Qt.Key.Key_Z)
PATIENT = 10_000


class Hand:
    """The mouse and the keys over the canvas."""

    def __init__(self, controller, qtbot) -> None:
        self.controller, self.qtbot = controller, qtbot
        self.viewer = controller.viewer
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        controller.layers.manual.brush_size = 1

    def press(self, key, modifier=NONE) -> None:
        self.qtbot.keyClick(self.canvas, key, modifier)

    def undo(self) -> None:
        self.press(Z, Qt.KeyboardModifier.ControlModifier)

    def draw(self, *places: tuple[int, int]) -> None:
        """One stroke through pixels (row, column) of the slice in view."""
        self._move(places[0])
        QTest.mousePress(self.canvas, LEFT, NONE, self._on_canvas(*places[0]))
        for place in places[1:]:
            self._move(place)
        QTest.mouseRelease(self.canvas, LEFT, NONE, self._on_canvas(*places[-1]))

    def _move(self, place: tuple[int, int]) -> None:
        """Move until napari has seen it: of fast movements it leaves some out, and the canvas may just get its size."""
        scale = np.abs(self.controller.layers.manual.scale)

        def is_there() -> bool:
            point = self._on_canvas(*place)
            QTest.mouseMove(self.canvas, point + QPoint(0, 1))
            QTest.mouseMove(self.canvas, point)
            QTest.qWait(8)
            apart = np.abs(np.subtract(self.viewer.cursor.position, self._world(*place)))
            return all(apart[i] < scale[i] / 2 for i in self.viewer.dims.displayed)

        self.qtbot.waitUntil(is_there, timeout=PATIENT)

    def _on_canvas(self, row: int, column: int) -> QPoint:
        """Where the middle of a pixel is on the canvas."""
        world, canvas = self._world(row, column), self.viewer.window._qt_viewer.canvas
        scene = canvas.view.transform * canvas.view.scene.transform
        x, y = scene.map([world[i] for i in self.viewer.dims.displayed[::-1]])[:2]
        return QPoint(round(float(x)), round(float(y)))

    def _world(self, row: int, column: int) -> np.ndarray:
        """Where the middle of a pixel of the slice in view is in the world of napari, (3,)."""
        layers, place = self.controller.layers, [row, column]
        place.insert(layers.axis, layers.current_slice)
        return np.asarray(layers.manual.data_to_world(place))

    def inside(self, mask: np.ndarray) -> None:
        """A stroke along the middle of a mask (H, W)."""
        rows, columns = np.nonzero(mask)
        middle = round(rows.mean())
        self.draw((middle, round(columns.mean()) - 2), (middle, round(columns.mean()) + 2))

    def around(self, mask: np.ndarray) -> None:
        """A loop around a mask (H, W), two pixels outside of it."""
        rows, columns = np.nonzero(mask)
        top, bottom, left, right = rows.min() - 2, rows.max() + 2, columns.min() - 2, columns.max() + 2
        self.draw((top, left), (top, right), (bottom, right), (bottom, left), (top, left))

    def two_strokes(self, mask: np.ndarray) -> None:
        """One inside, the key for the background, one around."""
        self.inside(mask)
        self.press(D)
        self.around(mask)


def outline(controller, index: int) -> np.ndarray:
    """What the layer "proposal" holds of a slice."""
    layer = controller.layers.proposal
    if layer is None:
        return np.zeros(controller.session.case.slice_shape(index), np.uint16)
    return np.moveaxis(layer.data, controller.layers.axis, 0)[index]


def shown(controller, index: int) -> bool:
    return bool(outline(controller, index).any())


def wait_for(qtbot, controller, index: int) -> np.ndarray:
    """The outline of a slice, once it is there for the strokes as they are."""

    def is_there() -> bool:
        smart = controller.smart
        return smart._running is None and not smart._timer.isActive() and shown(controller, index)

    qtbot.waitUntil(is_there, timeout=PATIENT)
    return outline(controller, index).copy()


def wait_for_none(qtbot, controller) -> None:
    layer = controller.layers.proposal
    qtbot.waitUntil(lambda: layer is None or not layer.data.any(), timeout=PATIENT)


@pytest.fixture
def hand(panel, controller, case, qtbot) -> Hand:
    """Smart scribble ticked in the panel, on slice 8 of the blobs, with the classes 1 and 3."""
    controller.session.labels.add_class(number=3)
    controller.labels.show_classes()
    controller.view.go_to(8)
    settle()
    box = panel.label.smart_box
    qtbot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))
    settle()
    assert controller.smart.is_on
    return Hand(controller, qtbot)


@pytest.fixture
def slow(monkeypatch):
    """Completions that wait to be let go."""
    go = threading.Event()
    propose = smart_module.propose

    def waiting(*args):
        go.wait(10)
        return propose(*args)

    monkeypatch.setattr(smart_module, "propose", waiting)
    yield go
    go.set()


def test_two_strokes_and_enter_on_three_slices_and_undo_of_each(hand, controller, truth, qtbot, export, tmp_path):
    book, proposed = controller.session.labels, {}
    for index in (4, 8, 11):
        controller.view.go_to(index)
        hand.two_strokes(truth[index] == 1)
        proposed[index] = wait_for(qtbot, controller, index)
        assert dice(proposed[index] == 1, truth[index] == 1) > 0.9
        assert book.of_slice(index).is_open, "nothing is taken before Enter"
        hand.press(ENTER)
        assert np.array_equal(book.manual(index), proposed[index])
        assert not shown(controller, index)
        assert not (controller.layers.manual.data[index] == BACKGROUND).any(), "the rest of the slice has no colour"
    assert book.open_slices == [index for index in range(16) if index not in (4, 8, 11)]
    mask = tmp_path / "mask.nii.gz"
    export(mask)
    written = controller.session.case.to_slices(np.asarray(nib.load(mask).dataobj).astype(np.uint16))
    for index in (4, 8, 11):
        assert np.array_equal(written[index], proposed[index])
    for index in (11, 8, 4):
        hand.undo()
        assert controller.current_slice == index
        assert set(np.unique(book.manual(index))) == {0, 1, UNKNOWN}
        assert np.array_equal(wait_for(qtbot, controller, index), proposed[index])
        hand.undo()
        assert set(np.unique(book.manual(index))) == {1, UNKNOWN}
        hand.undo()
        assert index not in book.labelled


def test_the_panel_says_what_to_do_next(hand, panel, controller, truth, qtbot):
    qtbot.waitUntil(lambda: "One stroke inside, one of the background" in panel.advice.text(), timeout=PATIENT)
    hand.press(D)
    hand.draw((2, 2), (2, 8))
    qtbot.waitUntil(lambda: "Now a stroke of the class inside it" in panel.advice.text(), timeout=PATIENT)
    hand.undo()
    hand.press(D)
    hand.inside(truth[8] == 1)
    assert set(np.unique(controller.session.labels.manual(8))) == {1, UNKNOWN}, "a stroke is a label when it ends"
    qtbot.waitUntil(lambda: "Now a stroke of the background around it" in panel.advice.text(), timeout=PATIENT)
    assert not controller.layers.proposal.data.any(), "strokes of one class propose nothing"
    assert panel.label.background_button.isVisibleTo(panel.label)
    qtbot.mouseClick(panel.label.background_button, LEFT)
    hand.around(truth[8] == 1)
    wait_for(qtbot, controller, 8)
    qtbot.waitUntil(lambda: "Enter takes the outline, Esc drops it" in panel.advice.text(), timeout=PATIENT)
    # The click on a button has not taken the keys away from the canvas.
    qtbot.keyClick(controller.viewer.window._qt_window.focusWidget(), ENTER)
    assert controller.session.labels.status(8) is Status.MANUAL
    assert not controller.session.labels.of_slice(8).is_open
    qtbot.waitUntil(lambda: "Paint 3 to 5" in panel.advice.text(), timeout=PATIENT)
    assert controller.labels.selected_class == 1, "the brush paints the class again"


@pytest.mark.slow
def test_escape_drops_the_outline_and_keeps_the_strokes(hand, controller, truth, said, qtbot):
    hand.two_strokes(truth[8] == 1)
    wait_for(qtbot, controller, 8)
    strokes = controller.session.labels.manual(8)
    hand.press(ESCAPE)
    assert not shown(controller, 8)
    assert controller.session.labels.manual(8) is strokes
    assert any("Your strokes stay as scribbles" in text for text in said)
    controller.view.go_to(3)
    controller.view.go_to(8)
    settle()
    hand.press(ENTER)
    assert controller.session.labels.manual(8) is strokes, "a dropped outline does not come back by itself"
    hand.draw((2, 2), (2, 8))
    assert dice(wait_for(qtbot, controller, 8) == 1, truth[8] == 1) > 0.9


def test_a_second_class_is_two_more_strokes(hand, controller, truth, qtbot):
    hand.two_strokes(truth[8] == 1)
    first = wait_for(qtbot, controller, 8)
    hand.press(ENTER)
    controller.labels.select_class(3)
    hand.two_strokes(truth[8] == 3)
    qtbot.waitUntil(lambda: (outline(controller, 8) == 3).any(), timeout=PATIENT)
    both = wait_for(qtbot, controller, 8)
    hand.press(ENTER)
    book = controller.session.labels
    assert np.array_equal(book.manual(8), both)
    assert dice(both == 1, first == 1) > 0.95
    assert dice(both == 3, truth[8] == 3) > 0.85
    for _ in range(3):
        hand.undo()
    assert np.array_equal(book.manual(8), first)


@pytest.mark.slow
def test_what_was_painted_before_is_finished(hand, controller, truth, qtbot):
    controller.smart.switch(False)
    painted = np.where(truth == 1, 1, 0).astype(np.uint16)
    painted[8, 20:24, 2:30] = 1
    paint(controller, painted, [8])
    controller.smart.switch(True)
    controller.labels.select_class(3)
    hand.two_strokes(truth[8] == 3)
    proposed = wait_for(qtbot, controller, 8)
    hand.press(ENTER)
    strokes = controller.session.labels.of_slice(8).drawn.marks
    kept = (painted[8] == 1) & (strokes == UNKNOWN)
    assert (proposed[kept] == 1).all()
    assert not (proposed[painted[8] == 0] == 1).any()
    assert np.array_equal(controller.session.labels.manual(8), proposed)


def test_another_slice_while_it_computes(hand, controller, truth, slow, qtbot):
    hand.two_strokes(truth[8] == 1)
    qtbot.waitUntil(lambda: controller.smart._running is not None, timeout=PATIENT)
    hand.press(ENTER)  # in a hurry
    controller.view.go_to(5)
    slow.set()
    qtbot.waitUntil(lambda: controller.smart._running is None, timeout=PATIENT)
    settle()
    assert not controller.layers.proposal.data.any()
    hand.press(ENTER)
    assert controller.session.labels.of_slice(8).is_open, "Enter takes nothing of another slice"
    controller.view.go_to(8)
    before = wait_for(qtbot, controller, 8)
    assert controller.session.labels.of_slice(8).is_open
    controller.view.go_to(5)
    wait_for_none(qtbot, controller)
    controller.view.go_to(8)
    assert np.array_equal(wait_for(qtbot, controller, 8), before)


def test_a_stroke_or_enter_while_it_computes(hand, controller, truth, slow, qtbot):
    hand.two_strokes(truth[8] == 1)
    qtbot.waitUntil(lambda: controller.smart._running is not None, timeout=PATIENT)
    old = controller.smart._running
    hand.draw((2, 2), (2, 8))
    new = (controller.session.labels.manual(8) == 0) & (old.labels != 0)
    assert new.any()
    hand.press(ENTER)
    assert controller.session.labels.of_slice(8).is_open, "the outline of all strokes is not ready"
    assert controller.smart._running is old
    slow.set()
    qtbot.waitUntil(lambda: not controller.session.labels.of_slice(8).is_open, timeout=PATIENT)
    drawn = controller.session.labels.of_slice(8).drawn.marks
    assert (drawn[new] == 0).all()
    assert dice(controller.session.labels.manual(8) == 1, truth[8] == 1) > 0.9


@pytest.mark.slow
def test_another_case_while_it_computes(hand, controller, truth, slow, qtbot, tmp_path):
    hand.two_strokes(truth[8] == 1)
    qtbot.waitUntil(lambda: controller.smart._running is not None, timeout=PATIENT)
    other, _ = write_case(tmp_path, seed=1)
    controller.cases.open_path(other, background=False, plane="axial")
    slow.set()
    qtbot.waitUntil(lambda: controller.smart._running is None, timeout=PATIENT)
    settle()
    assert not controller.layers.proposal.data.any()
    assert controller.session.labels.labelled == []
    controller.view.go_to(8)
    hand.two_strokes(truth[8] == 1)
    wait_for(qtbot, controller, 8)
    hand.press(ENTER)
    assert not controller.session.labels.of_slice(8).is_open


def test_closing_the_case_and_the_viewer_while_it_computes(hand, controller, truth, slow, qtbot):
    assert controller.viewer.layers.selection.active is controller.layers.manual
    hand.two_strokes(truth[8] == 1)
    qtbot.waitUntil(lambda: controller.smart._running is not None, timeout=PATIENT)
    controller.cases.close()
    assert len(controller.viewer.layers) == 0
    controller.dispose()
    slow.set()
    settle()
    assert len(controller.viewer.layers) == 0


@pytest.mark.slow
def test_an_outline_that_is_not_seen_is_not_taken(hand, panel, controller, truth, said, qtbot):
    hand.two_strokes(truth[8] == 1)
    wait_for(qtbot, controller, 8)
    controller.layers.proposal.visible = False
    hand.press(ENTER)
    assert any("outline is hidden" in text for text in said)
    controller.viewer.layers.remove(controller.layers.proposal)
    settle()
    hand.press(ENTER)
    assert controller.session.labels.of_slice(8).is_open
    hand.draw((2, 2), (2, 8))
    wait_for(qtbot, controller, 8)
    controller.viewer.layers.remove(controller.layers.manual)
    wait_for_none(qtbot, controller)
    settle()
    assert controller.session.labels.of_slice(8).is_open
    qtbot.mouseClick(panel.label.restore_button, LEFT)
    wait_for(qtbot, controller, 8)
    hand.press(ENTER)
    assert not controller.session.labels.of_slice(8).is_open


@pytest.mark.slow
def test_rolled_axes_and_another_window(hand, controller, truth, qtbot):
    hand.two_strokes(truth[8] == 1)
    wait_for(qtbot, controller, 8)
    order = controller.viewer.dims.order
    controller.viewer.dims.order = (order[1], order[0], order[2])
    wait_for_none(qtbot, controller)
    controller.view.back_to_plane()
    controller.view.go_to(8)
    wait_for(qtbot, controller, 8)
    controller.view.look_through("-100000,100000")  # everything is the same grey
    qtbot.waitUntil(lambda: controller.smart._shown[0].window == "-100000,100000", timeout=PATIENT)


def test_the_keys_are_napari_s_while_there_is_no_outline(hand, controller, truth, qtbot):
    manual = controller.layers.manual
    bound = lambda: {str(key) for key in manual.keymap} & {"Enter", "Escape"}  # noqa: E731
    assert not bound()
    hand.two_strokes(truth[8] == 1)
    wait_for(qtbot, controller, 8)
    assert bound() == {"Enter", "Escape"}
    manual.mode = "polygon"
    settle()
    assert not bound()
    manual.mode = "paint"
    settle()
    field = QLineEdit()
    controller.viewer.window.add_dock_widget(field, name="another plugin")
    field.setFocus()
    for key in (ENTER, ESCAPE):
        qtbot.keyClick(field, key)
    assert shown(controller, 8)
    assert controller.session.labels.of_slice(8).is_open
    hand.draw((2, 2), (2, 8))  # gives the keys to the canvas again
    wait_for(qtbot, controller, 8)
    qtbot.keyClick(controller.viewer.window._qt_window.focusWidget(), ENTER)
    assert not controller.session.labels.of_slice(8).is_open
    settle()
    assert not bound()


@pytest.mark.slow
def test_the_key_switches_it_off_and_the_strokes_stay(hand, panel, controller, truth, qtbot):
    hand.two_strokes(truth[8] == 1)
    wait_for(qtbot, controller, 8)
    hand.press(S)
    wait_for_none(qtbot, controller)
    settle()
    assert not panel.label.smart_box.isChecked()
    assert controller.session.labels.of_slice(8).is_open
    assert controller.labels.selected_class == 1
    controller.view.go_to(5)
    hand.inside(truth[5] == 1)
    assert not controller.session.labels.of_slice(5).is_open, "strokes are painted as before"
    hand.press(S)
    controller.view.go_to(8)
    wait_for(qtbot, controller, 8)


def test_where_nothing_can_be_painted_it_is_not_switched_on(panel, controller, case, said):
    controller.read_only = "Another window writes these labels."
    controller.touch(Change.SESSION)
    settle()
    assert not panel.label.smart_box.isEnabled()
    assert not controller.smart.switch(True)
    assert not controller.smart.is_on
    assert said[-1] == controller.read_only
    with pytest.raises(SessionError):
        controller.require_writable()


@pytest.mark.slow
def test_a_failure_is_shown_and_the_strokes_stay(hand, controller, truth, failed, monkeypatch, qtbot):
    monkeypatch.setattr(smart_module, "propose", lambda *_: 1 // 0)
    hand.two_strokes(truth[8] == 1)
    qtbot.waitUntil(lambda: bool(failed), timeout=PATIENT)
    settle()
    assert len(set(failed)) == 1  # a long stroke may be read in two parts, each of which fails
    assert controller.session.labels.of_slice(8).is_open


@pytest.mark.slow
def test_the_next_case_of_a_project_takes_over_the_layer_and_the_switch(panel, qtbot, monkeypatch, tmp_path):
    controller = panel.controller
    files = [write_case(tmp_path, seed)[0] for seed in (0, 1)]
    Hands(panel, qtbot, monkeypatch).new(tmp_path / "both", files)
    truth = controller.session.case.to_slices(truth_voxels())
    middle = truth.shape[0] // 2
    controller.view.go_to(middle)
    controller.smart.switch(True)
    settle()
    hand = Hand(controller, qtbot)
    hand.two_strokes(truth[middle] == 1)
    wait_for(qtbot, controller, middle)
    first, layer = controller.session, controller.layers.proposal
    controller.project.step(1)
    wait_idle(qtbot, controller)
    assert controller.session is not first
    assert controller.layers.proposal is layer
    assert not layer.data.any()
    assert [one.name for one in controller.viewer.layers].count("proposal") == 1
    controller.view.go_to(middle)
    hand.two_strokes(truth[middle] == 1)
    proposed = wait_for(qtbot, controller, middle)
    hand.press(ENTER)
    assert np.array_equal(controller.session.labels.manual(middle), proposed)
