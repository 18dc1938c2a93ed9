"""The choice of the encoder and of its weights: files and folders, refusals in the panel's words, the licence."""

from __future__ import annotations

import threading

import huggingface_hub
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_dinoaugseg.gui import case_section
from napari_dinoaugseg.gui.get_encoder import DinoDownload, GetDinov3
from napari_dinoaugseg.gui.words import in_words
from napari_dinoaugseg.model import hub
from tests.gui.conftest import settle, train, wait_idle
from tests.hub_server import COMMIT, serving

pytestmark = pytest.mark.shared_window

TINY = "dinov3-convnext-tiny"


@pytest.fixture
def choice(panel):
    return panel.case.encoder


def choose(qtbot, choice, name):
    """Pick an encoder as with the mouse."""
    choice.names.setCurrentText(name)
    choice.names.activated.emit(choice.names.currentIndex())
    qtbot.waitUntil(lambda: not choice._looking and choice._found["asked"][0] == name, timeout=30_000)
    settle()


def click(qtbot, choice, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    settle()
    qtbot.waitUntil(lambda: not choice._looking and choice._found is not None, timeout=30_000)
    settle()


def test_the_licence_is_folded_away_until_weights_would_be_downloaded(choice, controller, case, qtbot, monkeypatch):
    monkeypatch.setattr(hub, "is_forbidden", lambda: False)
    choose(qtbot, choice, "efficientnet-lite0")
    assert choice.state.text().count("<a ") == 1
    assert len(choice.state.text().partition("<a ")[0]) < 60
    assert choice.fold.isVisibleTo(choice)
    assert not choice.details.isVisibleTo(choice)
    qtbot.mouseClick(choice.fold, Qt.MouseButton.LeftButton)
    assert choice.details.isVisibleTo(choice)
    assert "the package with the weights states none" in choice.details.text()
    qtbot.mouseClick(choice.fold, Qt.MouseButton.LeftButton)
    assert not choice.details.isVisibleTo(choice)

    choose(qtbot, choice, TINY)
    assert "will be downloaded: 111 MB" in choice.state.text()
    assert choice.details.isVisibleTo(choice)
    assert "It is not an open-source licence: read it before you download" in choice.details.text()
    for link in (
        "https://ai.meta.com/",
        "https://huggingface.co/timm/convnext_tiny",
        "https://huggingface.co/facebook/",
    ):
        assert f'href="{link}' in choice.details.text()
    qtbot.mouseClick(choice.fold, Qt.MouseButton.LeftButton)
    choice.refresh()
    assert not choice.details.isVisibleTo(choice)  # what the person folds stays folded


def test_a_folder_with_weights_is_refused_or_taken_and_left_out_again(
    choice, controller, case, qtbot, monkeypatch, tmp_path
):
    asked = []
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *arguments, **_: asked.append(arguments[1]) or str(tmp_path)
    )
    assert not choice.without_button.isVisibleTo(choice)
    narrow = choice.minimumSizeHint().width()
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    click(qtbot, choice, choice.folder_button)
    assert asked == ["Folder with encoder weights (model.safetensors)"]
    assert "it is a Git LFS pointer" in choice.state.text()
    assert choice.without_button.isVisibleTo(choice)
    assert choice.minimumSizeHint().width() == narrow  # or the panel would be cut at its right edge

    (tmp_path / "model.safetensors").unlink()
    from safetensors.torch import save_file
    from timm import create_model

    save_file(create_model("tf_efficientnet_lite0", pretrained=False).state_dict(), tmp_path / "model.safetensors")
    click(qtbot, choice, choice.folder_button)
    assert choice.state.text() == f"weights from {tmp_path.name}"
    assert controller.setup.weights == tmp_path

    click(qtbot, choice, choice.without_button)
    assert controller.setup.weights is None
    assert "on this machine" in choice.state.text()
    assert not choice.without_button.isVisibleTo(choice)


def test_what_was_chosen_while_it_looked_is_looked_at_next(choice, controller, case, qtbot, monkeypatch, tmp_path):
    qtbot.waitUntil(lambda: choice._found is not None and not choice._looking, timeout=30_000)
    bad = tmp_path / "page.pth"
    bad.write_text("<html>")
    choice._look()
    assert choice._looking
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(bad), ""))
    qtbot.mouseClick(choice.file_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "a web page" in choice.state.text(), timeout=30_000)


def test_a_folder_that_is_chosen_again_while_it_looks_is_read_again(
    choice, controller, case, qtbot, monkeypatch, tmp_path
):
    qtbot.waitUntil(lambda: choice._found is not None and not choice._looking, timeout=30_000)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path))
    read, go_on = threading.Event(), threading.Event()
    look = case_section.look_for_weights

    def look_and_wait(*arguments):
        found = look(*arguments)
        read.set()
        assert go_on.wait(30)
        return found

    monkeypatch.setattr(case_section, "look_for_weights", look_and_wait)
    qtbot.mouseClick(choice.folder_button, Qt.MouseButton.LeftButton)
    assert read.wait(30)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    qtbot.mouseClick(choice.folder_button, Qt.MouseButton.LeftButton)
    go_on.set()
    qtbot.waitUntil(lambda: "it is a Git LFS pointer" in choice.state.text(), timeout=30_000)


