"""What is read off the window: slices counted from 1 everywhere, the place under the cursor, names, the scale bar."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QLabel, QLineEdit, QToolTip

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.array import case_from_array
from napari_dinoaugseg.errors import LabelError, naming_slices
from napari_dinoaugseg.gui.canvas import canvas_widget, scale_bar, slice_sliders
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.keys import accept_and_go_on
from napari_dinoaugseg.gui.reading import SLICE_LABEL, in_view, position_in_words
from napari_dinoaugseg.gui.words import in_words, slice_name
from tests.gui.conftest import hover, settle

pytestmark = [pytest.mark.shared_window, pytest.mark.filterwarnings("ignore:System theme detection")]


def on_canvas(controller) -> str:
    label = canvas_widget(controller.viewer).findChild(QLabel, SLICE_LABEL)
    return "" if label.isHidden() else label.text()


def slider_of(controller):
    (shown,) = [slider for slider in slice_sliders(controller.viewer) if not slider.isHidden()]
    return shown


def test_a_slice_has_one_number_in_the_window(controller, case, panel, said, qtbot, monkeypatch):
    """On the canvas, on napari's slider, in the status bar, in the strip, in the panel and in errors of the engine."""
    book, tips = controller.session.labels, []
    monkeypatch.setattr(QToolTip, "showText", lambda _place, text, *_: tips.append(text))
    book.set_prediction(5, np.ones(case.slice_shape(5), np.uint16), 0.9)
    controller.layers.show_predictions([5])
    controller.touch(Change.PREDICTIONS)
    controller.view.go_to(5)
    panel.folds["Review"].set_open(True)
    settle()
    assert on_canvas(controller) == "slice 6 of 16"
    slider = slider_of(controller)
    assert (slider.curslice_label.text(), slider.totslice_label.text()) == ("6", "16")
    assert "slice 6" in panel.review.state_text.text()
    strip = panel.label.strip
    panel.scroll_area.ensureWidgetVisible(strip)
    hover(strip, QPoint(round(5.5 / 16 * strip.width()), strip.height() // 2), lambda: tips)
    assert tips[-1].startswith("slice 6: predicted")
    canvas = canvas_widget(controller.viewer)
    qtbot.mouseMove(canvas, QPoint(canvas.width() // 2, canvas.height() // 2))
    controller.viewer.mouse_over_canvas = True
    controller.viewer.update_status_from_cursor()  # what napari's thread does, which its fixture keeps from starting
    text = controller.viewer.status["coordinates"]
    assert text.startswith("slice 6   ")
    assert re.search(r"[RL] [\d.]+  [AP] [\d.]+  [HF] [\d.]+ mm   \S+   class 1 \(predicted\)$", text)
    controller.guarded(accept_and_go_on, controller)
    assert said[-1].startswith("Slice 6 accepted")
    controller.view.go_to(2)
    controller.guarded(accept_and_go_on, controller)
    assert said[-1].startswith("Slice 3 has no prediction")
    with pytest.raises(LabelError, match=r"^Slice 2 has no prediction"):  # for scripts and the command
        book.accept(2)
    controller.view.next_suggested()
    assert said[-1].startswith(f"Slice {controller.current_slice + 1}:")
    # A number that is typed beside the slider is the one that is shown there.
    entry: QLineEdit = slider.curslice_label
    for typed, index in (("9", 8), ("99", 15), ("0", 0)):
        entry.setFocus()
        entry.selectAll()
        qtbot.keyClicks(entry, typed)
        qtbot.keyClick(entry, Qt.Key.Key_Return)
        assert controller.current_slice == index
        assert entry.text() == str(index + 1)
    controller.viewer.dims.roll()
    assert on_canvas(controller) == ""
    controller.view.back_to_plane()
    assert on_canvas(controller) == "slice 1 of 16"
    assert scale_bar(controller.viewer).visible
    image = controller.layers.image
    controller.cases.close()
    settle()
    assert not scale_bar(controller.viewer).visible
    assert on_canvas(controller) == ""
    controller.viewer.add_image(np.zeros((4, 5, 6)))
    assert slider_of(controller).totslice_label.text() == "3"  # napari's own way again
    assert "get_status" not in vars(image)


@pytest.mark.parametrize(
    ("turn", "expected"), [(np.eye(3), "R 11.0  P 6.0  H 9.0 mm"), (np.diag([-1, 1, 1]), "L 31.0  P 6.0  H 9.0 mm")]
)
def test_a_place_is_that_of_the_patient_where_the_file_tells(tmp_path, turn, expected):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([2.0, 3.0, 4.0]), (-21 if turn[0, 0] < 0 else 1, -15, 1)
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.zeros((12, 12, 6), np.int16), affine), path)
    case = open_case(path, plane="native")
    assert position_in_words(case, 2, 3, 5) == expected
    assert in_view(case, 2) == "slice 3 of 6"


def test_a_place_on_a_picture_is_counted_from_its_corner(tmp_path):
    for name in ("a.png", "b.png"):
        Picture.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / name)
    case = open_case(tmp_path)
    assert position_in_words(case, 1, 3.2, 7.4) == "x 7  y 3 px"
    assert in_view(case, 1) == "b.png  (picture 2 of 2)"
    assert slice_name(case, 1) == "b.png"
    assert position_in_words(case_from_array(np.zeros((4, 9, 9)), spacing=(5, 0.5, 2)), 1, 3, 7) == "x 14.0  y 1.5 mm"


def test_engine_messages_count_from_0_and_the_window_from_1():
    message = naming_slices("Slices ", 0, " to ", 4, " of 5 {}.").after("scan.nii: ")
    assert message == "scan.nii: Slices 0 to 4 of 5 {}."
    assert in_words(message) == "scan.nii: Slices 1 to 5 of 5 {}."
    assert in_words(LabelError(message)) == "scan.nii: Slices 1 to 5 of 5 {}."
