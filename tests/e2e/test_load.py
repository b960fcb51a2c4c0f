"""The load itself: what it calls a failure, and what it doesn't; against a server that misbehaves to order."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from load import Order
from loader import Load, Result, local_command

GOOD = {"model_version": "1", "outputs": [{"data": [0.25, 0.75]}]}


class Answers(ThreadingHTTPServer):
    """Answers every request in the one way that is set."""

    way = "right"
    connections = 0
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Answers

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        way = self.server.way
        if way == "closed when idle":
            # The end goes with the answer's last byte: a client can't come in between, however slow this thread is.
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        body = json.dumps({**GOOD, **({"model_version": "2"} if way == "other version" else {})})
        if way == "other numbers":
            body = body.replace("0.25", "0.26")
        self.send_response(503 if way == "unavailable" else 200)
        self.send_header("Content-Length", str(len(body) + (way == "cut short")))
        if way == "last answer":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body.encode())
        # Silently: the client finds out before it sends again, or not at all.
        self.close_connection = way in ("cut short", "closed when idle", "last answer")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Answers]:
    """The server, on a free port."""
    with Answers(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def order(port: int, **settings: float) -> Order:
    """Return an order of 24 requests, slow enough that a busy machine closes a connection before the next one."""
    url = f"http://127.0.0.1:{port}/infer"
    return Order(url, {"inputs": []}, {"1": [0.25, 0.75]}, rate=40, **{"limit": 24, **settings})


def run(server: Answers, way: str) -> Result:
    """Run a load to its own end."""
    server.way = way
    with Load(local_command(), order(server.server_port)) as load:
        load.finish()
    return load.result


@pytest.mark.parametrize("way", ["right", "last answer", "closed when idle"])
def test_an_announced_end_and_an_idle_connections_end_are_no_failures(server: Answers, way: str) -> None:
    result = run(server, way)
    assert (result.sent, result.failed, result.by_version) == (24, 0, {"1": 24})
    assert result.by_kind["new"]["sent"] + result.by_kind["kept"]["sent"] == 24
    kept_connections = server.connections - result.by_kind["new"]["sent"]
    assert kept_connections == (2 if way == "right" else result.by_kind["kept"]["sent"])


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("other version", "version 2 answered"),
        ("other numbers", "expected [0.25, 0.75]"),
        ("unavailable", "status 503"),
        ("cut short", "IncompleteRead"),
    ],
)
def test_whatever_is_not_a_complete_right_answer_is_a_failure(server: Answers, way: str, said: str) -> None:
    result = run(server, way)
    assert (result.sent, result.failed, result.by_version) == (24, 24, {})
    assert len(result.errors) == 10
    assert all(said in error for error in result.errors)


def test_a_refused_connection_is_a_failure() -> None:
    with Load(local_command(), order(1)) as load:
        load.finish()
    assert load.result.failed == load.result.sent == 24
    assert "ConnectionRefusedError" in load.result.errors[0]


def test_a_load_ends_when_it_is_told_to(server: Answers) -> None:
    with Load(local_command(), order(server.server_port, limit=50_000, seconds=500)) as load:
        load.wait(sent=20)
        load.wait_version("1", 20)
    assert 50 <= load.result.sent < 50_000
    assert load.result.failed == 0


def test_an_order_beyond_the_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        Order.parse(json.dumps({"url": "http://x", "document": {}, "expected": {}, "rate": 100_000}))
