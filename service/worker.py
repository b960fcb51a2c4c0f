"""gunicorn's threaded worker with what a model server needs: requests bounded in age, counted, and not lost at the end.

The threads only ever work on requests whose first bytes have come: a client that connects and says nothing waits in
the poller, as does one that has its answer and is yet to close. A client that dribbles its body, or doesn't read its
answer, is cut off when its request is too old.

When the worker is told to stop, it takes what the kernel has already accepted for it, and closes its ears: whoever
comes later is refused, not forgotten. Connections that are kept alive are served on; every answer says that it is the
last, so that the client opens its next connection elsewhere. Only who asks nothing for long is closed without a word.
"""

from __future__ import annotations

import secrets
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.board import Board, State
from service.failures import error_body

#: What tells a worker to stop. The arbiter blocks them while it forks: a new worker still has the arbiter's handlers,
#: in which a signal would be lost.
STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT})
_NOTIFY_SECONDS: Final = 0.5
#: How long a new connection may say nothing, at least: with no keep-alive it must still have the time to ask once.
_FIRST_BYTES_SECONDS: Final = 5.0
#: How long, and for how many more bytes, a client may leave its end of a finished connection open; as gunicorn has it.
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 65_536
#: How long a worker that stops still accepts: connections that were half made when it was told to, and the arbiter kept
#: new ones off, are complete by then, over the longest ways that there are on Earth.
_LAST_ACCEPT_SECONDS: Final = 0.3
#: How long, after the word to stop, a connection on which nobody asks anything is kept. Below the ten seconds after
#: which `docker stop` kills, and above the time that a busy client lets pass between two requests.
_LAST_WORD_SECONDS: Final = 8.0
#: What is left of the graceful timeout at least, when connections are closed on which nobody asks anything.
_MARGIN_SECONDS: Final = 2.0
#: How long a thread may take to notice that its connection was cut, before it counts as stuck in the model.
_NOTICE_SECONDS: Final = 2.0
#: The statuses of requests that gunicorn's parser refuses, by the name of its error.
_PARSER_STATUSES: Final = {
    "LimitRequestLine": (414, "URI Too Long"),
    "LimitRequestHeaders": (431, "Request Header Fields Too Large"),
    "ExpectationFailed": (417, "Expectation Failed"),
    "UnsupportedTransferCoding": (501, "Not Implemented"),
    "InvalidHTTPVersion": (505, "HTTP Version Not Supported"),
}


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A connection that hands its last moments to its worker's poller."""

    def __init__(self, worker: Worker, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(worker.cfg, client, address, server)
        self._worker = worker
        self.drained = 0
        # Whether the request that it has just brought was let in.
        self.let_in = False

    def close(self, graceful: bool = False) -> None:
        """Close; gracefully, as RFC 9112 section 9.6 wants it: our end first, then wait for the client's."""
        if graceful:
            self._worker.linger(self)
        else:
            super().close()


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One worker process; see the module."""

    max_requests: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Connections whose request is in a thread, and since when.
        self._in_hand: dict[Any, float] = {}
        # Connections whose answer is out, oldest first, until the client closes its end.
        self._lingering: deque[Connection] = deque()
        self._pressure: Any = None
        self._age_limit_seconds = 0.0
        self._notified = 0.0
        # When it stops: until when it keeps connections on which nobody asks anything.
        self._last_word: float | None = None
        # The arbiter's notes of it; `service.hooks` fills them in before the fork.
        self.slot = 0
        self.board: Board | None = None
        self.told_to_stop = False
        # gunicorn's own way is to stop at once, and to be replaced after that.
        self._worn_after = self.max_requests
        self.max_requests = sys.maxsize

    def init_process(self) -> None:
        """Start, and run until the end. What keeps it from starting goes to the log; gunicorn would print it, too."""
        try:
            super().init_process()
        except Exception:
            if self.booted:
                raise
            self.log.exception("could not start")
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def init_signals(self) -> None:
        """Listen to signals; what the arbiter has sent since the fork comes now."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def load_wsgi(self) -> None:
        """Load the application, which is told its slot, and learn its limits."""
        self.app.slot = self.slot
        super().load_wsgi()
        service = self.wsgi.extensions["muelle"]
        self._pressure = service.pressure
        self._age_limit_seconds = service.settings.request_timeout_seconds

    def is_parent_alive(self) -> bool:
        """Return whether the arbiter lives; without it the worker stops, as if it had been told to."""
        if super().is_parent_alive():
            return True
        # gunicorn would go on where connections are kept, with an open socket that nobody accepts from.
        self.alive = False
        return False

    def accept(self, listener: Any) -> None:
        """Accept a connection and wait for its first bytes in the poller, not in a thread."""
        try:
            client, address = listener.accept()
        except OSError:
            # Another worker was faster, or the client has gone.
            return
        self.nr_conns += 1
        connection = Connection(self, client, address, listener.getsockname())
        connection.timeout = time.monotonic() + max(self.cfg.keepalive, _FIRST_BYTES_SECONDS)
        self.pending_conns.append(connection)
        self.poller.register(client, EVENT_READ, partial(self.on_pending_socket_readable, connection))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Stop accepting for good only after taking what the kernel has accepted already: its clients were promised.

        gunicorn would keep the socket open until the last request is done. What the kernel accepts meanwhile would
        never be looked at, and be reset when the last worker goes; on a closed one it is refused.
        """
        if enabled or self.alive:
            super().set_accept_enabled(enabled)
        elif self._last_word is None:
            graceful = max(self.cfg.graceful_timeout - _MARGIN_SECONDS, self.cfg.graceful_timeout / 2)
            self._last_word = time.monotonic() + min(_LAST_WORD_SECONDS, graceful)
            self._take_what_is_on_its_way(time.monotonic() + min(_LAST_ACCEPT_SECONDS, graceful))
            super().set_accept_enabled(False)
            self._drain_backlog()
            for listener in self.sockets:
                listener.close()

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection with a request to the threads."""
        conn.let_in = self._pressure.let_in()
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take a connection back from the threads; runs in the main thread, as `enqueue_req` does."""
        if conn.let_in:
            self._pressure.let_out()
        super().finish_request(conn, fs)
        if not self.alive and self.keepalived_conns and self.keepalived_conns[-1] is conn:
            # It was promised to be kept before the word to stop came; gunicorn would keep it for two seconds.
            conn.set_timeout()
            conn.timeout = min(conn.timeout, self._last_word or conn.timeout)

    def linger(self, connection: Connection) -> None:
        """Close our end of a connection, and wait for the client's in the poller.

        gunicorn waits in its main loop, where a client that is slow, or far away, would hold up all others.
        """
        client = connection.sock
        try:
            client.setblocking(False)
            client.shutdown(socket.SHUT_WR)
            self.poller.register(client, EVENT_READ, partial(self._on_lingering_readable, connection))
        except (OSError, ValueError):
            util.close(client)
            return
        # finish_request has just counted it out; but a worker that stops waits for it too.
        self.nr_conns += 1
        connection.timeout = time.monotonic() + _LINGER_SECONDS
        self._lingering.append(connection)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close connections on which nobody has asked anything for too long, or all; called at every turn."""
        if not force:
            self._look_again(self.keepalived_conns, self.on_client_socket_readable)
        super().murder_keepalived(force)

    def murder_pending(self) -> None:
        """Close what has waited too long: for first bytes, or for the client's end; called at every turn."""
        self._look_again(self.pending_conns, self.on_pending_socket_readable)
        super().murder_pending()
        now = time.monotonic()
        while self._lingering and self._lingering[0].timeout <= now:
            self._end_lingering(self._lingering[0])

    def handle(self, conn: Any) -> Any:
        """Work on one request, in a thread."""
        self._in_hand[conn] = time.monotonic()
        self._pressure.begin(conn.let_in)
        try:
            return super().handle(conn)
        finally:
            self._in_hand.pop(conn, None)

    def notify(self) -> None:
        """Tell the arbiter that this worker is well, at least once a second; not when a thread is stuck.

        At the age limit a connection's reading side is shut, which ends any wait for its body; a limit later its
        writing side, which ends any wait for a client that doesn't read. What is still in hand after that is stuck in
        the model itself; no thread can be stopped, so the arbiter is left to replace the worker.
        """
        now = time.monotonic()
        # gunicorn calls this at every turn of its loop; the arbiter is patient, and the call costs it a system call.
        if now - self._notified < _NOTIFY_SECONDS:
            return
        self._notified = now
        for connection, started in list(self._in_hand.items()):
            age = now - started
            if age > 2 * self._age_limit_seconds + _NOTICE_SECONDS:
                return
            if age > self._age_limit_seconds:
                self._shut(connection, socket.SHUT_RDWR if age > 2 * self._age_limit_seconds else socket.SHUT_RD)
        if self.nr >= self._worn_after and self.board is not None and self.board[self.slot] == State.LOADED:
            self.log.info("%d requests answered, to be replaced", self.nr)
            self.board[self.slot] = State.WORN
        super().notify()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer a request that never became one (a bad header, say) in the form of all our errors."""
        status, reason = _PARSER_STATUSES.get(type(exc).__name__, (400, "Bad Request"))
        if type(exc).__module__.partition(".")[0] != "gunicorn":
            self.log.exception("error below the application")
            status, reason = 500, "Internal Server Error"
        message = reason if status == 500 else f"not a valid HTTP request: {exc}"
        body = error_body(message[:300], "internal" if status == 500 else "invalid_http", v2=False)
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Id: {secrets.token_hex(8)}\r\nConnection: close\r\n\r\n"
        )
        try:
            util.write_nonblock(client, head.encode("latin-1") + body)
        except OSError:
            self.log.debug("the client had gone before its error answer")

    def _take_what_is_on_its_way(self, until: float) -> None:
        """Go on as ever for a moment, also at the limit of connections."""
        super().set_accept_enabled(True)
        while (left := until - time.monotonic()) > 0:
            self.wait_for_and_dispatch_events(left)

    def _look_again(self, connections: deque[Any], on_readable: Callable[[Any, socket.socket], None]) -> None:
        """Take the requests that have come on connections that are about to be closed since the poller looked."""
        now = time.monotonic()
        if not connections or connections[0].timeout > now:
            return
        late = list(takewhile(lambda connection: connection.timeout <= now, connections))
        poll = select.poll()
        for connection in late:
            poll.register(connection.sock, select.POLLIN)
        readable = {descriptor for descriptor, _ in poll.poll(0)}
        for connection in late:
            if connection.sock.fileno() in readable:
                on_readable(connection, connection.sock)

    def _drain_backlog(self) -> None:
        """Accept until nobody waits; bounded by what a backlog can hold."""
        for listener in self.sockets:
            for _ in range(self.cfg.backlog):
                before = self.nr_conns
                self.accept(listener)
                if self.nr_conns == before:
                    break

    def _cap_keepalive(self, deadline: float) -> None:
        """Let nobody who says nothing hold up the end, neither on a kept connection nor on a new one.

        gunicorn's deadline, two seconds, is too soon: who asks every few seconds would meet it more often than not.
        """
        last_word = deadline if self._last_word is None else self._last_word
        super()._cap_keepalive(last_word)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, last_word)

    def _on_lingering_readable(self, connection: Connection, client: socket.socket) -> None:
        try:
            data = client.recv(_LINGER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.drained += len(data)
        if not data or connection.drained >= _LINGER_BYTES:
            self._end_lingering(connection)

    def _end_lingering(self, connection: Connection) -> None:
        self._lingering.remove(connection)
        self.poller.unregister(connection.sock)
        self.nr_conns -= 1
        connection.close()

    def _shut(self, connection: Any, how: int) -> None:
        try:
            connection.sock.shutdown(how)
        except OSError:
            self.log.debug("a timed out connection had gone already")
