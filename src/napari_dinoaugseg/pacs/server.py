"""The connection to a DICOMweb server, and what its failures mean."""

from __future__ import annotations

import importlib.util
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from napari_dinoaugseg.errors import Hint, PacsError
from napari_dinoaugseg.offline import VARIABLE, is_offline

if TYPE_CHECKING:
    from dicomweb_client.api import DICOMwebClient
    from requests import PreparedRequest, Response
    from requests.exceptions import HTTPError, RequestException, SSLError

INSTALL = 'pip install "napari-dinoaugseg[pacs]"'
SECRET_VARIABLE = "DINOAUGSEG_PACS_PASSWORD"  # noqa: S105 - its name
"""Environment variable with a password or token, for scripts."""

_CONNECTING, _WAITING = 10, 120  # seconds
# They log addresses, and searches name patients there; the last one errors, which are raised as ours.
_TALKATIVE = ("dicomweb_client", "urllib3.connectionpool", "retrying")
_UNUSABLE = "Check the address: that of the DICOMweb service often ends in /dicom-web, /dicomweb or /rs."


@dataclass(frozen=True)
class Server:
    """Where a PACS answers, and who asks.

    Attributes:
        url: the base of its DICOMweb services, as ``https://pacs.example.org/dicom-web``.
        user: the name of the person there; empty = `secret` is a bearer token.
        secret: password or token, never shown; empty = none is sent.
        ca: a PEM file with the certificate authorities to trust; None = the public ones.
    """

    url: str
    user: str = ""
    secret: str = field(default="", repr=False)
    ca: Path | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read password and images."""
        return self.url.strip().lower().startswith("https:")


def is_installed() -> bool:
    """Whether the libraries of the extra `pacs` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("dicomweb_client", "keyring"))


def require_usable() -> None:
    """Raise PacsError if the network is forbidden, or the libraries of the extra `pacs` are missing."""
    if is_offline():
        msg = "The PACS was not contacted: the network is switched off."
        raise PacsError(msg, Hint.PACS_WITHOUT_NETWORK, variable=VARIABLE)
    if not is_installed():
        msg = f"A PACS needs dicomweb-client and keyring, which are not installed. Use {INSTALL}."
        raise PacsError(msg)


def checked_url(url: str) -> str:
    """The address without a slash at its end. Raises PacsError unless it is http or https, without a password."""
    text = url.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or re.search(r"\s", text):
        # What was typed is not repeated: it may hold a password.
        msg = "This is not the address of a PACS. Write it as https://pacs.example.org/dicom-web."
        raise PacsError(msg)
    if parts.username is not None or parts.password is not None:
        msg = "Leave user name and password out of the address of the PACS; they are asked for, and not kept in files."
        raise PacsError(msg)
    if parts.query or parts.fragment:
        msg = f"{parts.scheme}://{parts.netloc}{parts.path}: leave out what follows ? or # in the address of the PACS."
        raise PacsError(msg)
    return text


@contextmanager
def connected(server: Server, watch: Callable[[Response], None] | None = None) -> Iterator[DICOMwebClient]:
    """A client of the server; failures of its requests inside the block are raised as PacsError.

    It contacts the host of the address only: redirections and addresses inside answers are not followed.

    Args:
        server: where, and as whom.
        watch: sees each answer before its content is read.

    Raises:
        PacsError: the network is forbidden, the extra is missing, the address or the file of certificates is unusable,
            or a request fails.
    """
    require_usable()
    url = checked_url(server.url)
    import requests
    from dicomweb_client.api import DICOMwebClient
    from requests.utils import get_environ_proxies

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with requests.Session() as session:
        # Passwords from ~/.netrc and certificates from variables would take the place of what the person chose.
        session.trust_env = False
        session.proxies = dict(get_environ_proxies(url))
        session.max_redirects = 0
        session.auth = _signing(server)
        session.verify = str(_readable_ca(server.ca)) if server.ca is not None else True
        session.headers["User-Agent"] = "napari-dinoaugseg"

        def answered(response: Response, *_: object, **__: object) -> None:
            _name_json(response)
            if watch is not None:
                watch(response)

        client = DICOMwebClient(
            url, session=session, callback=answered, permissive_uid=True, timeout=(_CONNECTING, _WAITING)
        )
        client.set_http_retry_params(retry=False)
        try:
            yield client
        except requests.exceptions.RequestException as error:
            raise _explained(url, server, error) from error


def status_of(error: RequestException) -> int:
    """The status of the answer behind an error; 0 if there was none."""
    return error.response.status_code if error.response is not None else 0


def not_dicomweb(url: str, answer: str) -> PacsError:
    """The error for a server that answers with something else.

    Args:
        url: its address.
        answer: what it answers with, as "a web page".
    """
    return PacsError(f"{url}: this address answers with {answer}, not as DICOMweb. {_UNUSABLE}")


