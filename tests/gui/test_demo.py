"""The demo with a window: the panel and the sample case in a real viewer; without one, nothing is opened."""

from __future__ import annotations

import pytest

from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.gui.demo import has_display, open_demo, show_whole_panel

pytestmark = pytest.mark.filterwarnings("ignore:System theme detection")


def test_the_demo_opens_the_panel_with_the_sample(viewer, wait, qtbot):
    panel = open_demo(viewer, {"encoder": "efficientnet-lite0", "seed": 3}, "fast", None, "cpu")
    controller = panel.controller
    wait(controller)
    assert controller.session.case.n_slices == 140
    assert controller.setup.settings.seed == 3
    assert controller.session.settings.preset == "fast"
    assert controller.setup.device == "cpu"
    assert {"brain template", "manual", "prediction"} <= {layer.name for layer in viewer.layers}
    assert [entry.name for entry in controller.session.labels.classes] == ["grey matter", "white matter"]
    panel.refresh()
    assert panel.advice.text().startswith("2. Paint 'grey matter' and 'white matter' on one slice")
    window = viewer.window._qt_window
    window.resize(1280, 720)
    window.show()
    button = panel.head.train_button
    assert panel.rect().contains(button.mapTo(panel, button.rect().bottomRight()))
    assert button.isVisible()
    window.resize(1000, 600)
    show_whole_panel(viewer)
    brush, view = panel.label.paint_button, panel.scroll_area.viewport()
    qtbot.waitUntil(lambda: view.rect().contains(brush.mapTo(view, brush.rect().bottomRight())))


def test_settings_that_do_not_exist_open_nothing(viewer):
    with pytest.raises(SettingsError, match="Unknown preset"):
        open_demo(viewer, {}, "best", None, "cpu")
    assert len(viewer.layers) == 0


def test_there_is_a_display_here():
    assert has_display()


@pytest.mark.parametrize("name", ["", ":987"])
def test_a_display_that_is_not_there_is_noticed(monkeypatch, name):
    monkeypatch.setenv("DISPLAY", name)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_display()
