"""gunicorn's threaded worker with what a model server needs: requests bounded in age, counted, and not lost at the end.

The threads only ever work on requests whose first bytes have come: a client that connects and says nothing waits in the
poller. A client that dribbles its body is cut off when its request is too old. When the worker is told to stop, it
takes what the kernel has already accepted for it before it closes its ears.
"""

from __future__ import annotations

import secrets
import socket
import time
from functools import partial
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn import util
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.replies import error_body

_NOTIFY_SECONDS: Final = 0.5
#: The statuses of requests that gunicorn's parser refuses, by the name of its error.
_PARSER_STATUSES: Final = {
    "LimitRequestLine": (414, "URI Too Long"),
    "LimitRequestHeaders": (431, "Request Header Fields Too Large"),
    "ExpectationFailed": (417, "Expectation Failed"),
    "UnsupportedTransferCoding": (501, "Not Implemented"),
    "InvalidHTTPVersion": (505, "HTTP Version Not Supported"),
}


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One worker process; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Connections whose request is in a thread, and since when.
        self._in_hand: dict[Any, float] = {}
        self._pressure: Any = None
        self._age_limit_seconds = 0.0
        self._notified = 0.0

    def load_wsgi(self) -> None:
        """Load the application and learn its limits."""
        super().load_wsgi()
        service = self.wsgi.extensions["muelle"]
        self._pressure = service.pressure
        self._age_limit_seconds = service.settings.request_timeout_seconds

    def accept(self, listener: Any) -> None:
        """Accept a connection and wait for its first bytes in the poller, not in a thread."""
        try:
            client, address = listener.accept()
        except OSError:
            # Another worker was faster, or the client has gone.
            return
        self.nr_conns += 1
        connection = TConn(self.cfg, client, address, listener.getsockname())
        connection.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(connection)
        self.poller.register(client, EVENT_READ, partial(self.on_pending_socket_readable, connection))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Stop accepting only after taking what the kernel has accepted already: its clients have been promised."""
        if not enabled and self._accepting and not self.alive:
            self._drain_backlog()
        super().set_accept_enabled(enabled)

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection with a request to the threads."""
        self._pressure.requests += 1
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take a connection back from the threads; runs in the main thread, as `enqueue_req` does."""
        self._pressure.requests -= 1
        super().finish_request(conn, fs)

    def handle(self, conn: Any) -> Any:
        """Work on one request, in a thread."""
        self._in_hand[conn] = time.monotonic()
        try:
            return super().handle(conn)
        finally:
            self._in_hand.pop(conn, None)

    def notify(self) -> None:
        """Tell the arbiter that this worker is well, at least once a second; not when a thread is stuck.

        At the age limit a connection's reading side is shut, which ends any wait for its body. What is still in hand a
        limit later is stuck in the model itself; no thread can be stopped, so the arbiter is left to replace the
        worker.
        """
        now = time.monotonic()
        # gunicorn calls this at every turn of its loop; the arbiter is patient, and the call costs it a system call.
        if now - self._notified < _NOTIFY_SECONDS:
            return
        self._notified = now
        for connection, started in list(self._in_hand.items()):
            age = now - started
            if age > 2 * self._age_limit_seconds:
                return
            if age > self._age_limit_seconds:
                self._stop_reading(connection)
        super().notify()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer a request that never became one (a bad header, say) in the form of all our errors."""
        status, reason = _PARSER_STATUSES.get(type(exc).__name__, (400, "Bad Request"))
        if type(exc).__module__.partition(".")[0] != "gunicorn":
            self.log.exception("error below the application")
            status, reason = 500, "Internal Server Error"
        message = reason if status == 500 else f"not a valid HTTP request: {exc}"
        body = error_body(message[:300], "invalid_http" if status < 500 else "internal", v2=False)
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Id: {secrets.token_hex(8)}\r\nConnection: close\r\n\r\n"
        )
        try:
            util.write_nonblock(client, head.encode("latin-1") + body)
        except OSError:
            self.log.debug("the client had gone before its error answer")

    def _drain_backlog(self) -> None:
        """Accept until nobody waits; bounded by what a backlog can hold."""
        for listener in self.sockets:
            for _ in range(self.cfg.backlog):
                before = self.nr_conns
                self.accept(listener)
                if self.nr_conns == before:
                    break

    def _stop_reading(self, connection: Any) -> None:
        try:
            connection.sock.shutdown(socket.SHUT_RD)
        except OSError:
            self.log.debug("a timed out connection had gone already")
