"""Frozen encoders by name: from a slice to four feature maps."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_dinoaugseg.errors import Hint, Message, SettingsError, WeightsError
from napari_dinoaugseg.model import hub
from napari_dinoaugseg.model.specs import ENCODERS, EncoderSpec, build_trunk
from napari_dinoaugseg.model.weights import fit_weights, has_classifier
from napari_dinoaugseg.native import importing_torch

__all__ = ["ENCODERS", "Encoder", "EncoderSpec", "WeightsState", "load_encoder", "resolve_encoder", "weights_state"]

WeightsState = Literal["local", "download", "package", "missing"]
Say = Callable[[str], None]

_FALLBACK = "efficientnet-lite0"
_DINOV3 = tuple(name for name in ENCODERS if name.startswith("dinov3"))


class Encoder:
    """A frozen encoder with its weights.

    Attributes:
        spec: which one it is.
        fingerprint: its name and a hash of the weights that make the maps, whatever file they came from.
    """

    _model: Any  # timm's, which has no types
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        spec: EncoderSpec,
        state: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
        *,
        read_again: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        """Build the encoder.

        Args:
            spec: which one.
            state: the weights under timm's names, complete and of the right shapes (see ``fit_weights``).
            device: where to put them.
            read_again: gives the same weights once more; default: ``state`` itself, which is kept for that.
        """
        self.spec = spec
        self.fingerprint = f"{spec.name}:{_hash(state)}"
        self._read_again = read_again or (lambda: state)
        self._build(state)
        self.to(device)

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the four maps."""
        return self.spec.channels

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Strides of the four maps: 4, 8, 16 and 32."""
        return self.spec.strides

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._mean.device

    def to(self, device: torch.device | str) -> Encoder:
        """Move the weights; returns itself."""
        self._model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def restart_on_cpu(self) -> None:
        """Go on with the CPU from weights read anew: a device that failed, or is full, may not give them back.

        Raises:
            WeightsError: the weights are not there any more, or are others now.
        """
        state = self._read_again()
        if self.fingerprint != f"{self.spec.name}:{_hash(state)}":
            msg = f"The weights of {self.spec.name} changed while they were in use. Open the case again."
            raise WeightsError(msg)
        self._build(state)

    def _build(self, state: Mapping[str, Tensor]) -> None:
        model = build_trunk(self.spec)
        model.load_state_dict(state, strict=True, assign=True)
        # With channels last and without a BatchNorm of its own, efficientnet-lite0 takes a third to a half of the time
        # on a CPU, with the same maps to a millionth of their range.
        self._model = _fold_batch_norm(model)
        self._mean = torch.tensor(self.spec.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(self.spec.std).view(1, 3, 1, 1)

    # Not inference_mode: its tensors could not be trained on, and it is no faster here (within 2 %).
    @torch.no_grad()
    def encode(self, batch: Tensor, *, exact: bool = False) -> list[Tensor]:
        """Raw stage maps of pictures.

        Args:
            batch: (B, 3, H, W) values from 0 to 1, H and W multiples of 32, on any device.
            exact: compute as PyTorch does without being told otherwise; else a graphics card takes a short cut that is
                as exact as half precision.

        Returns:
            Four float32 maps (B, C, H / stride, W / stride) on the encoder's device.

        Raises:
            ValueError: another shape.
        """
        if batch.ndim != 4 or batch.shape[1] != 3 or batch.shape[2] % 32 or batch.shape[3] % 32:
            msg = f"the encoder needs (B, 3, H, W) with H and W multiples of 32, not {tuple(batch.shape)}"
            raise ValueError(msg)
        pictures = (batch.to(self.device, torch.float32) - self._mean) / self._std
        if self.device.type != "mps":
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        with nullcontext() if exact else _quick_products(self.device):
            maps: list[Tensor] = self._model.forward_intermediates(
                pictures, indices=4, stop_early=True, intermediates_only=True
            )
        return maps


def weights_state(name: str) -> WeightsState:
    """Where the weights of an encoder are: "local" is the hub's cache on this machine.

    Nothing is asked of the network: "download" means that nobody forbade it.
    """
    spec = _spec(name)
    if hub.in_package(spec):
        return "package"
    if hub.in_cache(spec):
        return "local"
    return "download" if spec.source == "hub" and not hub.is_forbidden() else "missing"


def resolve_encoder(name: str, *, weights: Path | None = None, device_type: str = "cpu", say: Say | None = None) -> str:
    """The encoder that "auto" stands for here; any other known name stays as it is.

    With a weights file, "auto" is the encoder that it belongs to. Otherwise it takes what is on this machine: DINOv3
    from the hub's local cache (on a CPU the smallest there, else the largest), then efficientnet-lite0, which is said.
    The network is never used for it: to download DINOv3, name it.

    Raises:
        SettingsError: no encoder has that name.
        WeightsError: the weights file fits none, or no weights are on this machine.
    """
    if name != "auto":
        return _spec(name).name
    if weights is not None:
        return fit_weights(weights)[0].name
    on_cpu = device_type == "cpu"
    for candidate in _DINOV3 if on_cpu else reversed(_DINOV3):
        if hub.in_cache(ENCODERS[candidate]):
            return candidate
    tiny = ENCODERS[_DINOV3[0]]
    facts = {"encoder": tiny.name, "megabytes": tiny.megabytes, "licence": tiny.licence, "url": tiny.licence_url}
    if hub.in_package(ENCODERS[_FALLBACK]):
        none = "No DINOv3 weights are on this machine"
        using = f"using {_FALLBACK}, a small encoder trained on ImageNet."
        (say or _tell)(Message(f"{none}: {using}", Hint.GET_DINOV3, **facts))
        return _FALLBACK
    msg = f"No encoder weights are on this machine.\nInstall the offline encoder ({hub.OFFLINE_EXTRA})."
    raise WeightsError(msg, Hint.GET_DINOV3, **facts)


def load_encoder(
    name: str,
    *,
    weights: Path | None = None,
    device: torch.device | str = "cpu",
    say: Say | None = None,
) -> Encoder:
    """An encoder with its weights: from a named file, else the hub's local cache or the package, else the hub.

    Args:
        name: one of ``ENCODERS``.
        weights: a file or folder in timm's, Meta's or transformers' layout.
        device: where to put it.
        say: gets sentences for the person (the licence before a download); default: standard error.

    Raises:
        SettingsError: no encoder has that name.
        WeightsError: the weights cannot be had, are damaged, or belong to another encoder.
    """
    spec, say = _spec(name), say or _tell
    path = weights or hub.in_package(spec) or hub.in_cache(spec)
    if path is None:
        if spec.source == "package":
            msg = f"The weights of {spec.name} are in a package that is not installed. Run: {hub.OFFLINE_EXTRA}"
            raise WeightsError(msg, Hint.NAME_WEIGHTS)
        path = hub.download(spec, say)
    _, state = fit_weights(path, spec)
    if weights is not None and spec.source == "hub" and has_classifier(weights):
        say(
            f"{weights}: the file also holds a classifier, which DINOv3 does not have. Check that it is the right file."
        )
    return Encoder(spec, state, device, read_again=lambda: fit_weights(path, spec)[1])


def _spec(name: str) -> EncoderSpec:
    if name not in ENCODERS:
        msg = f"There is no encoder '{name}'. Choose one of: auto, {', '.join(ENCODERS)}."
        raise SettingsError(msg)
    return ENCODERS[name]


def _hash(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits for names, shapes and values, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in state.items():
        if value.is_floating_point():
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _fold_batch_norm(model: nn.Module) -> nn.Module:
    """Let each convolution do the work of the BatchNorm behind it, which is a fixed affine map in a frozen encoder."""
    with importing_torch():
        from timm.layers import BatchNormAct2d

    for module in list(model.modules()):
        before: tuple[str, nn.Conv2d] | None = None
        for name, child in list(module.named_children()):
            if before is not None and isinstance(child, BatchNormAct2d):
                setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(module, name, child.act)
            before = (name, child) if isinstance(child, nn.Conv2d) else None
    return model


@contextmanager
def _quick_products(device: torch.device) -> Iterator[None]:
    """Let a graphics card multiply matrices in TF32, as it convolves: as exact as the features, which are kept in half.

    A DINOv3 ConvNeXt takes a half to a quarter of the time.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
