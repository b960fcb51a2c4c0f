"""Asking the other replicas: real sockets that answer, refuse, hang, trickle and talk nonsense."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muelle.errors import InputError
from service.exchange import OverloadedError
from service.feedback_metrics import FeedbackMetrics
from service.feedback_peers import ASK_SECONDS, MOST_PEERS, Peers
from service.protocols.feedback import Label, decode

LABELS = [Label(f"id-{number}", number, number, 1_700_000_000.0) for number in range(3)]
HEADERS = {"X-API-Key": "k", "X-Request-Id": "r"}


class Replica:
    """A server at an address of the loopback network; `answer` gets the labels and says status and body."""

    def __init__(self, address: str, port: int, answer: Callable[[list[Label]], tuple[int, Any]]) -> None:
        self.asked: list[dict[str, str]] = []
        replica = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                replica.asked.append({"path": self.path, **dict(self.headers.items())})
                labels = decode(self.rfile.read(int(self.headers["Content-Length"])))
                status, document = answer(labels)
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((address, port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Silent:
    """Accepts, and says nothing, or a byte now and then."""

    def __init__(self, address: str, port: int, piece: bytes = b"") -> None:
        self._listener = socket.create_server((address, port))
        self._piece = piece
        self._stop = threading.Event()
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self._listener.settimeout(30)
        client, _ = self._listener.accept()
        with client:
            try:
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" if self._piece else b"")
                while not self._stop.wait(0.2):
                    client.sendall(self._piece)
            except OSError:
                return

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._listener.close()


Network = Callable[..., Peers]


def all_of(result: str) -> Callable[[list[Label]], tuple[int, Any]]:
    return lambda labels: (200, {"results": [result] * len(labels)})


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def started() -> Iterator[list[Any]]:
    """What is to be closed at the end."""
    made: list[Any] = []
    yield made
    for item in made:
        item.close()


@pytest.fixture
def peers_of(registry: CollectorRegistry, started: list[Any]) -> Callable[..., Peers]:
    def made(*answers: Any, own: str = "127.0.0.1") -> Peers:
        """Return the peers of a server at `own`; each answer is one's at 127.0.0.2 and so on."""
        port, addresses = 0, [own]
        for number, answer in enumerate(answers, 2):
            address = f"127.0.0.{number}"
            item = Replica(address, port, answer) if callable(answer) else Silent(address, port, answer)
            started.append(item)
            port = item.port
            addresses.append(address)
        return Peers(f"replicas:{port or 9}", (own, port or 9), FeedbackMetrics(registry), lambda *_: addresses)

    return made


def asked(registry: CollectorRegistry, result: str) -> float:
    return registry.get_sample_value("muelle_feedback_peer_requests_total", {"result": result}) or 0.0


def test_all_others_are_asked_with_the_callers_key_and_told_not_to_ask_on(peers_of, registry, started):
    answers = peers_of(all_of("unmatched"), all_of("matched")).ask(LABELS, HEADERS)
    assert answers == (["matched"] * 3, 0)
    assert asked(registry, "answered") == 2
    for replica in started:
        (seen,) = replica.asked
        assert seen["path"] == "/feedback"
        wanted = {**HEADERS, "X-Muelle-Forwarded": "1", "Content-Type": "application/json"}
        assert wanted.items() <= seen.items()


def test_the_best_of_all_answers_counts_for_each_label(peers_of):
    def of(*results: str) -> Callable[[list[Label]], tuple[int, Any]]:
        return lambda labels: (200, {"results": list(results)})

    peers = peers_of(of("unmatched", "duplicate", "unmatched"), of("matched", "unmatched", "unmatched"))
    assert peers.ask(LABELS, HEADERS) == (["matched", "duplicate", "unmatched"], 0)


def test_a_refusal_keeps_its_place(peers_of):
    document = {"error": "[2].label: expected one of the classes 0, 1, got 7", "code": "unknown_class"}
    with pytest.raises(InputError) as caught:
        peers_of(all_of("matched"), lambda _: (400, document)).ask(LABELS, HEADERS)
    assert (str(caught.value), caught.value.code, caught.value.where) == (
        document["error"],
        "unknown_class",
        "[2].label",
    )


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: (500, {"error": "internal"}),
        lambda _: (401, {"error": "no key"}),
        lambda _: (302, b""),
        lambda _: (200, b"<html>"),
        lambda _: (200, {"results": ["matched"]}),
        lambda _: (200, {"results": ["perhaps"] * 3}),
        lambda _: (200, {"results": None}),
        lambda _: (200, {"results": [[]] * 3}),
        lambda _: (200, []),
        lambda _: (200, {}),
        lambda _: (200, b"[" * 100_000),
        lambda _: (400, {"error": "something else", "code": "x"}),
        lambda _: (400, {"error": "[99999].label: x", "code": "x"}),
        lambda _: (400, {"error": "[7].label: x", "code": "x"}),
        lambda _: (400, b""),
    ],
    ids=range(15),
)
def test_one_that_answers_nonsense_is_as_good_as_none(peers_of, registry, answer, caplog):
    assert peers_of(answer, all_of("matched")).ask(LABELS, HEADERS) == (["matched"] * 3, 1)
    assert (asked(registry, "answered"), asked(registry, "failed")) == (1, 1)
    assert "1 replicas gave no answer: 127.0.0.2: " in caplog.text


