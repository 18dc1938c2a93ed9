"""Encoders: from a slice to four feature maps."""

from __future__ import annotations

import copy
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
Notify = Callable[[str], None]

_FALLBACK = "efficientnet-lite0"
_DINOV3 = tuple(name for name in ENCODERS if name.startswith("dinov3"))


class Encoder:
    """An encoder with its weights. They are frozen; :meth:`adapted` gives one with others.

    Attributes:
        spec: of the architecture.
        fingerprint: its name and a hash of the weights before the maps, independent of their file.
        changes: the weights that differ from those of the file, by name, on the CPU; empty unless it was adapted.
    """

    _model: Any  # timm's, which has no types
    _mean: Tensor
    _std: Tensor
    _origin: Encoder | None = None  # that it was adapted from

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
            spec: of the architecture.
            state: the weights under timm's names, complete and of the right shapes (see ``fit_weights``).
            device: for the weights.
            read_again: reads the same weights again; default: ``state`` is kept and returned.
        """
        self.spec = spec
        self.changes: Mapping[str, Tensor] = {}
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
        """The device of the weights."""
        return self._mean.device

    def to(self, device: torch.device | str) -> Encoder:
        """Move the weights; returns itself."""
        self._model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def restart_on_cpu(self) -> None:
        """Continue on the CPU with weights from the file, because a failed or full device may not return them.

        Raises:
            WeightsError: the weights file is gone or was changed.
        """
        if self._origin is not None:
            self._origin.restart_on_cpu()
            self._take_from(self._origin)
            return
        state = self._read_again()
        if self.fingerprint != f"{self.spec.name}:{_hash(state)}":
            msg = f"The weights of {self.spec.name} changed while they were in use. Open the case again."
            raise WeightsError(msg)
        self._build(state)

    def _build(self, state: Mapping[str, Tensor]) -> None:
        model = build_trunk(self.spec)
        model.load_state_dict(state, strict=True, assign=True)
        # With channels last and folded BatchNorm, efficientnet-lite0 takes a third to a half of the time on a CPU, with
        # the same maps to a millionth of their range.
        self._model = _fold_batch_norm(model)
        self._mean = torch.tensor(self.spec.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(self.spec.std).view(1, 3, 1, 1)

    def adapted(self, changes: Mapping[str, Tensor]) -> Encoder:
        """This encoder as it came from its file, but for some weights. It shares the memory of the others.

        Args:
            changes: weights by name, among those of :attr:`learnable`; copied. Empty = the encoder of the file.

        Raises:
            ValueError: unknown names, or wrong shapes.
        """
        origin = self._origin or self
        if not changes:
            return origin
        expected = {name: value.shape for name, value in origin.learnable.items()}
        if any(expected.get(name) != value.shape for name, value in changes.items()):
            msg = f"these are not weights of {self.spec.name} that a training may change"
            raise ValueError(msg)
        twin = copy.copy(origin)
        twin._origin = origin
        twin.changes = {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in changes.items()}
        twin.fingerprint = f"{origin.fingerprint}+{_hash(twin.changes)}"
        twin._take_from(origin)
        return twin

    def _take_from(self, origin: Encoder) -> None:
        """Be ``origin``, on its device, but for the changes."""
        shared = {id(value): value for value in (*origin._model.parameters(), *origin._model.buffers())}
        self._model = copy.deepcopy(origin._model, shared)
        changes = {name: value.to(origin.device, copy=True) for name, value in self.changes.items()}
        self._model.load_state_dict(changes, strict=False, assign=True)
        self._model.requires_grad_(False)
        self._mean, self._std = origin._mean, origin._std

    @property
    def learnable(self) -> dict[str, nn.Parameter]:
        """The weights that a training may change, by name: those in use, not copies."""
        named = self._model.named_parameters()
        return {name: value for name, value in named if name.startswith(self.spec.adapts)}

    # Not inference_mode, whose tensors cannot be used in training, and which is not faster here (within 2 %).
    @torch.no_grad()
    def encode(self, batch: Tensor, *, exact: bool = False) -> list[Tensor]:
        """Raw stage maps of images.

        Args:
            batch: (B, 3, H, W) values from 0 to 1, H and W multiples of 32, on any device.
            exact: compute in float32; otherwise a GPU uses TF32, which is as exact as half precision.

        Returns:
            Four float32 maps (B, C, H / stride, W / stride) on the encoder's device.

        Raises:
            ValueError: a wrong shape.
        """
        return self.maps(batch, exact=exact)

    def maps(self, batch: Tensor, *, exact: bool = False) -> list[Tensor]:
        """As :meth:`encode`, with gradients for weights that require them."""
        if batch.ndim != 4 or batch.shape[1] != 3 or batch.shape[2] % 32 or batch.shape[3] % 32:
            msg = f"the encoder needs (B, 3, H, W) with H and W multiples of 32, not {tuple(batch.shape)}"
            raise ValueError(msg)
        images = (batch.to(self.device, torch.float32) - self._mean) / self._std
        if self.device.type != "mps":
            images = images.contiguous(memory_format=torch.channels_last)
        with nullcontext() if exact else _allow_tf32(self.device):
            maps: list[Tensor] = self._model.forward_intermediates(
                images, indices=4, stop_early=True, intermediates_only=True
            )
        return maps


def weights_state(name: str) -> WeightsState:
    """Where the weights of an encoder are, without using the network.

    "local" is the hub's cache on this machine; "download" only means that the network is not forbidden.
    """
    spec = _spec(name)
    if hub.in_package(spec):
        return "package"
    if hub.in_cache(spec):
        return "local"
    return "download" if spec.source == "hub" and not hub.is_forbidden() else "missing"


def resolve_encoder(
    name: str, *, weights: Path | None = None, device_type: str = "cpu", notify: Notify | None = None
) -> str:
    """The encoder that "auto" stands for; any other known name is returned unchanged.

    With a weights file, "auto" is the encoder of those weights. Otherwise it is one with weights on this machine:
    DINOv3 from the hub's local cache (on a CPU the smallest, else the largest), then efficientnet-lite0, with a notice.
    It never uses the network: DINOv3 is only downloaded by name.

    Raises:
        SettingsError: unknown name.
        WeightsError: the weights fit no encoder, or no weights are on this machine.
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
        (notify or _print)(Message(f"{none}: {using}", Hint.GET_DINOV3, **facts))
        return _FALLBACK
    msg = f"No encoder weights are on this machine.\nInstall the offline encoder ({hub.OFFLINE_EXTRA})."
    raise WeightsError(msg, Hint.GET_DINOV3, **facts)