def _signing(server: Server) -> Any:
    """What completes a request; also without a password, for which the library would look elsewhere."""
    from requests.auth import HTTPBasicAuth

    basic = HTTPBasicAuth(server.user.encode(), server.secret.encode()) if server.user else None

    def sign(request: PreparedRequest) -> PreparedRequest:
        # A star may stand in an address as it is, and Orthanc 1.10 knows it in no other form.
        request.url = (request.url or "").replace("%2A", "*")
        if server.secret and basic is None:
            request.headers["Authorization"] = f"Bearer {server.secret}"
        return request if basic is None else basic(request)

    return sign


def _readable_ca(path: Path) -> Path:
    if not path.is_file():
        msg = f"{path}: there is no such file. Give the certificate authority of the hospital, a file in PEM format."
        raise PacsError(msg)
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        msg = (
            f"{path}: there are no certificates in it that can be read. Give a file in PEM format (BEGIN CERTIFICATE)."
        )
        raise PacsError(msg) from error
    return path


def _name_json(response: Response) -> None:
    """Name JSON as the library knows it, which compares the whole value."""
    kind = response.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() in ("application/json", "application/dicom+json"):
        response.headers["Content-Type"] = "application/dicom+json"


# --- failures -------------------------------------------------------------------------------------------------------


def _explained(url: str, server: Server, error: RequestException) -> PacsError:
    """The sentence for a failed request."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError):
        return _refused(url, server, error)
    if isinstance(error, exceptions.SSLError):
        return _untrusted(url, error)
    if isinstance(error, exceptions.TooManyRedirects):
        return _redirected(url, error)
    if isinstance(error, exceptions.JSONDecodeError):
        return not_dicomweb(url, "a web page" if "<" in error.doc[:200] else "text")
    if isinstance(error, exceptions.ProxyError):
        return PacsError(f"{url}: the proxy of this computer does not let the request pass. Check its settings.")
    if isinstance(error, exceptions.ReadTimeout) or "Read timed out" in str(error):
        return PacsError(
            f"{url}: the PACS did not answer within {_WAITING} seconds. Check that it runs, then try again."
        )
    if isinstance(error, exceptions.ChunkedEncodingError | exceptions.ContentDecodingError) or _broke_off(error):
        return PacsError(f"{url}: the connection broke off. Check the network and that the PACS runs, then try again.")
    return PacsError(f"{url}: the PACS cannot be reached. Check the address, the network, and that the PACS runs.")


def _broke_off(error: RequestException) -> bool:
    """Whether the server closed a connection that stood."""
    from urllib3.exceptions import ProtocolError

    return bool(error.args) and isinstance(error.args[0], ProtocolError)


def _refused(url: str, server: Server, error: HTTPError) -> PacsError:
    status = status_of(error)
    if status == 401:
        given = "user name and password" if server.user else "token" if server.secret else ""
        text = f"does not accept the {given}" if given else "asks for a user name and password, or a token"
        return PacsError(f"{url}: the PACS {text}.", Hint.PACS_SIGN_IN)
    if status == 403:
        who = f"{server.user} is" if server.user else "you are"
        return PacsError(f"{url}: {who} not allowed to do this. Give this message to the administrator of the PACS.")
    if status in (400, 404, 405, 501):
        return PacsError(f"{url}: there is no DICOMweb service at this address (error {status}). {_UNUSABLE}")
    if status == 406:
        return PacsError(f"{url}: the PACS cannot send these images as DICOM (error 406). Export them there as files.")
    if status == 413:
        return PacsError(f"{url}: the PACS does not take files this large (error 413). Copy them to it another way.")
    if status in (408, 429, 502, 503, 504):
        return PacsError(
            f"{url}: the PACS is too busy, or restarting (error {status}). Wait a minute, and use it again."
        )
    return PacsError(f"{url}: the PACS failed (error {status}). Give this message to its administrator.")


def _untrusted(url: str, error: SSLError) -> PacsError:
    text = str(error)
    if "Hostname mismatch" in text or "IP address mismatch" in text:
        msg = f"{url}: the certificate of the PACS is for another name. Use the name in it as the address."
        return PacsError(msg)
    if "certificate has expired" in text:
        return PacsError(f"{url}: the certificate of the PACS has expired. Give this message to its administrator.")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return PacsError(f"{url}: the certificate of the PACS is not trusted here.", Hint.PACS_CERTIFICATE)
    return PacsError(f"{url}: no encrypted connection can be made. Check whether the address begins with http://.")


def _redirected(url: str, error: RequestException) -> PacsError:
    response = error.response
    target = urlsplit(response.headers.get("Location", "") if response is not None else "")
    if not target.netloc:
        return not_dicomweb(url, "a redirection to another page")
    where = f"{target.scheme or urlsplit(url).scheme}://{target.hostname}"
    msg = f"{url}: this address leads on to {where}, which is not followed. Use that one if it is the PACS's own."
    return PacsError(msg)