@pytest.mark.parametrize("piece", [b"", b" "], ids=["silent", "trickling"])
def test_one_that_hangs_costs_no_more_than_the_time_for_all(peers_of, registry, piece):
    peers = peers_of(piece, all_of("matched"))
    started = time.monotonic()
    assert peers.ask(LABELS, HEADERS) == (["matched"] * 3, 1)
    assert time.monotonic() - started < 2 * ASK_SECONDS
    assert asked(registry, "failed") == 1


def test_no_thread_is_left_behind_by_one_that_trickles(peers_of):
    peers_of(b" ").ask(LABELS, HEADERS)
    deadline = time.monotonic() + 20
    while any(thread.name == "feedback-peer" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_that_is_down_is_counted_and_named_once_a_minute(registry, caplog):
    with socket.create_server(("127.0.0.2", 0)) as listener:
        port = listener.getsockname()[1]
    peers = Peers(f"replicas:{port}", ("127.0.0.1", port), FeedbackMetrics(registry), lambda *_: ["127.0.0.2"])
    for _ in range(5):
        assert peers.ask(LABELS, HEADERS) == (["unmatched"] * 3, 1)
    assert asked(registry, "failed") == 5
    assert len(caplog.records) == 1


def test_it_does_not_ask_itself(registry, started):
    replica = Replica("127.0.0.1", 0, all_of("matched"))
    started.append(replica)

    def peers(host: str, port: int, name: str = "127.0.0.1") -> Peers:
        metrics = FeedbackMetrics(CollectorRegistry())
        return Peers(f"{name}:{replica.port}", (host, port), metrics)

    for host in ("127.0.0.1", "0.0.0.0", "::"):
        assert peers(host, replica.port).ask(LABELS, HEADERS) == (["unmatched"] * 3, 0)
    assert peers("::1", replica.port, "[::1]").ask(LABELS, HEADERS) == (["unmatched"] * 3, 0)
    assert replica.asked == []
    # The same address with another port is another server.
    assert peers("127.0.0.1", replica.port + 1).ask(LABELS, HEADERS) == (["matched"] * 3, 0)


def test_no_more_than_so_many_are_asked(registry):
    addresses = [f"127.0.{number // 250}.{number % 250 + 2}" for number in range(MOST_PEERS + 30)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    own = ("127.0.0.1", port)
    peers = Peers(f"replicas:{port}", own, FeedbackMetrics(registry), lambda *_: [*addresses, *addresses])
    assert peers.ask(LABELS, HEADERS).unreachable == MOST_PEERS


def test_a_name_that_leads_nowhere_is_a_failure(registry):
    def no_such_name(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    peers = Peers("nowhere:8080", ("127.0.0.1", 8080), FeedbackMetrics(registry), no_such_name)
    assert peers.ask(LABELS, HEADERS) == (["unmatched"] * 3, 1)
    assert asked(registry, "failed") == 1


def test_a_name_that_can_be_none_is_a_failure_and_no_traceback(registry, caplog):
    peers = Peers("a..b:8080", ("127.0.0.1", 8080), FeedbackMetrics(registry))
    assert peers.ask(LABELS, HEADERS) == (["unmatched"] * 3, 1)
    assert caplog.messages == ["feedback: 1 replicas gave no answer: the name a..b is not resolved"]


def test_an_address_of_a_family_that_the_kernel_lacks_is_not_our_own(registry, monkeypatch):
    real = socket.socket

    def lacking(family: int, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *arguments)

    peers = Peers("pods:8080", ("0.0.0.0", 8080), FeedbackMetrics(registry), lambda host, port: ["fd00::1"])
    monkeypatch.setattr(socket, "socket", lacking)
    assert peers.ask(LABELS, HEADERS) == (["unmatched"] * 3, 1)


def test_a_name_server_that_hangs_costs_no_more_than_the_time_for_all(registry):
    released = threading.Event()

    def slow(host: str, port: int) -> Sequence[str]:
        released.wait(60)
        return []

    peers = Peers("slow:8080", ("127.0.0.1", 8080), FeedbackMetrics(registry), slow)
    started = time.monotonic()
    assert peers.ask(LABELS, HEADERS) == (["unmatched"] * 3, 1)
    assert time.monotonic() - started < 2 * ASK_SECONDS
    released.set()


def test_addresses_are_looked_up_again_only_after_a_while(registry):
    looked: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        looked.append(host)
        return ["127.0.0.1"]

    peers = Peers("replicas:8080", ("127.0.0.1", 8080), FeedbackMetrics(registry), resolve)
    for _ in range(10):
        peers.ask(LABELS, HEADERS)
    assert looked == ["replicas"]


def test_while_one_request_asks_another_is_put_off(peers_of, started):
    go_on = threading.Event()

    def answer(labels: list[Label]) -> tuple[int, Any]:
        go_on.wait(30)
        return 200, {"results": ["matched"] * len(labels)}

    peers = peers_of(answer)
    thread = threading.Thread(target=peers.ask, args=(LABELS, HEADERS))
    thread.start()
    while not started[0].asked:
        time.sleep(0.01)
    with pytest.raises(OverloadedError):
        peers.ask(LABELS, HEADERS)
    go_on.set()
    thread.join(30)
    assert peers.ask(LABELS, HEADERS) == (["matched"] * 3, 0)
