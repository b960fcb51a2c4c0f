"""More than it can do: shedding with 503, and clients that are slow to speak, to listen, or to leave."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from lifecycle import EIGHT, FOUR, LINEAR, OPERATOR, factor_bundle, scrape, total
from load_client import Load
from raw_client import RawClient
from support import Server

GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
LIVE = b'{"status":"live"}'
#: What cuts slow clients off soon; workers and threads are few, so that a handful of clients could occupy them all.
SMALL = {"MUELLE_REQUEST_TIMEOUT_SECONDS": "2", "MUELLE_WORKERS": "1", "MUELLE_THREADS": "2"}


def test_too_many_requests_are_shed_and_counted_and_probes_are_not(repository: Path, tmp_path: Path) -> None:
    # The forest as scikit-learn runs it: some 20 ms for these rows.
    settings = {
        "MUELLE_ENGINE": "joblib",
        "MUELLE_DEFAULT_MODEL": "iris",
        "MUELLE_WORKERS": "1",
        "MUELLE_MAX_CONCURRENCY": "4",
    }
    rows = {"features": [[5.1, 3.5, 1.4, 0.2]] * 1000}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        with Load(server.port, "/predict", rows, new=8, kept=8, pause_seconds=0.0) as load:
            load.wait_failed(50)
            for _ in range(3):
                assert server.get("/livez").status == 200
                assert server.get("/readyz").status == 200
            # Callers that come back at once keep it as full as can be; those that it lets in are answered.
            load.wait_ok(40)
            tally = load.stop()
        assert tally.failures.keys() == {"status 503"}
        shed = [outcome for outcome in tally.outcomes if outcome.status == 503]
        for outcome in shed:
            assert outcome.headers["retry-after"] == "1"
            assert json.loads(outcome.body) == {
                "error": "4 requests are in hand or waiting; try again later",
                "code": "overloaded",
            }
        found = scrape(server)
        assert total(found, "muelle_shed_total") == total(found, "muelle_shed_total", reason="concurrency") == len(shed)
        assert total(found, "muelle_requests_total", code="503") == len(shed)
        assert total(found, "muelle_requests_total", code="200") == tally.ok
        after = [server.post("/predict", rows).status for _ in range(10)]
        assert after == [200] * 10


@pytest.mark.parametrize("keepalive", ["15", "0"])
def test_clients_that_say_nothing_are_served_when_they_speak_and_hold_up_nobody(
    keepalive: str, repository: Path, tmp_path: Path
) -> None:
    with Server(repository, tmp_path, SMALL | {"MUELLE_KEEPALIVE_SECONDS": keepalive}) as server:
        server.wait_ready()
        silent = [RawClient(server.port) for _ in range(20)]
        try:
            assert [server.post(LINEAR, FOUR).status for _ in range(5)] == [200] * 5
            for client in silent:
                assert client.send(GET)
            for client in silent:
                assert client.read_until(LIVE).startswith(b"HTTP/1.1 200 OK\r\n")
        finally:
            for client in silent:
                client.socket.close()


def test_clients_that_do_not_close_hold_up_nobody(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, SMALL | {"MUELLE_KEEPALIVE_SECONDS": "0"}) as server:
        server.wait_ready()
        # gunicorn would wait for each of these in its main loop, two seconds at a time.
        requests = [GET, GET[:-2] + b"Connection: close\r\n\r\n", b"nonsense\r\n\r\n"] * 10
        held = [RawClient(server.port, request) for request in requests]
        try:
            started = time.monotonic()
            assert [server.post(LINEAR, FOUR).status for _ in range(5)] == [200] * 5
            assert time.monotonic() - started < len(held)
            answers = [client.read_to_end() for client in held]
            assert [answer[9:12] for answer in answers] == [b"200", b"200", b"400"] * 10
        finally:
            for client in held:
                client.socket.close()
        assert server.get("/livez").status == 200


def test_clients_that_dribble_are_cut_off_and_others_are_served(repository: Path, tmp_path: Path) -> None:
    body = json.dumps(FOUR).encode()
    head = f"POST {LINEAR} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".encode()
    with Server(repository, tmp_path, SMALL) as server:
        server.wait_ready()
        pid = server.workers()
        # More of them than threads, and they come when all threads are free.
        dribblers = [RawClient(server.port, first) for first in (head, head[:10]) * 3]
        try:
            with Load(server.port, LINEAR, FOUR, new=1, kept=1) as load:
                load.wait_ok(1)
                open_ones = list(dribblers)
                deadline = time.monotonic() + 40
                while open_ones and time.monotonic() < deadline:
                    open_ones = [client for client in open_ones if client.send(b"a")]
                    time.sleep(0.1)
                assert open_ones == []
                load.wait_ok(20)
                tally = load.stop()
            assert tally.failures == {}
            assert server.request("POST", LINEAR, body).status == 200
        finally:
            for client in dribblers:
                client.socket.close()
        assert server.workers() == pid
        assert server.stop() == 0
        cut = [line for line in server.log() if line.get("path") == LINEAR and line["status"] == 400]
        assert len(cut) == 3
        assert not [line for line in server.log() if line["level"] in ("error", "critical")]


def test_clients_that_do_not_read_their_answer_are_cut_off(tmp_path: Path) -> None:
    factor_bundle(tmp_path / "models")
    # An answer of some 7 MB is more than the kernel holds for the server.
    rows = json.dumps({"features": [[i + 0.123456789012345] for i in range(400_000)]}).encode()
    request = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(rows) + rows
    settings = OPERATOR | SMALL | {"MUELLE_REQUEST_TIMEOUT_SECONDS": "1", "MUELLE_MAX_ROWS": "400000"}
    with Server(tmp_path / "models", tmp_path, settings) as server:
        server.wait_ready()
        pid = server.workers()
        whole = len(server.request("POST", "/predict", rows).body)
        # As many as there are threads.
        clients = [RawClient(server.port, request, buffer_bytes=4096) for _ in range(2)]
        try:
            server.wait_for(lambda: server.post("/predict", FOUR).json == EIGHT, "to serve others again")
            # One was cut to make room; the other one may have been read here before its time had come.
            answers = [client.read_to_end(enough=whole) for client in clients]
            assert min(map(len, answers)) < whole
        finally:
            for client in clients:
                client.socket.close()
        # A thread that waits for its client is not one that is stuck in a model.
        assert server.workers() == pid
        assert server.stop() == 0
        assert not [line for line in server.log() if line["level"] == "critical"]
