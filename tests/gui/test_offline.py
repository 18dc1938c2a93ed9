"""The preference to work offline holds as soon as it is chosen, and no longer than it is."""

from __future__ import annotations

import pytest

from napari_dinoaugseg import offline
from napari_dinoaugseg.gui import setup as module
from napari_dinoaugseg.gui.setup import PLUGIN, Preferences, apply_offline
from napari_dinoaugseg.model import hub
from tests.gui.conftest import settle

pytestmark = pytest.mark.shared_window


@pytest.fixture
def page(monkeypatch):
    from napari.settings import get_plugin_settings

    monkeypatch.setattr(module, "_forbidden_here", False)
    found = get_plugin_settings(PLUGIN).computing
    yield found
    found.offline = False


def test_the_preference_reaches_the_engine_at_once(page, panel, case):
    assert not offline.is_offline()
    page.offline = True
    assert offline.is_offline()
    assert hub.is_forbidden()
    page.offline = False
    assert not offline.is_offline()


def test_a_new_panel_works_offline_before_a_case_is_open(page, make_napari_viewer):
    from napari_dinoaugseg.gui.panel import Panel

    page.offline = True
    made = Panel(make_napari_viewer())
    assert offline.is_offline()
    made.controller.dispose()


def test_what_the_environment_forbids_stays_forbidden(monkeypatch):
    monkeypatch.setattr(module, "_forbidden_here", False)
    monkeypatch.setenv(offline.VARIABLE, "1")
    apply_offline(Preferences(offline=True))
    apply_offline(Preferences(offline=False))
    assert offline.is_offline()


def test_a_case_that_is_opened_asks_nothing_of_the_network(controller, panel, case, qtbot, monkeypatch):
    from napari_dinoaugseg.gui.case_section import EncoderChoice

    monkeypatch.setattr(hub, "is_forbidden", lambda: False)
    monkeypatch.setattr(hub, "_ask", lambda spec: pytest.fail("the hub was asked"))
    (choice,) = panel.findChildren(EncoderChoice)
    controller.setup.change(encoder="auto")
    choice._look()
    # A look that began while the case was opened may end first.
    qtbot.waitUntil(lambda: choice._found is not None and choice._found["asked"][0] == "auto", timeout=30_000)
    settle()
    assert "efficientnet-lite0" in choice.state.text()
    controller.setup.change(encoder="dinov3-convnext-tiny")
    settle()
    assert "will be downloaded: 111 MB, under the" in choice.state.text()
    assert "DINOv3 License" in choice.state.text()
