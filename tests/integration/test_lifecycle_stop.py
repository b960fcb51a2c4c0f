"""SIGTERM: what was accepted is answered, what comes later is refused, and all is over in time with exit code 0."""

from __future__ import annotations

import select
import signal
import time
from pathlib import Path

from lifecycle import (
    EIGHT,
    FOUR,
    LINEAR,
    OPERATOR,
    factor_bundle,
    gated_bundle,
    scrape,
    total,
    wait_gone,
    wait_loads,
    wait_workers,
)
from load_client import Load
from raw_client import RawClient
from support import Server

GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
LIVE = b'{"status":"live"}'


def test_a_stop_under_load_loses_nothing_that_was_accepted(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path) as server:
        server.wait_ready()
        wait_loads(server, 6)
        load = Load(server.port, LINEAR, FOUR, new=4, kept=4, pause_seconds=0.0, until_refused=True)
        with load:
            load.wait_ok(200)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            tally = load.join()
        assert server.process.wait(40) == 0
    # Nor is anybody forgotten who came between the worker's last look into the kernel's queue and closing it.
    assert tally.failures == {}
    assert (tally.dropped, tally.refused) == (0, 8)
    lines = server.log()
    answered = [line for line in lines if line["message"] == "request" and line["path"] == LINEAR]
    assert len(answered) == tally.ok
    assert not [line for line in lines if line["level"] in ("warning", "error", "critical")]


def test_a_kept_connection_is_served_once_more_after_the_word_to_stop(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path) as server:
        server.wait_ready()
        with RawClient(server.port, GET) as kept:
            assert b"Connection: keep-alive\r\n" in kept.read_until(LIVE)
            assert server.process is not None
            told = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(lambda: is_refused(server.port), "to refuse")
            # gunicorn itself would have closed it two seconds after the signal.
            assert not select.select([kept.socket], [], [], max(0.0, told + 3 - time.monotonic()))[0]
            assert kept.send(GET)
            answer = kept.read_to_end()
        assert server.process.wait(40) == 0
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(LIVE)


def test_a_stop_waits_for_requests_at_every_stage(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    factor_bundle(tmp_path / "models", predict_gate=str(gate))
    with Server(tmp_path / "models", tmp_path, OPERATOR | {"MUELLE_WORKERS": "1"}) as server:
        server.wait_ready()
        body = b'{"features": [1000.0]}'
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        with (
            RawClient(server.port, head + body) as in_a_thread,
            RawClient(server.port, head[:20]) as in_its_headers,
            RawClient(server.port) as silent,
            RawClient(server.port, head + body) as in_the_queue,
        ):
            server.wait_for(lambda: all_are_accepted(server.port), "to have accepted all")
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(lambda: is_refused(server.port), "to refuse")
            assert silent.send(GET)
            assert in_its_headers.send(head[20:] + body)
            gate.touch()
            for client in (in_a_thread, in_its_headers, in_the_queue):
                answer = client.read_to_end()
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert answer.endswith(b'{"prediction":2000.0}')
            assert silent.read_to_end().endswith(LIVE)
        assert server.process.wait(40) == 0


def test_a_client_that_says_nothing_does_not_hold_up_the_end(repository: Path, tmp_path: Path) -> None:
    settings = {"MUELLE_KEEPALIVE_SECONDS": "120", "MUELLE_GRACEFUL_TIMEOUT_SECONDS": "60"}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        with RawClient(server.port) as silent, RawClient(server.port, GET) as kept:
            assert kept.read_until(LIVE).startswith(b"HTTP/1.1 200 OK\r\n")
            # Server.stop allows 40 seconds, of which this should take about eight.
            assert server.stop() == 0
            assert silent.read_to_end() + kept.read_to_end() == b""


def test_requests_in_hand_at_the_graceful_limit_end_with_the_server(tmp_path: Path) -> None:
    factor_bundle(tmp_path / "models", predict_gate=str(tmp_path / "never"))
    with Server(tmp_path / "models", tmp_path, OPERATOR | {"MUELLE_GRACEFUL_TIMEOUT_SECONDS": "1"}) as server:
        server.wait_ready()
        assert server.post("/predict", FOUR).json == EIGHT
        body = b'{"features": [1000.0]}'
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        with RawClient(server.port, head + body) as client:
            server.wait_for(lambda: total(scrape(server), "muelle_requests_in_progress") == 1, "busy")
            assert server.stop() == 0
            assert client.read_to_end() == b""


def test_no_worker_outlives_an_arbiter_that_was_killed_while_they_loaded(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gated_bundle(tmp_path / "models", gate)
    with Server(tmp_path / "models", tmp_path, OPERATOR) as server:
        # One worker listens and one doesn't yet, which waits for itself and for the other.
        server.wait_answering()
        workers = wait_workers(server, 2)
        assert server.process is not None
        server.process.kill()
        server.process.wait(10)
        wait_gone(workers)
    assert is_refused(server.port)


def test_without_the_arbiter_new_clients_are_refused_and_those_that_are_connected_told(
    repository: Path, tmp_path: Path
) -> None:
    with Server(repository, tmp_path) as server:
        server.wait_ready()
        wait_loads(server, 6)
        workers = server.workers()
        with RawClient(server.port, GET) as kept:
            kept.read_until(LIVE)
            assert server.process is not None
            server.process.kill()
            server.process.wait(10)
            deadline = time.monotonic() + 20
            while not is_refused(server.port):
                assert time.monotonic() < deadline, "the port is still open"
                time.sleep(0.05)
            assert kept.send(GET)
            answer = kept.read_to_end()
        wait_gone(workers)
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(LIVE)


def all_are_accepted(port: int) -> bool:
    """Whether nobody waits in the kernel's queue any more; /proc/net/tcp has its length as a listener's rx_queue."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port and fields[3] == "0A":
            return int(fields[4].partition(":")[2], 16) == 0
    return False


def is_refused(port: int) -> bool:
    try:
        with RawClient(port):
            return False
    except ConnectionRefusedError:
        return True
