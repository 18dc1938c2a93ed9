"""A PACS on this machine: tiny-pacs in memory, behind a door that asks for a password, or breaks off."""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tiny_pacs.config import Config
from tiny_pacs.server import Server as TinyServer
from tiny_pacs_dicomweb.component import DICOMWeb

from tests.hub_server import running

PREFIX = "/dicom-web"
_numbers = count()


class Pacs:
    """What the server on this machine does.

    Attributes:
        url: the address of its DICOMweb service.
        sign_in: the value of the header Authorization that it asks for; None = it asks for none.
        ends_after: how many bytes of an answer of several parts it sends before it breaks off; None = all.
        answers: what it answers in the place of the archive, as status, headers and body; None = the archive answers.
        asked: method, path and query of each request.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self.url = ""
        self.sign_in: str | None = None
        self.ends_after: int | None = None
        self.answers: Callable[[str, str], tuple[str, list[tuple[str, str]], bytes] | None] = lambda *_: None
        self.asked: list[str] = []

    def asks_for(self, user: str, password: str) -> None:
        """Ask for a user name and password."""
        self.sign_in = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request (WSGI)."""
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        self.asked.append(f"{method} {path}?{environ['QUERY_STRING']}")
        if self.sign_in is not None and environ.get("HTTP_AUTHORIZATION") != self.sign_in:
            start("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b""]
        answer = self.answers(method, path)
        if answer is not None:
            start(answer[0], list(answer[1]))  # the server adds headers of its own
            return [answer[2]]
        if not path.startswith(PREFIX + "/"):
            start("404 Not Found", [("Content-Type", "text/html")])
            return [b"<html>Nothing here</html>"]
        # tiny-pacs looks for a part of the name anyway, and takes the stars of DICOM for letters.
        environ["QUERY_STRING"] = environ["QUERY_STRING"].replace("%2A", "").replace("*", "")
        environ["PATH_INFO"] = path.removeprefix(PREFIX)
        body = self._app(environ, start)
        several = "/series/" in path and method == "GET" and not path.endswith("/instances")
        return self._cut(body) if several and self.ends_after is not None else body

    def _cut(self, body: Iterable[bytes]) -> Iterator[bytes]:
        left = self.ends_after or 0
        for block in body:
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return


class _Server(WSGIServer):
    """Answers one request after another: tiny-pacs keeps a connection to its database for each thread."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent where a client went away."""


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def tiny_pacs(certificate: tuple[Path, Path] | None = None) -> Iterator[Pacs]:
    """An empty PACS that listens on a free port of 127.0.0.1, encrypted with a certificate and its key."""
    on = {"on": True}
    database = {"on": True, "db_name": f"pacs_{next(_numbers)}", "mode": "memory"}
    for name in ("DICOMWeb", "peewee", "Database", "PACS", "InMemoryStorage", "trolleybus"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Not its own logging, which would take the place of ours.
    config = Config(
        components={"Database": database, "PACS": on, "InMemoryStorage": on}, log={"version": 1, "incremental": True}
    )
    tiny = TinyServer(config)
    tiny.bus.start()
    web = DICOMWeb(tiny.bus, {"on": True})
    (hook,) = web.http_apps()
    pacs = Pacs(hook.app)
    server = make_server("127.0.0.1", 0, pacs, server_class=_Server, handler_class=_Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    pacs.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}{PREFIX}"
    try:
        with running(server):
            yield pacs
    finally:
        tiny.bus.stop()


def write_certificate(folder: Path, name: str = "127.0.0.1", days: int = 1) -> tuple[Path, Path]:
    """A self-signed certificate for an address or name, and its key, in PEM; expired for a negative number of days."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "PACS of the tests")])
    names: list[x509.GeneralName] = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
