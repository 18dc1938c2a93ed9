"""A model hub on this machine, which answers as the real one may: with a file, a refusal, or nothing at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What is asked of it, and what it answers.

    Attributes:
        status: of every answer; 0 = none for half a minute, -1 = the connection is broken off.
        headers: of every answer, beside those that go with the status.
        content: the file.
        asked: the paths that were asked for, with the method before them.
    """

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.content = b"weights" * 1000
        self.asked: list[str] = []
        self.ended = threading.Event()
        self.address = ""

    def answers(self, status: int, **headers: str) -> None:
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.asked.clear()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            if hub.status <= 0:
                if hub.status == 0:
                    hub.ended.wait(30)
                self.close_connection = True
                return
            self.send_response(hub.status)
            content = hub.content if hub.status == 200 else b""
            for name, value in {"Content-Length": str(len(content)), **hub.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def running(server: BaseServer) -> Iterator[None]:
    """Let a server answer from a thread of its own; then close it."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    with running(server):
        try:
            yield hub
        finally:
            hub.ended.set()
