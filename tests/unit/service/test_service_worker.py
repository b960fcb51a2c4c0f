"""The worker's main loop, turned by hand: what waits where, what is cut off, what is still taken at the end."""

from __future__ import annotations

import logging
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from gunicorn.config import Config
from gunicorn.http import errors
from prometheus_client import CollectorRegistry

from service.app import create_app
from service.board import Board, State
from service.metrics import Metrics
from service.models import Models
from service.settings import Settings
from service.worker import Connection, Worker

GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
LIVE = b'{"status":"live"}'
LIMIT_SECONDS = 10.0


class Log(logging.Logger):
    """What a worker needs of gunicorn's logger."""

    def access(self, *_: object) -> None:
        pass


class Bench:
    """A worker that has done all but `init_process`, which is for processes, and its listener."""

    def __init__(self, keepalive: int = 15, max_requests: int = 0) -> None:
        settings = Settings(access_log=False, request_timeout_seconds=LIMIT_SECONDS)
        metrics = Metrics(CollectorRegistry())
        app = create_app(settings, Models(settings, metrics), metrics)
        config = Config()
        config.set("threads", 2)
        config.set("keepalive", keepalive)
        config.set("max_requests", max_requests)
        self.listener = socket.create_server(("127.0.0.1", 0))
        source = SimpleNamespace(wsgi=lambda: app)
        self.worker: Any = Worker(1, 1, [self.listener], source, 30, config, Log("worker"))
        self.worker.tpool = self.worker.get_thread_pool()
        self.worker.poller = selectors.DefaultSelector()
        self.worker.method_queue.init()
        self.worker.load_wsgi()
        queue = self.worker.method_queue
        self.worker.poller.register(queue.fileno(), selectors.EVENT_READ, queue.run_callbacks)
        self.worker.set_accept_enabled(True)
        self.pressure = app.extensions["muelle"].pressure
        self.clients: list[socket.socket] = []

    def client(self, first: bytes = b"") -> socket.socket:
        made = socket.create_connection(self.listener.getsockname(), timeout=30)
        self.clients.append(made)
        made.sendall(first)
        return made

    def turn_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            self.worker.wait_for_and_dispatch_events(0.01)

    def answer(self, client: socket.socket) -> bytes:
        """Return the whole answer to `GET`, which may come in parts."""
        data = b""
        while not data.endswith(LIVE):
            self.turn_until(lambda: select.select([client], [], [], 0)[0])
            part = client.recv(4096)
            assert part, data
            data += part
        return data

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for connection in [*self.worker.pending_conns, *self.worker.keepalived_conns, *self.worker._lingering]:
            connection.sock.close()
        self.worker.tpool.shutdown()
        self.worker.poller.close()
        self.worker.method_queue.close()
        self.worker.tmp.close()
        self.listener.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_client_that_says_nothing_waits_in_the_poller(bench: Bench) -> None:
    client = bench.client()
    bench.turn_until(lambda: bench.worker.pending_conns)
    assert bench.pressure.requests == 0
    client.sendall(GET)
    bench.turn_until(lambda: bench.worker.keepalived_conns)
    assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert (len(bench.worker.pending_conns), bench.pressure.requests, bench.worker.nr_conns) == (0, 0, 1)


def test_without_keep_alive_a_client_still_has_time_to_ask() -> None:
    bench = Bench(keepalive=0)
    try:
        client = bench.client()
        bench.turn_until(lambda: bench.worker.pending_conns)
        bench.worker.murder_pending()
        assert len(bench.worker.pending_conns) == 1
        client.sendall(GET)
        bench.turn_until(lambda: bench.worker._lingering)
        assert b"Connection: close\r\n" in client.recv(4096)
    finally:
        bench.close()


def test_what_is_handed_to_the_threads_is_counted_until_it_comes_back(bench: Bench) -> None:
    for _ in range(3):
        bench.client(GET)
    bench.turn_until(lambda: bench.worker.nr_conns == 3 and not bench.worker.pending_conns)
    assert 0 <= bench.pressure.requests <= 3
    bench.turn_until(lambda: len(bench.worker.keepalived_conns) == 3)
    assert bench.pressure.requests == 0
    assert bench.worker._in_hand == {}


