"""The second port: what it answers, whom it cuts off, and what it says when it can't be had."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from raw_client import RawClient

from muelle.errors import SettingsError
from service import metrics_server
from service.metrics import Metrics
from service.metrics_server import listen, metrics_companion, serve
from service.slots import install_slot_values, prepare_directory

GET = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a metrics folder in which worker 0 has counted one shed request."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "elsewhere")
    prepare_directory(tmp_path)
    install_slot_values(tmp_path, lambda: 0)
    Metrics(CollectorRegistry(), tmp_path).shed("concurrency")
    return tmp_path


@pytest.fixture
def port(directory: Path) -> Iterator[int]:
    stop = threading.Event()
    listener = listen("127.0.0.1", 0)
    number = int(listener.getsockname()[1])
    serving = threading.Thread(target=serve, args=(listener, directory, stop))
    serving.start()
    yield number
    stop.set()
    serving.join(30)
    assert not serving.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number), timeout=5)


def ask(port: int, method: str = "GET", path: str = "/metrics", accept: str | None = None) -> tuple[int, str, str]:
    """Return status, content type and body of an answer, whose length is as promised."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, headers={} if accept is None else {"Accept": accept})
        response = connection.getresponse()
        body = response.read()
        assert method == "HEAD" or int(response.headers["Content-Length"]) == len(body)
        assert response.headers["Connection"] == "close"
        return response.status, response.headers["Content-Type"], body.decode()


@pytest.mark.parametrize("accept", [None, "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0"])
def test_it_answers_in_the_format_that_is_asked_for(accept: str | None, port: int) -> None:
    status, content_type, page = ask(port, accept=accept)
    openmetrics = accept is not None and "openmetrics" in accept
    assert status == 200
    assert content_type.startswith("application/openmetrics-text" if openmetrics else "text/plain")
    samples = {
        sample.name: sample.value
        for family in (parse_openmetrics if openmetrics else parse_classic)(page)
        for sample in family.samples
    }
    assert samples["muelle_shed_total"] == 1


def test_head_is_the_same_without_the_body(port: int) -> None:
    assert ask(port, "HEAD")[::2] == (200, "")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/predict", "/readyz", "//metrics"])
def test_nothing_else_is_there(path: str, port: int) -> None:
    assert ask(port, path=path) == (404, "text/plain; charset=utf-8", "only /metrics is here\n")


def test_a_query_changes_nothing(port: int) -> None:
    assert ask(port, path="/metrics?x=1")[0] == 200


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_only_get_and_head_are_answered(method: str, port: int) -> None:
    with RawClient(port, f"{method} /metrics HTTP/1.1\r\nHost: a\r\n\r\n".encode()) as client:
        answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"\x00\xff\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(data: bytes, port: int) -> None:
    with RawClient(port) as client:
        client.send(data)
        answer = client.read_to_end()
    # One that says more than is read may be reset before it has read the answer.
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") or (answer == b"" and len(data) > 65_536)
    assert ask(port)[0] == 200


def test_a_client_that_leaves_disturbs_nobody(port: int) -> None:
    for data in (b"", b"GET /met", GET):
        with RawClient(port, data):
            pass
    assert ask(port)[0] == 200


def test_a_slow_client_is_cut_off_and_holds_up_nobody(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawClient(port, b"GET /metrics HTTP/1.1\r\nX-Slow: ") as slow:
        assert ask(port)[0] == 200
        slow.send(b"still there")
        with monkeypatch.context() as hasty:
            hasty.setattr(metrics_server, "_PATIENCE_SECONDS", 0.1)
            with RawClient(port, b"GET /m") as other:
                assert other.read_to_end() == b""
        assert ask(port)[0] == 200


def test_no_more_connections_than_a_bound_are_held(port: int) -> None:
    held = [RawClient(port, b"GET /m") for _ in range(metrics_server._MAX_CONNECTIONS)]
    with RawClient(port, GET) as one_too_many:
        assert one_too_many.read_to_end() == b""
    for client in held:
        client.send(b"etrics HTTP/1.1\r\n\r\n")
        assert client.read_to_end().startswith(b"HTTP/1.1 200 OK\r\n")
        client.socket.close()
    assert ask(port)[0] == 200


def test_a_port_that_is_taken_is_named(directory: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(SettingsError) as raised:
            metrics_companion("127.0.0.1", number, directory)
    assert str(raised.value) == (
        f"MUELLE_METRICS_PORT: expected a port that is free on 127.0.0.1, got {number}: Address already in use"
    )


@pytest.mark.parametrize(("host", "asked"), [("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1"), ("localhost", None)])
def test_it_listens_where_the_server_does(host: str, asked: str | None) -> None:
    with listen(host, 0) as listener:
        address = listener.getsockname()
        with socket.create_connection((asked or address[0], address[1]), timeout=30):
            listener.accept()[0].close()
