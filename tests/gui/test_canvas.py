"""Texts over the image."""

from __future__ import annotations

import pytest

from napari_dinoaugseg.gui.canvas import qt_viewer, write_on_canvas
from tests.gui.conftest import settle

pytestmark = pytest.mark.shared_window


def test_the_box_behind_a_text_is_rebuilt_only_where_it_changes(panel, controller, case, monkeypatch):
    viewer = controller.viewer

    def write(name, text, position):
        write_on_canvas(viewer, name, text, position)
        settle()
        drawn = qt_viewer(viewer).canvas._viewer_overlay_to_visual
        return drawn[viewer.canvas.overlays[f"dinoaugseg_{name}"]][0].box

    box = write("one", "short", "bottom_left")
    width, rebuilt = box.width, []
    monkeypatch.setattr(box.mesh, "set_data", lambda *_, **options: rebuilt.append(options))
    write("other", "more", "bottom_right")
    assert rebuilt == []
    assert box.parent is not None
    write("one", "a much longer text", "bottom_left")
    assert rebuilt
    assert box.width > 2 * width
    write("one", "", "bottom_left")
    assert box.parent is None
    write("other", "", "bottom_right")
    del viewer.canvas.overlays["dinoaugseg_one"], viewer.canvas.overlays["dinoaugseg_other"]