def test_what_comes_when_it_is_full_is_handed_on_as_surplus(bench: Bench) -> None:
    bench.pressure.requests = 64
    client = bench.client(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
    probe = bench.client(GET)
    bench.turn_until(lambda: len(bench.worker.keepalived_conns) == 2)
    assert client.recv(4096).startswith(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\n")
    assert probe.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert bench.pressure.requests == 64


def test_a_finished_connection_waits_for_its_client_in_the_poller(bench: Bench) -> None:
    client = bench.client(GET[:-2] + b"Connection: close\r\n\r\n")
    bench.turn_until(lambda: bench.worker._lingering)
    assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    # It counts as a connection for as long, so that a worker that stops waits for it.
    assert bench.worker.nr_conns == 1
    client.sendall(b"more that nobody asked for")
    bench.turn_until(lambda: bench.worker._lingering[0].drained)
    client.close()
    bench.turn_until(lambda: not bench.worker._lingering)
    assert bench.worker.nr_conns == 0


def test_a_client_that_does_not_close_is_closed(bench: Bench) -> None:
    bench.client(b"nonsense\r\n\r\n")
    bench.turn_until(lambda: bench.worker._lingering)
    bench.worker.murder_pending()
    assert len(bench.worker._lingering) == 1
    bench.worker._lingering[0].timeout = time.monotonic()
    bench.worker.murder_pending()
    assert (len(bench.worker._lingering), bench.worker.nr_conns) == (0, 0)


def test_a_client_that_sends_on_and_on_is_closed(bench: Bench) -> None:
    client = bench.client(b"nonsense\r\n\r\n")
    bench.turn_until(lambda: bench.worker._lingering)
    client.sendall(b"x" * 70_000)
    bench.turn_until(lambda: not bench.worker._lingering)
    assert bench.worker.nr_conns == 0


def test_a_client_that_has_gone_does_not_linger(bench: Bench) -> None:
    client = bench.client()
    bench.turn_until(lambda: bench.worker.pending_conns)
    connection = bench.worker.pending_conns.popleft()
    bench.worker.poller.unregister(connection.sock)
    connection.sock.close()
    connection.close(graceful=True)
    assert len(bench.worker._lingering) == 0
    assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("age", "reads", "writes", "notifies"),
    [
        (0.5 * LIMIT_SECONDS, True, True, True),
        (1.5 * LIMIT_SECONDS, False, True, True),
        (2.0 * LIMIT_SECONDS + 1, False, False, True),
        (2.0 * LIMIT_SECONDS + 3, True, True, False),
    ],
)
def test_requests_that_are_too_old_are_cut_off(
    age: float, reads: bool, writes: bool, notifies: bool, bench: Bench
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"a")
        ours.recv(1)
        bench.worker._in_hand[Connection(bench.worker, ours, "", "")] = time.monotonic() - age
        before = bench.worker.tmp.last_update()
        bench.worker.notify()
        ours.setblocking(False)
        if reads:
            with pytest.raises(BlockingIOError):
                ours.recv(1)
        else:
            assert ours.recv(1) == b""
        if writes:
            assert ours.send(b"a") == 1
        else:
            with pytest.raises(BrokenPipeError):
                ours.send(b"a")
        assert (bench.worker.tmp.last_update() != before) == notifies


def test_it_does_not_notify_at_every_turn(bench: Bench) -> None:
    bench.worker.notify()
    before = bench.worker.tmp.last_update()
    bench.worker.notify()
    assert bench.worker.tmp.last_update() == before


def test_a_worker_that_pauses_keeps_its_listener(bench: Bench) -> None:
    bench.client()
    bench.worker.set_accept_enabled(False)
    assert bench.worker.nr_conns == 0
    bench.worker.set_accept_enabled(True)
    bench.turn_until(lambda: bench.worker.nr_conns == 1)


def test_a_worker_that_stops_takes_what_waits_and_closes_its_listener(bench: Bench) -> None:
    address = bench.listener.getsockname()
    waiting = [bench.client(GET) for _ in range(5)]
    silent = bench.client()
    bench.worker.alive = False
    bench.worker.set_accept_enabled(False)
    assert bench.worker.nr_conns == 6
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    for client in waiting:
        bench.turn_until(lambda client=client: select.select([client], [], [], 0)[0])
        answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Connection: close\r\n" in answer
        client.close()
    bench.turn_until(lambda: bench.worker.nr_conns == 1)
    # Who has said nothing by then doesn't hold it up for as long as a connection may usually be silent.
    bench.worker._last_word = time.monotonic()
    bench.worker._cap_keepalive(time.monotonic() + 100)
    bench.worker.murder_pending()
    assert bench.worker.nr_conns == 0
    assert silent.recv(1) == b""


def test_a_worker_that_stops_takes_who_comes_in_its_last_moment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine the client may need longer than the moment lasts.
    monkeypatch.setattr("service.worker._LAST_ACCEPT_SECONDS", 2.0)
    stopping = threading.Thread(target=bench.worker.set_accept_enabled, args=[False], daemon=True)
    bench.worker.alive = False
    stopping.start()
    late = bench.client(GET)
    stopping.join(30)
    assert bench.answer(late).startswith(b"HTTP/1.1 200 OK\r\n")
    bench.turn_until(lambda: bench.worker._lingering)
    # Told again, it has nothing left to do.
    bench.worker.set_accept_enabled(False)


def test_a_kept_connection_is_served_once_more_by_a_worker_that_stops(bench: Bench) -> None:
    client = bench.client(GET)
    assert b"Connection: keep-alive\r\n" in bench.answer(client)
    bench.turn_until(lambda: bench.worker.keepalived_conns)
    bench.worker.alive = False
    bench.worker.set_accept_enabled(False)
    # What gunicorn gives it, and what remains to it here.
    two_seconds = time.monotonic() + 2
    bench.worker._cap_keepalive(two_seconds)
    (connection,) = bench.worker.keepalived_conns
    assert two_seconds + 4 < connection.timeout < two_seconds + 7
    client.sendall(GET)
    answer = bench.answer(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    bench.turn_until(lambda: bench.worker._lingering)


def test_a_connection_that_was_promised_to_be_kept_just_before_the_stop_is_kept(bench: Bench) -> None:
    client = bench.client()
    bench.turn_until(lambda: bench.worker.pending_conns)
    enqueue = bench.worker.enqueue_req
    handled: list[Any] = []
    bench.worker.enqueue_req = handled.append
    client.sendall(GET)
    bench.turn_until(lambda: handled)
    done: Future[bool] = Future()
    # A thread has answered "keep-alive"; before the main thread hears of it, the word to stop comes.
    handled[0].let_in = False
    done.set_result(bench.worker.handle(handled[0]))
    bench.worker.enqueue_req = enqueue
    bench.worker.alive = False
    bench.worker.set_accept_enabled(False)
    bench.worker.finish_request(handled[0], done)
    (connection,) = bench.worker.keepalived_conns
    assert connection.timeout == bench.worker._last_word


@pytest.mark.parametrize("kind", ["pending", "kept"])
def test_a_request_that_comes_as_its_connection_is_about_to_be_closed_is_answered(kind: str, bench: Bench) -> None:
    client = bench.client(GET if kind == "kept" else b"")
    connections = bench.worker.keepalived_conns if kind == "kept" else bench.worker.pending_conns
    bench.turn_until(lambda: connections)
    if kind == "kept":
        bench.answer(client)
    connections[0].timeout = time.monotonic()
    # The poller hasn't looked since it came.
    client.sendall(GET)
    bench.worker.murder_keepalived()
    bench.worker.murder_pending()
    assert bench.answer(client).startswith(b"HTTP/1.1 200 OK\r\n")
    # The next time it says nothing, and is closed.
    bench.turn_until(lambda: bench.worker.keepalived_conns)
    bench.worker.keepalived_conns[0].timeout = time.monotonic()
    bench.worker.murder_keepalived()
    assert client.recv(1) == b""


def test_a_worn_worker_says_so_and_goes_on() -> None:
    bench = Bench(max_requests=2)
    try:
        worker, board = bench.worker, Board()
        worker.board, worker.slot = board, 3
        board[3] = State.LOADED
        client = bench.client()
        for count in (1, 2, 3):
            client.sendall(GET)
            assert b"Connection: keep-alive\r\n" in bench.answer(client)
            bench.turn_until(lambda: worker.keepalived_conns)
            worker._notified = 0.0
            worker.notify()
            assert (worker.alive, board[3]) == (True, State.LOADED if count < 2 else State.WORN)
    finally:
        bench.close()


def test_a_worker_that_has_not_loaded_is_not_worn() -> None:
    bench = Bench(max_requests=1)
    try:
        bench.worker.board = Board()
        bench.worker.board[0] = State.FIRST
        bench.worker.nr = 5
        bench.worker.notify()
        assert bench.worker.board[0] == State.FIRST
    finally:
        bench.close()


def test_at_the_limit_of_connections_a_worker_that_stops_still_takes_what_waits(bench: Bench) -> None:
    bench.worker.set_accept_enabled(False)
    bench.client(GET)
    bench.worker.alive = False
    bench.worker.set_accept_enabled(False)
    assert bench.worker.nr_conns == 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.LimitRequestLine(9000, 8000), b"414 URI Too Long", "invalid_http"),
        (errors.LimitRequestHeaders("too many"), b"431 Request Header Fields Too Large", "invalid_http"),
        (errors.UnsupportedTransferCoding("x"), b"501 Not Implemented", "invalid_http"),
        (errors.InvalidHTTPVersion("9.9"), b"505 HTTP Version Not Supported", "invalid_http"),
        (errors.InvalidHeader("a: \x00"), b"400 Bad Request", "invalid_http"),
        (errors.InvalidRequestLine("\ud800 é \r\n" * 300), b"400 Bad Request", "invalid_http"),
        (ZeroDivisionError("our own secret"), b"500 Internal Server Error", "internal"),
    ],
)
def test_what_is_no_request_is_answered_like_any_error(
    error: Exception, status: bytes, code: str, bench: Bench
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bench.worker.handle_error(None, ours, ("127.0.0.1", 1), error)
        head, _, body = theirs.recv(65536).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 " + status
    headers = dict(line.split(b": ", 1) for line in lines[1:])
    assert headers[b"Content-Length"] == str(len(body)).encode()
    assert (headers[b"Content-Type"], headers[b"Connection"]) == (b"application/json", b"close")
    assert headers[b"X-Request-Id"]
    document = orjson.loads(body)
    assert document["code"] == code
    assert len(document["error"]) <= 300
    assert "secret" not in document["error"]


def test_an_error_of_a_client_that_has_gone_is_nobodys(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        bench.worker.handle_error(None, ours, ("127.0.0.1", 1), errors.InvalidHeader("a"))
