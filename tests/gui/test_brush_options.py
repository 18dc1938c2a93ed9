"""The size of the brush in mm, as the panel shows and sets it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from tests.case.builders import write_nifti
from tests.gui.conftest import settle

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


@pytest.fixture
def volume(controller, case, tmp_path):
    """Open a volume of 8 slices with a spacing in mm along x, y, z, in the window of the tests before."""

    def opened(spacing, plane="axial"):
        data = np.random.default_rng(0).normal(0, 1, (32, 40, 8)).astype(np.float32)
        path = write_nifti(tmp_path / "volume.nii.gz", data, np.diag([*spacing, 1.0]))
        controller.cases.open_path(path, background=False, plane=plane)
        settle()
        return controller.layers.manual

    return opened


def covers(layer, index: tuple[int, int, int]) -> tuple[int, ...]:
    """How many pixels the brush covers along each axis, as napari paints it."""
    layer.data[...] = 0
    layer.paint(index, 1)
    return tuple(int(layer.data.any(axis=tuple({0, 1, 2} - {axis})).sum()) for axis in range(3))


def test_the_size_is_shown_in_mm_and_set_in_mm(panel, volume):
    layer, size = volume((0.8, 0.8, 3.0)), panel.label.brush_size
    layer.brush_size = 9
    assert size.box.text() == "7.2"
    assert size.uneven.isHidden()
    assert size.covered.text() == "mm, 9 px"
    assert covers(layer, (4, 20, 16)) == (1, 9, 9)
    size.box.setFocus()
    size.box.selectAll()
    QTest.keyClicks(size.box, "10")
    QTest.keyClick(size.box, Qt.Key.Key_Return)
    assert layer.brush_size == 13
    assert size.box.text() == "10.4"  # the nearest size that there is
    assert size.slider.value() == 13
    QTest.keyClick(size.box, Qt.Key.Key_Up)
    assert layer.brush_size == 15


def test_the_slider_and_napari_s_key_change_what_is_shown(panel, volume, controller):
    layer, size = volume((0.5, 0.5, 2.0)), panel.label.brush_size
    size.slider.setValue(20)
    assert layer.brush_size == 20
    assert size.box.text() == "10.5"  # napari paints 21 pixels
    assert covers(layer, (4, 20, 16)) == (1, 21, 21)
    QTest.keyClick(controller.viewer.window._qt_viewer.canvas.native, Qt.Key.Key_BracketRight)
    assert size.covered.text() == "mm, 21 px"
    QTest.keyClick(controller.viewer.window._qt_viewer.canvas.native, Qt.Key.Key_BracketRight)
    assert size.covered.text() == "mm, 23 px"


def test_pixels_that_are_not_square_are_named_along_each_axis(panel, volume):
    layer, size = volume((1.0, 2.0, 3.0)), panel.label.brush_size
    layer.brush_size = 9
    assert covers(layer, (4, 20, 16)) == (1, 5, 9)
    assert size.box.text() == "9.0"
    assert size.covered.text() == "mm, 9 × 5 px"
    assert not size.uneven.isHidden()
    assert "9 × 10 mm" in size.uneven.text()


@pytest.mark.parametrize(("plane", "shown"), [("coronal", "9 × 3 px"), ("sagittal", "9 × 3 px")])
def test_the_spacing_is_that_of_the_plane_in_view(panel, volume, plane, shown):
    layer, size = volume((1.0, 1.0, 3.0), plane), panel.label.brush_size
    layer.brush_size = 9
    assert size.covered.text() == f"mm, {shown}"
    assert size.box.text() == "9.0"


def test_across_slices_all_three_axes_are_named(panel, volume):
    layer, size = volume((1.0, 1.0, 3.0)), panel.label.brush_size
    layer.brush_size, layer.n_edit_dimensions = 9, 3
    assert size.covered.text() == "mm, 9 × 9 × 3 px"
    assert covers(layer, (4, 20, 16)) == (3, 9, 9)


def test_a_case_without_a_spacing_counts_pixels(panel, case, controller, tmp_path):
    for name in "ab":
        Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / f"{name}.png")
    controller.cases.open_path(tmp_path, background=False)
    settle()
    layer, size = controller.layers.manual, panel.label.brush_size
    layer.brush_size = 7
    assert size.box.text() == "7"
    assert size.covered.text() == "px"
    size.box.setValue(15)
    assert layer.brush_size == 15
    assert "no spacing" in size.box.toolTip()
