"""A real web server of a folder that can be told to behave badly, for tests of fetching."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from certificates import Certificates

#: Gets the request, and does with it what it likes; True when it has answered.
Behaviour = Callable[["Handler"], bool]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    web: WebServer

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.web.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        if self.web.behaviour(self):
            return
        path = self.web.folder / self.path.partition("?")[0].lstrip("/")
        if path.is_file():
            self.answer(200, path.read_bytes())
        else:
            self.answer(404, b"<html>nothing here</html>")

    do_POST = do_GET

    def answer(self, status: int, body: bytes = b"", *, length: int | None = None, location: str | None = None) -> None:
        """Send an answer; one that announces another length than it has is broken off at its end."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = length is not None

    def stand_still(self, body: bytes) -> None:
        """Send the beginning of an answer and then nothing until the test is over."""
        self.answer(200, body, length=len(body) + 1_000_000)
        self.web.released.wait(60)


class WebServer:
    """A server of a folder at 127.0.0.1, with TLS if it is given certificates."""

    def __init__(self, folder: Path, certificates: Certificates | None = None, port: int = 0) -> None:
        self.folder = folder
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.behaviour: Behaviour = lambda handler: False
        self.released = threading.Event()
        handler = type("BoundHandler", (Handler,), {"web": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # clients that break off
        scheme = "http"
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.certificate, certificates.key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


def once(behaviour: Behaviour, suffix: str = "") -> Behaviour:
    """Return a behaviour for the first request to a path that ends so; the others are answered well."""
    left = threading.Semaphore(1)

    def first(handler: Handler) -> bool:
        return handler.path.endswith(suffix) and left.acquire(blocking=False) and behaviour(handler)

    return first


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