def load_encoder(
    name: str,
    *,
    weights: Path | None = None,
    device: torch.device | str = "cpu",
    notify: Notify | None = None,
) -> Encoder:
    """An encoder with weights from the given file, else the hub's local cache or the package, else the hub.

    Args:
        name: one of ``ENCODERS``.
        weights: a file or folder in timm's, Meta's or transformers' layout.
        device: for the weights.
        notify: receives sentences for the person (the licence before a download); default: standard error.

    Raises:
        SettingsError: unknown name.
        WeightsError: the weights are not available, damaged, or those of another encoder.
    """
    spec, notify = _spec(name), notify or _print
    path = weights or hub.in_package(spec) or hub.in_cache(spec)
    if path is None:
        if spec.source == "package":
            msg = f"The weights of {spec.name} are in a package that is not installed. Run: {hub.OFFLINE_EXTRA}"
            raise WeightsError(msg, Hint.NAME_WEIGHTS)
        path = hub.download(spec, notify)
    _, state = fit_weights(path, spec)
    if weights is not None and spec.source == "hub" and has_classifier(weights):
        notify(
            f"{weights}: the file also holds a classifier, which DINOv3 does not have. Check that it is the right file."
        )
    return Encoder(spec, state, device, read_again=lambda: fit_weights(path, spec)[1])


def _spec(name: str) -> EncoderSpec:
    if name not in ENCODERS:
        msg = f"Unknown encoder '{name}'. Choose one of: auto, {', '.join(ENCODERS)}."
        raise SettingsError(msg)
    return ENCODERS[name]


def _hash(state: Mapping[str, Tensor]) -> str:
    """A hash (16 hexadecimal digits) of names, shapes and values, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in state.items():
        if value.is_floating_point():
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold each BatchNorm, a fixed affine map in a frozen encoder, into the convolution before it."""
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
def _allow_tf32(device: torch.device) -> Iterator[None]:
    """Let a GPU multiply matrices in TF32, as it convolves: as exact as features in half precision.

    A DINOv3 ConvNeXt takes a quarter to a half of the time.
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


def _print(text: str) -> None:
    sys.stderr.write(text + "\n")
