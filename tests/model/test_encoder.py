from __future__ import annotations

import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch

from napari_dinoaugseg.errors import SettingsError, WeightsError
from napari_dinoaugseg.model import hub
from napari_dinoaugseg.model.encoder import ENCODERS, Encoder, load_encoder, resolve_encoder, weights_state
from napari_dinoaugseg.model.weights import fit_weights

LITE0 = "efficientnet-lite0"
TINY = "dinov3-convnext-tiny"


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    return load_encoder(LITE0)


@pytest.mark.parametrize("name", ENCODERS)
def test_channels_strides_and_normalisation_are_timms(name: str) -> None:
    spec = ENCODERS[name]
    with torch.device("meta"):
        model = timm.create_model(spec.timm_name, pretrained=False, num_classes=0)
    information = model.feature_info[-4:]
    assert spec.channels == tuple(entry["num_chs"] for entry in information)
    assert spec.strides == tuple(entry["reduction"] for entry in information)
    assert (spec.mean, spec.std) == (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    assert model.pretrained_cfg["hf_hub_id"] == (spec.repository if spec.source == "hub" else f"{spec.repository}.in1k")
    assert sum(p.numel() for p in model.parameters()) * 4 / 1e6 == pytest.approx(spec.megabytes, rel=0.3)


def test_every_encoder_says_its_licence() -> None:
    assert {spec.licence for name, spec in ENCODERS.items() if name.startswith("dinov3")} == {"DINOv3 License"}
    assert all(spec.licence and spec.licence_url.startswith("https://") for spec in ENCODERS.values())


def test_the_packages_weights_make_maps_of_the_stated_channels_and_strides(lite0: Encoder) -> None:
    maps = lite0.encode(torch.rand(2, 3, 96, 64))
    assert [tuple(stage.shape) for stage in maps] == [(2, 24, 24, 16), (2, 40, 12, 8), (2, 112, 6, 4), (2, 320, 3, 2)]
    assert all(stage.dtype == torch.float32 and stage.isfinite().all() for stage in maps)
    # Trained weights: an edge stands out against a flat picture.
    flat, edge = torch.full((1, 3, 64, 64), 0.5), torch.full((1, 3, 64, 64), 0.5)
    edge[..., 32:] = 1.0
    inner = lite0.encode(flat)[0][..., 4:12, 4:12], lite0.encode(edge)[0][..., 4:12, 4:12]
    assert inner[1].std(dim=(2, 3)).mean() > 5 * inner[0].std(dim=(2, 3)).mean()


def test_folding_the_batch_norm_keeps_the_maps(lite0: Encoder) -> None:
    path = hub.in_package(ENCODERS[LITE0])
    assert path is not None
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    model.load_state_dict(fit_weights(path)[1], strict=False)
    picture = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.forward_intermediates((picture - 0.5) / 0.5, indices=4, intermediates_only=True)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in lite0._model.modules())
    for ours, theirs in zip(lite0.encode(picture), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_slice_has_the_same_maps_alone_and_in_a_batch(lite0: Encoder) -> None:
    batch = torch.rand(3, 3, 64, 64)
    for together, alone in zip(lite0.encode(batch), lite0.encode(batch[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


def test_the_encoder_is_frozen_but_a_decoder_can_be_trained_on_its_maps(lite0: Encoder) -> None:
    maps = lite0.encode(torch.rand(1, 3, 32, 32))
    assert not any(p.requires_grad for p in lite0._model.parameters())
    torch.nn.Conv2d(24, 2, 1)(maps[0]).sum().backward()


def test_moving_the_encoder_keeps_it_usable(lite0: Encoder) -> None:
    assert lite0.to("cpu") is lite0
    assert lite0.device == torch.device("cpu")


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 60, 64)])
def test_pictures_of_other_shapes_are_refused(shape: tuple[int, ...], lite0: Encoder) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        lite0.encode(torch.zeros(shape))


def test_the_fingerprint_is_the_same_in_every_process(lite0: Encoder) -> None:
    assert lite0.fingerprint == "efficientnet-lite0:a0358dd282dd4b07"
    assert load_encoder(LITE0).fingerprint == lite0.fingerprint


# --- where weights come from ----------------------------------------------------------------------------------------


class Around:
    """What there is on a pretended machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cached: set[str] = set()
        self.online, self.package = False, True
        monkeypatch.setattr(hub, "in_cache", lambda spec: Path("x") if spec.name in self.cached else None)
        monkeypatch.setattr(
            hub, "in_package", lambda spec: Path("x") if self.package and spec.source == "package" else None
        )
        monkeypatch.setattr(hub, "_answers", lambda spec: self.online)
        monkeypatch.setattr(hub, "is_forbidden", lambda: False)

    def resolve(self, name: str = "auto", device: str = "cpu") -> tuple[str, list[str]]:
        said: list[str] = []
        return resolve_encoder(name, weights=None, device_type=device, say=said.append), said


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Around:
    return Around(monkeypatch)


@pytest.mark.parametrize(("device", "chosen"), [("cpu", "dinov3-convnext-small"), ("cuda", "dinov3-convnext-large")])
def test_auto_takes_dinov3_from_the_local_cache(device: str, chosen: str, around: Around) -> None:
    around.cached = {"dinov3-convnext-small", "dinov3-convnext-large", "dinov3-convnext-base"}
    assert around.resolve(device=device) == (chosen, [])


def test_only_loading_an_encoder_by_its_name_asks_the_hub(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hub, "_answers", lambda spec: asked.append(spec.name))
    around.resolve()
    for name in ENCODERS:
        around.resolve(name)
        weights_state(name)
    assert asked == []
    with pytest.raises(WeightsError, match="the hub cannot be reached"):
        load_encoder(TINY, say=pytest.fail)
    assert asked == [TINY]


def test_auto_falls_back_to_efficientnet_and_says_so_in_one_line(around: Around) -> None:
    around.online = True  # still nothing is downloaded that nobody named
    name, said = around.resolve()
    assert name == LITE0
    (line,) = said
    assert LITE0 in line
    assert "DINOv3" in line
    assert "--weights" in line
    assert f"--encoder {TINY} (downloads 111 MB under the DINOv3 License" in line
    assert "\n" not in line


def test_auto_without_any_weights_says_the_two_ways_out(around: Around) -> None:
    around.package = False
    with pytest.raises(WeightsError, match="--weights") as caught:
        around.resolve()
    assert 'pip install "napari-dinoaugseg[offline]"' in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_named_encoder_stays_and_an_unknown_one_is_refused(around: Around) -> None:
    assert around.resolve("dinov3-convnext-large") == ("dinov3-convnext-large", [])
    with pytest.raises(SettingsError, match="There is no encoder 'resnet50'"):
        around.resolve("resnet50")


def test_weights_state_tells_where_weights_are(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_state(LITE0) == "package"
    assert weights_state("dinov3-convnext-base") == "download"
    around.cached, around.package = {TINY}, False
    assert weights_state(TINY) == "local"
    assert weights_state(LITE0) == "missing"
    monkeypatch.setattr(hub, "is_forbidden", lambda: True)
    assert weights_state("dinov3-convnext-base") == "missing"


def test_missing_weights_say_the_ways_out(around: Around) -> None:
    around.package = False
    with pytest.raises(WeightsError, match="--weights") as caught:
        load_encoder(TINY)
    assert LITE0 in str(caught.value)
    with pytest.raises(WeightsError, match="offline"):
        load_encoder(LITE0)


def test_weights_in_the_hubs_own_cache_are_found(
    weights_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--timm--convnext_tiny.dinov3_lvd1689m"
    snapshot = folder / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abcd")
    shutil.copy(weights_files["timm.safetensors"], snapshot / "model.safetensors")
    assert weights_state(TINY) == "local"
    assert resolve_encoder("auto", say=pytest.fail) == TINY
    monkeypatch.setenv("DINOAUGSEG_OFFLINE", "1")
    assert load_encoder(TINY).spec.name == TINY


def test_a_download_says_licence_and_size_first(
    weights_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, around: Around
) -> None:
    around.online = True
    said: list[str] = []

    def fetch(repository: str, name: str) -> str:
        assert len(said) == 1
        assert (repository, name) == ("timm/convnext_tiny.dinov3_lvd1689m", "model.safetensors")
        return str(weights_files["timm.safetensors"])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    load_encoder(TINY, say=said.append)
    assert "DINOv3 License" in said[0]
    assert ENCODERS[TINY].licence_url in said[0]
    assert "111 MB" in said[0]


def test_a_failed_download_is_a_short_error(monkeypatch: pytest.MonkeyPatch, around: Around) -> None:
    around.online = True

    def fetch(repository: str, name: str) -> str:
        msg = "401 Unauthorized\nmany\nmore lines"
        raise OSError(msg)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(WeightsError, match="could not be downloaded: 401") as caught:
        load_encoder(TINY, say=lambda _: None)
    assert len(str(caught.value).splitlines()) == 2


# --- asking the hub -------------------------------------------------------------------------------------------------


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the hub be asked; collects the time-outs. The answer is yes."""
    asked: list[float] = []

    class Answer:
        size = 111_000_000

    def ask(url: str, timeout: float) -> Answer:
        assert "convnext_tiny.dinov3_lvd1689m" in url
        asked.append(timeout)
        return Answer()

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    return asked


def test_offline_by_choice_asks_nobody(questions: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DINOAUGSEG_OFFLINE", "1")
    with pytest.raises(WeightsError, match="downloads are switched off"):
        hub.download(ENCODERS[TINY], pytest.fail)
    monkeypatch.delenv("DINOAUGSEG_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="downloads are switched off"):
        hub.download(ENCODERS[TINY], pytest.fail)
    assert questions == []


def test_weights_read_anew_make_the_same_encoder(lite0: Encoder) -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    encoder = load_encoder(LITE0)
    encoder.to("meta")  # nothing can be read back from there
    encoder.restart_on_cpu()
    assert encoder.device.type == "cpu"
    assert all(torch.equal(a, b) for a, b in zip(encoder.encode(picture), lite0.encode(picture), strict=True))


def test_weights_that_changed_meanwhile_are_not_read_anew(lite0: Encoder) -> None:
    path = hub.in_package(ENCODERS[LITE0])
    assert path is not None
    _, state = fit_weights(path)
    other = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
    encoder = Encoder(ENCODERS[LITE0], state, read_again=lambda: other)
    with pytest.raises(WeightsError, match="changed while they were in use"):
        encoder.restart_on_cpu()


def test_a_hub_that_does_not_answer_is_given_up_in_time(
    questions: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_PATIENCE", 0.1)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: time.sleep(2))
    started = time.monotonic()
    with pytest.raises(WeightsError, match="the hub cannot be reached"):
        hub.download(ENCODERS[TINY], pytest.fail)
    assert time.monotonic() - started < 1


def test_a_refusal_of_the_hub_downloads_nothing(questions: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise OSError("403")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    with pytest.raises(WeightsError, match="the hub cannot be reached"):
        hub.download(ENCODERS[TINY], pytest.fail)