def test_a_refusal_of_the_hub_reaches_the_panel_in_its_own_words(labelled, said, qtbot, monkeypatch, tmp_path):
    constants = huggingface_hub.constants
    with serving() as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        server.answers(403)
        labelled.setup.change(encoder=TINY)
        train(qtbot, labelled)
        assert server.asked
    (refusal,) = [sentence for sentence in said if "403" in sentence]
    assert "the hub gives no access to timm/convnext_tiny.dinov3_lvd1689m" in refusal
    assert (
        "Without a download, choose a file in the Case section (model.safetensors of https://huggingface.co/timm/"
        in refusal
    )
    assert "choose the encoder efficientnet-lite0" in refusal
    assert "--" not in refusal


def test_the_long_licence_sentence_is_short_in_the_panel():
    from napari_dinoaugseg.model.encoder import resolve_encoder

    told = []
    resolve_encoder("auto", notify=told.append)
    (sentence,) = told
    assert sentence.facts["url"].startswith("https://")
    ours = in_words(sentence)
    assert "https://" not in ours
    assert "press 'Get DINOv3…' in the Case section (a download of 111 MB), or choose a file there." in ours


@pytest.fixture
def near_hub(monkeypatch, tmp_path):
    """A hub on this machine that has the weights, and a cache of its own."""
    constants = huggingface_hub.constants
    with serving() as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("DINOAUGSEG_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        server.answers(200, X_Repo_Commit=COMMIT, ETag='"abc"')
        server.content = b"w" * 12_000_000
        yield server


def answer_the_dialog(monkeypatch, act):
    """What a person does in the dialog; returns what it answers."""
    monkeypatch.setattr(GetDinov3, "exec", act)


def test_get_dinov3_downloads_only_with_consent_and_then_uses_it(
    choice, controller, case, said, near_hub, qtbot, monkeypatch
):
    choose(qtbot, choice, "efficientnet-lite0")
    assert choice.get_button.isVisibleTo(choice)
    assert choice.get_button.isEnabled()
    seen = []

    def look_and_leave(dialog):
        seen.append([made.text() for made in dialog.sizes.values()])
        dialog.show()
        qtbot.mouseClick(dialog.download_button, Qt.MouseButton.LeftButton)  # not before the licence is accepted
        assert not dialog.result()
        assert "DINOv3 License" in dialog.licence.text()
        dialog.reject()
        return 0

    answer_the_dialog(monkeypatch, look_and_leave)
    qtbot.mouseClick(choice.get_button, Qt.MouseButton.LeftButton)
    assert [text.partition(",")[0] for text in seen[0]] == [
        "tiny: 111 MB",
        "small: 198 MB",
        "base: 350 MB",
        "large: 785 MB",
    ]
    assert near_hub.asked == []

    def accept(dialog):
        dialog.show()
        dialog.consent.click()
        qtbot.mouseClick(dialog.download_button, Qt.MouseButton.LeftButton)
        return dialog.result()

    progress = []
    controller.progressed.connect(lambda event: progress.append(event.words))
    answer_the_dialog(monkeypatch, accept)
    qtbot.mouseClick(choice.get_button, Qt.MouseButton.LeftButton)
    wait_idle(qtbot, controller)
    assert progress[-1] == "downloading, 12 of 12 MB"
    assert controller.setup.settings.encoder == TINY
    assert said[-1] == f"{TINY} is on this machine now, and in use from the next training on."
    qtbot.waitUntil(lambda: not choice._looking and choice._found["asked"][0] == TINY, timeout=30_000)
    settle()
    assert "weights are on this machine" in choice.state.text()
    assert not choice.get_button.isVisibleTo(choice)


def test_a_download_can_be_stopped_and_nothing_else_changes(
    choice, controller, case, said, near_hub, qtbot, monkeypatch, tmp_path
):
    choose(qtbot, choice, "efficientnet-lite0")
    answer_the_dialog(monkeypatch, lambda dialog: dialog.consent.click() or 1)
    cancelled = []
    fetch = DinoDownload.fetch

    def stop_at_once(self, spec, then):
        fetch(self, spec, then)
        controller.jobs.stop()
        cancelled.append(spec.name)

    monkeypatch.setattr(DinoDownload, "fetch", stop_at_once)
    qtbot.mouseClick(choice.get_button, Qt.MouseButton.LeftButton)
    wait_idle(qtbot, controller)
    assert cancelled == [TINY]
    assert said[-1] == "The download was stopped; the next one goes on from what was received."
    assert controller.setup.settings.encoder == "efficientnet-lite0"
    assert not list(tmp_path.rglob("model.safetensors"))


def test_where_downloads_are_off_get_dinov3_says_so(choice, controller, case, qtbot, monkeypatch):
    monkeypatch.setattr(hub, "is_forbidden", lambda: True)
    choose(qtbot, choice, "efficientnet-lite0")
    assert choice.get_button.isVisibleTo(choice)
    assert not choice.get_button.isEnabled()
    assert "Downloads are switched off" in choice.get_button.toolTip()
