"""`dinoaugseg encoders`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from napari_dinoaugseg.cli.output import print_json, print_text, tell
from napari_dinoaugseg.native import importing_torch

_STATES = {
    "local": "at hand",
    "package": "at hand (installed package)",
    "download": "can be downloaded",
    "missing": "missing: name a file or folder with --weights",
}


def run_encoders(check: str | None, weights: Path | None, device: str, *, as_json: bool) -> None:
    """List the encoders; with ``check`` or ``weights``, also load one and encode a picture of noise."""
    with importing_torch():
        from napari_dinoaugseg.model.encoder import ENCODERS, weights_state

    rows: list[dict[str, Any]] = [
        {
            "name": spec.name,
            "channels": list(spec.channels),
            "weights": weights_state(spec.name),
            "licence": spec.licence,
            "megabytes": spec.megabytes,
        }
        for spec in ENCODERS.values()
    ]
    if check is None and weights is not None:
        check = "auto"
    checked = _check(check, weights, device) if check is not None else None
    if as_json:
        print_json({"encoders": rows, **({"check": checked} if checked else {})})
        return
    for row in rows:
        channels = "/".join(str(number) for number in row["channels"])
        print_text(
            f"{row['name']:<24} {channels:<18} {row['megabytes']:>4} MB  {row['licence']:<16} {_STATES[row['weights']]}"
        )
    if checked:
        print_text(
            f"\n{checked['fingerprint']} works on {checked['device']}: "
            f"a 256 x 256 slice takes {checked['seconds_per_slice']:.3f} s."
        )


def _check(name: str, weights: Path | None, device_name: str) -> dict[str, object]:
    with importing_torch():
        import torch

        from napari_dinoaugseg.learning.fallback import choose_device
        from napari_dinoaugseg.model.encoder import load_encoder, resolve_encoder

    device = choose_device(device_name)
    resolved = resolve_encoder(name, weights=weights, device_type=device.type, notify=tell)
    encoder = load_encoder(resolved, weights=weights, device=device, notify=tell)
    picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    encoder.encode(picture)  # warm-up
    started = time.monotonic()
    for _ in range(3):
        maps = encoder.encode(picture)
    return {
        "name": resolved,
        "fingerprint": encoder.fingerprint,
        "device": str(device),
        "maps": [list(stage.shape[1:]) for stage in maps],
        "seconds_per_slice": round((time.monotonic() - started) / 3, 4),
    }
